//! Checkpoints: the weights that are trained, optimizer state and where the stage stands, with checksums; all that is needed to go on.
//!
//! A checkpoint is a folder that appears under its name when all of it is on the disk. Two are kept; the newest whose
//! checksums hold wins. `sha256sum -c SHA256SUMS` in the folder says the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use minke_model::Transformer;
use minke_sys::atomic;
use minke_tensor::{Device, Param, Tensor};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use crate::files;
use crate::stage::Progress;
use crate::trainer::Trainer;
use crate::{Error, Result};

/// Version of the layout of a checkpoint.
const SCHEMA_VERSION: u32 = 1;
/// How many are kept: one to go on from, one in case it is damaged.
const KEPT: usize = 2;

const WEIGHTS: &str = "weights.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const REFERENCE: &str = "reference.safetensors";
const STATE: &str = "state.json";
const CHECKSUMS: &str = "SHA256SUMS";

/// Where a stage stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Version of the layout.
    pub schema_version: u32,
    /// Hash of all configuration that the stage depends on.
    pub config_hash: String,
    /// The stage.
    pub stage: String,
    /// Steps done.
    pub step: u64,
    /// Number of the data that comes next.
    pub cursor: u64,
    /// Steps that were skipped one after the other up to here.
    pub skipped_in_a_row: u32,
    /// Updates that the optimizer made.
    pub updates: u64,
    /// Lengths of the logs of the stage, in bytes.
    pub log_bytes: [u64; 4],
}

impl State {
    /// The state of a stage that has not begun.
    pub(crate) fn start(stage: &str, config_hash: String) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            config_hash,
            stage: stage.to_owned(),
            step: 0,
            cursor: 0,
            skipped_in_a_row: 0,
            updates: 0,
            log_bytes: [0; 4],
        }
    }

    /// Where the stage stands.
    pub(crate) fn progress(&self) -> Progress {
        Progress { step: self.step, cursor: self.cursor }
    }
}

/// Writes a checkpoint into the folder of checkpoints and removes those that are not needed any more.
///
/// # Errors
/// If a file cannot be written; older checkpoints are then as they were.
pub fn save(folder: &Path, trainer: &Trainer, state: &State) -> Result<()> {
    files::make_folder(folder)?;
    atomic::replace_folder(&folder.join(name_of(state.step)), |inside| -> Result<()> {
        let mut sums = String::new();
        let mut put = |name: &str, bytes: &[u8]| {
            sums += &format!("{}  {name}\n", files::sha256(bytes));
            atomic::write_new(&inside.join(name), bytes)
        };
        let of_model = |model: &Transformer| {
            let params = model.params();
            let trained = params.iter().filter(|param| !param.is_frozen());
            pack(trained.map(|param| (param.name().to_owned(), param.value())))
        };
        put(WEIGHTS, &of_model(&trainer.model))?;
        let tensors = trainer.optimizer.tensors(&trainer.model);
        put(OPTIMIZER, &pack(tensors.into_iter()))?;
        if let Some(reference) = &trainer.reference {
            put(REFERENCE, &of_model(reference))?;
        }
        put(STATE, &files::json(state))?;
        Ok(atomic::write_new(&inside.join(CHECKSUMS), sums.as_bytes())?)
    })?;
    for old in list(folder)?.iter().rev().skip(KEPT) {
        atomic::remove_folder(old)?;
    }
    Ok(())
}

/// Loads the newest checkpoint that is whole into a trainer and returns where the stage stood; nothing if there is none.
/// What is damaged is reported to `message` and passed over.
///
/// # Errors
/// If the checkpoint is of another configuration or layout, or the folder cannot be read.
pub fn resume(
    folder: &Path,
    trainer: &mut Trainer,
    config_hash: &str,
    mut message: impl FnMut(&str),
) -> Result<Option<State>> {
    for path in list(folder)?.iter().rev() {
        let files = match verified(path) {
            Ok(files) => files,
            Err(reason) => {
                message(&format!("{}: {reason}; an older checkpoint is tried", path.display()));
                continue;
            }
        };
        let state: State = files::read_json(&path.join(STATE))?;
        let refuse = |reason: &str| Err(Error::BadFile { path: path.clone(), reason: reason.into() });
        if state.schema_version != SCHEMA_VERSION {
            return refuse("was written by another version of the program; start over in another folder");
        }
        if state.config_hash != config_hash {
            return refuse("belongs to another configuration; choose another folder, or remove that of the stage");
        }
        restore(trainer, &files, &state).map_err(|reason| Error::BadFile { path: path.clone(), reason })?;
        return Ok(Some(state));
    }
    Ok(None)
}

fn name_of(step: u64) -> String {
    format!("step-{step:08}")
}

/// The checkpoints of a folder, oldest first.
fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let read =
        || -> std::io::Result<Vec<PathBuf>> { std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect() };
    let mut paths = read().map_err(Error::read(folder))?;
    paths.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("step-")));
    paths.sort();
    Ok(paths)
}

/// The files of a checkpoint whose checksums hold.
fn verified(path: &Path) -> std::result::Result<BTreeMap<String, Vec<u8>>, String> {
    let read = |name: &str| std::fs::read(path.join(name)).map_err(|error| format!("cannot read {name}: {error}"));
    let sums = String::from_utf8(read(CHECKSUMS)?).map_err(|_| format!("{CHECKSUMS} is damaged"))?;
    let mut files = BTreeMap::new();
    for line in sums.lines() {
        let (sum, name) = line.split_once("  ").ok_or_else(|| format!("{CHECKSUMS} is damaged"))?;
        let bytes = read(name)?;
        if files::sha256(&bytes) != sum {
            return Err(format!("{name} is damaged"));
        }
        files.insert(name.to_owned(), bytes);
    }
    match [WEIGHTS, OPTIMIZER, STATE].iter().find(|name| !files.contains_key(**name)) {
        Some(name) => Err(format!("{CHECKSUMS} does not list {name}")),
        None => Ok(files),
    }
}

/// Puts what was saved into a trainer.
fn restore(trainer: &mut Trainer, files: &BTreeMap<String, Vec<u8>>, state: &State) -> std::result::Result<(), String> {
    let device = trainer.device.clone();
    let open = |name: &str| SafeTensors::deserialize(&files[name]).map_err(|error| format!("{name}: {error}"));
    let fill = |model: &mut Transformer, saved: &SafeTensors<'_>| {
        let mut trained = model.params_mut().into_iter().filter(|param| !param.is_frozen());
        trained.try_for_each(|param| fill_param(&device, param, saved))
    };
    fill(&mut trainer.model, &open(WEIGHTS)?)?;
    trainer.reference = None;
    if files.contains_key(REFERENCE) {
        let mut reference = trainer.model.clone();
        fill(&mut reference, &open(REFERENCE)?)?;
        trainer.reference = Some(reference);
    }
    let saved = open(OPTIMIZER)?;
    let Trainer { optimizer, model, .. } = trainer;
    optimizer.restore(model, state.updates, |name, shape| {
        Ok(Tensor::from_slice(&device, shape, &values(&saved, name, shape)?))
    })
}

fn fill_param(device: &Device, param: &mut Param, saved: &SafeTensors<'_>) -> std::result::Result<(), String> {
    let values = values(saved, param.name(), param.shape().dims())?;
    param.write(device, &values);
    Ok(())
}

fn values(saved: &SafeTensors<'_>, name: &str, shape: &[usize]) -> std::result::Result<Vec<f32>, String> {
    let view = saved.tensor(name).map_err(|error| format!("{name}: {error}"))?;
    if view.dtype() != Dtype::F32 || view.shape() != shape {
        return Err(format!("{name} has shape {:?}, the model {shape:?}", view.shape()));
    }
    Ok(view.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
}

/// Tensors as the bytes of a safetensors file.
fn pack<'a>(tensors: impl Iterator<Item = (String, &'a Tensor)>) -> Vec<u8> {
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .map(|(name, tensor)| {
            let bytes = tensor.read().iter().flat_map(|value| value.to_le_bytes()).collect();
            (name, tensor.shape().dims().to_vec(), bytes)
        })
        .collect();
    let views = bytes.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        (name.as_str(), view.expect("invariant: the bytes were made for this shape"))
    });
    safetensors::serialize(views, None).expect("invariant: names differ and shapes fit")
}
