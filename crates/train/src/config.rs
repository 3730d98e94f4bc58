//! The configuration of a run: a seed, a model, tasks, and a list of stages that start from each other, as one TOML.

use std::borrow::Cow;
use std::path::Path;

use minke_spec::{ModelConfig, Precision};
use serde::{Deserialize, Serialize};

use crate::data::{NamedTask, unknown_task};
use crate::files::{STDIN, sha256};
use crate::grpo::GrpoConfig;
use crate::reject::RejectConfig;
use crate::stage::StageSettings;
use crate::supervised::{DistillConfig, PretrainConfig, SftConfig};
use crate::teacher::TeacherConfig;
use crate::{Error, Result};

/// A run, resolved: every default is filled in, everything is checked.
///
/// # Examples
/// ```
/// let run = minke_train::RunConfig::from_toml(r#"
///     name = "smallest"
///     [model]
///     model_type = "llama"
///     hidden_size = 32
///     num_hidden_layers = 1
///     num_attention_heads = 2
///     intermediate_size = 64
///     max_position_embeddings = 128
///     [[task]]
///     name = "sums"
///     family = "arithmetic"
///     [[stage]]
///     kind = "pretrain"
///     name = "base"
///     steps = 100
/// "#)?;
/// assert_eq!((run.stages[0].name(), run.model.map(|model| model.vocab_size)), ("base", Some(512)));
/// # Ok::<(), minke_train::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunConfig {
    /// Name of the run.
    pub name: String,
    /// Seed of every draw.
    pub seed: u64,
    /// With which numbers models multiply by their weights, in training and in rollouts: `"f32"` or `"bf16"`. Weights of codes that
    /// stay as they are multiply as their format says; the gradients through them are in this precision.
    pub precision: Precision,
    /// The model that is made from random weights, under published names; `vocab_size`, `bos_token_id` and `eos_token_id` are those of
    /// the tokenizer unless they are given. None in a run that starts from published models, which have their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelConfig>,
    /// The tokenizer that is learned; none in a run that starts from published models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<TokenizerConfig>,
    /// The verifiable tasks: the `[[task]]` tables.
    #[serde(rename = "task")]
    pub tasks: Vec<NamedTask>,
    /// What is done, in order: the `[[stage]]` tables.
    #[serde(rename = "stage")]
    pub stages: Vec<StageConfig>,
}

/// The tokenizer of a run, learned from demonstrations of its tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenizerConfig {
    /// Ids at most.
    pub vocab_size: usize,
    /// Texts to learn from.
    pub documents: usize,
}

impl Default for TokenizerConfig {
    fn default() -> Self {
        Self { vocab_size: 512, documents: 20_000 }
    }
}

/// The 256 bytes and the seven control tokens.
const SMALLEST_VOCABULARY: usize = 263;

/// One stage of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum StageConfig {
    /// From random weights.
    Pretrain(PretrainConfig),
    /// Fine-tuning on examples.
    Sft(SftConfig),
    /// Reinforcement learning.
    Grpo(GrpoConfig),
    /// Rejection sampling: makes data, not a model.
    Reject(RejectConfig),
    /// A student learns from kept samples.
    Distill(DistillConfig),
}

impl StageConfig {
    /// The settings of the stage: the one place that tells the kinds apart.
    pub fn settings(&self) -> &dyn StageSettings {
        match self {
            Self::Pretrain(settings) => settings,
            Self::Sft(settings) => settings,
            Self::Grpo(settings) => settings,
            Self::Reject(settings) => settings,
            Self::Distill(settings) => settings,
        }
    }

    /// The name of the stage.
    pub fn name(&self) -> &str {
        self.settings().name()
    }

    /// What kind of stage it is, as the TOML says it.
    pub fn kind(&self) -> &'static str {
        self.settings().kind()
    }

    /// Whether the stage makes a model, not data.
    pub fn trains(&self) -> bool {
        self.settings().trains()
    }

    /// The settings of a stage whose questions an endpoint answers: such a stage has no weights.
    pub(crate) fn asked(&self) -> Option<(&RejectConfig, &TeacherConfig)> {
        match self {
            Self::Reject(settings) => Some((settings, settings.teacher.as_ref()?)),
            _ => None,
        }
    }

    /// The stage without what its result does not depend on: where an endpoint is, and how patiently it is asked.
    fn identity(&self) -> Cow<'_, Self> {
        match (self.asked(), self) {
            (Some((settings, teacher)), _) => {
                Cow::Owned(Self::Reject(RejectConfig { teacher: Some(teacher.identity()), ..settings.clone() }))
            }
            (None, Self::Grpo(settings)) => Cow::Owned(Self::Grpo(settings.identity())),
            (None, _) => Cow::Borrowed(self),
        }
    }

    /// The variable that has the key of the endpoints that a stage asks.
    fn key_variable(&self) -> Option<&str> {
        match self {
            Self::Reject(settings) => settings.teacher.as_ref()?.key_env.as_deref(),
            Self::Grpo(settings) => settings.workers.as_ref()?.key_env.as_deref(),
            _ => None,
        }
    }

    /// Checks everything that a stage can be wrong about on its own.
    fn validate(&self, tasks: &[NamedTask]) -> Result<()> {
        let settings = self.settings();
        let unknown = settings.tasks().into_iter().find(|name| tasks.iter().all(|task| task.name != *name));
        if let Some(name) = unknown {
            return Err(unknown_task(self.name(), name, tasks));
        }
        let named = |fault| Err(Error::Config(format!("stage {}: {fault}", self.name())));
        settings.fault().map_or(Ok(()), named)
    }
}

/// The tables of a TOML before their defaults are known.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: String,
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    precision: Precision,
    model: Option<toml::Table>,
    tokenizer: Option<TokenizerConfig>,
    #[serde(default)]
    task: Vec<toml::Table>,
    #[serde(default)]
    stage: Vec<toml::Table>,
}

impl RunConfig {
    /// The run in a TOML file.
    ///
    /// # Errors
    /// If the file cannot be read, or as [`RunConfig::from_toml`], naming the file.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::read(path))?;
        Self::from_toml(&text).map_err(|error| Error::BadFile { path: path.into(), reason: error.to_string() })
    }

    /// The run in the text of a TOML.
    ///
    /// # Errors
    /// One line that names the table and the field.
    pub fn from_toml(text: &str) -> Result<Self> {
        let raw: Raw = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            let place = line.map_or(String::new(), |line| format!("line {line}: "));
            Error::Config(format!("{place}{}", one_line(error.message())))
        })?;
        // Without a model there is no tokenizer to learn, unless one is asked for, which is refused below.
        let tokenizer = raw.tokenizer.or(raw.model.is_some().then(TokenizerConfig::default));
        let vocabulary = tokenizer.unwrap_or_default().vocab_size;
        let model = raw.model.map(|table| read::<ModelConfig>("[model]", complete(table, vocabulary))).transpose()?;
        let tasks = raw.task.into_iter().enumerate().map(|(i, table)| read_task(i, table)).collect::<Result<_>>()?;
        let stages = raw.stage.into_iter().enumerate();
        let stages = stages.map(|(i, table)| read_stage(i, table, vocabulary)).collect::<Result<_>>()?;
        let (name, seed, precision) = (raw.name, raw.seed, raw.precision);
        let run = Self { name, seed, precision, model, tokenizer, tasks, stages };
        run.validate()?;
        Ok(run)
    }

    /// Checks how the parts fit together.
    fn validate(&self) -> Result<()> {
        let refuse = |reason: String| Err(Error::Config(reason));
        let needs_tasks = self.stages.iter().any(|stage| stage.settings().needs_tasks());
        if self.stages.is_empty() || (self.tasks.is_empty() && needs_tasks) {
            return refuse("a run needs at least one [[task]] and one [[stage]]".into());
        }
        for (i, task) in self.tasks.iter().enumerate() {
            task.task.validate()?;
            if self.tasks[..i].iter().any(|other| other.name == task.name) {
                return refuse(format!("there are two tasks {:?}; give one of them another name", task.name));
            }
        }
        for (i, stage) in self.stages.iter().enumerate() {
            let name = stage.name();
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
                return refuse(format!("stage {name:?}: a name has letters, digits, '-', '_' and '.' within"));
            }
            let earlier = &self.stages[..i];
            if earlier.iter().any(|other| other.name() == name) {
                return refuse(format!("there are two stages {name:?}; give one of them another name"));
            }
            stage.validate(&self.tasks)?;
            let find = |wanted: &str, trains: bool| {
                let other = earlier.iter().find(|other| other.name() == wanted);
                let Some(other) = other else {
                    // What is no stage is a published model, which whoever starts the run looks for.
                    return match trains && self.model.is_none() {
                        true => Ok(()),
                        false => refuse(format!(
                            "stage {name}: no earlier stage is called {wanted:?}{}",
                            self.advice(trains)
                        )),
                    };
                };
                let makes = if other.trains() { "a model" } else { "samples" };
                let needs = if trains { "a model" } else { "samples" };
                let reason = format!("stage {name}: {wanted:?} makes {makes}, but {needs} are wanted there");
                if other.trains() == trains { Ok(()) } else { refuse(reason.replace("model are", "model is")) }
            };
            stage.settings().from().map_or(Ok(()), |from| find(from, true))?;
            stage.settings().data().into_iter().try_for_each(|data| find(data, false))?;
            let has_no_parent = stage.settings().from().is_none() && stage.asked().is_none();
            let starts_anew = has_no_parent || stage.settings().own_model().is_some();
            if self.model.is_none() && starts_anew {
                return refuse(format!(
                    "stage {name}: starts from random weights, and there is no [model]; give one, or from = a published model"
                ));
            }
            if stage.settings().lora().is_some() && starts_anew {
                return refuse(format!("stage {name}: lora needs a model to stand beside; say from = ..."));
            }
        }
        let Some(tokenizer) = self.tokenizer else { return Ok(()) };
        if self.model.is_none() {
            return refuse(
                "[tokenizer]: the run starts from a published model, which has its own; remove the table".into(),
            );
        }
        let vocabulary = tokenizer.vocab_size;
        if vocabulary < SMALLEST_VOCABULARY {
            return refuse(format!("tokenizer: vocab_size is {vocabulary}; choose at least {SMALLEST_VOCABULARY}"));
        }
        let models = self.stages.iter().filter_map(|stage| stage.settings().own_model()).chain(&self.model);
        match models.into_iter().find(|model| model.vocab_size < vocabulary) {
            Some(model) => refuse(format!("vocab_size {} has no room for {vocabulary} tokens", model.vocab_size)),
            None => Ok(()),
        }
    }

    /// What to do about a model or samples that no stage makes.
    fn advice(&self, trains: bool) -> &'static str {
        match trains {
            true => "; to start from a published model, remove [model] and [tokenizer]: it has its own",
            false => "",
        }
    }

    /// The published models that the run starts from, as its TOML calls them.
    pub fn published(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.stages.iter().filter_map(|stage| self.published_of(stage)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Whether a stage learns from standard input.
    pub fn reads_stdin(&self) -> bool {
        self.stages.iter().any(|stage| stage.settings().files().contains(&Path::new(STDIN)))
    }

    /// The variables that have the keys of endpoints.
    pub fn key_variables(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.stages.iter().filter_map(StageConfig::key_variable).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The stage that another starts from, if it starts from one.
    pub(crate) fn parent(&self, stage: &StageConfig) -> Option<&StageConfig> {
        let from = stage.settings().from()?;
        self.stages.iter().find(|other| other.name() == from)
    }

    /// The published model that a stage's comes from, through the stages in between.
    pub(crate) fn published_of<'a>(&'a self, stage: &'a StageConfig) -> Option<&'a str> {
        match self.parent(stage) {
            Some(parent) => self.published_of(parent),
            None => stage.settings().from(),
        }
    }

    /// The configuration of the model that a stage starts from or makes, if the run states it and no published model does.
    pub(crate) fn model_of<'a>(&'a self, stage: &'a StageConfig) -> Option<&'a ModelConfig> {
        match (stage.settings().own_model(), self.parent(stage)) {
            (Some(model), _) => Some(model),
            (None, Some(parent)) => self.model_of(parent),
            (None, None) => self.model.as_ref(),
        }
    }

    /// A stage and those that it starts or learns from, the last first.
    pub(crate) fn lineage<'a>(&'a self, stage: &'a StageConfig) -> Vec<&'a StageConfig> {
        let mut wanted = vec![stage.name()];
        let mut lineage = Vec::new();
        for stage in self.stages.iter().rev() {
            if wanted.contains(&stage.name()) {
                lineage.push(stage);
                wanted.extend(stage.settings().from());
                wanted.extend(stage.settings().data());
            }
        }
        lineage
    }

    /// A hash of everything that the result of a stage depends on: seed, precision, tokenizer, tasks, the stage, and the
    /// stages that it starts or learns from. Editing another stage leaves it as it is.
    pub(crate) fn hash_of(&self, stage: &StageConfig) -> String {
        if stage.asked().is_some() {
            // No model and no tokenizer has a part in what an endpoint answers.
            return hash(&(self.seed, &self.tasks, stage.identity()));
        }
        let lineage: Vec<(Cow<'_, StageConfig>, Option<&ModelConfig>)> =
            self.lineage(stage).into_iter().map(|stage| (stage.identity(), self.model_of(stage))).collect();
        match self.precision {
            // Without the precision, as runs had it that were begun before there was a choice.
            Precision::F32 => hash(&(self.tokenizer_hash(), lineage)),
            precision => hash(&(self.tokenizer_hash(), lineage, precision)),
        }
    }

    /// A hash of everything that the answers of an endpoint depend on. How many are wanted is no part of it: more of them are asked for
    /// behind those that are there.
    pub(crate) fn hash_of_answers(&self, settings: &RejectConfig, teacher: &TeacherConfig) -> String {
        let teacher = Some(teacher.identity());
        let settings = RejectConfig { teacher, questions: 0, samples: 0, keep: 0, thought: true, ..settings.clone() };
        hash(&(self.seed, &self.tasks, settings))
    }

    /// A hash of everything that the tokenizer depends on.
    pub(crate) fn tokenizer_hash(&self) -> String {
        hash(&(self.seed, &self.tokenizer, &self.tasks))
    }
}

fn hash(value: &impl Serialize) -> String {
    sha256(&serde_json::to_vec(value).expect("invariant: a configuration is plain JSON"))
}

/// Fills in what the tokenizer decides about a model.
fn complete(mut model: toml::Table, vocab_size: usize) -> toml::Table {
    for (key, value) in [("vocab_size", vocab_size as i64), ("bos_token_id", 0), ("eos_token_id", 1)] {
        model.entry(key).or_insert(toml::Value::Integer(value));
    }
    model
}

fn read_task(number: usize, mut table: toml::Table) -> Result<NamedTask> {
    let place = format!("[[task]] {}", number + 1);
    let name = match table.remove("name") {
        Some(toml::Value::String(name)) if !name.is_empty() => name,
        _ => return Err(Error::Config(format!("{place}: needs a name, such as name = \"countdown\""))),
    };
    Ok(NamedTask { task: read(&format!("{place} {name:?}"), table)?, name })
}

fn read_stage(number: usize, mut table: toml::Table, vocab_size: usize) -> Result<StageConfig> {
    let name = table.get("name").and_then(toml::Value::as_str).unwrap_or("without a name").to_owned();
    if let Some(toml::Value::Table(model)) = table.remove("model") {
        table.insert("model".into(), toml::Value::Table(complete(model, vocab_size)));
    }
    read(&format!("[[stage]] {} {name:?}", number + 1), table)
}

fn read<T: serde::de::DeserializeOwned>(place: &str, table: toml::Table) -> Result<T> {
    table.try_into().map_err(|error: toml::de::Error| Error::Config(format!("{place}: {}", one_line(error.message()))))
}

fn one_line(message: &str) -> String {
    message.trim().lines().map(str::trim).collect::<Vec<_>>().join(" ")
}
