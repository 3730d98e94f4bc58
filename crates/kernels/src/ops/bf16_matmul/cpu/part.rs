//! Some steps of a block of a product, as instructions take them.

use crate::format::bf16::Bf16;

/// Some steps of a block: m rows of a, n columns of b in panels that lie `panel` values apart; at least one step of [`STEP`](super::STEP) terms.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    pub m: usize,
    pub n: usize,
    pub steps: usize,
    pub a: *const Bf16,
    pub a_row: usize,
    pub b: *const Bf16,
    pub panel: usize,
    pub c: *mut f32,
    pub c_row: usize,
    pub accumulate: bool,
}
