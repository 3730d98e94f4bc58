//! Ranks that share a run: losses, gradients and weights of one process within a bound, the same bits for the same number of ranks,
//! and checkpoints that know nothing of that number.
#![allow(clippy::unwrap_used)]

mod support;

use std::ops::ControlFlow;
use std::path::Path;

use minke_train::{Bases, Error, Observer, Ranks, RunConfig, Silent, StepView, execute, execute_with};
use support::{assert_same, determined, device, metric, on_ranks, run, run_in_bf16};

const STAGES: &str = r#"
    [[stage]]
    kind = "pretrain"
    name = "base"
    steps = 12
    training = { batch_tokens = 600, micro_batch_tokens = 200, checkpoint_every = 4 }
    [[stage]]
    kind = "sft"
    name = "cold-start"
    from = "base"
    data = [{ kind = "demonstrations", style = "clean", count = 20 }]
    training = { batch_tokens = 400, checkpoint_every = 4, mtp_weight = 0.0 }
"#;

// A layout is a number of ranks, how many of a stage share out the experts, and the number of stages.

/// By how much losses and gradient norms may differ from those of one process, as a share of them: f32 is added up in another order. A
/// last digit that bf16 rounds the other way is larger.
const BOUND: f64 = 1e-5;
const BOUND_OF_BF16: f64 = 5e-3;

fn share(
    config: &RunConfig,
    out: &Path,
    layout: [usize; 3],
    observer: impl Fn(usize) -> Box<dyn Observer> + Sync,
) -> Vec<Result<(), Error>> {
    on_ranks(layout, |ranks, device| {
        let mut observer = observer(ranks.rank());
        let mut bases = Bases::default();
        bases.set_ranks(ranks);
        execute_with(config, &bases, out, device, None, &mut *observer)
    })
}

fn finish(config: &RunConfig, out: &Path, layout: [usize; 3]) {
    share(config, out, layout, |_| Box::new(Silent)).into_iter().for_each(Result::unwrap);
}

/// The largest difference of the numbers of two folders, as a share of them.
fn farthest(out: &Path, other: &Path) -> f64 {
    let names = [
        ("base", "loss"),
        ("base", "mtp"),
        ("base", "balance"),
        ("base", "grad_norm"),
        ("cold-start", "loss"),
        ("cold-start", "grad_norm"),
    ];
    let of = |(stage, name): (&str, &str)| {
        let (left, right) = (metric(out, stage, name), metric(other, stage, name));
        assert_eq!(left.len(), right.len());
        left.iter().zip(right).map(|(left, right)| (left / right - 1.0).abs()).fold(0.0, f64::max)
    };
    names.into_iter().map(of).fold(0.0, f64::max)
}

#[test]
fn they_learn_what_one_process_learns() {
    for (config, bound) in [(run(STAGES), BOUND), (run_in_bf16(STAGES), BOUND_OF_BF16)] {
        let alone = tempfile::tempdir().unwrap();
        execute(&config, alone.path(), &device(), None, &mut Silent).unwrap();
        for layout in
            [[2, 1, 1], [3, 1, 1], [4, 1, 1], [2, 2, 1], [4, 4, 1], [4, 2, 1], [2, 1, 2], [4, 1, 2], [4, 2, 2]]
        {
            let [out, again] = [(); 2].map(|()| tempfile::tempdir().unwrap());
            finish(&config, out.path(), layout);
            let distance = farthest(out.path(), alone.path());
            println!("{layout:?}, {:?}: {distance:.1e}", config.precision);
            assert!(distance < bound, "{layout:?}: {distance}");
            finish(&config, again.path(), layout);
            assert_same(&determined(again.path()), &determined(out.path()));
            // Whole numbers do not differ at all.
            assert_eq!(metric(out.path(), "base", "num_tokens"), metric(alone.path(), "base", "num_tokens"));
        }
    }
}

/// Stops a run after so many steps.
struct Stops(u64);

impl Observer for Stops {
    fn step(&mut self, _view: &StepView<'_>) -> ControlFlow<()> {
        self.0 -= 1;
        if self.0 == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[test]
fn a_checkpoint_of_four_is_opened_by_two_and_by_one() {
    let config = run(STAGES);
    let [alone, out] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    execute(&config, alone.path(), &device(), None, &mut Silent).unwrap();
    for (layout, steps) in [([4, 2, 2], 5), ([2, 1, 1], 5)] {
        // One of them says so; all of them stop.
        let stops = |rank| -> Box<dyn Observer> { if rank == 1 { Box::new(Stops(steps)) } else { Box::new(Silent) } };
        for result in share(&config, out.path(), layout, stops) {
            assert!(matches!(result, Err(Error::Interrupted { .. })), "{result:?}");
        }
    }
    // Four did steps 1 to 5 and left a checkpoint of 4; two went on from there to 9 and left one of 8.
    finish(&config, out.path(), [1, 1, 1]);
    let distance = farthest(out.path(), alone.path());
    assert!(distance < BOUND, "{distance}");
    let (left, right) = (determined(out.path()), determined(alone.path()));
    let sizes = |files: &std::collections::BTreeMap<String, Vec<u8>>, end: &str| -> Vec<(String, usize)> {
        let of_end = files.iter().filter(|(name, _)| name.ends_with(end));
        of_end.map(|(name, bytes)| (name.clone(), bytes.len())).collect()
    };
    assert_eq!(sizes(&left, ".safetensors"), sizes(&right, ".safetensors"));
}

#[test]
fn a_rank_that_ends_ends_the_others() {
    let (config, out) = (run(STAGES), tempfile::tempdir().unwrap());
    let results = on_ranks([3, 3, 1], |ranks, device| {
        let mut bases = Bases::default();
        let rank = ranks.rank();
        bases.set_ranks(ranks);
        // The observer of rank 2 dies amid a step of the others.
        let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut observer: Box<dyn Observer> = if rank == 2 { Box::new(Dies) } else { Box::new(Silent) };
            let result = execute_with(&config, &bases, out.path(), device, None, &mut *observer);
            result.unwrap_err().to_string()
        }));
        drop(bases);
        died.unwrap_or_default()
    });
    // Rank 0 may have heard of rank 1 first, which ended because of rank 2.
    assert!(
        results[0].ends_with("has ended") && results[1].ends_with("has ended") && results[2].is_empty(),
        "{results:?}"
    );
    finish(&config, out.path(), [3, 1, 1]);
}

struct Dies;

impl Observer for Dies {
    fn step(&mut self, view: &StepView<'_>) -> ControlFlow<()> {
        if view.step == 6 {
            std::panic::resume_unwind(Box::new("killed"));
        }
        ControlFlow::Continue(())
    }
}

#[test]
fn what_ranks_cannot_share_is_refused_by_name() {
    let stages = format!(
        "{}\n[[stage]]\nkind = \"reject\"\nname = \"samples\"\nfrom = \"base\"\nquestions = 4\nmax_tokens = 8\n",
        STAGES.replace("steps = 12", "steps = 2")
    );
    let (config, out) = (run(&stages), tempfile::tempdir().unwrap());
    for result in share(&config, out.path(), [2, 1, 1], |_| Box::new(Silent)) {
        let text = result.unwrap_err().to_string();
        assert!(text.starts_with("stage samples: a stage of kind reject is not shared by ranks"), "{text}");
    }
    // What is before it is done, and one process goes on.
    assert!(out.path().join("stages/cold-start/done.json").exists());
    execute(&config, out.path(), &device(), None, &mut Silent).unwrap();

    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let results = on_ranks([2, 1, 1], |ranks: Ranks, device| {
        let (mut bases, rank) = (Bases::default(), ranks.rank());
        bases.set_ranks(ranks);
        execute_with(&config, &bases, folders[rank].path(), device, None, &mut Silent).unwrap_err().to_string()
    });
    for text in results {
        assert!(
            text.starts_with("rank 1 sees another folder than rank 0") && text.contains("all ranks share"),
            "{text}"
        );
    }
}
