//! Low-rank adapters in the layout of PEFT: a folder with `adapter_config.json` and `adapter_model.safetensors`.
//!
//! What the configuration says is obeyed or refused by name. Rows that a GGUF file has in another order are put in the published
//! order on the way out, and back on the way in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use half::{bf16, f16};
use minke_model::{Lora, LoraLayer};
use minke_spec::{ModelConfig, parameters};
use minke_sys::atomic;
use minke_tensor::{Device, Tensor};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value as Json, json};

use crate::Result;
use crate::contents::{bad, map, read_text};
use crate::plan::{neighbours, turned};

/// File of the settings of an adapter.
pub const ADAPTER_CONFIG_FILE: &str = "adapter_config.json";
/// File of its weights.
pub const ADAPTER_FILE: &str = "adapter_model.safetensors";

/// What PEFT puts before the name of a linear layer.
const PREFIX: &str = "base_model.model.";

/// Keys of the configuration that change nothing about what a trained adapter computes: they say how it was made, for what, and
/// which layers it has, which its tensors say too.
const UNREAD: [&str; 17] = [
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
];

/// The settings of an adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterConfig {
    /// The model beside which it stands, as whoever made it names it.
    pub base_model: Option<String>,
    /// Rows of A, r.
    pub rank: usize,
    /// What it adds is multiplied by alpha / r.
    pub alpha: f64,
    /// Whether by alpha / sqrt(r) instead.
    pub rslora: bool,
    /// The last parts of the names of its linear layers.
    pub target_modules: Vec<String>,
}

impl AdapterConfig {
    /// The settings in the folder of an adapter.
    ///
    /// # Errors
    /// If there are none, they are not PEFT's for LoRA, or ask for what is not supported.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(ADAPTER_CONFIG_FILE);
        if !path.exists() {
            let advice = "give the folder of an adapter, as PEFT or a stage with lora writes it";
            return Err(bad(folder, format!("has no {ADAPTER_CONFIG_FILE}; {advice}")));
        }
        let config = serde_json::from_str::<Map<String, Json>>(&read_text(&path)?)
            .map_err(|error| bad(&path, format!("is not a JSON object ({error}); correct it")))?;
        Self::parse(config).map_err(|reason| bad(&path, reason))
    }

    fn parse(mut config: Map<String, Json>) -> std::result::Result<Self, String> {
        let mut take = |key: &str| config.remove(key).unwrap_or(Json::Null);
        match take("peft_type") {
            Json::String(kind) if kind == "LORA" => {}
            other => return Err(format!("peft_type is {other}; supported is \"LORA\"")),
        }
        let rank = take("r");
        let rank = rank.as_u64().filter(|rank| (1..=1 << 16).contains(rank));
        let rank = rank.ok_or("r must be a whole number from 1 to 65536")? as usize;
        let alpha = take("lora_alpha").as_f64().filter(|alpha| alpha.is_finite());
        let alpha = alpha.ok_or("lora_alpha must be a number")?;
        match take("bias") {
            Json::Null => {}
            Json::String(bias) if bias == "none" => {}
            other => return Err(format!("bias is {other}; supported is \"none\"")),
        }
        let rslora = match take("use_rslora") {
            Json::Null => false,
            Json::Bool(rslora) => rslora,
            other => return Err(format!("use_rslora is {other}; it must be true or false")),
        };
        match take("init_lora_weights") {
            Json::Null | Json::Bool(_) => {}
            Json::String(kind) if ["gaussian", "orthogonal", "eva"].contains(&kind.as_str()) => {}
            // Others change the base as well.
            other => {
                return Err(format!("init_lora_weights is {other}, which changes the base; convert the adapter first"));
            }
        }
        let base_model = take("base_model_name_or_path").as_str().map(str::to_owned).filter(|name| !name.is_empty());
        let target_modules = match take("target_modules") {
            Json::Array(names) => names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect(),
            _ => Vec::new(),
        };
        let empty = |value: &Json| match value {
            Json::Null | Json::Bool(false) => true,
            Json::Array(list) => list.is_empty(),
            Json::Object(map) => map.is_empty(),
            Json::String(_) | Json::Number(_) | Json::Bool(true) => false,
        };
        match config.iter().find(|(key, value)| !UNREAD.contains(&key.as_str()) && !empty(value)) {
            Some((key, value)) => Err(format!("{key} is {value}, which is not supported; train without it")),
            None => Ok(Self { base_model, rank, alpha, rslora, target_modules }),
        }
    }

    /// The factor of what the adapter adds.
    pub fn scale(&self) -> f32 {
        let rank = self.rank as f64;
        (self.alpha / if self.rslora { rank.sqrt() } else { rank }) as f32
    }

    fn to_json(&self) -> Json {
        json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": self.base_model,
            "r": self.rank,
            "lora_alpha": self.alpha,
            "use_rslora": self.rslora,
            "lora_dropout": 0.0,
            "bias": "none",
            "target_modules": self.target_modules,
            "inference_mode": true,
        })
    }
}

/// The adapter in a folder, for a model of this configuration.
///
/// # Errors
/// If a file is missing or malformed, has something that is not half of a pair of the stated rank, or is of another model.
pub fn load_adapter(device: &Device, folder: &Path, model: &ModelConfig) -> Result<(AdapterConfig, Lora)> {
    let config = AdapterConfig::read(folder)?;
    let path = folder.join(ADAPTER_FILE);
    let bytes = map(&path)?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| bad(&path, error.to_string()))?;
    let mut halves: BTreeMap<String, [Option<Tensor>; 2]> = BTreeMap::new();
    for (name, view) in file.iter() {
        let refuse = |reason: &str| bad(&path, format!("tensor {name} {reason}"));
        let module = name.strip_prefix(PREFIX).unwrap_or(name);
        let (module, half) = match (module.strip_suffix(".lora_A.weight"), module.strip_suffix(".lora_B.weight")) {
            (Some(module), _) => (module, 0),
            (_, Some(module)) => (module, 1),
            (None, None) => {
                return Err(refuse("is neither lora_A nor lora_B of a linear layer; nothing else is supported"));
            }
        };
        let &[rows, width] = view.shape() else { return Err(refuse("is not a matrix")) };
        if [rows, width][half] != config.rank {
            let rank = config.rank;
            return Err(refuse(&format!("has shape [{rows}, {width}], and r is {rank} in {ADAPTER_CONFIG_FILE}")));
        }
        let mut values = values(&view).ok_or_else(|| refuse("is neither F32, F16 nor BF16"))?;
        if !values.iter().all(|value| value.is_finite()) {
            return Err(refuse("holds values that are not finite"));
        }
        if half == 1
            && let Some(order) = published_rows(model, module, rows)
        {
            values = order.iter().flat_map(|&row| values[row * width..][..width].to_vec()).collect();
        }
        halves.entry(module.to_owned()).or_default()[half] = Some(Tensor::from_slice(device, &[rows, width], &values));
    }
    let mut layers = Vec::with_capacity(halves.len());
    // In the order of the model; what the model does not have comes last and is refused when it is attached.
    let place: BTreeMap<String, usize> =
        parameters(model).into_iter().enumerate().map(|(place, spec)| (spec.name, place)).collect();
    for (module, pair) in halves {
        let [Some(a), Some(b)] = pair else {
            return Err(bad(&path, format!("{module} has only one of lora_A and lora_B; is the file whole?")));
        };
        layers.push(LoraLayer { module, a, b });
    }
    if layers.is_empty() {
        return Err(bad(&path, "holds no pair of lora_A and lora_B"));
    }
    layers.sort_by_key(|layer| place.get(&format!("{}.weight", layer.module)).copied().unwrap_or(usize::MAX));
    let lora = Lora { scale: config.scale(), layers };
    lora.check(model).map_err(|error| bad(&path, error.to_string()))?;
    Ok((config, lora))
}

/// Writes an adapter of a model of this configuration into an existing folder, as PEFT loads it.
///
/// # Errors
/// If a file cannot be written.
pub fn save_adapter(folder: &Path, config: &AdapterConfig, lora: &Lora, model: &ModelConfig) -> Result<()> {
    let text = format!("{:#}\n", config.to_json());
    atomic::write_new(&folder.join(ADAPTER_CONFIG_FILE), text.as_bytes())?;
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for LoraLayer { module, a, b } in &lora.layers {
        let mut of_b = b.read();
        let (rows, width) = (b.shape().rows(), b.shape().width());
        if let Some(order) = published_rows(model, module, rows) {
            let mut published = vec![0.0; of_b.len()];
            for (row, &to) in of_b.chunks_exact(width.max(1)).zip(&order) {
                published[to * width..][..width].copy_from_slice(row);
            }
            of_b = published;
        }
        for (half, shape, values) in [("A", a.shape(), a.read()), ("B", b.shape(), of_b)] {
            let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            tensors.push((format!("{PREFIX}{module}.lora_{half}.weight"), shape.dims().to_vec(), bytes));
        }
    }
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        (name.as_str(), view.expect("invariant: the bytes were made for this shape"))
    });
    let metadata = Some([("format".to_string(), "pt".to_string())].into());
    let bytes = safetensors::serialize(views, metadata).expect("invariant: names differ and shapes fit");
    Ok(atomic::write_new(&folder.join(ADAPTER_FILE), &bytes)?)
}

/// The last parts of the names of the linear layers of an adapter.
pub fn target_modules(lora: &Lora) -> Vec<String> {
    let kinds: BTreeSet<&str> = lora.layers.iter().filter_map(|layer| layer.module.rsplit('.').next()).collect();
    kinds.into_iter().map(str::to_owned).collect()
}

/// The published place of each row of a linear layer, if a model has its rows in another order: that of GGUF.
fn published_rows(model: &ModelConfig, module: &str, rows: usize) -> Option<Vec<usize>> {
    if !model.rope.interleaved {
        return None;
    }
    let spec = parameters(model).into_iter().find(|spec| spec.name.strip_suffix(".weight") == Some(module))?;
    let (heads, width) = turned(model, &spec)?;
    (heads * width == rows).then(|| (0..rows).map(|row| row / width * width + neighbours(row % width, width)).collect())
}

fn values(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let pairs = || view.data().as_chunks::<2>().0.iter();
    match view.dtype() {
        Dtype::F32 => Some(view.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()),
        Dtype::BF16 => Some(pairs().map(|&bytes| bf16::from_le_bytes(bytes).to_f32()).collect()),
        Dtype::F16 => Some(pairs().map(|&bytes| f16::from_le_bytes(bytes).to_f32()).collect()),
        _ => None,
    }
}
