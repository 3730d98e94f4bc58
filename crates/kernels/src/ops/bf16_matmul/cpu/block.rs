//! One block of a product of rows with pairs of rows.

use std::ops::Range;

use super::STEP;
use super::dots::Dots;
use super::layout::COLUMNS;
use super::part::Part;
use crate::amx::{self, SIDE, Tiles};
use crate::device::Parts;
use crate::format::bf16::Bf16;
use crate::isa::Isa;

/// Steps of a sum per pass: two panels of them stay in the first-level cache. Sums continue through memory, unchanged.
const DEPTH: usize = 16;

/// What multiplies bf16 on a path.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    Tiles(Tiles),
    Dots(Dots),
}

impl Unit {
    /// The unit of a path, if it has one.
    pub(crate) fn of(isa: Isa) -> Option<Self> {
        isa.tiles().map(Self::Tiles).or_else(|| Dots::of(isa).map(Self::Dots))
    }

    /// Computes a part of a product.
    ///
    /// # Safety
    /// The pointers are valid for the part, and nothing else reads or writes its rows and columns of c.
    pub(crate) unsafe fn multiply(self, part: Part) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::Tiles(tiles) => in_tiles(tiles, part),
                Self::Dots(dots) => dots.multiply(part),
            }
        }
    }
}

/// A whole product `c = a b` or `c += a b`.
///
/// # Shapes
/// a [m, steps * STEP], its rows `a_row` values apart; b [panels of n, steps * STEP / 2, 16, 2]; c [m, n], its rows `c_row` apart
#[derive(Clone, Copy)]
pub(super) struct Operands<'a> {
    pub a: &'a [Bf16],
    pub a_row: usize,
    pub b: &'a [Bf16],
    pub n: usize,
    pub steps: usize,
    pub c: &'a Parts<'a, f32>,
    pub c_row: usize,
    pub accumulate: bool,
}

/// Computes rows `rows` and panels `panels` of a product.
///
/// # Safety
/// This block of c is this call's alone.
pub(super) unsafe fn multiply(unit: Unit, all: Operands<'_>, rows: Range<usize>, panels: Range<usize>) {
    let Operands { a, a_row, b, n, steps, c, c_row, accumulate } = all;
    let (columns, panel) = (panels.start * COLUMNS..n.min(panels.end * COLUMNS), COLUMNS * steps * STEP);
    if rows.is_empty() || columns.is_empty() {
        return;
    }
    assert!(a.len() >= (rows.end - 1) * a_row + steps * STEP && b.len() >= panels.end * panel);
    assert!(c.len() >= (rows.end - 1) * c_row + columns.end && steps > 0);
    let part = Part {
        m: rows.len(),
        n: columns.len(),
        steps: 0,
        a: a.as_ptr().wrapping_add(rows.start * a_row),
        a_row,
        b: b.as_ptr().wrapping_add(panels.start * panel),
        panel,
        c: c.pointer(rows.start * c_row + columns.start),
        c_row,
        accumulate,
    };
    for step in (0..steps).step_by(DEPTH) {
        let part = Part {
            steps: DEPTH.min(steps - step),
            a: part.a.wrapping_add(step * STEP),
            b: part.b.wrapping_add(step * STEP * COLUMNS),
            accumulate: accumulate || step > 0,
            ..part
        };
        // SAFETY: the operands cover the block, checked above, which is the caller's alone.
        unsafe { unit.multiply(part) };
    }
}

/// Computes a part in tiles; a group of fewer rows than a tile has is a tile of fewer rows, with the same bits.
///
/// # Safety
/// The pointers are valid for the part, which nothing else reads or writes.
unsafe fn in_tiles(tiles: Tiles, part: Part) {
    let whole = part.m / SIDE * SIDE;
    // SAFETY: the caller's promise, for rows of the part.
    unsafe {
        if whole > 0 {
            rows_in_tiles(tiles, part, 0..whole);
        }
        if whole < part.m {
            rows_in_tiles(tiles, part, whole..part.m);
        }
    }
}

/// Computes rows of a part: whole tiles, or fewer than one tile has.
///
/// # Safety
/// As [`in_tiles`].
unsafe fn rows_in_tiles(tiles: Tiles, part: Part, rows: Range<usize>) {
    let configured = tiles.configure(rows.len().min(SIDE), SIDE);
    let mut edge = [0.0; 2 * SIDE * 2 * SIDE];
    for j in (0..part.n).step_by(2 * COLUMNS) {
        let columns = (part.n - j).min(2 * COLUMNS);
        for i in rows.clone().step_by(2 * SIDE) {
            let count = (rows.end - i).min(2 * SIDE);
            let c = part.c.wrapping_add(i * part.c_row + j);
            let mut operands = amx::Operands {
                a: part.a.wrapping_add(i * part.a_row),
                a_row: 2 * part.a_row,
                b: part.b.wrapping_add(j / COLUMNS * part.panel),
                // Of a single panel the second tile is the first again, and is not looked at.
                b_panel: if columns > COLUMNS { 2 * part.panel } else { 0 },
                c,
                c_row: 4 * part.c_row,
                steps: part.steps,
                accumulate: part.accumulate,
            };
            let at_edge = columns < 2 * COLUMNS;
            if at_edge {
                (operands.c, operands.c_row) = (edge.as_mut_ptr(), 4 * 2 * COLUMNS);
            }
            // SAFETY: the caller's promise; the edge has room for all tiles.
            unsafe {
                if at_edge && part.accumulate {
                    for (row, to) in edge.chunks_exact_mut(2 * COLUMNS).take(count).enumerate() {
                        c.wrapping_add(row * part.c_row).copy_to_nonoverlapping(to.as_mut_ptr(), columns);
                    }
                }
                if count == 2 * SIDE {
                    configured.four_tiles_of_bf16(operands);
                } else {
                    configured.two_tiles_of_bf16(operands);
                }
                if at_edge {
                    for (row, from) in edge.chunks_exact(2 * COLUMNS).take(count).enumerate() {
                        c.wrapping_add(row * part.c_row).copy_from_nonoverlapping(from.as_ptr(), columns);
                    }
                }
            }
        }
    }
}
