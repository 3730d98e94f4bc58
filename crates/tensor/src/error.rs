//! Errors of operations: shapes that do not fit, weights that are not there, a gradient that does not exist.

use minke_kernels::Dtype;

use crate::shape::Shape;

/// An operation that cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Operands whose shapes do not fit.
    #[error("{op}: {left} does not fit {right}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// Name and shape of one operand.
        left: String,
        /// Name and shape of the other.
        right: String,
    },
    /// An operation was given numbers of a type that it does not compute with.
    #[error("{op} does not take {}", dtype.name())]
    Dtype {
        /// The operation.
        op: &'static str,
        /// The type.
        dtype: Dtype,
    },
    /// Two new tokens have the same place in the cache.
    #[error(transparent)]
    SharedPlace(#[from] minke_kernels::ops::cache::SharedPlace),
    /// A gradient was asked of an operation that serves inference only.
    #[error("{op} has no gradient: it serves inference only")]
    NotDifferentiable {
        /// The operation.
        op: &'static str,
    },
    /// An operation was to be recorded whose weight stays as it lies in a file.
    #[error("{op}: {name} is held as {format} for inference; to train, load the weights as F32")]
    NotTrainable {
        /// The operation.
        op: &'static str,
        /// Name of the parameter.
        name: String,
        /// Its format.
        format: &'static str,
    },
    /// A row was sent to an expert whose matrix is not in memory, and nothing supplied it.
    #[error("{name}: expert {expert} is needed and is not in memory")]
    ExpertAbsent {
        /// Name of the parameter.
        name: String,
        /// The expert.
        expert: u32,
    },
    /// A source of experts failed.
    #[error("experts of layer {layer} cannot be had: {source}")]
    ExpertSource {
        /// The layer.
        layer: usize,
        /// The error of the source.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A rank that others wait for has ended.
    #[error("rank {rank} has ended")]
    RankEnded {
        /// The rank.
        rank: usize,
    },
    /// MPI cannot be used.
    #[error(transparent)]
    Mpi(#[from] minke_sys::mpi::MpiError),
    /// `backward` was called on something that is not a recorded scalar.
    #[error("backward starts from a recorded scalar, not from {0}")]
    NotALoss(String),
}

/// An error about operand `left` against operand `right`.
pub(crate) fn mismatch(op: &'static str, left: (&str, &Shape), right: (&str, &Shape)) -> Error {
    Error::Shape { op, left: format!("{} {}", left.0, left.1), right: format!("{} {}", right.0, right.1) }
}
