//! A model whose every probability is known: its next token depends on the last one alone, because its layers add nothing to
//! the embedding.
#![allow(clippy::unwrap_used)]
#![allow(dead_code)]

use minke_eval::tasks::Arithmetic;
use minke_eval::{Problem, Split, Task, Verdict};
use minke_model::Transformer;
use minke_spec::{ModelConfig, Placement};
use minke_tensor::{Device, Tensor};
use minke_text::{ASSISTANT, EOS, THINK_CLOSE, THINK_OPEN, Tokenizer, TrainOptions};

/// What follows a token, with which probability. Three quarters think for one token, `a`; the answer is 7 or 8.
const NEXT: [(&str, &[(&str, f32)]); 7] = [
    (ASSISTANT, &[(THINK_OPEN, 0.75), ("7", 0.25)]),
    (THINK_OPEN, &[("a", 1.0)]),
    ("\n", &[("a", 1.0)]),
    ("a", &[(THINK_CLOSE, 1.0)]),
    (THINK_CLOSE, &[("7", 0.6), ("8", 0.4)]),
    ("7", &[(EOS, 1.0)]),
    ("8", &[(EOS, 1.0)]),
];
pub const SEVEN: f64 = 0.25 + 0.75 * 0.6;

pub struct World {
    pub device: Device,
    pub tokenizer: Tokenizer,
    pub model: Transformer,
    pub task: Task,
    /// Problems whose answer is 7, is 8, is something else: that many of each.
    pub problems: Vec<Problem>,
}

pub const SEVENS: usize = 30;
pub const EIGHTS: usize = 20;
pub const OTHERS: usize = 10;

pub fn world() -> World {
    let device = Device::open("cpu", 2).unwrap();
    let options = TrainOptions { vocab_size: 263, added_tokens: Vec::new() };
    let tokenizer = Tokenizer::train(["compute"].iter(), &options).unwrap();
    let id = |token: &str| match *tokenizer.encode(token) {
        [id] => id as usize,
        ref ids => panic!("{token:?} is {ids:?}, not one token"),
    };
    let width = 264;
    let config = format!(
        r#"{{"model_type": "llama", "vocab_size": {width}, "hidden_size": {width}, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 8, "rms_norm_eps": 1e-6,
            "max_position_embeddings": 128, "rope_theta": 10000.0, "tie_word_embeddings": false, "hidden_act": "silu"}}"#
    );
    let config = ModelConfig::from_json(&config).unwrap().config;
    let model = Transformer::new::<_, minke_model::Error>(&config, &Placement::single(), |spec, shape| {
        let mut values = vec![0.0; shape.iter().product()];
        match spec.name.as_str() {
            "model.embed_tokens.weight" => (0..width).for_each(|i| values[i * width + i] = 1.0),
            "lm_head.weight" => {
                // The norm makes the one of the embedding the square root of the width.
                let scale = 1.0 / (width as f32).sqrt();
                for (token, followers) in NEXT {
                    for (next, p) in followers {
                        values[id(next) * width + id(token)] = (30.0 + p.ln()) * scale;
                    }
                }
            }
            name if name.ends_with("norm.weight") => values.fill(1.0),
            _ => {}
        }
        Ok(Tensor::from_slice(&device, shape, &values))
    })
    .unwrap();

    let task = Task::Arithmetic(Arithmetic { operations: (1, 2), largest_operand: 20, largest_value: 99 });
    let all: Vec<Problem> = task.problem_set(Split::Test, 1, 2000);
    let with = |answers: &[&str], count: usize| {
        let is = |problem: &&Problem, answer: &str| task.grade(problem, answer).unwrap() == Verdict::Right;
        let chosen = |problem: &&Problem| match answers {
            [answer] => is(problem, answer),
            _ => !is(problem, "7") && !is(problem, "8"),
        };
        let found: Vec<Problem> = all.iter().filter(chosen).take(count).cloned().collect();
        assert_eq!(found.len(), count);
        found
    };
    let problems = [with(&["7"], SEVENS), with(&["8"], EIGHTS), with(&[], OTHERS)].concat();
    World { device, tokenizer, model, task, problems }
}
