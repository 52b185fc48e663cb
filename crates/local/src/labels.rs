//! Labels, as the index holds them.

use retinker_wire::UserMetadata;
use serde::{Deserialize, Serialize};

/// `user_metadata` in a third of the memory: there can be a hundred thousand of them, each with a label or two, and a map
/// takes room for eleven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "UserMetadata", into = "UserMetadata")]
pub(crate) struct Labels(Box<[(Box<str>, Box<str>)]>);

impl From<UserMetadata> for Labels {
    fn from(labels: UserMetadata) -> Self {
        Self(labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

impl From<Labels> for UserMetadata {
    fn from(labels: Labels) -> Self {
        labels.to_wire()
    }
}

impl Labels {
    /// The labels as they are listed.
    pub(crate) fn to_wire(&self) -> UserMetadata {
        self.0.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }
}
