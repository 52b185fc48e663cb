//! The host API's calls about checkpoints across runs.
//!
//! | Call | Request | Answer |
//! |---|---|---|
//! | `GET /retinker/v1/checkpoints?q=&kind=&sort=&desc=&offset=&limit=` | [`CheckpointsQuery`] | [`CheckpointWindow`] |
//! | `GET /retinker/v1/checkpoints/paths?q=&kind=&sort=&desc=` | [`CheckpointsQuery`] | [`CheckpointPaths`] |
//! | `POST /retinker/v1/checkpoints/preview` | [`CheckpointPaths`] | [`DeletePreview`] |
//! | `POST /retinker/v1/checkpoints/retention` | [`RetentionRequest`] | [`DeletePreview`] |
//! | `POST /retinker/v1/checkpoints/actions` | [`CheckpointActions`] | [`CheckpointOutcomes`] |
//! | `POST /retinker/v1/checkpoints/downloads` | [`StartDownload`] | [`DownloadState`] |
//! | `GET /retinker/v1/checkpoints/downloads/{id}` | | [`DownloadState`] |
//! | `POST /retinker/v1/checkpoints/downloads/{id}/stop` | | [`DownloadState`] |
//!
//! What [`DownloadState::address`] tells is read once, without the host's token: it is a secret of its own.

use std::fmt::Write as _;

use retinker_wire::run::{Checkpoint, CheckpointType};
use retinker_wire::time::Time;
use serde::{Deserialize, Serialize};

use super::api::ApiProblem;
use super::client::{Call, HostClient};
use super::encode::{percent, segment};
use crate::recovery::retention::Rule;

/// Most checkpoints that [`CheckpointPaths`] names, and that are previewed at once.
pub const MAX_PATHS: usize = 5_000;

/// Most checkpoints of one [`CheckpointActions`]: so many are done well within the time that a caller waits.
pub const MAX_ACTIONS: usize = 100;

/// The order of a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckpointSort {
    /// By the time of the save.
    #[default]
    Saved,
    /// By expiry; those that never expire come last.
    Expires,
    /// By size; those of unknown size are the smallest.
    Size,
    /// By name.
    Name,
    /// By the run's name.
    Run,
}

impl CheckpointSort {
    /// Every order.
    pub const ALL: [Self; 5] = [Self::Saved, Self::Expires, Self::Size, Self::Name, Self::Run];

    /// Its name on the wire and in addresses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Saved => "saved",
            Self::Expires => "expires",
            Self::Size => "size",
            Self::Name => "name",
            Self::Run => "run",
        }
    }

    /// Whether it begins with the greatest where nobody says otherwise: the newest, the largest.
    pub fn is_descending(self) -> bool {
        matches!(self, Self::Saved | Self::Size)
    }
}

/// Which checkpoints to show. Absent members mean: all, newest first, from the first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointsQuery {
    /// Only those that this matches (see [`checkpoint_query`](super::checkpoint_query)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub q: Option<String>,
    /// Only those of this type: `training`, `sampler`, `external` or what else the service has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<CheckpointType>,
    /// The order.
    #[serde(default)]
    pub sort: CheckpointSort,
    /// Whether the order begins with the greatest; `None`: as is usual for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desc: Option<bool>,
    /// How many to pass over.
    #[serde(default)]
    pub offset: u64,
    /// How many to give; 100 when absent, at most 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

impl CheckpointsQuery {
    fn in_address(&self) -> String {
        let mut text = format!("sort={}&offset={}", self.sort.as_str(), self.offset);
        if let Some(q) = &self.q {
            let _ = write!(text, "&q={}", percent(q, ""));
        }
        if let Some(kind) = &self.kind {
            let _ = write!(text, "&kind={}", percent(kind.as_str(), ""));
        }
        if let Some(desc) = self.desc {
            text.push_str(if desc { "&desc=true" } else { "&desc=false" });
        }
        if let Some(limit) = self.limit {
            let _ = write!(text, "&limit={limit}");
        }
        text
    }
}

/// A checkpoint in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointItem {
    /// The checkpoint as the service tells it.
    pub checkpoint: Checkpoint,
    /// The run that it belongs to.
    pub run_id: String,
    /// That run's name for people.
    pub run_name: String,
    /// Why it is not deleted unless that is asked for expressly; `None` = nothing needs it as far as is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needed_because: Option<String>,
}

/// A part of the list of checkpoints.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckpointWindow {
    /// The rows.
    pub rows: Vec<CheckpointItem>,
    /// How many match.
    pub matching: u64,
    /// How many there are.
    pub total: u64,
    /// The bytes of those that match, as far as the service tells sizes.
    pub bytes_matching: u64,
    /// The bytes of all.
    pub bytes_total: u64,
    /// How many match the text, of each type, in the order training, sampler, external, others.
    pub counts: [u64; 4],
    /// When the list was last read from the service; `None` = never yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Time>,
    /// Why it could not be read again since; the rows are then those of `as_of`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<ApiProblem>,
}

/// Checkpoints by their paths.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointPaths {
    /// The paths, at most [`MAX_PATHS`].
    pub paths: Vec<String>,
    /// How many match in all; without meaning in a request.
    #[serde(default)]
    pub matching: u64,
}

/// What would be deleted, and what that would free.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DeletePreview {
    /// Those that nothing needs, oldest first.
    pub goes: Vec<CheckpointItem>,
    /// Those that something needs, and why; oldest first.
    pub needed: Vec<CheckpointItem>,
    /// Paths that the service does not list, or not any more.
    pub gone: Vec<String>,
    /// The bytes of `goes`, as far as the service tells sizes.
    pub bytes: u64,
    /// What the service asks for a gigabyte in a month of 720 hours, in US dollars; `None` where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd_per_gigabyte_month: Option<f64>,
    /// How many the rule keeps that nothing needs; 0 where there is no rule.
    #[serde(default)]
    pub kept: u64,
    /// For how many of them it is not known how good they are, so that they are kept; see [`Rule::best`].
    #[serde(default)]
    pub unmeasured: u64,
    /// How many of these because so many runs were not asked for their losses.
    #[serde(default)]
    pub unasked: u64,
    /// How many more would go that are too many for one deletion: the newer ones.
    #[serde(default)]
    pub more: u64,
    /// As of when this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Time>,
}

/// Asks what a rule would delete.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionRequest {
    /// Among which; order and part are of no meaning.
    #[serde(default)]
    pub query: CheckpointsQuery,
    /// What is kept.
    pub rule: Rule,
}

/// What can be done with checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckpointDo {
    /// Lets everybody load it.
    Publish,
    /// Takes that back.
    Unpublish,
    /// Lets it live for `ttl_seconds` from now.
    Live,
    /// Lets it live `ttl_seconds` longer than it would have; one that never expires is left as it is.
    Extend,
    /// Lets it live for ever.
    Keep,
    /// Puts an expiry back: that of the same place in `expires_at`.
    PutBack,
    /// Copies it into a run of its own, where it lives for ever. Its outcome's message tells the copy's path.
    Copy,
    /// Deletes it, for good.
    Delete,
}

/// Does something with several checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointActions {
    /// What.
    pub action: CheckpointDo,
    /// With which, at most [`MAX_ACTIONS`].
    pub paths: Vec<String>,
    /// For [`Live`](CheckpointDo::Live) and [`Extend`](CheckpointDo::Extend), in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// For [`PutBack`](CheckpointDo::PutBack): for each path when it shall expire; `None` = never.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expires_at: Vec<Option<Time>>,
    /// For [`Delete`](CheckpointDo::Delete), and for [`Live`](CheckpointDo::Live) where that ends sooner: also those that something
    /// needs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// What became of one checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointOutcome {
    /// Which.
    pub path: String,
    /// Whether it is now as was asked for.
    pub done: bool,
    /// Whether something was changed for that, which can be taken back unless it was deleted.
    pub changed: bool,
    /// What happened, as a sentence for people.
    pub message: String,
    /// Where an expiry was changed: what it was; `None` = never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_expires_at: Option<Time>,
    /// A stable name for what was in the way: `needed`, `not_tried`, or that of an [`ApiProblem`]; empty when done.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub code: String,
}

/// What became of each, in the order of the paths.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointOutcomes {
    /// One for each path.
    pub outcomes: Vec<CheckpointOutcome>,
}

/// Asks for a checkpoint's files, in one archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartDownload {
    /// Which.
    pub path: String,
}

/// A download as it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownloadState {
    /// Its name in later questions.
    pub id: String,
    /// Where the archive is read from, on this host, once and within a minute; told once, and a secret.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// The file's name.
    pub file: String,
    /// Bytes that have been passed on.
    pub received: u64,
    /// How many there will be: exactly, where the service says so; else the checkpoint's size, which is nearly that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<u64>,
    /// Whether all have been passed on.
    pub done: bool,
    /// Why it ended before its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<ApiProblem>,
}

impl HostClient {
    /// A window of the list of checkpoints.
    ///
    /// # Errors
    /// `bad_query` for a text that makes no sense.
    pub fn checkpoints(&self, query: &CheckpointsQuery) -> Call<'_, CheckpointWindow> {
        Call::of(self.get(&format!("/checkpoints?{}", query.in_address())))
    }

    /// The paths of all that match, up to [`MAX_PATHS`], in the query's order.
    ///
    /// # Errors
    /// `bad_query` for a text that makes no sense.
    pub fn checkpoint_paths(&self, query: &CheckpointsQuery) -> Call<'_, CheckpointPaths> {
        Call::of(self.get(&format!("/checkpoints/paths?{}", query.in_address())))
    }

    /// What deleting these would do. Deletes nothing.
    ///
    /// # Errors
    /// A `service_…` problem where the list could not be read; `bad_request` for too many.
    pub fn preview_delete(&self, paths: Vec<String>) -> Call<'_, DeletePreview> {
        Call::of(self.post("/checkpoints/preview", &CheckpointPaths { paths, matching: 0 }))
    }

    /// What a rule would delete. Deletes nothing.
    ///
    /// # Errors
    /// As of [`preview_delete`](Self::preview_delete), and `bad_query` for a text that makes no sense.
    pub fn preview_retention(&self, request: &RetentionRequest) -> Call<'_, DeletePreview> {
        Call::of(self.post("/checkpoints/retention", request))
    }

    /// Does something with several checkpoints; what became of each is told. Asking again is harmless.
    ///
    /// # Errors
    /// `bad_request` for too many, or without a time where one is needed. What fails of one checkpoint is no error.
    pub fn act_on_checkpoints(&self, actions: &CheckpointActions) -> Call<'_, CheckpointOutcomes> {
        Call::of(self.post("/checkpoints/actions", actions))
    }

    /// Prepares the download of a checkpoint's archive.
    ///
    /// # Errors
    /// A `service_…` problem where the service has no archive of it.
    pub fn start_download(&self, path: &str) -> Call<'_, DownloadState> {
        Call::of(self.post("/checkpoints/downloads", &StartDownload { path: path.to_owned() }))
    }

    /// How a download stands.
    ///
    /// # Errors
    /// `download_not_found` for one that the host does not know, or not any more.
    pub fn download(&self, id: &str) -> Call<'_, DownloadState> {
        Call::of(self.get(&format!("/checkpoints/downloads/{}", segment(id))))
    }

    /// Stops a download; the browser is left with a file that breaks off, and says so. One that is over stays as it is.
    ///
    /// # Errors
    /// `download_not_found` for one that the host does not know, or not any more.
    pub fn stop_download(&self, id: &str) -> Call<'_, DownloadState> {
        Call::of(self.post(&format!("/checkpoints/downloads/{}/stop", segment(id)), &serde_json::Map::new()))
    }
}
