//! Schedules of pipelines: what each rank does, in which order.

use serde::Serialize;

use crate::Error;

/// How micro-batches go through the stages of a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// One forward, one backward; a stage per rank.
    #[serde(rename = "1f1b")]
    OneFOneB,
    /// Backward for inputs apart from backward for weights, which fills what would be idle (ZB-H1); a stage per rank.
    Zb1p,
    /// Micro-batches from both ends, forward and backward of two of them at once; two stages per rank.
    DualPipe,
}

impl Schedule {
    /// All schedules.
    pub const ALL: [Schedule; 3] = [Self::OneFOneB, Self::Zb1p, Self::DualPipe];

    /// The name by which it is asked for.
    pub fn name(self) -> &'static str {
        match self {
            Self::OneFOneB => "1f1b",
            Self::Zb1p => "zb1p",
            Self::DualPipe => "dualpipe",
        }
    }

    /// The schedule of a name.
    ///
    /// # Errors
    /// If there is none.
    pub fn named(name: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|schedule| schedule.name() == name);
        found.ok_or_else(|| Error::unknown("schedule", name, Self::ALL.map(Self::name)))
    }

    /// Stages whose weights a rank holds.
    pub fn stages_per_rank(self) -> usize {
        if self == Self::DualPipe { 2 } else { 1 }
    }

    /// Chunks whose activations the fullest rank holds at once.
    ///
    /// # Paper
    /// V3 3.2.1, Table 2
    pub fn activations(self, ranks: usize) -> usize {
        if self == Self::DualPipe { ranks + 1 } else { ranks }
    }

    /// The time in which a rank is idle, as the papers give it, for chunks that take equal time on all ranks. For `DualPipe` the
    /// simulation has it on the ranks in the middle if backward for inputs takes as long as forward, and is near it otherwise.
    ///
    /// # Units
    /// seconds -> seconds
    ///
    /// # Paper
    /// - V3 3.2.1, Table 2
    /// - Test: crates/plan/tests/published_examples.rs
    pub fn bubble(self, ranks: usize, chunk: ChunkTimes) -> f64 {
        let ranks = ranks as f64;
        let ChunkTimes { forward, input, weight, pair } = chunk;
        let backward = input + weight;
        match self {
            Self::OneFOneB => (ranks - 1.0) * (forward + backward),
            Self::Zb1p => (ranks - 1.0) * (forward + backward - 2.0 * weight),
            Self::DualPipe => (ranks / 2.0 - 1.0) * (pair + backward - 3.0 * weight),
        }
    }

    /// Checks that the schedule exists for so many ranks and micro-batches.
    ///
    /// # Errors
    /// If it does not.
    pub fn check(self, ranks: usize, micro_batches: usize) -> Result<(), Error> {
        let name = self.name();
        if ranks == 0 || ranks > MAX_RANKS {
            return Err(Error::invalid("pipeline", ranks, format!("must lie between 1 and {MAX_RANKS}")));
        }
        if micro_batches == 0 || micro_batches > MAX_MICRO_BATCHES {
            let reason = format!("must lie between 1 and {MAX_MICRO_BATCHES}");
            return Err(Error::invalid("micro-batches", micro_batches, reason));
        }
        if self == Self::DualPipe && (!ranks.is_multiple_of(2) || ranks == 0) {
            return Err(Error::invalid("pipeline", ranks, format!("{name} needs an even number of ranks")));
        }
        if self == Self::DualPipe && (!micro_batches.is_multiple_of(2) || micro_batches < 2 * ranks) {
            let reason = format!("{name} over {ranks} ranks needs an even number of at least {}", 2 * ranks);
            return Err(Error::invalid("micro-batches", micro_batches, reason));
        }
        Ok(())
    }
}

/// What bounds the work of a simulation.
pub const MAX_RANKS: usize = 256;
/// As [`MAX_RANKS`].
pub const MAX_MICRO_BATCHES: usize = 1 << 14;

/// How long the parts of the work on one chunk take: one micro-batch in one stage.
///
/// # Units
/// seconds
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ChunkTimes {
    /// F: forward.
    pub forward: f64,
    /// The part of B that gives the gradients of inputs.
    pub input: f64,
    /// W: the part of B that gives the gradients of weights.
    pub weight: f64,
    /// F&B: the forward of one chunk and the whole backward of another, overlapped.
    pub pair: f64,
}

impl ChunkTimes {
    /// B: the whole backward.
    pub fn backward(&self) -> f64 {
        self.input + self.weight
    }
}

/// From which end of the pipeline a micro-batch comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From rank 0 to the last.
    Down,
    /// From the last rank to rank 0.
    Up,
}

/// A step of one rank. The chunk is the next of its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// Forward.
    Forward(Direction),
    /// The whole backward.
    Backward(Direction),
    /// Backward for inputs; its weights come later.
    Input(Direction),
    /// Backward for weights of the oldest chunk that lacks it.
    Weight,
    /// Forward of the first direction with backward of the second.
    Pair(Direction, Direction),
}

/// The steps of each rank, in order.
pub(crate) fn operations(schedule: Schedule, ranks: usize, micro_batches: usize) -> Vec<Vec<Op>> {
    let rank = |rank: usize| match schedule {
        Schedule::OneFOneB => one_f_one_b(rank, ranks, micro_batches),
        Schedule::Zb1p => zb1p(rank, ranks, micro_batches),
        Schedule::DualPipe => dual_pipe(rank, ranks, micro_batches),
    };
    (0..ranks).map(rank).collect()
}

fn one_f_one_b(rank: usize, ranks: usize, micro_batches: usize) -> Vec<Op> {
    let (forward, backward) = (Op::Forward(Direction::Down), Op::Backward(Direction::Down));
    let warm_up = (ranks - 1 - rank).min(micro_batches);
    let mut ops = vec![forward; warm_up];
    (warm_up..micro_batches).for_each(|_| ops.extend([forward, backward]));
    ops.extend(std::iter::repeat_n(backward, warm_up));
    ops
}

/// 1F1B, in which a rank's backward for weights lags by as many micro-batches as there are ranks before it. So no rank holds
/// more than the first of 1F1B does, and the gradients of inputs are sooner at the first.
fn zb1p(rank: usize, ranks: usize, micro_batches: usize) -> Vec<Op> {
    let (forward, input) = (Op::Forward(Direction::Down), Op::Input(Direction::Down));
    let warm_up = (ranks - 1 - rank).min(micro_batches);
    let mut ops = vec![forward; warm_up];
    for done in 0..micro_batches {
        if warm_up + done < micro_batches {
            ops.push(forward);
        }
        ops.push(input);
        if done >= rank {
            ops.push(Op::Weight);
        }
    }
    ops.extend(std::iter::repeat_n(Op::Weight, rank.min(micro_batches)));
    ops
}

/// DualPipe. The ranks of the second half mirror those of the first.
///
/// # Paper
/// V3 3.2.1, Figure 5; the phases are those of the published schedule
fn dual_pipe(rank: usize, ranks: usize, micro_batches: usize) -> Vec<Op> {
    let (near, far) =
        if rank < ranks / 2 { (Direction::Down, Direction::Up) } else { (Direction::Up, Direction::Down) };
    // The distance from the nearer end, and from the middle.
    let from_end = rank.min(ranks - 1 - rank);
    let from_middle = ranks / 2 - 1 - from_end;
    let mut ops = Vec::new();
    let mut repeat = |times: usize, step: &[Op]| (0..times).for_each(|_| ops.extend_from_slice(step));
    // Warm-up: forwards from the near end, then from both.
    repeat(2 * from_middle, &[Op::Forward(near)]);
    repeat(from_end + 1, &[Op::Forward(near), Op::Forward(far)]);
    repeat(from_middle, &[Op::Input(far), Op::Weight, Op::Forward(far)]);
    // The bulk: pairs in turn. The middle ranks do not overlap their first, so that the others wait less.
    let bulk = micro_batches / 2 + from_end + 1 - ranks;
    for i in 0..bulk {
        if i == 0 && from_middle == 0 {
            repeat(1, &[Op::Forward(near), Op::Backward(far)]);
        } else {
            repeat(1, &[Op::Pair(near, far)]);
        }
        repeat(1, &[Op::Pair(far, near)]);
    }
    repeat(from_middle, &[Op::Backward(far), Op::Pair(far, near)]);
    // Cool-down: the second half of the backwards leaves its weights for later.
    for i in 0..2 * (from_end + 1) {
        let direction = if i % 2 == 0 { far } else { near };
        let late = i > from_end;
        repeat(1, &[if late { Op::Input(direction) } else { Op::Backward(direction) }]);
    }
    repeat(from_middle, &[Op::Weight, Op::Input(near)]);
    repeat(from_end + 1, &[Op::Weight]);
    ops
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_exist_only_for_what_they_can_take() {
        assert!(Schedule::DualPipe.check(8, 20).is_ok());
        for (ranks, micro_batches, told) in [
            (7, 20, "needs an even number of ranks"),
            (8, 21, "even number of at least 16"),
            (8, 14, "even number of at least 16"),
            (0, 20, "between 1"),
            (8, 0, "between 1"),
        ] {
            let error = Schedule::DualPipe.check(ranks, micro_batches).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
        assert_eq!(Schedule::named("zb1p").unwrap(), Schedule::Zb1p);
        assert!(Schedule::named("gpipe").unwrap_err().to_string().contains("known: 1f1b, zb1p, dualpipe"));
    }

    #[test]
    fn every_micro_batch_goes_forward_and_backward_once() {
        use Schedule::{DualPipe, OneFOneB, Zb1p};
        let cases =
            [(OneFOneB, 4, 2), (OneFOneB, 4, 9), (Zb1p, 4, 2), (Zb1p, 4, 9), (DualPipe, 8, 20), (DualPipe, 2, 4)];
        for (schedule, ranks, micro_batches) in cases {
            let ops = operations(schedule, ranks, micro_batches);
            let count = |ops: &[Op], f: &dyn Fn(&Op) -> bool| ops.iter().filter(|op| f(op)).count();
            let total = count(&ops[0], &|op| matches!(op, Op::Forward(_) | Op::Pair(..)));
            for rank in &ops {
                assert_eq!(count(rank, &|op| matches!(op, Op::Forward(_) | Op::Pair(..))), total);
                assert_eq!(count(rank, &|op| matches!(op, Op::Backward(_) | Op::Input(_) | Op::Pair(..))), total);
                assert_eq!(count(rank, &|op| matches!(op, Op::Input(_))), count(rank, &|op| *op == Op::Weight));
            }
        }
    }
}
