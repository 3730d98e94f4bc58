//! Sampling of next tokens: rows of logits, one for each sequence that samples, go through one operation of the device.
//!
//! The draw for a token is one number between 0 and 1, a function of the sequence's seed and the token's position. What
//! is done with it stands at the operation ([`minke_tensor::Tensor::sample`]): bias and penalties, the mask of a
//! constraint, temperature, `top_k`, `top_p`, `min_p`, draw.

use std::panic::{AssertUnwindSafe, catch_unwind};

use minke_model::Transformer;
use minke_spec::draw::{Domain, draw};
use minke_tensor::{Device, Edit, Indices, NOT_FINITE, NOTHING_ALLOWED, Pass, SampleRow, SampleRows, Tensor};

use crate::constraint::Mask;
use crate::edits::Edits;
use crate::sequence::{Sampled, Sequence};
use crate::{Finish, Result, TokenLogProb};

/// A token, or why the sequence ends without one.
pub(crate) type Outcome = std::result::Result<Sampled, Finish>;

/// The rows that a step samples from. Its memory is used again by the next step.
#[derive(Default)]
pub(crate) struct Sampler {
    /// Which rows of the batch predict them.
    states: Vec<u32>,
    rows: Vec<SampleRow>,
    edits: Vec<Edit>,
    masks: Vec<u32>,
    /// Rows whose constraint panicked.
    panicked: Vec<usize>,
}

impl Sampler {
    /// Drops the rows of the step before.
    pub(crate) fn clear(&mut self) {
        self.states.clear();
        self.rows.clear();
        self.edits.clear();
        self.masks.clear();
        self.panicked.clear();
    }

    /// Adds the next token of a sequence, which row `state` of the batch predicts.
    pub(crate) fn add(&mut self, sequence: &Sequence, state: usize, vocab_size: usize) {
        let mask = self.mask(sequence, sequence.generated(), vocab_size);
        let alternatives = sequence.params.top_log_probs.min(vocab_size);
        self.add_row(sequence, state, sequence.token_ids.len(), &sequence.edits, mask, alternatives);
    }

    /// Adds the token behind the one that was added last, if that becomes `draft`: as it is added once it has become it.
    /// Returns false, and adds nothing, if the draft cannot be sampled.
    pub(crate) fn add_behind(&mut self, sequence: &Sequence, state: usize, draft: u32, vocab_size: usize) -> bool {
        let params = &sequence.params;
        let before = self.rows.len() - 1;
        let words = vocab_size.div_ceil(32);
        let allows = |mask: usize| self.masks[mask * words + draft as usize / 32] >> (draft % 32) & 1 == 1;
        // A constraint is not asked what follows a token that it forbids.
        if self.panicked.contains(&before) || !self.rows[before].mask.is_none_or(allows) {
            return false;
        }
        let mask = params.constraint.as_ref().and_then(|_| {
            let generated = [sequence.generated(), &[draft]].concat();
            self.mask(sequence, &generated, vocab_size)
        });
        let mut edits = sequence.edits.clone();
        edits.push(params, draft);
        let alternatives = params.top_log_probs.min(vocab_size);
        self.add_row(sequence, state, sequence.token_ids.len() + 1, &edits, mask, alternatives);
        true
    }

    /// Adds a draft of the next token of a sequence: drawn as the token will be, with the same number, so that equal
    /// distributions give equal tokens. A constraint is not asked.
    pub(crate) fn add_draft(&mut self, sequence: &Sequence, state: usize) {
        self.add_row(sequence, state, sequence.token_ids.len(), &sequence.edits, None, 0);
    }

    /// The mask of a sequence's constraint behind these tokens, which it generated; none if it allows all.
    fn mask(&mut self, sequence: &Sequence, generated: &[u32], vocab_size: usize) -> Option<usize> {
        let constraint = sequence.params.constraint.as_ref()?;
        let (words, start) = (vocab_size.div_ceil(32), self.masks.len());
        self.masks.resize(start + words, 0);
        let mut mask = Mask::full(&mut self.masks[start..], vocab_size);
        // A constraint comes from a request: its panic is that sequence's alone.
        if catch_unwind(AssertUnwindSafe(|| constraint.apply(generated, &mut mask))).is_err() {
            self.panicked.push(self.rows.len());
        }
        // One that forbids nothing costs nothing.
        if self.masks[start..].iter().all(|&word| word == u32::MAX) {
            self.masks.truncate(start);
            return None;
        }
        Some(start / words)
    }

    fn add_row(
        &mut self,
        sequence: &Sequence,
        state: usize,
        position: usize,
        edits: &Edits,
        mask: Option<usize>,
        alternatives: usize,
    ) {
        let params = &sequence.params;
        let first_edit = self.edits.len();
        self.edits.extend(edits.iter());
        let greedy = params.temperature == 0.0;
        self.states.push(state as u32);
        self.rows.push(SampleRow {
            temperature: params.temperature,
            log_prob_temperature: params.log_prob_temperature.unwrap_or(params.temperature),
            top_k: params.top_k,
            top_p: params.top_p,
            min_p: params.min_p,
            uniform: if greedy { 0.0 } else { draw(params.seed, Domain::Token, &[position as u64]).uniform() },
            edits: first_edit..self.edits.len(),
            mask,
            alternatives,
        });
    }

    /// Samples all rows. Logits exist only for the states that are asked for.
    ///
    /// # Shapes
    /// hidden [T, D]
    pub(crate) fn sample(&self, device: &Device, model: &Transformer, hidden: &Tensor) -> Result<Vec<Outcome>> {
        if self.rows.is_empty() {
            return Ok(Vec::new());
        }
        let pass = Pass::inference(device);
        let states = hidden.gather_rows(pass, &Indices::from_slice(device, &self.states))?;
        let sampling = SampleRows { rows: &self.rows, edits: &self.edits, masks: &self.masks };
        let samples = model.logits(pass, &states)?.sample(pass, &sampling)?;
        let width = samples.alternative_log_probs.shape().width();
        let (token_ids, alternative_ids) = (samples.token_ids.read(), samples.alternative_ids.read());
        let (log_probs, entropies) = (samples.log_prob.read(), samples.entropy.read());
        let alternative_log_probs = samples.alternative_log_probs.read();
        let outcome = |(i, row): (usize, &SampleRow)| match token_ids[i] {
            _ if self.panicked.contains(&i) => Err(Finish::ConstraintPanicked),
            NOTHING_ALLOWED => Err(Finish::NothingAllowed),
            NOT_FINITE => Err(Finish::NotFinite),
            token_id => {
                let alternatives = i * width..i * width + row.alternatives;
                let pairs = alternative_ids[alternatives.clone()].iter().zip(&alternative_log_probs[alternatives]);
                let top_log_probs = pairs.map(|(&token_id, &log_prob)| TokenLogProb { token_id, log_prob }).collect();
                Ok(Sampled { token_id, log_prob: log_probs[i], entropy: entropies[i], top_log_probs })
            }
        };
        Ok(self.rows.iter().enumerate().map(outcome).collect())
    }
}

#[cfg(test)]
mod tests {

    use safetensors::SafeTensors;
    use serde_json::Value;

    use super::*;
    use crate::{Constraint, SamplingParams};

    /// Sequences with bias, penalties, constraints and filters are drawn as transformers would draw them. A swapped order
    /// of bias and penalty, counting the prompt for presence, or a filter before the mask shows here.
    #[test]
    fn draws_are_those_of_the_logits_processors_of_transformers() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/sampling/golden.safetensors");
        let bytes = std::fs::read(path).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let facts: Value = serde_json::from_str(&header.metadata().as_ref().unwrap()["facts"]).unwrap();
        let golden = SafeTensors::deserialize(&bytes).unwrap();
        let floats = |name: String| -> Vec<f32> {
            let data = golden.tensor(&name).unwrap().data().as_chunks().0;
            data.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
        };
        let device = Device::open("cpu", 1).unwrap();
        let pass = Pass::inference(&device);
        let cases = facts["cases"].as_array().unwrap();
        for (i, case) in cases.iter().enumerate() {
            let (logits, want) = (floats(format!("logits.{i}")), floats(format!("probabilities.{i}")));
            let number = |name: &str| case[name].as_f64().unwrap() as f32;
            let ids = |name: &str| -> Vec<u32> {
                case[name].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
            };
            let bias = case["bias"].as_object().unwrap().iter();
            let bias =
                bias.map(|(id, bias)| (id.parse().unwrap(), bias.as_f64().map_or(f32::NEG_INFINITY, |b| b as f32)));
            let mut params = SamplingParams::default()
                .with_repetition_penalty(number("repetition_penalty"))
                .with_presence_penalty(number("presence_penalty"))
                .with_frequency_penalty(number("frequency_penalty"))
                .with_logit_bias(bias)
                .with_temperature(number("temperature"))
                .with_top_k(case["top_k"].as_u64().unwrap() as usize)
                .with_top_p(number("top_p"))
                .with_min_p(number("min_p"));
            if !case["allowed"].is_null() {
                let allowed = ids("allowed");
                params = params.with_constraint(Constraint::new(move |_, mask| {
                    mask.forbid_all();
                    allowed.iter().for_each(|&id| mask.allow(id));
                }));
            }
            params.validate().unwrap();
            let mut sequence = Sequence::new(&ids("prompt"), params, 1000, 0, crate::pages::Prefix::default());
            for token_id in ids("generated") {
                let sampled = Sampled { token_id, log_prob: 0.0, entropy: 0.0, top_log_probs: vec![] };
                assert_eq!(sequence.push(sampled), None);
            }
            let mut sampler = Sampler::default();
            let draws = 64;
            for draw in 0..draws {
                sampler.add(&sequence, 0, logits.len());
                sampler.rows[draw].uniform = (draw as f64 + 0.5) / draws as f64;
            }
            let rows = Tensor::from_slice(&device, &[draws, logits.len()], &logits.repeat(draws));
            let Sampler { rows: sample_rows, edits, masks, .. } = &sampler;
            let samples = rows.sample(pass, &SampleRows { rows: sample_rows, edits, masks }).unwrap();
            for (row, token_id) in sample_rows.iter().zip(samples.token_ids.read()) {
                // The draw falls into the token's share of the probabilities, but for rounding.
                let before: f32 = want[..token_id as usize].iter().sum();
                let (uniform, share) = (row.uniform as f32, want[token_id as usize]);
                assert!(share > 0.0, "case {i}: token {token_id} cannot be drawn");
                assert!(before - 1e-4 < uniform && uniform < before + share + 1e-4, "case {i}: token {token_id}");
            }
        }
        assert_eq!(cases.len(), 60);
    }

    #[test]
    fn a_step_uses_the_memory_of_the_one_before() {
        let params = SamplingParams::default().with_constraint(Constraint::new(|_, mask| mask.force(3)));
        let sequence = Sequence::new(&[1, 2], params, 10, 0, crate::pages::Prefix::default());
        let mut sampler = Sampler::default();
        let mut fill = || {
            sampler.clear();
            (0..5).for_each(|_| sampler.add(&sequence, 0, 1000));
            assert_eq!((sampler.rows.len(), sampler.masks.len()), (5, 5 * 32));
            assert!(sampler.masks.chunks(32).all(|mask| mask[0] == 1 << 3 && mask[1..].iter().all(|&word| word == 0)));
            sampler.masks.as_ptr()
        };
        assert_eq!(fill(), fill());
    }
}
