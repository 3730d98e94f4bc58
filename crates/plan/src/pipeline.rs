//! A pipeline in time: when each rank does each step of a schedule, and when it waits.

use std::collections::VecDeque;

use serde::Serialize;

use crate::Error;
use crate::schedule::{ChunkTimes, Direction, Op, Schedule, operations};

/// What a step of one rank did, and when.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Event {
    /// What it did.
    pub op: Op,
    /// When it began, in seconds.
    pub start: f64,
    /// When it ended.
    pub end: f64,
}

/// How a rank spends the time of a step.
///
/// # Units
/// seconds
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct RankTime {
    /// Forwards that are not overlapped.
    pub forward: f64,
    /// Backwards that are not overlapped, with or without weights.
    pub backward: f64,
    /// Backwards for weights that were put off.
    pub weight: f64,
    /// Forwards and backwards at once.
    pub pair: f64,
    /// Waiting.
    pub idle: f64,
}

/// A pipeline over one step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Timeline {
    /// From the first forward to the last backward, in seconds.
    pub seconds: f64,
    /// How each rank spends it.
    pub ranks: Vec<RankTime>,
    /// The most chunks of which each rank holds activations, the one that is being computed counted.
    pub activations: Vec<usize>,
    /// What each rank did.
    pub events: Vec<Vec<Event>>,
}

impl Timeline {
    /// The mean over the ranks.
    pub fn mean(&self) -> RankTime {
        let count = self.ranks.len().max(1) as f64;
        let sum = |field: fn(&RankTime) -> f64| self.ranks.iter().map(field).sum::<f64>() / count;
        RankTime {
            forward: sum(|r| r.forward),
            backward: sum(|r| r.backward),
            weight: sum(|r| r.weight),
            pair: sum(|r| r.pair),
            idle: sum(|r| r.idle),
        }
    }
}

/// Runs a schedule: every chunk waits for the one that it needs, and every rank does one thing at a time.
///
/// # Shapes
/// `stages` has the times of each stage, as many as there are ranks; `handover` are the seconds from the end of a chunk
/// to when its neighbour can begin.
///
/// # Paper
/// - V3 3.2.1 (DualPipe)
/// - Test: crates/plan/tests/published_examples.rs
///
/// # Errors
/// If the schedule does not exist for so many ranks and micro-batches, or a time is not a number from 0 on.
pub fn simulate(
    schedule: Schedule,
    stages: &[ChunkTimes],
    micro_batches: usize,
    handover: f64,
) -> Result<Timeline, Error> {
    schedule.check(stages.len(), micro_batches)?;
    let times = stages.iter().flat_map(|t| [t.forward, t.input, t.weight, t.pair]).chain([handover]);
    if let Some(wrong) = times.into_iter().find(|time| !(time.is_finite() && *time >= 0.0)) {
        return Err(Error::invalid("time of a chunk", wrong, "must be a number of seconds from 0 on"));
    }
    let mut run = Run::new(stages, handover);
    run.follow(&operations(schedule, stages.len(), micro_batches));
    Ok(run.timeline())
}

/// The seconds of a step and the mean of its ranks, for any number of micro-batches: beyond what is simulated, as many more take
/// as long as those before.
///
/// # Errors
/// As [`simulate`].
pub fn step(
    schedule: Schedule,
    stages: &[ChunkTimes],
    micro_batches: usize,
    handover: f64,
) -> Result<(f64, RankTime), Error> {
    // Waits repeat with at most this period, once all ranks are busy.
    let period = 2 * stages.len();
    let enough = 2 * period;
    if micro_batches <= enough + 2 * period {
        let timeline = simulate(schedule, stages, micro_batches, handover)?;
        return Ok((timeline.seconds, timeline.mean()));
    }
    let base = enough + (micro_batches - enough) % period;
    let less = simulate(schedule, stages, base, handover)?;
    let more = simulate(schedule, stages, base + period, handover)?;
    let further = ((micro_batches - base) / period) as f64;
    let extend = |a: f64, b: f64| a + further * (b - a);
    let (a, b) = (less.mean(), more.mean());
    let mean = RankTime {
        forward: extend(a.forward, b.forward),
        backward: extend(a.backward, b.backward),
        weight: extend(a.weight, b.weight),
        pair: extend(a.pair, b.pair),
        idle: extend(a.idle, b.idle),
    };
    Ok((extend(less.seconds, more.seconds), mean))
}

/// When the chunks of one direction ended in each stage.
struct Ends {
    forward: Vec<Vec<f64>>,
    backward: Vec<Vec<f64>>,
}

struct Run<'a> {
    stages: &'a [ChunkTimes],
    handover: f64,
    /// By direction.
    ends: [Ends; 2],
    /// By rank: the stages whose weights were put off, oldest first.
    put_off: Vec<VecDeque<usize>>,
    events: Vec<Vec<Event>>,
}

impl<'a> Run<'a> {
    fn new(stages: &'a [ChunkTimes], handover: f64) -> Self {
        let ends = || Ends { forward: vec![Vec::new(); stages.len()], backward: vec![Vec::new(); stages.len()] };
        let ranks = stages.len();
        Self {
            stages,
            handover,
            ends: [ends(), ends()],
            put_off: vec![VecDeque::new(); ranks],
            events: vec![Vec::new(); ranks],
        }
    }

    fn stage(&self, rank: usize, direction: Direction) -> usize {
        if direction == Direction::Down { rank } else { self.stages.len() - 1 - rank }
    }

    fn free_at(&self, rank: usize) -> f64 {
        self.events[rank].last().map_or(0.0, |event| event.end)
    }

    /// When the next forward of a rank can begin; none if that is not known yet.
    fn forward_ready(&self, rank: usize, direction: Direction) -> Option<f64> {
        let (stage, ends) = (self.stage(rank, direction), &self.ends[direction as usize].forward);
        let chunk = ends[stage].len();
        if stage == 0 { Some(0.0) } else { ends[stage - 1].get(chunk).map(|end| end + self.handover) }
    }

    /// When the next backward of a rank can begin; none if that is not known yet.
    fn backward_ready(&self, rank: usize, direction: Direction) -> Option<f64> {
        let (stage, ends) = (self.stage(rank, direction), &self.ends[direction as usize]);
        let chunk = ends.backward[stage].len();
        let own = *ends.forward[stage].get(chunk)?;
        match ends.backward.get(stage + 1) {
            Some(next) => next.get(chunk).map(|end| own.max(end + self.handover)),
            None => Some(own),
        }
    }

    /// When a step could begin, its rank being free.
    fn ready(&self, rank: usize, op: Op) -> Option<f64> {
        match op {
            Op::Forward(direction) => self.forward_ready(rank, direction),
            Op::Backward(direction) | Op::Input(direction) => self.backward_ready(rank, direction),
            Op::Weight => Some(0.0),
            Op::Pair(f, b) => Some(self.forward_ready(rank, f)?.max(self.backward_ready(rank, b)?)),
        }
    }

    fn do_op(&mut self, rank: usize, op: Op, ready: f64) {
        let start = self.free_at(rank).max(ready);
        let stage = |direction| self.stage(rank, direction);
        let seconds = match op {
            Op::Forward(d) => self.stages[stage(d)].forward,
            Op::Backward(d) => self.stages[stage(d)].backward(),
            Op::Input(d) => self.stages[stage(d)].input,
            Op::Weight => self.put_off[rank].front().map_or(0.0, |&stage| self.stages[stage].weight),
            // Each of the two stages brings half of the work of its own pair.
            Op::Pair(f, b) => (self.stages[stage(f)].pair + self.stages[stage(b)].pair) / 2.0,
        };
        let end = start + seconds;
        let (forward, backward) = match op {
            Op::Forward(d) => (Some(d), None),
            Op::Backward(d) | Op::Input(d) => (None, Some(d)),
            Op::Pair(f, b) => (Some(f), Some(b)),
            Op::Weight => (None, None),
        };
        if let Some(d) = forward {
            let stage = self.stage(rank, d);
            self.ends[d as usize].forward[stage].push(end);
        }
        if let Some(d) = backward {
            let stage = self.stage(rank, d);
            self.ends[d as usize].backward[stage].push(end);
            if matches!(op, Op::Input(_)) {
                self.put_off[rank].push_back(stage);
            }
        }
        if op == Op::Weight {
            self.put_off[rank].pop_front();
        }
        self.events[rank].push(Event { op, start, end });
    }

    /// Does the steps of each rank in the given order.
    fn follow(&mut self, ops: &[Vec<Op>]) {
        let mut next = vec![0; ops.len()];
        loop {
            let mut moved = false;
            for rank in 0..ops.len() {
                while let Some(&op) = ops[rank].get(next[rank]) {
                    let Some(ready) = self.ready(rank, op) else { break };
                    self.do_op(rank, op, ready);
                    next[rank] += 1;
                    moved = true;
                }
            }
            if !moved {
                assert!(
                    next.iter().zip(ops).all(|(&done, ops)| done == ops.len()),
                    "invariant: no schedule waits for itself"
                );
                return;
            }
        }
    }

    fn timeline(self) -> Timeline {
        let seconds = self.events.iter().flatten().map(|event| event.end).fold(0.0, f64::max);
        let spent = |events: &Vec<Event>| {
            let mut time = RankTime { idle: seconds, ..RankTime::default() };
            for event in events {
                let took = event.end - event.start;
                time.idle -= took;
                *match event.op {
                    Op::Forward(_) => &mut time.forward,
                    Op::Backward(_) | Op::Input(_) => &mut time.backward,
                    Op::Weight => &mut time.weight,
                    Op::Pair(..) => &mut time.pair,
                } += took;
            }
            // Sums of many steps may miss the whole by rounding.
            time.idle = time.idle.max(0.0);
            time
        };
        let held = |events: &Vec<Event>| {
            let (mut now, mut most) = (0usize, 0);
            for event in events {
                now += usize::from(matches!(event.op, Op::Forward(_) | Op::Pair(..)));
                most = most.max(now);
                now -= usize::from(matches!(event.op, Op::Backward(_) | Op::Input(_) | Op::Pair(..)));
            }
            most
        };
        Timeline {
            seconds,
            ranks: self.events.iter().map(spent).collect(),
            activations: self.events.iter().map(held).collect(),
            events: self.events,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EQUAL: ChunkTimes = ChunkTimes { forward: 1.0, input: 1.0, weight: 1.0, pair: 3.0 };

    #[test]
    fn one_rank_never_waits() {
        for schedule in [Schedule::OneFOneB, Schedule::Zb1p] {
            let timeline = simulate(schedule, &[EQUAL], 5, 0.0).unwrap();
            assert_eq!((timeline.seconds, timeline.ranks[0].idle), (15.0, 0.0), "{schedule:?}");
        }
    }

    #[test]
    fn many_micro_batches_are_extended_exactly() {
        for schedule in Schedule::ALL {
            let stages = [EQUAL; 4];
            let (seconds, mean) = step(schedule, &stages, 120, 0.1).unwrap();
            let whole = simulate(schedule, &stages, 120, 0.1).unwrap();
            assert!((seconds - whole.seconds).abs() < 1e-6, "{schedule:?}: {seconds} {}", whole.seconds);
            assert!((mean.idle - whole.mean().idle).abs() < 1e-6, "{schedule:?}");
        }
    }

    #[test]
    fn wrong_times_are_refused() {
        for wrong in [-1.0, f64::NAN] {
            let error = simulate(Schedule::OneFOneB, &[EQUAL], 1, wrong).unwrap_err().to_string();
            assert!(error.contains("seconds from 0 on"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_done_before_what_it_needs(
            half in 1usize..4, more in 0usize..6, f in 0.5f64..2.0, i in 0.5f64..2.0, w in 0.2f64..1.0,
        ) {
            let ranks = 2 * half;
            let chunk = ChunkTimes { forward: f, input: i, weight: w, pair: f + i + w };
            for schedule in Schedule::ALL {
                let timeline = simulate(schedule, &vec![chunk; ranks], 2 * ranks + 2 * more, 0.01).unwrap();
                for (events, rank) in timeline.events.iter().zip(&timeline.ranks) {
                    prop_assert!(events.windows(2).all(|pair| pair[0].end <= pair[1].start + 1e-9));
                    prop_assert!(rank.idle >= -1e-9);
                    let work = (2 * ranks + 2 * more) as f64 * (f + i + w);
                    prop_assert!((timeline.seconds - rank.idle - work).abs() < 1e-6 * work);
                }
            }
        }
    }
}
