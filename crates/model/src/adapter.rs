//! Low-rank adapters of a model: which linear layers can have one, and putting one beside them.

use std::collections::HashMap;

use minke_spec::{ModelConfig, ParamRole, ParamSpec, parameters};
use minke_tensor::{Param, Tensor};

use crate::{Error, Result, Transformer};

/// A linear layer that can have an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinearLayer {
    /// Its published name, without `.weight`.
    pub module: String,
    /// [out, in]
    pub shape: [usize; 2],
}

impl LinearLayer {
    /// The last part of the name, by which layers are chosen: `q_proj`, `down_proj`.
    pub fn kind(&self) -> &str {
        self.module.rsplit('.').next().unwrap_or(&self.module)
    }
}

/// A low-rank adapter of a model: `scale (x A^T) B^T` for each of some linear layers.
#[derive(Clone)]
pub struct Lora {
    /// The factor of what it adds: alpha / rank.
    pub scale: f32,
    /// By linear layer.
    pub layers: Vec<LoraLayer>,
}

/// The pair beside one linear layer.
#[derive(Clone)]
pub struct LoraLayer {
    /// The linear layer.
    pub module: String,
    /// [r, in]
    pub a: Tensor,
    /// [out, r]
    pub b: Tensor,
}

/// The linear layers of a model that can have an adapter, in the order of the table: all projections of the main model but those of
/// routed experts, and the head unless it is the embedding.
pub fn linear_layers(config: &ModelConfig) -> Vec<LinearLayer> {
    let specs = parameters(config);
    let is_main = |layer: Option<usize>| layer.is_none_or(|layer| layer < config.num_hidden_layers);
    let linear = specs.into_iter().filter(|spec| matches!(spec.role, ParamRole::Matrix | ParamRole::Head));
    let layer = |spec: ParamSpec| match spec.shape[..] {
        [out, input] if is_main(spec.layer) => {
            Some(LinearLayer { module: spec.name.strip_suffix(".weight")?.to_owned(), shape: [out, input] })
        }
        _ => None,
    };
    linear.filter_map(layer).collect()
}

impl Lora {
    /// Checks that every pair belongs to a linear layer of a model, and fits it.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check(&self, config: &ModelConfig) -> Result<()> {
        let refuse = |reason: String| Err(Error::Adapter(reason));
        let mut known: HashMap<String, [usize; 2]> =
            linear_layers(config).into_iter().map(|layer| (layer.module, layer.shape)).collect();
        for LoraLayer { module, a, b } in &self.layers {
            // Taken out, so that a second pair for it is refused as well.
            let Some([out, input]) = known.remove(module) else {
                return refuse(format!(
                    "the model has no linear layer {module} to adapt; the adapter is of another model"
                ));
            };
            let (of_a, of_b) = (a.shape(), b.shape());
            let fits = matches!(
                (of_a.dims(), of_b.dims()),
                (&[r, k], &[n, rank]) if r == rank && r > 0 && k == input && n == out
            );
            if !fits {
                let advice = "the adapter is of another model";
                return refuse(format!("{module} is [{out}, {input}], and its pair A {of_a} and B {of_b}; {advice}"));
            }
        }
        Ok(())
    }
}

impl Transformer {
    /// Freezes every parameter and puts an adapter beside its linear layers: from now on only the adapter is trained.
    ///
    /// # Paper
    /// Hu et al. 2021 (LoRA), 4.1 eq. 3
    ///
    /// # Errors
    /// If the model has an adapter already, or this one does not fit ([`Lora::check`]).
    pub fn attach(&mut self, lora: &Lora) -> Result<()> {
        if self.has_adapter() {
            return Err(Error::Adapter("the model has an adapter already; merge it first".into()));
        }
        lora.check(self.config())?;
        let first = parameters(self.config()).len();
        let pair = |(i, LoraLayer { module, a, b }): (usize, &LoraLayer)| {
            let param = |what: &str, at: usize, value: &Tensor| {
                Param::new(&format!("{module}.lora_{what}.weight"), first + at, value.clone())
            };
            (format!("{module}.weight"), (param("A", 2 * i, a), param("B", 2 * i + 1, b)))
        };
        let mut pairs: HashMap<String, (Param, Param)> = lora.layers.iter().enumerate().map(pair).collect();
        for param in self.params_mut() {
            param.freeze();
            if let Some((a, b)) = pairs.remove(param.name()) {
                param.adapt(lora.scale, a, b)?;
            }
        }
        Ok(())
    }

    /// Makes every parameter one that is not trained.
    pub fn freeze(&mut self) {
        self.params_mut().into_iter().for_each(Param::freeze);
    }

    /// Whether the model has an adapter.
    pub fn has_adapter(&self) -> bool {
        self.params().iter().any(|param| param.adapter().is_some())
    }

    /// The adapter as it is now, in the order in which it was attached.
    pub fn adapter(&self) -> Option<Lora> {
        let params = self.params();
        let mut adapted: Vec<&Param> = params.into_iter().filter(|param| param.adapter().is_some()).collect();
        adapted.sort_by_key(|param| param.adapter().map(|adapter| adapter.a().id()));
        let scale = adapted.first()?.adapter()?.scale();
        let layer = |param: &&Param| {
            let (adapter, module) = (param.adapter()?, param.name().strip_suffix(".weight")?.to_owned());
            Some(LoraLayer { module, a: adapter.a().value().clone(), b: adapter.b().value().clone() })
        };
        Some(Lora { scale, layers: adapted.iter().filter_map(layer).collect() })
    }
}
