//! The optimizers: Muon for matrices, AdamW for everything else, one clip over all of it.

use minke_model::Transformer;
use minke_spec::{ParamRole, ParamSpec, parameters};
use minke_tensor::optimize::{AdamW, Muon, Update, adamw_step, master, muon_step};
use minke_tensor::{Device, Gradients, Param, Tensor};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::ranks::Ranks;
use crate::shares::{self, Shares, Trained};

/// The learning rates of the two groups of parameters.
///
/// # Examples
/// In TOML `learning_rate = { muon = 0.02, adamw = 3e-3 }`, or `learning_rate = { adamw = 5e-4 }` for AdamW alone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearningRates {
    /// Of projections and experts by Muon; without it they too are moved by AdamW.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub muon: Option<f64>,
    /// Of everything that AdamW moves.
    pub adamw: f64,
}

impl LearningRates {
    /// Both rates times a factor.
    pub fn scaled(self, factor: f64) -> Self {
        Self { muon: self.muon.map(|rate| rate * factor), adamw: self.adamw * factor }
    }

    /// The one that records show: Muon's where it is used.
    pub(crate) fn shown(&self) -> f64 {
        self.muon.unwrap_or(self.adamw)
    }

    /// What is wrong with the rates, if anything.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let fine = |rate: f64| (0.0..=1.0).contains(&rate);
        (!fine(self.adamw) || !self.muon.is_none_or(fine)).then_some("learning_rate must lie between 0 and 1")
    }
}

/// What is chosen about the optimizers beside their learning rates.
///
/// # Paper
/// - V3 4.2 (AdamW's betas, decay and clip)
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// Decoupled decay of everything but norms and biases.
    pub weight_decay: f64,
    /// Largest norm of all gradients together.
    pub clip_norm: f64,
    /// Decay of Muon's momentum.
    pub momentum: f64,
    /// Decay of AdamW's mean gradient.
    pub beta1: f64,
    /// Decay of AdamW's mean squared gradient.
    pub beta2: f64,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self { weight_decay: 0.1, clip_norm: 1.0, momentum: 0.95, beta1: 0.9, beta2: 0.95 }
    }
}

impl OptimizerConfig {
    /// What is wrong with the settings, if anything.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let decays = [self.momentum, self.beta1, self.beta2];
        if decays.iter().any(|decay| !(0.0..1.0).contains(decay)) {
            Some("optimizer: momentum, beta1 and beta2 must lie in 0..1")
        } else if !(self.clip_norm > 0.0 && self.weight_decay >= 0.0) {
            Some("optimizer: clip_norm must be positive and weight_decay not negative")
        } else {
            None
        }
    }
}

/// AdamW's epsilon; small models see small gradients.
const EPSILON: f64 = 1e-8;

/// The optimizer state of one parameter.
struct State {
    /// The f32 values of a parameter that is held as bf16: what updates add up.
    master: Option<Tensor>,
    kind: Kind,
}

enum Kind {
    Muon { momentum: Tensor },
    AdamW { first: Tensor, second: Tensor, decays: bool },
}

impl State {
    /// All tensors with what follows the name of the parameter in their names.
    fn tensors(&self) -> impl Iterator<Item = (&'static str, &Tensor)> {
        let own = match &self.kind {
            Kind::Muon { momentum } => [Some(("momentum", momentum)), None],
            Kind::AdamW { first, second, .. } => [Some(("first", first)), Some(("second", second))],
        };
        own.into_iter().flatten().chain(self.master.iter().map(|master| ("master", master)))
    }

    /// The same, to be replaced.
    fn tensors_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut Tensor)> {
        let own = match &mut self.kind {
            Kind::Muon { momentum } => [Some(("momentum", momentum)), None],
            Kind::AdamW { first, second, .. } => [Some(("first", first)), Some(("second", second))],
        };
        own.into_iter().flatten().chain(self.master.iter_mut().map(|master| ("master", master)))
    }
}

/// Which optimizer moves a parameter.
enum Rule {
    Muon,
    AdamW { decays: bool },
}

impl Rule {
    /// That of a parameter; nothing for one that is not trained.
    fn of(param: &Param, spec: Option<&ParamSpec>, rates: LearningRates, mtp_layers: Option<usize>) -> Option<Self> {
        if param.is_frozen() {
            return None;
        }
        // Without a row in the table it is of an adapter.
        let Some(spec) = spec else { return Some(Self::AdamW { decays: true }) };
        if spec.role == ParamRole::CorrectionBias || mtp_layers.is_some_and(|first| spec.layer >= Some(first)) {
            return None;
        }
        let matrix = matches!(spec.role, ParamRole::Matrix | ParamRole::Experts);
        Some(match matrix && rates.muon.is_some() {
            true => Self::Muon,
            false => Self::AdamW { decays: !matches!(spec.role, ParamRole::Norm | ParamRole::Bias) },
        })
    }

    /// The state of a parameter before its first update.
    fn state(self, device: &Device, param: &Param) -> State {
        let zeros = || Tensor::zeros(device, param.shape().dims());
        let kind = match self {
            Self::Muon => Kind::Muon { momentum: zeros() },
            Self::AdamW { decays } => Kind::AdamW { first: zeros(), second: zeros(), decays },
        };
        State { master: master(device, param), kind }
    }
}

/// The optimizers of a model: state by parameter, and the number of updates so far. Ranks share it: each has the state of the
/// parameters that it owns.
pub struct Optimizer {
    config: OptimizerConfig,
    /// By row of the table of parameters; nothing for parameters that are not trained, or not here.
    states: Vec<Option<State>>,
    shares: Shares,
    updates: u64,
}

impl Optimizer {
    /// The optimizer of a model, its state still zero, shared by ranks that have equal models or their parts. What is frozen has none.
    /// Correction biases have no gradient and are never trained; the parameters of multi-token prediction are if `train_mtp` says so.
    pub fn new(
        device: &Device,
        model: &Transformer,
        rates: LearningRates,
        config: OptimizerConfig,
        train_mtp: bool,
        ranks: &Ranks,
    ) -> Self {
        let (layers, specs) = (model.config().num_hidden_layers, parameters(model.config()));
        let left_out = (!train_mtp).then_some(layers);
        let params = model.params();
        let rule = |param: &Param| Rule::of(param, specs.get(param.id()), rates, left_out);
        let shares_embedding = ranks.ends().is_some()
            && (model.config().num_nextn_predict_layers > 0 || model.config().tie_word_embeddings);
        let trained = params.iter().filter(|param| rule(param).is_some()).map(|param| Trained {
            id: param.id(),
            elements: param.shape().elements(),
            kind: match specs.get(param.id()).map(|spec| spec.role) {
                Some(ParamRole::Experts) => shares::Kind::Experts,
                Some(ParamRole::Embedding) if shares_embedding => shares::Kind::Ends,
                _ => shares::Kind::Whole,
            },
        });
        let shares = Shares::new(ranks, &trained.collect::<Vec<_>>());
        let state =
            |param: &&Param| rule(param).filter(|_| shares.owns(param.id())).map(|rule| rule.state(device, param));
        let mut states = Vec::new();
        for param in &params {
            states.resize_with(states.len().max(param.id() + 1), || None);
            states[param.id()] = state(param);
        }
        Self { config, states, shares, updates: 0 }
    }

    /// An optimizer that trains nothing.
    pub fn frozen(model: &Transformer) -> Self {
        let states = model.params().iter().map(|_| None).collect();
        let shares = Shares::new(&Ranks::default(), &[]);
        Self { config: OptimizerConfig::default(), states, shares, updates: 0 }
    }

    /// The number of updates so far.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Moves the weights of a model, with gradients scaled down to the clip norm, and returns their norm before that. The gradients are
    /// the sums over all ranks. Nothing moves if the norm is not finite.
    ///
    /// # Errors
    /// If another rank has ended.
    pub fn step(
        &mut self,
        device: &Device,
        model: &mut Transformer,
        gradients: &mut Gradients,
        rates: LearningRates,
    ) -> Result<f64> {
        self.shares.sum(device, model, gradients)?;
        let norm = self.shares.norm(device, model, gradients)?;
        if !norm.is_finite() {
            return Ok(norm);
        }
        self.updates += 1;
        let config = &self.config;
        // Without any gradient the norm is 0, of either sign.
        let grad_scale = (config.clip_norm / norm.max(f64::MIN_POSITIVE)).min(1.0);
        let mut states: Vec<Option<&mut State>> = self.states.iter_mut().map(Option::as_mut).collect();
        let mut matrices = Vec::new();
        for param in model.params_mut() {
            let Some(state) = states[param.id()].take() else { continue };
            // A parameter that this loss did not reach is moved by a zero gradient, so that an update depends on the
            // gradients' values alone and not on which of them an earlier step happened to make.
            let gradient = match gradients.get(param) {
                Some(gradient) => gradient.clone(),
                None => Tensor::zeros(device, param.shape().dims()),
            };
            let update = Update { param, master: state.master.as_mut(), gradient };
            match &mut state.kind {
                Kind::Muon { momentum } => matrices.push((update, momentum)),
                Kind::AdamW { first, second, decays } => {
                    let settings = AdamW {
                        lr: rates.adamw,
                        beta1: config.beta1,
                        beta2: config.beta2,
                        eps: EPSILON,
                        weight_decay: if *decays { config.weight_decay } else { 0.0 },
                        grad_scale,
                    };
                    adamw_step(device, update, (first, second), &settings, self.updates);
                }
            }
        }
        let settings = Muon {
            lr: rates.muon.unwrap_or_default() as f32,
            momentum: config.momentum as f32,
            weight_decay: config.weight_decay as f32,
            grad_scale: grad_scale as f32,
        };
        muon_step(device, matrices, &settings);
        self.shares.hand_out(device, model)?;
        Ok(norm)
    }

    /// The state that this rank has, by the name under which it is saved.
    pub fn tensors(&self, model: &Transformer) -> Vec<(String, &Tensor)> {
        let of_param = |param: &'_ Param| {
            let (state, name) = (self.states[param.id()].as_ref(), param.name().to_owned());
            state.into_iter().flat_map(State::tensors).map(move |(what, tensor)| (format!("{name}.{what}"), tensor))
        };
        model.params().into_iter().flat_map(of_param).collect()
    }

    /// Takes over what was saved; `value` is called with every name of [`Optimizer::tensors`] and its parameter, in that order.
    ///
    /// # Errors
    /// Those of `value`.
    pub fn restore<E>(
        &mut self,
        model: &Transformer,
        updates: u64,
        mut value: impl FnMut(&str, &Param) -> std::result::Result<Tensor, E>,
    ) -> std::result::Result<(), E> {
        for param in model.params() {
            let name = param.name();
            for (what, tensor) in self.states[param.id()].iter_mut().flat_map(State::tensors_mut) {
                *tensor = value(&format!("{name}.{what}"), param)?;
            }
        }
        self.updates = updates;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervised::SupervisedConfig;
    use crate::testing::{RATES, documents, trainer, update, weights};

    /// One update, with the clip so high that it does nothing.
    fn one_update(train_mtp: bool) -> Vec<(String, Vec<f32>, Vec<f32>)> {
        let mut trainer = trainer(train_mtp);
        let before = weights(&trainer.model);
        let mtp_weight = if train_mtp { 0.3 } else { 0.0 };
        let training = SupervisedConfig { mtp_weight, ..SupervisedConfig::default() };
        update(&training, &mut trainer, &documents(), RATES).unwrap();
        let after = weights(&trainer.model);
        before.into_iter().zip(after).map(|((name, before), (_, after))| (name, before, after)).collect()
    }

    #[test]
    fn every_parameter_is_moved_by_the_optimizer_of_its_group() {
        let specs = parameters(trainer(true).model.config());
        for ((name, before, after), spec) in one_update(true).iter().zip(&specs) {
            let moved: Vec<f64> = before.iter().zip(after).map(|(b, a)| f64::from(a - b)).collect();
            let largest = moved.iter().fold(0.0f64, |most, m| most.max(m.abs()));
            match spec.role {
                // Only balancing moves it, by exactly gamma.
                ParamRole::CorrectionBias => assert!(moved.iter().all(|m| *m == 0.0 || (m.abs() - 1e-3).abs() < 1e-9)),
                ParamRole::Matrix | ParamRole::Experts => {
                    // Muon: singular values near 1, times rate and stretch, so the mean square is known to a factor.
                    let [.., rows, columns] = spec.shape[..] else { panic!("{name} is no matrix") };
                    let stacked = spec.elements() / (rows * columns);
                    let norm = (moved.iter().map(|m| m * m).sum::<f64>() / stacked as f64).sqrt();
                    let stretch = (rows as f64 / columns as f64).max(1.0).sqrt();
                    let expected = 0.02 * stretch * (rows.min(columns) as f64).sqrt();
                    assert!((0.5..1.3).contains(&(norm / expected)), "{name}: {norm} against {expected}");
                }
                // AdamW's first step is its rate, whatever the gradient; epsilon takes and decay adds a little.
                _ => assert!((0.8..1.02).contains(&(largest / 3e-3)), "{name}: {largest}"),
            }
        }
    }

    #[test]
    fn without_its_loss_multi_token_prediction_stays_as_it_is() {
        for (name, before, after) in one_update(false) {
            // Layer 4 is the module; its selection bias is not moved either, because nothing is routed there.
            assert_eq!(before == after, name.starts_with("model.layers.4."), "{name}");
        }
    }

    #[test]
    fn gradients_beyond_the_clip_norm_are_scaled_down() {
        // Twice the clip changes momentum by the factor two as long as the norm is above it.
        let momentum = |clip_norm: f64| -> (f64, f64) {
            let device = crate::testing::device();
            let model = crate::testing::model(&device);
            let config = OptimizerConfig { clip_norm, ..OptimizerConfig::default() };
            let mut trainer = crate::trainer::Trainer::new(&device, model, RATES, config, true);
            let record = update(&SupervisedConfig::default(), &mut trainer, &documents(), RATES).unwrap();
            let tensors = trainer.optimizer.tensors(&trainer.model);
            let squares = tensors.iter().filter(|(name, _)| name.ends_with(".first") || name.ends_with(".momentum"));
            let scaled = |(name, t): &(String, &Tensor)| {
                let rate = if name.ends_with(".first") { 0.1 } else { 0.05 };
                t.read().iter().map(|&v| (f64::from(v) / rate).powi(2)).sum::<f64>()
            };
            (squares.map(scaled).sum::<f64>().sqrt(), record.metrics.number("grad_norm").unwrap())
        };
        let (unclipped, norm) = momentum(1e9);
        assert!((unclipped / norm - 1.0).abs() < 1e-4, "{unclipped} is not {norm}");
        let (clipped, same) = momentum(norm / 8.0);
        assert!((clipped * 8.0 / norm - 1.0).abs() < 1e-4 && same == norm);
    }

    #[test]
    fn weights_decay_and_norms_and_biases_do_not() {
        // Without any gradient an update is the decay alone: w (1 - rate * decay), under Muon and under AdamW.
        let config = OptimizerConfig { weight_decay: 0.5, ..OptimizerConfig::default() };
        for rates in [RATES, LearningRates { muon: None, ..RATES }] {
            let device = crate::testing::device();
            let mut model = crate::testing::model(&device);
            let specs = parameters(model.config());
            let before = weights(&model);
            let mut optimizer = Optimizer::new(&device, &model, rates, config, true, &Ranks::default());
            let norm = optimizer.step(&device, &mut model, &mut Gradients::default(), rates).unwrap();
            assert_eq!(norm, 0.0);
            for ((spec, (name, before)), (_, after)) in specs.iter().zip(&before).zip(weights(&model)) {
                let rate = match spec.role {
                    ParamRole::Norm | ParamRole::Bias | ParamRole::CorrectionBias => 0.0,
                    ParamRole::Matrix | ParamRole::Experts => rates.muon.unwrap_or(rates.adamw),
                    _ => rates.adamw,
                };
                let factor = 1.0 - rate * config.weight_decay;
                for (before, after) in before.iter().zip(&after) {
                    let expected = f64::from(*before) * factor;
                    let near = (f64::from(*after) - expected).abs() <= 2e-7 * expected.abs();
                    assert!(near, "{name}: {before} became {after}, not {expected}");
                }
            }
        }
    }
}
