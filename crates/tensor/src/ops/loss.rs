//! Operations on log-probabilities.

use minke_kernels::ops::log_prob::{self, Head, RowOutputs};
use minke_kernels::ops::matmul::Size;
use minke_kernels::{Device, Floats};

use super::expect_below;
use super::linear::trainable;
use crate::error::mismatch;
use crate::frozen;
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
        if w.adapter().is_some() {
            return self.matmul(pass, w)?.log_prob_rows(pass, targets, inverse_temperature);
        }
        let Weight::Dense(dense) = &w.weight else {
            return self.stored_head_log_prob(pass, w, targets, inverse_temperature);
        };
        let size = Size { m: x.rows(), n: shape.rows(), k: x.width() };
        let rows = self.operand(pass.device, dense, "head_log_prob")?;
        let head = head(pass.device, &rows, w, dense)?;
        let [log_prob, log_sum, entropy] = of_rows(pass, x.rows(), |outputs| {
            let (device, targets) = (pass.device, targets.view());
            log_prob::head_log_prob(device, head, targets, size, inverse_temperature, outputs);
        });
        if w.is_frozen() {
            return Ok(self.through_frozen_head(pass, w, targets, inverse_temperature, [log_prob, log_sum, entropy]));
        }
        let op =
            || Op::HeadLogProb { x: rows.kept(), w: w.clone(), targets: targets.clone(), inverse_temperature, log_sum };
        Ok(TokenDistribution { log_prob: log_prob.made_by(pass, true, op), entropy })
    }

    /// [`Tensor::head_log_prob`] with a weight in the format of its file: logits of some rows at a time.
    fn stored_head_log_prob(
        &self,
        pass: Pass<'_>,
        w: &Param,
        targets: &Indices,
        inverse_temperature: f32,
    ) -> Result<TokenDistribution> {
        trainable(pass, "head_log_prob", w)?;
        let (device, rows) = (pass.device, self.shape().rows());
        let step = frozen::rows_at_once(w.shape().rows());
        let [mut log_prob, mut log_sum, mut entropy] = [(); 3].map(|()| Tensor::unwritten(device, Shape::new(&[rows])));
        for start in (0..rows).step_by(step) {
            let range = start..rows.min(start + step);
            let logits = self.row_range(device, range.clone())?.matmul(Pass { record: false, ..pass }, w)?;
            let outputs = RowOutputs {
                log_prob: log_prob.view_mut().part(range.clone()),
                log_sum: log_sum.view_mut().part(range.clone()),
                entropy: entropy.view_mut().part(range.clone()),
            };
            let targets = targets.view().part(range);
            log_prob::log_prob_rows(device, logits.view("head_log_prob")?, targets, inverse_temperature, outputs);
        }
        Ok(self.through_frozen_head(pass, w, targets, inverse_temperature, [log_prob, log_sum, entropy]))
    }

    /// Records what a head that is not trained made of the rows.
    fn through_frozen_head(
        &self,
        pass: Pass<'_>,
        w: &Param,
        targets: &Indices,
        inverse_temperature: f32,
        [log_prob, log_sum, entropy]: [Tensor; 3],
    ) -> TokenDistribution {
        let (x, w, targets) = (self.clone(), w.clone(), targets.clone());
        let op = || Op::FrozenHeadLogProb { x, w, targets, inverse_temperature, log_sum };
        TokenDistribution { log_prob: log_prob.made_by(pass, self.recorded(), op), entropy }
    }

    /// Some rows, copied, without history.
    ///
    /// # Shapes
    /// x [R, D] -> [rows, D]
    pub(crate) fn row_range(&self, device: &Device, rows: std::ops::Range<usize>) -> Result<Tensor> {
        let width = self.shape().width();
        let from = self.view("rows")?.part(rows.start * width..rows.end * width);
        let shape = Shape::new(&[rows.len(), width]);
        Ok(Tensor::write(device, shape, |to| minke_kernels::ops::copy(device, from, to)))
    }

    /// Log-probabilities of the targets under `softmax(logits / temperature)`.
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
        let [log_prob, log_sum, entropy] = of_rows(pass, x.rows(), |outputs| {
            log_prob::log_prob_rows(pass.device, logits, targets.view(), inverse_temperature, outputs);
        });
        let op = || Op::LogProbRows { logits: self.clone(), targets: targets.clone(), inverse_temperature, log_sum };
        Ok(TokenDistribution { log_prob: log_prob.made_by(pass, self.recorded(), op), entropy })
    }
}
