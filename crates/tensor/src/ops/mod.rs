//! The operations on tensors. Every method checks shapes, calls one kernel and records one node; the mathematics stands
//! in `minke_kernels::ops`.

mod attention;
pub mod cache;
mod linear;
mod loss;
mod pointwise;
mod route;
mod rows;
mod sample;

pub use loss::TokenDistribution;
pub(crate) use loss::head;
pub use sample::Samples;

use crate::error::mismatch;
use crate::shape::Shape;
use crate::tensor::{Indices, Result};

/// Checks that indices lie below a size.
pub(crate) fn expect_below(op: &'static str, ids: &Indices, size: usize) -> Result<()> {
    if ids.below() <= size {
        return Ok(());
    }
    Err(mismatch(
        op,
        (&format!("indices up to {}", ids.below() - 1), &Shape::new(&[ids.len()])),
        ("rows", &Shape::new(&[size])),
    ))
}

/// Checks that two shapes are equal.
pub(crate) fn expect_same(op: &'static str, left: (&str, Shape), right: (&str, Shape)) -> Result<()> {
    if left.1 == right.1 {
        return Ok(());
    }
    Err(mismatch(op, (left.0, &left.1), (right.0, &right.1)))
}
