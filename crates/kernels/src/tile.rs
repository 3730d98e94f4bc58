//! Matrix products in a fixed order of summation: one accumulator per output element, k ascending, one fused
//! multiply-add per step: for one row or a thousand, for any number of threads.
//!
//! Everything that multiplies matrices of f32 (linear layers, experts, attention, the head) goes through [`product`].
//! Lanes and register tiles lie over outputs, never over k, so blocking changes speed and no bit.

use crate::element::Element;
use crate::format::panel::AHEAD;
use crate::simd::Simd;

/// The left operand: element (i, p) lies at `pointer + i * row + p * column`.
#[derive(Clone, Copy)]
pub(crate) struct Left {
    pub pointer: *const f32,
    pub row: usize,
    pub column: usize,
}

/// The right operand, f32, or bf16 or f16 (widened when they are loaded): element (p, j) lies at
/// `pointer + (j / W) * panel + p * row + j % W`, where W is [`panel_width`]. A plain row-major matrix has `panel = W`.
#[derive(Clone, Copy)]
pub(crate) struct Right<T = f32> {
    pub pointer: *const T,
    pub row: usize,
    pub panel: usize,
}

/// The output: element (i, j) lies at `pointer + i * row + j`.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    pub pointer: *mut f32,
    pub row: usize,
}

impl Left {
    /// The operand from row `i` and column `p` on.
    #[inline(always)]
    pub(crate) fn at(self, i: usize, p: usize) -> Self {
        Self { pointer: self.pointer.wrapping_add(i * self.row + p * self.column), ..self }
    }
}

impl<T> Right<T> {
    /// The plain row-major matrix with the given number of columns.
    #[inline(always)]
    pub(crate) fn plain<S: Simd>(pointer: *const T, row: usize) -> Self {
        Self { pointer, row, panel: panel_width::<S>() }
    }

    /// The operand from row `p` and panel `panel` on.
    #[inline(always)]
    pub(crate) fn at(self, p: usize, panel: usize) -> Self {
        Self { pointer: self.pointer.wrapping_add(panel * self.panel + p * self.row), ..self }
    }
}

impl Output {
    /// The output from row `i` and column `j` on.
    #[inline(always)]
    pub(crate) fn at(self, i: usize, j: usize) -> Self {
        Self { pointer: self.pointer.wrapping_add(i * self.row + j), ..self }
    }
}

/// The columns of a register tile.
#[inline(always)]
pub(crate) const fn panel_width<S: Simd>() -> usize {
    2 * S::LANES
}

/// Writes `c = a b`, or continues the sums that `c` holds with `c += a b`.
///
/// # Shapes
/// a [m, k], b [k, n], c [m, n]
///
/// # Safety
/// The operands are valid for these shapes, and nothing else reads or writes `c` meanwhile.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe fn product<S: Simd, T: Element>(
    s: S,
    (m, n, k): (usize, usize, usize),
    a: Left,
    b: Right<T>,
    c: Output,
    accumulate: bool,
) {
    let width = panel_width::<S>();
    let mut j = 0;
    while j < n {
        let columns = (n - j).min(width);
        let b = b.at(0, j / width);
        let mut i = 0;
        while i < m {
            let left = m - i;
            let (a, c) = (a.at(i, 0), c.at(i, j));
            // SAFETY: the caller's promise, for the part of the shapes that starts here.
            unsafe {
                i += match left {
                    12.. if S::TILE_ROWS >= 12 => rows::<S, T, 12>(s, k, a, b, c, columns, accumulate),
                    8.. if S::TILE_ROWS >= 12 => rows::<S, T, 8>(s, k, a, b, c, columns, accumulate),
                    6.. if S::TILE_ROWS >= 6 => rows::<S, T, 6>(s, k, a, b, c, columns, accumulate),
                    4.. => rows::<S, T, 4>(s, k, a, b, c, columns, accumulate),
                    2.. => rows::<S, T, 2>(s, k, a, b, c, columns, accumulate),
                    _ => rows::<S, T, 1>(s, k, a, b, c, columns, accumulate),
                };
            }
        }
        j += width;
    }
}

/// Computes R rows of one panel and returns R.
#[inline(always)]
unsafe fn rows<S: Simd, T: Element, const R: usize>(
    s: S,
    k: usize,
    a: Left,
    b: Right<T>,
    c: Output,
    columns: usize,
    accumulate: bool,
) -> usize {
    // SAFETY: the caller's promise.
    unsafe {
        if columns == panel_width::<S>() {
            tile::<S, T, R, 2, false>(s, k, a, b, c, columns, accumulate);
        } else if columns > S::LANES {
            tile::<S, T, R, 2, true>(s, k, a, b, c, columns, accumulate);
        } else {
            tile::<S, T, R, 1, true>(s, k, a, b, c, columns, accumulate);
        }
    }
    R
}

/// Computes an [R, columns] tile in R times C registers. With `TAIL`, the last of a row's registers has fewer columns.
#[inline(always)]
unsafe fn tile<S: Simd, T: Element, const R: usize, const C: usize, const TAIL: bool>(
    s: S,
    k: usize,
    a: Left,
    b: Right<T>,
    c: Output,
    columns: usize,
    accumulate: bool,
) {
    let mut sums = [[s.splat(0.0); C]; R];
    if accumulate {
        for (i, sum) in sums.iter_mut().enumerate() {
            // SAFETY: row i of the output is readable for `columns` values.
            *sum = unsafe { load::<S, f32, C, TAIL>(s, c.pointer.wrapping_add(i * c.row), columns) };
        }
    }
    let (mut at_a, mut at_b) = (a.pointer, b.pointer);
    // The rows of the next tile, a line per term; of a transposed operand, the terms to come.
    let (ahead, line) = if a.column == 1 { (R * a.row, 16) } else { (16 * a.column, a.column) };
    let mut next_a = a.pointer.wrapping_add(ahead);
    for _ in 0..k {
        s.prefetch(next_a);
        next_a = next_a.wrapping_add(line);
        // For one row what is read is a stream of the right operand.
        if R == 1 {
            s.prefetch(at_b.wrapping_add(AHEAD / size_of::<T>()));
        }
        // SAFETY: row p of the right operand is readable for `columns` values.
        let row = unsafe { load::<S, T, C, TAIL>(s, at_b, columns) };
        for (i, sums) in sums.iter_mut().enumerate() {
            // SAFETY: (i, p) lies within the left operand.
            let x = s.splat(unsafe { *at_a.add(i * a.row) });
            for (sum, &y) in sums.iter_mut().zip(&row) {
                *sum = s.fma(x, y, *sum);
            }
        }
        at_a = at_a.wrapping_add(a.column);
        at_b = at_b.wrapping_add(b.row);
    }
    for (i, &sums) in sums.iter().enumerate() {
        // SAFETY: row i of the output is writable for `columns` values.
        unsafe { store::<S, C, TAIL>(s, sums, c.pointer.wrapping_add(i * c.row), columns) };
    }
}

/// Writes `c[r] = a[r] b[r]` for R rows, each with a right operand of its own: what `product` writes for each alone, but
/// their sums do not wait for each other. While row p of `b[r]` is multiplied, row p of `ahead[r]` is fetched.
///
/// # Shapes
/// a[r] [k], b[r] [k, n] with rows `row` floats apart, ahead[r] as b[r], c[r] [n]
///
/// # Safety
/// As [`product`]; `ahead` need not be valid.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe fn row_products<S: Simd, T: Element, const R: usize>(
    s: S,
    (n, k, row): (usize, usize, usize),
    a: [*const f32; R],
    b: [*const T; R],
    ahead: [*const T; R],
    c: [*mut f32; R],
    accumulate: bool,
) {
    for j in (0..n).step_by(panel_width::<S>()) {
        let columns = (n - j).min(panel_width::<S>());
        let (b, ahead) = (b.map(|p| p.wrapping_add(j)), ahead.map(|p| p.wrapping_add(j)));
        let c = c.map(|p| p.wrapping_add(j));
        // SAFETY: the caller's promise.
        unsafe {
            if columns == panel_width::<S>() {
                row_tile::<S, T, R, 2, false>(s, (columns, k, row), a, b, ahead, c, accumulate);
            } else if columns > S::LANES {
                row_tile::<S, T, R, 2, true>(s, (columns, k, row), a, b, ahead, c, accumulate);
            } else {
                row_tile::<S, T, R, 1, true>(s, (columns, k, row), a, b, ahead, c, accumulate);
            }
        }
    }
}

/// Computes what [`tile`] does, for rows with a right operand of their own.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn row_tile<S: Simd, T: Element, const R: usize, const C: usize, const TAIL: bool>(
    s: S,
    (columns, k, row): (usize, usize, usize),
    a: [*const f32; R],
    b: [*const T; R],
    ahead: [*const T; R],
    c: [*mut f32; R],
    accumulate: bool,
) {
    let mut sums = [[s.splat(0.0); C]; R];
    if accumulate {
        for (sums, c) in sums.iter_mut().zip(c) {
            // SAFETY: the output is readable for `columns` values.
            *sums = unsafe { load::<S, f32, C, TAIL>(s, c, columns) };
        }
    }
    for p in 0..k {
        for (r, sums) in sums.iter_mut().enumerate() {
            // A line has 64 bytes.
            for column in (0..C * S::LANES).step_by(S::LANES.max(32 / size_of::<T>())) {
                s.prefetch(ahead[r].wrapping_add(p * row + column));
            }
            // SAFETY: p lies within the left operand, and row p of the right one is readable for `columns` values.
            let (x, row) = unsafe { (*a[r].add(p), load::<S, T, C, TAIL>(s, b[r].wrapping_add(p * row), columns)) };
            for (sum, &y) in sums.iter_mut().zip(&row) {
                *sum = s.fma(s.splat(x), y, *sum);
            }
        }
    }
    for (&sums, c) in sums.iter().zip(c) {
        // SAFETY: the output is writable for `columns` values.
        unsafe { store::<S, C, TAIL>(s, sums, c, columns) };
    }
}

/// C registers of a row; with `TAIL`, the last one's leading lanes up to `columns`.
///
/// A function, not a closure: a closure over registers that is called twice is compiled without the instruction set.
#[inline(always)]
unsafe fn load<S: Simd, T: Element, const C: usize, const TAIL: bool>(
    s: S,
    from: *const T,
    columns: usize,
) -> [S::V; C] {
    let mut row = [s.splat(0.0); C];
    for (v, x) in row.iter_mut().enumerate() {
        let (from, last) = (from.wrapping_add(v * S::LANES), columns - (C - 1) * S::LANES);
        // SAFETY: the caller's promise.
        *x = unsafe { if TAIL && v + 1 == C { T::load_n(s, from, last) } else { T::load(s, from) } };
    }
    row
}

/// Writes C registers of a row; with `TAIL`, the last one's leading lanes up to `columns`.
#[inline(always)]
unsafe fn store<S: Simd, const C: usize, const TAIL: bool>(s: S, row: [S::V; C], to: *mut f32, columns: usize) {
    for (v, x) in row.into_iter().enumerate() {
        let (to, last) = (to.wrapping_add(v * S::LANES), columns - (C - 1) * S::LANES);
        // SAFETY: the caller's promise.
        unsafe { if TAIL && v + 1 == C { s.store_ptr_n(x, to, last) } else { s.store_ptr(x, to) } };
    }
}
