//! A packed copy of a model: the matrices that products read, with their rows interleaved for the registers of a machine, in a
//! file of safetensors that loading maps. Everything else is read from the model's own files.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use minke_model::Transformer;
use minke_spec::{ParamSpec, parameters};
use minke_sys::atomic::{self, WriteError};
use minke_tensor::{Bytes, Device, StoredWeight, Weight};
use safetensors::SafeTensors;
use serde_json::json;

use crate::archive::Archive;
use crate::contents::{LONGEST_HEADER, bad, map};
use crate::load::{build, small_floats, weight};
use crate::transcode::safetensors_header;
use crate::{Error, Result};

/// The key of the metadata that says of what state of a model a copy is.
const STATE: &str = "minke.packed";

/// A packed copy, of which only the header was read.
pub struct Packed {
    path: PathBuf,
    bytes: Bytes,
    tensors: BTreeMap<String, Range<usize>>,
    state: String,
}

impl Packed {
    /// A copy that [`Archive::pack`] wrote.
    ///
    /// # Errors
    /// If there is none, or it is cut short or malformed.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = map(path)?;
        let length = bytes.first_chunk().map_or(u64::MAX, |length| u64::from_le_bytes(*length));
        if length > LONGEST_HEADER {
            return Err(bad(path, "is not a packed copy of a model"));
        }
        let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| bad(path, error.to_string()))?;
        let state = metadata.metadata().as_ref().and_then(|pairs| pairs.get(STATE));
        let state = state.ok_or_else(|| bad(path, "is not a packed copy of a model"))?.clone();
        let start = 8 + header;
        let tensors = metadata.tensors().into_iter().map(|(name, info)| {
            let (from, to) = info.data_offsets;
            (name, start + from..start + to)
        });
        Ok(Self { path: path.into(), tensors: tensors.collect(), state, bytes })
    }

    /// Of what state of a model it is, as the caller of [`Archive::pack`] said.
    pub fn state(&self) -> &str {
        &self.state
    }

    /// A weight with the rows that are here; nothing if there are none of this parameter.
    pub(crate) fn weight(
        &self,
        device: &Device,
        spec: &ParamSpec,
        from: &StoredWeight,
    ) -> Result<Option<StoredWeight>> {
        let Some(range) = self.tensors.get(&spec.name) else { return Ok(None) };
        let bytes = self.bytes.slice(range.clone()).expect("invariant: the header was checked against the file");
        let wrong = || Error::BadTensor {
            path: self.path.clone(),
            name: spec.name.clone(),
            reason: "is not as large as the model says; pack it again".into(),
        };
        Ok(Some(from.with_interleaved(device, &bytes).ok_or_else(wrong)?))
    }
}

impl Archive {
    /// The model for inference with the rows that products read mapped from a packed copy; it was made on a machine of the same kind.
    ///
    /// # Errors
    /// As [`Archive::load`], and if the copy is not one of this model.
    pub fn load_packed(&self, device: &Device, packed: &Packed) -> Result<Transformer> {
        build(device, self, small_floats, |spec, weight| packed.weight(device, spec, weight))
    }

    /// What a packed copy holds, and how many bytes each matrix takes in it.
    fn packable(&self, device: &Device) -> Result<Vec<(ParamSpec, Arc<StoredWeight>, usize)>> {
        let mut found = Vec::new();
        for spec in parameters(&self.config).into_iter().filter(|spec| self.interleaves(spec)) {
            if let Weight::Stored(weight) = weight(self, &spec)?
                && !small_floats(weight.format(), spec.elements())
                && let Some(each) = weight.interleaved_len(device)
            {
                found.push((spec, weight, each));
            }
        }
        Ok(found)
    }

    /// The bytes that a packed copy holds; none if nothing of the model has another layout on this device.
    ///
    /// # Errors
    /// As [`Archive::check_weights`].
    pub fn packed_bytes(&self, device: &Device) -> Result<u64> {
        Ok(self.packable(device)?.iter().map(|(_, weight, each)| (weight.matrices() * each) as u64).sum())
    }

    /// Writes a packed copy, a matrix at a time. `state` is what [`Packed::state`] will say; `progress` is called with the bytes that
    /// are done and returns whether to go on.
    ///
    /// # Errors
    /// If a tensor is missing or malformed, the file cannot be written, or `progress` returns false; no file stays.
    pub fn pack(&self, device: &Device, state: &str, target: &Path, progress: &dyn Fn(u64) -> bool) -> Result<()> {
        let weights = self.packable(device)?;
        let sizes: Vec<[usize; 1]> = weights.iter().map(|(_, weight, each)| [weight.matrices() * each]).collect();
        let infos = weights.iter().zip(&sizes).map(|((spec, ..), size)| (&*spec.name, "U8", &size[..], size[0]));
        atomic::replace_with(target, |to| {
            to.write_all(&safetensors_header(json!({ STATE: state }), infos)).map_err(WriteError::at(target))?;
            let (mut bytes, mut done) = (Vec::new(), 0);
            for (_, weight, each) in &weights {
                for matrix in 0..weight.matrices() {
                    bytes.resize(*each, 0);
                    weight.interleave(device, matrix, &mut bytes);
                    to.write_all(&bytes).map_err(WriteError::at(target))?;
                    done += *each as u64;
                    if !progress(done) {
                        return Err(Error::Interrupted);
                    }
                }
            }
            Ok(())
        })
    }
}
