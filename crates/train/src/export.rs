//! The weights of a stage, as a folder that other tools load.

use std::path::Path;

use minke_model::Transformer;
use minke_spec::{Format, ModelConfig};
use minke_sys::atomic;
use minke_text::ChatTemplate;

use crate::base::Base;
use crate::stage::Context;
use crate::{Result, files};

/// Largest file of weights, in bytes: what transformers writes by default exceeds the limit of some file systems.
const SHARD_BYTES: usize = 4 << 30;

/// Writes the model of a stage, or its adapter, into a folder that is there. Weights are F32 (under the precision `bf16` the rounded
/// values that the model multiplied with), so that whoever reads them has exactly what was trained. What turns text into ids is the
/// run's, whose prompt form is the open one in which the model was trained, or that of the published model.
pub(crate) fn write_weights(context: Context<'_>, model: &Transformer, inside: &Path) -> Result<()> {
    if let Some((lora, base)) = context.outside.adapter {
        let adapter = model.adapter().expect("invariant: a stage with lora has an adapter");
        return Ok(minke_weights::save_adapter(inside, &lora.adapter(base), &adapter, model.config())?);
    }
    minke_weights::save(model, inside, Format::F32, SHARD_BYTES)?;
    context.tokenizer.save(inside)?;
    match context.published {
        Some(base) => base.template.save(inside)?,
        None => ChatTemplate::r1_unforced().save(inside)?,
    }
    let advice = generation_config(model.config(), context.published);
    Ok(atomic::write_new(&inside.join("generation_config.json"), &advice)?)
}

/// How the model is meant to be sampled: R1's recommendation, and the tokens that end an answer.
///
/// # Paper
/// - facts sheet 1.11 (temperature 0.6, top-p 0.95)
fn generation_config(model: &ModelConfig, published: Option<&Base>) -> Vec<u8> {
    files::json(&serde_json::json!({
        "bos_token_id": model.bos_token_id,
        "eos_token_id": published.map_or_else(|| model.eos_token_ids.clone(), Base::end_ids),
        "do_sample": true,
        "temperature": 0.6,
        "top_p": 0.95,
    }))
}
