//! Duplicate keys in a JSON object. Parsers keep the last, so two programs may read two models from one file.

use std::collections::HashSet;
use std::fmt;

use serde::Deserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};

/// A key that an object has twice; none if it has no such key or is no object.
pub(crate) fn duplicate_key(json: &[u8]) -> Option<String> {
    serde_json::Deserializer::from_slice(json).deserialize_map(Keys).ok().flatten()
}

struct Keys;

impl<'de> Visitor<'de> for Keys {
    type Value = Option<String>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut seen, mut twice) = (HashSet::new(), None);
        while let Some((key, IgnoredAny)) = map.next_entry::<String, _>()? {
            if !seen.insert(key.clone()) {
                twice.get_or_insert(key);
            }
        }
        Ok(twice)
    }
}
