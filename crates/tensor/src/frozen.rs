//! What flows through weights that are not trained: the gradient of the input, for a weight in any format, and nothing for the
//! weight. Of a product only the weight is kept, not the rows that it read.

use minke_kernels::ops::matmul::Size;
use minke_kernels::ops::{bf16_matmul, grouped_matmul, log_prob, matmul, stored_matmul};
use minke_kernels::{Device, Floats, View};

use crate::error::Error;
use crate::shape::Shape;
use crate::tensor::{Dispatch, Indices, Param, Pass, Result, Tensor, Weight};

/// Logits that are held at once.
const LOGITS: usize = 1 << 25;
/// Rows whose logits are held at once, at most.
const ROWS: usize = 512;

/// How many rows of a vocabulary's logits are held at once.
pub(crate) fn rows_at_once(vocabulary: usize) -> usize {
    (LOGITS / vocabulary.max(1)).clamp(1, ROWS)
}

/// `dy W`, in the precision of products with the weight.
///
/// # Shapes
/// dy [.., N], W [N, K] -> `shape`, [.., K]
pub(crate) fn matmul_nn(device: &Device, dy: View<'_, f32>, w: &Param, shape: Shape) -> Result<Tensor> {
    let size = Size { m: shape.rows(), n: w.shape().rows(), k: w.shape().width() };
    let mut dx = Tensor::unwritten(device, shape);
    match &w.weight {
        Weight::Dense(dense) => match dense.value.floats() {
            Floats::F32(values) => matmul::matmul_nn(device, dy, values, size, dx.view_mut()),
            Floats::Bf16(values) => bf16_matmul::matmul_nn(device, dy, values, size, dx.view_mut()),
        },
        Weight::Stored(stored) => {
            stored_matmul::matmul_nn(device, dy, stored.matrix(), size.m, w.precision(), dx.view_mut());
        }
        Weight::Split(_) => {
            let weight = w.weight.decode(device)?;
            matmul::matmul_nn(device, dy, weight.view("backward")?, size, dx.view_mut());
        }
    }
    Ok(dx)
}

/// `dy[s] W_e` for rows sorted by expert.
///
/// # Shapes
/// dy [S, N], W [E, N, K] -> `shape`, [S, K]
pub(crate) fn grouped_matmul_nn(
    device: &Device,
    dy: View<'_, f32>,
    w: &Param,
    plan: &Dispatch,
    shape: Shape,
) -> Result<Tensor> {
    let [_, n, k] = *w.shape().dims() else { unreachable!("invariant: experts are stacked") };
    let mut dx = Tensor::unwritten(device, shape);
    if let Weight::Dense(dense) = &w.weight
        && let Floats::F32(values) = dense.value.floats()
    {
        let size = Size { m: shape.rows(), n, k };
        grouped_matmul::grouped_matmul_nn(device, dy, values, plan.row_offsets().view(), size, dx.view_mut());
        return Ok(dx);
    }
    let (offsets, mut out) = (plan.row_offsets().read(), dx.view_mut());
    for (expert, rows) in offsets.windows(2).map(|pair| pair[0] as usize..pair[1] as usize).enumerate() {
        if rows.is_empty() {
            continue;
        }
        let (m, to) = (rows.len(), out.again().part(rows.start * k..rows.end * k));
        let dy = dy.part(rows.start * n..rows.end * n);
        match &w.weight {
            Weight::Dense(dense) => {
                let values = dense.value.bf16().part(expert * n * k..(expert + 1) * n * k);
                bf16_matmul::matmul_nn(device, dy, values, Size { m, n, k }, to);
            }
            Weight::Stored(stored) => {
                let absent = || Error::ExpertAbsent { name: w.name().into(), expert: expert as u32 };
                let matrix = stored.stored(stored.expert(expert).ok_or_else(absent)?);
                stored_matmul::matmul_nn(device, dy, matrix, m, w.precision(), to);
            }
            Weight::Split(_) => unreachable!("invariant: only kv_b_proj has halves"),
        }
    }
    Ok(dx)
}

/// The gradient of log-probabilities with respect to the rows that a head read; logits are computed again, some rows at a time.
///
/// # Shapes
/// x [R, D], W [vocabulary, D], log_sum `[R]`, dlog_prob `[R]` -> [R, D]
pub(crate) fn head_log_prob_nn(
    device: &Device,
    x: &Tensor,
    w: &Param,
    targets: &Indices,
    inverse_temperature: f32,
    (log_sum, dlog_prob): (View<'_, f32>, View<'_, f32>),
) -> Result<Tensor> {
    let (rows, width) = (x.shape().rows(), x.shape().width());
    let mut dx = Tensor::unwritten(device, x.shape());
    let step = rows_at_once(w.shape().rows());
    for start in (0..rows).step_by(step) {
        let range = start..rows.min(start + step);
        let part = x.row_range(device, range.clone())?;
        let mut dz = part.matmul(Pass::inference(device), w)?;
        let given = (log_sum.part(range.clone()), dlog_prob.part(range.clone()));
        let targets = targets.view().part(range.clone());
        log_prob::log_prob_rows_backward(device, dz.view_mut(), targets, inverse_temperature, given);
        let of_part = matmul_nn(device, dz.view("backward")?, w, part.shape())?;
        let to = dx.view_mut().part(range.start * width..range.end * width);
        minke_kernels::ops::copy(device, of_part.view("backward")?, to);
    }
    Ok(dx)
}
