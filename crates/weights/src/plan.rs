//! The tensors that are written, and the rows of tensors that they are made of. Between the two published layouts,
//! folders as on the Hub and GGUF, the same numbers lie in other places: experts apart or stacked, `kv_b_proj` whole or
//! in halves, the rows of Llama's queries and keys by halves or by neighbours.

use std::collections::HashMap;
use std::ops::Range;

use minke_spec::config::{AttentionConfig, MlaConfig, ModelType, RopeScaling};
use minke_spec::format::fp8_scale_shape;
use minke_spec::params::{TensorSource, published_tensors};
use minke_spec::rope::inverse_frequencies;
use minke_spec::{Format, ModelConfig, ParamRole, ParamSpec, parameters};

use crate::Result;
use crate::archive::Archive;
use crate::gguf_model;

/// A tensor to be written.
#[derive(Clone, Debug)]
pub struct PlannedTensor {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// What it is in the model; nothing for what means nothing to it.
    pub role: Option<ParamRole>,
    /// In which format.
    pub format: Format,
    pub(crate) data: Data,
}

/// Where the numbers of a planned tensor come from.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    /// From parts of tensors of the archive, which follow each other.
    Parts(Vec<String>, Vec<RowSlice>),
    /// From here.
    Values(Vec<f32>),
}

/// Rows of a tensor of the archive, or the transposed of these rows.
#[derive(Clone, Debug)]
pub(crate) struct RowSlice {
    /// Which of the names.
    pub name: usize,
    pub rows: Range<usize>,
    pub transposed: bool,
}

impl PlannedTensor {
    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.format.bytes(self.elements())
    }

    /// The elements of a row.
    pub fn width(&self) -> usize {
        *self.shape.last().expect("invariant: tensors have a dimension")
    }

    /// Whether it has rows: everything else stays in a format of floats.
    pub fn is_matrix(&self) -> bool {
        self.shape.len() > 1
    }
}

/// All tensors of an archive as they are, block scales aside. FP8 becomes BF16.
///
/// # Errors
/// If one is of a format that is not supported.
pub(crate) fn same(archive: &Archive) -> Result<Vec<PlannedTensor>> {
    let specs = parameters(&archive.config);
    let mut roles = HashMap::new();
    specs.iter().for_each(|spec| roles.extend(archive.names(spec).into_iter().map(|name| (name, spec.role))));
    let is_scale = |name: &str| name.strip_suffix("_scale_inv").is_some_and(|name| archive.tensors.contains_key(name));
    let mut tensors: Vec<_> = archive.tensors.iter().filter(|(name, _)| !is_scale(name)).collect();
    tensors.sort_by_key(|(_, entry)| (entry.file, entry.range.start));
    tensors
        .into_iter()
        .map(|(name, entry)| {
            planned_tensor(archive, name, &entry.shape, roles.get(name).copied(), vec![name.clone()], None)
        })
        .collect()
}

/// The tensors of a GGUF file with the weights of a folder. The layers that predict further tokens are left out:
/// llama.cpp has no place for them.
///
/// # Errors
/// If the model has no form in GGUF.
pub(crate) fn to_gguf(archive: &Archive) -> Result<Vec<PlannedTensor>> {
    let config = &archive.config;
    let mut planned = Vec::new();
    for spec in parameters(config).iter().filter(|spec| spec.layer.is_none_or(|layer| layer < config.num_hidden_layers))
    {
        let sources = archive.names(spec);
        match (&config.attention, spec.layer) {
            (AttentionConfig::Mla(mla), Some(layer)) if spec.name.ends_with(".kv_b_proj.weight") => {
                let shapes = archive.split_shapes();
                for (half, (name, shape)) in gguf_model::split_names(layer).iter().zip(shapes).enumerate() {
                    let parts =
                        (0..config.num_attention_heads).map(|head| half_of_head(mla, head, half == 0)).collect();
                    planned.push(planned_tensor(archive, name, &shape, Some(spec.role), sources.clone(), Some(parts))?);
                }
            }
            _ => {
                let parts = turned(config, spec).map(|(heads, width)| permuted(heads, width, neighbours));
                let name = gguf_model::name_of(spec);
                planned.push(planned_tensor(archive, &name, &spec.shape, Some(spec.role), sources, parts)?);
            }
        }
    }
    if let RopeScaling::Llama3(_) | RopeScaling::Divisors(_) = config.rope.scaling {
        let mut plain = config.rope.clone();
        plain.scaling = RopeScaling::None;
        let (width, frequencies) = (config.rope_dim(), inverse_frequencies(&config.rope, config.rope_dim()));
        let ratios =
            inverse_frequencies(&plain, width).into_iter().zip(frequencies).map(|(plain, scaled)| plain / scaled);
        planned.push(PlannedTensor {
            name: gguf_model::DIVISORS.into(),
            shape: vec![width / 2],
            role: None,
            format: Format::F32,
            data: Data::Values(ratios.collect()),
        });
    }
    Ok(planned)
}

/// The tensors of a folder with the weights of a GGUF file.
///
/// # Errors
/// If a tensor is missing or of a format that is not supported.
pub(crate) fn to_folder(archive: &Archive) -> Result<Vec<PlannedTensor>> {
    let config = &archive.config;
    let specs = parameters(config);
    let mut planned = Vec::new();
    for tensor in published_tensors(config) {
        let (spec, expert) = match &tensor.source {
            TensorSource::Own { param, expert } => (&specs[*param], expert.unwrap_or(0)),
            TensorSource::CopyOf(name) => {
                let spec = specs.iter().find(|spec| spec.name == *name);
                (spec.expect("invariant: a copy is of a parameter of the table"), 0)
            }
        };
        let sources = archive.names(spec);
        let parts = match &config.attention {
            AttentionConfig::Mla(mla) if sources.len() == 2 => Some(halves(mla, config.num_attention_heads)),
            _ if spec.role == ParamRole::Experts => {
                let rows = spec.shape[1];
                Some(vec![RowSlice { name: 0, rows: expert * rows..(expert + 1) * rows, transposed: false }])
            }
            _ => turned(config, spec).map(|(heads, width)| permuted(heads, width, apart)),
        };
        planned.push(planned_tensor(archive, &tensor.name, &tensor.shape, Some(spec.role), sources, parts)?);
    }
    Ok(planned)
}

/// A tensor in the format in which its sources are stored; whole sources, one after the other, if no parts are given.
fn planned_tensor(
    archive: &Archive,
    name: &str,
    shape: &[usize],
    role: Option<ParamRole>,
    sources: Vec<String>,
    parts: Option<Vec<RowSlice>>,
) -> Result<PlannedTensor> {
    if shape.is_empty() {
        return Err(archive.bad_tensor(name, "has no dimension; such tensors are not supported"));
    }
    let mut format = None;
    for source in &sources {
        let stored = archive.stored_format(source)?;
        if let (Format::F8E4M3, &[n, k]) = (stored, &archive.tensors[source].shape[..]) {
            archive.entry(&format!("{source}_scale_inv"), &fp8_scale_shape(n, k))?;
        }
        let stored = if stored == Format::F8E4M3 { Format::Bf16 } else { stored };
        // Sources of several formats meet in the one that holds all of them.
        format = Some(if format.is_none_or(|format| format == stored) { stored } else { Format::F32 });
    }
    let whole = |(name, source): (usize, &String)| {
        let (rows, _) = rows_and_width(&archive.tensors[source].shape);
        RowSlice { name, rows: 0..rows, transposed: false }
    };
    let parts = parts.unwrap_or_else(|| sources.iter().enumerate().map(whole).collect());
    let format = format.expect("invariant: a parameter has a source");
    Ok(PlannedTensor { name: name.into(), shape: shape.into(), role, format, data: Data::Parts(sources, parts) })
}

/// How many rows of which width a tensor is read in; a vector is a column.
pub(crate) fn rows_and_width(shape: &[usize]) -> (usize, usize) {
    match shape {
        [len] => (*len, 1),
        [leading @ .., width] => (leading.iter().product(), *width),
        [] => (0, 0),
    }
}

/// The rows of a head in `kv_b_proj` from which its keys are made, transposed, or its values.
fn half_of_head(mla: &MlaConfig, head: usize, keys: bool) -> RowSlice {
    let (n, v) = (mla.qk_nope_head_dim, mla.v_head_dim);
    let start = head * (n + v);
    if keys {
        RowSlice { name: 0, rows: start..start + n, transposed: true }
    } else {
        RowSlice { name: 0, rows: start + n..start + n + v, transposed: false }
    }
}

/// The rows of `kv_b_proj` in its two halves.
fn halves(mla: &MlaConfig, heads: usize) -> Vec<RowSlice> {
    let (latent, v) = (mla.kv_lora_rank, mla.v_head_dim);
    let of_head = |head: usize| {
        let keys = RowSlice { name: 0, rows: head * latent..(head + 1) * latent, transposed: true };
        [keys, RowSlice { name: 1, rows: head * v..(head + 1) * v, transposed: false }]
    };
    (0..heads).flat_map(of_head).collect()
}

/// Number and width of the heads whose rows GGUF has in another order: those of Llama's queries and keys,
/// and of their biases.
pub(crate) fn turned(config: &ModelConfig, spec: &ParamSpec) -> Option<(usize, usize)> {
    let AttentionConfig::Gqa(gqa) = &config.attention else { return None };
    let heads = match spec.name.rsplit('.').nth(1)? {
        "q_proj" => config.num_attention_heads,
        "k_proj" => gqa.num_key_value_heads,
        _ => return None,
    };
    (config.model_type == ModelType::Llama).then_some((heads, gqa.head_dim))
}

/// Rows in the order in which `from` finds them within a head.
fn permuted(heads: usize, width: usize, from: impl Fn(usize, usize) -> usize) -> Vec<RowSlice> {
    let row = |row: usize| {
        let source = row / width * width + from(row % width, width);
        RowSlice { name: 0, rows: source..source + 1, transposed: false }
    };
    (0..heads * width).map(row).collect()
}

/// The place among halves of a row that stands among neighbours.
pub(crate) fn neighbours(row: usize, width: usize) -> usize {
    row % 2 * (width / 2) + row / 2
}

/// The place among neighbours of a row that stands among halves.
pub(crate) fn apart(row: usize, width: usize) -> usize {
    row % (width / 2) * 2 + row / (width / 2)
}
