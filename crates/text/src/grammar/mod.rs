//! Grammars: what an answer has to look like, as masks over the next token.
//!
//! A [`GrammarSource`] says it, [`Grammar::compile`] prepares it for the vocabulary of a model, and [`Grammar::mask`] says for
//! the ids so far which may come next. Grammars come from clients and are as hostile as they: length, depth, size, steps and
//! time are bounded. The work is llguidance's
//! (`docs/decisions/0016-grammars-by-llguidance.md`).

mod error;
mod schema;
mod source;
mod vocabulary;

use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use llguidance::Matcher;
use llguidance::api::{StopReason, TopLevelGrammar};
use serde_json::Value;

pub use error::GrammarError;
pub use source::GrammarSource;
pub use vocabulary::GrammarVocabulary;

use crate::bounded::{self, GivenUp};

/// How long a grammar may take to compile.
const DEADLINE: Duration = Duration::from_secs(2);
/// The library recurses for each schema within a schema, 2.5 kB each, and for groups of regular expressions.
const STACK_BYTES: usize = 32 << 20;

/// A grammar, compiled for a vocabulary: which tokens may come next.
///
/// The ids that are asked about are those since the grammar was armed. A grammar remembers how far it has read: asking again
/// with more ids costs only these. Sequences that grow side by side have one each, by [`Grammar::fresh`], which shares what was
/// compiled.
///
/// ```
/// use minke_text::{Grammar, GrammarSource, GrammarVocabulary, Tokenizer, TrainOptions};
/// let tokenizer = Tokenizer::train(["a"].iter(), &TrainOptions { vocab_size: 300, added_tokens: vec![] })?;
/// let vocabulary = GrammarVocabulary::new(&tokenizer, tokenizer.vocab_size(), &tokenizer.end_ids(&[]))?;
/// let grammar = Grammar::compile(&vocabulary, &GrammarSource::Regex("ab?".into()))?;
/// let allowed = |text: &str| {
///     let mut words = [0; 10];
///     grammar.mask(&tokenizer.encode(text), &mut words);
///     (0..300).filter(|id| words[id / 32] >> (id % 32) & 1 == 1).map(|id| id as u32).collect::<Vec<_>>()
/// };
/// assert_eq!(allowed(""), tokenizer.encode("a"));
/// assert_eq!(allowed("a"), [tokenizer.end_ids(&[]), tokenizer.encode("b")].concat());
/// assert_eq!(allowed("ab"), tokenizer.end_ids(&[]));
/// assert!(allowed("b").is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Grammar {
    shared: Arc<Shared>,
    progress: Mutex<Progress>,
}

struct Shared {
    vocabulary: GrammarVocabulary,
    /// At the beginning. Its clones share the states of the lexer.
    start: Mutex<Matcher>,
}

struct Progress {
    consumed: Vec<u32>,
    state: State,
}

enum State {
    /// Behind `consumed`, which the grammar allows.
    Open(Box<Matcher>),
    /// An end id came where the grammar was complete.
    Ended,
    /// A token came that was not allowed, or the library gave up.
    Dead,
}

impl Grammar {
    /// Compiles a source. This takes milliseconds to seconds: not on the thread of an engine.
    ///
    /// # Errors
    /// The source is broken, asks for something that is not supported, or is too large or takes more than two seconds to
    /// compile. Of a JSON schema the pointer of the keyword to blame is given.
    pub fn compile(vocabulary: &GrammarVocabulary, source: &GrammarSource) -> Result<Self, GrammarError> {
        let (own_vocabulary, own_source) = (vocabulary.clone(), source.clone());
        let matcher = on_own_thread(move || matcher(&own_vocabulary, &own_source))?;
        let progress = Progress { consumed: Vec::new(), state: State::Open(Box::new(matcher.clone())) };
        let shared = Shared { vocabulary: vocabulary.clone(), start: Mutex::new(matcher) };
        Ok(Self { shared: Arc::new(shared), progress: Mutex::new(progress) })
    }

    /// The same grammar for another sequence.
    pub fn fresh(&self) -> Self {
        Self { shared: self.shared.clone(), progress: Mutex::new(self.shared.progress()) }
    }

    /// Says which tokens may come behind these: token `t` has bit `t % 32`, counted from the lowest, of word `t / 32`. All
    /// other bits are cleared.
    ///
    /// Where the grammar is complete the end ids are among them, alone if nothing can follow. Where nothing fits, no bit is
    /// set: behind a token that was not allowed, or where the grammar takes more steps than one token may cost.
    pub fn mask(&self, generated: &[u32], words: &mut [u32]) {
        words.fill(0);
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        if !generated.starts_with(&progress.consumed) && !progress.take_back_one(generated) {
            *progress = self.shared.progress();
        }
        let end_ids = self.shared.vocabulary.end_ids();
        for &id in &generated[progress.consumed.len()..] {
            progress.state = std::mem::replace(&mut progress.state, State::Dead).after(id, end_ids);
            progress.consumed.push(id);
        }
        match &mut progress.state {
            State::Open(matcher) if !matcher.is_stopped() => match matcher.compute_mask() {
                Ok(mask) => words.iter_mut().zip(mask.as_slice()).for_each(|(word, bits)| *word = *bits),
                Err(_) => progress.state = State::Dead,
            },
            State::Dead => {}
            State::Open(_) | State::Ended => {
                for &id in end_ids {
                    if let Some(word) = words.get_mut(id as usize / 32) {
                        *word |= 1 << (id % 32);
                    }
                }
            }
        }
    }

    /// Whether these ids are a whole answer.
    pub fn is_complete(&self, generated: &[u32]) -> bool {
        let end_ids = self.shared.vocabulary.end_ids();
        let start = self.shared.progress().state;
        match generated.iter().fold(start, |state, &id| state.after(id, end_ids)) {
            State::Open(mut matcher) => is_complete(&mut matcher),
            State::Ended => true,
            State::Dead => false,
        }
    }
}

impl Shared {
    fn progress(&self) -> Progress {
        let start = self.start.lock().unwrap_or_else(PoisonError::into_inner);
        Progress { consumed: Vec::new(), state: State::Open(Box::new(start.clone())) }
    }
}

impl Progress {
    /// Forgets the last id, if the others are the beginning of these: engines ask about a token that they only expect.
    fn take_back_one(&mut self, generated: &[u32]) -> bool {
        let before = self.consumed.len() - 1;
        let State::Open(matcher) = &mut self.state else { return false };
        let known = generated.starts_with(&self.consumed[..before]) && matcher.rollback(1).is_ok();
        self.consumed.truncate(if known { before } else { before + 1 });
        known
    }
}

impl State {
    fn after(self, id: u32, end_ids: &[u32]) -> Self {
        match self {
            Self::Open(mut matcher) => {
                if end_ids.contains(&id) && is_complete(&mut matcher) {
                    return Self::Ended;
                }
                match matcher.is_stopped() || matcher.try_consume_tokens(&[id]).ok() != Some(1) {
                    true => Self::Dead,
                    false => Self::Open(matcher),
                }
            }
            Self::Ended if end_ids.contains(&id) => Self::Ended,
            _ => Self::Dead,
        }
    }
}

fn is_complete(matcher: &mut Matcher) -> bool {
    match matcher.stop_reason() {
        StopReason::NotStopped => matcher.is_accepting().unwrap_or(false),
        reason => reason.is_ok(),
    }
}

impl std::fmt::Debug for Grammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Grammar")
    }
}

/// Whether a JSON schema can be obeyed, whatever the vocabulary.
///
/// # Errors
/// It cannot; as [`Grammar::compile`].
pub(crate) fn check_schema(schema: &Value) -> Result<(), GrammarError> {
    static BYTES: LazyLock<Result<GrammarVocabulary, GrammarError>> = LazyLock::new(GrammarVocabulary::bytes);
    let source = GrammarSource::JsonSchema(schema.clone());
    on_own_thread(move || matcher(BYTES.as_ref().map_err(Clone::clone)?, &source).map(|_| ()))
}

/// A matcher at the beginning of a source.
fn matcher(vocabulary: &GrammarVocabulary, source: &GrammarSource) -> Result<Matcher, GrammarError> {
    let compiled = |source: &GrammarSource| -> Result<Matcher, GrammarError> {
        let lark = TopLevelGrammar::from_lark(source.to_lark(vocabulary)?);
        let parser = vocabulary.factory().create_parser(lark);
        parser.map(|parser| Matcher::new(Ok(parser))).map_err(|error| GrammarError::new(format!("{error:#}")))
    };
    let error = match compiled(source) {
        Ok(mut matcher) => {
            // A grammar of nothing but dead ends: the first mask shows it.
            return match matcher.clone().compute_mask() {
                Ok(_) => Ok(matcher),
                Err(_) if is_complete(&mut matcher) => Ok(matcher),
                Err(error) => Err(GrammarError::new(format!("no text fits it: {error}"))),
            };
        }
        Err(error) => error,
    };
    match source.schema() {
        Some(schema) if error.pointer.is_none() => {
            let compiles = |changed: &Value| compiled(&GrammarSource::JsonSchema(changed.clone())).is_ok();
            Err(GrammarError::at(schema::locate(schema, &compiles), library_reason(&error.reason)))
        }
        _ => Err(error),
    }
}

/// What the library says about a schema, without where it stands in the Lark text that was made of it.
fn library_reason(reason: &str) -> &str {
    reason.rsplit("failed to compile JSON schema: ").next().unwrap_or(reason)
}

fn on_own_thread<T: Send + 'static>(
    run: impl FnOnce() -> Result<T, GrammarError> + Send + 'static,
) -> Result<T, GrammarError> {
    bounded::bounded(STACK_BYTES, DEADLINE, run).unwrap_or_else(|reason| {
        Err(GrammarError::new(match reason {
            GivenUp::NoThread(error) => format!("no stack of {STACK_BYTES} bytes to compile on: {error}"),
            GivenUp::Deadline => format!("takes more than {} s to compile; make it simpler", DEADLINE.as_secs()),
            GivenUp::Panicked => "is refused: the library that compiles it panicked; make it simpler".into(),
        }))
    })
}
