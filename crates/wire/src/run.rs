//! Training runs and their checkpoints, as the REST calls list them.

use serde::{Deserialize, Serialize};

use crate::open_enum::open_enum;
use crate::time::Time;
use crate::{UserMetadata, lenient_metadata};

open_enum! {
    /// What a checkpoint holds and can be used for.
    CheckpointType {
        /// Weights and optimizer state; training can go on from it.
        Training = "training",
        /// Weights for sampling only.
        Sampler = "sampler",
        /// PEFT files for download.
        External = "external",
    }
}

/// One saved state of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// `<segment>/<name>`, e.g. `weights/0001`. SkyRL sends the bare name.
    pub checkpoint_id: String,
    /// What it can be used for.
    pub checkpoint_type: CheckpointType,
    /// When it was saved.
    pub time: Time,
    /// Its address.
    pub tinker_path: String,
    /// Bytes on the server's disk, where the server says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Whether others may read it.
    #[serde(default)]
    pub public: bool,
    /// Labels given at the save.
    #[serde(default, deserialize_with = "lenient_metadata", skip_serializing_if = "Option::is_none")]
    pub user_metadata: Option<UserMetadata>,
    /// When the server will delete it; `None` = never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
}

/// One training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingRun {
    /// The run's id, which is also the model id that training requests carry.
    pub training_run_id: String,
    /// The base model that the adapter is trained on.
    #[serde(default)]
    pub base_model: String,
    /// Who owns it.
    #[serde(default)]
    pub model_owner: String,
    /// Whether it trains a LoRA adapter (it always does today).
    #[serde(default = "yes")]
    pub is_lora: bool,
    /// Whether the server says that the run was poisoned by a failure. `None` where the server does not say:
    /// some omit the member, some send null.
    #[serde(default, deserialize_with = "lenient_bool")]
    pub corrupted: Option<bool>,
    /// The adapter's rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora_rank: Option<u32>,
    /// When the run was last asked for anything.
    pub last_request_time: Time,
    /// The newest training checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_checkpoint: Option<Checkpoint>,
    /// The newest sampler checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sampler_checkpoint: Option<Checkpoint>,
    /// Labels given at creation; they cannot be changed later.
    #[serde(default, deserialize_with = "lenient_metadata", skip_serializing_if = "Option::is_none")]
    pub user_metadata: Option<UserMetadata>,
    /// Why `corrupted` is true. An extension of the local service; absent elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrupted_reason: Option<String>,
}

fn yes() -> bool {
    true
}

fn lenient_bool<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<bool>, D::Error> {
    Ok(match Option::<serde_json::Value>::deserialize(d)? {
        Some(serde_json::Value::Bool(flag)) => Some(flag),
        _ => None,
    })
}

/// Whose things are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessScope {
    /// The caller's own.
    #[default]
    Owned,
    /// All that the caller may see.
    Accessible,
}

/// Where a page stands in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cursor {
    /// How many entries come before this page.
    #[serde(default)]
    pub offset: u64,
    /// How many entries were asked for.
    #[serde(default)]
    pub limit: u64,
    /// How many entries there are. SkyRL answers 0 past the end.
    #[serde(default)]
    pub total_count: u64,
}

/// The answer of `GET /api/v1/training_runs`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainingRunsResponse {
    /// One page of runs.
    pub training_runs: Vec<TrainingRun>,
    /// Where the page stands.
    #[serde(default)]
    pub cursor: Cursor,
}

/// The answer of `GET /api/v1/training_runs/{id}/checkpoints` and `GET /api/v1/checkpoints`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckpointsResponse {
    /// The checkpoints.
    pub checkpoints: Vec<Checkpoint>,
    /// Where the page stands; absent where the list is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(corrupted: &str) -> TrainingRun {
        let text = format!(
            r#"{{"training_run_id":"s:train:0","base_model":"m","model_owner":"o","is_lora":true{corrupted},
               "last_request_time":"2026-01-02T03:04:05","user_metadata":{{"step":7,"name":"a"}},"new_member":1}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn corrupted_missing_null_false_true_and_odd() {
        assert_eq!(run("").corrupted, None);
        assert_eq!(run(r#","corrupted":null"#).corrupted, None);
        assert_eq!(run(r#","corrupted":false"#).corrupted, Some(false));
        assert_eq!(run(r#","corrupted":true"#).corrupted, Some(true));
        assert_eq!(run(r#","corrupted":"maybe""#).corrupted, None);
    }

    #[test]
    fn odd_metadata_is_kept_as_text() {
        let metadata = run("").user_metadata.unwrap();
        assert_eq!(metadata["step"], "7");
        assert_eq!(metadata["name"], "a");
    }

    #[test]
    fn unknown_checkpoint_type_survives() {
        let kind: CheckpointType = serde_json::from_str("\"frozen\"").unwrap();
        assert_eq!(kind, CheckpointType::Other("frozen".into()));
        assert_eq!(serde_json::to_string(&kind).unwrap(), "\"frozen\"");
    }
}
