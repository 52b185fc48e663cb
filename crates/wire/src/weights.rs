//! Saving weights and asking about saved ones.

use serde::{Deserialize, Serialize};

use crate::UserMetadata;
use crate::model::OptimizerConfig;

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
