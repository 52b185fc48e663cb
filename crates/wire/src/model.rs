//! Making a model: `create_model`, both forms of `load_weights`, `get_info`.

use serde::{Deserialize, Serialize};

use crate::UserMetadata;

/// The shape of a LoRA adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    /// The rank; the SDK's default is 32.
    pub rank: u32,
    /// Where the initial weights come from; a server draws one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Train the unembedding.
    #[serde(default = "yes")]
    pub train_unembed: bool,
    /// Train the MLP projections.
    #[serde(default = "yes")]
    pub train_mlp: bool,
    /// Train the attention projections.
    #[serde(default = "yes")]
    pub train_attn: bool,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self { rank: 32, seed: None, train_unembed: true, train_mlp: true, train_attn: true }
    }
}

fn yes() -> bool {
    true
}

/// Which optimizer a model is trained with, tagged by `type`. Kept as it came: `{"type":"adamw"}`,
/// `{"type":"dimuon","version":1}`, or what a newer SDK sends.
pub type OptimizerConfig = serde_json::Value;

/// `{"type":"adamw"}`, the default.
pub fn adamw() -> OptimizerConfig {
    serde_json::json!({"type": "adamw"})
}

/// `{"type":"dimuon","version":1}`.
pub fn dimuon() -> OptimizerConfig {
    serde_json::json!({"type": "dimuon", "version": 1})
}

/// `POST /api/v1/create_model`; a future. The pair (`session_id`, `model_seq_id`) is its identity: asking again
/// for the same pair finds the same model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreateModelRequest {
    /// The session that owns the run.
    pub session_id: String,
    /// The run's number in its session, from 0.
    #[serde(default)]
    pub model_seq_id: u64,
    /// What the adapter is trained on.
    pub base_model: String,
    /// The run's labels; string values in practice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_metadata: Option<serde_json::Map<String, serde_json::Value>>,
    /// The adapter's shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora_config: Option<LoraConfig>,
    /// The optimizer; servers before 0.29's protocol refuse the member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer_config: Option<OptimizerConfig>,
    /// Always `create_model`.
    #[serde(rename = "type", default = "create_model_type")]
    pub kind: String,
}

/// The value of [`CreateModelRequest::kind`].
pub fn create_model_type() -> String {
    "create_model".to_owned()
}

/// What the future of `create_model` resolves to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreateModelResult {
    /// The new run.
    pub model_id: String,
}

/// `POST /api/v1/load_weights`; a future. Two forms: into a fresh model (`model_id` and `seq_id` given, only as
/// the model's first request), or create-via-load (`session_id` and `model_seq_id` given), which makes the model
/// `<session_id>:train:<model_seq_id>`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LoadWeightsRequest {
    /// The model to load into (first form).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_id: Option<String>,
    /// The request's number (first form); 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq_id: Option<u64>,
    /// The new model's session (second form).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// The new model's number in its session (second form).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_seq_id: Option<u64>,
    /// A training checkpoint's `tinker://` path.
    pub path: String,
    /// Whether the optimizer's state is restored as well.
    #[serde(default)]
    pub optimizer: bool,
    /// The base model (second form); usually left out, the checkpoint knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_model: Option<String>,
    /// The new run's labels (second form).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_metadata: Option<serde_json::Map<String, serde_json::Value>>,
    /// The optimizer, for loads without its state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer_config: Option<OptimizerConfig>,
    /// Read access to another account's checkpoint. Secret: never logged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights_access_token: Option<String>,
    /// Always `load_weights`.
    #[serde(rename = "type", default = "load_weights_type")]
    pub kind: String,
}

/// The value of [`LoadWeightsRequest::kind`].
pub fn load_weights_type() -> String {
    "load_weights".to_owned()
}

/// What the future of `load_weights` resolves to. Clients compute the model id of a create-via-load themselves.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LoadWeightsResult {
    /// The path that was loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The model that holds it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_id: Option<String>,
}

/// The id that a model made in this session under this number has (fixed by the official SDK).
pub fn model_id_of(session_id: &str, model_seq_id: u64) -> String {
    format!("{session_id}:train:{model_seq_id}")
}

/// `POST /api/v1/get_info`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetInfoRequest {
    /// The model asked about.
    pub model_id: String,
    /// Always `get_info`.
    #[serde(rename = "type", default = "get_info_type")]
    pub kind: String,
}

impl GetInfoRequest {
    /// A question about this model.
    pub fn new(model_id: impl Into<String>) -> Self {
        Self { model_id: model_id.into(), kind: get_info_type() }
    }
}

fn get_info_type() -> String {
    "get_info".to_owned()
}

/// What a model is made of.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelData {
    /// The architecture's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// The base model's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_name: Option<String>,
    /// The tokenizer: a Hugging Face id, or a local directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer_id: Option<String>,
}

/// The answer of `get_info`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GetInfoResponse {
    /// The model asked about.
    pub model_id: String,
    /// What it is made of.
    #[serde(default)]
    pub model_data: ModelData,
    /// Its optimizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer_config: Option<OptimizerConfig>,
    /// Whether it trains an adapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_lora: Option<bool>,
    /// The adapter's rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora_rank: Option<u32>,
    /// The base model's name again; older clients read it here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_name: Option<String>,
}

/// Turns string labels into the form that creation requests carry.
pub fn metadata_value(metadata: &UserMetadata) -> serde_json::Map<String, serde_json::Value> {
    let mut members = serde_json::Map::new();
    members.extend(metadata.iter().map(|(k, v)| (k.clone(), serde_json::Value::String(v.clone()))));
    members
}
