//! Sessions: what a client opens first, and keeps alive by heartbeats.

use serde::{Deserialize, Serialize};

use crate::UserMetadata;
use crate::open_enum::open_enum;
use crate::time::Time;

/// How often a client sends a heartbeat: 10 s after the last one ended (SDK 0.38.0).
pub const HEARTBEAT_INTERVAL: std::time::Duration = std::time::Duration::from_secs(10);

/// `POST /api/v1/create_session`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CreateSessionRequest {
    /// Labels; may be empty.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub tags: Vec<String>,
    /// Labels with values. tinkex sends null when there are none.
    #[serde(default, deserialize_with = "null_is_empty")]
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

fn null_is_empty<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(
    d: D,
) -> Result<T, D::Error> {
    Option::deserialize(d).map(Option::unwrap_or_default)
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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

/// How a session stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum SessionStatus {
    /// Its client lives.
    Active,
    /// It was ended from outside, or its client went silent.
    Cancelled {
        /// A sentence for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    /// Its client ended it.
    ClientFinished {
        /// How.
        reason: FinishReasonBody,
        /// A sentence for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    /// Something in it failed for good.
    Failed {
        /// Whose fault it was.
        category: SessionFailureCategory,
        /// What happened.
        message: String,
        /// What failed, tagged by `type`: `request`, `training_run` or `sampling_session`.
        reason: serde_json::Value,
    },
    /// A status that this version does not know.
    #[serde(other)]
    Unknown,
}

open_enum! {
    /// Whose fault a failed session is.
    SessionFailureCategory {
        /// The caller's.
        User = "user",
        /// The service's.
        Internal = "internal",
    }
}

impl SessionStatus {
    /// A session that was ended from outside.
    pub fn cancelled(detail: impl Into<String>) -> Self {
        Self::Cancelled { detail: Some(detail.into()) }
    }

    /// Whether a search for one of `queries` finds it. An empty list finds everything.
    pub fn is_among(&self, queries: &[SessionStatusQuery]) -> bool {
        let matches = |query: &SessionStatusQuery| match (query, self) {
            (SessionStatusQuery::Active, Self::Active)
            | (SessionStatusQuery::Cancelled, Self::Cancelled { .. })
            | (SessionStatusQuery::Failed, Self::Failed { .. }) => true,
            (SessionStatusQuery::ClientFinished { reasons }, Self::ClientFinished { reason, .. }) => {
                reasons.as_ref().is_none_or(|reasons| reasons.contains(&reason.kind))
            }
            _ => false,
        };
        queries.is_empty() || queries.iter().any(matches)
    }
}

/// A status to search for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SessionStatusQuery {
    /// Those that last.
    Active,
    /// Those that were ended from outside.
    Cancelled,
    /// Those that failed.
    Failed,
    /// Those that their client ended.
    ClientFinished {
        /// In these ways; absent = in any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reasons: Option<Vec<FinishReason>>,
    },
}

/// Whose sessions to search, tagged by `type`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SearchOwner {
    /// The caller's.
    #[default]
    Own,
    /// All that the caller may see.
    Accessible,
    /// Those of these users.
    User {
        /// One to ten of them.
        owner_urns: Vec<String>,
    },
}

/// `POST /api/v1/sessions/search`. All filters must hold, but `session_id` and `display_name` are alternatives.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionSearchRequest {
    /// This session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// Sessions of these projects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project_ids: Option<Vec<String>>,
    /// Sessions with all of these labels.
    pub user_metadata: UserMetadata,
    /// Sessions whose name has every word of this, in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Whose sessions.
    pub owner: SearchOwner,
    /// Sessions in one of these states.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statuses: Option<Vec<SessionStatusQuery>>,
    /// How many at most: 1 to 200, 50 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Where the page begins: the `next_cursor` of the one before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<SessionSearchCursor>,
}

/// Where a page of a search begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionSearchCursor {
    /// When the last session of the page before was made.
    pub last_created_at: Time,
    /// Which it was.
    pub last_session_id: String,
}

/// A session as a search finds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionSummary {
    /// The session.
    pub session_id: String,
    /// When it was made.
    pub created_at: Time,
    /// Whose it is.
    pub owner: String,
    /// Its project.
    pub project_id: String,
    /// How it stands; `None` where the server cannot say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<SessionStatus>,
    /// How many checkpoints its runs have.
    pub checkpoints_count: u64,
    /// Its name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Its labels.
    #[serde(default, deserialize_with = "crate::lenient_metadata", skip_serializing_if = "Option::is_none")]
    pub user_metadata: Option<UserMetadata>,
    /// How many bytes they take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_storage_bytes: Option<u64>,
}

/// The answer of a search: one page, newest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionSearchResponse {
    /// The sessions found.
    pub sessions: Vec<SessionSummary>,
    /// Where the next page begins; `None` at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<SessionSearchCursor>,
}

/// `PUT /api/v1/sessions/{id}/project`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SetProjectRequest {
    /// The project that the session belongs to from now on.
    pub project_id: String,
}
