//! Drafts by multi-token prediction, and whether they pay.
//!
//! Speculation is another way to commit a step, not another engine. A sequence whose next token is to be sampled takes part
//! with two rows: its last token, and behind it a draft of the next. Both rows are computed in one forward and both are
//! sampled as ever. If what is sampled behind the first row is the draft, the second row is what the next step would have
//! computed, and its sample is the token after; else the second row is dropped, and the next step writes its place in the
//! cache again. A token is a function of its sequence (`docs/decisions/0017-multi-token-prediction-drafts.md`), so a draft
//! cannot change one: it decides in which step a token comes, nothing else.
//!
//! Drafts come from the multi-token prediction module, which is run over the rows that a step kept. It attends to a window:
//! the rows since the sequence's prompt was last computed, or drafts were last switched on.
//!
//! Whether two rows and the module pay depends on the machine, the model, how many sequences take part and how well the text
//! can be predicted. It is measured: for numbers of sequences by powers of two, steps with drafts and without take turns from
//! time to time, and the faster way is used from then on.

use std::ops::Range;
use std::time::Duration;

use minke_tensor::PAGE_TOKENS;

use crate::config::Speculation;
use crate::sequence::Sequence;

/// Rows of a prompt, its last ones, that the module is run over.
const PROMPT_ROWS: usize = 2 * PAGE_TOKENS;
/// Steps that are compared of each way; the faster half of them counts, as the others may have been disturbed.
const COMPARED: usize = 4;
/// Steps after which a trial is given up: most of its steps had prompts in them, or no drafts.
const LONGEST_TRIAL: u32 = 4 * COMPARED as u32;
/// Steps between two trials: at first, and at most. The time grows fourfold for every trial that changes nothing.
const TRIAL_AFTER: Range<u32> = 256..4096;
/// The part of the time without drafts that steps with drafts may take at most where they come into use.
const GAIN: f64 = 0.95;
/// Drafts after which older ones count half.
const REMEMBERED: f64 = 256.0;

/// What a step does about drafts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drafts {
    /// Nothing.
    None,
    /// It makes drafts for the next step, and has none.
    Made,
    /// It has the drafts that were made, and makes new ones.
    Used,
}

/// A step, as far as it is measured.
pub(crate) struct Measured {
    /// Sequences that were given a token.
    pub sequences: usize,
    pub drafts: usize,
    /// Whether no prompt was computed beside them.
    pub decodes: bool,
    /// How long it took, without what was done for drafts that it did not use itself.
    pub time: Duration,
}

/// Where drafts pay, by what was measured.
pub(crate) struct Pacer {
    speculation: Speculation,
    /// By the number of sequences, powers of two.
    paces: Vec<Pace>,
    /// Drafts that were sampled, and all of them; the newest count most.
    accepted: f64,
    drafted: f64,
}

/// What is known for one number of sequences.
#[derive(Clone)]
struct Pace {
    drafting: bool,
    /// In a trial, whether it is the turn of a step with drafts.
    trial: Option<bool>,
    /// Steps until a trial begins, or is given up.
    left: u32,
    interval: u32,
    /// Steps of the trial, without drafts and with them.
    plain: Vec<Cost>,
    with_drafts: Vec<Cost>,
}

/// What a step took: seconds, sequences, drafts.
#[derive(Clone, Copy)]
struct Cost(f64, usize, usize);

impl Pacer {
    pub(crate) fn new(speculation: Speculation) -> Self {
        // Before anything was drafted, every second draft is expected to be right.
        Self { speculation, paces: Vec::new(), accepted: 4.0, drafted: 8.0 }
    }

    /// What a step does about drafts in which so many sequences are given a token.
    pub(crate) fn drafts(&mut self, sequences: usize) -> Drafts {
        match (self.speculation, sequences) {
            (Speculation::Off, _) | (_, 0) => Drafts::None,
            (Speculation::Always, _) => Drafts::Used,
            (Speculation::WhereItPays, _) => {
                let pace = self.pace(sequences);
                match pace.trial {
                    Some(true) => Drafts::Used,
                    Some(false) => Drafts::Made,
                    None if pace.drafting => Drafts::Used,
                    None => Drafts::None,
                }
            }
        }
    }

    /// Counts what became of drafts.
    pub(crate) fn count(&mut self, drafted: usize, accepted: usize) {
        self.drafted += drafted as f64;
        self.accepted += accepted as f64;
        if self.drafted > REMEMBERED {
            self.drafted /= 2.0;
            self.accepted /= 2.0;
        }
    }

    /// Takes a step in.
    pub(crate) fn measure(&mut self, step: &Measured) {
        if self.speculation != Speculation::WhereItPays || step.sequences == 0 {
            return;
        }
        let acceptance = self.accepted / self.drafted;
        self.pace(step.sequences).measure(step, acceptance);
    }

    fn pace(&mut self, sequences: usize) -> &mut Pace {
        let bucket = sequences.next_power_of_two().ilog2() as usize;
        if self.paces.len() <= bucket {
            self.paces.resize(bucket + 1, Pace::new());
        }
        &mut self.paces[bucket]
    }
}

impl Pace {
    /// No drafts, and soon a trial.
    fn new() -> Self {
        let (left, interval) = (COMPARED as u32, TRIAL_AFTER.start / 4);
        Self { drafting: false, trial: None, left, interval, plain: Vec::new(), with_drafts: Vec::new() }
    }

    fn measure(&mut self, step: &Measured, acceptance: f64) {
        self.left -= 1;
        let Some(with_drafts) = self.trial else {
            if self.left == 0 {
                (self.trial, self.left) = (Some(false), LONGEST_TRIAL);
                self.plain.clear();
                self.with_drafts.clear();
            }
            return;
        };
        let costs = if with_drafts { &mut self.with_drafts } else { &mut self.plain };
        // A step in which few drafts took part says nothing about drafts.
        if step.decodes && (!with_drafts || 2 * step.drafts > step.sequences) {
            costs.push(Cost(step.time.as_secs_f64(), step.sequences, step.drafts));
        }
        self.trial = Some(!with_drafts);
        let complete = self.plain.len().min(self.with_drafts.len()) >= COMPARED;
        if complete {
            let most = if self.drafting { 1.0 } else { GAIN } * per_token(&self.plain, acceptance);
            let drafting = per_token(&self.with_drafts, acceptance) < most;
            if drafting != self.drafting {
                self.interval = TRIAL_AFTER.start / 4;
            }
            self.drafting = drafting;
        }
        if complete || self.left == 0 {
            self.interval = (4 * self.interval).min(TRIAL_AFTER.end);
            (self.trial, self.left) = (None, self.interval);
        }
    }
}

/// Seconds per token that is expected, of the faster half of steps.
fn per_token(costs: &[Cost], acceptance: f64) -> f64 {
    let per_token =
        |&Cost(seconds, sequences, drafts): &Cost| seconds / (sequences as f64 + acceptance * drafts as f64);
    let mut all: Vec<f64> = costs.iter().map(per_token).collect();
    all.sort_by(f64::total_cmp);
    all.truncate(all.len().div_ceil(2));
    all.iter().sum::<f64>() / all.len() as f64
}

/// The rows that the module is run over for one sequence.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ModuleRows {
    /// Where its window begins: position 0 for the module, at the beginning of a page.
    pub window: usize,
    /// Positions in the sequence.
    pub positions: Range<usize>,
}

impl Sequence {
    /// The rows that the module is run over when `positions` were computed in a step, the last of them with a token sampled
    /// behind it; notes that they are in its window.
    ///
    /// The window goes on if it reaches up to them. Else it begins anew with the page of the first of them: what is before it
    /// in that page has no state any more, and takes the first one that there is.
    pub(crate) fn module_rows(&mut self, positions: Range<usize>) -> ModuleRows {
        let page = |position: usize| position / PAGE_TOKENS * PAGE_TOKENS;
        let latest = page(positions.end.saturating_sub(PROMPT_ROWS));
        let first = positions.start.max(latest);
        let goes_on = self.window.end == first && first == positions.start;
        let begin = if goes_on { first } else { page(first) };
        self.window = if goes_on { self.window.start } else { begin }..positions.end;
        ModuleRows { window: self.window.start, positions: begin..positions.end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SamplingParams;
    use crate::pages::Prefix;

    /// Steps of so many sequences on a machine where a step takes `plain` seconds, with drafts `with_drafts` and for making
    /// them `module`, and so many of 100 drafts are right: seconds per token, relative to that without drafts.
    fn relative(sequences: usize, [plain, with_drafts, module]: [f64; 3], right: usize, steps: usize) -> f64 {
        let mut pacer = Pacer::new(Speculation::WhereItPays);
        let (mut ready, mut count, mut seconds, mut tokens) = (false, 0, 0.0, 0);
        for step in 0..steps {
            let drafts = pacer.drafts(sequences);
            let drafted = if drafts == Drafts::Used && ready { sequences } else { 0 };
            let accepted = (0..drafted)
                .filter(|_| {
                    count += 1;
                    count * 37 % 100 < right
                })
                .count();
            pacer.count(drafted, accepted);
            tokens += sequences + accepted;
            // Every seventh step is disturbed.
            let noise = if step % 7 == 3 { 3.0 } else { 1.0 + (step * 31 % 10) as f64 * 0.005 };
            let main = noise * if drafted > 0 { with_drafts } else { plain };
            let with_module = if drafts == Drafts::None { main } else { main + module };
            let time = Duration::from_secs_f64(if drafts == Drafts::Used { with_module } else { main });
            pacer.measure(&Measured { sequences, drafts: drafted, decodes: true, time });
            seconds += with_module;
            ready = drafts != Drafts::None;
        }
        let noise = 1.0 + 2.0 / 7.0 + 0.0225;
        seconds / tokens as f64 / (plain * noise / sequences as f64)
    }

    #[test]
    fn drafts_are_used_where_they_pay_and_cost_next_to_nothing_where_not() {
        // Two rows for the price of 1.2, nearly always right.
        assert!(relative(1, [1.0, 1.2, 0.1], 90, 4000) < 0.75);
        assert!(relative(1, [1.0, 1.3, 0.2], 70, 4000) < 0.95);
        // Rows cost what they are.
        assert!(relative(16, [1.0, 2.0, 0.3], 60, 4000) < 1.03);
        assert!(relative(1, [1.0, 1.2, 0.3], 5, 4000) < 1.02);
        assert!(relative(4, [1.0, 1.5, 0.3], 80, 4000) < 1.02);
    }

    #[test]
    fn another_load_is_measured_for_itself_and_a_change_is_noticed() {
        let mut pacer = Pacer::new(Speculation::WhereItPays);
        let mut steps = |sequences: usize, ratio: f64, accepted: usize, steps: usize| {
            let mut used = 0;
            for _ in 0..steps {
                let drafts = pacer.drafts(sequences);
                let drafted = if drafts == Drafts::Used { sequences } else { 0 };
                used += usize::from(drafted > 0);
                pacer.count(drafted, drafted * accepted / 4);
                let time = Duration::from_secs_f64(if drafted > 0 { ratio } else { 1.0 });
                pacer.measure(&Measured { sequences, drafts: drafted, decodes: true, time });
            }
            used as f64 / steps as f64
        };
        assert!(steps(4, 1.2, 3, 1000) > 0.9);
        assert!(steps(16, 2.0, 3, 1000) < 0.1);
        assert!(steps(4, 1.2, 3, 100) > 0.8, "still known");
        // The text has become one that is hard to predict.
        steps(4, 1.2, 0, 5000);
        assert!(steps(4, 1.2, 0, 1000) < 0.1);
    }

    #[test]
    fn a_trial_without_anything_to_measure_ends() {
        let mut pacer = Pacer::new(Speculation::WhereItPays);
        let mut step = |decodes| {
            let drafts = pacer.drafts(2);
            pacer.measure(&Measured { sequences: 2, drafts: 0, decodes, time: Duration::from_millis(1) });
            drafts != Drafts::None
        };
        let tried = (0..1000).filter(|_| step(true)).count();
        assert!(tried > 0 && tried < 200, "{tried}");
        assert!((0..1000).filter(|_| step(false)).count() < 50);
    }

    #[test]
    fn a_window_goes_on_or_begins_anew_with_a_page() {
        let mut sequence = Sequence::new(&[0; 300], SamplingParams::default(), 1000, 0, Prefix::default());
        let mut rows = |positions| {
            let ModuleRows { window, positions } = sequence.module_rows(positions);
            (window, positions)
        };
        assert_eq!(rows(0..10), (0, 0..10));
        assert_eq!(rows(10..11), (0, 10..11));
        assert_eq!(rows(11..13), (0, 11..13));
        // Rows 13 and 14 were computed without drafts.
        assert_eq!(rows(15..16), (0, 0..16));
        assert_eq!(rows(40..41), (32, 32..41));
        // The end of a long prompt, and of a chunk behind a prefix that was found.
        assert_eq!(rows(41..200), (128, 128..200));
        assert_eq!(rows(256..300), (256, 256..300));
        assert_eq!(rows(300..301), (256, 300..301));
    }
}
