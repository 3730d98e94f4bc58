//! Processors without tiles: no value of these types exists.

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
}
