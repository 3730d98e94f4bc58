//! Low-rank adapters: what a stage trains instead of the weights of its model.

use minke_model::{LinearLayer, Lora, LoraLayer, linear_layers};
use minke_spec::ModelConfig;
use minke_spec::draw::{Domain, draw, hash_name};
use minke_tensor::{Device, Tensor};
use minke_weights::AdapterConfig;
use serde::{Deserialize, Serialize};

use crate::optimizer::LearningRates;

/// Projections of dense layers, which are adapted by default.
const DENSE: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
/// Those of routed experts, by name.
const OF_EXPERTS: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];

/// The `lora` table of a stage: pairs of small matrices are trained beside linear layers, and nothing else.
///
/// # Paper
/// Hu et al. 2021 (LoRA); `rslora`: Kalajdzievski 2023
///
/// # Examples
/// In TOML `lora = { rank = 16, alpha = 32, target_modules = ["q_proj", "v_proj"] }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// Rows of A, r.
    pub rank: usize,
    /// What a pair adds is multiplied by alpha / r.
    pub alpha: f64,
    /// Whether by alpha / sqrt(r) instead.
    pub rslora: bool,
    /// Which linear layers have a pair, by the last part of their names; by default all projections of dense layers.
    pub target_modules: Vec<String>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        let target_modules = DENSE.map(str::to_owned).to_vec();
        Self { rank: 8, alpha: 16.0, rslora: false, target_modules }
    }
}

impl LoraConfig {
    /// What is wrong with the settings, if anything.
    pub(crate) fn fault_with(&self, rates: LearningRates) -> Option<&'static str> {
        if rates.muon.is_some() {
            Some("lora: adapters are moved by AdamW alone; say learning_rate = { adamw = 2e-4 } or the like")
        } else if !(1..=1 << 16).contains(&self.rank) {
            Some("lora: rank must lie between 1 and 65536")
        } else if !(self.alpha > 0.0 && self.alpha.is_finite()) {
            Some("lora: alpha must be positive")
        } else if self.target_modules.is_empty() {
            Some("lora: target_modules is empty; leave it out to adapt all projections")
        } else {
            None
        }
    }

    /// The settings as PEFT's.
    pub(crate) fn adapter(&self, base_model: &str) -> AdapterConfig {
        let mut target_modules = self.target_modules.clone();
        target_modules.sort();
        target_modules.dedup();
        let Self { rank, alpha, rslora, .. } = *self;
        AdapterConfig { base_model: Some(base_model.to_owned()), rank, alpha, rslora, target_modules }
    }

    /// A fresh adapter for a model: A uniform within 1 / sqrt(in) as PEFT draws it, B zero, so that it adds nothing at first.
    ///
    /// # Errors
    /// A name that no linear layer has, or that routed experts have as well.
    pub(crate) fn fresh(&self, device: &Device, model: &ModelConfig, seed: u64) -> Result<Lora, String> {
        let layers = linear_layers(model);
        let mut kinds: Vec<&str> = layers.iter().map(|layer| layer.kind()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        for name in &self.target_modules {
            if !kinds.contains(&name.as_str()) {
                return Err(format!("lora: no linear layer is called {name}; the model has {}", kinds.join(", ")));
            }
            if model.moe.is_some() && OF_EXPERTS.contains(&name.as_str()) {
                return Err(format!("lora: {name} is also in routed experts, which take no adapter; leave it out"));
            }
        }
        let adapted = layers.into_iter().filter(|layer| self.target_modules.iter().any(|name| name == layer.kind()));
        let layer = |layer: LinearLayer| {
            let [out, input] = layer.shape;
            let mut stream = draw(seed, Domain::Initialization, &[hash_name(&layer.module), hash_name("lora_A")]);
            let bound = 1.0 / (input as f64).sqrt();
            let a: Vec<f32> = (0..self.rank * input).map(|_| ((2.0 * stream.uniform() - 1.0) * bound) as f32).collect();
            LoraLayer {
                module: layer.module,
                a: Tensor::from_slice(device, &[self.rank, input], &a),
                b: Tensor::zeros(device, &[out, self.rank]),
            }
        };
        Ok(Lora { scale: self.adapter("").scale(), layers: adapted.map(layer).collect() })
    }

    /// Whether an adapter has been made with these settings; else what differs.
    pub(crate) fn goes_on_with(&self, other: &AdapterConfig, lora: &Lora) -> Result<(), String> {
        let (own, mut have) = (self.adapter(""), minke_weights::target_modules(lora));
        have.sort();
        let differs = if own.rank != other.rank {
            format!("rank = {}", other.rank)
        } else if own.alpha != other.alpha || own.rslora != other.rslora {
            format!("alpha = {}, rslora = {}", other.alpha, other.rslora)
        } else if own.target_modules != have {
            format!("target_modules = {have:?}")
        } else {
            return Ok(());
        };
        Err(format!("lora: the adapter that it goes on with has {differs}; say the same, or merge it first"))
    }
}
