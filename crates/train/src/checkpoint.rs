//! Checkpoints: the weights that are trained, optimizer state and where the stage stands, with checksums; all that is needed to go on.
//!
//! A checkpoint is a folder that appears under its name when all of it is on the disk. Two are kept; the newest whose
//! checksums hold wins. `sha256sum -c SHA256SUMS` in the folder says the same.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use minke_model::Transformer;
use minke_spec::{Placement, Shard, parameters};
use minke_sys::atomic;
use minke_tensor::{Param, Tensor};
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

/// Writes a checkpoint into the folder of checkpoints and removes those that are not needed any more. The first rank writes, with what
/// every rank has, so the files do not say how many ranks there were.
///
/// # Errors
/// If a file cannot be written; older checkpoints are then as they were. If another rank has ended.
pub fn save(folder: &Path, trainer: &Trainer, state: &State) -> Result<()> {
    let weights = whole_weights(trainer)?;
    let tensors = trainer.optimizer.tensors(&trainer.model);
    let optimizer = whole(trainer, tensors.into_iter())?;
    match (weights, optimizer) {
        (Some(weights), Some(optimizer)) => trainer.ranks.first(|| write(folder, trainer, state, &weights, &optimizer)),
        _ => trainer.ranks.first(|| Ok(())),
    }
}

/// A checkpoint with these weights and this state of the optimizer.
fn write(folder: &Path, trainer: &Trainer, state: &State, weights: &[u8], optimizer: &[u8]) -> Result<()> {
    files::make_folder(folder)?;
    atomic::replace_folder(&folder.join(name_of(state.step)), |inside| -> Result<()> {
        let mut sums = String::new();
        let mut put = |name: &str, bytes: &[u8]| {
            sums += &format!("{}  {name}\n", files::sha256(bytes));
            atomic::write_new(&inside.join(name), bytes)
        };
        put(WEIGHTS, weights)?;
        put(OPTIMIZER, optimizer)?;
        if let Some(reference) = &trainer.reference {
            put(REFERENCE, &pack(trained(reference)))?;
        }
        put(STATE, &files::json(state))?;
        Ok(atomic::write_new(&inside.join(CHECKSUMS), sums.as_bytes())?)
    })?;
    for old in list(folder)?.iter().rev().skip(KEPT) {
        atomic::remove_folder(old)?;
    }
    Ok(())
}

/// The weights of a model that are trained, by name.
fn trained(model: &Transformer) -> impl Iterator<Item = (String, &Tensor)> {
    let params = model.params().into_iter().filter(|param| !param.is_frozen());
    params.map(|param| (param.name().to_owned(), param.value()))
}

/// The weights of all ranks that are trained as a safetensors file, on the first rank.
fn whole_weights(trainer: &Trainer) -> Result<Option<Vec<u8>>> {
    let cut = cut_names(trainer);
    let (place, experts) = (trainer.ranks.stage().rank(), trainer.ranks.experts().ranks());
    // What is cut comes from the first ranks of a stage that have the parts, all else from its first; the embedding from the first stage.
    let (first, embedding) = (trainer.ranks.pipeline().rank() == 0, minke_spec::params::EMBEDDING);
    let is_given =
        |name: &str| (place == 0 || (place < experts && is_part(&cut, name))) && (first || name != embedding);
    whole(trainer, trained(&trainer.model).filter(|(name, _)| is_given(name)))
}

/// The tensors of all ranks as a safetensors file, on the first rank.
fn whole<'a>(trainer: &Trainer, own: impl Iterator<Item = (String, &'a Tensor)>) -> Result<Option<Vec<u8>>> {
    let (cut, part) = (cut_names(trainer), trainer.ranks.experts().rank());
    let numbered = |(name, tensor): (String, &'a Tensor)| match is_part(&cut, &name) {
        true => (format!("{name}{PART}{part}"), tensor),
        false => (name, tensor),
    };
    Ok(trainer.ranks.gather(pack(own.map(numbered)))?.map(joined))
}

/// The whole model of a trainer, on the first rank.
pub(crate) fn whole_model(trainer: &Trainer) -> Result<Option<Transformer>> {
    if !trainer.ranks.have_parts() {
        return Ok(trainer.ranks.is_first().then(|| trainer.model.clone()));
    }
    let Some(bytes) = whole_weights(trainer)? else { return Ok(None) };
    let saved = SafeTensors::deserialize(&bytes).expect("invariant: it was packed here");
    let model = Transformer::new(trainer.model.config(), &Placement::single(), |spec, shape| {
        let values = values(&saved, &spec.name, shape, 0..spec.elements())?;
        Ok::<_, String>(Tensor::from_slice(&trainer.device, shape, &values))
    });
    Ok(Some(model.expect("invariant: the ranks have all parameters")))
}

/// Between the name of a tensor and the number of its part, while it travels.
const PART: char = '#';

/// The names of parameters of which ranks have different parts.
fn cut_names(trainer: &Trainer) -> Vec<String> {
    let specs = parameters(trainer.model.config());
    let cut = specs.into_iter().filter(|spec| trainer.ranks.have_parts() && spec.shard == Shard::Experts);
    cut.map(|spec| spec.name).collect()
}

/// Whether a tensor is of one of these parameters.
fn is_part(cut: &[String], tensor: &str) -> bool {
    let is_of =
        |name: &String| tensor.strip_prefix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    cut.iter().any(is_of)
}

/// Loads the newest checkpoint that is whole into a trainer and returns where the stage stood; nothing if there is none.
/// What is damaged is reported to `message` and passed over.
///
/// # Errors
/// If the checkpoint is of another configuration or layout, or the folder cannot be read, or ranks find different ones.
pub fn resume(
    folder: &Path,
    trainer: &mut Trainer,
    config_hash: &str,
    mut message: impl FnMut(&str),
) -> Result<Option<State>> {
    let found = newest(folder, trainer, config_hash, &mut message)?;
    let step = found.as_ref().map_or("none".to_owned(), |state| state.step.to_string());
    let what = format!("finds another newest checkpoint than rank 0 in {}", folder.display());
    trainer.ranks.agree(&step, &what)?;
    Ok(found)
}

fn newest(
    folder: &Path,
    trainer: &mut Trainer,
    config_hash: &str,
    message: &mut impl FnMut(&str),
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

/// Puts what was saved into a trainer, of which a rank may have a part.
fn restore(trainer: &mut Trainer, files: &BTreeMap<String, Vec<u8>>, state: &State) -> std::result::Result<(), String> {
    let (device, placement) = (trainer.device.clone(), trainer.ranks.placement());
    let specs = parameters(trainer.model.config());
    let open = |name: &str| SafeTensors::deserialize(&files[name]).map_err(|error| format!("{name}: {error}"));
    // The values of a tensor that has the shape of a parameter.
    let own = |saved: &SafeTensors<'_>, name: &str, param: &Param| match specs.get(param.id()) {
        Some(spec) => values(saved, name, &spec.shape, spec.local_elements(&placement)),
        None => values(saved, name, param.shape().dims(), 0..param.shape().elements()),
    };
    let fill = |model: &mut Transformer, saved: &SafeTensors<'_>| {
        let mut trained = model.params_mut().into_iter().filter(|param| !param.is_frozen());
        trained.try_for_each(|param| -> std::result::Result<(), String> {
            let values = own(saved, param.name(), param)?;
            param.write(&device, &values);
            Ok(())
        })
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
    optimizer.restore(model, state.updates, |name, param| {
        Ok(Tensor::from_slice(&device, param.shape().dims(), &own(&saved, name, param)?))
    })
}

/// Some elements of a tensor that has this shape.
fn values(
    saved: &SafeTensors<'_>,
    name: &str,
    shape: &[usize],
    elements: Range<usize>,
) -> std::result::Result<Vec<f32>, String> {
    let view = saved.tensor(name).map_err(|error| format!("{name}: {error}"))?;
    if view.dtype() != Dtype::F32 || view.shape() != shape {
        return Err(format!("{name} has shape {:?}, the model {shape:?}", view.shape()));
    }
    Ok(view.data().as_chunks().0[elements].iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
}

/// Several safetensors files as one: parts of a tensor become the whole, in the order of their numbers.
fn joined(mut files: Vec<Vec<u8>>) -> Vec<u8> {
    if files.len() == 1 {
        return files.remove(0);
    }
    let open = |bytes| SafeTensors::deserialize(bytes).expect("invariant: a rank packed them");
    let opened: Vec<SafeTensors<'_>> = files.iter().map(|bytes| open(bytes)).collect();
    let mut tensors: BTreeMap<&str, Vec<(usize, TensorView<'_>)>> = BTreeMap::new();
    for (name, view) in opened.iter().flat_map(SafeTensors::iter) {
        let (name, part) = name.split_once(PART).unwrap_or((name, "0"));
        let part = part.parse().expect("invariant: behind the mark stands a number");
        tensors.entry(name).or_default().push((part, view));
    }
    let together = |(name, mut parts): (&str, Vec<(usize, TensorView<'_>)>)| {
        parts.sort_by_key(|(part, _)| *part);
        let mut shape = parts[0].1.shape().to_vec();
        shape[0] = parts.iter().map(|(_, view)| view.shape()[0]).sum();
        let bytes: Vec<u8> = parts.iter().flat_map(|(_, view)| view.data()).copied().collect();
        (name.to_owned(), shape, bytes)
    };
    serialize(&tensors.into_iter().map(together).collect::<Vec<_>>())
}

/// Tensors as the bytes of a safetensors file.
fn pack<'a>(tensors: impl Iterator<Item = (String, &'a Tensor)>) -> Vec<u8> {
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .map(|(name, tensor)| {
            let bytes = tensor.read().iter().flat_map(|value| value.to_le_bytes()).collect();
            (name, tensor.shape().dims().to_vec(), bytes)
        })
        .collect();
    serialize(&bytes)
}

/// A safetensors file of F32 tensors, given by name, shape and bytes.
fn serialize(tensors: &[(String, Vec<usize>, Vec<u8>)]) -> Vec<u8> {
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        (name.as_str(), view.expect("invariant: the bytes were made for this shape"))
    });
    safetensors::serialize(views, None).expect("invariant: names differ and shapes fit")
}
