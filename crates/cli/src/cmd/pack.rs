//! `minke pack`: a copy of a model's weights as products read them, which loading maps.

use std::cell::RefCell;
use std::time::Instant;

use anyhow::{Context, Result};
use minke_chat::gigabytes;
use serde_json::json;

use super::convert::MEGABYTE;
use super::{open, print_json, print_line};
use crate::args::Pack;
use crate::environment;
use crate::error::Exit;
use crate::interrupt::Interrupt;
use crate::progress::Bar;

/// Runs `minke pack`.
pub fn run(args: &Pack) -> Result<()> {
    let (begun, device) = (Instant::now(), args.compute.device()?);
    let archive = open(&args.model.path()?)?;
    let folder = environment::packed().context("no place for packed copies: set XDG_CACHE_HOME or HOME")?;
    if args.remove {
        let path = folder.path(&archive).filter(|path| path.exists());
        let none = || Exit::BadFile.because(format!("{}: has no packed copy", archive.path.display()));
        let path = path.ok_or_else(none)?;
        let bytes = std::fs::metadata(&path).map_or(0, |data| data.len());
        std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        if args.output.json {
            return print_json(&json!({ "path": path, "freed_bytes": bytes }));
        }
        return print_line(&format!("{}: removed, {} freed", path.display(), gigabytes(bytes)));
    }
    archive.check_weights()?;
    let bytes = archive.packed_bytes(&device)?;
    if bytes == 0 {
        let reason = "has no weights that are packed: their formats are read as they lie in the file";
        return Err(Exit::BadFile.because(format!("{}: {reason}", archive.path.display())));
    }
    let (interrupt, bar) =
        (Interrupt::install_with_terminate()?, RefCell::new(Bar::new("MB packed", 0, bytes.div_ceil(MEGABYTE))));
    let path = folder.pack(&archive, &device, &|done| {
        bar.borrow_mut().set(done / MEGABYTE, "");
        !interrupt.is_raised()
    })?;
    bar.into_inner().finish("");
    let seconds = begun.elapsed().as_secs_f64();
    if args.output.json {
        return print_json(&json!({ "path": path, "bytes": bytes, "seconds": seconds }));
    }
    let size = gigabytes(bytes);
    print_line(&format!("{}: {size} in {seconds:.1} s; loading this model maps it from now on", path.display()))
}
