//! Operations with a parameter: products, embedding, norm, bias.

use minke_kernels::ops::matmul::Size;
use minke_kernels::ops::{bf16_matmul, embed, grouped_matmul, matmul, norm, rows, stored_matmul};
use minke_kernels::{Device, Dtype};

use super::expect_below;
use crate::error::Error;
use crate::error::mismatch;
use crate::experts::FetchedExperts;
use crate::shape::Shape;
use crate::tensor::{Dense, Dispatch, Indices, Op, Operand, Param, Pass, Result, Tap, Tensor, Weight};

/// Refuses to record an operation whose weight is to be trained and cannot be.
pub(super) fn trainable(pass: Pass<'_>, op: &'static str, w: &Param) -> Result<()> {
    if pass.record && !w.is_frozen() && !w.is_dense() {
        return Err(Error::NotTrainable { op, name: w.name().into(), format: w.weight.format().name() });
    }
    Ok(())
}

impl Tensor {
    /// The rows as a product with a weight reads them.
    pub(crate) fn operand(&self, device: &Device, w: &Dense, op: &'static str) -> Result<Operand> {
        Ok(match w.value.dtype() {
            Dtype::F32 => Operand::F32(self.clone()),
            Dtype::Bf16 => Operand::Bf16 { x: self.origin(), rows: self.rounded_rows(device, op)? },
        })
    }

    /// `x W^T`, and what an adapter of W adds.
    ///
    /// # Shapes
    /// x [.., K], W [N, K] -> [.., N]
    ///
    /// # Errors
    /// If the widths differ.
    pub fn matmul(&self, pass: Pass<'_>, w: &Param) -> Result<Tensor> {
        let [y] = self.matmul_each(pass, [w])?;
        Ok(y)
    }

    /// [`Tensor::matmul`] with each of some matrices, those that are stored at once: the rows are rounded once, and threads wait
    /// for each other once.
    ///
    /// # Errors
    /// If the widths differ.
    pub fn matmul_each<const M: usize>(&self, pass: Pass<'_>, w: [&Param; M]) -> Result<[Tensor; M]> {
        let mut ys = self.product_each(pass, w)?;
        for (w, y) in w.iter().zip(&mut ys) {
            if let Some(adapter) = w.adapter() {
                *y = adapter.add(pass, self, y)?;
            }
        }
        Ok(ys)
    }

    /// [`Tensor::matmul`] without an adapter.
    pub(crate) fn product(&self, pass: Pass<'_>, w: &Param) -> Result<Tensor> {
        let [y] = self.product_each(pass, [w])?;
        Ok(y)
    }

    /// [`Tensor::matmul_each`] without adapters.
    fn product_each<const M: usize>(&self, pass: Pass<'_>, w: [&Param; M]) -> Result<[Tensor; M]> {
        let x = self.shape();
        for w in w {
            let shape = w.shape();
            if !matches!(shape.dims(), &[_, k] if k == x.width()) {
                return Err(mismatch("matmul", ("x", &x), (w.name(), &shape)));
            }
            trainable(pass, "matmul", w)?;
            pass.tap(Tap::Input { weight: w.name(), expert: None }, self);
        }
        let (device, m, from) = (pass.device, x.rows(), self.view("matmul")?);
        let mut ys = w.map(|w| Tensor::unwritten(device, x.with_width(w.shape().rows())));
        let mut read = [const { None }; M];
        let stored = w.map(|w| if let Weight::Stored(stored) = &w.weight { Some(stored.matrix()) } else { None });
        if stored.iter().all(Option::is_some) {
            let matrices = stored.map(|matrix| matrix.expect("invariant: checked on the line above"));
            stored_matmul::matmul(device, from, matrices, m, ys.each_mut().map(Tensor::view_mut));
        } else {
            for ((w, y), read) in w.iter().zip(&mut ys).zip(&mut read) {
                *read = self.product_into(device, w, y)?;
            }
        }
        let mut made = ys.into_iter().zip(w).zip(read).map(|((y, w), read)| {
            if w.is_frozen() {
                return y.made_by(pass, self.recorded(), || Op::FrozenMatmul { x: self.origin(), w: w.clone() });
            }
            let x = read.unwrap_or_else(|| Operand::F32(self.clone()));
            y.made_by(pass, true, || Op::Matmul { x: x.kept(), w: w.clone() })
        });
        Ok(std::array::from_fn(|_| made.next().expect("invariant: one for each matrix")))
    }

    /// Writes the product with one matrix, and returns the rows as it read them if they are kept for the backward.
    fn product_into(&self, device: &Device, w: &Param, y: &mut Tensor) -> Result<Option<Operand>> {
        let (from, m) = (self.view("matmul")?, self.shape().rows());
        match &w.weight {
            Weight::Dense(dense) => {
                let size = Size { m, n: w.shape().rows(), k: w.shape().width() };
                let rows = self.operand(device, dense, "matmul")?;
                match &rows {
                    Operand::F32(_) => matmul::matmul(device, from, dense.packed(device, w.name()), size, y.view_mut()),
                    Operand::Bf16 { rows, .. } => {
                        bf16_matmul::matmul(device, rows.bf16(), dense.packed(device, w.name()), size, y.view_mut());
                    }
                }
                return Ok(Some(rows));
            }
            Weight::Stored(stored) => stored_matmul::matmul(device, from, [stored.matrix()], m, [y.view_mut()]),
            Weight::Split(split) => {
                let (keys, values) = (split.keys.matrix(), split.values.matrix());
                stored_matmul::split_heads_matmul(device, from, keys, values, split.heads, y.view_mut());
            }
        }
        Ok(None)
    }

    /// `x W[rows]` per head: the transposed product with a slice of a matrix, as absorbed attention needs it.
    /// Inference only.
    ///
    /// # Shapes
    /// x [T, H, M], W [H * (rows per head), C]; the head's slice `first..first + M` of its rows -> [T, H, C]
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn heads_matmul_nn(&self, pass: Pass<'_>, w: &Param, first: usize) -> Result<Tensor> {
        let y = self.per_head("heads_matmul_nn", pass, w, first, false)?;
        match w.adapter() {
            Some(adapter) => adapter.add_per_head(pass, self, &y, first, false),
            None => Ok(y),
        }
    }

    /// `x W[rows]^T` per head. Inference only.
    ///
    /// # Shapes
    /// x [T, H, C], W [H * (rows per head), C]; the head's slice `first..first + count` of its rows -> [T, H, count]
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn heads_matmul(&self, pass: Pass<'_>, w: &Param, first: usize) -> Result<Tensor> {
        let y = self.per_head("heads_matmul", pass, w, first, true)?;
        match w.adapter() {
            Some(adapter) => adapter.add_per_head(pass, self, &y, first, true),
            None => Ok(y),
        }
    }

    /// Both, without an adapter.
    pub(crate) fn per_head(
        &self,
        op: &'static str,
        pass: Pass<'_>,
        w: &Param,
        first: usize,
        transposed: bool,
    ) -> Result<Tensor> {
        self.expect_rank(op, 3)?;
        let (x, shape) = (self.shape(), w.shape());
        let &[tokens, heads, width] = x.dims() else { unreachable!("the rank was checked") };
        let refuse = || mismatch(op, ("x", &x), (w.name(), &shape));
        let &[rows, latent] = shape.dims() else { return Err(refuse()) };
        let per_head = rows / heads.max(1);
        let count = if transposed { per_head.saturating_sub(first) } else { width };
        if rows % heads != 0 || first + count > per_head || (transposed && width != latent) {
            return Err(refuse());
        }
        let device = pass.device;
        let slice = matmul::HeadSlice { heads, per_head, first, count, latent };
        let to = if transposed { count } else { latent };
        let from = self.view(op)?;
        let mut out = Tensor::unwritten(device, Shape::new(&[tokens, heads, to]));
        let y = out.view_mut();
        match (&w.weight, transposed) {
            // Absorbed attention is inference alone: it takes a weight in bf16 as it is and rounds nothing else.
            (Weight::Dense(dense), transposed) => {
                let weight = dense.value.widened(device);
                let multiply = if transposed { matmul::heads_matmul } else { matmul::heads_matmul_nn };
                multiply(device, from, weight.view(op)?, slice, y);
            }
            (Weight::Stored(w), true) => stored_matmul::heads_matmul(device, from, w.matrix(), slice, y),
            (Weight::Stored(w), false) => stored_matmul::heads_matmul_nn(device, from, w.matrix(), slice, y),
            (Weight::Split(split), transposed) => {
                // A half is a matrix of its own; that of keys is transposed already.
                let half = if transposed { &split.values } else { &split.keys };
                let per_head = half.shape().rows() / heads;
                let slice =
                    matmul::HeadSlice { heads, per_head, first: 0, count: per_head, latent: half.shape().width() };
                stored_matmul::heads_matmul(device, from, half.matrix(), slice, y);
            }
        }
        Ok(out.made_by(pass, true, || Op::Inference { op, x: self.origin() }))
    }

    /// `x[s] W_e^T` for rows sorted by expert.
    ///
    /// # Shapes
    /// x [S, K], W [E, N, K], a plan for S slots and E experts -> [S, N]; `fetched` has the experts that W does not hold
    ///
    /// # Errors
    /// If the shapes do not fit, or a row is sent to an expert that is neither in memory nor was fetched.
    pub fn grouped_matmul(
        &self,
        pass: Pass<'_>,
        w: &Param,
        plan: &Dispatch,
        fetched: &FetchedExperts,
    ) -> Result<Tensor> {
        let (x, shape) = (self.shape(), w.shape());
        let refuse = || mismatch("grouped_matmul", ("x", &x), (w.name(), &shape));
        let &[experts, n, k] = shape.dims() else { return Err(refuse()) };
        if x.width() != k || plan.row_offsets().len() != experts + 1 || plan.rows() != x.rows() {
            return Err(refuse());
        }
        trainable(pass, "grouped_matmul", w)?;
        let (device, from, offsets) = (pass.device, self.view("grouped_matmul")?, plan.row_offsets().view());
        if pass.tap.is_some() {
            // What each expert is given, by expert.
            let (rows, starts) = (from.read(), offsets.read());
            for (e, range) in starts.windows(2).enumerate().filter(|(_, range)| range[0] < range[1]) {
                let rows = &rows[range[0] as usize * k..range[1] as usize * k];
                let inputs = Tensor::from_slice(device, &[rows.len() / k, k], rows);
                pass.tap(Tap::Input { weight: w.name(), expert: Some(e) }, &inputs);
            }
        }
        match &w.weight {
            Weight::Stored(stored) if !stored.is_whole() => {
                fetched.check(stored, w.name(), &plan.row_offsets().read())?
            }
            _ => {}
        }
        let (mut y, size) = (Tensor::unwritten(device, x.with_width(n)), Size { m: x.rows(), n, k });
        let mut read = None;
        match &w.weight {
            Weight::Dense(dense) => {
                let rows = self.operand(device, dense, "grouped_matmul")?;
                match &rows {
                    Operand::F32(_) => {
                        let packed = dense.packed(device, w.name());
                        grouped_matmul::grouped_matmul(device, from, packed, offsets, size, y.view_mut());
                    }
                    Operand::Bf16 { rows, .. } => {
                        let packed = dense.packed(device, w.name());
                        bf16_matmul::grouped::matmul(device, rows.bf16(), packed, offsets, size, y.view_mut());
                    }
                }
                read = Some(rows);
            }
            Weight::Split(_) => unreachable!("invariant: only kv_b_proj has halves"),
            Weight::Stored(stored) => {
                let expert = |expert| fetched.matrix(stored, w.name(), expert);
                stored_matmul::grouped_matmul(device, from, expert, offsets, [n, k], y.view_mut());
            }
        }
        if w.is_frozen() {
            let op = || Op::FrozenGroupedMatmul { x: self.origin(), w: w.clone(), plan: plan.clone() };
            return Ok(y.made_by(pass, self.recorded(), op));
        }
        let x = read.unwrap_or_else(|| Operand::F32(self.clone()));
        Ok(y.made_by(pass, true, || Op::GroupedMatmul { x: x.kept(), w: w.clone(), plan: plan.clone() }))
    }

    /// The rows of an embedding table.
    ///
    /// # Shapes
    /// W [vocabulary, D], ids `[T]` below the vocabulary -> [T, D]
    ///
    /// # Errors
    /// If an id lies outside the table.
    pub fn embed(pass: Pass<'_>, w: &Param, ids: &Indices) -> Result<Tensor> {
        let shape = w.shape();
        expect_below("embed", ids, shape.rows())?;
        trainable(pass, "embed", w)?;
        let device = pass.device;
        let mut y = Tensor::unwritten(device, Shape::new(&[ids.len(), shape.width()]));
        match &w.weight {
            Weight::Dense(dense) => embed::embed(device, dense.value.floats(), shape.width(), ids.view(), y.view_mut()),
            Weight::Stored(stored) => stored_matmul::embed(device, stored.matrix(), ids.view(), y.view_mut()),
            Weight::Split(_) => unreachable!("invariant: only kv_b_proj has halves"),
        }
        Ok(y.made_by(pass, !w.is_frozen(), || Op::Embed { w: w.clone(), ids: ids.clone() }))
    }

    /// `x / rms(x) * w` over the last dimension.
    ///
    /// # Shapes
    /// x [.., D], w `[D]` -> [.., D]
    ///
    /// # Errors
    /// If the widths differ.
    pub fn rms_norm(&self, pass: Pass<'_>, w: &Param, epsilon: f32) -> Result<Tensor> {
        let x = self.shape();
        if w.shape() != Shape::new(&[x.width()]) {
            return Err(mismatch("rms_norm", ("x", &x), (w.name(), &w.shape())));
        }
        let (from, weight) = (self.view("rms_norm")?, w.view("rms_norm")?);
        let mut y = Tensor::unwritten(pass.device, x);
        let mut inverse_rms = Tensor::unwritten(pass.device, Shape::new(&[x.rows()]));
        norm::rms_norm(pass.device, from, weight, epsilon, y.view_mut(), inverse_rms.view_mut());
        let wanted = !w.is_frozen() || self.recorded();
        Ok(y.made_by(pass, wanted, || Op::RmsNorm { x: self.clone(), w: w.clone(), epsilon, inverse_rms }))
    }

    /// `x + w` with w added to every row.
    ///
    /// # Shapes
    /// x [.., D], w `[D]` -> [.., D]
    ///
    /// # Errors
    /// If the widths differ.
    pub fn add_row(&self, pass: Pass<'_>, w: &Param) -> Result<Tensor> {
        let x = self.shape();
        if w.shape() != Shape::new(&[x.width()]) {
            return Err(mismatch("add_row", ("x", &x), (w.name(), &w.shape())));
        }
        let (from, row) = (self.view("add_row")?, w.view("add_row")?);
        let y = Tensor::write(pass.device, x, |y| rows::add_row(pass.device, from, row, y));
        let wanted = !w.is_frozen() || self.recorded();
        Ok(y.made_by(pass, wanted, || Op::AddRow { x: self.origin(), w: w.clone() }))
    }
}
