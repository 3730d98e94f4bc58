//! SampleRows of tokens from logits.

use minke_kernels::ops::sample::{self, SampleOutputs, SampleRows};

use crate::error::mismatch;
use crate::shape::Shape;
use crate::tensor::{Indices, Pass, Result, Tensor};

/// One sampled token per row, and what the model says about it.
pub struct Samples {
    /// The token, [`NOT_FINITE`](crate::NOT_FINITE) or [`NOTHING_ALLOWED`](crate::NOTHING_ALLOWED). `[R]`
    pub token_ids: Indices,
    /// Its log-probability under `softmax(logits / temperature)`. `[R]`
    pub log_prob: Tensor,
    /// Entropy of that distribution, in nats. `[R]`
    pub entropy: Tensor,
    /// The most likely tokens, the first one first, as many as the row asks for. [R, A]
    pub alternative_ids: Indices,
    /// Their log-probabilities under the same distribution. [R, A]
    pub alternative_log_probs: Tensor,
}

impl Tensor {
    /// Samples a token for every row of logits. Inference only; `A` is the largest number of alternatives of a row.
    ///
    /// # Shapes
    /// logits [R, vocabulary] -> `[R]` and [R, A]
    ///
    /// # Numerics
    /// Log-probabilities and entropy are, to the bit, those of [`Tensor::log_prob_rows`].
    ///
    /// # Errors
    /// If there is another number of rows than `sampling` has.
    pub fn sample(&self, pass: Pass<'_>, sampling: &SampleRows<'_>) -> Result<Samples> {
        let (shape, rows) = (self.shape(), sampling.rows.len());
        if shape.rows() != rows {
            return Err(mismatch("sample", ("logits", &shape), ("sampling", &Shape::new(&[rows]))));
        }
        let width = sampling.rows.iter().map(|row| row.alternatives).max().unwrap_or(0);
        let cpu = pass.cpu();
        let (row, table) = (Shape::new(&[rows]), Shape::new(&[rows, width]));
        let (mut b, mut c, mut d, mut e) = (None, None, None, None);
        let token_ids = Indices::write(cpu, rows, |token_ids| {
            b = Some(Tensor::write(cpu, row, |log_prob| {
                c = Some(Tensor::write(cpu, row, |entropy| {
                    d = Some(Indices::write(cpu, rows * width, |alternative_ids| {
                        e = Some(Tensor::write(cpu, table, |alternative_log_probs| {
                            let sampled =
                                SampleOutputs { token_ids, log_prob, entropy, alternative_ids, alternative_log_probs };
                            sample::sample(cpu, self.values(), sampling, sampled);
                        }));
                    }));
                }));
            }));
        });
        Ok(Samples {
            token_ids,
            log_prob: b.expect("invariant: written above"),
            entropy: c.expect("invariant: written above"),
            alternative_ids: d.expect("invariant: written above"),
            alternative_log_probs: e.expect("invariant: written above"),
        })
    }
}
