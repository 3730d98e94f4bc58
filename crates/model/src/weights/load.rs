//! Reads a folder of weights.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use minke_spec::params::{Source, published_tensors};
use minke_spec::{ModelConfig, Placement, parameters};
use minke_tensor::{Device, Tensor};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::{CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE};
use crate::{Error, Result, Transformer};

/// Returns the model in a folder, and the keys of its configuration that are not known.
///
/// # Errors
/// If a file is missing or malformed, a tensor is missing, of another shape or of a format that is not supported.
pub fn load(device: &Device, folder: &Path) -> Result<(Transformer, Vec<String>)> {
    let config_path = folder.join(CONFIG_FILE);
    let text =
        std::fs::read_to_string(&config_path).map_err(|source| Error::Io { path: config_path.clone(), source })?;
    let parsed = ModelConfig::from_json(&text)
        .map_err(|error| Error::BadFile { path: config_path, reason: error.to_string() })?;
    let config = parsed.config;
    let mut values = read_tensors(folder, &config)?;
    let placement = Placement::single();
    let model = Transformer::new(&config, &placement, |spec, shape| {
        let values = values.remove(&spec.name).expect("invariant: every parameter was read");
        Ok(Tensor::from_slice(device, shape, &values))
    })?;
    Ok((model, parsed.unknown_keys))
}

/// Returns the values of every parameter by name.
fn read_tensors(folder: &Path, config: &ModelConfig) -> Result<BTreeMap<String, Vec<f32>>> {
    let specs = parameters(config);
    let mut by_param: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    let mut wanted: BTreeMap<String, (usize, Option<usize>, Vec<usize>)> = BTreeMap::new();
    for tensor in published_tensors(config) {
        if let Source::Own { param, expert } = tensor.source {
            wanted.insert(tensor.name, (param, expert, tensor.shape));
        }
    }
    for file in shard_files(folder)? {
        let bytes = std::fs::read(&file).map_err(|source| Error::Io { path: file.clone(), source })?;
        let bad = |reason: String| Error::BadFile { path: file.clone(), reason };
        let tensors = SafeTensors::deserialize(&bytes).map_err(|e| bad(format!("not a safetensors file: {e}")))?;
        for (name, view) in tensors.iter() {
            // Copies of shared tensors, and what this architecture does not know, are left where they are.
            let Some((param, expert, shape)) = wanted.remove(name) else { continue };
            let values = widen(&file, name, &view, &shape)?;
            let spec = &specs[param];
            let whole = by_param.entry(spec.name.clone()).or_insert_with(|| vec![0.0; spec.elements()]);
            let start = expert.unwrap_or(0) * values.len();
            whole[start..start + values.len()].copy_from_slice(&values);
        }
    }
    match wanted.into_keys().next() {
        None => Ok(by_param),
        Some(name) => Err(Error::BadTensor {
            path: folder.to_path_buf(),
            name,
            reason: "is missing; are all files of the model in the folder?".into(),
        }),
    }
}

/// Returns the safetensors files of a folder, in order.
fn shard_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let index = folder.join(INDEX_FILE);
    if !index.exists() {
        return Ok(vec![folder.join(WEIGHTS_FILE)]);
    }
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = std::fs::read_to_string(&index).map_err(|source| Error::Io { path: index.clone(), source })?;
    let bad = |reason: String| Error::BadFile { path: index.clone(), reason };
    let parsed: Index = serde_json::from_str(&text).map_err(|e| bad(format!("not an index of shards: {e}")))?;
    let mut files: Vec<String> = parsed.weight_map.into_values().collect();
    files.sort();
    files.dedup();
    let inside = |name: &String| Path::new(name).components().count() == 1 && !name.starts_with('.');
    match files.iter().find(|name| !inside(name)) {
        Some(name) => Err(bad(format!("{name:?} is not the name of a file in this folder"))),
        None => Ok(files.iter().map(|name| folder.join(name)).collect()),
    }
}

/// Returns a tensor's values as f32.
fn widen(file: &Path, name: &str, view: &TensorView<'_>, shape: &[usize]) -> Result<Vec<f32>> {
    let bad = |reason: String| Error::BadTensor { path: file.to_path_buf(), name: name.to_string(), reason };
    if view.shape() != shape {
        return Err(bad(format!("has shape {:?}, the configuration says {shape:?}", view.shape())));
    }
    let data = view.data();
    Ok(match view.dtype() {
        Dtype::F32 => data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        Dtype::BF16 => data.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
        Dtype::F16 => data.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
        other => return Err(bad(format!("has format {other:?}; supported are F32, F16 and BF16"))),
    })
}
