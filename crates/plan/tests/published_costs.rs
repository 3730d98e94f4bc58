//! The numbers that DeepSeek published about V3 and R1: what the planner gives for them.
#![allow(clippy::unwrap_used)]

use minke_plan::cluster::{Batch, Cluster, Layout};
use minke_plan::questions::{self, Rl, Serve, Train};
use minke_plan::serve::{Unit, decode, link_bound, prefill};
use minke_plan::time::train_step;
use minke_plan::{Answer, Hardware, Ledger, Model};
use minke_spec::cost::TokenPrices;

fn hardware() -> Hardware {
    Hardware::known().unwrap()
}

fn cost(name: &str) -> Answer {
    questions::cost(&Model::named(name).unwrap(), &hardware(), Ledger::default()).unwrap()
}

fn value(answer: &Answer, name: &str) -> f64 {
    answer.value(name).unwrap_or_else(|| panic!("{name} in {:?}", answer.facts))
}

#[track_caller]
fn near(value: f64, published: f64, tolerance: f64) {
    assert!((value / published - 1.0).abs() <= tolerance, "{value} is not {published} within {tolerance}");
}

/// V3 abstract, 2.1, 4.2, Table 1; ISCA25 Tables 2 and 4.
#[test]
fn the_cost_of_v3() {
    let answer = cost("deepseek-v3");
    assert_eq!(value(&answer, "parameters"), 671_026_419_200.0);
    // Parameter table of the facts: 219.75 GFLOP of matrices and 30.71 of causal attention.
    near(value(&answer, "FLOPs per token"), 250.457e9, 1e-4);
    near(value(&answer, "tokens per day, from the step"), 272.80e9, 1e-5);
    // 2,048 x 19.926 s / 62,914,560 tokens: 180.2 K hours per T tokens; V3 prints 180K.
    near(value(&answer, "H800 hours per T tokens, from the step"), 180_176.0, 1e-5);
    assert_eq!(value(&answer, "H800 hours of pre-training"), 2_664_000.0);
    assert_eq!(value(&answer, "H800 hours in all"), 2_788_000.0);
    assert_eq!(value(&answer, "dollars in all"), 5_576_000.0);
    for fact in &answer.facts {
        if let Some(published) = &fact.published {
            near(fact.value, published.value, 0.01);
        }
    }
}

/// R1 (arXiv 2501.12948v2) Table 7: 101K, 5K, 41K, 147K hours and 294K dollars.
#[test]
fn the_cost_of_r1() {
    for name in ["deepseek-r1", "deepseek-r1-zero"] {
        let answer = cost(name);
        assert_eq!(value(&answer, "H800 hours of R1-Zero"), 101_376.0);
        assert_eq!(value(&answer, "H800 hours of R1"), 40_960.0);
        assert_eq!(value(&answer, "H800 hours in all"), 147_336.0);
        near(value(&answer, "dollars in all"), 294_000.0, 0.005);
    }
    let model = Model::named("deepseek-v2").unwrap();
    let error = questions::cost(&model, &hardware(), Ledger::default()).unwrap_err().to_string();
    assert!(error.contains("minke plan train deepseek-v2"), "{error}");
}

/// ISCA25 Table 4, MPFT: 1F 1.13 s, bubble 2.06 s, 1B 1.99 s, 1W 0.48 s, 1F1B 13.95 s, optimizer 0.29 s, step 19.926 s,
/// 385 TFLOPS and 38.94 % causal. 1F, 1B, 1W, 1F1B and the optimizer's part set the rates of the planner; bubble, step and
/// utilisation follow from the schedule and the sizes of the model.
#[test]
fn the_phases_of_the_step_of_v3() {
    let (hardware, mut ledger) = (hardware(), Ledger::default());
    let model = Model::named("deepseek-v3").unwrap();
    let batch = Batch { sequences: 15_360, sequence_tokens: 4096 };
    let cluster = Cluster::new(hardware.part("h800").unwrap(), 2048, None, &mut ledger).unwrap();
    let layout = Layout::of_v3(2048, batch, &model).unwrap();
    let step = train_step(&model, &cluster, &layout, batch, &mut ledger).unwrap();
    for (simulated, published) in [
        (step.phases.forward, 1.13),
        (step.phases.backward, 1.99),
        (step.phases.weight, 0.48),
        (step.phases.pair, 13.95),
        (step.phases.idle, 2.06),
        (step.optimizer, 0.29),
        (step.seconds, 19.926),
        (step.mfu, 0.3894),
    ] {
        near(simulated, published, 0.05);
    }
    near(step.seconds, 19.926, 0.005);
    assert!(!step.bound_by_links);
}

/// deepseek-ai/profile-data, train.json (2025-02): one forward and one backward chunk of 4 layers with experts, EP64, 4K
/// tokens, routing balanced by force. Kernels of attn(F) and mlp(F) take 35.89 ms, of attn(B) and mlp(B) 58.58 ms; the way
/// to experts and back adds 4 x 6.166 ms at 50 GB/s. The pair takes 128.5 ms.
#[test]
fn the_rates_agree_with_the_published_trace() {
    let (hardware, mut ledger) = (hardware(), Ledger::default());
    let model = Model::named("deepseek-v3").unwrap();
    let batch = Batch { sequences: 15_360, sequence_tokens: 4096 };
    let cluster = Cluster::new(hardware.part("h800").unwrap(), 2048, None, &mut ledger).unwrap();
    let layout = Layout::of_v3(2048, batch, &model).unwrap();
    let chunk = train_step(&model, &cluster, &layout, batch, &mut ledger).unwrap().chunk;
    // 4,096 tokens x 3.5 other nodes x 7,168 x (1 + 2) bytes.
    let way = 4.0 * 4096.0 * 3.5 * 7168.0 * 3.0 / 50e9;
    near(chunk.forward, 0.03589 + way, 0.03);
    near(chunk.input, 0.05858 + way, 0.03);
    // Real routing is not balanced by force: the pair is 7 % slower than in the trace.
    near(chunk.pair, 0.1285, 0.07);
}

/// ISCA25 2.3.2: 32 tokens to 9 experts, width "7K", 50 GB/s, 61 layers; and with 900 GB/s.
#[test]
fn the_bound_of_decoding_by_links() {
    let (way, token, rate) = link_bound(32.0, 9.0, 7000.0, 50e9, 61.0);
    near(way, 120.96e-6, 1e-9);
    near(token, 14.76e-3, 1e-3);
    assert_eq!(rate.floor(), 67.0);
    let (way, token, rate) = link_bound(32.0, 9.0, 7000.0, 900e9, 61.0);
    near(way, 6.72e-6, 1e-9);
    near(token, 0.82e-3, 1e-3);
    near(rate, 1200.0, 0.02);
}

/// DeepSeek, inference system overview (2025-02-28): 73.7k tokens/s per node read with 56.3 % hits, 14.8k written at 20 to
/// 22 tokens/s per user behind 4,989 tokens; units of 4 and 18 nodes.
#[test]
fn the_rates_of_the_service() {
    let (hardware, mut ledger) = (hardware(), Ledger::default());
    let model = Model::named("deepseek-r1").unwrap();
    let part = hardware.part("h800").unwrap();
    let reading = Unit::new(part, 32, &model, &mut ledger).unwrap();
    let read = prefill(&model, &reading, 4096, &mut ledger).unwrap();
    near(8.0 * read.with_hits, 73_700.0, 0.01);
    let writing = Unit::new(part, 144, &model, &mut ledger).unwrap();
    // 1,850 tokens/s per GPU at 21 per user are 88 users.
    let written = decode(&model, &writing, Some(88.0), 4989.0, &mut ledger).unwrap();
    near(8.0 * written.tokens_per_second, 14_800.0, 0.01);
    let rate = 1.0 / written.seconds;
    assert!((20.0..=22.0).contains(&rate), "{rate}");
    assert!(written.most_users >= 88.0, "{written:?}");
    // Two experts and the shared one on each rank: V3repo's sizes in FP8, attention and both tables in BF16 beside them.
    assert!((15e9..25e9).contains(&written.weight_bytes), "{written:?}");
}

/// The same source: with these rates, 608 B read and 168 B written tokens in a day occupy 226.75 nodes on average, which cost
/// 87,072 dollars; at R1's prices they are worth 562,027, a margin of 545 %.
#[test]
fn the_day_of_the_service() {
    let nodes = 608e9 / 86_400.0 / 73_700.0 + 168e9 / 86_400.0 / 14_800.0;
    near(nodes, 226.75, 0.002);
    let spent = 226.75 * 8.0 * 24.0 * 2.0;
    assert_eq!(spent, 87_072.0);
    let prices = TokenPrices { cache_hit_usd: 0.14, cache_miss_usd: 0.55, output_usd: 2.19 };
    let earned = prices.revenue_usd(342e9, 608e9 - 342e9, 168e9);
    near(earned, 562_027.0, 0.001);
    near((earned - spent) / spent, 5.45, 0.005);
}

/// ISCA25 Table 1: 70.272 KB per cached token.
#[test]
fn the_cache_of_a_user() {
    let model = Model::named("deepseek-r1").unwrap();
    let answer = questions::serve(&model, &hardware(), &Serve::new("h800"), Ledger::default()).unwrap();
    assert_eq!(value(&answer, "cache of a token"), 70_272.0);
    assert_eq!(value(&answer, "cache of a user"), 70_272.0 * 4989.0);
}

/// R1's training of 512 H800 fits what its reinforcement learning is said to have taken: work alone takes less than 101,376
/// hours for any mean length up to the cap of 32,768 tokens at which it began, and longer rollouts take longer.
#[test]
fn the_reinforcement_learning_of_r1_zero() {
    let model = Model::named("deepseek-r1-zero").unwrap();
    let hours = |length: f64| {
        let answer = questions::rl(&model, &hardware(), &Rl::new(length), Ledger::default()).unwrap();
        value(&answer, "hours of the part")
    };
    let (short, long) = (hours(1000.0), hours(10_000.0));
    assert!(short < 0.1 * 101_376.0 && long < 101_376.0 && long > 9.0 * short, "{short} {long}");
}

/// A run of V3's on V3's cluster, laid out as V3 was, costs what V3 cost, within the error of its simulated step.
#[test]
fn mine_costs_what_v3_cost_if_it_is_v3() {
    let model = Model::named("deepseek-v3").unwrap();
    let mut asked = Train::new("h800", 2048, 14.8e12);
    (asked.pipeline, asked.expert) = (Some(16), Some(64));
    let answer = questions::train(&model, &hardware(), &asked, Ledger::default()).unwrap();
    near(value(&answer, "hours of the part"), 2_664_000.0, 0.005);
    near(value(&answer, "rent"), 5_328_000.0, 0.005);
    near(value(&answer, "days"), 54.2, 0.005);
    // The fastest layout that the search finds is no slower.
    let free = Train::new("h800", 2048, 14.8e12);
    let best = questions::train(&model, &hardware(), &free, Ledger::default()).unwrap();
    assert!(value(&best, "days") <= value(&answer, "days") * 1.0001);
}

/// DeepSeek-V2 3.2.3: 172.8K H800 hours per trillion tokens in BF16, 25.2 % of the dense rate. The planner takes that for every
/// chunk and adds bubble and exchange, so it is slower, but not by much.
#[test]
fn the_hours_of_v2_are_not_undercut() {
    use minke_plan::cluster::Arithmetic;
    let model = Model::named("deepseek-v2").unwrap();
    near(model.train_flops(4096) * 1e12 / (0.252 * 989.5e12) / 3600.0, 172_800.0, 0.01);
    let mut asked = Train::new("h800", 1024, 8.1e12);
    asked.batch = Batch { sequences: 9216, sequence_tokens: 4096 };
    asked.arithmetic = Some(Arithmetic::Bf16);
    let answer = questions::train(&model, &hardware(), &asked, Ledger::default()).unwrap();
    let hours = value(&answer, "hours per T tokens");
    assert!((172_800.0..1.15 * 172_800.0).contains(&hours), "{hours}");
}

/// What is asked wrongly is refused in one line that says what exists.
#[test]
fn nothing_passes_in_silence() {
    let model = Model::named("deepseek-v3").unwrap();
    let train = |part: &str, count, set: &[(&str, f64)]| {
        let ledger = Ledger::new(set.iter().map(|&(name, value)| (name.to_owned(), value)));
        questions::train(&model, &hardware(), &Train::new(part, count, 1e12), ledger).unwrap_err().to_string()
    };
    for (error, told) in [
        (train("h801", 2048, &[]), "part \"h801\" is not known; known: h800, h100"),
        (train("h800", 0, &[]), "count = 0"),
        (train("h800", 64, &[]), "cannot be trained on 64 x h800"),
        (train("h800", 2048, &[("pua", 1.1)]), "assumption \"pua\" is not known; known: h800.bf16_flops"),
        (train("h800", 2048, &[("pue", 0.0)]), "pue = 0"),
        (train("h800", 2048, &[("h800.power", f64::NAN)]), "h800.power = NaN"),
        (train("l20", 2048, &[]), "l20: parts_per_node"),
    ] {
        assert!(error.contains(told) && error.lines().count() == 1, "{error}");
    }
}

/// Every answer is JSON, has its assumptions with their sources, and is drawn.
#[test]
fn every_answer_has_sources_and_a_picture() {
    let (hardware, model) = (hardware(), Model::named("deepseek-r1").unwrap());
    let train = Train::new("h800", 2048, 1e12);
    let answers = [
        questions::cost(&model, &hardware, Ledger::default()),
        questions::train(&model, &hardware, &train, Ledger::default()),
        questions::scale(&model, &hardware, &train, Ledger::default()),
        questions::failure(&model, &hardware, &train, Ledger::default()),
        questions::cheapest(&model, &hardware, &questions::Cheapest::new(1e12), Ledger::default()),
        questions::export(&model, &hardware, &questions::Restricted::new(1e12), Ledger::default()),
        questions::rl(&model, &hardware, &Rl::new(8000.0), Ledger::default()),
        questions::serve(&model, &hardware, &Serve::new("h800"), Ledger::default()),
        questions::fit(std::slice::from_ref(&model), &hardware, &questions::Fit::new("epyc-9654"), Ledger::default()),
    ];
    for answer in answers {
        let answer = answer.unwrap();
        assert!(!answer.assumptions.is_empty(), "{}", answer.question);
        assert!(
            answer.assumptions.iter().all(|a| !a.source.is_empty() && a.value.is_finite()),
            "{:?}",
            answer.assumptions
        );
        assert!(answer.facts.iter().all(|fact| fact.value.is_finite()), "{:?}", answer.facts);
        assert!(answer.picture.svg().unwrap().starts_with("<svg"), "{}", answer.question);
        serde_json::to_string(&answer).unwrap();
        assert!(answer.text().contains("--set"), "{}", answer.question);
    }
}
