//! Reference implementation of appending to a cache.

use super::{PAGE_TOKENS, Strides};
use crate::element::Element;

/// Writes x [T, heads, width] to its places.
pub(crate) fn append<T: Element>(
    x: &[f32],
    (heads, width): (usize, usize),
    places: &[u32],
    strides: Strides,
    to: &mut [T],
) {
    for (t, &place) in places.iter().enumerate() {
        let (page, row) = (place as usize / PAGE_TOKENS, place as usize % PAGE_TOKENS);
        for h in 0..heads {
            for p in 0..width {
                let at = page * strides.unit + h * strides.head + row * strides.key + p * strides.component;
                to[at] = T::from_f32(x[(t * heads + h) * width + p]);
            }
        }
    }
}
