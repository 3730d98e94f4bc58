//! Values in another type: f32 rounded to bf16, bf16 widened to f32.

pub(crate) mod cpu;
#[cfg(test)]
mod tests;

use crate::{Bf16, Device, View, ViewMut};

/// Rounds to the nearest bf16, ties to even; what is too large becomes infinite, not a number stays so.
///
/// # Shapes
/// x, y `[n]`
pub fn narrow(device: &Device, x: View<'_, f32>, y: ViewMut<'_, Bf16>) {
    assert_eq!(x.len(), y.len());
    match device {
        Device::Cpu(cpu) => cpu::narrow_all(cpu, x.host(), y.host()),
        Device::Reference(_) => y.host().iter_mut().zip(x.host()).for_each(|(y, &x)| *y = Bf16::from_f32(x)),
    }
}

/// Writes the same values as f32.
///
/// # Shapes
/// x, y `[n]`
pub fn widen(device: &Device, x: View<'_, Bf16>, y: ViewMut<'_, f32>) {
    assert_eq!(x.len(), y.len());
    match device {
        Device::Cpu(cpu) => cpu::widen_all(cpu, x.host(), y.host()),
        Device::Reference(_) => y.host().iter_mut().zip(x.host()).for_each(|(y, x)| *y = x.to_f32()),
    }
}
