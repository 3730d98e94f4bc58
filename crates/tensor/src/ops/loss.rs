//! Operations on log-probabilities.

use minke_kernels::ops::log_prob::{self, Head, RowOutputs};
use minke_kernels::ops::matmul::Size;
use minke_kernels::{Device, Floats};

use super::expect_below;
use crate::error::mismatch;
use crate::shape::Shape;
use crate::tensor::{Dense, Indices, Op, Operand, Param, Pass, Result, Tensor, Weight};

/// The log-probability of one token per row, and the entropy.
pub struct TokenDistribution {
    /// Log-probability of the token. `[R]`, differentiable
    pub log_prob: Tensor,
    /// Entropy of the whole distribution, in nats. `[R]`, not differentiable
    pub entropy: Tensor,
}

/// `log_prob`, `log_sum` and `entropy` of every row, as `run` writes them.
fn of_rows(pass: Pass<'_>, rows: usize, run: impl FnOnce(RowOutputs<'_>)) -> [Tensor; 3] {
    let [mut a, mut b, mut c] = [(); 3].map(|()| Tensor::unwritten(pass.device, Shape::new(&[rows])));
    run(RowOutputs { log_prob: a.view_mut(), log_sum: b.view_mut(), entropy: c.view_mut() });
    [a, b, c]
}

fn check_targets(op: &'static str, targets: &Indices, rows: usize, vocabulary: usize) -> Result<()> {
    if targets.len() != rows {
        let (targets, logits) = (Shape::new(&[targets.len()]), Shape::new(&[rows, vocabulary]));
        return Err(mismatch(op, ("targets", &targets), ("logits", &logits)));
    }
    expect_below(op, targets, vocabulary)
}

/// Rows and a head in their precision.
pub(crate) fn head<'a>(device: &Device, rows: &'a Operand, w: &'a Param, dense: &'a Dense) -> Result<Head<'a>> {
    const OP: &str = "head_log_prob";
    Ok(match (rows, dense.value.floats()) {
        (Operand::F32(x), Floats::F32(weight)) => {
            Head::F32 { x: x.view(OP)?, weight, packed: dense.packed(device, w.name()) }
        }
        (Operand::Bf16 { rows, .. }, Floats::Bf16(weight)) => {
            Head::Bf16 { x: rows.bf16(), weight, packed: dense.packed(device, w.name()) }
        }
        _ => unreachable!("invariant: rows were taken in the precision of the weight"),
    })
}

impl Tensor {
    /// Log-probabilities of the targets under `softmax(x W^T / temperature)`, without holding all logits if the
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
        let Weight::Dense(dense) = &w.weight else {
            return self.matmul(pass, w)?.log_prob_rows(pass, targets, inverse_temperature);
        };
        let size = Size { m: x.rows(), n: shape.rows(), k: x.width() };
        let rows = self.operand(pass.device, dense, "head_log_prob")?;
        let head = head(pass.device, &rows, w, dense)?;
        let [log_prob, log_sum, entropy] = of_rows(pass, x.rows(), |outputs| {
            let (device, targets) = (pass.device, targets.view());
            log_prob::head_log_prob(device, head, targets, size, inverse_temperature, outputs);
        });
        let op =
            || Op::HeadLogProb { x: rows.kept(), w: w.clone(), targets: targets.clone(), inverse_temperature, log_sum };
        Ok(TokenDistribution { log_prob: log_prob.made_by(pass, true, op), entropy })
    }

    /// Log-probabilities of the targets under `softmax(logits / temperature)`. Inference only.
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
        let logits = self.view("log_prob_rows")?;
        let [log_prob, _, entropy] = of_rows(pass, x.rows(), |outputs| {
            log_prob::log_prob_rows(pass.device, logits, targets.view(), inverse_temperature, outputs);
        });
        let op = || Op::Inference { op: "log_prob_rows", x: self.origin() };
        Ok(TokenDistribution { log_prob: log_prob.made_by(pass, self.recorded(), op), entropy })
    }
}
