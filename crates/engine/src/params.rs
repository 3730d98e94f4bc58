//! Sampling parameters of a sequence.

use std::collections::BTreeMap;

use minke_spec::draw::{Domain, draw};
use minke_tensor::SampleRow;

use crate::{Constraint, Error, Result};

/// The lowest temperature above greedy: below it f32 logits over temperature lose their meaning.
const LOWEST_TEMPERATURE: f32 = 1e-3;

/// How the tokens of a sequence are chosen, and when it ends.
///
/// Logits z become a token in this order, where c counts how often the sequence has generated a token:
/// ```text
/// z + logit_bias
/// z / repetition_penalty if z > 0, else z * repetition_penalty     of tokens of the prompt or with c > 0
/// z - c * frequency_penalty - (presence_penalty if c > 0)
/// constraint, temperature, top_k, top_p, min_p, draw
/// ```
/// The repetition penalty is that of CTRL (arXiv 1909.05858) and of transformers and llama.cpp, over all tokens; presence
/// and frequency are those of OpenAI's API, over generated tokens.
///
/// Log-probabilities that are reported, and entropies, are those of the model at the temperature, `softmax(logits /
/// temperature)` with 1 for greedy: bias, penalties, constraint and filters change what is drawn, never what is reported.
/// A trainer computes the same number from the same weights. The numbers that API servers call logprobs have temperature 1:
/// [`log_prob_temperature`](Self::log_prob_temperature) asks for those.
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
    /// Divides positive logits of tokens that the prompt or the answer has, and multiplies negative ones; 1 for none.
    pub repetition_penalty: f32,
    /// Subtracted from the logits of tokens that were generated; 0 for none.
    pub presence_penalty: f32,
    /// Subtracted from the logit of a token for every time that it was generated; 0 for none.
    pub frequency_penalty: f32,
    /// Added to logits, by token; negative infinity forbids a token.
    pub logit_bias: BTreeMap<u32, f32>,
    /// Which tokens may come next.
    pub constraint: Option<Constraint>,
    /// Temperature of the log-probabilities that are reported, and of the entropies; none for that of the draw.
    pub log_prob_temperature: Option<f32>,
    /// How many of the most likely tokens are reported beside each one, with their log-probabilities. A number beyond
    /// the vocabulary gives all.
    pub top_log_probs: usize,
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
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: BTreeMap::new(),
            constraint: None,
            log_prob_temperature: None,
            top_log_probs: 0,
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

    /// Sets [`repetition_penalty`](Self::repetition_penalty).
    #[must_use]
    pub fn with_repetition_penalty(self, repetition_penalty: f32) -> Self {
        Self { repetition_penalty, ..self }
    }

    /// Sets [`presence_penalty`](Self::presence_penalty).
    #[must_use]
    pub fn with_presence_penalty(self, presence_penalty: f32) -> Self {
        Self { presence_penalty, ..self }
    }

    /// Sets [`frequency_penalty`](Self::frequency_penalty).
    #[must_use]
    pub fn with_frequency_penalty(self, frequency_penalty: f32) -> Self {
        Self { frequency_penalty, ..self }
    }

    /// Sets [`logit_bias`](Self::logit_bias).
    #[must_use]
    pub fn with_logit_bias(self, logit_bias: impl IntoIterator<Item = (u32, f32)>) -> Self {
        Self { logit_bias: logit_bias.into_iter().collect(), ..self }
    }

    /// Sets [`constraint`](Self::constraint).
    #[must_use]
    pub fn with_constraint(self, constraint: Constraint) -> Self {
        Self { constraint: Some(constraint), ..self }
    }

    /// Sets [`log_prob_temperature`](Self::log_prob_temperature).
    #[must_use]
    pub fn with_log_prob_temperature(self, temperature: f32) -> Self {
        Self { log_prob_temperature: Some(temperature), ..self }
    }

    /// Sets [`top_log_probs`](Self::top_log_probs).
    #[must_use]
    pub fn with_top_log_probs(self, top_log_probs: usize) -> Self {
        Self { top_log_probs, ..self }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// If one lies outside its range; the error names it.
    pub fn validate(&self) -> Result<()> {
        let check = |ok: bool, field: &'static str, value: &dyn std::fmt::Display, range: &'static str| {
            if ok { Ok(()) } else { Err(Error::Setting { field, value: value.to_string(), range }) }
        };
        let temperature = |field, t: f32| {
            let ok = t == 0.0 || (LOWEST_TEMPERATURE..=100.0).contains(&t);
            check(ok, field, &t, "0 (greedy) or 0.001 to 100")
        };
        temperature("temperature", self.temperature)?;
        temperature("log_prob_temperature", self.log_prob_temperature.unwrap_or(1.0))?;
        check(self.top_p > 0.0 && self.top_p <= 1.0, "top_p", &self.top_p, "above 0 and at most 1 (all tokens)")?;
        check((0.0..=1.0).contains(&self.min_p), "min_p", &self.min_p, "0 (all tokens) to 1")?;
        check(self.max_tokens > 0, "max_tokens", &self.max_tokens, "at least 1")?;
        let repetition = self.repetition_penalty;
        check((0.01..=100.0).contains(&repetition), "repetition_penalty", &repetition, "0.01 to 100, and 1 for none")?;
        for (field, value) in
            [("presence_penalty", self.presence_penalty), ("frequency_penalty", self.frequency_penalty)]
        {
            check((-2.0..=2.0).contains(&value), field, &value, "-2 to 2, and 0 for none")?;
        }
        let bad = self.logit_bias.iter().find(|(_, bias)| bias.is_nan() || **bias == f32::INFINITY);
        bad.map_or(Ok(()), |(id, bias)| {
            let value = format!("{bias} for token {id}");
            check(false, "logit_bias", &value, "a finite number, or negative infinity to forbid the token")
        })
    }

    /// What the logits are multiplied with; 1 for greedy. A trainer that needs the sampler's log-probabilities
    /// to the bit uses this number.
    pub fn inverse_temperature(&self) -> f32 {
        SampleRow::inverse_temperature(self.temperature)
    }

    /// The seed of sample `index` of a group submitted with `seed`. The first sample has the seed itself: sample
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
