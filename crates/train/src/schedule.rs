//! The schedule of the learning rate over a stage: segments, each a line or half a cosine from one factor to another.

use serde::{Deserialize, Serialize};

/// The factor of the learning rates by step: segments one after the other; no segments mean 1 throughout.
///
/// # Examples
/// V3's, in TOML, on another scale: warm-up, constant, cosine to a tenth, two constant tails.
/// ```toml
/// schedule = [
///     { from = 0.0, steps = 20 },
///     { steps = 1000 },
///     { shape = "cosine", to = 0.1, steps = 430 },
///     { to = 0.1, steps = 33 },
///     { from = 0.033, to = 0.033 },
/// ]
/// ```
///
/// # Paper
/// - V3 4.2 (learning-rate schedule)
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Schedule(pub Vec<Segment>);

/// A part of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    /// How it goes from one factor to the other.
    #[serde(default)]
    pub shape: Shape,
    /// Factor at its start; by default that at the end of the segment before, or 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<f64>,
    /// Factor at its end; by default 1.
    #[serde(default = "one")]
    pub to: f64,
    /// Its steps; by default all that are left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
}

/// How a segment goes from one factor to the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// In a straight line.
    #[default]
    Linear,
    /// Along half a cosine.
    Cosine,
}

fn one() -> f64 {
    1.0
}

impl Schedule {
    /// A warm-up followed by a cosine to a fraction.
    pub fn warm_up_and_cosine(steps: u64, to: f64) -> Self {
        let warm_up = Segment { shape: Shape::Linear, from: Some(0.0), to: 1.0, steps: Some(steps) };
        Self(vec![warm_up, Segment { shape: Shape::Cosine, from: None, to, steps: None }])
    }

    /// The factor for a step, the first being 0, of a stage of `total` steps. A segment reaches its end with its
    /// last step; after the last segment its end stays.
    pub fn factor(&self, step: u64, total: u64) -> f64 {
        let (mut start, mut value) = (0, 1.0);
        for segment in &self.0 {
            let from = segment.from.unwrap_or(value);
            let steps = segment.steps.unwrap_or(total.saturating_sub(start)).max(1);
            if step < start + steps {
                let done = (step - start + 1) as f64 / steps as f64;
                let done = match segment.shape {
                    Shape::Linear => done,
                    Shape::Cosine => (1.0 - (std::f64::consts::PI * done).cos()) / 2.0,
                };
                return from + (segment.to - from) * done;
            }
            (start, value) = (start + steps, segment.to);
        }
        value
    }

    /// What is wrong with the schedule, if anything.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let factors = self.0.iter().flat_map(|segment| [segment.from.unwrap_or(1.0), segment.to]);
        let open = self.0.iter().rev().skip(1).any(|segment| segment.steps.is_none());
        if factors.clone().any(|factor| !(0.0..=1e3).contains(&factor)) {
            Some("schedule: factors must not be negative")
        } else if open {
            Some("schedule: only the last segment may leave out its steps")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_of_v3_in_its_own_numbers() {
        // Facts sheet 4.1, a step being 62,914,560 tokens: peak 2.2e-4, then 2.2e-5, then 7.3e-6.
        let steps = |tokens: f64| Some((tokens / 62_914_560.0) as u64);
        let linear = |from, to, steps| Segment { shape: Shape::Linear, from, to, steps };
        let schedule = Schedule(vec![
            linear(Some(0.0), 1.0, Some(2000)),
            linear(None, 1.0, steps(10e12 - 2000.0 * 62_914_560.0)),
            Segment { shape: Shape::Cosine, from: None, to: 0.1, steps: steps(4.3e12) },
            linear(None, 0.1, steps(333e9)),
            linear(Some(0.0332), 0.0332, None),
        ]);
        let total = (14.8e12 / 62_914_560.0) as u64;
        let rate = |tokens: f64| 2.2e-4 * schedule.factor((tokens / 62_914_560.0) as u64, total);
        let near = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-3, "{a} is not {b}");
        near(2.2e-4 * schedule.factor(999, total), 1.1e-4);
        near(rate(5e12), 2.2e-4);
        near(rate(10e12 + 4.3e12 / 2.0), (2.2e-4 + 2.2e-5) / 2.0);
        near(rate(14.4e12), 2.2e-5);
        near(rate(14.7e12), 7.304e-6);
        assert!(schedule.fault().is_none());
    }

    #[test]
    fn the_last_step_of_an_open_segment_reaches_its_end() {
        let schedule = Schedule::warm_up_and_cosine(10, 0.1);
        assert_eq!(schedule.factor(0, 100), 0.1);
        assert_eq!(schedule.factor(9, 100), 1.0);
        assert!((schedule.factor(99, 100) - 0.1).abs() < 1e-12);
        assert_eq!(Schedule::default().factor(50, 100), 1.0);
        assert!((10..99).all(|step| schedule.factor(step, 100) > schedule.factor(step + 1, 100)));
    }
}
