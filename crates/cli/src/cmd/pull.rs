//! `minke pull`: a model from the Hub, or a server in its language, into the cache; whole or not at all.

use anyhow::Result;
use minke_hub::{Absent, Hub, ModelName, Progress, pull};
use serde_json::json;

use super::{print_json, print_line};
use crate::args::Pull;
use crate::environment;
use crate::error::Exit;
use crate::interrupt::Interrupt;
use crate::progress::Bar;

/// Runs `minke pull`.
pub fn run(args: &Pull) -> Result<()> {
    let mut model = ModelName::parse(&args.name)?;
    if let Some(revision) = &args.revision {
        model = model.at(revision)?;
    }
    if !model.to_string().eq_ignore_ascii_case(&args.name) {
        eprintln!("minke: {} is {model}", args.name);
    }
    let cache = environment::cache();
    let path = if args.offline || environment::is_offline() {
        cache.find(&model).map_err(|absent| not_here(&model, absent, args.offline))?
    } else {
        Interrupt::ends_at_once()?;
        let hub = Hub::new(&environment::endpoint(), environment::token())?;
        let mut bar: Option<Bar> = None;
        let mut say = |Progress { file, bytes, of }: Progress<'_>| {
            bar.get_or_insert_with(|| Bar::bytes("pull", bytes, of)).set(bytes, file);
        };
        let path = pull(&hub, &cache, &model, &mut say)?;
        if let Some(bar) = bar {
            bar.finish(&model.to_string());
        }
        path
    };
    if args.output.json {
        print_json(&json!({ "name": model.to_string(), "path": path }))
    } else {
        print_line(&path.display().to_string())
    }
}

/// The message about a model that is not in the cache where no server may be asked.
fn not_here(model: &ModelName, absent: Absent, by_flag: bool) -> anyhow::Error {
    let advice =
        if by_flag { "run the same command without --offline" } else { "HF_HUB_OFFLINE forbids to download it" };
    let reason = match absent {
        Absent::Unknown => format!("not downloaded; {advice}"),
        Absent::Incomplete(file) => format!("downloaded in part, {file} is missing; {advice}"),
        Absent::Several(names) => format!("several quantizations of it are here; give one of {}", names.join(", ")),
    };
    Exit::BadFile.because(format!("{model}: {reason}"))
}
