//! Rewards: the grader's verdict, and as much for the form; a cut-off output is worth what it shows.
#![allow(clippy::unwrap_used)]

mod small;

use minke_engine::Finish;
use minke_eval::tasks::Countdown;
use minke_eval::verify::language::Language;
use minke_eval::{TrainingProblem, Verdict, prompt};
use minke_text::{ChatTemplate, Tokenizer, TrainOptions};
use minke_train::grpo::rollout::QuestionSampler;
use minke_train::grpo::types::{Group, Question, Rollout};
use minke_train::grpo::{LanguageReward, OverlongPenalty, PromptForm, RewardWeights, reward};
use minke_train::stage::{Context, Outside};

/// Longest output.
const CAP: usize = 64;

#[test]
fn rewards_are_accuracy_plus_form() {
    let cases: [(PromptForm, &str, bool, Verdict, f64); 9] = [
        // Prompt, completion, whether it ended by itself, verdict, reward.
        (PromptForm::Open, "<think>\n3+8=11\n</think>\n\n3*8*4", true, Verdict::Right, 2.0),
        (PromptForm::Open, "<think>\n3+8=11\n</think>\n\n3+8+4", true, Verdict::Wrong, 1.0),
        (PromptForm::Open, "3*8*4", true, Verdict::Right, 1.0),
        (PromptForm::Open, "12", true, Verdict::Wrong, 0.0),
        (PromptForm::Open, "<think>\n3*8*4", false, Verdict::Wrong, 0.0),
        (PromptForm::Open, "<think>\nx\n</think>\n\n3*8*4 and", false, Verdict::Wrong, 1.0),
        (PromptForm::ForcedThought, "3+8=11\n</think>\n\n3*8*4", true, Verdict::Right, 2.0),
        (PromptForm::ForcedThought, "3*8*4", true, Verdict::Wrong, 0.0),
        (PromptForm::ForcedThought, "<think>\nx\n</think>\n\n3*8*4", true, Verdict::Right, 1.0),
    ];
    let (device, config) = (small::device(), small::config(""));
    let texts = ["make 96 from 3 8 4"; 4];
    let tokenizer =
        Tokenizer::train(texts.iter(), &TrainOptions { vocab_size: 280, added_tokens: Vec::new() }).unwrap();
    let stages = std::path::Path::new("stages");
    let (stage, tasks) = ("zero", &config.tasks[..]);
    let context = Context {
        device: &device,
        seed: 0,
        stage,
        tasks,
        tokenizer: &tokenizer,
        published: None,
        stages,
        outside: Outside::default(),
    };
    for (form, completion, ended, verdict, expected) in cases {
        let sampler = QuestionSampler::new(context, &Default::default(), form);
        let problem = TrainingProblem::new(&tasks[0].task, Countdown::parse("make 96 from 3 8 4").unwrap()).unwrap();
        let forced = form == PromptForm::ForcedThought;
        let prompt = prompt(&ChatTemplate::r1_unforced(), &tokenizer, &problem, forced).unwrap().text;
        let token_ids = tokenizer.encode(completion);
        let finish = if ended { Finish::Stop(1) } else { Finish::Length };
        let rollout = Rollout { log_probs: Vec::new(), entropies: Vec::new(), policy_version: 0, finish, token_ids };
        let question = Question { number: 0, task: 0, problem, token_ids: tokenizer.encode(&prompt), prompt };
        let group = Group { question, rollouts: vec![rollout] };
        let scored =
            &reward::score(vec![group.clone()], &sampler, RewardWeights::default(), CAP).unwrap()[0].outputs[0];
        assert_eq!(scored.verdict, verdict, "{completion:?}");
        assert!((scored.reward - expected).abs() < 1e-12, "{completion:?}: {} is not {expected}", scored.reward);
        // Each part counts as much as its own weight says.
        let weights = RewardWeights { accuracy: 3.0, format: 0.5, ..RewardWeights::default() };
        let accuracy = f64::from(u8::from(verdict == Verdict::Right));
        let weighed = reward::score(vec![group.clone()], &sampler, weights, CAP).unwrap()[0].outputs[0].reward;
        assert_eq!(weighed, 3.0 * accuracy + 0.5 * (expected - accuracy), "{completion:?}");
        // A cap of half the length takes all of the penalty; no thought has a Chinese word, and two have a word at all.
        let language = LanguageReward { weight: 0.5, language: Language::Chinese };
        let overlong = OverlongPenalty { weight: 0.25, tokens: 1 };
        let more = RewardWeights { language_consistency: Some(language), overlong: Some(overlong), ..weights };
        let length = group.rollouts[0].token_ids.len();
        let scored = &reward::score(vec![group], &sampler, more, length / 2).unwrap()[0].outputs[0];
        assert_eq!(scored.overlong, Some(-1.0), "{completion:?}");
        let has_words = completion.contains("x\n");
        assert_eq!(scored.language, Some(if has_words { 0.0 } else { 1.0 }), "{completion:?}");
        assert_eq!(scored.reward, weighed + 0.5 * scored.language.unwrap() - 0.25, "{completion:?}");
    }
}
