//! Trainer and sampler have the same log-probabilities: in exact mode the ratio of the first update of every step is 1
//! to the bit, after updates of the weights, of the selection bias and of the reference too.
#![allow(clippy::unwrap_used)]

mod small;

use minke_engine::SamplingParams;
use minke_model::Transformer;
use minke_tensor::Pass;
use minke_text::Tokenizer;
use minke_train::grpo::loss::Diagnostics;
use minke_train::grpo::rollout::{Policy, QuestionSampler};
use minke_train::grpo::types::{Group, Sample, Totals, TrainBatch};
use minke_train::grpo::{Aggregation, Clip, EngineSizes, KlEstimator, Objective, PromptForm};
use minke_train::stage::{Context, Outside};

#[test]
fn every_step_of_a_run_starts_at_one() {
    let run = small::run(
        r#"
        [[stage]]
        kind = "grpo"
        name = "zero"
        from = "base"
        steps = 5
        questions_per_step = 12
        group_size = 8
        max_tokens = [[0, 48], [3, 64]]
        learning_rate = { muon = 0.005, adamw = 1e-3 }
        reference_every = 2
        bias_gamma = 0.01
        micro_batch_tokens = 512
        engine = { max_sequences = 24, cache_tokens = 2048, chunk_tokens = 40 }
        eval = { every = 2, problems = 4, samples = 2 }
        checkpoint_every = 100
        "#,
    );
    let metrics = small::lines(&small::stage(run.path(), "zero").join("metrics.jsonl"));
    assert_eq!(metrics.len(), 5);
    for (step, line) in metrics.iter().enumerate() {
        assert!(line["learned"].as_u64().unwrap() > 0, "nothing was learned from at step {step}: {line}");
        assert_eq!(line["ratio_exact"].as_f64(), Some(1.0), "{line}");
        assert_eq!(line["clip_ratio"].as_f64(), Some(0.0), "{line}");
        // The reference is the policy itself where it was just refreshed, and another model one step later.
        let kl = line["kl"].as_f64().unwrap();
        assert_eq!(kl == 0.0, step % 2 == 0, "{line}");
        assert!(kl >= 0.0 && line["grad_norm"].as_f64().unwrap() > 0.0);
        assert_eq!(line.get("eval/make/pass@1").is_some(), step % 2 == 0);
    }
}

#[test]
fn in_bf16_too() {
    let run = small::done(&small::config_in_bf16(
        r#"
        [[stage]]
        kind = "grpo"
        name = "zero"
        from = "base"
        steps = 3
        questions_per_step = 12
        group_size = 8
        max_tokens = [[0, 48]]
        learning_rate = { muon = 0.005, adamw = 1e-3 }
        reference_every = 2
        bias_gamma = 0.01
        micro_batch_tokens = 512
        engine = { max_sequences = 24, cache_tokens = 2048, chunk_tokens = 40 }
        checkpoint_every = 100
        "#,
    ));
    let metrics = small::lines(&small::stage(run.path(), "zero").join("metrics.jsonl"));
    assert_eq!(metrics.len(), 3);
    for (step, line) in metrics.iter().enumerate() {
        assert!(line["learned"].as_u64().unwrap() > 0, "nothing was learned from at step {step}: {line}");
        assert_eq!(line["ratio_exact"].as_f64(), Some(1.0), "{line}");
        assert_eq!(line["kl"].as_f64().unwrap() == 0.0, step % 2 == 0, "{line}");
    }
}

/// A small model with answers of its own, and what is needed to look at them.
fn rollouts(model: &Transformer, params: &SamplingParams) -> Vec<Group> {
    let (device, config) = (small::device(), small::config(""));
    let texts: Vec<String> = (0..400).map(|i| format!("make {i} from {} {}", i % 9, i % 7)).collect();
    let options = minke_text::TrainOptions { vocab_size: 300, added_tokens: Vec::new() };
    let tokenizer = Tokenizer::train(texts.iter(), &options).unwrap();
    let stages = std::path::Path::new("stages");
    let (stage, tasks) = ("zero", &config.tasks[..]);
    let context = Context {
        device: &device,
        seed: 3,
        stage,
        tasks,
        tokenizer: &tokenizer,
        published: None,
        stages,
        outside: Outside::default(),
    };
    let sampler = QuestionSampler::new(context, &Default::default(), PromptForm::ForcedThought);
    let sizes = EngineSizes { max_sequences: 20, cache_tokens: 1024, chunk_tokens: 16 };
    let mut engines = sizes.engines(&device, model.config()).unwrap();
    let mut params = params.clone();
    params.stop_ids = sampler.sampling(1.0, 1).unwrap().stop_ids;
    let questions = sampler.questions(7, 0..9).unwrap();
    sampler.rollouts(&mut engines, Policy { model, version: 0 }, questions, &params, 4, 7).unwrap()
}

/// What a model's forward says about the rollouts of another.
fn look(model: &Transformer, groups: &[Group], inverse_temperature: f32) -> Diagnostics {
    let device = small::device();
    let objective =
        Objective { clip: Clip::both(0.2), kl_beta: 0.0, kl: KlEstimator::K3, aggregation: Aggregation::TokenMean };
    let samples: Vec<Sample> = groups
        .iter()
        .flat_map(|group| group.rollouts.iter().map(|rollout| Sample::new(&group.question, rollout, 1.0)))
        .collect();
    let mut seen = Diagnostics::default();
    let pass = Pass::recording(&device);
    let totals = Totals::of(samples.iter().map(|sample| sample.old_log_probs.len()), 40);
    for batch in TrainBatch::pack(&device, &samples, totals, 400, objective.aggregation) {
        let output = model.forward(pass, &batch.batch, None, false).unwrap();
        let hidden = output.hidden.gather_rows(pass, &batch.rows).unwrap();
        let log_probs = model.log_probs(pass, &hidden, &batch.targets, inverse_temperature).unwrap().log_prob;
        seen.add(&log_probs.read(), &batch, &objective);
    }
    seen
}

#[test]
fn one_bit_of_one_weight_breaks_it() {
    let device = small::device();
    let config = small::config("").model.unwrap();
    let mut model = Transformer::random(&device, &config, &minke_spec::Placement::single(), 1).unwrap();
    for temperature in [1.0, 0.7] {
        let params = SamplingParams::default().with_temperature(temperature).with_max_tokens(40);
        let groups = rollouts(&model, &params);
        let seen = look(&model, &groups, params.inverse_temperature());
        assert!(seen.tokens > 500 && seen.exact == seen.tokens, "{seen:?}");
        // A weight that every token passes through, in its last bit.
        let flip = |model: &mut Transformer| {
            let mut params = model.params_mut();
            let norm = params.iter_mut().find(|param| param.name() == "model.norm.weight").unwrap();
            norm.update(&device, |values| values[0] = f32::from_bits(values[0].to_bits() ^ 1));
        };
        flip(&mut model);
        let seen = look(&model, &groups, params.inverse_temperature());
        assert!(seen.exact < seen.tokens, "{seen:?}");
        flip(&mut model);
    }
}

#[test]
fn published_weights_are_the_policy_to_the_bit() {
    let device = small::device();
    let config = small::config("").model.unwrap();
    let model = Transformer::random(&device, &config, &minke_spec::Placement::single(), 2).unwrap();
    let folder = tempfile::tempdir().unwrap();
    minke_weights::save(&model, folder.path(), minke_spec::Format::F32, usize::MAX).unwrap();
    let loaded = minke_weights::load_dense(&device, folder.path()).unwrap();
    let params = SamplingParams::default().with_max_tokens(24);
    let groups = rollouts(&model, &params);
    let seen = look(&loaded, &groups, 1.0);
    assert_eq!(seen.exact, seen.tokens);
}
