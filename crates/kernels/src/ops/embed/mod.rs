//! Embedding: token `id` becomes row `id` of the table; its gradient is added to that row.

mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

use crate::ops::rows::gather_rows;
use crate::{Device, Floats, View, ViewMut};

/// Computes `y[t] = table[ids[t]]`.
///
/// # Shapes
/// table [W, width] in f32 or bf16, ids `[T]`, y [T, width]
///
/// # Panics
/// If an id is not a row of the table.
pub fn embed(device: &Device, table: Floats<'_>, width: usize, ids: View<'_, u32>, y: ViewMut<'_, f32>) {
    assert_eq!(y.len(), ids.len() * width);
    match (device, table) {
        (_, Floats::F32(table)) => gather_rows(device, table, width, ids, y),
        (Device::Cpu(cpu), Floats::Bf16(table)) => cpu::embed_bf16(cpu, table.host(), width, ids.host(), y.host()),
        (Device::Reference(_), table) => y.set(&reference::embed(&table.wide(), width, ids.host())),
    }
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
pub fn embed_backward_add(
    device: &Device,
    width: usize,
    ids: View<'_, u32>,
    dy: View<'_, f32>,
    dtable: ViewMut<'_, f32>,
) {
    assert_eq!(dy.len(), ids.len() * width);
    match device {
        Device::Cpu(cpu) => cpu::backward_add(cpu, width, ids.host(), dy.host(), dtable.host()),
        Device::Reference(_) => {
            let rows = dtable.len().checked_div(width).unwrap_or(0);
            dtable.add(&reference::embed_backward(rows, width, ids.host(), &dy.wide()));
        }
    }
}
