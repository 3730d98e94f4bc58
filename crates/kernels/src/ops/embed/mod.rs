//! How does a token become a row? Row `id` of the table; its gradient is added to that row.

mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

use crate::Cpu;
use crate::ops::rows::gather_rows;

/// Computes `y[t] = table[ids[t]]`.
///
/// # Shapes
/// table [W, width], ids `[T]`, y [T, width]
///
/// # Panics
/// If an id is not a row of the table.
pub fn embed(cpu: &Cpu, table: &[f32], width: usize, ids: &[u32], y: &mut [f32]) {
    gather_rows(cpu, table, width, ids, y);
}

/// Adds `dy[t]` to `dtable[ids[t]]`.
///
/// # Shapes
/// ids `[T]`, dy [T, width], dtable [W, width]
///
/// # Numerics
/// One sum per element of the table, tokens ascending, starting from what it holds.
///
/// # Panics
/// If an id is not a row of the table.
pub fn embed_backward_add(cpu: &Cpu, width: usize, ids: &[u32], dy: &[f32], dtable: &mut [f32]) {
    assert_eq!(dy.len(), ids.len() * width);
    cpu::backward_add(cpu, width, ids, dy, dtable);
}
