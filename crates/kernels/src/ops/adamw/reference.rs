//! Reference implementation of a step of AdamW.

use super::AdamW;

/// Does step `t` on one number: param, m and v are replaced.
pub fn step(param: &mut f64, grad: f64, m: &mut f64, v: &mut f64, settings: &AdamW, t: u64) {
    let AdamW { lr, beta1, beta2, eps, weight_decay, grad_scale } = *settings;
    let g = grad_scale * grad;
    *m = beta1 * *m + (1.0 - beta1) * g;
    *v = beta2 * *v + (1.0 - beta2) * g * g;
    let mean = *m / (1.0 - beta1.powf(t as f64));
    let square = *v / (1.0 - beta2.powf(t as f64));
    *param = *param * (1.0 - lr * weight_decay) - lr * mean / (square.sqrt() + eps);
}
