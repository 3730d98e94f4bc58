//! What does a stage hand to the world? A folder as on the Hub: weights, tokenizer, template, settings, and a card.

use std::fmt::Write;
use std::path::Path;

use minke_eval::TaskReport;
use minke_model::{Transformer, weights};
use minke_spec::{Format, ModelConfig};
use minke_text::{ChatTemplate, Tokenizer};

use crate::config::{RunConfig, StageConfig};
use crate::{Error, Result, files};

/// Largest file of weights, in bytes: what transformers writes by default is larger than many file systems like.
const SHARD_BYTES: usize = 4 << 30;

/// Writes the model of a finished stage into `model/` in its folder: whole or not at all. Weights are F32, so that the
/// next stage starts from exactly what was trained; the prompt form is the open one, in which the model was trained.
pub(crate) fn publish(
    config: &RunConfig,
    stage: &StageConfig,
    model: &Transformer,
    tokenizer: &Tokenizer,
    folder: &Path,
) -> Result<()> {
    files::replace_folder(&folder.join("model"), |inside| {
        weights::save(model, inside, Format::F32, SHARD_BYTES)?;
        tokenizer.save(inside)?;
        ChatTemplate::r1_unforced().save(inside, model.config().max_position_embeddings)?;
        files::write(&inside.join("generation_config.json"), &generation_config(model.config()))?;
        files::write(&inside.join("README.md"), card(config, stage, folder).as_bytes())
    })
}

/// Writes the card of a published stage again, with the scores that `eval.json` in the stage's folder has by now.
///
/// # Errors
/// If the run has no such stage, or the card cannot be written.
pub fn refresh_card(config: &RunConfig, out: &Path, stage: &str) -> Result<()> {
    let found = config.stages.iter().find(|known| known.name() == stage);
    let found = found.ok_or_else(|| Error::Config(format!("the run has no stage {stage:?}")))?;
    let folder = out.join("stages").join(stage);
    files::replace(&folder.join("model").join("README.md"), card(config, found, &folder).as_bytes())
}

/// Returns how the model is meant to be sampled: R1's recommendation.
///
/// # Paper
/// - facts sheet 1.11 (temperature 0.6, top-p 0.95)
fn generation_config(model: &ModelConfig) -> Vec<u8> {
    files::json(&serde_json::json!({
        "_from_model_config": true,
        "bos_token_id": model.bos_token_id,
        "eos_token_id": model.eos_token_ids,
        "do_sample": true,
        "temperature": 0.6,
        "top_p": 0.95,
    }))
}

/// Returns the model card: what the model is, from which recipe and data, how well it does, under which licence.
fn card(config: &RunConfig, stage: &StageConfig, folder: &Path) -> String {
    let mut text = format!(
        "---\nlicense: mit\nlibrary_name: transformers\npipeline_tag: text-generation\ntags: [minke, reasoning]\n---\n\n\
         # {} / {}\n\nMade by [Minke](https://crates.io/crates/minke) from random weights: stage `{}` ({}) of the run \
         `{}` with seed {}.\n",
        config.name,
        stage.name(),
        stage.name(),
        stage.kind(),
        config.name,
        config.seed
    );
    let model = config.model_of(stage);
    let cost = minke_spec::parameters(model).iter().map(minke_spec::ParamSpec::elements).sum::<usize>();
    let put = |text: &mut String, line: std::fmt::Arguments<'_>| {
        text.write_fmt(line).expect("invariant: writing to a string does not fail");
    };
    put(&mut text, format_args!("\n## Model\n\n`{}`, {cost} parameters. ", model.model_type.name()));
    put(&mut text, format_args!("The full configuration is in `config.json`.\n\n## Recipe\n\n| Stage | Kind | From |\n|---|---|---|\n"));
    for step in &config.stages {
        let from = step.from().unwrap_or("random weights");
        put(&mut text, format_args!("| {} | {} | {from} |\n", step.name(), step.kind()));
        if step.name() == stage.name() {
            break;
        }
    }
    let settings = toml::to_string(stage).expect("invariant: a stage came from TOML");
    put(&mut text, format_args!("\nSettings of this stage:\n\n```toml\n{settings}```\n\n## Data\n\n"));
    text += "Generated, with verifiers; no text from the web. Training and test problems are disjoint by construction.\n\n";
    for task in &config.tasks {
        put(&mut text, format_args!("- {} ({})\n", task.name, task.task.name()));
    }
    text += "\n## Scores\n\n";
    text += &scores(folder);
    text += "\n## Use\n\nThe chat template is R1's; the model opens its thought with `<think>` by itself. It knows the \
             tasks above and nothing else.\n\n## Licence\n\nMIT.\n";
    text
}

/// Returns the table of scores in `eval.json`.
fn scores(folder: &Path) -> String {
    let reports: Vec<TaskReport> = files::read_json(&folder.join("eval.json")).unwrap_or_default();
    if reports.is_empty() {
        return "Not evaluated yet.\n".into();
    }
    let mut table = String::from("Held-out problems, 95 % interval over problems.\n\n| Task | pass@1 |\n|---|---|\n");
    for report in &reports {
        let score = &report.pass_at_1;
        let percent = |value: f64| 100.0 * value;
        let line = format!(
            "| {} | {:.1} % ({:.1} to {:.1}) |\n",
            report.task,
            percent(score.mean),
            percent(score.low),
            percent(score.high)
        );
        table += &line;
    }
    table
}
