//! A linear map with an optional bias: `x W^T + b`.

use minke_tensor::{Param, Pass, Tensor};

use crate::source::{ParamSource, params};

/// A matrix, and a bias where the table of parameters has one.
#[derive(Clone)]
pub(crate) struct Projection {
    weight: Param,
    bias: Option<Param>,
}

params!(Projection { weight, bias });

impl Projection {
    pub(crate) fn new(source: &mut ParamSource, module: &str) -> Self {
        Self { weight: source.take(&format!("{module}.weight")), bias: source.take_if_any(&format!("{module}.bias")) }
    }

    /// x [T, in] -> [T, out]
    pub(crate) fn forward(&self, pass: Pass<'_>, x: &Tensor) -> minke_tensor::Result<Tensor> {
        let [y] = Self::forward_each([self], pass, x)?;
        Ok(y)
    }

    /// What each makes of the same rows.
    pub(crate) fn forward_each<const M: usize>(
        all: [&Self; M],
        pass: Pass<'_>,
        x: &Tensor,
    ) -> minke_tensor::Result<[Tensor; M]> {
        let mut ys = x.matmul_each(pass, all.map(|projection| &projection.weight))?;
        for (projection, y) in all.iter().zip(&mut ys) {
            if let Some(bias) = &projection.bias {
                *y = y.add_row(pass, bias)?;
            }
        }
        Ok(ys)
    }
}
