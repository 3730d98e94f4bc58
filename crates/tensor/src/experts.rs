//! Experts whose weights are not in memory, and the source of their matrices.

use std::collections::HashMap;
use std::error::Error as StdError;

use minke_kernels::format::Stored;

use crate::error::Error;
use crate::stored::{StoredMatrix, StoredWeight};

/// Supplies matrices of experts that are not in memory: from a file, or from another process.
///
/// A layer fetches once per forward, after its rows were routed and before the first product, all experts that any row
/// was sent to. So a source can read them at once, and what it gives stays alive until the products are done, whatever
/// it keeps for later.
pub trait ExpertSource {
    /// The matrices of experts of a layer, of every weight that does not hold them itself. `experts` has at least one
    /// and ascends.
    ///
    /// # Errors
    /// If they cannot be had; the forward ends with [`Error::ExpertSource`].
    fn fetch(&self, layer: usize, experts: &[u32]) -> Result<FetchedExperts, Box<dyn StdError + Send + Sync>>;
}

/// Matrices of experts by the name of their weight.
#[derive(Debug, Default)]
pub struct FetchedExperts {
    matrices: HashMap<u32, Vec<(String, StoredMatrix)>>,
}

impl FetchedExperts {
    /// Adds the matrix of an expert that belongs to a weight, as `model.layers.3.mlp.experts.up_proj.weight`.
    pub fn insert(&mut self, weight: &str, expert: u32, matrix: StoredMatrix) {
        self.matrices.entry(expert).or_default().push((weight.to_owned(), matrix));
    }

    fn find<'a>(&'a self, weight: &'a StoredWeight, name: &str, expert: u32) -> Option<&'a StoredMatrix> {
        let fetched = || self.matrices.get(&expert)?.iter().find(|(weight, _)| weight == name);
        weight.expert(expert as usize).or_else(|| fetched().map(|(_, matrix)| matrix))
    }

    /// Checks that every expert that a row is sent to is in memory or was fetched.
    ///
    /// # Shapes
    /// offsets [E + 1]: the first row of each expert
    ///
    /// # Errors
    /// If one is missing, or was fetched in another size.
    pub(crate) fn check(&self, weight: &StoredWeight, name: &str, offsets: &[u32]) -> Result<(), Error> {
        for (expert, _) in (0..).zip(offsets.windows(2)).filter(|(_, rows)| rows[0] < rows[1]) {
            match self.find(weight, name, expert) {
                None => return Err(Error::ExpertAbsent { name: name.to_owned(), expert }),
                Some(matrix) if !weight.fits(matrix) => {
                    let left = format!("expert {expert} of {} bytes", matrix.bytes.len());
                    return Err(Error::Shape { op: "fetch", left, right: format!("{name} {}", weight.shape()) });
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// The matrix of an expert that [`FetchedExperts::check`] found.
    pub(crate) fn matrix<'a>(&'a self, weight: &'a StoredWeight, name: &str, expert: usize) -> Stored<'a> {
        weight.stored(self.find(weight, name, expert as u32).expect("invariant: checked before"))
    }
}
