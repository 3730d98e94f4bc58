//! In which order is a sum of products added up? One accumulator per output element, k ascending, one fused
//! multiply-add per step: for one row or a thousand, for any number of threads.
//!
//! Everything that multiplies matrices of f32 (linear layers, experts, attention, the head) goes through [`product`].
//! Lanes and register tiles lie over outputs, never over k, so blocking changes speed and no bit.

use crate::simd::Simd;

/// The left operand: element (i, p) lies at `pointer + i * row + p * column`.
#[derive(Clone, Copy)]
pub(crate) struct Left {
    pub pointer: *const f32,
    pub row: usize,
    pub column: usize,
}

/// The right operand: element (p, j) lies at `pointer + (j / W) * panel + p * row + j % W`, where W is
/// [`panel_width`]. A plain row-major matrix has `panel = W`.
#[derive(Clone, Copy)]
pub(crate) struct Right {
    pub pointer: *const f32,
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
    /// Returns the operand from row `i` and column `p` on.
    #[inline(always)]
    pub(crate) fn at(self, i: usize, p: usize) -> Self {
        Self { pointer: self.pointer.wrapping_add(i * self.row + p * self.column), ..self }
    }
}

impl Right {
    /// Returns the plain row-major matrix with the given number of columns.
    #[inline(always)]
    pub(crate) fn plain<S: Simd>(pointer: *const f32, row: usize) -> Self {
        Self { pointer, row, panel: panel_width::<S>() }
    }

    /// Returns the operand from row `p` and panel `panel` on.
    #[inline(always)]
    pub(crate) fn at(self, p: usize, panel: usize) -> Self {
        Self { pointer: self.pointer.wrapping_add(panel * self.panel + p * self.row), ..self }
    }
}

impl Output {
    /// Returns the output from row `i` and column `j` on.
    #[inline(always)]
    pub(crate) fn at(self, i: usize, j: usize) -> Self {
        Self { pointer: self.pointer.wrapping_add(i * self.row + j), ..self }
    }
}

/// Returns the columns of a register tile.
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
/// The operands are valid for these shapes, and `c` is not read or written by anybody else meanwhile.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe fn product<S: Simd>(
    s: S,
    (m, n, k): (usize, usize, usize),
    a: Left,
    b: Right,
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
                    12.. if S::TILE_ROWS >= 12 => rows::<S, 12>(s, k, a, b, c, columns, accumulate),
                    8.. if S::TILE_ROWS >= 12 => rows::<S, 8>(s, k, a, b, c, columns, accumulate),
                    6.. if S::TILE_ROWS >= 6 => rows::<S, 6>(s, k, a, b, c, columns, accumulate),
                    4.. => rows::<S, 4>(s, k, a, b, c, columns, accumulate),
                    2.. => rows::<S, 2>(s, k, a, b, c, columns, accumulate),
                    _ => rows::<S, 1>(s, k, a, b, c, columns, accumulate),
                };
            }
        }
        j += width;
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
pub(crate) unsafe fn row_products<S: Simd, const R: usize>(
    s: S,
    (n, k, row): (usize, usize, usize),
    a: [*const f32; R],
    b: [*const f32; R],
    ahead: [*const f32; R],
    c: [*mut f32; R],
    accumulate: bool,
) {
    let width = panel_width::<S>();
    let mut j = 0;
    while j < n {
        let columns = (n - j).min(width);
        let (b, ahead, c) =
            (b.map(|p| p.wrapping_add(j)), ahead.map(|p| p.wrapping_add(j)), c.map(|p| p.wrapping_add(j)));
        // SAFETY: the caller's promise.
        unsafe {
            if columns == width {
                row_tiles::<S, R, 2, false>(s, k, row, a, b, ahead, c, columns, accumulate);
            } else if columns > S::LANES {
                row_tiles::<S, R, 2, true>(s, k, row, a, b, ahead, c, columns, accumulate);
            } else if columns == S::LANES {
                row_tiles::<S, R, 1, false>(s, k, row, a, b, ahead, c, columns, accumulate);
            } else {
                row_tiles::<S, R, 1, true>(s, k, row, a, b, ahead, c, columns, accumulate);
            }
        }
        j += width;
    }
}

/// Computes C registers of columns of R rows; with `TAIL`, the last register has fewer columns.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn row_tiles<S: Simd, const R: usize, const C: usize, const TAIL: bool>(
    s: S,
    k: usize,
    row: usize,
    a: [*const f32; R],
    b: [*const f32; R],
    ahead: [*const f32; R],
    c: [*mut f32; R],
    columns: usize,
    accumulate: bool,
) {
    let lanes = S::LANES;
    let last = columns - (C - 1) * lanes;
    let mut sums = [[s.splat(0.0); C]; R];
    if accumulate {
        for (sums, c) in sums.iter_mut().zip(c) {
            for (v, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the output is readable for `columns` values.
                *sum = unsafe { load_one::<S, TAIL>(s, c.wrapping_add(v * lanes), v + 1 == C, last) };
            }
        }
    }
    for p in 0..k {
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: p lies within the left operand.
            let x = s.splat(unsafe { *a[r].add(p) });
            for (v, sum) in sums.iter_mut().enumerate() {
                let at = p * row + v * lanes;
                s.prefetch(ahead[r].wrapping_add(at));
                // SAFETY: row p of the right operand is readable for `columns` values.
                let y = unsafe { load_one::<S, TAIL>(s, b[r].wrapping_add(at), v + 1 == C, last) };
                *sum = s.fma(x, y, *sum);
            }
        }
    }
    for (sums, c) in sums.iter().zip(c) {
        for (v, &sum) in sums.iter().enumerate() {
            let to = c.wrapping_add(v * lanes);
            // SAFETY: the output is writable for `columns` values.
            unsafe { if TAIL && v + 1 == C { s.store_ptr_n(sum, to, last) } else { s.store_ptr(sum, to) } }
        }
    }
}

/// Returns one register of a row; with `TAIL`, the last one's `count` leading lanes.
#[inline(always)]
unsafe fn load_one<S: Simd, const TAIL: bool>(s: S, from: *const f32, is_last: bool, count: usize) -> S::V {
    // SAFETY: the caller's promise.
    unsafe { if TAIL && is_last { s.load_ptr_n(from, count) } else { s.load_ptr(from) } }
}

/// Computes R rows of one panel and returns R.
#[inline(always)]
unsafe fn rows<S: Simd, const R: usize>(
    s: S,
    k: usize,
    a: Left,
    b: Right,
    c: Output,
    columns: usize,
    accumulate: bool,
) -> usize {
    // SAFETY: the caller's promise.
    unsafe {
        if columns == panel_width::<S>() {
            tile::<S, R, false>(s, k, a, b, c, columns, accumulate);
        } else {
            tile::<S, R, true>(s, k, a, b, c, columns, accumulate);
        }
    }
    R
}

/// Computes an [R, columns] tile in registers. With `TAIL`, only the first `columns` of the panel are touched.
#[inline(always)]
unsafe fn tile<S: Simd, const R: usize, const TAIL: bool>(
    s: S,
    k: usize,
    a: Left,
    b: Right,
    c: Output,
    columns: usize,
    accumulate: bool,
) {
    let lanes = S::LANES;
    let first = columns.min(lanes);
    let second = columns - first;
    let mut sums = [[s.splat(0.0); 2]; R];
    if accumulate {
        for (i, sum) in sums.iter_mut().enumerate() {
            // SAFETY: row i of the output is readable for `columns` values.
            *sum = unsafe { load::<S, TAIL>(s, c.pointer.wrapping_add(i * c.row), first, second) };
        }
    }
    let (mut at_a, mut at_b) = (a.pointer, b.pointer);
    // The rows of the next tile, a line per term; of a transposed operand, the terms to come.
    let (ahead, line) = if a.column == 1 { (R * a.row, 16) } else { (16 * a.column, a.column) };
    let mut next_a = a.pointer.wrapping_add(ahead);
    for _ in 0..k {
        s.prefetch(next_a);
        next_a = next_a.wrapping_add(line);
        // SAFETY: row p of the right operand is readable for `columns` values.
        let [b0, b1] = unsafe { load::<S, TAIL>(s, at_b, first, second) };
        for (i, sum) in sums.iter_mut().enumerate() {
            // SAFETY: (i, p) lies within the left operand.
            let x = s.splat(unsafe { *at_a.add(i * a.row) });
            sum[0] = s.fma(x, b0, sum[0]);
            sum[1] = s.fma(x, b1, sum[1]);
        }
        at_a = at_a.wrapping_add(a.column);
        at_b = at_b.wrapping_add(b.row);
    }
    for (i, sum) in sums.iter().enumerate() {
        let to = c.pointer.wrapping_add(i * c.row);
        // SAFETY: row i of the output is writable for `columns` values.
        unsafe {
            if TAIL {
                s.store_ptr_n(sum[0], to, first);
                s.store_ptr_n(sum[1], to.wrapping_add(lanes), second);
            } else {
                s.store_ptr(sum[0], to);
                s.store_ptr(sum[1], to.add(lanes));
            }
        }
    }
}

/// Returns a row of a panel; with `TAIL`, only its `first` and `second` leading lanes.
///
/// A function, not a closure: a closure over registers that is called twice is compiled without the instruction set.
#[inline(always)]
unsafe fn load<S: Simd, const TAIL: bool>(s: S, from: *const f32, first: usize, second: usize) -> [S::V; 2] {
    let lanes = S::LANES;
    // SAFETY: the caller's promise.
    unsafe {
        if TAIL {
            // The address of an empty second half may lie outside the matrix; it is computed, not read.
            [s.load_ptr_n(from, first), s.load_ptr_n(from.wrapping_add(lanes), second)]
        } else {
            [s.load_ptr(from), s.load_ptr(from.add(lanes))]
        }
    }
}
