//! Saving weights and asking about saved ones.

use serde::{Deserialize, Serialize};

use crate::UserMetadata;
use crate::model::OptimizerConfig;
use crate::open_enum::open_enum;
use crate::time::Time;

/// `POST /api/v1/save_weights`; a future.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SaveWeightsRequest {
    /// The run to save.
    pub model_id: String,
    /// The checkpoint's name. SkyRL takes `[a-zA-Z0-9_-]+` of at most 255 characters.
    pub path: String,
    /// The request's number.
    pub seq_id: u64,
    /// Seconds until the server deletes it; absent = never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// Replace a checkpoint of the same name.
    #[serde(default)]
    pub overwrite: bool,
    /// The checkpoint's labels.
    #[serde(default, deserialize_with = "crate::lenient_metadata", skip_serializing_if = "Option::is_none")]
    pub user_metadata: Option<UserMetadata>,
    /// Always `save_weights`.
    #[serde(rename = "type", default = "save_weights_type")]
    pub kind: String,
}

/// The value of [`SaveWeightsRequest::kind`].
pub fn save_weights_type() -> String {
    "save_weights".to_owned()
}

/// What the future of a named save resolves to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SaveWeightsResult {
    /// The checkpoint's `tinker://` path.
    pub path: String,
}

/// `POST /api/v1/weights_info`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WeightsInfoRequest {
    /// The checkpoint asked about.
    pub tinker_path: String,
}

/// The answer of `weights_info`: what a checkpoint fits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WeightsInfoResponse {
    /// The base model it was trained on.
    #[serde(default)]
    pub base_model: String,
    /// Whether it is an adapter.
    #[serde(default)]
    pub is_lora: bool,
    /// The adapter's rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora_rank: Option<u32>,
    /// Whether the unembedding is trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_unembed: Option<bool>,
    /// Whether the MLP is trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_mlp: Option<bool>,
    /// Whether the attention is trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_attn: Option<bool>,
    /// Its optimizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer_config: Option<OptimizerConfig>,
}

/// `PUT .../checkpoints/{id}/ttl`. Null is sent: it means never.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SetTtlRequest {
    /// Seconds from now; `None` = never expire.
    pub ttl_seconds: Option<u64>,
}

open_enum! {
    /// Whether weights saved for a sampler are fixed.
    SamplerKind {
        /// They are.
        Snapshot = "snapshot",
        /// Later saves of this kind replace them, also for samplers made before.
        Inflight = "inflight",
    }
}

/// `POST /api/v1/save_weights_for_sampler`; a future. With a `path` it makes a named checkpoint, with a
/// `sampling_session_seq_id` a sampler.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SaveWeightsForSamplerRequest {
    /// The run to save.
    pub model_id: String,
    /// The checkpoint's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The sampler's number in its session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling_session_seq_id: Option<u64>,
    /// Whether the sampler's weights are fixed.
    #[serde(default = "snapshot")]
    pub kind: SamplerKind,
    /// The request's number.
    #[serde(default)]
    pub seq_id: Option<u64>,
    /// Seconds until the server deletes it; absent = never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// The checkpoint's labels.
    #[serde(default, deserialize_with = "crate::lenient_metadata", skip_serializing_if = "Option::is_none")]
    pub user_metadata: Option<UserMetadata>,
}

fn snapshot() -> SamplerKind {
    SamplerKind::Snapshot
}

/// What the future of a save for samplers resolves to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SaveWeightsForSamplerResult {
    /// The checkpoint's `tinker://` path, if it was given a name.
    #[serde(default)]
    pub path: Option<String>,
    /// The sampler, if it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling_session_id: Option<String>,
}

/// `POST /api/v1/save_weights_external`; a future.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SaveWeightsExternalRequest {
    /// The run to save.
    pub model_id: String,
    /// The checkpoint's name.
    pub path: String,
    /// The request's number.
    #[serde(default)]
    pub seq_id: Option<u64>,
    /// Seconds until the server deletes it; absent = never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// Who can read the files; absent = they are not encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_encryption_recipients: Option<Vec<String>>,
}

/// Where the files of an external checkpoint can be had for a while.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExternalWeightsUrls {
    /// Addresses by the files' names. Secret: whoever has one can read the file.
    pub urls: std::collections::BTreeMap<String, String>,
    /// Until when.
    pub expires: Time,
}

/// `POST /api/v1/copy_weights`: into a place in a session, or into a project.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CopyWeightsRequest {
    /// What to copy.
    pub source_path: String,
    /// The session that gets the copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// The number of the new run in that session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_seq_id: Option<u64>,
    /// The project that gets the copy, when no session is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_project_id: Option<String>,
    /// Seconds until the copy is deleted; absent = never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
}

/// The answer of `copy_weights`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CopyWeightsResponse {
    /// The copy.
    pub tinker_path: String,
}
