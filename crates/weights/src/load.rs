//! Makes a model of its files, by the table of parameters: weights stay as they lie in the files, or become f32.

use std::path::Path;

use minke_spec::config::ModelType;
use minke_spec::format::fp8_scale_shape;
use minke_spec::{Format, ParamRole, ParamSpec, Placement};
use minke_tensor::{Device, StoredMatrix, StoredWeight, Tensor, Weight};

use half::{bf16, f16};

use crate::Result;
use crate::archive::{Archive, SMALL};
use crate::contents::TensorEntry;
use crate::plan::{apart, turned};
use minke_model::Transformer;

/// The model in a folder or GGUF file for inference, as [`Archive::load`].
///
/// # Errors
/// If a file is missing or malformed, a tensor is missing, of another shape or of a format that is not supported.
pub fn load(device: &Device, path: &Path) -> Result<Transformer> {
    Archive::open(path)?.load(device)
}

/// The model in a folder or GGUF file with all weights as f32, as training needs them.
///
/// # Errors
/// As [`load`].
pub fn load_dense(device: &Device, path: &Path) -> Result<Transformer> {
    Archive::open(path)?.load_dense(device)
}

impl Archive {
    /// The model with all weights as f32, as training needs them, and with rows in the published order: those of a GGUF file that
    /// lie otherwise are put back, so that what is made of the model is written as others read it.
    ///
    /// # Errors
    /// As [`Archive::load`].
    pub fn load_dense(&self, device: &Device) -> Result<Transformer> {
        let model = build(device, self, |_, _| true, |_, _| Ok(None))?;
        if self.metadata.is_none() || self.config.model_type != ModelType::Llama {
            return Ok(model);
        }
        let mut config = self.config.clone();
        config.rope.interleaved = false;
        let params = model.params();
        let mut params = params.iter();
        Transformer::new(&config, &Placement::single(), |spec, _| {
            let value = params.next().expect("invariant: both models have the same table").value();
            let Some((_, width)) = turned(&config, spec) else { return Ok(value.clone()) };
            let (values, row) = (value.read(), spec.shape[1..].iter().product::<usize>());
            let place = |to: usize| to / width * width + apart(to % width, width);
            let published: Vec<f32> =
                (0..spec.shape[0]).flat_map(|to| values[place(to) * row..][..row].iter().copied()).collect();
            Ok(Tensor::from_slice(device, &spec.shape, &published))
        })
    }

    /// The model for inference: large weights stay in their format, mapped, not copied.
    ///
    /// # Errors
    /// If a tensor is missing, of another shape or of a format that is not supported.
    pub fn load(&self, device: &Device) -> Result<Transformer> {
        build(device, self, small_floats, |_, _| Ok(None))
    }

    /// The same with rows of the matrices that products read interleaved, in memory: for decoding in less time, where there is
    /// room for another copy of them. Formats without that layout stay mapped.
    ///
    /// # Errors
    /// As [`Archive::load`].
    pub fn load_interleaved(&self, device: &Device) -> Result<Transformer> {
        build(device, self, small_floats, |spec, weight| Ok(self.interleaves(spec).then(|| weight.interleaved(device))))
    }

    /// Whether products read the rows of a parameter, and all of them.
    pub(crate) fn interleaves(&self, spec: &ParamSpec) -> bool {
        match spec.role {
            ParamRole::Head | ParamRole::Experts => true,
            // A row for each token is read of an embedding, unless it is the head as well.
            ParamRole::Embedding => self.config.tie_word_embeddings,
            // Absorbed queries read its rows one by one.
            ParamRole::Matrix => !spec.name.ends_with("kv_b_proj.weight"),
            ParamRole::Norm | ParamRole::Bias | ParamRole::Router | ParamRole::CorrectionBias => false,
        }
    }
}

/// Whether a weight of a format and a number of elements becomes f32 for inference.
pub(crate) fn small_floats(format: Format, elements: usize) -> bool {
    format.block_elements() == 1 && elements <= SMALL
}

/// The model of an archive; `decode` returns whether a weight of a format and a number of elements becomes f32, `interleave`
/// others with their rows interleaved, or nothing if they stay as they are.
pub(crate) fn build(
    device: &Device,
    archive: &Archive,
    decode: impl Fn(Format, usize) -> bool,
    interleave: impl Fn(&ParamSpec, &StoredWeight) -> Result<Option<StoredWeight>>,
) -> Result<Transformer> {
    archive.refuse_unknown_tensors()?;
    Transformer::new(&archive.config, &Placement::single(), |spec, local_shape| {
        if local_shape != spec.shape {
            return Err(archive.bad_tensor(&spec.name, "is shared out over several ranks, which cannot be loaded"));
        }
        let weight = weight(archive, spec)?;
        let as_f32 = spec.shape.len() == 1 || decode(weight.format(), spec.elements());
        Ok(match weight {
            weight if as_f32 => weight.decode(device)?.reshape(&spec.shape)?.into(),
            Weight::Stored(weight) => match interleave(spec, &weight)? {
                Some(interleaved) => interleaved.into(),
                None => Weight::Stored(weight),
            },
            weight => weight,
        })
    })
}

/// A parameter as it lies in the files.
pub(crate) fn weight(archive: &Archive, spec: &ParamSpec) -> Result<Weight> {
    let pieces = archive.pieces(spec)?;
    if let ([(_, keys, key_format), (_, values, value_format)], ParamRole::Matrix) = (&pieces[..], spec.role) {
        let half = |entry: &TensorEntry, format: Format| {
            let shape = [entry.shape[0] * entry.shape[1], entry.shape[2]];
            let matrix = StoredMatrix { bytes: archive.bytes(entry), scales: Vec::new() };
            StoredWeight::new(format, &shape, vec![matrix])
        };
        return Ok(Weight::split(half(keys, *key_format)?, half(values, *value_format)?, keys.shape[0])?);
    }
    let (first, _, format) = &pieces[0];
    let mut matrices = Vec::new();
    for (name, entry, other) in &pieces {
        if other != format {
            let reason =
                format!("is {}, but {first} is {}; experts of one layer must agree", other.name(), format.name());
            return Err(archive.bad_tensor(name, reason));
        }
        let bytes = archive.bytes(entry);
        // Experts that are stacked in the file lie one after the other.
        let experts = if spec.role == ParamRole::Experts && pieces.len() == 1 { spec.shape[0] } else { 1 };
        let each = bytes.len() / experts;
        for i in 0..experts {
            let bytes = bytes.slice(i * each..(i + 1) * each).expect("invariant: parts of the whole");
            matrices.push(StoredMatrix { bytes, scales: block_scales(archive, name, entry, *format)? });
        }
    }
    let shape = match spec.shape[..] {
        [n] => vec![1, n],
        _ => spec.shape.clone(),
    };
    Ok(StoredWeight::new(*format, &shape, matrices)
        .map_err(|error| archive.bad_tensor(first, error.to_string()))?
        .into())
}

/// The scales of an FP8 matrix, none for other formats.
pub(crate) fn block_scales(archive: &Archive, name: &str, entry: &TensorEntry, format: Format) -> Result<Vec<f32>> {
    let (Format::F8E4M3, &[n, k]) = (format, &entry.shape[..]) else { return Ok(Vec::new()) };
    let (scales, format) = archive.entry(&format!("{name}_scale_inv"), &fp8_scale_shape(n, k))?;
    let bytes = archive.bytes(scales);
    let pairs = || bytes.as_chunks::<2>().0.iter();
    match format {
        Format::F32 => Ok(bytes.as_chunks().0.iter().map(|&scale| f32::from_le_bytes(scale)).collect()),
        Format::Bf16 => Ok(pairs().map(|&scale| bf16::from_le_bytes(scale).to_f32()).collect()),
        Format::F16 => Ok(pairs().map(|&scale| f16::from_le_bytes(scale).to_f32()).collect()),
        other => {
            let reason = format!("has block scales in {}; F32, BF16 and F16 are supported", other.name());
            Err(archive.bad_tensor(name, reason))
        }
    }
}
