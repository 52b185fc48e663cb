//! The Tinker protocol as data: JSON and protobuf types, `tinker://` paths, metrics reductions. No I/O.
//!
//! Field names, defaults and enum values are those of the official Python SDK, PyPI `tinker` 0.38.0, unless an
//! item says otherwise. Responses decode leniently: unknown members are ignored, unknown enum values are kept as
//! they came, and a member that some servers omit has a default.

#![deny(missing_docs)]

pub mod account;
pub mod capabilities;
pub mod future;
pub mod input;
pub mod metrics;
pub mod model;
pub mod path;
pub mod proto;
pub mod run;
pub mod sampler;
pub mod sampling;
pub mod series;
pub mod session;
pub mod telemetry;
pub mod tensor;
pub mod time;
pub mod training;
pub mod weights;

mod open_enum;

use std::collections::BTreeMap;

/// Free-form string labels on a session, run or checkpoint. Sorted, so that printing and hashing are stable.
pub type UserMetadata = BTreeMap<String, String>;

/// The body of a refused request: `{"detail": ...}`, where `detail` is a string or a list of problems.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct ErrorBody {
    /// What the server says went wrong.
    #[serde(default)]
    pub detail: serde_json::Value,
}

impl ErrorBody {
    /// A body with a plain sentence in it.
    pub fn new(detail: impl Into<String>) -> Self {
        Self { detail: serde_json::Value::String(detail.into()) }
    }

    /// The detail as one line of text; `None` when there is none.
    pub fn text(&self) -> Option<String> {
        match &self.detail {
            serde_json::Value::Null => None,
            serde_json::Value::String(text) => Some(text.clone()),
            serde_json::Value::Array(problems) => Some(
                problems
                    .iter()
                    .map(|p| {
                        p.get("msg").and_then(|m| m.as_str()).map_or_else(|| p.to_string(), str::to_owned)
                    })
                    .collect::<Vec<_>>()
                    .join("; "),
            ),
            other => Some(other.to_string()),
        }
    }
}

/// Reads `user_metadata` from any server: a value that is not a string is kept as its JSON text, so that one odd
/// label never hides a whole run.
pub(crate) fn lenient_metadata<'de, D: serde::Deserializer<'de>>(
    d: D,
) -> Result<Option<UserMetadata>, D::Error> {
    let raw: Option<BTreeMap<String, serde_json::Value>> = serde::Deserialize::deserialize(d)?;
    let texts = |map: BTreeMap<String, serde_json::Value>| {
        let mut labels = UserMetadata::new();
        // Collected, they would be sorted once more, by code that is there once for each type.
        labels.extend(map.into_iter().map(|(key, value)| match value {
            serde_json::Value::String(text) => (key, text),
            other => (key, other.to_string()),
        }));
        labels
    };
    Ok(raw.map(texts))
}
