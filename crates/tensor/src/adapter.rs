//! Low-rank adapters: a pair of small matrices beside one that is not trained.
//!
//! The pair belongs to the parameter, so that every product with it has it: in training, in rollouts and in serving, whole or by
//! head as absorbed attention takes it.

use crate::error::{Error, mismatch};
use crate::tensor::{Adapter, Param, Pass, Result, Tensor};

impl Param {
    /// Puts a pair beside the matrix, which is not trained any more.
    ///
    /// # Shapes
    /// W [out, in], a [r, in], b [out, r]
    ///
    /// # Paper
    /// Hu et al. 2021, 4.1 eq. 3 (low-rank update of a frozen matrix)
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn adapt(&mut self, scale: f32, a: Param, b: Param) -> Result<()> {
        let (w, of_a, of_b) = (self.shape(), a.shape(), b.shape());
        let fits = match (w.dims(), of_a.dims(), of_b.dims()) {
            (&[n, k], &[r, input], &[output, rank]) => k == input && n == output && r == rank && r > 0,
            _ => false,
        };
        if !fits {
            let pair = format!("{} {of_a} and {} {of_b}", a.name(), b.name());
            return Err(Error::Shape { op: "adapt", left: pair, right: format!("{} {w}", self.name()) });
        }
        self.freeze();
        self.adapter = Some(Box::new(Adapter { scale, a, b }));
        Ok(())
    }

    /// The pair beside the matrix, if there is one.
    pub fn adapter(&self) -> Option<&Adapter> {
        self.adapter.as_deref()
    }

    /// The parameters of the pair, for an update.
    pub fn adapter_mut(&mut self) -> Option<[&mut Param; 2]> {
        self.adapter.as_deref_mut().map(|Adapter { a, b, .. }| [a, b])
    }
}

impl Adapter {
    /// The factor of what the pair adds.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// What reads the rows. [r, in]
    pub fn a(&self) -> &Param {
        &self.a
    }

    /// What writes to the output. [out, r]
    pub fn b(&self) -> &Param {
        &self.b
    }

    /// `y + scale (x A^T) B^T`. x [.., in], y [.., out] -> [.., out]
    pub(crate) fn add(&self, pass: Pass<'_>, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        y.add_scaled(pass, &x.product(pass, &self.a)?.product(pass, &self.b)?, self.scale)
    }

    /// The same for [`Tensor::heads_matmul`] (`transposed`) and [`Tensor::heads_matmul_nn`], with the same slice of each head's rows
    /// of B.
    pub(crate) fn add_per_head(
        &self,
        pass: Pass<'_>,
        x: &Tensor,
        y: &Tensor,
        first: usize,
        transposed: bool,
    ) -> Result<Tensor> {
        let [tokens, heads, _] = *x.shape().dims() else {
            return Err(mismatch("adapt", ("x", &x.shape()), ("y", &y.shape())));
        };
        let low = if transposed {
            x.product(pass, &self.a)?.per_head("heads_matmul", pass, &self.b, first, true)?
        } else {
            let rank = self.a.shape().rows();
            let rows =
                x.per_head("heads_matmul_nn", pass, &self.b, first, false)?.reshape(&[tokens * heads, 1, rank])?;
            rows.per_head("heads_matmul_nn", pass, &self.a, 0, false)?.reshape(y.shape().dims())?
        };
        y.add_scaled(pass, &low, self.scale)
    }
}
