//! Why a reward may not rise: what the line of a step says about it, and advice where that holds for long.

use super::config::GrpoConfig;
use crate::metric;
use crate::record::Metrics;

/// Steps in a row for which a reason must hold before there is advice.
const PATIENCE: u64 = 10;

/// Why a step teaches little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Most groups have right answers only.
    AllRight,
    /// Most groups have wrong answers only.
    AllWrong,
    /// The format is rewarded, and no answer has it.
    FormatNeverSampled,
    /// Many answers are cut off.
    CutOff,
    /// Many problems cannot be graded.
    GoldUnusable,
    /// The policy runs away: clipped, far from the reference, or not finite.
    RateTooHigh,
}

impl Reason {
    /// All of them, in the order of a table.
    pub const ALL: [Self; 6] =
        [Self::AllRight, Self::AllWrong, Self::FormatNeverSampled, Self::CutOff, Self::GoldUnusable, Self::RateTooHigh];

    /// What it is called, and when a step has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::AllRight => "all right in half of the groups",
            Self::AllWrong => "all wrong in half of the groups",
            Self::FormatNeverSampled => "the format never sampled",
            Self::CutOff => "a quarter of the answers cut off",
            Self::GoldUnusable => "a tenth of the problems unusable",
            Self::RateTooHigh => "the rate too high",
        }
    }

    /// What to do about it.
    pub fn advice(self) -> &'static str {
        match self {
            Self::AllRight => "the questions are too easy: choose harder ones, or resample",
            Self::AllWrong => "the questions are too hard: choose easier ones, fine-tune first, or raise group_size",
            Self::FormatNeverSampled => {
                "no answer has a thought and then an answer: prompt = \"forced_thought\", fine-tune first, or rewards.format = 0"
            }
            Self::CutOff => "raise max_tokens, or set rewards.overlong",
            Self::GoldUnusable => {
                "the grader cannot read the golds of many problems: look at gold_unusable and the data"
            }
            Self::RateTooHigh => "lower the learning rate, or raise kl_beta",
        }
    }

    /// Whether the line of a step has it; `number` looks a metric up. Is the format rewarded?
    pub fn holds(self, number: impl Fn(&str) -> Option<f64>, format_is_rewarded: bool) -> bool {
        let least = |name: &str, bound: f64| number(name).is_some_and(|value| value >= bound);
        match self {
            Self::AllRight => least(metric::ALL_RIGHT, 0.5),
            Self::AllWrong => least(metric::ALL_WRONG, 0.5),
            Self::FormatNeverSampled => format_is_rewarded && number(metric::FORMAT) == Some(0.0),
            Self::CutOff => least(metric::CUT_OFF, 0.25),
            Self::GoldUnusable => least(metric::GOLD_UNUSABLE_RATIO, 0.1),
            Self::RateTooHigh => {
                least(metric::CLIP_RATIO, 0.2) || least(metric::KL, 0.5) || least(metric::SKIPPED, 1.0)
            }
        }
    }
}

/// How often each reason held, over the lines of a stage.
#[derive(Clone, Debug, Default)]
pub struct Tally([Held; Reason::ALL.len()]);

#[derive(Clone, Copy, Debug, Default)]
struct Held {
    steps: u64,
    first: u64,
    last: u64,
    streak: u64,
}

/// How often a reason held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The reason.
    pub reason: Reason,
    /// In how many steps.
    pub steps: u64,
    /// In which step first.
    pub first: u64,
    /// In which step last.
    pub last: u64,
    /// In how many steps up to the newest one without a break.
    pub streak: u64,
}

impl Finding {
    /// Whether it has held for so long that something should be done.
    pub fn asks_for_advice(&self) -> bool {
        self.streak >= PATIENCE
    }
}

impl Tally {
    /// Takes the line of a step in; `number` looks a metric up. Is the format rewarded?
    pub fn step(&mut self, step: u64, number: impl Fn(&str) -> Option<f64>, format_is_rewarded: bool) {
        for (reason, held) in Reason::ALL.into_iter().zip(&mut self.0) {
            if !reason.holds(&number, format_is_rewarded) {
                held.streak = 0;
                continue;
            }
            if held.steps == 0 {
                held.first = step;
            }
            *held = Held { steps: held.steps + 1, last: step, streak: held.streak + 1, ..*held };
        }
    }

    /// The reasons that held in some step, in the order of a table.
    pub fn findings(&self) -> impl Iterator<Item = Finding> {
        let held = Reason::ALL.into_iter().zip(&self.0).filter(|(_, held)| held.steps > 0);
        held.map(|(reason, &Held { steps, first, last, streak })| Finding { reason, steps, first, last, streak })
    }
}

/// Gives advice while a stage goes on.
#[derive(Default)]
pub(super) struct Watch(Tally);

impl Watch {
    /// Takes the line of a step in; advice about the first reason that has held for ten steps, once.
    pub fn step(&mut self, metrics: &Metrics, config: &GrpoConfig) -> Option<String> {
        // Which step it is tells nothing here.
        self.0.step(0, |name| metrics.number(name), config.rewards.format > 0.0);
        let due = self.0.findings().find(|finding| finding.streak == PATIENCE)?;
        Some(format!("{} for {PATIENCE} steps; {}", due.reason.name(), due.reason.advice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_comes_once_a_reason_has_held_for_ten_steps() {
        let text =
            "name = \"zero\"\nfrom = \"base\"\nsteps = 9\nmax_tokens = [[0, 12]]\nlearning_rate = { adamw = 1e-3 }\n";
        let config: GrpoConfig = toml::from_str(text).unwrap();
        let line = |name: &'static str, value: f64| {
            let mut metrics = Metrics::new();
            metrics.set(metric::FORMAT, 0.5).set(name, value);
            metrics
        };
        for (name, value, bad, words) in [
            (metric::ALL_RIGHT, 0.5, 0.4, "too easy"),
            (metric::ALL_WRONG, 0.9, 0.4, "too hard"),
            (metric::CUT_OFF, 0.3, 0.2, "max_tokens"),
            (metric::GOLD_UNUSABLE_RATIO, 0.2, 0.0, "golds"),
            (metric::KL, 0.7, 0.1, "learning rate"),
            (metric::CLIP_RATIO, 0.7, 0.1, "learning rate"),
            (metric::SKIPPED, 1.0, 0.0, "learning rate"),
        ] {
            let mut watch = Watch::default();
            // One good step in between begins the count anew.
            let steps = [vec![value; 9], vec![bad], vec![value; 30]].concat();
            let said: Vec<(usize, String)> = steps
                .into_iter()
                .enumerate()
                .filter_map(|(i, value)| Some((i, watch.step(&line(name, value), &config)?)))
                .collect();
            assert!(said.len() == 1 && said[0].0 == 19 && said[0].1.contains(words), "{name}: {said:?}");
        }
        let mut watch = Watch::default();
        let mut never = Metrics::new();
        never.set(metric::FORMAT, 0.0);
        let said: Vec<String> = (0..20).filter_map(|_| watch.step(&never, &config)).collect();
        assert!(said.len() == 1 && said[0].contains("forced_thought"), "{said:?}");
        let mut unrewarded = config;
        unrewarded.rewards.format = 0.0;
        let mut watch = Watch::default();
        assert!((0..20).all(|_| watch.step(&never, &unrewarded).is_none()));
    }
}
