//! What changes while a stage trains (a model, its optimizer, perhaps a reference), and one update of it.

use minke_model::{ExpertLoad, Transformer};
use minke_tensor::{Device, Gradients};

use crate::Result;
use crate::optimizer::{LearningRates, Optimizer, OptimizerConfig};
use crate::ranks::Ranks;

/// Everything that a training stage changes, and everything that a checkpoint holds of it.
pub struct Trainer {
    /// Where it runs.
    pub device: Device,
    /// The model that is trained.
    pub model: Transformer,
    /// A frozen model that the loss depends on; saved in checkpoints while there is one.
    pub reference: Option<Transformer>,
    /// The state of the optimizers.
    pub optimizer: Optimizer,
    /// Gradients since the last update; their memory is kept.
    pub gradients: Gradients,
    /// The ranks that share the work.
    pub ranks: Ranks,
}

/// How one update went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepOutcome {
    /// Norm of all gradients before clipping.
    pub grad_norm: f64,
    /// Whether loss or gradients were not finite, so that nothing was changed.
    pub skipped: bool,
}

impl Trainer {
    /// A trainer whose optimizer state is still zero.
    pub fn new(
        device: &Device,
        model: Transformer,
        rates: LearningRates,
        config: OptimizerConfig,
        train_mtp: bool,
    ) -> Self {
        Self::shared(device, model, rates, config, train_mtp, &Ranks::default())
    }

    /// The same, of one of several ranks, which begin with equal models or with the parts of one.
    pub fn shared(
        device: &Device,
        model: Transformer,
        rates: LearningRates,
        config: OptimizerConfig,
        train_mtp: bool,
        ranks: &Ranks,
    ) -> Self {
        let optimizer = Optimizer::new(device, &model, rates, config, train_mtp, ranks);
        Self { optimizer, ranks: ranks.clone(), ..Self::frozen(device, model) }
    }

    /// A trainer that leaves its model as it is.
    pub fn frozen(device: &Device, model: Transformer) -> Self {
        let (optimizer, gradients) = (Optimizer::frozen(&model), Gradients::default());
        Self { device: device.clone(), model, reference: None, optimizer, gradients, ranks: Ranks::default() }
    }

    /// Moves the weights along the gradients that all ranks collected so far and clears them. If the loss or a gradient is not finite,
    /// the weights stay as they are. All ranks give the same loss.
    ///
    /// # Errors
    /// If another rank has ended.
    pub fn apply(&mut self, loss: f64, rates: LearningRates) -> Result<StepOutcome> {
        let grad_norm = if loss.is_finite() {
            self.optimizer.step(&self.device, &mut self.model, &mut self.gradients, rates)?
        } else {
            f64::NAN
        };
        self.gradients.clear(&self.device);
        Ok(StepOutcome { grad_norm, skipped: !grad_norm.is_finite() })
    }

    /// Whether every weight that is trained is a finite number, on all ranks.
    pub(crate) fn is_finite(&self) -> Result<bool> {
        let params = self.model.params();
        let mut trained = params.iter().filter(|param| !param.is_frozen());
        let broken = trained.any(|param| !param.value().all_finite(&self.device));
        Ok(!self.ranks.any(broken)?)
    }

    /// Moves the selection biases of the experts by what all forwards of an update saw together; beside an adapter they stay as they
    /// are, as all of the base does.
    pub fn balance_experts(&mut self, loads: &[ExpertLoad], gamma: f32) {
        if gamma != 0.0 && !self.model.has_adapter() {
            self.model.balance_experts(&self.device, loads, gamma);
        }
    }
}

/// Adds the loads of one forward to those of others, layer by layer.
pub(crate) fn merge_loads(sum: &mut Vec<ExpertLoad>, loads: Vec<ExpertLoad>) {
    for load in loads {
        match sum.iter_mut().find(|have| have.layer == load.layer) {
            Some(have) => have.tokens.iter_mut().zip(&load.tokens).for_each(|(have, more)| *have += more),
            None => sum.push(load),
        }
    }
}

/// By how much the fullest expert of any layer exceeds the mean load, as a share of the mean; V3's maximal
/// violation.
pub(crate) fn load_violation(loads: &[ExpertLoad]) -> Option<f64> {
    let of_layer = |load: &ExpertLoad| {
        let mean = load.tokens.iter().sum::<u64>() as f64 / load.tokens.len() as f64;
        let most = load.tokens.iter().copied().max().unwrap_or(0) as f64;
        if mean > 0.0 { most / mean - 1.0 } else { 0.0 }
    };
    loads.iter().map(of_layer).reduce(f64::max)
}
