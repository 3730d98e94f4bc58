//! Operations on log-probabilities.

use minke_kernels::ops::log_prob::{self, RowOutputs};
use minke_kernels::ops::matmul::Size;

use crate::error::mismatch;
use crate::shape::Shape;
use crate::tensor::{Indices, Op, Param, Pass, Result, Tensor};

/// What a model says about one token each.
pub struct TokenDistribution {
    /// Log-probability of the token. `[R]`, differentiable
    pub log_prob: Tensor,
    /// Entropy of the whole distribution, in nats. `[R]`, not differentiable
    pub entropy: Tensor,
}

/// Fills the three outputs of a row-wise distribution and returns (log_prob, log_sum, entropy).
fn fill(pass: Pass<'_>, rows: usize, run: impl FnOnce(RowOutputs<'_>)) -> [Tensor; 3] {
    let (cpu, shape) = (pass.cpu(), Shape::new(&[rows]));
    let (mut b, mut c) = (None, None);
    let a = Tensor::write(cpu, shape, |log_prob| {
        b = Some(Tensor::write(cpu, shape, |log_sum| {
            c = Some(Tensor::write(cpu, shape, |entropy| run(RowOutputs { log_prob, log_sum, entropy })));
        }));
    });
    [a, b.expect("invariant: written above"), c.expect("invariant: written above")]
}

fn check_targets(op: &'static str, targets: &Indices, rows: usize, vocabulary: usize) -> Result<()> {
    let bad = targets.values().iter().find(|&&id| id as usize >= vocabulary);
    if targets.len() == rows && bad.is_none() {
        return Ok(());
    }
    let name = bad.map_or("targets".to_string(), |id| format!("id {id} in targets"));
    Err(mismatch(op, (&name, &Shape::new(&[targets.len()])), ("logits", &Shape::new(&[rows, vocabulary]))))
}

impl Tensor {
    /// Returns log-probabilities of the targets under `softmax(x W^T / temperature)`, without holding all logits if the
    /// weight is dense.
    ///
    /// # Shapes
    /// x [R, D], W [vocabulary, D], targets `[R]`
    ///
    /// # Numerics
    /// Equal to the bit to [`Tensor::log_prob_rows`] of the logits `x W^T`.
    ///
    /// # Errors
    /// If the shapes do not fit or a target lies outside the vocabulary.
    pub fn head_log_prob(
        &self,
        pass: Pass<'_>,
        w: &Param,
        targets: &Indices,
        inverse_temperature: f32,
    ) -> Result<TokenDistribution> {
        let (x, shape) = (self.shape(), w.shape());
        if shape.dims().len() != 2 || x.width() != shape.width() {
            return Err(mismatch("head_log_prob", ("x", &x), (w.name(), &shape)));
        }
        check_targets("head_log_prob", targets, x.rows(), shape.rows())?;
        if !w.is_dense() {
            return self.matmul(pass, w)?.log_prob_rows(pass, targets, inverse_temperature);
        }
        let cpu = pass.cpu();
        let size = Size { m: x.rows(), n: shape.rows(), k: x.width() };
        let [log_prob, log_sum, entropy] = fill(pass, x.rows(), |outputs| {
            let (x, w) = (self.values(), w.packed(cpu));
            log_prob::head_log_prob(cpu, x, w, targets.values(), size, inverse_temperature, outputs);
        });
        let op = || Op::HeadLogProb {
            x: self.clone(),
            w: w.clone(),
            targets: targets.clone(),
            inverse_temperature,
            log_sum,
        };
        Ok(TokenDistribution { log_prob: log_prob.made_by(pass, true, op), entropy })
    }

    /// Returns log-probabilities of the targets under `softmax(logits / temperature)`. Inference only.
    ///
    /// # Shapes
    /// logits [R, vocabulary], targets `[R]`
    ///
    /// # Errors
    /// If the shapes do not fit or a target lies outside the vocabulary.
    pub fn log_prob_rows(
        &self,
        pass: Pass<'_>,
        targets: &Indices,
        inverse_temperature: f32,
    ) -> Result<TokenDistribution> {
        let x = self.shape();
        check_targets("log_prob_rows", targets, x.rows(), x.width())?;
        let [log_prob, _, entropy] = fill(pass, x.rows(), |outputs| {
            log_prob::log_prob_rows(pass.cpu(), self.values(), targets.values(), inverse_temperature, outputs);
        });
        let op = || Op::Inference { op: "log_prob_rows", x: self.clone() };
        Ok(TokenDistribution { log_prob: log_prob.made_by(pass, self.recorded(), op), entropy })
    }
}
