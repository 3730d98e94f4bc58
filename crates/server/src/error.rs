//! What is wrong with a request, in words that each dialect wraps in its own shape.

use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

/// Whose shape an error has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    OpenAi,
    Anthropic,
    Ollama,
}

impl Dialect {
    /// The dialect that is spoken at a path, whatever it stands below.
    pub(crate) fn of_path(path: &str) -> Self {
        if path.contains("/v1/messages") {
            Self::Anthropic
        } else if path.contains("/api/") {
            Self::Ollama
        } else {
            Self::OpenAi
        }
    }
}

/// What kind of thing went wrong; it decides about the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A field is missing, of the wrong type or out of range.
    Invalid,
    /// Prompt and answer do not fit into the context.
    ContextLength,
    /// No key, or a wrong one.
    Unauthorized,
    /// A host or an origin that is not served.
    Forbidden,
    /// No such address, model or response.
    NotFound,
    /// The address does not take this method.
    Method,
    /// The body did not come in time.
    Timeout,
    /// The body is too large.
    TooLarge,
    /// The body is not JSON by its content type.
    MediaType,
    /// Too many requests wait already.
    Busy,
    /// An error of the program.
    Internal,
    /// The model is being loaded, or the server stops.
    Unavailable,
}

impl Kind {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Invalid | Self::ContextLength => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Busy => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// An error that a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub kind: Kind,
    /// What, why, what to do.
    pub message: String,
    /// The field that it is about.
    pub param: Option<String>,
    /// Seconds after which to try again.
    pub retry_after: Option<u64>,
}

/// The word of an error, which a response has along for the log.
#[derive(Clone, Copy)]
pub(crate) struct ErrorCode(pub &'static str);

impl ApiError {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        let retry_after = matches!(kind, Kind::Busy | Kind::Unavailable).then_some(1);
        Self { kind, message: message.into(), param: None, retry_after }
    }

    /// A field that cannot be obeyed.
    pub(crate) fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..Self::new(Kind::Invalid, message) }
    }

    /// An error of the program; what it was stands in the log.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// A word for programs.
    pub(crate) fn code(&self) -> &'static str {
        match self.kind {
            Kind::Invalid => "invalid_value",
            Kind::ContextLength => "context_length_exceeded",
            Kind::Unauthorized => "invalid_api_key",
            Kind::Forbidden => "forbidden",
            Kind::NotFound => "not_found",
            Kind::Method => "method_not_allowed",
            Kind::Timeout => "request_timeout",
            Kind::TooLarge => "request_too_large",
            Kind::MediaType => "unsupported_media_type",
            Kind::Busy => "rate_limit_exceeded",
            Kind::Internal => "server_error",
            Kind::Unavailable => "unavailable",
        }
    }

    /// As OpenAI writes it.
    pub(crate) fn openai(&self) -> OpenAiError {
        let kind = match self.kind {
            Kind::Unauthorized => "authentication_error",
            Kind::Forbidden => "permission_error",
            Kind::Busy => "rate_limit_error",
            Kind::Internal => "server_error",
            Kind::Unavailable => "service_unavailable_error",
            _ => "invalid_request_error",
        };
        let (message, param) = (self.message.clone(), self.param.clone());
        OpenAiError { error: OpenAiErrorBody { message, kind, param, code: self.code() } }
    }

    /// As Anthropic writes it.
    pub(crate) fn anthropic(&self) -> AnthropicError {
        let kind = match self.kind {
            Kind::Unauthorized => "authentication_error",
            Kind::Forbidden => "permission_error",
            Kind::NotFound => "not_found_error",
            Kind::TooLarge => "request_too_large",
            Kind::Timeout => "timeout_error",
            Kind::Busy => "rate_limit_error",
            Kind::Internal => "api_error",
            Kind::Unavailable => "overloaded_error",
            Kind::Invalid | Kind::ContextLength | Kind::Method | Kind::MediaType => "invalid_request_error",
        };
        AnthropicError { kind: "error", error: AnthropicErrorBody { kind, message: self.message.clone() } }
    }

    /// As Ollama writes it.
    pub(crate) fn ollama(&self) -> OllamaError {
        OllamaError { error: self.message.clone() }
    }

    /// In the shape of a dialect.
    pub(crate) fn shape(&self, dialect: Dialect) -> ErrorShape {
        match dialect {
            Dialect::OpenAi => ErrorShape::OpenAi(self.openai()),
            Dialect::Anthropic => ErrorShape::Anthropic(self.anthropic()),
            Dialect::Ollama => ErrorShape::Ollama(self.ollama()),
        }
    }
}

/// An error in the shape of some dialect.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum ErrorShape {
    OpenAi(OpenAiError),
    Anthropic(AnthropicError),
    Ollama(OllamaError),
}

/// An error, as OpenAI writes it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OpenAiError {
    error: OpenAiErrorBody,
}

#[derive(Debug, Serialize, ToSchema)]
struct OpenAiErrorBody {
    message: String,
    #[serde(rename = "type")]
    kind: &'static str,
    /// The field that is to blame.
    param: Option<String>,
    /// A word for programs.
    code: &'static str,
}

/// An error, as Anthropic writes it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AnthropicError {
    #[serde(rename = "type")]
    kind: &'static str,
    error: AnthropicErrorBody,
}

#[derive(Debug, Serialize, ToSchema)]
struct AnthropicErrorBody {
    #[serde(rename = "type")]
    kind: &'static str,
    message: String,
}

/// An error, as Ollama writes it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OllamaError {
    error: String,
}

impl From<minke_chat::Error> for ApiError {
    fn from(error: minke_chat::Error) -> Self {
        use minke_chat::Error;
        use minke_engine::Error as Refused;
        match error {
            Error::Busy { .. } => Self::new(Kind::Busy, error.to_string()),
            Error::Stopped => Self::new(Kind::Unavailable, "the server stops; try again when it runs"),
            Error::Engine(Refused::Setting { field, .. }) => Self::field(field, error.to_string()),
            Error::Engine(Refused::PromptTooLong { tokens, limit, .. }) => Self::context_length(tokens, limit),
            Error::Engine(refused @ (Refused::EmptyPrompt | Refused::UnknownToken { .. })) => {
                Self::field("prompt", refused.to_string())
            }
            Error::Text(error) => Self::field("messages", error.to_string()),
            other => Self::internal(other.to_string()),
        }
    }
}

impl ApiError {
    /// A prompt that leaves no room for an answer.
    pub(crate) fn context_length(tokens: usize, limit: usize) -> Self {
        let message = format!(
            "the prompt has {tokens} tokens and this server's context is {limit} tokens, the answer included: shorten \
             the prompt"
        );
        Self { param: Some("messages".into()), ..Self::new(Kind::ContextLength, message) }
    }
}
