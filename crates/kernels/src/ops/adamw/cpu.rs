//! The tuned version.

use super::AdamW;
use crate::device::Cpu;
use crate::ops::lanes::update;
use crate::ops::split::by_rows;
use crate::simd::simd_fn;

/// What does not depend on the element.
#[derive(Clone, Copy)]
struct Factors {
    grad: f32,
    keep: f32,
    mean: f32,
    beta2: f32,
    square: f32,
    root: f32,
    eps: f32,
    step: f32,
}

simd_fn! {
    fn step_part<S>(s: S, param: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32], by: Factors) {
        let c = |x: f32| s.splat(x);
        update(s, [grad], [param, m, v], |[p, m, v], [g]| {
            let g = s.mul(g, c(by.grad));
            let m = s.fma(s.sub(g, m), c(by.mean), m);
            let v = s.fma(s.mul(g, c(by.square)), g, s.mul(v, c(by.beta2)));
            let denominator = s.add(s.div(s.sqrt(v), c(by.root)), c(by.eps));
            let p = s.fma(s.div(m, denominator), c(by.step), s.mul(p, c(by.keep)));
            [p, m, v]
        });
    }
}

pub(super) fn step(cpu: &Cpu, param: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32], settings: &AdamW, t: u64) {
    let AdamW { lr, beta1, beta2, eps, weight_decay, grad_scale } = *settings;
    let by = Factors {
        grad: grad_scale as f32,
        keep: (1.0 - lr * weight_decay) as f32,
        mean: (1.0 - beta1) as f32,
        beta2: beta2 as f32,
        square: (1.0 - beta2) as f32,
        root: (1.0 - beta2.powf(t as f64)).sqrt() as f32,
        eps: eps as f32,
        step: (-lr / (1.0 - beta1.powf(t as f64))) as f32,
    };
    by_rows(cpu, grad.len(), 2, [(param, 1), (m, 1), (v, 1)], |at, [param, m, v]| {
        step_part(cpu.isa(), param, &grad[at], m, v, by);
    });
}
