//! The tuned version: chunks of rows whose logits stay in the cache.

use super::{Head, of_logit};
use crate::device::{Buffer, Cpu, Parts};
use crate::ops::bf16_matmul::cpu::Backward;
use crate::ops::bf16_matmul::{self, row_len};
use crate::ops::matmul::Size;
use crate::ops::matmul::cpu::{backward_weight_add, blocked, pack_columns, packed_len};
use crate::simd::simd_fn;

/// Rows whose logits are held at once.
const CHUNK: usize = 256;
/// Rows per task.
const ROWS: usize = 16;

/// Outputs by row.
pub(super) struct Rows<'a> {
    pub log_prob: &'a mut [f32],
    pub log_sum: &'a mut [f32],
    pub entropy: &'a mut [f32],
}

simd_fn! {
    /// Log-probability, log sum and entropy of one row.
    pub(crate) fn row<S>(s: S, logits: &[f32], target: usize, inverse_temperature: f32) -> (f32, f32, f32) {
        let scale = s.splat(inverse_temperature);
        let whole = logits.chunks_exact(S::LANES);
        let tail = whole.remainder();
        let mut largest = s.splat(f32::NEG_INFINITY);
        for chunk in whole.clone() {
            largest = s.max(largest, s.mul(s.load(chunk), scale));
        }
        let mut largest = s.largest(largest);
        for &z in tail {
            largest = largest.max(z * inverse_temperature);
        }
        let top = s.splat(largest);
        let (mut sum, mut weighted) = (s.splat(0.0), s.splat(0.0));
        for chunk in whole {
            let z = s.sub(s.mul(s.load(chunk), scale), top);
            let p = s.exp(z);
            sum = s.add(sum, p);
            weighted = s.fma(p, z, weighted);
        }
        let (mut sum, mut weighted) = (s.sum(sum), s.sum(weighted));
        for &z in tail {
            let z = z * inverse_temperature - largest;
            let p = s.to_array(s.exp(s.splat(z)))[0];
            sum += p;
            weighted += p * z;
        }
        let log = sum.ln();
        let log_sum = largest + log;
        (of_logit(logits[target], inverse_temperature, log_sum), log_sum, log - weighted / sum)
    }

    /// Replaces a row of logits by the gradient of its log-probability, times `d`.
    fn row_backward<S>(s: S, logits: &mut [f32], target: usize, inverse_temperature: f32, log_sum: f32, d: f32) {
        let (scale, log_sum, factor) = (s.splat(inverse_temperature), s.splat(log_sum), s.splat(-d * inverse_temperature));
        for chunk in logits.chunks_mut(S::LANES) {
            let p = s.exp(s.sub(s.mul(s.load_partial(chunk), scale), log_sum));
            s.store_partial(s.mul(p, factor), chunk);
        }
        logits[target] += d * inverse_temperature;
    }
}

pub(super) fn rows(cpu: &Cpu, logits: &[f32], targets: &[u32], inverse_temperature: f32, outputs: Rows<'_>) {
    let (m, n) = (targets.len(), logits.len() / targets.len());
    let Rows { log_prob, log_sum, entropy } = outputs;
    let (log_prob, log_sum, entropy) = (Parts::new(log_prob), Parts::new(log_sum), Parts::new(entropy));
    cpu.run_if(m * n > 20_000, m.div_ceil(ROWS), |task| {
        for i in task * ROWS..m.min((task + 1) * ROWS) {
            let found = row(cpu.isa(), &logits[i * n..][..n], targets[i] as usize, inverse_temperature);
            // SAFETY: each row is written by one task.
            unsafe { (log_prob.part(i, 1)[0], log_sum.part(i, 1)[0], entropy.part(i, 1)[0]) = found };
        }
    });
}

/// Turns rows of logits into their gradients.
pub(super) fn rows_backward(
    cpu: &Cpu,
    logits: &mut [f32],
    targets: &[u32],
    inverse_temperature: f32,
    (log_sum, dlog_prob): (&[f32], &[f32]),
) {
    let (m, n) = (targets.len(), logits.len() / targets.len());
    let parts = Parts::new(logits);
    cpu.run(m.div_ceil(ROWS), |task| {
        for i in task * ROWS..m.min((task + 1) * ROWS) {
            // SAFETY: each row is written by one task.
            let row = unsafe { parts.part(i * n, n) };
            row_backward(cpu.isa(), row, targets[i] as usize, inverse_temperature, log_sum[i], dlog_prob[i]);
        }
    });
}

impl Head<'_> {
    /// Writes the logits of rows from `start` on, as many as `logits` holds.
    fn logits(&self, cpu: &Cpu, start: usize, size: Size, logits: &mut [f32]) {
        let k = size.k;
        match self {
            Self::F32 { x, packed, .. } => blocked::<f32>(cpu, size, &x.host()[start * k..], packed.host(), logits),
            Self::Bf16 { x, packed, .. } => {
                bf16_matmul::cpu::matmul(cpu, &x.host()[start * row_len(k)..], packed.host(), size, logits);
            }
        }
    }
}

pub(super) fn head(
    cpu: &Cpu,
    head: Head<'_>,
    targets: &[u32],
    Size { m, n, k }: Size,
    inverse_temperature: f32,
    outputs: Rows<'_>,
) {
    let mut logits = cpu.buffer::<f32>(CHUNK.min(m) * n);
    for start in (0..m).step_by(CHUNK) {
        let rows_here = CHUNK.min(m - start);
        let logits = &mut logits.as_mut_slice()[..rows_here * n];
        head.logits(cpu, start, Size { m: rows_here, n, k }, logits);
        let at = start..start + rows_here;
        let part = Rows {
            log_prob: &mut outputs.log_prob[at.clone()],
            log_sum: &mut outputs.log_sum[at.clone()],
            entropy: &mut outputs.entropy[at.clone()],
        };
        rows(cpu, logits, &targets[at], inverse_temperature, part);
    }
}

/// What the backward of all chunks needs of the weight.
enum Weight {
    /// Its columns, packed.
    F32(Buffer),
    Bf16(Backward),
}

pub(super) fn head_backward(
    cpu: &Cpu,
    head: Head<'_>,
    targets: &[u32],
    Size { m, n, k }: Size,
    inverse_temperature: f32,
    (log_sum, dlog_prob): (&[f32], &[f32]),
    (dx, dweight): (&mut [f32], &mut [f32]),
) {
    let mut logits = cpu.buffer::<f32>(CHUNK.min(m) * n);
    let weight = match head {
        Head::F32 { weight, .. } => {
            let mut columns = cpu.buffer::<f32>(packed_len(cpu, k, n));
            pack_columns(cpu, weight.host(), n, k, columns.as_mut_slice());
            Weight::F32(columns)
        }
        Head::Bf16 { weight, .. } => Weight::Bf16(Backward::new(cpu, weight.host(), n, k, true)),
    };
    for start in (0..m).step_by(CHUNK) {
        let rows_here = CHUNK.min(m - start);
        let size = Size { m: rows_here, n, k };
        let dz = &mut logits.as_mut_slice()[..rows_here * n];
        head.logits(cpu, start, size, dz);
        let rows = start..start + rows_here;
        let given = (&log_sum[rows.clone()], &dlog_prob[rows.clone()]);
        rows_backward(cpu, dz, &targets[rows], inverse_temperature, given);
        let dx = &mut dx[start * k..][..rows_here * k];
        match (head, &weight) {
            (Head::F32 { x, .. }, Weight::F32(columns)) => {
                blocked::<f32>(cpu, Size { m: rows_here, n: k, k: n }, dz, columns.as_slice(), dx);
                backward_weight_add(cpu, dz, &x.host()[start * k..][..rows_here * k], size, dweight);
            }
            (Head::Bf16 { x, .. }, Weight::Bf16(backward)) => {
                let x = &x.host()[start * row_len(k)..][..rows_here * row_len(k)];
                backward.rows(cpu, dz, x, Some(dx), dweight);
            }
            _ => unreachable!("invariant: the weight was prepared in the precision of the head"),
        }
    }
}
