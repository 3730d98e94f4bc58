//! Operations that move rows and columns.

use minke_kernels::ops::rows;

use super::expect_below;
use crate::error::mismatch;
use crate::shape::Shape;
use crate::tensor::{Indices, Op, Pass, Result, Tensor};

impl Tensor {
    /// The columns `start..start + len`.
    ///
    /// # Shapes
    /// x [.., D] -> [.., len]
    ///
    /// # Errors
    /// If the range does not lie in the width.
    pub fn columns(&self, pass: Pass<'_>, start: usize, len: usize) -> Result<Tensor> {
        let x = self.shape();
        if start.checked_add(len).is_none_or(|end| end > x.width()) {
            return Err(mismatch("columns", ("x", &x), ("start and length", &Shape::new(&[start, len]))));
        }
        let from = self.view("columns")?;
        let y = Tensor::write(pass.device, x.with_width(len), |y| {
            rows::columns(pass.device, from, x.width(), start, len, y);
        });
        Ok(y.made_by(pass, self.recorded(), || Op::Columns { x: self.origin(), start }))
    }

    /// `[a, b]` side by side.
    ///
    /// # Shapes
    /// a [T, A], b [T, B] -> [T, A + B]
    ///
    /// # Errors
    /// If the rows differ.
    pub fn concat_columns(&self, pass: Pass<'_>, b: &Tensor) -> Result<Tensor> {
        let (a, other) = (self.shape(), b.shape());
        if a.rows() != other.rows() {
            return Err(mismatch("concat_columns", ("a", &a), ("b", &other)));
        }
        let (left, right) = (self.view("concat_columns")?, b.view("concat_columns")?);
        let y = Tensor::write(pass.device, a.with_width(a.width() + other.width()), |y| {
            rows::concat_columns(pass.device, left, a.width(), right, other.width(), y);
        });
        let wanted = self.recorded() || b.recorded();
        Ok(y.made_by(pass, wanted, || Op::ConcatColumns { a: self.origin(), b: b.origin() }))
    }

    /// Every head of a token with the token's shared part behind it.
    ///
    /// # Shapes
    /// x [T, H, N], shared [T, R] -> [T, H, N + R]
    ///
    /// # Errors
    /// If the tokens differ.
    pub fn append_shared(&self, pass: Pass<'_>, shared: &Tensor) -> Result<Tensor> {
        let (x, other) = (self.shape(), shared.shape());
        let (&[tokens, heads, n], &[rows, r]) = (x.dims(), other.dims()) else {
            return Err(mismatch("append_shared", ("x", &x), ("shared", &other)));
        };
        if tokens != rows {
            return Err(mismatch("append_shared", ("x", &x), ("shared", &other)));
        }
        let (own, common) = (self.view("append_shared")?, shared.view("append_shared")?);
        let y = Tensor::write(pass.device, Shape::new(&[tokens, heads, n + r]), |y| {
            rows::append_shared(pass.device, own, common, (heads, n, r), y);
        });
        let wanted = self.recorded() || shared.recorded();
        Ok(y.made_by(pass, wanted, || Op::AppendShared { x: self.origin(), shared: shared.origin() }))
    }

    /// The rows with the given numbers; a row may be taken often or never.
    ///
    /// # Shapes
    /// x [T, D], ids `[R]` below T -> [R, D]
    ///
    /// # Errors
    /// If a number lies outside.
    pub fn gather_rows(&self, pass: Pass<'_>, ids: &Indices) -> Result<Tensor> {
        let x = self.shape();
        expect_below("gather_rows", ids, x.rows())?;
        let from = self.view("gather_rows")?;
        let y = Tensor::write(pass.device, Shape::new(&[ids.len(), x.width()]), |y| {
            rows::gather_rows(pass.device, from, x.width(), ids.view(), y);
        });
        Ok(y.made_by(pass, self.recorded(), || Op::GatherRows { x: self.origin(), ids: ids.clone() }))
    }
}
