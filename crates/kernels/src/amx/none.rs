//! Processors without tiles.

/// Rows of a tile, and columns of 32 bits.
pub(crate) const SIDE: usize = 16;

/// Proof that there are tiles, which there is none of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tiles {}

impl Tiles {
    pub(crate) fn configure(self, _rows: usize, _words: usize) -> Self {
        self
    }

    pub(crate) unsafe fn products(&self, _a: *const i8, _a_row: usize, _b: *const u8, _out: *mut i32, _pairs: usize) {
        match *self {}
    }
}
