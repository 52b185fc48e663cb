//! What a server offers, and how it wants to be talked to.

use serde::{Deserialize, Serialize};

/// One base model that a server offers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SupportedModel {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_name: Option<String>,
    /// The longest sequence it takes, in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_context_length: Option<u64>,
    /// Whether adapters can be trained on it; absent = not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trainable: Option<bool>,
    /// Whether it can be sampled from; absent = not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampleable: Option<bool>,
}

/// The answer of `GET /api/v1/get_server_capabilities`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ServerCapabilities {
    /// The base models.
    #[serde(default)]
    pub supported_models: Vec<SupportedModel>,
}

/// The body of `POST /api/v1/client/config` and `POST /api/v1/client/dynamic_config`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ClientConfigRequest {
    /// The client's version.
    #[serde(default)]
    pub sdk_version: String,
}

/// The answer of `client/config`. Absent members have the SDK's defaults (0.38.0).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientConfig {
    /// Credentials are exchanged for a short-lived JWT.
    pub pjwt_auth_enabled: bool,
    /// Which credential they are exchanged from where a program has several: `api_key`, or `credential_cmd` for a command that
    /// prints short-lived ones.
    pub credential_default_source: String,
    /// Chunks of one forward_backward call are sent together.
    pub parallel_fwdbwd_chunks: bool,
    /// Bodies of forward_backward are compressed with zstd.
    pub proto_compress_fwdbwd: bool,
    /// Most datums in a chunk.
    pub fwdbwd_max_chunk_len: usize,
    /// Most estimated bytes in a chunk.
    pub fwdbwd_max_chunk_bytes_count: usize,
    /// How long a client waits through answers of 402, in seconds.
    pub billing_exception_max_pause_duration_sec: u64,
    /// Estimated bytes of prompts that may be on their way to the server at once.
    pub sample_dispatch_bytes_semaphore_size: i64,
    /// Estimated bytes of batches that may be on their way to the server at once.
    pub fwdbwd_dispatch_bytes_semaphore_size: i64,
    /// Bytes of results that may be on their way to the client at once.
    pub inflight_response_bytes_semaphore_size: i64,
    /// Samples that may be under way at once, unless they are waited for together.
    pub sample_max_concurrent_requests: usize,
    /// Samples are not tried again.
    pub sample_no_retries: bool,
    /// Samples fail when nothing of their client has succeeded for two hours.
    pub sample_enable_stuck_detection: bool,
    /// All samples of a client are waited for by one `retrieve_futures`.
    pub sample_use_retrieve_futures: bool,
    /// Losses are uploaded as graphs, with `create_custom_loss`.
    pub custom_loss_server_side: bool,
    /// Further clients of a sampling session ask the server for their block of numbers.
    pub sample_join_sampling_session: bool,
}

/// The answer of `client/dynamic_config`. Absent members have the SDK's defaults (0.38.0).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DynamicConfig {
    /// How often it is asked for anew, in seconds; 10 at least.
    pub refresh_interval_sec: u64,
    /// Samples that nobody waits for any more are cancelled on the server.
    pub sample_cancel_enabled: bool,
    /// Cancels that are sent at once.
    pub sample_cancel_max_batch_size: usize,
}

impl Default for DynamicConfig {
    fn default() -> Self {
        Self { refresh_interval_sec: 300, sample_cancel_enabled: false, sample_cancel_max_batch_size: 64 }
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            pjwt_auth_enabled: false,
            credential_default_source: "api_key".to_owned(),
            parallel_fwdbwd_chunks: true,
            proto_compress_fwdbwd: false,
            fwdbwd_max_chunk_len: 1024,
            fwdbwd_max_chunk_bytes_count: 5_000_000,
            billing_exception_max_pause_duration_sec: 3600,
            sample_dispatch_bytes_semaphore_size: 10 << 20,
            fwdbwd_dispatch_bytes_semaphore_size: 50_000_000,
            inflight_response_bytes_semaphore_size: 50 << 20,
            sample_max_concurrent_requests: 2000,
            sample_no_retries: false,
            sample_enable_stuck_detection: true,
            sample_use_retrieve_futures: false,
            custom_loss_server_side: false,
            sample_join_sampling_session: false,
        }
    }
}
