//! Processors without tiles: no value of these types exists.

use crate::format::bf16::Bf16;

/// Rows of a tile, and columns of 32 bits.
pub(crate) const SIDE: usize = 16;

/// Proof that there are tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tiles {}

/// Tiles that have sizes.
pub(crate) enum Configured {}

impl Tiles {
    pub(crate) fn configure(self, _rows: usize, _words: usize) -> Configured {
        match self {}
    }
}

impl Configured {
    pub(crate) unsafe fn product(&self, _a: *const i8, _a_row: usize, _b: *const u8, _out: *mut i32) {
        match *self {}
    }

    pub(crate) unsafe fn four_tiles_of_bf16(&self, _operands: Operands) {
        match *self {}
    }

    pub(crate) unsafe fn two_tiles_of_bf16(&self, _operands: Operands) {
        match *self {}
    }
}

/// The operands of a product of bf16 in tiles.
#[derive(Clone, Copy)]
pub(crate) struct Operands {
    pub a: *const Bf16,
    pub a_row: usize,
    pub b: *const Bf16,
    pub b_panel: usize,
    pub c: *mut f32,
    pub c_row: usize,
    pub steps: usize,
    pub accumulate: bool,
}
