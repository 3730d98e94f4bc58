//! Tokens sampled from logits.

use minke_kernels::ops::sample::{self, SampleOutputs, SampleRows};

use crate::error::mismatch;
use crate::shape::Shape;
use crate::tensor::{Indices, Pass, Result, Tensor};

/// One sampled token per row, with log-probability, entropy and alternatives.
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
        let (device, logits) = (pass.device, self.view("sample")?);
        let vocab_size = shape.width();
        let mut token_ids = Indices::unwritten(device, rows, usize::MAX);
        let mut alternative_ids = Indices::unwritten(device, rows * width, vocab_size);
        let [mut log_prob, mut entropy] = [(); 2].map(|()| Tensor::unwritten(device, Shape::new(&[rows])));
        let mut alternative_log_probs = Tensor::unwritten(device, Shape::new(&[rows, width]));
        let sampled = SampleOutputs {
            token_ids: token_ids.view_mut(),
            log_prob: log_prob.view_mut(),
            entropy: entropy.view_mut(),
            alternative_ids: alternative_ids.view_mut(),
            alternative_log_probs: alternative_log_probs.view_mut(),
        };
        sample::sample(device, logits, sampling, sampled);
        Ok(Samples { token_ids, log_prob, entropy, alternative_ids, alternative_log_probs })
    }
}
