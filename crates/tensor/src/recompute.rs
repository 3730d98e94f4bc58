//! Recomputation: a region under [`recompute`] keeps only its inputs; the backward computes its intermediate values
//! again.

use std::sync::Arc;

use crate::tensor::{Op, Pass, Region, Result, Tensor};

/// `function(inputs)`, of which a recording pass keeps only the inputs and the function.
///
/// The function must be pure; the backward calls it once more and gets the same bits.
///
/// # Paper
/// V3 3.2.3 (recomputation of RMSNorm and up-projections)
///
/// # Errors
/// Those of the function.
pub fn recompute(
    pass: Pass<'_>,
    inputs: Vec<Tensor>,
    function: impl Fn(&[Tensor], Pass<'_>) -> Result<Tensor> + Send + Sync + 'static,
) -> Result<Tensor> {
    let y = function(&inputs, Pass { record: false, ..pass })?;
    Ok(y.made_by(pass, true, || Op::Recompute(Region { inputs, function: Arc::new(function) })))
}
