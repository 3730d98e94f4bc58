//! Errors in the description of a model.

/// What is wrong with a model's configuration, and in which field.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is not JSON.
    #[error("config.json: not valid JSON ({0}); it must be the config.json published beside the weights")]
    Json(#[from] serde_json::Error),
    /// The text is JSON, but not an object.
    #[error("config.json: the top level is not an object; it must hold fields such as \"model_type\"")]
    NotAnObject,
    /// A field without a safe default is absent.
    #[error("config field `{field}` is missing; add {hint}")]
    Missing {
        /// Published name of the field.
        field: &'static str,
        /// What to write there.
        hint: &'static str,
    },
    /// A field has a value of another type.
    #[error("config field `{field}` is {found}; it must be {expected}")]
    Type {
        /// Published name of the field.
        field: &'static str,
        /// The value, abbreviated.
        found: String,
        /// What would be accepted.
        expected: &'static str,
    },
    /// A field has a meaning that this project does not implement.
    #[error("config field `{field}` = {value} is not supported; supported: {supported}")]
    Unsupported {
        /// Published name of the field.
        field: &'static str,
        /// The value, abbreviated.
        value: String,
        /// The values that are.
        supported: String,
    },
    /// A field contradicts another one or leaves its range.
    #[error("config field `{field}` = {value}: {reason}")]
    Invalid {
        /// Published name of the field.
        field: &'static str,
        /// The value.
        value: String,
        /// What it must satisfy.
        reason: String,
    },
    /// Keys that mean nothing here, where a typing error must not pass (run files).
    #[error("unknown config field(s) {}; correct the spelling or remove them", .0.join(", "))]
    UnknownKeys(Vec<String>),
}
