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
        let y = x.matmul(pass, &self.weight)?;
        match &self.bias {
            Some(bias) => y.add_row(pass, bias),
            None => Ok(y),
        }
    }
}
