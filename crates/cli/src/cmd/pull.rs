//! How does a model get here? From a server in the Hub's language into the cache, whole or not at all.

use anyhow::Result;
use minke_hub::{Hub, Progress, pull};
use serde_json::json;

use super::{print_json, print_line};
use crate::args::Pull;
use crate::error::Exit;
use crate::interrupt::Interrupt;
use crate::progress::Bar;

/// Runs `minke pull`.
pub fn run(args: &Pull) -> Result<()> {
    let Pull { model, revision, cache, .. } = args;
    let path = if args.offline {
        cache.find(model, revision).ok_or_else(|| {
            Exit::BadFile.because(format!("{model}: not downloaded; run the same command without --offline"))
        })?
    } else {
        Interrupt::ends_at_once()?;
        let hub = Hub::new(&args.endpoint, args.token.clone())?;
        let mut bar: Option<Bar> = None;
        let mut say = |Progress { file, bytes, of }: Progress<'_>| {
            bar.get_or_insert_with(|| Bar::bytes("pull", bytes, of)).set(bytes, file);
        };
        let path = pull(&hub, cache, model, revision, &mut say)?;
        if let Some(bar) = bar {
            bar.finish(&model.to_string());
        }
        path
    };
    if args.json {
        print_json(&json!({ "name": model.to_string(), "path": path }))
    } else {
        print_line(&path.display().to_string())
    }
}
