//! Cutting, joining and gathering of rows: copies, and the sums that are their gradients.

mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

use crate::{Device, View, ViewMut};

/// The number of rows; `width` may be zero if the slice is empty.
fn count(len: usize, width: usize) -> usize {
    assert!(if width == 0 { len == 0 } else { len.is_multiple_of(width) });
    len.checked_div(width).unwrap_or(0)
}

/// Computes the columns `start..start + len` of x.
///
/// # Shapes
/// x [T, width], y [T, len]
pub fn columns(device: &Device, x: View<'_, f32>, width: usize, start: usize, len: usize, y: ViewMut<'_, f32>) {
    assert!(start + len <= width);
    assert_eq!(y.len(), count(x.len(), width) * len);
    match device {
        Device::Cpu(cpu) => cpu::columns(cpu, x.host(), width, start, len, y.host()),
        Device::Reference(_) => y.set(&reference::columns(&x.wide(), width, start, len)),
    }
}

/// Adds dy to the columns `start..start + len` of dx.
///
/// # Shapes
/// dy [T, len], dx [T, width]
pub fn columns_backward_add(
    device: &Device,
    dy: View<'_, f32>,
    width: usize,
    start: usize,
    len: usize,
    dx: ViewMut<'_, f32>,
) {
    assert!(start + len <= width);
    let rows = count(dx.len(), width);
    assert_eq!(dy.len(), rows * len);
    match device {
        Device::Cpu(cpu) => cpu::columns_backward_add(cpu, dy.host(), width, start, len, dx.host()),
        Device::Reference(_) => dx.add(&reference::columns_backward(&dy.wide(), rows, width, start, len)),
    }
}

/// Computes rows that hold a row of a, then a row of b.
///
/// # Shapes
/// a [T, a_width], b [T, b_width], y [T, a_width + b_width]
pub fn concat_columns(
    device: &Device,
    a: View<'_, f32>,
    a_width: usize,
    b: View<'_, f32>,
    b_width: usize,
    y: ViewMut<'_, f32>,
) {
    let rows = count(y.len(), a_width + b_width);
    assert_eq!((a.len(), b.len()), (rows * a_width, rows * b_width));
    match device {
        Device::Cpu(cpu) => cpu::concat_columns(cpu, (a.host(), a_width), (b.host(), b_width), rows, y.host()),
        Device::Reference(_) => y.set(&reference::concat_columns(&a.wide(), a_width, &b.wide(), b_width, rows)),
    }
}

/// Computes heads that hold their own part, then the part that all heads of a token share.
///
/// # Shapes
/// x [T, heads, n], shared [T, r], y [T, heads, n + r]
///
/// # Paper
/// - V3 2.1.1 eq. 4 (keys: compressed part, then rotary part)
pub fn append_shared(
    device: &Device,
    x: View<'_, f32>,
    shared: View<'_, f32>,
    (heads, n, r): (usize, usize, usize),
    y: ViewMut<'_, f32>,
) {
    let tokens = count(y.len(), heads * (n + r));
    assert_eq!((x.len(), shared.len()), (tokens * heads * n, tokens * r));
    match device {
        Device::Cpu(cpu) => cpu::append_shared(cpu, x.host(), shared.host(), (heads, n, r), y.host()),
        Device::Reference(_) => y.set(&reference::append_shared(&x.wide(), &shared.wide(), tokens, (heads, n, r))),
    }
}

/// Computes the gradients of [`append_shared`].
///
/// # Shapes
/// dy [T, heads, n + r], dx [T, heads, n], dshared [T, r]
///
/// # Numerics
/// `dshared` is one sum per element, heads ascending.
pub fn append_shared_backward(
    device: &Device,
    dy: View<'_, f32>,
    (heads, n, r): (usize, usize, usize),
    dx: ViewMut<'_, f32>,
    dshared: ViewMut<'_, f32>,
) {
    let tokens = count(dy.len(), heads * (n + r));
    assert_eq!((dx.len(), dshared.len()), (tokens * heads * n, tokens * r));
    match device {
        Device::Cpu(cpu) => cpu::append_shared_backward(cpu, dy.host(), (heads, n, r), dx.host(), dshared.host()),
        Device::Reference(_) => {
            let both = reference::append_shared_backward(&dy.wide(), tokens, (heads, n, r));
            dx.set(&both.0);
            dshared.set(&both.1);
        }
    }
}

/// Computes `y[t] = x[t] + row`.
///
/// # Shapes
/// x [T, n], row `[n]`, y [T, n]
pub fn add_row(device: &Device, x: View<'_, f32>, row: View<'_, f32>, y: ViewMut<'_, f32>) {
    assert_eq!((x.len(), count(y.len(), row.len()) * row.len()), (y.len(), y.len()));
    match device {
        Device::Cpu(cpu) => cpu::add_row(cpu, x.host(), row.host(), y.host()),
        Device::Reference(_) => y.set(&reference::add_row(&x.wide(), &row.wide())),
    }
}

/// Adds the sum of the rows of dy to drow.
///
/// # Shapes
/// dy [T, width], drow `[width]`
///
/// # Numerics
/// One sum per column, rows ascending, starting from what `drow` holds.
pub fn column_sums_add(device: &Device, dy: View<'_, f32>, width: usize, drow: ViewMut<'_, f32>) {
    assert_eq!((drow.len(), count(dy.len(), width) * width), (width, dy.len()));
    match device {
        Device::Cpu(cpu) => cpu::column_sums_add(cpu, dy.host(), drow.host()),
        Device::Reference(_) => drow.add(&reference::column_sums(&dy.wide(), width)),
    }
}

/// Computes `y[i] = x[ids[i]]`.
///
/// # Shapes
/// x [T, width], ids `[S]`, y [S, width]
///
/// # Panics
/// If an id is not a row of x.
pub fn gather_rows(device: &Device, x: View<'_, f32>, width: usize, ids: View<'_, u32>, y: ViewMut<'_, f32>) {
    assert_eq!(y.len(), ids.len() * width);
    match device {
        Device::Cpu(cpu) => cpu::gather_rows(cpu, x.host(), width, ids.host(), y.host()),
        Device::Reference(_) => y.set(&reference::gather_rows(&x.wide(), width, ids.host())),
    }
}
