//! The answer in the body of a response.

use serde::Deserialize;

/// An answer to messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The thought, where the endpoint tells it apart.
    pub reasoning: Option<String>,
    /// The answer; thought included, where the endpoint does not tell it apart.
    pub content: String,
    /// Why it ended: `stop` if by itself.
    pub finish_reason: Option<String>,
    /// Tokens that were generated, thought included, as the endpoint counts them.
    pub completion_tokens: Option<u64>,
    /// What the endpoint calls the model that answered.
    pub model: Option<String>,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    model: Option<String>,
    /// Some endpoints report errors with status 200.
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
    reasoning_content: Option<String>,
    /// The name of `reasoning_content` in newer versions of vLLM and at OpenRouter.
    reasoning: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    completion_tokens: Option<u64>,
}

impl Reply {
    /// The answer in a body of JSON.
    ///
    /// # Errors
    /// What the body has instead.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, String> {
        let Body { choices, usage, model, error } =
            serde_json::from_slice(body).map_err(|error| format!("the answer cannot be read: {error}"))?;
        if let Some(error) = error.filter(|error| !error.is_null()) {
            return Err(format!("the answer is an error: {}", message_of(&error)));
        }
        let Some(Choice { message, finish_reason }) = choices.into_iter().next() else {
            return Err("the answer has no choices".into());
        };
        let Message { content, reasoning_content, reasoning } = message;
        let reasoning = reasoning_content.or(reasoning).filter(|text| !text.trim().is_empty());
        let completion_tokens = usage.and_then(|usage| usage.completion_tokens);
        Ok(Self { reasoning, content: content.unwrap_or_default(), finish_reason, completion_tokens, model })
    }
}

/// A continuation, token by token.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Completion {
    /// The tokens, that which ended it included.
    pub token_ids: Vec<u32>,
    /// The log-probability of each at temperature 1.
    pub log_probs: Vec<f32>,
    /// Why it ended: `stop` if by itself, `length` if it was cut off.
    pub finish_reason: Option<String>,
    /// Which version of a policy it comes from, where the endpoint says it.
    pub policy_version: Option<String>,
}

#[derive(Deserialize)]
struct CompletionBody {
    #[serde(default)]
    choices: Vec<CompletionChoice>,
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct CompletionChoice {
    token_ids: Option<Vec<u32>>,
    logprobs: Option<TokenLogProbs>,
    finish_reason: Option<String>,
    policy_version: Option<String>,
}

#[derive(Deserialize)]
struct TokenLogProbs {
    #[serde(default)]
    token_logprobs: Vec<f64>,
}

impl Completion {
    /// The continuation in a body of JSON.
    ///
    /// # Errors
    /// What the body has instead.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, String> {
        let CompletionBody { choices, error } =
            serde_json::from_slice(body).map_err(|error| format!("the answer cannot be read: {error}"))?;
        if let Some(error) = error.filter(|error| !error.is_null()) {
            return Err(format!("the answer is an error: {}", message_of(&error)));
        }
        let choice = choices.into_iter().next().ok_or("the answer has no choices")?;
        let CompletionChoice { token_ids, logprobs, finish_reason, policy_version } = choice;
        let token_ids = token_ids.ok_or("the answer has no token_ids, which return_token_ids asks for")?;
        let log_probs = logprobs.map(|logprobs| logprobs.token_logprobs).unwrap_or_default();
        if log_probs.len() != token_ids.len() {
            let (tokens, log_probs) = (token_ids.len(), log_probs.len());
            return Err(format!("the answer has {tokens} token_ids and {log_probs} log-probabilities"));
        }
        let log_probs = log_probs.into_iter().map(|value| value as f32).collect();
        Ok(Self { token_ids, log_probs, finish_reason, policy_version })
    }
}

#[derive(Deserialize)]
struct ModelList {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    policy_version: Option<String>,
}

/// Which version of a policy a list of models says is served: nothing while there is no model, and what is wrong if there is one without.
pub(crate) fn policy_version_in(body: &[u8]) -> Result<Result<Option<String>, &'static str>, String> {
    let ModelList { data } =
        serde_json::from_slice(body).map_err(|error| format!("the list of models cannot be read: {error}"))?;
    let Some(model) = data.into_iter().next() else { return Ok(Ok(None)) };
    let without = "serves a model that is no version of a policy; start it with minke serve --watch FOLDER";
    Ok(model.policy_version.map(Some).ok_or(without))
}

/// What the body of a refusal says: `error.message`, `error`, `message` or `detail`, or the text itself.
pub(crate) fn message_in(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    match serde_json::from_slice::<serde_json::Value>(body) {
        Ok(value) => {
            let named = ["error", "message", "detail"].iter().find_map(|key| value.get(key));
            message_of(named.unwrap_or(&value))
        }
        // A page for people says nothing in a line.
        Err(_) if text.trim_start().starts_with('<') => String::new(),
        Err(_) => text.into_owned(),
    }
}

fn message_of(error: &serde_json::Value) -> String {
    let text = error.get("message").unwrap_or(error);
    text.as_str().map_or_else(|| text.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thoughts_are_found_under_both_names_and_other_fields_do_no_harm() {
        let body = br#"{"id":"x","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"7","reasoning_content":"3+4"},
            "finish_reason":"stop","logprobs":null}],"usage":{"completion_tokens":5,"prompt_tokens":1}}"#;
        let reply = Reply::parse(body).unwrap();
        assert_eq!((reply.reasoning.as_deref(), &reply.content[..]), (Some("3+4"), "7"));
        assert_eq!((reply.finish_reason.as_deref(), reply.completion_tokens), (Some("stop"), Some(5)));
        assert_eq!(reply.model.as_deref(), Some("m"));
        let body = br#"{"choices":[{"message":{"content":null,"reasoning":"3+4"}}]}"#;
        let reply = Reply::parse(body).unwrap();
        assert_eq!((reply.reasoning.as_deref(), &reply.content[..]), (Some("3+4"), ""));
        assert_eq!((reply.finish_reason, reply.completion_tokens), (None, None));
        assert_eq!(
            Reply::parse(br#"{"choices":[{"message":{"content":"7","reasoning":""}}]}"#).unwrap().reasoning,
            None
        );
    }

    #[test]
    fn what_is_no_answer_is_named() {
        let reason = |body: &str| Reply::parse(body.as_bytes()).unwrap_err();
        assert!(reason("{\"choices\": [").starts_with("the answer cannot be read: "));
        assert_eq!(reason("{\"choices\": []}"), "the answer has no choices");
        assert_eq!(reason("{\"error\": {\"message\": \"out of memory\"}}"), "the answer is an error: out of memory");
        assert!(reason("{\"choices\": [{\"message\": {\"content\": 7}}]}").contains("invalid type"));
        assert!(reason("[]").starts_with("the answer cannot be read: "));
    }

    #[test]
    fn continuations_have_a_log_probability_for_each_token() {
        let body = br#"{"choices":[{"index":0,"text":"ab","token_ids":[5,6,1],"finish_reason":"stop","policy_version":"3fa90c1b-12",
            "logprobs":{"tokens":["a","b",""],"token_logprobs":[-0.5,-0.10000000149011612,0.0],"top_logprobs":[{},{},{}]}}]}"#;
        let completion = Completion::parse(body).unwrap();
        assert_eq!((&completion.token_ids[..], &completion.log_probs[..]), (&[5, 6, 1][..], &[-0.5, -0.1, 0.0][..]));
        assert_eq!(completion.policy_version.as_deref(), Some("3fa90c1b-12"));
        let reason = |body: &str| Completion::parse(body.as_bytes()).unwrap_err();
        assert!(reason(r#"{"choices":[{"text":"a"}]}"#).contains("no token_ids"));
        let uneven = r#"{"choices":[{"token_ids":[5,6],"logprobs":{"token_logprobs":[-0.5]}}]}"#;
        assert_eq!(reason(uneven), "the answer has 2 token_ids and 1 log-probabilities");
        assert_eq!(reason(r#"{"choices":[]}"#), "the answer has no choices");
    }

    #[test]
    fn a_list_of_models_says_which_policy_is_served() {
        let of = |body: &str| policy_version_in(body.as_bytes()).unwrap();
        assert_eq!(of(r#"{"data":[]}"#), Ok(None));
        assert_eq!(of(r#"{"data":[{"id":"policy","policy_version":"3fa90c1b-0"}]}"#), Ok(Some("3fa90c1b-0".into())));
        assert!(of(r#"{"data":[{"id":"gpt"}]}"#).unwrap_err().contains("minke serve --watch"));
        assert!(policy_version_in(b"{}").is_err());
    }

    #[test]
    fn refusals_are_read_in_the_forms_that_endpoints_write() {
        let says = |body: &str| message_in(body.as_bytes());
        assert_eq!(says(r#"{"error": {"message": "no such model", "type": "x"}}"#), "no such model");
        assert_eq!(says(r#"{"object": "error", "message": "too long"}"#), "too long");
        assert_eq!(says(r#"{"detail": "Not Found"}"#), "Not Found");
        assert_eq!(says(r#"{"error": "model required"}"#), "model required");
        assert_eq!(says("upstream is down"), "upstream is down");
        assert_eq!(says("<html><body>502</body></html>"), "");
    }
}
