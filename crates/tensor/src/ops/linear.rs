//! Operations with a parameter: products, embedding, norm, bias.

use minke_kernels::ops::matmul::Size;
use minke_kernels::ops::{embed, grouped_matmul, matmul, norm, rows, stored_matmul};

use crate::error::Error;
use crate::error::mismatch;
use crate::shape::Shape;
use crate::tensor::{Indices, Op, Param, Pass, Result, Tensor, Weight};

/// Refuses to record an operation whose weight nobody can train.
fn trainable(pass: Pass<'_>, op: &'static str, w: &Param) -> Result<()> {
    if pass.record && !w.is_dense() {
        return Err(Error::NotTrainable { op, name: w.name().into(), format: w.weight.format().name() });
    }
    Ok(())
}

impl Tensor {
    /// Returns `x W^T`.
    ///
    /// # Shapes
    /// x [.., K], W [N, K] -> [.., N]
    ///
    /// # Errors
    /// If the widths differ.
    pub fn matmul(&self, pass: Pass<'_>, w: &Param) -> Result<Tensor> {
        let (x, shape) = (self.shape(), w.shape());
        let &[n, k] = shape.dims() else { return Err(mismatch("matmul", ("x", &x), (w.name(), &shape))) };
        if x.width() != k {
            return Err(mismatch("matmul", ("x", &x), (w.name(), &shape)));
        }
        trainable(pass, "matmul", w)?;
        pass.tap(|| format!("{}.input", w.name()), self);
        let (cpu, m) = (pass.cpu(), x.rows());
        let y = Tensor::write(cpu, x.with_width(n), |y| match &w.weight {
            Weight::Dense(_) => matmul::matmul(cpu, self.values(), w.packed(cpu), Size { m, n, k }, y),
            Weight::Stored(stored) => stored_matmul::matmul(cpu, self.values(), stored.matrix(0), m, y),
            Weight::Split(split) => {
                let (keys, values) = (split.keys.matrix(0), split.values.matrix(0));
                stored_matmul::split_heads_matmul(cpu, self.values(), keys, values, split.heads, y);
            }
        });
        Ok(y.made_by(pass, true, || Op::Matmul { x: self.clone(), w: w.clone() }))
    }

    /// Returns `x W[rows]` per head: the transposed product with a slice of a matrix, as absorbed attention needs it.
    /// Inference only.
    ///
    /// # Shapes
    /// x [T, H, M], W [H * (rows per head), C]; the head's slice `first..first + M` of its rows -> [T, H, C]
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn heads_by_plain(&self, pass: Pass<'_>, w: &Param, first: usize) -> Result<Tensor> {
        self.per_head("heads_by_plain", pass, w, first, false)
    }

    /// Returns `x W[rows]^T` per head. Inference only.
    ///
    /// # Shapes
    /// x [T, H, C], W [H * (rows per head), C]; the head's slice `first..first + count` of its rows -> [T, H, count]
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn heads_matmul(&self, pass: Pass<'_>, w: &Param, first: usize) -> Result<Tensor> {
        self.per_head("heads_matmul", pass, w, first, true)
    }

    fn per_head(&self, op: &'static str, pass: Pass<'_>, w: &Param, first: usize, transposed: bool) -> Result<Tensor> {
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
        let cpu = pass.cpu();
        let slice = matmul::HeadSlice { heads, per_head, first, count, latent };
        let to = if transposed { count } else { latent };
        let y = Tensor::write(cpu, Shape::new(&[tokens, heads, to]), |y| match (&w.weight, transposed) {
            (Weight::Dense(_), true) => matmul::heads_matmul(cpu, self.values(), w.values(), slice, y),
            (Weight::Dense(_), false) => matmul::heads_by_plain(cpu, self.values(), w.values(), slice, y),
            (Weight::Stored(w), true) => stored_matmul::heads_matmul(cpu, self.values(), w.matrix(0), slice, y),
            (Weight::Stored(w), false) => stored_matmul::heads_by_plain(cpu, self.values(), w.matrix(0), slice, y),
            (Weight::Split(split), transposed) => {
                // A half is a matrix of its own; that of keys is transposed already.
                let half = if transposed { &split.values } else { &split.keys };
                let per_head = half.shape().rows() / heads;
                let slice =
                    matmul::HeadSlice { heads, per_head, first: 0, count: per_head, latent: half.shape().width() };
                stored_matmul::heads_matmul(cpu, self.values(), half.matrix(0), slice, y);
            }
        });
        Ok(y.made_by(pass, true, || Op::Inference { op, x: self.clone() }))
    }

    /// Returns `x[s] W_e^T` for rows sorted by expert.
    ///
    /// # Shapes
    /// x [S, K], W [E, N, K], offsets [E + 1] -> [S, N]
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn grouped_matmul(&self, pass: Pass<'_>, w: &Param, offsets: &Indices) -> Result<Tensor> {
        let (x, shape) = (self.shape(), w.shape());
        let refuse = || mismatch("grouped_matmul", ("x", &x), (w.name(), &shape));
        let &[experts, n, k] = shape.dims() else { return Err(refuse()) };
        if x.width() != k || offsets.len() != experts + 1 {
            return Err(refuse());
        }
        trainable(pass, "grouped_matmul", w)?;
        let (cpu, x_values, starts) = (pass.cpu(), self.values(), offsets.values());
        if pass.tap.is_some() {
            // What each expert is given, by expert.
            for (e, rows) in starts.windows(2).enumerate().filter(|(_, rows)| rows[0] < rows[1]) {
                let rows = &x_values[rows[0] as usize * k..rows[1] as usize * k];
                let inputs = Tensor::from_slice(pass.device, &[rows.len() / k, k], rows);
                pass.tap(|| format!("{}.input.{e}", w.name()), &inputs);
            }
        }
        let y = Tensor::write(cpu, x.with_width(n), |y| match &w.weight {
            Weight::Dense(_) => {
                let size = Size { m: x.rows(), n, k };
                grouped_matmul::grouped_matmul(cpu, x_values, w.packed(cpu), starts, size, y);
            }
            Weight::Split(_) => unreachable!("invariant: only kv_b_proj has halves"),
            Weight::Stored(stored) => {
                stored_matmul::grouped_matmul(cpu, x_values, |expert| stored.matrix(expert), starts, [n, k], y);
            }
        });
        Ok(y.made_by(pass, true, || Op::GroupedMatmul { x: self.clone(), w: w.clone(), offsets: offsets.clone() }))
    }

    /// Returns the rows of an embedding table.
    ///
    /// # Shapes
    /// W [vocabulary, D], ids `[T]` below the vocabulary -> [T, D]
    ///
    /// # Errors
    /// If an id lies outside the table.
    pub fn embed(pass: Pass<'_>, w: &Param, ids: &Indices) -> Result<Tensor> {
        let shape = w.shape();
        if let Some(&id) = ids.values().iter().find(|&&id| id as usize >= shape.rows()) {
            return Err(mismatch("embed", (&format!("id {id} in ids"), &Shape::new(&[ids.len()])), (w.name(), &shape)));
        }
        trainable(pass, "embed", w)?;
        let cpu = pass.cpu();
        let y = Tensor::write(cpu, Shape::new(&[ids.len(), shape.width()]), |y| match &w.weight {
            Weight::Dense(_) => embed::embed(cpu, w.values(), shape.width(), ids.values(), y),
            Weight::Stored(stored) => stored_matmul::embed(cpu, stored.matrix(0), ids.values(), y),
            Weight::Split(_) => unreachable!("invariant: only kv_b_proj has halves"),
        });
        Ok(y.made_by(pass, true, || Op::Embed { w: w.clone(), ids: ids.clone() }))
    }

    /// Returns `x / rms(x) * w` over the last dimension.
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
        let cpu = pass.cpu();
        let mut y = None;
        let inverse_rms = Tensor::write(cpu, Shape::new(&[x.rows()]), |inverse_rms| {
            y = Some(Tensor::write(cpu, x, |y| {
                norm::rms_norm(cpu, self.values(), w.values(), epsilon, y, inverse_rms);
            }));
        });
        let y = y.expect("invariant: written above");
        Ok(y.made_by(pass, true, || Op::RmsNorm { x: self.clone(), w: w.clone(), inverse_rms }))
    }

    /// Returns `x + w` with w added to every row.
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
        let cpu = pass.cpu();
        let y = Tensor::write(cpu, x, |y| rows::add_row(cpu, self.values(), w.values(), y));
        Ok(y.made_by(pass, true, || Op::AddRow { x: self.clone(), w: w.clone() }))
    }
}
