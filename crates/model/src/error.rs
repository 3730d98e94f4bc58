//! Errors of the model.

/// A model that cannot be built or run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] minke_tensor::Error),
    /// An adapter does not belong to the model.
    #[error("{0}")]
    Adapter(String),
}
