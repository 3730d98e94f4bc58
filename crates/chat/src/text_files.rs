//! Tokenizer and chat template of a model: files beside its weights, or metadata of its GGUF file.

use minke_spec::ModelConfig;
use minke_text::{ChatTemplate, Tokenizer, USER, Vocabulary};
use minke_weights::gguf::Metadata;
use minke_weights::{Archive, texts};

use crate::Result;
use crate::error::bad_file;

/// The tokenizer of a model.
///
/// # Errors
/// If there is none, it is broken or of another kind, or it has more ids than the model has.
pub fn tokenizer(archive: &Archive) -> Result<Tokenizer> {
    let (origin, tokenizer) = match &archive.metadata {
        None => {
            let path = archive.path.join("tokenizer.json");
            if !path.exists() {
                let advice = "download it from where the weights come from";
                return Err(bad_file(&path, format!("is missing; {advice}")));
            }
            let tokenizer = Tokenizer::load(&path)?;
            (path, tokenizer)
        }
        Some(metadata) => {
            let bad = |reason: String| bad_file(&archive.path, reason);
            let vocabulary = vocabulary(metadata, &archive.config).map_err(bad)?;
            let tokenizer = Tokenizer::from_vocabulary(&vocabulary).map_err(|error| bad(error.to_string()))?;
            (archive.path.clone(), tokenizer)
        }
    };
    let (ids, rows) = (tokenizer.vocab_size(), archive.config.vocab_size);
    if ids > rows {
        let advice = "do the two belong together?";
        return Err(bad_file(&origin, format!("has {ids} ids, the model knows {rows}; {advice}")));
    }
    Ok(tokenizer)
}

/// The vocabulary in the metadata of a GGUF file.
fn vocabulary<'a>(metadata: &'a Metadata, config: &ModelConfig) -> std::result::Result<Vocabulary<&'a str>, String> {
    const MISSING: &str = "holds no vocabulary; take a file that was converted with its tokenizer";
    match metadata.text("tokenizer.ggml.model")? {
        Some("gpt2") => {}
        Some(other) => return Err(format!("has a vocabulary of kind {other}; supported is gpt2, byte-level BPE")),
        None => return Err(MISSING.into()),
    }
    let kinds = metadata.list("tokenizer.ggml.token_type")?.unwrap_or_default();
    let kinds: Option<Vec<u64>> = kinds.iter().map(|kind| kind.unsigned()).collect();
    Ok(Vocabulary {
        tokens: texts(metadata, "tokenizer.ggml.tokens")?.ok_or(MISSING)?,
        kinds: kinds.ok_or("tokenizer.ggml.token_type is not a list of kinds")?,
        merges: texts(metadata, "tokenizer.ggml.merges")?.ok_or("tokenizer.ggml.merges is missing")?,
        pre: metadata.text("tokenizer.ggml.pre")?.ok_or("tokenizer.ggml.pre is missing: it names the pre-tokenizer")?,
        bos_token_id: config.bos_token_id,
        eos_token_id: config.eos_token_ids.first().copied(),
        pad_token_id: config.pad_token_id,
        add_bos_token: metadata.bool("tokenizer.ggml.add_bos_token")?,
    })
}

/// The chat template of a model, and a note if it has none and one of the project stands in for it.
///
/// # Errors
/// If the model's is broken, or there is none and no family is known whose could stand in.
pub fn template(archive: &Archive, tokenizer: &Tokenizer) -> Result<(ChatTemplate, Option<String>)> {
    let own = match &archive.metadata {
        None => ChatTemplate::find(&archive.path)?,
        Some(metadata) => {
            let bad = |reason: String| bad_file(&archive.path, reason);
            let source = |key: &str| metadata.text(key).map_err(bad);
            let own = source("tokenizer.chat_template")?
                .map(|source| ChatTemplate::new(source, tokenizer.special_tokens().clone()));
            match (own.transpose()?, source("tokenizer.chat_template.tool_use")?) {
                (Some(own), Some(tool_use)) => Some(own.with_tool_use(tool_use)?),
                (own, _) => own,
            }
        }
    };
    match own {
        Some(template) => Ok((template, None)),
        None if tokenizer.id_of(USER).is_some() => {
            Ok((ChatTemplate::r1(), Some("the model has no chat template; DeepSeek-R1's stands in for it".into())))
        }
        None => {
            let advice = "put its chat_template.jinja into the folder, or take a file that holds one";
            Err(bad_file(&archive.path, format!("has no chat template; {advice}")))
        }
    }
}
