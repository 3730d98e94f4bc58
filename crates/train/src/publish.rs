//! What a stage publishes: a folder as on the Hub, with weights, tokenizer, template, settings, and a model card.

use std::path::Path;

use minke_model::Transformer;
use minke_spec::ModelConfig;
use minke_sys::atomic;

use crate::config::{RunConfig, StageConfig};
use crate::export::write_weights;
use crate::stage::Context;
use crate::{Error, Result, scores};

/// What a card says about data and use of a model from random weights.
const OWN_DATA: &str =
    "Generated, with verifiers; no text from the web. Training and test problems are disjoint by construction.";
const OWN_USE: &str = "The chat template is R1's; the model opens its thought with `<think>` by itself. It knows the tasks above and \
                       nothing else.\n\n## Licence\n\nMIT.";
/// The same of one that comes from a published model.
const PUBLISHED_DATA: &str = "The files that the settings name, and problems that were generated with verifiers:";
const PUBLISHED_USE: &str =
    "The chat template is that of the published model.\n\n## Licence\n\nThat of the published model.";

/// Writes the model of a finished stage into `model/` in its folder, or its adapter into `adapter/`: whole or not at all.
pub(crate) fn publish(
    config: &RunConfig,
    stage: &StageConfig,
    context: Context<'_>,
    model: &Transformer,
    folder: &Path,
) -> Result<()> {
    let card = card(config, stage, model.config(), folder);
    let name = if context.outside.adapter.is_some() { "adapter" } else { "model" };
    atomic::replace_folder(&folder.join(name), |inside| {
        write_weights(context, model, inside)?;
        Ok(atomic::write_new(&inside.join("README.md"), card.as_bytes())?)
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
    let Some(model) = config.model_of(found) else {
        // What a published model is stands in its own files; the scores of the stage are beside its adapter or model.
        return Ok(());
    };
    let card = card(config, found, model, &folder);
    Ok(atomic::replace(&folder.join("model").join("README.md"), card.as_bytes())?)
}

/// The model card: what the model is, from which recipe and data, how well it does, under which licence.
fn card(config: &RunConfig, stage: &StageConfig, model: &ModelConfig, folder: &Path) -> String {
    let (run, name, kind, seed) = (&config.name, stage.name(), stage.kind(), config.seed);
    let precision = config.precision.name();
    let published = config.published_of(stage);
    let made_from = published.map_or_else(|| "random weights".to_owned(), |name| format!("`{name}`"));
    let elements: usize = minke_spec::parameters(model).iter().map(minke_spec::ParamSpec::elements).sum();
    let family = model.model_type.name();
    let position = config.stages.iter().position(|known| known.name() == name).unwrap_or_default();
    let row = |step: &StageConfig| {
        let from = step.settings().from().unwrap_or("random weights");
        format!("| {} | {} | {from} |\n", step.name(), step.kind())
    };
    let recipe: String = config.stages[..=position].iter().map(row).collect();
    let settings = toml::to_string(stage).expect("invariant: a stage came from TOML");
    let tasks: String = config.tasks.iter().map(|t| format!("- {} ({})\n", t.name, t.task.name())).collect();
    let scores = table(folder);
    // The licence of a published model is its makers'; that of its offspring is not for this card to choose.
    let (front, data, use_of) = match published {
        None => ("license: mit\n", OWN_DATA, OWN_USE),
        Some(_) => ("", PUBLISHED_DATA, PUBLISHED_USE),
    };
    format!(
        "---\n{front}library_name: transformers\npipeline_tag: text-generation\ntags: [minke, reasoning]\n---\n\n\
         # {run} / {name}\n\nMade by Minke from {made_from}: stage `{name}` ({kind}) of the run `{run}`, seed {seed}, \
         precision {precision}.\n\n\
         ## Model\n\n`{family}`, {elements} parameters; the full configuration is in `config.json`.\n\n\
         ## Recipe\n\n| Stage | Kind | From |\n|---|---|---|\n{recipe}\n\
         Settings of this stage:\n\n```toml\n{settings}```\n\n\
         ## Data\n\n{data}\n\n{tasks}\n\
         ## Scores\n\n{scores}\n\
         ## Use\n\n{use_of}\n"
    )
}

/// The table of scores in `eval.json`, or why there is none.
fn table(folder: &Path) -> String {
    let reports = match scores::read(folder) {
        Ok(reports) => reports,
        // The run is done either way; what cannot be read is named, not called missing.
        Err(error) => return format!("The record of the evaluation cannot be read: {}.\n", scores::reason(&error)),
    };
    if reports.is_empty() {
        return "Not evaluated yet.\n".into();
    }
    let mut table = String::from(
        "Held-out problems, 95 % interval over problems or their clusters. Blind search makes as many attempts at random, with a \
         perfect check; one answer is the one that is right at most problems.\n\n\
         | Task | Side | pass@1 | Blind search | One answer |\n|---|---|---|---|---|\n",
    );
    for report in &reports {
        let score = &report.pass_at_1;
        let percent = |value: f64| 100.0 * value;
        let share = |share: Option<f64>| share.map_or("–".into(), |share| format!("{:.1} %", percent(share)));
        let line = format!(
            "| {} | {} | {:.1} % ({:.1} to {:.1}) | {} | {} |\n",
            report.task,
            report.side.name(),
            percent(score.mean),
            percent(score.low),
            percent(score.high),
            share(report.search.map(|search| search.blind)),
            share(report.constant.as_ref().map(|(_, share)| *share)),
        );
        table += &line;
    }
    table
}
