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

/// The answer of `client/config`, as far as training and resting calls need it. Absent members have the SDK's
/// defaults (0.38.0).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientConfig {
    /// Credentials are exchanged for a short-lived JWT.
    pub pjwt_auth_enabled: bool,
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
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            pjwt_auth_enabled: false,
            parallel_fwdbwd_chunks: true,
            proto_compress_fwdbwd: false,
            fwdbwd_max_chunk_len: 1024,
            fwdbwd_max_chunk_bytes_count: 5_000_000,
            billing_exception_max_pause_duration_sec: 3600,
        }
    }
}
