//! Rollouts are drawn from streams that are keyed by seed, stage, number of the data and question: no two of these share
//! their draws, and the same ones give the same rollouts.
#![allow(clippy::unwrap_used)]

mod small;

use std::path::Path;

use minke_model::Transformer;
use minke_spec::Placement;
use minke_text::{Tokenizer, TrainOptions};
use minke_train::grpo::rollout::{Policy, QuestionSampler};
use minke_train::grpo::types::Question;
use minke_train::grpo::{EngineSizes, PromptForm};
use minke_train::stage::{Context, Outside};

/// What a random model says to the same questions in every stage and step.
struct Drawn {
    policy: Transformer,
    tokenizer: Tokenizer,
    questions: Vec<Question>,
}

fn context<'a>(
    device: &'a minke_tensor::Device,
    tokenizer: &'a Tokenizer,
    config: &'a minke_train::RunConfig,
    (seed, stage): (u64, &'a str),
) -> Context<'a> {
    Context {
        device,
        seed,
        stage,
        tasks: &config.tasks,
        tokenizer,
        published: None,
        stages: Path::new("stages"),
        outside: Outside::default(),
    }
}

impl Drawn {
    fn new() -> Self {
        let (device, config) = (small::device(), small::config(""));
        let policy = Transformer::random(&device, config.model.as_ref().unwrap(), &Placement::single(), 1).unwrap();
        let texts: Vec<String> = (0..400).map(|i| format!("make {i} from {} {}", i % 9, i % 7)).collect();
        let options = TrainOptions { vocab_size: 300, added_tokens: Vec::new() };
        let tokenizer = Tokenizer::train(texts.iter(), &options).unwrap();
        let sampler = QuestionSampler::new(
            context(&device, &tokenizer, &config, (3, "zero")),
            &Default::default(),
            PromptForm::Open,
        );
        // One question three times over: what differs below is not the question.
        let first = sampler.questions(7, 0..1).unwrap().remove(0);
        let questions = (0..3).map(|number| Question { number, ..first.clone() }).collect();
        Self { policy, tokenizer, questions }
    }

    /// The token ids of two rollouts of each of the three questions.
    fn rollouts(&self, seed: u64, stage: &str, cursor: u64) -> Vec<Vec<u32>> {
        let (device, config) = (small::device(), small::config(""));
        let sampler = QuestionSampler::new(
            context(&device, &self.tokenizer, &config, (seed, stage)),
            &Default::default(),
            PromptForm::Open,
        );
        let mut engines = EngineSizes::default().engines(&device, self.policy.config()).unwrap();
        let params = sampler.sampling(1.0, 16).unwrap();
        let policy = Policy { model: &self.policy, version: 0 };
        let groups = sampler.rollouts(&mut engines, policy, self.questions.clone(), &params, 2, cursor).unwrap();
        groups.into_iter().flat_map(|group| group.rollouts).map(|rollout| rollout.token_ids).collect()
    }
}

#[test]
fn steps_stages_seeds_and_questions_draw_differently() {
    let drawn = Drawn::new();
    let first = drawn.rollouts(3, "zero", 7);
    assert_eq!(first, drawn.rollouts(3, "zero", 7));
    let others = [
        ("another step", drawn.rollouts(3, "zero", 8)),
        ("another stage", drawn.rollouts(3, "r1", 7)),
        ("another seed", drawn.rollouts(4, "zero", 7)),
    ];
    for (what, other) in others {
        assert!(other.iter().all(|rollout| !first.contains(rollout)), "{what} draws the same");
    }
    let distinct: std::collections::HashSet<&Vec<u32>> = first.iter().collect();
    assert_eq!(distinct.len(), 6, "questions and members of a group draw the same: {first:?}");
}
