//! Where the model lies that an argument means: at a path, in the folder of a run, or in the cache under its name.

use std::path::{Path, PathBuf};

use anyhow::{Error, Result};
use minke_chat::locate;
use minke_hub::{Absent, ModelName, nearest_short_name};
use minke_weights::{ADAPTER_CONFIG_FILE, AdapterConfig, CONFIG_FILE};

use crate::error::Exit;
use crate::{environment, runs};

/// What was found for an argument.
pub enum Located {
    /// A folder or a GGUF file.
    Here(PathBuf),
    /// The name of a model that is not in the cache, or not whole, and what to say about it.
    Elsewhere(ModelName, Error),
}

/// The path of a model. Of a run, the model of its newest finished stage, which one line on stderr names.
///
/// # Errors
/// If it is neither a path nor a model that was downloaded.
pub fn model(argument: &Path) -> Result<PathBuf> {
    match find(argument)? {
        Located::Here(path) => Ok(path),
        Located::Elsewhere(_, error) => Err(error),
    }
}

/// As [`model`], and tells names of models that are elsewhere from what is no name. A path that exists wins.
///
/// # Errors
/// If it is neither a path nor a name.
pub fn find(argument: &Path) -> Result<Located> {
    if argument.is_dir() {
        return of_folder(argument).map(Located::Here);
    }
    if argument.extension().is_some_and(|extension| extension == "toml") {
        let run = runs::load(argument, &[])?;
        let out = runs::default_folder(&run);
        if !runs::is_run(&out) {
            let (run, out) = (argument.display(), out.display());
            return Err(Exit::BadFile.because(format!("{run}: {out} holds no run yet; minke train {run}")));
        }
        return newest_of(&out).map(Located::Here);
    }
    let text = argument.to_string_lossy();
    let none = |reason: &str| Exit::BadFile.because(format!("{text}: no such file or folder{reason}"));
    let near = nearest_short_name(&text).filter(|near| !near.eq_ignore_ascii_case(&text));
    let (name, absent) = match locate(&text, &environment::cache()) {
        Ok(path) => return Ok(Located::Here(path)),
        Err(minke_chat::Error::NotDownloaded { name, absent }) => (*name, absent),
        Err(minke_chat::Error::Name(error)) => {
            return Err(match (near, error) {
                // A text with a colon, or with a known beginning, was meant as a name: the error says why it is none.
                (_, minke_hub::Error::Name { reason, .. }) if text.contains(':') || text.starts_with("deepseek-r1") => {
                    Exit::BadFile.because(format!("{text}: {reason}"))
                }
                (Some(near), _) => none(&format!("; did you mean {near}?")),
                (None, _) => none("; check the spelling"),
            });
        }
        Err(error) => return Err(error.into()),
    };
    let pull = if text == name.to_string() { String::new() } else { format!(", which is {name}") };
    let error = match absent {
        Absent::Unknown => match near.filter(|near| ModelName::parse(near).is_ok_and(|near| near.repo != name.repo)) {
            Some(near) => none(&format!(", and not downloaded; did you mean {near}?")),
            None => none(&format!(", and not downloaded; check the spelling, or: minke pull {text}{pull}")),
        },
        Absent::Incomplete(file) => Exit::BadFile
            .because(format!("{text}: was downloaded in part, {file} is missing; complete it with: minke pull {text}")),
        Absent::Several(names) => {
            let names = names.join(", ");
            return Err(
                Exit::Usage.because(format!("{text}: several quantizations of it are here; give one of {names}"))
            );
        }
    };
    Ok(Located::Elsewhere(name, error))
}

/// The model of a folder: the folder itself unless it is that of a run or of a stage.
fn of_folder(folder: &Path) -> Result<PathBuf> {
    if folder.join(CONFIG_FILE).exists() {
        return Ok(folder.into());
    }
    let (of_stage, adapter) = (folder.join("model"), folder.join("adapter"));
    match () {
        () if runs::is_run(folder) => newest_of(folder),
        () if of_stage.join(CONFIG_FILE).exists() => Ok(of_stage),
        () if adapter.join(ADAPTER_CONFIG_FILE).exists() => Ok(adapter),
        () => Ok(folder.into()),
    }
}

/// The path of the model beside which an adapter stands; nothing if the path is not that of an adapter.
///
/// # Errors
/// If the adapter does not say which it is, or that one is not here.
pub fn base_of_adapter(path: &Path) -> Result<Option<PathBuf>> {
    if path.join(CONFIG_FILE).exists() || !path.join(ADAPTER_CONFIG_FILE).exists() {
        return Ok(None);
    }
    let bad = |reason: String| Exit::BadFile.because(format!("{}: {reason}", path.display()));
    let Some(base) = AdapterConfig::read(path)?.base_model else {
        return Err(bad("the adapter names no base; give the model, and the folder with --adapter".into()));
    };
    match find(Path::new(&base)) {
        Ok(Located::Here(found)) if base_of_adapter(&found)?.is_some() => {
            Err(bad(format!("its base {base} is an adapter")))
        }
        Ok(Located::Here(found)) => Ok(Some(found)),
        Ok(Located::Elsewhere(_, error)) | Err(error) => {
            Err(bad(format!("its base is not here ({error:#}); give the model, and the folder with --adapter")))
        }
    }
}

fn newest_of(out: &Path) -> Result<PathBuf> {
    let (stage, model) = runs::newest_model(out)?;
    eprintln!("minke: {}: the newest model is that of stage {stage}, {}", out.display(), model.display());
    Ok(model)
}

/// Tells a model from the first word of a question: a path that exists or looks like one, or what can name a model.
pub fn is_meant_as_model(word: &str) -> bool {
    looks_like_a_path(word) || ModelName::parse(word).is_ok() || nearest_short_name(word).is_some()
}

fn looks_like_a_path(text: &str) -> bool {
    let ends = [".gguf", ".safetensors", ".json", ".toml", ".bin"].iter().any(|end| text.ends_with(end));
    let exists = Path::new(text).is_dir() || ends && Path::new(text).exists();
    exists || !text.contains(char::is_whitespace) && (text.contains('/') || ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_told_from_a_model() {
        for question in ["make 24 from 3 8 1", "hello", "what is 24/3 ?", "LICENSE-MIT"] {
            assert!(!is_meant_as_model(question), "{question}");
        }
        for model in [
            "models/frist-light",
            "./model",
            "/",
            "r1.gguf",
            "Cargo.toml",
            "r1",
            "deepseek-r1",
            "deepseek-r1:7b",
            "r1-distil-qwen-7b",
            "hf.co/a/b",
            "https://huggingface.co/a/b",
        ] {
            assert!(is_meant_as_model(model), "{model}");
        }
    }
}
