//! How a sequence is sampled.

use minke_spec::draw::{Domain, draw};

use crate::{Error, Result};

/// The lowest temperature above greedy: below it f32 logits over temperature lose their meaning.
const LOWEST_TEMPERATURE: f32 = 1e-3;

/// How the tokens of a sequence are chosen, and when it ends.
///
/// # Examples
/// ```
/// use minke_engine::SamplingParams;
/// let params = SamplingParams::default().with_temperature(0.6).with_top_p(0.95).with_seed(7);
/// assert!(params.validate().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SamplingParams {
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f32,
    /// Share of the probability that the most likely tokens must reach; 1 for all.
    pub top_p: f32,
    /// Number of most likely tokens; 0 for all.
    pub top_k: usize,
    /// Least probability relative to the most likely token; 0 for all.
    pub min_p: f32,
    /// Seed of the sequence, or of the first of a group: see [`SamplingParams::seed_of_sample`].
    pub seed: u64,
    /// Most tokens to generate; whatever is set, the context of the model and the cache bound a sequence.
    pub max_tokens: usize,
    /// Tokens that end the sequence; the one that did is part of it.
    pub stop_ids: Vec<u32>,
}

impl Default for SamplingParams {
    /// The distribution of the model, seed 0, no stop ids, as many tokens as there is room for.
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            seed: 0,
            max_tokens: usize::MAX,
            stop_ids: Vec::new(),
        }
    }
}

impl SamplingParams {
    /// Sets [`temperature`](Self::temperature).
    #[must_use]
    pub fn with_temperature(self, temperature: f32) -> Self {
        Self { temperature, ..self }
    }

    /// Sets [`top_p`](Self::top_p).
    #[must_use]
    pub fn with_top_p(self, top_p: f32) -> Self {
        Self { top_p, ..self }
    }

    /// Sets [`top_k`](Self::top_k).
    #[must_use]
    pub fn with_top_k(self, top_k: usize) -> Self {
        Self { top_k, ..self }
    }

    /// Sets [`min_p`](Self::min_p).
    #[must_use]
    pub fn with_min_p(self, min_p: f32) -> Self {
        Self { min_p, ..self }
    }

    /// Sets [`seed`](Self::seed).
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Sets [`max_tokens`](Self::max_tokens).
    #[must_use]
    pub fn with_max_tokens(self, max_tokens: usize) -> Self {
        Self { max_tokens, ..self }
    }

    /// Sets [`stop_ids`](Self::stop_ids).
    #[must_use]
    pub fn with_stop_ids(self, stop_ids: impl Into<Vec<u32>>) -> Self {
        Self { stop_ids: stop_ids.into(), ..self }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// If one lies outside its range; the error names it.
    pub fn validate(&self) -> Result<()> {
        let check = |ok: bool, field: &'static str, value: &dyn std::fmt::Display, range: &'static str| {
            if ok { Ok(()) } else { Err(Error::Setting { field, value: value.to_string(), range }) }
        };
        let t = self.temperature;
        check(t == 0.0 || (LOWEST_TEMPERATURE..=100.0).contains(&t), "temperature", &t, "0 (greedy) or 0.001 to 100")?;
        check(self.top_p > 0.0 && self.top_p <= 1.0, "top_p", &self.top_p, "above 0 and at most 1 (all tokens)")?;
        check((0.0..=1.0).contains(&self.min_p), "min_p", &self.min_p, "0 (all tokens) to 1")?;
        check(self.max_tokens > 0, "max_tokens", &self.max_tokens, "at least 1")
    }

    /// Whether a token with a weight may be left out.
    pub(crate) fn filters(&self) -> bool {
        self.top_k > 0 || self.top_p < 1.0 || self.min_p > 0.0
    }

    /// Returns what the logits are multiplied with; 1 for greedy. A trainer that wants the sampler's log-probabilities
    /// to the bit uses this number.
    pub fn inverse_temperature(&self) -> f32 {
        if self.temperature == 0.0 { 1.0 } else { 1.0 / self.temperature }
    }

    /// Returns the seed of sample `index` of a group submitted with `seed`. The first sample has the seed itself: sample
    /// `index` is the sequence that is submitted alone with `seed_of_sample(seed, index)`.
    pub fn seed_of_sample(seed: u64, index: usize) -> u64 {
        if index == 0 { seed } else { draw(seed, Domain::Rollout, &[index as u64]).bits() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_out_of_range_are_named() {
        let good = SamplingParams::default().with_temperature(0.6).with_top_p(0.95);
        assert!(good.validate().is_ok());
        let cases = [
            ("temperature", SamplingParams { temperature: f32::NAN, ..good.clone() }),
            ("temperature", SamplingParams { temperature: -0.5, ..good.clone() }),
            ("temperature", SamplingParams { temperature: 1e-4, ..good.clone() }),
            ("temperature", SamplingParams { temperature: f32::INFINITY, ..good.clone() }),
            ("top_p", SamplingParams { top_p: 0.0, ..good.clone() }),
            ("top_p", SamplingParams { top_p: 1.01, ..good.clone() }),
            ("top_p", SamplingParams { top_p: f32::NAN, ..good.clone() }),
            ("min_p", SamplingParams { min_p: -0.1, ..good.clone() }),
            ("min_p", SamplingParams { min_p: f32::NAN, ..good.clone() }),
            ("max_tokens", SamplingParams { max_tokens: 0, ..good.clone() }),
        ];
        for (field, params) in cases {
            let message = params.validate().unwrap_err().to_string();
            assert!(message.starts_with(&format!("{field} = ")), "{message}");
        }
    }

    #[test]
    fn samples_of_a_group_have_seeds_of_their_own() {
        let seeds: std::collections::BTreeSet<u64> =
            (0..1000).map(|index| SamplingParams::seed_of_sample(3, index)).collect();
        assert_eq!(seeds.len(), 1000);
        assert_eq!(SamplingParams::seed_of_sample(3, 0), 3);
    }
}
