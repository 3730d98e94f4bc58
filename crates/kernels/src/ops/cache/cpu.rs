//! The tuned version: tokens over threads.

use super::{PAGE_TOKENS, Strides};
use crate::device::{Cpu, Parts};
use crate::element::Element;

/// Tokens per task.
const ROWS: usize = 32;

/// Writes rows to their places, which are all different and lie in `to`.
pub(super) fn append<T: Element>(
    cpu: &Cpu,
    x: &[f32],
    (heads, width): (usize, usize),
    places: &[u32],
    strides: Strides,
    to: &mut [T],
) {
    let parts = Parts::new(to);
    cpu.run_if(x.len() > 20_000, places.len().div_ceil(ROWS), |task| {
        for t in task * ROWS..places.len().min((task + 1) * ROWS) {
            let (page, row) = (places[t] as usize / PAGE_TOKENS, places[t] as usize % PAGE_TOKENS);
            for h in 0..heads {
                let at = page * strides.unit + h * strides.head + row * strides.key;
                for (p, &value) in x[(t * heads + h) * width..][..width].iter().enumerate() {
                    // SAFETY: `Places` are all different and in the buffer, which the caller checked: tasks write different
                    // elements.
                    unsafe { *parts.pointer(at + p * strides.component) = T::from_f32(value) };
                }
            }
        }
    });
}
