//! Sampling defaults of a model's makers (`generation_config.json`, or `general.sampling.*` in GGUF), and what a request
//! says instead.

use std::collections::BTreeMap;

use minke_engine::SamplingParams;
use minke_weights::Archive;
use minke_weights::gguf::{Metadata, Value};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::Result;
use crate::error::bad_file;

/// What a request says about sampling; the rest is the model's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplingOptions {
    /// Divides the logits.
    pub temperature: Option<f32>,
    /// Share of the probability to sample from.
    pub top_p: Option<f32>,
    /// Number of most likely tokens to sample from.
    pub top_k: Option<usize>,
    /// Least probability relative to the most likely token.
    pub min_p: Option<f32>,
    /// Seed of the answer.
    pub seed: u64,
    /// Most tokens of an answer, thought included.
    pub max_tokens: Option<usize>,
    /// Tokens after which a thought is closed.
    pub think_budget: Option<usize>,
    /// Divides positive logits of tokens that prompt or answer have, and multiplies negative ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f32>,
    /// Subtracted from the logits of tokens that were generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f32>,
    /// Subtracted from the logit of a token for every time that it was generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f32>,
    /// Added to logits, by token; negative infinity forbids a token.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub logit_bias: BTreeMap<u32, f32>,
    /// Whether the tokens that end an answer are tokens like others: it goes on to its most tokens, for measurements.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignore_eos: bool,
}

impl SamplingOptions {
    /// Checks every value that is given, before a model is loaded.
    ///
    /// # Errors
    /// The first value that is out of its range.
    pub fn validate(&self) -> Result<()> {
        let given = SamplingParams::default()
            .with_temperature(self.temperature.unwrap_or(1.0))
            .with_top_p(self.top_p.unwrap_or(1.0))
            .with_min_p(self.min_p.unwrap_or(0.0))
            .with_max_tokens(self.max_tokens.unwrap_or(1));
        Ok(self.edit_logits(given).validate()?)
    }

    fn edit_logits(&self, params: SamplingParams) -> SamplingParams {
        params
            .with_repetition_penalty(self.repetition_penalty.unwrap_or(1.0))
            .with_presence_penalty(self.presence_penalty.unwrap_or(0.0))
            .with_frequency_penalty(self.frequency_penalty.unwrap_or(0.0))
            .with_logit_bias(self.logit_bias.iter().map(|(id, bias)| (*id, *bias)))
    }
}

/// The part of `generation_config.json` that is obeyed. R1's recommendation fills what the file does not say.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct GenerationConfig {
    /// False for greedy.
    #[serde(default = "yes")]
    do_sample: bool,
    #[serde(default = "temperature")]
    temperature: f32,
    #[serde(default = "top_p")]
    top_p: f32,
    #[serde(default)]
    top_k: usize,
    #[serde(default)]
    min_p: f32,
    #[serde(default)]
    max_new_tokens: Option<usize>,
}

fn yes() -> bool {
    true
}

fn temperature() -> f32 {
    0.6
}

fn top_p() -> f32 {
    0.95
}

/// A value as transformers takes it: null says nothing, a whole float is an integer, and an integer below zero is none.
fn accepted(key: &str, value: Json) -> Option<Json> {
    let value = match value {
        Json::Null => return None,
        Json::Array(values) => Json::Array(values.into_iter().filter_map(|value| accepted(key, value)).collect()),
        Json::Number(number) => match number.as_f64() {
            Some(float) if float.fract() == 0.0 && float.abs() < 2f64.powi(53) => (float as i64).into(),
            _ => Json::Number(number),
        },
        other => other,
    };
    let is_integer = ["max_new_tokens", "top_k"].contains(&key);
    (!is_integer || value.as_i64().is_none_or(|value| value >= 0)).then_some(value)
}

impl GenerationConfig {
    /// Reads the defaults of a model; those of R1 where it has none.
    ///
    /// # Errors
    /// If they are broken or out of range.
    pub(crate) fn read(archive: &Archive) -> Result<Self> {
        let path = archive.path.join("generation_config.json");
        let text = match &archive.metadata {
            Some(metadata) => Self::in_metadata(metadata).to_string(),
            None if path.exists() => {
                std::fs::read_to_string(&path).map_err(|error| bad_file(&path, format!("cannot be read: {error}")))?
            }
            None => "{}".into(),
        };
        let broken = |reason: String| bad_file(&path, format!("{reason}; correct the file or remove it"));
        let read = Self::parse(&text).map_err(|error| broken(error.to_string()))?;
        let said = SamplingOptions { max_tokens: Some(1), ..SamplingOptions::default() };
        read.params(&said, Vec::new(), 1).validate().map_err(|error| broken(error.to_string()))?;
        Ok(read)
    }

    fn parse(text: &str) -> serde_json::Result<Self> {
        let said: serde_json::Map<String, Json> = serde_json::from_str(text)?;
        let said = said.into_iter().filter_map(|(key, value)| Some((key.clone(), accepted(&key, value)?)));
        serde_json::from_value(Json::Object(said.collect()))
    }

    /// What the metadata of a GGUF file say, in the form of a generation_config.json.
    fn in_metadata(metadata: &Metadata) -> Json {
        let mut said = serde_json::Map::new();
        for (key, name) in [
            ("temperature", "general.sampling.temp"),
            ("top_p", "general.sampling.top_p"),
            ("top_k", "general.sampling.top_k"),
            ("min_p", "general.sampling.min_p"),
        ] {
            match metadata.get(name) {
                Some(Value::Float(value)) => said.insert(key.into(), (*value).into()),
                Some(value) => value.unsigned().and_then(|value| said.insert(key.into(), value.into())),
                None => None,
            };
        }
        Json::Object(said)
    }

    /// How to sample: what the request says, else what the model's makers say.
    pub(crate) fn params(&self, said: &SamplingOptions, stop_ids: Vec<u32>, context: usize) -> SamplingParams {
        let own_temperature = if self.do_sample { self.temperature } else { 0.0 };
        let params = SamplingParams::default()
            .with_temperature(said.temperature.unwrap_or(own_temperature))
            .with_top_p(said.top_p.unwrap_or(self.top_p))
            .with_top_k(said.top_k.unwrap_or(self.top_k))
            .with_min_p(said.min_p.unwrap_or(self.min_p))
            .with_seed(said.seed)
            .with_max_tokens(said.max_tokens.or(self.max_new_tokens).unwrap_or(context))
            .with_stop_ids(if said.ignore_eos { Vec::new() } else { stop_ids });
        said.edit_logits(params)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn values_that_transformers_accepts_are_accepted() {
        let given =
            GenerationConfig::parse(r#"{"temperature": 1, "top_p": 0.9, "top_k": 20, "max_new_tokens": 8}"#).unwrap();
        let floats =
            GenerationConfig::parse(r#"{"temperature": 1.0, "top_p": 0.9, "top_k": 20.0, "max_new_tokens": 8.0}"#)
                .unwrap();
        assert_eq!(floats, given);
        let none = GenerationConfig::parse("{}").unwrap();
        for text in [
            r#"{"temperature": null, "top_k": null, "do_sample": null, "eos_token_id": null}"#,
            r#"{"top_k": -1, "max_new_tokens": -1, "eos_token_id": -1}"#,
            r#"{"top_k": 0.0, "min_p": 0, "pad_token_id": [], "_from_model_config": true}"#,
        ] {
            assert_eq!(GenerationConfig::parse(text).unwrap(), none, "{text}");
        }
        for wrong in [r#"{"top_k": 0.5}"#, r#"{"temperature": "hot"}"#, r#"{"do_sample": 1}"#, "[]"] {
            assert!(GenerationConfig::parse(wrong).is_err(), "{wrong}");
        }
    }
}
