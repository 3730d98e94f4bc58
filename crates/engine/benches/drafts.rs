//! Speed with and without drafts by multi-token prediction, of a published folder.
//!
//! `cargo bench -p minke-engine --bench drafts -- FOLDER [tokens] [rounds] [temperature] [prompt] [threads]` prints a line of JSON for
//! 1, 4 and 16 sequences: tokens per second, prompts included (the median of rounds, in which the three ways take turns), and
//! what became of drafts. Prompts of so many tokens are what the model itself says behind the begin token.

use std::path::Path;
use std::time::Instant;

use minke_engine::{Engine, EngineConfig, SamplingParams, Speculation, Stats};
use minke_model::Transformer;
use minke_tensor::Device;

const WAYS: [Speculation; 3] = [Speculation::Off, Speculation::Always, Speculation::WhereItPays];

/// Continues prompts together, each with a seed of its own, and returns the seconds that this took, and what they became.
fn continue_all(
    engine: &mut Engine,
    model: &Transformer,
    prompts: &[Vec<u32>],
    params: &SamplingParams,
    seed: u64,
) -> (f64, Vec<Vec<u32>>) {
    for (prompt, i) in prompts.iter().zip(0..) {
        engine.submit(prompt, &params.clone().with_seed(1000 * seed + i), 1).expect("the prompt fits");
    }
    let start = Instant::now();
    let done = engine.run(model).expect("the model is finite");
    let seconds = start.elapsed().as_secs_f64();
    (seconds, done.into_iter().map(|completion| completion.token_ids).collect())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let Some(folder) = arguments.first() else {
        return println!("arguments: FOLDER [tokens] [rounds] [temperature] [prompt] [threads]");
    };
    let number = |i: usize, otherwise: f64| arguments.get(i).and_then(|v| v.parse().ok()).unwrap_or(otherwise);
    let (tokens, rounds, temperature) = (number(1, 200.0) as usize, number(2, 9.0) as u64, number(3, 0.6) as f32);
    let prompt_tokens = number(4, 100.0) as usize;
    let params = SamplingParams::default().with_temperature(temperature).with_max_tokens(tokens);
    let for_prompts = SamplingParams::default().with_max_tokens(prompt_tokens);
    let device = Device::open("cpu", number(5, 2.0) as usize).expect("the system gives threads");
    let model = minke_weights::load(&device, Path::new(folder)).expect("a published folder");
    let begin = vec![model.config().bos_token_id.unwrap_or(0)];
    for sequences in [1, 4, 16] {
        let pages = sequences * (prompt_tokens + tokens + 64).div_ceil(32);
        let mut engines = WAYS.map(|way| {
            let sizes = EngineConfig::default().with_pages(pages).with_prefix_cache(false).with_speculation(way);
            Engine::new(&device, model.config(), sizes).expect("the cache fits")
        });
        let mut speeds = [const { Vec::new() }; 3];
        let mut warm = [Stats::default(); 3];
        for seed in 0..=rounds {
            let begins = vec![begin.clone(); sequences];
            let (_, prompts) = continue_all(&mut engines[0], &model, &begins, &for_prompts, 100 + seed);
            let mut all = Vec::new();
            for (i, engine) in engines.iter_mut().enumerate() {
                let (seconds, continued) = continue_all(engine, &model, &prompts, &params, seed);
                all.push(continued);
                // The first round warms up.
                if seed == 0 {
                    warm[i] = engine.stats();
                } else {
                    speeds[i].push((sequences * tokens) as f64 / seconds);
                }
            }
            assert!(all.iter().all(|continued| *continued == all[0]), "drafts changed a token");
        }
        let [off, always, where_it_pays] = speeds.map(median);
        let since = |i: usize| {
            let stats = engines[i].stats();
            (stats.drafted - warm[i].drafted, stats.accepted - warm[i].accepted)
        };
        let ((drafted, accepted), (drafted_where_it_pays, _)) = (since(1), since(2));
        println!(
            "{}",
            serde_json::json!({"sequences": sequences, "off": off, "always": always, "where_it_pays": where_it_pays,
                "always/off": always / off, "where_it_pays/off": where_it_pays / off,
                "acceptance": accepted as f64 / drafted as f64,
                "drafted_where_it_pays": drafted_where_it_pays as f64 / drafted as f64})
        );
    }
}
