//! The TOML of a run, and the folder of what it makes.

use std::path::{Path, PathBuf};

use anyhow::Result;
use minke_train::RunConfig;
use minke_weights::{ADAPTER_CONFIG_FILE, CONFIG_FILE};

use crate::error::Exit;
use crate::files::read_text;

/// What `minke train` writes first into the folder of a run.
const RECORD: &str = "run.json";

/// A run, with some values of its TOML replaced.
///
/// # Errors
/// If there is no such file, or it is not the TOML of a run.
pub fn load(path: &Path, sets: &[(String, String)]) -> Result<RunConfig> {
    let bad = |reason: String| Exit::BadFile.because(format!("{}: {reason}", path.display()));
    if !path.is_file() {
        let advice = "give the TOML of a run, such as runs/first-light.toml";
        return Err(bad(format!("{}; {advice}", if path.exists() { "is a folder" } else { "no such file" })));
    }
    if sets.is_empty() {
        return Ok(RunConfig::load(path)?);
    }
    let parsed: std::result::Result<toml::Table, _> = read_text(path)?.parse();
    let mut run = toml::Value::Table(parsed.map_err(|error| bad(error.message().to_owned()))?);
    for (key, text) in sets {
        set(&mut run, key, text).map_err(|reason| Exit::Usage.because(format!("--set {key}={text}: {reason}")))?;
    }
    let text = toml::to_string(&run).expect("invariant: what was TOML is TOML");
    RunConfig::from_toml(&text).map_err(|error| bad(format!("after --set: {error}")))
}

/// The folder of a run for which none was given.
pub fn default_folder(run: &RunConfig) -> PathBuf {
    Path::new("out").join(&run.name)
}

/// The folder of the model that a stage made.
pub fn model_folder(out: &Path, stage: &str) -> PathBuf {
    out.join("stages").join(stage).join("model")
}

/// The folder of the adapter that a stage made.
pub fn adapter_folder(out: &Path, stage: &str) -> PathBuf {
    out.join("stages").join(stage).join("adapter")
}

/// Whether a folder is that of a run.
pub fn is_run(folder: &Path) -> bool {
    folder.join(RECORD).is_file()
}

/// The last stage of a run that is finished and made a model, and the folder of that model.
///
/// # Errors
/// If the record of the run cannot be read, or no stage is finished.
pub fn newest_model(out: &Path) -> Result<(String, PathBuf)> {
    let path = out.join(RECORD);
    let bad = |reason: String| Exit::BadFile.because(format!("{}: {reason}", path.display()));
    let record: serde_json::Value = serde_json::from_str(&read_text(&path)?)
        .map_err(|error| bad(format!("is not the record of a run ({error})")))?;
    let stages = record["config"]["stage"].as_array().ok_or_else(|| bad("names no stages".into()))?;
    let names = stages.iter().rev().filter_map(|stage| stage["name"].as_str());
    let made = |name: &str| {
        let (model, adapter) = (model_folder(out, name), adapter_folder(out, name));
        let found = if adapter.join(ADAPTER_CONFIG_FILE).is_file() { adapter } else { model };
        (name.to_owned(), found)
    };
    let is_there = |found: &Path| found.join(CONFIG_FILE).is_file() || found.join(ADAPTER_CONFIG_FILE).is_file();
    names.map(made).find(|(_, found)| is_there(found)).ok_or_else(|| {
        Exit::BadFile.because(format!("{}: no stage of this run is finished; go on with minke train", out.display()))
    })
}

/// Replaces one value. The elements of an array of tables are found by their name.
fn set(run: &mut toml::Value, key: &str, text: &str) -> std::result::Result<(), String> {
    let mut place = run;
    for part in key.split('.') {
        place = match place {
            toml::Value::Table(table) => {
                table.entry(part.to_owned()).or_insert_with(|| toml::Value::Table(toml::Table::new()))
            }
            toml::Value::Array(elements) => {
                let named =
                    |element: &&mut toml::Value| element.get("name").and_then(toml::Value::as_str) == Some(part);
                elements.iter_mut().find(named).ok_or_else(|| format!("the run has nothing called {part:?} there"))?
            }
            _ => return Err(format!("there is nothing below a plain value, so no {part:?}")),
        };
    }
    let parsed: std::result::Result<toml::Table, _> = format!("value = {text}").parse();
    let value = parsed.ok().and_then(|mut table| table.remove("value"));
    *place = value.unwrap_or_else(|| toml::Value::String(text.to_owned()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "seed = 1\n[model]\nhidden_size = 8\n[[stage]]\nname = \"base\"\nsteps = 5\n";

    fn after(key: &str, text: &str) -> std::result::Result<toml::Value, String> {
        let mut run = toml::Value::Table(RUN.parse().unwrap());
        set(&mut run, key, text).map(|()| run)
    }

    #[test]
    fn values_are_replaced_where_the_key_leads() {
        assert_eq!(after("seed", "2").unwrap()["seed"].as_integer(), Some(2));
        assert_eq!(after("stage.base.steps", "7").unwrap()["stage"][0]["steps"].as_integer(), Some(7));
        assert_eq!(after("model.rope.theta", "1e4").unwrap()["model"]["rope"]["theta"].as_float(), Some(1e4));
        assert_eq!(after("name", "other one").unwrap()["name"].as_str(), Some("other one"));
        assert!(after("stage.bose.steps", "7").unwrap_err().contains("bose"));
        assert!(after("seed.deep", "7").unwrap_err().contains("plain value"));
    }
}
