//! Advantages, ratio, clip, divergence and aggregation against vectors computed in f64 from the paper's formulae
//! (`testdata/vectors/grpo.json`).
#![allow(clippy::unwrap_used)]

use minke_tensor::{Device, Param, Pass, Tensor, backward};
use minke_train::grpo::advantage::{deviation, group_relative, mean};
use minke_train::grpo::loss::{Diagnostics, grpo};
use minke_train::grpo::oracle::{OracleOutput, gain, k3, objective};
use minke_train::grpo::types::{Sample, Totals, TrainBatch};
use minke_train::grpo::{Aggregation, Clip, KlEstimator, Objective, Std};
use serde_json::Value;

fn read(file: &str) -> Value {
    let folder = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/vectors"));
    serde_json::from_str(&std::fs::read_to_string(folder.join(file)).unwrap()).unwrap()
}

fn vectors() -> Value {
    read("grpo.json")
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

#[track_caller]
fn assert_near(ours: f64, theirs: f64, tolerance: f64) {
    assert!((ours - theirs).abs() <= tolerance, "{ours} is not {theirs}");
}

/// The worked example: two outputs of three and two tokens.
fn outputs() -> Vec<OracleOutput> {
    let example = &vectors()["token_example"];
    let rows = |key: &str| -> Vec<Vec<f64>> { example[key].as_array().unwrap().iter().map(numbers).collect() };
    let advantages = numbers(&example["advantages"]);
    let all = rows("logp_new").into_iter().zip(rows("logp_old")).zip(rows("logp_ref")).zip(advantages);
    all.map(|(((new, old), reference), advantage)| OracleOutput { new, old, reference, advantage }).collect()
}

/// Clipped at 0.2 on both sides, with the published estimate of the divergence.
fn objective_of(kl_beta: f64, aggregation: Aggregation) -> Objective {
    Objective { clip: Clip::both(0.2), kl_beta, kl: KlEstimator::K3, aggregation }
}

/// The longest output of a test.
const CAP: usize = 40;

/// The configurations of the vectors, with what they call each aggregation.
fn cases() -> Vec<(Objective, f64, Value)> {
    let mut cases = Vec::new();
    for (name, expected) in vectors()["objective"].as_object().unwrap() {
        let field = |key: &str| -> f64 {
            let part = name.split(',').find_map(|part| part.strip_prefix(key)).unwrap();
            part.parse().unwrap()
        };
        for (aggregation, key) in [
            (Aggregation::TokenMean, "dapo_token_mean"),
            (Aggregation::SequenceMean, "objective_token_level"),
            (Aggregation::Sequence, "objective_sequence_level"),
        ] {
            let config = Objective { clip: Clip::both(field("eps=")), ..objective_of(field("beta="), aggregation) };
            cases.push((config, expected[key].as_f64().unwrap(), expected["per_token"].clone()));
        }
    }
    assert_eq!(cases.len(), 12);
    cases
}

#[test]
fn advantages_are_those_of_the_worked_example() {
    let vectors = vectors();
    let rewards = numbers(&vectors["rewards"]);
    assert_near(mean(&rewards), vectors["mean"].as_f64().unwrap(), 1e-12);
    for (std, deviation_key, advantage_key) in
        [(Std::Population, "std_population", "adv_population"), (Std::Sample, "std_sample", "adv_sample")]
    {
        assert_near(deviation(&rewards, std), vectors[deviation_key].as_f64().unwrap(), 1e-9);
        let ours = group_relative(&rewards, std).unwrap();
        ours.iter().zip(numbers(&vectors[advantage_key])).for_each(|(&ours, theirs)| assert_near(ours, theirs, 1e-9));
    }
    assert_eq!(group_relative(&[0.1; 16], Std::Sample), None);
    assert_eq!(group_relative(&[], Std::Sample), None);
    assert_eq!(group_relative(&[1.0], Std::Sample), None);
}

#[test]
fn the_oracle_is_the_published_formula() {
    for example in vectors()["k3_examples"].as_array().unwrap() {
        let [log_prob, ref_log_prob, expected] = ["logp", "logp_ref", "k3"].map(|key| example[key].as_f64().unwrap());
        assert_near(k3(log_prob, ref_log_prob), expected, 1e-9);
    }
    for (config, expected, per_token) in cases() {
        assert_near(objective(&outputs(), CAP, &config), expected, 1e-9);
        for (output, expected) in outputs().iter().zip(per_token.as_array().unwrap()) {
            for (t, expected) in numbers(expected).into_iter().enumerate() {
                let ours = gain(output.new[t], output.old[t], output.reference[t], output.advantage, &config);
                assert_near(ours, expected, 1e-9);
            }
        }
    }
}

/// Packs outputs behind prompts of one to three tokens, into batches of at most `tokens` tokens.
fn pack(device: &Device, outputs: &[OracleOutput], tokens: usize, config: &Objective) -> Vec<TrainBatch> {
    let narrow = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<_>>();
    let sample = |(i, output): (usize, &OracleOutput)| {
        let (prompt, length) = (1 + i % 3, output.new.len());
        Sample {
            token_ids: (0..(prompt + length) as u32).collect(),
            loss_mask: (0..prompt + length).map(|t| t >= prompt).collect(),
            old_log_probs: narrow(&output.old),
            importance: None,
            ref_log_probs: (config.kl_beta > 0.0).then(|| narrow(&output.reference)),
            advantage: output.advantage,
        }
    };
    let samples: Vec<Sample> = outputs.iter().enumerate().map(sample).collect();
    let totals = Totals::of(outputs.iter().map(|output| output.new.len()), CAP);
    TrainBatch::pack(device, &samples, totals, tokens, config.aggregation)
}

/// The tensor loss over all batches, and its gradient by token.
fn tensor_loss(device: &Device, outputs: &[OracleOutput], tokens: usize, config: &Objective) -> (f64, Vec<f64>) {
    let (mut loss, mut gradient, mut first) = (0.0, Vec::new(), 0);
    for batch in pack(device, outputs, tokens, config) {
        let count = batch.outputs.len();
        let new: Vec<f32> = outputs[first..first + count].iter().flat_map(|o| &o.new).map(|&v| v as f32).collect();
        first += count;
        // The log-probabilities enter the tape as the one parameter of a model whose output they are.
        let pass = Pass::recording(device);
        let said = Param::new("log_probs", 0, Tensor::from_slice(device, &[new.len(), 1], &new));
        let one = Tensor::from_slice(device, &[1, 1], &[1.0]);
        let log_probs = one.matmul(pass, &said).unwrap().reshape(&[new.len()]).unwrap();
        let part = grpo(pass, &log_probs, &batch, config).unwrap();
        let mut gradients = Default::default();
        backward(device, &part, &mut gradients).unwrap();
        loss += f64::from(part.item());
        gradient.extend(gradients.get(&said).unwrap().read().iter().map(|&g| f64::from(g)));
    }
    (loss, gradient)
}

/// The derivative of the negative objective by every log-probability, by central differences.
fn slopes(outputs: &mut [OracleOutput], config: &Objective) -> Vec<f64> {
    let step = 1e-6;
    let mut slopes = Vec::new();
    for i in 0..outputs.len() {
        for t in 0..outputs[i].new.len() {
            let at = outputs[i].new[t];
            let mut value = |log_prob: f64| {
                outputs[i].new[t] = log_prob;
                -objective(outputs, CAP, config)
            };
            let slope = (value(at + step) - value(at - step)) / (2.0 * step);
            outputs[i].new[t] = at;
            slopes.push(slope);
        }
    }
    slopes
}

#[test]
fn the_loss_on_the_tape_is_the_oracle() {
    let device = Device::open("cpu", 1).unwrap();
    for (config, expected, _) in cases() {
        let mut outputs = outputs();
        // In one batch, and in one batch for each output.
        for tokens in [100, 1] {
            let (loss, gradient) = tensor_loss(&device, &outputs, tokens, &config);
            assert_near(-loss, expected, 1e-5);
            let slopes = slopes(&mut outputs, &config);
            gradient.iter().zip(&slopes).for_each(|(&ours, &slope)| assert_near(ours, slope, 1e-5));
        }
    }
}

#[test]
fn the_clip_holds_back_gains_and_never_losses() {
    // What PPO's figure 1 shows: of a good output the ratio counts up to 1 + eps, of a bad one down to 1 - eps, and on the
    // other side of 1 without any limit, so that what went too far is always pulled back.
    let device = Device::open("cpu", 1).unwrap();
    let config = objective_of(0.0, Aggregation::TokenMean);
    for (log_ratio, advantage, expected, slope) in [
        (0.5f64, 1.0, 1.2, 0.0),
        (-0.5, 1.0, (-0.5f64).exp(), (-0.5f64).exp()),
        (0.5, -1.0, -(0.5f64).exp(), -(0.5f64).exp()),
        (-0.5, -1.0, -0.8, 0.0),
        (0.1, 2.0, 2.0 * (0.1f64).exp(), 2.0 * (0.1f64).exp()),
        (-0.1, -2.0, -2.0 * (-0.1f64).exp(), -2.0 * (-0.1f64).exp()),
    ] {
        use Aggregation::{Sequence, SequenceGeometric, SequenceMean, TokenMean};
        for aggregation in [TokenMean, SequenceMean, Sequence, SequenceGeometric] {
            let config = Objective { aggregation, ..config };
            let output = OracleOutput { new: vec![log_ratio - 1.0], old: vec![-1.0], reference: vec![-1.0], advantage };
            assert_near(objective(std::slice::from_ref(&output), CAP, &config), expected, 1e-12);
            let (loss, gradient) = tensor_loss(&device, &[output], 100, &config);
            assert_near(-loss, expected, 1e-6);
            assert_near(-gradient[0], slope, 1e-6);
        }
    }
}

#[test]
fn whole_outputs_are_summed_whatever_their_lengths() {
    let device = Device::open("cpu", 1).unwrap();
    let config = objective_of(0.04, Aggregation::Sequence);
    let logs = |n: usize, shift: f64| -> Vec<f64> { (0..n).map(|t| -1.0 - 0.01 * t as f64 + shift).collect() };
    let output = |n: usize, advantage| {
        let (new, old, reference) = (logs(n, 0.003), logs(n, 0.0), logs(n, -0.002));
        OracleOutput { new, old, reference, advantage }
    };
    let mut outputs = vec![output(1, 1.0), output(37, -0.5), output(5, 0.25), output(36, -1.0)];
    let (loss, gradient) = tensor_loss(&device, &outputs, 1000, &config);
    assert_near(-loss, objective(&outputs, CAP, &config), 1e-5);
    let slopes = slopes(&mut outputs, &config);
    gradient.iter().zip(&slopes).for_each(|(&ours, &slope)| assert_near(ours, slope, 1e-5));
}

#[test]
fn without_a_reference_there_is_no_divergence() {
    let device = Device::open("cpu", 1).unwrap();
    let config = objective_of(0.0, Aggregation::TokenMean);
    let (loss, _) = tensor_loss(&device, &outputs(), 100, &config);
    assert_near(-loss, objective(&outputs(), CAP, &config), 1e-5);
}

#[test]
fn diagnostics_count_what_the_clip_holds_back() {
    let device = Device::open("cpu", 1).unwrap();
    let config = objective_of(0.04, Aggregation::TokenMean);
    let outputs = outputs();
    let new: Vec<f32> = outputs.iter().flat_map(|o| &o.new).map(|&v| v as f32).collect();
    let mut seen = Diagnostics::default();
    seen.add(&new, &pack(&device, &outputs, 100, &config)[0], &config);
    // Ratios e^0.4, e^-0.2, 1 for the good output, e^-0.2, e^-0.5 for the bad one: the first and the last are held.
    assert_eq!((seen.tokens, seen.exact, seen.clipped), (5, 1, 2));
    let divergence: f64 = outputs.iter().flat_map(|o| o.new.iter().zip(&o.reference)).map(|(&p, &r)| k3(p, r)).sum();
    assert_near(seen.kl, divergence, 1e-6);
}

#[test]
fn packing_finds_the_rows_that_predict_outputs() {
    let device = Device::open("cpu", 1).unwrap();
    let config = objective_of(0.04, Aggregation::SequenceMean);
    let batches = pack(&device, &outputs(), 100, &config);
    assert_eq!(batches.len(), 1);
    let batch = &batches[0];
    // Prompts of one and two tokens, outputs of three and two: [q o o o] [q q o o].
    assert_eq!(batch.rows.read(), [0, 1, 2, 5, 6]);
    assert_eq!(batch.targets.read(), [1, 2, 3, 2, 3]);
    assert_eq!(batch.outputs, [0..3, 3..5]);
    assert_eq!(batch.advantages.read(), [1.0, 1.0, 1.0, -1.0, -1.0]);
    let sum: f32 = batch.weights.read().iter().sum();
    assert!((sum - 1.0).abs() < 1e-6);
    assert_eq!(pack(&device, &outputs(), 4, &config).len(), 2);
}

#[test]
fn importance_weights_are_of_the_gain_and_not_of_the_divergence() {
    let (device, outputs) = (Device::open("cpu", 1).unwrap(), outputs());
    let new: Vec<f32> = outputs.iter().flat_map(|output| &output.new).map(|&v| v as f32).collect();
    for (config, ..) in cases() {
        let loss = |kl_beta: f64, importance: Option<f32>| {
            let config = Objective { kl_beta, ..config };
            let mut batch = pack(&device, &outputs, 1000, &config).remove(0);
            let units = batch.advantages.shape().elements();
            batch.importance = importance.map(|weight| Tensor::from_slice(&device, &[units], &vec![weight; units]));
            let pass = Pass::inference(&device);
            let log_probs = Tensor::from_slice(&device, &[new.len()], &new);
            f64::from(grpo(pass, &log_probs, &batch, &config).unwrap().item())
        };
        let (gain, divergence) = (loss(0.0, None), loss(config.kl_beta, None) - loss(0.0, None));
        assert_near(loss(config.kl_beta, Some(0.5)), 0.5 * gain + divergence, 1e-6);
        // A weight of one is no weight, to the bit.
        assert_eq!(loss(config.kl_beta, Some(1.0)).to_bits(), loss(config.kl_beta, None).to_bits());
    }
}

#[test]
fn outputs_without_advantages_count_in_the_means() {
    // Two more outputs of the update, of groups that teach nothing, halve what these two weigh.
    let device = Device::open("cpu", 1).unwrap();
    for (aggregation, sum) in [
        (Aggregation::TokenMean, 0.5),
        (Aggregation::SequenceMean, 0.5),
        (Aggregation::Sequence, 0.5),
        (Aggregation::SequenceGeometric, 0.5),
        (Aggregation::ConstantLength, 5.0 / (4 * CAP) as f32),
    ] {
        let sample = |length: usize| Sample {
            token_ids: vec![0; 1 + length],
            loss_mask: (0..=length).map(|t| t > 0).collect(),
            old_log_probs: vec![-1.0; length],
            importance: None,
            ref_log_probs: None,
            advantage: 1.0,
        };
        let totals = Totals::of([3, 2, 4, 1].into_iter(), CAP);
        let batches = TrainBatch::pack(&device, &[sample(3), sample(2)], totals, 100, aggregation);
        let weights: f32 = batches[0].weights.read().iter().sum();
        assert!((weights - sum).abs() < 1e-6, "{aggregation:?}: {weights}");
    }
}

/// GSPO, Dr. GRPO, two sides of the clip and the other estimators, as `testdata/make/grpo_variants.py` computes them in f64.
#[test]
fn later_proposals_are_their_published_formulae() {
    let device = Device::open("cpu", 1).unwrap();
    let variants = read("grpo_variants.json");
    assert_eq!(variants.as_array().unwrap().len(), 12);
    for variant in variants.as_array().unwrap() {
        let of = |key: &str| variant[key].as_f64().unwrap();
        let config = Objective {
            clip: Clip { low: of("low"), high: of("high") },
            kl_beta: of("beta"),
            kl: serde_json::from_value(variant["kl"].clone()).unwrap(),
            aggregation: serde_json::from_value(variant["aggregation"].clone()).unwrap(),
        };
        let mut outputs = outputs();
        assert_near(objective(&outputs, CAP, &config), of("objective"), 1e-9);
        for tokens in [100, 1] {
            let (loss, gradient) = tensor_loss(&device, &outputs, tokens, &config);
            assert_near(-loss, of("objective"), 1e-5);
            let slopes = slopes(&mut outputs, &config);
            gradient.iter().zip(&slopes).for_each(|(&ours, &slope)| assert_near(ours, slope, 1e-5));
        }
    }
    assert_eq!(group_relative(&[1.0, 0.0, 0.0, 1.0], Std::None), Some(vec![0.5, -0.5, -0.5, 0.5]));
}
