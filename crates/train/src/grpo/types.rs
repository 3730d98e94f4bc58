//! What passes through a step of GRPO, from question to packed batch.
//!
//! A [`Question`] is asked G times: a [`Group`] of [`Rollout`]s. Graders make [`ScoredGroup`]s of them, advantages make
//! [`Sample`]s, and samples are packed into [`TrainBatch`]es.

use std::ops::Range;

use minke_engine::Finish;
use minke_eval::{TrainingProblem, Verdict};
use minke_model::Batch;
use minke_tensor::{Device, Dispatch, Indices, Pass, Tensor};

use super::config::Aggregation;
use crate::Result;

/// A problem as the policy reads it.
#[derive(Clone, Debug)]
pub struct Question {
    /// Which of the step's questions, from 0.
    pub number: u64,
    /// Which of the stage's tasks it is of.
    pub task: usize,
    /// What is asked, and how it is graded.
    pub problem: TrainingProblem,
    /// The rendered prompt.
    pub prompt: String,
    /// Its tokens. [|q|]
    pub token_ids: Vec<u32>,
}

/// One output of the policy: what was drawn, and how likely it was.
///
/// # Examples
/// For the prompt `<｜User｜>make 3 from 1 2<｜Assistant｜>`, the output `1+2` and the end of the sentence: four token
/// ids, four log-probabilities, `finish: Stop(1)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollout {
    /// Tokens, the end-of-sentence token included. [|o|]
    pub token_ids: Vec<u32>,
    /// Log-probability of each when it was drawn, under pi_old at the sampler's temperature. [|o|]
    pub log_probs: Vec<f32>,
    /// Entropy of the distribution that each was drawn from, in nats; none if a worker drew them. `[|o|]` or `[0]`
    pub entropies: Vec<f32>,
    /// How many steps of data the policy had gone through.
    pub policy_version: u64,
    /// Why it ended.
    pub finish: Finish,
}

/// The G outputs of one question.
#[derive(Clone, Debug)]
pub struct Group {
    /// What was asked.
    pub question: Question,
    /// What came back. `[G]`
    pub rollouts: Vec<Rollout>,
}

/// An output with its grade.
#[derive(Clone, Debug)]
pub struct Scored {
    /// The output.
    pub rollout: Rollout,
    /// Its text.
    pub text: String,
    /// The grader's verdict on the answer.
    pub verdict: Verdict,
    /// 1 for a right answer.
    pub accuracy: f64,
    /// 1 for exactly one thought and then an answer.
    pub format: f64,
    /// The share of the thought's words in the language, if that is rewarded.
    pub language: Option<f64>,
    /// The penalty for coming near the cap, if there is one; 0 to -1.
    pub overlong: Option<f64>,
    /// Attempts that the thought shows, if its task has such.
    pub attempts: Option<usize>,
    /// The weighted sum of the parts.
    pub reward: f64,
}

impl Rollout {
    /// Whether the cap cut it off.
    pub fn truncated(&self) -> bool {
        !matches!(self.finish, Finish::Stop(_))
    }
}

/// A graded group.
#[derive(Clone, Debug)]
pub struct ScoredGroup {
    /// What was asked.
    pub question: Question,
    /// The graded outputs. `[G]`
    pub outputs: Vec<Scored>,
}

impl ScoredGroup {
    /// The rewards. `[G]`
    pub fn rewards(&self) -> Vec<f64> {
        self.outputs.iter().map(|output| output.reward).collect()
    }

    /// Whether the problem can be graded.
    pub fn usable(&self) -> bool {
        self.outputs.iter().all(|output| output.verdict != Verdict::GoldUnusable)
    }
}

/// A sequence to learn from: a question with one output behind it.
///
/// # Examples
/// A prompt of three tokens and an output of two: `token_ids` of five, `loss_mask` `[false, false, false, true, true]`,
/// `old_log_probs` of two.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Prompt, then output. `[S]`
    pub token_ids: Vec<u32>,
    /// Which tokens the policy chose. `[S]`
    pub loss_mask: Vec<bool>,
    /// Log-probabilities of the chosen tokens under the policy in front of the step's updates: those of the rollout, unless a worker
    /// drew it. [|o|]
    pub old_log_probs: Vec<f32>,
    /// What the gain of each unit counts, if a worker drew it: see [`super::importance`]. `[|o|]` or `[1]`
    pub importance: Option<Vec<f32>>,
    /// The same under the reference; none where it has no part in the loss. [|o|]
    pub ref_log_probs: Option<Vec<f32>>,
    /// How much better than its group.
    pub advantage: f64,
}

impl Sample {
    /// The sample of one output of a question.
    pub fn new(question: &Question, rollout: &Rollout, advantage: f64) -> Self {
        let loss_mask = [vec![false; question.token_ids.len()], vec![true; rollout.token_ids.len()]].concat();
        Self {
            token_ids: [&question.token_ids[..], &rollout.token_ids].concat(),
            loss_mask,
            old_log_probs: rollout.log_probs.clone(),
            importance: None,
            ref_log_probs: None,
            advantage,
        }
    }
}

/// What the weights of an update are shares of: all outputs to usable questions, whether there is something to learn from them or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Outputs.
    pub outputs: usize,
    /// Their tokens.
    pub tokens: usize,
    /// The longest output allowed, in tokens.
    pub cap: usize,
}

impl Totals {
    /// Those of outputs with these lengths.
    pub fn of(lengths: impl Iterator<Item = usize>, cap: usize) -> Self {
        lengths.fold(Self { cap, ..Self::default() }, |sum, length| Self {
            outputs: sum.outputs + 1,
            tokens: sum.tokens + length,
            cap,
        })
    }
}

/// Samples packed for one forward. A *unit* is a token, or an output under [`Aggregation::Sequence`] and
/// [`Aggregation::SequenceGeometric`].
///
/// # Examples
/// Two samples of 3 + 2 and 4 + 3 tokens: `batch` has T = 12 rows, A = 5 of them choose tokens, `outputs` is
/// `[0..2, 2..5]`, and the token chosen first is `targets[0]`, predicted by `rows[0]` = 2, the prompt's last.
pub struct TrainBatch {
    /// The packed sequences. `[T]`
    pub batch: Batch,
    /// Rows whose next token the policy chose. `[A]`
    pub rows: Indices,
    /// That token. `[A]`
    pub targets: Indices,
    /// Where in A each output lies. `[N]`
    pub outputs: Vec<Range<usize>>,
    /// Advantage of each output. `[N]`
    pub output_advantages: Vec<f64>,
    /// Log-probabilities under the policy in front of the step's updates. `[A]`
    pub old_log_probs: Tensor,
    /// Log-probabilities under the reference, if it has a part in the loss. `[A]`
    pub ref_log_probs: Option<Tensor>,
    /// Advantage of each unit. `[A]` or `[N]`
    pub advantages: Tensor,
    /// Importance weight of each unit, if workers drew them. `[A]` or `[N]`
    pub importance: Option<Tensor>,
    /// What each unit counts in the objective. `[A]` or `[N]`
    pub weights: Tensor,
    aggregation: Aggregation,
}

impl TrainBatch {
    /// The samples of one update, packed in order into batches of at most `tokens` tokens (a longer sample is a
    /// batch of its own).
    pub fn pack(
        device: &Device,
        samples: &[Sample],
        totals: Totals,
        tokens: usize,
        aggregation: Aggregation,
    ) -> Vec<Self> {
        let mut batches = Vec::new();
        let (mut start, mut filled) = (0, 0);
        for (i, sample) in samples.iter().enumerate() {
            if i > start && filled + sample.token_ids.len() > tokens {
                batches.push(Self::new(device, &samples[start..i], totals, aggregation));
                (start, filled) = (i, 0);
            }
            filled += sample.token_ids.len();
        }
        if start < samples.len() {
            batches.push(Self::new(device, &samples[start..], totals, aggregation));
        }
        batches
    }

    /// One batch of an update.
    fn new(device: &Device, samples: &[Sample], totals: Totals, aggregation: Aggregation) -> Self {
        let (mut rows, mut targets, mut outputs, mut first) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for sample in samples {
            let start = rows.len();
            for i in (1..sample.token_ids.len()).filter(|&i| sample.loss_mask[i]) {
                rows.push((first + i - 1) as u32);
                targets.push(sample.token_ids[i]);
            }
            outputs.push(start..rows.len());
            first += sample.token_ids.len();
        }
        let output_advantages: Vec<f64> = samples.iter().map(|sample| sample.advantage).collect();
        let (mut advantages, mut weights) = (Vec::new(), Vec::new());
        for (output, &advantage) in outputs.iter().zip(&output_advantages) {
            let (units, weight) = match aggregation {
                Aggregation::TokenMean => (output.len(), 1.0 / totals.tokens as f64),
                Aggregation::SequenceMean => (output.len(), 1.0 / (totals.outputs * output.len()) as f64),
                Aggregation::Sequence | Aggregation::SequenceGeometric => (1, 1.0 / totals.outputs as f64),
                Aggregation::ConstantLength => (output.len(), 1.0 / (totals.outputs * totals.cap) as f64),
            };
            advantages.extend(std::iter::repeat_n(advantage as f32, units));
            weights.extend(std::iter::repeat_n(weight as f32, units));
        }
        let of = |values: &[f32]| Tensor::from_slice(device, &[values.len()], values);
        let concat = |pick: fn(&Sample) -> Option<&[f32]>| -> Option<Vec<f32>> {
            Some(samples.iter().map(pick).collect::<Option<Vec<_>>>()?.concat())
        };
        let sequences: Vec<&[u32]> = samples.iter().map(|sample| &sample.token_ids[..]).collect();
        Self {
            batch: Batch::packed(device, &sequences),
            rows: Indices::from_slice(device, &rows),
            targets: Indices::from_slice(device, &targets),
            outputs,
            output_advantages,
            old_log_probs: of(&concat(|s| Some(&s.old_log_probs)).unwrap_or_default()),
            ref_log_probs: concat(|s| s.ref_log_probs.as_deref()).map(|values| of(&values)),
            advantages: of(&advantages),
            importance: concat(|s| s.importance.as_deref()).map(|values| of(&values)),
            weights: of(&weights),
            aggregation,
        }
    }

    /// Values of tokens as values of units: themselves, or over outputs their sums or means.
    ///
    /// # Shapes
    /// x `[A]` -> `[A]` or `[N]`
    ///
    /// # Errors
    /// If there is another number of values.
    pub fn by_unit(&self, pass: Pass<'_>, x: &Tensor) -> Result<Tensor> {
        let share = match self.aggregation {
            Aggregation::TokenMean | Aggregation::SequenceMean | Aggregation::ConstantLength => return Ok(x.clone()),
            Aggregation::Sequence => |_: usize| 1.0,
            Aggregation::SequenceGeometric => |length: usize| (1.0 / length as f64) as f32,
        };
        let (outputs, longest) = (&self.outputs, self.outputs.iter().map(Range::len).max().unwrap_or(0));
        // A row for each output, as wide as the longest: what is missing repeats its first token and weighs nothing.
        let places = outputs.iter().flat_map(|o| (0..longest).map(|t| o.start + if t < o.len() { t } else { 0 }));
        let places: Vec<u32> = places.map(|place| place as u32).collect();
        let present = outputs.iter().flat_map(|o| (0..longest).map(|t| if t < o.len() { share(o.len()) } else { 0.0 }));
        let present = Tensor::from_slice(pass.device, &[outputs.len(), longest], &present.collect::<Vec<f32>>());
        let in_order = Indices::from_slice(pass.device, &vec![0; places.len()]);
        let column = x.reshape(&[x.shape().elements(), 1])?;
        let rows = column.gather_rows(pass, &Indices::from_slice(pass.device, &places))?;
        let sums = rows.combine(pass, &present, &Dispatch::new(pass, &in_order, longest, 1)?)?;
        Ok(sums.reshape(&[outputs.len()])?)
    }
}
