//! RMSNorm: a row is divided by its root mean square, then scaled by a learned weight.
//!
//! ```text
//! r_t    = 1 / sqrt(mean_j x_tj^2 + eps)
//! y_tj   = x_tj r_t w_j
//! dx_tj  = r_t (w_j dy_tj - x_tj r_t^2 / n * sum_i w_i dy_ti x_ti)
//! dw_j  += sum_t dy_tj x_tj r_t
//! ```

mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

use crate::{Device, View, ViewMut};

/// Computes `y = x / rms(x) * weight` by rows, and the inverse root mean squares that the backward needs.
///
/// # Shapes
/// x [T, n], weight `[n]`, y [T, n], inv_rms `[T]`
///
/// # Paper
/// - Root mean square layer normalization (arXiv 1910.07467), eq. 4; eps as in the published model code
///
/// # Numerics
/// f32 throughout; the order of the sum of squares depends on n alone. Relative error below 1e-6.
pub fn rms_norm(
    device: &Device,
    x: View<'_, f32>,
    weight: View<'_, f32>,
    eps: f32,
    y: ViewMut<'_, f32>,
    inv_rms: ViewMut<'_, f32>,
) {
    assert_eq!((x.len(), y.len()), (inv_rms.len() * weight.len(), x.len()));
    match device {
        Device::Cpu(cpu) => cpu::forward(cpu, x.host(), weight.host(), eps, y.host(), inv_rms.host()),
        Device::Reference(_) => {
            let (x, weight, eps) = (x.wide(), weight.wide(), f64::from(eps));
            y.set(&reference::rms_norm(&x, &weight, eps));
            inv_rms.set(&x.chunks_exact(weight.len()).map(|x| reference::inv_rms(x, eps)).collect::<Vec<_>>());
        }
    }
}

/// Computes the gradient of the input and adds that of the weight.
///
/// # Shapes
/// x [T, n], weight `[n]`, inv_rms `[T]`, dy [T, n], dx [T, n], dweight_add `[n]`
///
/// # Numerics
/// `dweight_add` continues one sum per column, rows ascending.
pub fn rms_norm_backward(
    device: &Device,
    x: View<'_, f32>,
    weight: View<'_, f32>,
    inv_rms: View<'_, f32>,
    dy: View<'_, f32>,
    dx: ViewMut<'_, f32>,
    dweight_add: ViewMut<'_, f32>,
) {
    assert_eq!((x.len(), dy.len(), dx.len()), (inv_rms.len() * weight.len(), x.len(), x.len()));
    assert_eq!(dweight_add.len(), weight.len());
    match device {
        Device::Cpu(cpu) => {
            let (x, inv_rms, dy) = (x.host(), inv_rms.host(), dy.host());
            cpu::backward_input(cpu, x, weight.host(), inv_rms, dy, dx.host());
            cpu::backward_weight_add(cpu, x, inv_rms, dy, dweight_add.host());
        }
        Device::Reference(_) => {
            let both = reference::rms_norm_backward(&x.wide(), &weight.wide(), &inv_rms.wide(), &dy.wide());
            dx.set(&both.0);
            dweight_add.add(&both.1);
        }
    }
}
