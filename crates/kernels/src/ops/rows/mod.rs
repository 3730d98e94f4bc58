//! How are rows cut, joined and gathered? Copies, and the sums that are their gradients.

mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

use crate::Cpu;

/// Returns the number of rows; `width` may be zero if the slice is empty.
fn count(len: usize, width: usize) -> usize {
    assert!(if width == 0 { len == 0 } else { len.is_multiple_of(width) });
    len.checked_div(width).unwrap_or(0)
}

/// Computes the columns `start..start + len` of x.
///
/// # Shapes
/// x [T, width], y [T, len]
pub fn columns(cpu: &Cpu, x: &[f32], width: usize, start: usize, len: usize, y: &mut [f32]) {
    assert!(start + len <= width);
    assert_eq!(y.len(), count(x.len(), width) * len);
    cpu::columns(cpu, x, width, start, len, y);
}

/// Adds dy to the columns `start..start + len` of dx.
///
/// # Shapes
/// dy [T, len], dx [T, width]
pub fn columns_backward_add(cpu: &Cpu, dy: &[f32], width: usize, start: usize, len: usize, dx: &mut [f32]) {
    assert!(start + len <= width);
    assert_eq!(dy.len(), count(dx.len(), width) * len);
    cpu::columns_backward_add(cpu, dy, width, start, len, dx);
}

/// Computes rows that hold a row of a, then a row of b.
///
/// # Shapes
/// a [T, a_width], b [T, b_width], y [T, a_width + b_width]
pub fn concat_columns(cpu: &Cpu, a: &[f32], a_width: usize, b: &[f32], b_width: usize, y: &mut [f32]) {
    let rows = count(y.len(), a_width + b_width);
    assert_eq!((a.len(), b.len()), (rows * a_width, rows * b_width));
    cpu::concat_columns(cpu, (a, a_width), (b, b_width), rows, y);
}

/// Computes heads that hold their own part, then the part that all heads of a token share.
///
/// # Shapes
/// x [T, heads, n], shared [T, r], y [T, heads, n + r]
///
/// # Paper
/// - V3 2.1.1 eq. 4 (keys: compressed part, then rotary part)
pub fn append_shared(cpu: &Cpu, x: &[f32], shared: &[f32], heads: usize, n: usize, r: usize, y: &mut [f32]) {
    let tokens = count(y.len(), heads * (n + r));
    assert_eq!((x.len(), shared.len()), (tokens * heads * n, tokens * r));
    cpu::append_shared(cpu, x, shared, (heads, n, r), y);
}

/// Computes the gradients of [`append_shared`].
///
/// # Shapes
/// dy [T, heads, n + r], dx [T, heads, n], dshared [T, r]
///
/// # Numerics
/// `dshared` is one sum per element, heads ascending.
pub fn append_shared_backward(
    cpu: &Cpu,
    dy: &[f32],
    heads: usize,
    n: usize,
    r: usize,
    dx: &mut [f32],
    dshared: &mut [f32],
) {
    let tokens = count(dy.len(), heads * (n + r));
    assert_eq!((dx.len(), dshared.len()), (tokens * heads * n, tokens * r));
    cpu::append_shared_backward(cpu, dy, (heads, n, r), dx, dshared);
}

/// Computes `y[t] = x[t] + row`.
///
/// # Shapes
/// x [T, n], row `[n]`, y [T, n]
pub fn add_row(cpu: &Cpu, x: &[f32], row: &[f32], y: &mut [f32]) {
    assert_eq!((x.len(), count(y.len(), row.len()) * row.len()), (y.len(), y.len()));
    cpu::add_row(cpu, x, row, y);
}

/// Adds the sum of the rows of dy to drow.
///
/// # Shapes
/// dy [T, width], drow `[width]`
///
/// # Numerics
/// One sum per column, rows ascending, starting from what `drow` holds.
pub fn column_sums_add(cpu: &Cpu, dy: &[f32], width: usize, drow: &mut [f32]) {
    assert_eq!((drow.len(), count(dy.len(), width) * width), (width, dy.len()));
    cpu::column_sums_add(cpu, dy, drow);
}

/// Computes `y[i] = x[ids[i]]`.
///
/// # Shapes
/// x [T, width], ids `[S]`, y [S, width]
///
/// # Panics
/// If an id is not a row of x.
pub fn gather_rows(cpu: &Cpu, x: &[f32], width: usize, ids: &[u32], y: &mut [f32]) {
    assert_eq!(y.len(), ids.len() * width);
    cpu::gather_rows(cpu, x, width, ids, y);
}
