//! `tinker://` paths: `tinker://<training run id>/<segment>/<name>`.
//!
//! Run ids contain `:`, so these are not URLs; they are split here and nowhere else.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::run::CheckpointType;

/// A checkpoint's address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TinkerPath {
    /// The training run that owns the checkpoint.
    pub training_run_id: String,
    /// The kind, which is the path's middle segment.
    pub checkpoint_type: CheckpointType,
    /// The name that it was saved under.
    pub name: String,
}

/// Why a text is not a checkpoint's path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{text}' is not a checkpoint path: {reason}; expected tinker://<run id>/<weights|sampler_weights|external_weights>/<name>"
)]
pub struct PathError {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl TinkerPath {
    /// The path of a training checkpoint.
    pub fn training(run_id: impl Into<String>, name: impl Into<String>) -> Self {
        Self { training_run_id: run_id.into(), checkpoint_type: CheckpointType::Training, name: name.into() }
    }

    /// `<segment>/<name>`: the id under which REST calls name the checkpoint inside its run.
    pub fn checkpoint_id(&self) -> String {
        format!("{}/{}", segment_of(&self.checkpoint_type), self.name)
    }
}

fn segment_of(kind: &CheckpointType) -> &str {
    match kind {
        CheckpointType::Training => "weights",
        CheckpointType::Sampler => "sampler_weights",
        CheckpointType::External => "external_weights",
        other => other.as_str(),
    }
}

/// The kind that a path segment names.
pub fn checkpoint_type_of(segment: &str) -> Option<CheckpointType> {
    match segment {
        "weights" => Some(CheckpointType::Training),
        "sampler_weights" => Some(CheckpointType::Sampler),
        "external_weights" => Some(CheckpointType::External),
        _ => None,
    }
}

impl fmt::Display for TinkerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tinker://{}/{}/{}", self.training_run_id, segment_of(&self.checkpoint_type), self.name)
    }
}

impl FromStr for TinkerPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let fail = |reason| PathError { text: text.to_owned(), reason };
        let rest = text.strip_prefix("tinker://").ok_or_else(|| fail("it does not start with tinker://"))?;
        let mut parts = rest.split('/');
        let (Some(run), Some(segment), Some(name), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(fail("it does not have exactly three parts"));
        };
        if run.is_empty() || name.is_empty() {
            return Err(fail("a part is empty"));
        }
        let checkpoint_type =
            checkpoint_type_of(segment).ok_or_else(|| fail("its middle part is not a kind of checkpoint"))?;
        Ok(Self { training_run_id: run.to_owned(), checkpoint_type, name: name.to_owned() })
    }
}

impl Serialize for TinkerPath {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TinkerPath {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_ids_with_colons() {
        let text = "tinker://0c1f:train:0/weights/step-10";
        let path: TinkerPath = text.parse().unwrap();
        assert_eq!(path.training_run_id, "0c1f:train:0");
        assert_eq!(path.checkpoint_id(), "weights/step-10");
        assert_eq!(path.to_string(), text);
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, part) in [
            ("http://x/weights/a", "does not start"),
            ("tinker://run/weights", "three parts"),
            ("tinker://run/weights/a/b", "three parts"),
            ("tinker://run/other/a", "kind of checkpoint"),
            ("tinker:///weights/a", "empty"),
        ] {
            let error = text.parse::<TinkerPath>().unwrap_err().to_string();
            assert!(error.contains(part) && error.contains(text), "{error}");
        }
    }
}
