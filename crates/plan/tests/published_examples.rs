//! The published examples of EPLB and DualPipe.
#![allow(clippy::unwrap_used)]

use minke_plan::balance::{Ranks, imbalance, place_experts};
use minke_plan::pipeline::simulate;
use minke_plan::schedule::{ChunkTimes, Schedule};

/// github.com/deepseek-ai/EPLB, README.md, "Interface and Example" (2025-02): two layers of 12 experts, 16 slots.
#[test]
fn eplb_places_the_experts_of_its_example() {
    let loads =
        [[90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86], [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27]];
    let loads = loads.map(|layer| layer.map(f64::from).to_vec());
    let placed = place_experts(&loads, Ranks { slots: 16, groups: 4, nodes: 2, ranks: 8 }).unwrap();
    assert_eq!(placed[0].slots, [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1]);
    assert_eq!(placed[1].slots, [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1]);
    assert_eq!(placed[0].copies, [1, 2, 1, 1, 2, 2, 1, 1, 1, 1, 2, 1]);
    // By hand for layer 0: rank 0 holds half of expert 5 and expert 6, 82.5 + 39; the heaviest is rank 6 or 7.
    let heaviest: f64 =
        [82.5 + 39.0, 82.5 + 4.0, 73.0 + 52.0, 61.0 + 52.0, 91.5 + 56.0, 91.5 + 40.0, 90.0 + 66.0, 86.0 + 66.0]
            .into_iter()
            .fold(0.0, f64::max);
    let mean = 1033.0 / 8.0;
    assert!((imbalance(&loads[0], &placed[0], 8) - heaviest / mean).abs() < 1e-12);
}

/// Chunks whose backward for inputs takes as long as their forward, as DualPipe's figure draws them, with and without gain by
/// overlap; and two whose backward takes longer.
const CHUNKS: [ChunkTimes; 6] = [
    ChunkTimes { forward: 1.0, input: 1.0, weight: 1.0, pair: 3.0 },
    ChunkTimes { forward: 1.0, input: 1.0, weight: 0.5, pair: 2.5 },
    ChunkTimes { forward: 1.0, input: 1.0, weight: 0.5, pair: 2.2 },
    ChunkTimes { forward: 0.07, input: 0.07, weight: 0.04, pair: 0.139 },
    ChunkTimes { forward: 1.0, input: 1.2, weight: 0.6, pair: 2.8 },
    ChunkTimes { forward: 0.06, input: 0.085, weight: 0.041, pair: 0.137 },
];

/// V3 3.2.1, Table 2, and github.com/deepseek-ai/DualPipe, README.md: bubbles (PP-1)(F+B), (PP-1)(F+B-2W) and
/// (PP/2-1)(F&B+B-3W). The simulation knows no formula.
#[test]
fn bubbles_are_those_of_the_papers() {
    for chunk in CHUNKS {
        for (ranks, micro_batches) in [(8, 20), (8, 40), (16, 120), (4, 8), (2, 4)] {
            for schedule in Schedule::ALL {
                let timeline = simulate(schedule, &vec![chunk; ranks], micro_batches, 0.0).unwrap();
                let expected = schedule.bubble(ranks, chunk);
                let middle = timeline.ranks[ranks / 2 - 1].idle;
                let told = format!("{schedule:?} {ranks} {micro_batches} {chunk:?}: {middle} {expected}");
                let exact = (middle - expected).abs() < 1e-9;
                let even = timeline.ranks.iter().all(|rank| (rank.idle - middle).abs() < 1e-9);
                let no_gain = (chunk.pair - chunk.forward - chunk.backward()).abs() < 1e-9;
                match schedule {
                    Schedule::DualPipe => {
                        assert!(exact || chunk.input != chunk.forward, "{told}");
                        // Elsewhere the formula is near.
                        assert!((middle - expected).abs() < 0.2 * expected + 1e-9, "{told}");
                        assert!(even || !no_gain, "{told}");
                    }
                    Schedule::OneFOneB | Schedule::Zb1p => assert!(exact && even, "{told}"),
                }
            }
        }
    }
}

/// The same tables: activations of PP chunks for 1F1B and ZB1P, of PP+1 for DualPipe.
#[test]
fn activations_are_those_of_the_papers() {
    for schedule in Schedule::ALL {
        let timeline = simulate(schedule, &[CHUNKS[0]; 8], 20, 0.0).unwrap();
        let most = timeline.activations.iter().max().copied();
        assert_eq!(most, Some(schedule.activations(8)), "{schedule:?}");
    }
}

/// DualPipe's figure: 8 ranks, 20 micro-batches, 10 from each end. Its first rank does 8 forwards before its first
/// backward, 10 pairs in the bulk and 3 behind it.
#[test]
fn dual_pipe_has_the_order_of_its_figure() {
    use minke_plan::schedule::Op;
    let timeline = simulate(Schedule::DualPipe, &[CHUNKS[0]; 8], 20, 0.0).unwrap();
    let ops: Vec<Op> = timeline.events[0].iter().map(|event| event.op).collect();
    let leading = ops.iter().take_while(|op| matches!(op, Op::Forward(_))).count();
    assert_eq!(leading, 8);
    let pairs = ops.iter().filter(|op| matches!(op, Op::Pair(..))).count();
    assert_eq!(pairs, 2 * (10 - 8 + 1) + 3);
}
