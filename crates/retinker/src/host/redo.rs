//! Going back to a step of a run, by its redo log.
//!
//! | Call | Request | Answer |
//! |---|---|---|
//! | `GET /retinker/v1/runs/{run_id}/redo?step=` | [`RedoQuery`] | [`RedoWindow`] |
//! | `POST /retinker/v1/runs/{run_id}/redo` | [`GoBack`] | [`RedoWindow`] |
//!
//! Whether there is a log is told by [`RunEvidence::redo_log`](super::run::RunEvidence::redo_log).

use serde::{Deserialize, Serialize};

use super::client::{Call, HostClient};
use super::encode::segment;

/// Which step is asked about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedoQuery {
    /// How many steps of the optimizer are in it; the last one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u64>,
}

/// What a redo log covers, and what it would take to go back to a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedoWindow {
    /// The first step that can be gone back to; 0 = the beginning.
    pub first_step: u64,
    /// The last one.
    pub last_step: u64,
    /// What it would take to go back to the step that was asked about, or that it is not covered; for people.
    pub summary: String,
    /// What is being done, or was done last since the host's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub going: Option<GoingBack>,
}

/// A wish to have a run as it was after a step, or not to have it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoBack {
    /// How many steps of the optimizer are in it; `null` stops what is under way.
    pub step: Option<u64>,
}

/// A run as it was after a step, on its way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoingBack {
    /// The step.
    pub step: u64,
    /// How far it is, or what it came to, for people.
    pub summary: String,
    /// Whether it is still at it.
    pub under_way: bool,
    /// The run that was made, once it is there and saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// Its checkpoint, with the optimizer's state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

impl HostClient {
    /// What the run's redo log covers, and what it would take to go back to a step.
    pub fn redo(&self, run_id: &str, query: RedoQuery) -> Call<'_, RedoWindow> {
        let step = query.step.map_or_else(String::new, |step| format!("?step={step}"));
        Call::of(self.get(&format!("/runs/{}/redo{step}", segment(run_id))))
    }

    /// Makes a new run that is as this one was after a step, and saves it. The host goes on with it by itself; ask
    /// [`redo`](Self::redo) how far it is. Asking again while it is at the same step is harmless; afterwards another run is made.
    pub fn go_back(&self, run_id: &str, wish: GoBack) -> Call<'_, RedoWindow> {
        Call::of(self.post(&format!("/runs/{}/redo", segment(run_id)), &wish))
    }
}
