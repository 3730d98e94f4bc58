//! Shards: tensors shared out over files of weights, and the index of which lies where.

use std::collections::BTreeMap;
use std::path::Path;

use minke_sys::atomic;

use crate::{INDEX_FILE, Result, WEIGHTS_FILE};

/// Files by name, each with what lies in it.
pub(crate) type Shards<'a, T> = Vec<(String, Vec<&'a T>)>;

/// Shares tensors out, in order, over files of at most `shard_bytes`; a larger one has a file of its own.
pub(crate) fn share<T>(tensors: &[T], bytes: impl Fn(&T) -> usize, shard_bytes: usize) -> Shards<'_, T> {
    let (mut shards, mut filled) = (vec![Vec::new()], 0);
    for tensor in tensors {
        if filled > 0 && filled + bytes(tensor) > shard_bytes {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += bytes(tensor);
        shards.last_mut().expect("invariant: there is a shard").push(tensor);
    }
    let count = shards.len();
    let name = |i: usize| match count {
        1 => WEIGHTS_FILE.to_owned(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
    };
    shards.into_iter().enumerate().map(|(i, shard)| (name(i), shard)).collect()
}

/// Writes the index of several files; one file needs none. `of` returns the name and the bytes of a tensor.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn write_index<T>(folder: &Path, shards: &Shards<'_, T>, of: impl Fn(&T) -> (&str, usize)) -> Result<()> {
    if shards.len() == 1 {
        return Ok(());
    }
    let (mut weight_map, mut total) = (BTreeMap::new(), 0);
    for (file, tensor) in shards.iter().flat_map(|(file, shard)| shard.iter().map(move |tensor| (file, tensor))) {
        let (name, bytes) = of(tensor);
        weight_map.insert(name, file);
        total += bytes;
    }
    let index = serde_json::json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
    let text = serde_json::to_string_pretty(&index).expect("invariant: plain JSON");
    Ok(atomic::write_new(&folder.join(INDEX_FILE), text.as_bytes())?)
}
