//! The settings that can be changed during a conversation, and their values.

use anyhow::Result;
use minke_chat::SamplingOptions;
use minke_engine::SamplingParams;

use super::commands::nearest;
use crate::error::Exit;

/// Names of the settings.
pub const NAMES: [&str; 7] = ["temperature", "top_p", "top_k", "min_p", "seed", "max_tokens", "budget"];

/// Changes a setting.
///
/// # Errors
/// If there is no such setting, or its value is out of range.
pub fn set(sampling: &mut SamplingOptions, name: &str, value: &str) -> Result<()> {
    let mut changed = sampling.clone();
    let understood = match name {
        "temperature" => optional(value, &mut changed.temperature),
        "top_p" => optional(value, &mut changed.top_p),
        "top_k" => optional(value, &mut changed.top_k),
        "min_p" => optional(value, &mut changed.min_p),
        "max_tokens" => optional(value, &mut changed.max_tokens),
        "budget" => optional(value, &mut changed.think_budget),
        "seed" => value.parse().map(|seed| changed.seed = seed).is_ok(),
        _ => {
            let meant = nearest(name, NAMES.into_iter());
            let advice = meant.map_or("/set lists them".into(), |meant| format!("did you mean {meant}?"));
            return Err(Exit::Usage.because(format!("{name}: no such setting; {advice}")));
        }
    };
    if !understood {
        return Err(Exit::Usage.because(format!("{value}: is not a value for {name}; give a number, or default")));
    }
    changed.validate()?;
    *sampling = changed;
    Ok(())
}

/// Every setting with its value, and whose it is.
pub fn list(sampling: &SamplingOptions, params: &SamplingParams, limit: usize) -> String {
    let own = |set: bool| if set { "" } else { "  (the model's)" };
    let row = |name: &str, value: String, note: &str| format!("{name:12} {value}{note}");
    let budget = sampling.think_budget.map_or("none".into(), |budget| budget.to_string());
    [
        row(NAMES[0], params.temperature.to_string(), own(sampling.temperature.is_some())),
        row(NAMES[1], params.top_p.to_string(), own(sampling.top_p.is_some())),
        row(NAMES[2], params.top_k.to_string(), own(sampling.top_k.is_some())),
        row(NAMES[3], params.min_p.to_string(), own(sampling.min_p.is_some())),
        row(NAMES[4], params.seed.to_string(), "  (of the next answer)"),
        row(NAMES[5], params.max_tokens.min(limit).to_string(), own(sampling.max_tokens.is_some())),
        row(NAMES[6], budget, "  (tokens of a thought)"),
    ]
    .join("\n")
}

fn optional<T: std::str::FromStr>(value: &str, setting: &mut Option<T>) -> bool {
    if value == "default" {
        *setting = None;
        return true;
    }
    value.parse().map(|value| *setting = Some(value)).is_ok()
}
