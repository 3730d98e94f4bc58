//! What the server's own document says of its responses, and whether that is so.

use serde_json::{Value, json};

use super::Response;

/// The document that a server serves.
pub struct Document(pub Value);

impl Document {
    /// The operation at a path, if the document has it.
    fn operation(&self, method: &str, path: &str) -> Option<&Value> {
        let path = path.split('?').next().unwrap();
        let path = path.strip_prefix(self.0["servers"][0]["url"].as_str()?.trim_end_matches('/'))?;
        let fits = |pattern: &str| match pattern.split_once('{') {
            // A name may have slashes in it.
            Some((front, "name}")) => path.starts_with(front),
            _ => {
                let (parts, wanted): (Vec<_>, Vec<_>) = (path.split('/').collect(), pattern.split('/').collect());
                parts.len() == wanted.len()
                    && parts.iter().zip(wanted).all(|(part, wanted)| wanted.starts_with('{') || *part == wanted)
            }
        };
        let (_, item) = self.0["paths"].as_object()?.iter().find(|(pattern, _)| fits(pattern))?;
        item.get(method.to_ascii_lowercase())
    }

    /// Panics if a response is not as the document says. Nothing is said of methods and addresses that are not there.
    pub fn check(&self, method: &str, path: &str, response: &Response) {
        let Some(operation) = self.operation(method, path) else { return };
        // Heads that are too large are refused before anybody knows what they ask for.
        if response.status == 431 {
            return;
        }
        let (status, text) = (response.status.to_string(), String::from_utf8_lossy(&response.body));
        let place = format!("{method} {path}, {status}");
        let content =
            &operation["responses"].get(&status).unwrap_or_else(|| panic!("{place} is not described"))["content"];
        let media_type = response.header("content-type").unwrap_or_default().split(';').next().unwrap();
        let schema =
            &content.get(media_type).unwrap_or_else(|| panic!("{place} is not described as {media_type}"))["schema"];
        match media_type {
            "application/json" => self.conforms(schema, [response.json()], &place),
            "text/event-stream" => {
                let (schema, events) = (&schema["properties"]["data"]["anyOf"], response.events());
                let ends = events.iter().filter(|(name, _)| name == "[DONE]").count();
                assert!(ends <= usize::from(schema[1]["enum"] == json!(["[DONE]"])), "{place}: {ends} ends");
                let data = events.iter().filter(|(name, _)| name != "[DONE]").map(|(_, data)| data.clone());
                self.conforms(&schema[0]["contentSchema"], data, &place);
            }
            "application/x-ndjson" => {
                let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
                self.conforms(&schema["contentSchema"], lines, &place);
            }
            other => assert_eq!((other, &schema["type"]), ("text/plain", &json!("string")), "{place}"),
        }
    }

    fn conforms(&self, schema: &Value, values: impl IntoIterator<Item = Value>, place: &str) {
        assert!(schema.is_object(), "{place} has no schema");
        let schema = json!({"allOf": [schema], "components": self.0["components"]});
        let validator = jsonschema::validator_for(&schema).unwrap();
        for value in values {
            let errors: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{place}: {errors:?} in {value}");
        }
    }
}
