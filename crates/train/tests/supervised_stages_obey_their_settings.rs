//! Schedule, factor of multi-token prediction and starting point of a supervised stage reach its weights.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use minke_model::Transformer;
use minke_spec::Placement;
use minke_train::{Silent, execute, metric};
use support::{device, metric as values, run};

/// Rates that fall to nothing, and stages in which they are nothing throughout.
const STAGES: &str = r#"
    [[stage]]
    kind = "pretrain"
    name = "still"
    steps = 2
    learning_rate = { muon = 0.02, adamw = 3e-3 }
    schedule = [{ from = 0.0, to = 0.0 }]
    training = { batch_tokens = 300, bias_gamma = 0.0 }
    [[stage]]
    kind = "pretrain"
    name = "base"
    steps = 4
    learning_rate = { muon = 0.02, adamw = 3e-3 }
    schedule = [{ from = 1.0, steps = 1 }, { to = 0.25, steps = 3 }]
    training = { batch_tokens = 300 }
    [[stage]]
    kind = "sft"
    name = "same"
    from = "base"
    data = [{ kind = "demonstrations", style = "clean", count = 20 }]
    epochs = 1
    schedule = [{ from = 0.0, to = 0.0 }]
    training = { batch_tokens = 300, bias_gamma = 0.0 }
    [[stage]]
    kind = "sft"
    name = "without-mtp"
    from = "base"
    data = [{ kind = "demonstrations", style = "clean", count = 20 }]
    epochs = 1
    learning_rate = { adamw = 1e-3 }
    schedule = [{ from = 1.0, steps = 1 }, { from = 0.5, to = 0.5 }]
    training = { batch_tokens = 300, mtp_weight = 0.0 }
    [[stage]]
    kind = "sft"
    name = "with-mtp"
    from = "base"
    data = [{ kind = "demonstrations", style = "clean", count = 20 }]
    epochs = 1
    training = { batch_tokens = 300, mtp_weight = 0.1 }
"#;

fn by_name(model: &Transformer) -> BTreeMap<String, Vec<f32>> {
    model.params().iter().map(|param| (param.name().to_owned(), param.value().read())).collect()
}

fn of_stage(out: &Path, stage: &str) -> BTreeMap<String, Vec<f32>> {
    by_name(&minke_weights::load_dense(&device(), &out.join("stages").join(stage).join("model")).unwrap())
}

#[test]
fn schedules_factors_and_starting_points_reach_the_weights() {
    let config = run(STAGES);
    let out = tempfile::tempdir().unwrap();
    execute(&config, out.path(), &device(), None, &mut Silent).unwrap();
    let random = by_name(
        &Transformer::random(&device(), config.model.as_ref().unwrap(), &Placement::single(), config.seed).unwrap(),
    );
    let of = |stage: &str| of_stage(out.path(), stage);
    let base = of("base");

    // Rates of 0 leave every weight where the stage began; others do not.
    assert!(of("still") == random, "pre-training does not follow its schedule");
    assert!(of("same") == base, "fine-tuning does not follow its schedule, or does not start from its base");
    assert!(base.iter().all(|(name, values)| values != &random[name]), "a weight did not move");
    assert_eq!(values(out.path(), "base", metric::LEARNING_RATE), [0.02, 0.015, 0.01, 0.005]);
    let rates = values(out.path(), "without-mtp", metric::LEARNING_RATE);
    assert!(rates.len() > 2 && rates[0] == 1e-3 && rates[1..].iter().all(|&rate| rate == 5e-4), "{rates:?}");

    // The module of multi-token prediction is layer 2. Without its loss it stays as it is.
    let module = |name: &str| name.starts_with("model.layers.2.");
    let (without, with) = (of("without-mtp"), of("with-mtp"));
    for (name, values) in &base {
        // A selection bias goes up and down by the same step and may come back to where it was.
        let bias = name.ends_with("e_score_correction_bias");
        assert!(values == &without[name] || !module(name), "{name} moved without the loss");
        assert!(values != &without[name] || module(name) || bias, "{name} did not move without the loss");
        assert!(values != &with[name] || bias, "{name} did not move with the loss");
    }
    // The loss that is written down is the sum of its parts with the factors of the stage.
    for (stage, factor) in [("base", 0.3), ("with-mtp", 0.1)] {
        let of = |name: &str| values(out.path(), stage, name);
        let (mtp, balance) = (of(metric::MTP), of(metric::BALANCE));
        for (i, (loss, next)) in of(metric::LOSS).iter().zip(of(metric::NEXT)).enumerate() {
            let parts = next + factor * mtp[i] + 1e-4 * balance[i];
            assert!((loss / parts - 1.0).abs() < 1e-6, "{stage}: {loss} is not {parts}");
        }
    }
    assert!(values(out.path(), "without-mtp", metric::MTP).is_empty());
}
