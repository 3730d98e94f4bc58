//! The layer with experts: tokens are sent to their experts, multiplied group by group, and combined.

use minke_spec::config::MoeConfig;
use minke_tensor::{Device, Dispatch, Indices, Param, Pass, Tensor, recompute};

use crate::gate::{Choice, Gate, balance_loss};
use crate::mlp::Mlp;
use crate::source::{ParamSource, params};
use crate::{Batch, Result};

/// Routed experts of one layer, stacked.
#[derive(Clone)]
struct Experts {
    gate_proj: Param,
    up_proj: Param,
    down_proj: Param,
}

params!(Experts { gate_proj, up_proj, down_proj });

/// DeepSeekMoE: gate, routed experts, shared expert.
#[derive(Clone)]
pub(crate) struct Moe {
    layer: usize,
    gate: Gate,
    experts: Experts,
    shared_experts: Option<Mlp>,
}

params!(Moe { gate, experts, shared_experts });

/// How many tokens each expert of a layer was given in one forward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpertLoad {
    /// Layer id.
    pub layer: usize,
    /// Tokens by expert. `[E]`
    pub tokens: Vec<u64>,
}

/// What the routing of one layer gives beside its output.
pub(crate) struct Routed {
    /// Layer id.
    pub layer: usize,
    /// First slot of each expert. [E + 1]
    pub offsets: Indices,
    /// Sequence-wise balance loss, without alpha.
    pub balance: Tensor,
}

impl Routed {
    /// How many tokens each expert was given, for the host.
    pub(crate) fn load(&self) -> ExpertLoad {
        let tokens = self.offsets.read().windows(2).map(|pair| u64::from(pair[1] - pair[0])).collect();
        ExpertLoad { layer: self.layer, tokens }
    }
}

impl Moe {
    pub(crate) fn new(config: &MoeConfig, source: &mut ParamSource, layer: usize) -> Self {
        let prefix = format!("model.layers.{layer}.mlp");
        let gate = Gate::new(config, source, layer);
        let mut take = |name: &str| source.take(&format!("{prefix}.experts.{name}.weight"));
        let experts = Experts { gate_proj: take("gate_proj"), up_proj: take("up_proj"), down_proj: take("down_proj") };
        let shared_experts =
            (config.n_shared_experts > 0).then(|| Mlp::new(source, &format!("{prefix}.shared_experts")));
        Self { layer, gate, experts, shared_experts }
    }

    /// The output, and in a recording pass the load and balance loss.
    ///
    /// # Shapes
    /// x [T, D] -> [T, D]
    ///
    /// # Paper
    /// - V3 2.1.2 eqs. 12-13 (shared and routed experts)
    pub(crate) fn forward(&self, pass: Pass<'_>, x: &Tensor, batch: &Batch) -> Result<(Tensor, Option<Routed>)> {
        let Choice { indices, weights, scores } = self.gate.route(pass, x)?;
        let plan = Dispatch::new(pass, &indices, self.gate.per_token(), self.gate.experts())?;
        let report = if pass.record {
            let balance = balance_loss(pass, &scores, self.gate.per_token(), batch.spans())?;
            Some(Routed { layer: self.layer, offsets: plan.offsets.clone(), balance })
        } else {
            None
        };
        let y = if pass.record && pass.recompute {
            let module = self.clone();
            let inputs = vec![x.clone(), weights];
            recompute(pass, inputs, move |inputs, pass| module.mix(pass, &inputs[0], &inputs[1], &plan))?
        } else {
            self.mix(pass, x, &weights, &plan)?
        };
        Ok((y, report))
    }

    /// The weighted experts plus the shared one. x [T, D], weights [T, K] -> [T, D]
    fn mix(&self, pass: Pass<'_>, x: &Tensor, weights: &Tensor, plan: &Dispatch) -> minke_tensor::Result<Tensor> {
        let Experts { gate_proj, up_proj, down_proj } = &self.experts;
        let fetched = plan.fetch_experts(pass, self.layer)?;
        let multiply = |x: &Tensor, w: &Param| x.grouped_matmul(pass, w, plan, &fetched);
        let rows = x.dispatch(pass, plan)?;
        let up = multiply(&rows, up_proj)?;
        let hidden = multiply(&rows, gate_proj)?.swiglu(pass, &up)?;
        let routed = multiply(&hidden, down_proj)?.combine(pass, weights, plan)?;
        match &self.shared_experts {
            Some(shared) => shared.forward(pass, x)?.add(pass, &routed),
            None => Ok(routed),
        }
    }

    /// Moves the selection bias towards an even load.
    pub(crate) fn balance(&mut self, device: &Device, load: &ExpertLoad, gamma: f32) {
        self.gate.balance(device, &load.tokens, gamma);
    }
}
