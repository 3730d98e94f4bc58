//! AdamW: a parameter moves by its mean gradient over the root of its mean squared gradient; decay is applied to the
//! parameter, not to the gradient.
//!
//! ```text
//! g      = grad_scale * grad
//! param *= 1 - lr * weight_decay
//! m      = beta1 m + (1 - beta1) g
//! v      = beta2 v + (1 - beta2) g^2
//! param -= lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
//! ```

mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

use crate::{Device, View, ViewMut};

/// The settings of one step. Doubles, because `1 - beta2` loses half its digits in f32.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the mean gradient.
    pub beta1: f64,
    /// Decay of the mean squared gradient.
    pub beta2: f64,
    /// Added to the root.
    pub eps: f64,
    /// Decay of the parameter per unit of the learning rate.
    pub weight_decay: f64,
    /// Factor on the gradient: 1, or less where its norm is clipped.
    pub grad_scale: f64,
}

/// Does step `t` (the first is 1) on one parameter.
///
/// # Shapes
/// param, grad, m, v `[n]`
///
/// # Paper
/// - Decoupled weight decay regularization (arXiv 1711.05101), algorithm 2; decay times the learning rate as in
///   `torch.optim.AdamW`
///
/// # Numerics
/// Factors in f64, rounded once; floats in f32.
///
/// # Panics
/// If t is 0.
pub fn step(
    device: &Device,
    param: ViewMut<'_, f32>,
    grad: View<'_, f32>,
    m: ViewMut<'_, f32>,
    v: ViewMut<'_, f32>,
    settings: &AdamW,
    t: u64,
) {
    assert!(t > 0, "the first step is 1");
    assert_eq!((grad.len(), m.len(), v.len()), (param.len(), param.len(), param.len()));
    match device {
        Device::Cpu(cpu) => cpu::step(cpu, param.host(), grad.host(), m.host(), v.host(), settings, t),
        Device::Reference(_) => {
            let all = param.host().iter_mut().zip(grad.host()).zip(m.host()).zip(v.host());
            for (((param, grad), m), v) in all {
                let (mut wide_param, mut wide_m, mut wide_v) = (f64::from(*param), f64::from(*m), f64::from(*v));
                reference::step(&mut wide_param, f64::from(*grad), &mut wide_m, &mut wide_v, settings, t);
                (*param, *m, *v) = (wide_param as f32, wide_m as f32, wide_v as f32);
            }
        }
    }
}
