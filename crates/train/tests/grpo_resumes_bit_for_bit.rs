//! A stage of GRPO that was interrupted ends with the same bytes, also where the reference is no longer the model that
//! the stage started from.
#![allow(clippy::unwrap_used)]

mod small;

use minke_train::{Error, execute};

const ZERO: &str = r#"
[[stage]]
kind = "grpo"
name = "zero"
from = "base"
steps = 6
questions_per_step = 8
group_size = 4
minibatches = 2
max_tokens = [[0, 40]]
learning_rate = { muon = 0.005, adamw = 1e-3 }
kl_beta = 0.05
reference_every = 3
checkpoint_every = 4
bias_gamma = 0.001
"#;

#[test]
fn an_interrupted_stage_ends_like_an_uninterrupted_one() {
    let whole = small::run(ZERO);
    let cut = tempfile::tempdir().unwrap();
    // Step 5: behind the checkpoint of step 4, whose reference is the policy of step 3.
    let mut watch = small::Watch { stop: Some(("zero", 5)) };
    let config = small::config(ZERO);
    let error = execute(&config, cut.path(), &small::device(), None, &mut watch).unwrap_err();
    assert!(matches!(error, Error::Interrupted { step: 5, .. }), "{error}");
    execute(&config, cut.path(), &small::device(), None, &mut small::Watch { stop: None }).unwrap();
    for file in ["metrics.jsonl", "rollouts.jsonl", "model/model.safetensors"] {
        let read = |run: &std::path::Path| std::fs::read(small::stage(run, "zero").join(file)).unwrap();
        assert!(read(whole.path()) == read(cut.path()), "{file} differs");
    }
}
