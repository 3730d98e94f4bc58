//! Writes a folder of weights.

use std::path::Path;

use half::bf16;
use minke_spec::params::{TensorSource, published_tensors};
use minke_spec::{Format, ParamRole, parameters};
use minke_sys::atomic;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::{CONFIG_FILE, shards};
use crate::{Error, Result};
use minke_model::Transformer;

/// Writes `config.json` and the weights of a model into an existing folder, with published tensor names, in shards of
/// at most `shard_bytes` (a larger tensor is a shard of its own). Correction biases stay F32.
///
/// Every file is synced; the caller makes the folder appear under its final name when all of it is there.
///
/// # Errors
/// If the format is not F32 or BF16, a weight is not held as f32, or a file cannot be written.
pub fn save(model: &Transformer, folder: &Path, format: Format, shard_bytes: usize) -> Result<()> {
    let config = model.config();
    let mut published = config.to_value();
    published["torch_dtype"] = match format {
        Format::F32 => "float32".into(),
        Format::Bf16 => "bfloat16".into(),
        other => {
            let reason = format!("weights cannot be written as {}: choose F32 or BF16", other.name());
            return Err(Error::BadFile { path: folder.to_path_buf(), reason });
        }
    };
    if model.has_adapter() {
        let reason = "the model has an adapter, which would be lost; write the adapter, or merge it with minke convert";
        return Err(Error::BadFile { path: folder.to_path_buf(), reason: reason.into() });
    }
    if let Some(param) = model.params().into_iter().find(|param| !param.is_dense()) {
        let (name, held) = (param.name(), param.weight().format().name());
        let reason = format!("{name} is held as {held}; load the model as F32 to write it");
        return Err(Error::BadFile { path: folder.to_path_buf(), reason });
    }
    let text = serde_json::to_string_pretty(&published).expect("invariant: a configuration is plain JSON");
    atomic::write_new(&folder.join(CONFIG_FILE), text.as_bytes())?;

    let tensors = encode(model, format);
    let shards = shards::share(&tensors, |tensor| tensor.bytes.len(), shard_bytes);
    for (name, shard) in &shards {
        write_shard(&folder.join(name), shard)?;
    }
    shards::write_index(folder, &shards, |tensor| (&tensor.name, tensor.bytes.len()))
}

struct Encoded {
    name: String,
    shape: Vec<usize>,
    dtype: Dtype,
    bytes: Vec<u8>,
}

/// Every published tensor, copies of shared ones included.
fn encode(model: &Transformer, format: Format) -> Vec<Encoded> {
    let specs = parameters(model.config());
    let params = model.params();
    // Experts of one stack are read once.
    let mut read: Option<(usize, Vec<f32>)> = None;
    let mut one = |tensor: minke_spec::params::Published| {
        let (param, expert) = match &tensor.source {
            TensorSource::Own { param, expert } => (*param, *expert),
            TensorSource::CopyOf(name) => {
                let at = specs.iter().position(|spec| &spec.name == name);
                (at.expect("invariant: a copy is of a parameter of the table"), None)
            }
        };
        let elements: usize = tensor.shape.iter().product();
        if read.as_ref().is_none_or(|(id, _)| *id != param) {
            read = Some((param, params[param].value().read()));
        }
        let (_, values) = read.as_ref().expect("invariant: it was just read");
        let values = &values[expert.unwrap_or(0) * elements..][..elements];
        let wide = format == Format::F32 || specs[param].role == ParamRole::CorrectionBias;
        let (dtype, bytes) = if wide {
            (Dtype::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect())
        } else {
            (Dtype::BF16, values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect())
        };
        Encoded { name: tensor.name, shape: tensor.shape, dtype, bytes }
    };
    published_tensors(model.config()).into_iter().map(&mut one).collect()
}

fn write_shard(path: &Path, tensors: &[&Encoded]) -> Result<()> {
    fn view<'a>(t: &&'a Encoded) -> (String, TensorView<'a>) {
        let view = TensorView::new(t.dtype, t.shape.clone(), &t.bytes);
        (t.name.clone(), view.expect("invariant: the bytes were made for this shape"))
    }
    let metadata = Some([("format".to_string(), "pt".to_string())].into());
    let bytes = safetensors::serialize(tensors.iter().map(view), metadata)
        .map_err(|e| Error::BadFile { path: path.to_path_buf(), reason: e.to_string() })?;
    Ok(atomic::write_new(path, &bytes)?)
}
