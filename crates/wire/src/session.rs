//! Sessions: what a client opens first, and keeps alive by heartbeats.

use serde::{Deserialize, Serialize};

use crate::UserMetadata;
use crate::open_enum::open_enum;

/// How often a client sends a heartbeat: 10 s after the last one ended (SDK 0.38.0).
pub const HEARTBEAT_INTERVAL: std::time::Duration = std::time::Duration::from_secs(10);

/// `POST /api/v1/create_session`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CreateSessionRequest {
    /// Labels; may be empty.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Labels with values.
    #[serde(default)]
    pub user_metadata: serde_json::Map<String, serde_json::Value>,
    /// The client's version.
    #[serde(default)]
    pub sdk_version: String,
    /// The project that the session belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Always `create_session`.
    #[serde(rename = "type", default = "create_session_type")]
    pub kind: String,
}

fn create_session_type() -> String {
    "create_session".to_owned()
}

/// The answer of `create_session`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreateSessionResponse {
    /// The new session.
    pub session_id: String,
    /// A message to log at level info.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info_message: Option<String>,
    /// A message to log as a warning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning_message: Option<String>,
    /// A message to log as an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
}

/// `POST /api/v1/session_heartbeat`; answered with `{}`, or 410 when the session is over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SessionHeartbeatRequest {
    /// The session to keep alive.
    pub session_id: String,
    /// Always `session_heartbeat`.
    #[serde(rename = "type", default = "session_heartbeat_type")]
    pub kind: String,
}

impl SessionHeartbeatRequest {
    /// A heartbeat of this session.
    pub fn new(session_id: impl Into<String>) -> Self {
        Self { session_id: session_id.into(), kind: session_heartbeat_type() }
    }
}

fn session_heartbeat_type() -> String {
    "session_heartbeat".to_owned()
}

open_enum! {
    /// How a client ended its session.
    FinishReason {
        /// It did what it wanted.
        Success = "success",
        /// It met an error.
        Errored = "errored",
        /// It was stopped from outside.
        Interrupted = "interrupted",
    }
}

/// The `reason` member of a finish.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FinishReasonBody {
    /// How the session ended.
    #[serde(rename = "type")]
    pub kind: FinishReason,
}

/// `POST /api/v1/sessions/{id}/finish`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FinishSessionRequest {
    /// How the session ended.
    pub reason: FinishReasonBody,
    /// A sentence for people; sent as null when absent.
    #[serde(default)]
    pub detail: Option<String>,
}

/// `GET /api/v1/sessions/{id}`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct GetSessionResponse {
    /// The runs made in the session.
    #[serde(default)]
    pub training_run_ids: Vec<String>,
    /// The samplers made in it.
    #[serde(default)]
    pub sampler_ids: Vec<String>,
    /// Its labels.
    #[serde(default, deserialize_with = "crate::lenient_metadata", skip_serializing_if = "Option::is_none")]
    pub user_metadata: Option<UserMetadata>,
    /// Its name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
}

/// `GET /api/v1/sessions`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListSessionsResponse {
    /// Session ids, newest first.
    pub sessions: Vec<String>,
}
