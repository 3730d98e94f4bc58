//! The gate: each token's experts, their weights, and what keeps the experts evenly loaded.

use minke_spec::config::{MoeConfig, ScoringFunc, TopkMethod};
use minke_tensor::{Device, GroupScore, Indices, Param, Pass, Routing, Span, Tap, Tensor};

use crate::Result;
use crate::source::{ParamSource, params};

/// Added to the sum that expert weights are divided by.
const NORMALIZATION_EPSILON: f32 = 1e-20;

/// The gate of a layer with experts.
#[derive(Clone)]
pub(crate) struct Gate {
    layer: usize,
    routing: Routing,
    scoring_func: ScoringFunc,
    normalize: bool,
    scale: f32,
    weight: Param,
    /// Of V3 alone.
    e_score_correction_bias: Option<Param>,
}

params!(Gate { weight, e_score_correction_bias });

/// The choices of the gate.
pub(crate) struct Choice {
    /// Chosen experts, best first. [T, K]
    pub indices: Indices,
    /// Their mixing weights. [T, K]
    pub weights: Tensor,
    /// Scores of all experts. [T, E]
    pub scores: Tensor,
}

impl Gate {
    pub(crate) fn new(config: &MoeConfig, source: &mut ParamSource, layer: usize) -> Self {
        let prefix = format!("model.layers.{layer}.mlp.gate");
        let (groups, kept_groups, group_score) = match config.topk_method {
            TopkMethod::NoauxTc => (config.n_group, config.topk_group, GroupScore::TwoBest),
            TopkMethod::GroupLimitedGreedy => (config.n_group, config.topk_group, GroupScore::Best),
            TopkMethod::Greedy => (1, 1, GroupScore::Best),
        };
        Self {
            layer,
            routing: Routing {
                experts: config.n_routed_experts,
                groups,
                kept_groups,
                per_token: config.num_experts_per_tok,
                group_score,
            },
            scoring_func: config.scoring_func,
            normalize: config.norm_topk_prob,
            scale: config.routed_scaling_factor,
            weight: source.take(&format!("{prefix}.weight")),
            e_score_correction_bias: source.take_if_any(&format!("{prefix}.e_score_correction_bias")),
        }
    }

    /// The chosen experts and their weights. The bias takes part in the choice and in nothing else.
    ///
    /// # Shapes
    /// x [T, D] -> indices [T, K], weights [T, K]
    ///
    /// # Paper
    /// - V3 2.1.2 eqs. 12-16 (sigmoid scores, biased choice within groups, unbiased weights)
    /// - V2 2.2.1 (softmax scores, no bias), V2 2.2.2 (a group counts its best)
    /// - Test: crates/kernels/src/ops/route/tests.rs
    /// - Vector: testdata/vectors/gate_routing.json
    pub(crate) fn route(&self, pass: Pass<'_>, x: &Tensor) -> Result<Choice> {
        let logits = x.matmul(pass, &self.weight)?;
        let scores = match self.scoring_func {
            ScoringFunc::Sigmoid => logits.sigmoid(pass)?,
            ScoringFunc::Softmax => logits.softmax_rows(pass)?,
        };
        pass.tap(Tap::Layer { layer: self.layer, value: "gate.scores" }, &scores);
        let bias = self.e_score_correction_bias.as_ref().map(|bias| bias.value());
        let indices = Indices::select_experts(pass, &scores, bias, &self.routing)?;
        let mut weights = scores.pick_columns(pass, &indices)?;
        if self.normalize {
            weights = weights.normalize_rows(pass, NORMALIZATION_EPSILON)?;
        }
        Ok(Choice { indices, weights: weights.scale(pass, self.scale)?, scores })
    }

    /// The number of choices per token.
    pub(crate) fn per_token(&self) -> usize {
        self.routing.per_token
    }

    /// The number of experts.
    pub(crate) fn experts(&self) -> usize {
        self.routing.experts
    }

    /// Moves the selection bias of every expert, if there is one, by `gamma` towards an even load.
    pub(crate) fn balance(&mut self, device: &Device, load: &[u64], gamma: f32) {
        if let Some(bias) = &mut self.e_score_correction_bias {
            bias.update(device, |bias| update_bias(bias, load, gamma));
        }
    }
}

/// Lowers the bias of experts above the mean load by gamma, raises it below.
///
/// # Shapes
/// bias `[E]`, load `[E]` (tokens in the whole batch)
///
/// # Paper
/// - V3 2.1.2 (auxiliary-loss-free balancing; facts sheet 1.5)
pub fn update_bias(bias: &mut [f32], load: &[u64], gamma: f32) {
    let (total, experts) = (load.iter().sum::<u64>(), load.len() as u64);
    for (bias, &load) in bias.iter_mut().zip(load) {
        // Compare load with the mean without dividing.
        match (load * experts).cmp(&total) {
            std::cmp::Ordering::Greater => *bias -= gamma,
            std::cmp::Ordering::Less => *bias += gamma,
            std::cmp::Ordering::Equal => {}
        }
    }
}

/// The sequence-wise balance loss without its factor alpha, averaged over sequences.
///
/// ```text
/// f_i = E / (K T) * tokens of the sequence with s_i among their K largest scores    (a constant for the gradient)
/// P_i = mean over its tokens of s_i / sum_j s_j
/// L   = sum_i f_i P_i
/// ```
///
/// # Shapes
/// scores [T, E] -> scalar
///
/// # Paper
/// - V3 2.1.2 eqs. 17-20 (sequence-wise balance)
/// - Test: crates/model/tests/balance_matches_published_numbers.rs
/// - Vector: testdata/vectors/balance.json
pub fn balance_loss(pass: Pass<'_>, scores: &Tensor, per_token: usize, spans: &[Span]) -> Result<Tensor> {
    let experts = scores.shape().width();
    // Eq. 18 counts the largest scores as they are: neither the selection bias nor groups take part.
    let routing = Routing { experts, groups: 1, kept_groups: 1, per_token, group_score: GroupScore::Best };
    let indices = Indices::select_experts(pass, scores, None, &routing)?;
    let factors = Tensor::balance_factors(pass, &indices, spans, [per_token, experts])?;
    Ok(scores.normalize_rows(pass, 0.0)?.weighted_sum(pass, &factors)?)
}
