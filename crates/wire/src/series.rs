//! What the embedded service tells beyond the protocol, below `/retinker/local/v1`: a run's metric series, and what
//! happened to it. No other service has this.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::time::Time;

/// What one optimizer step did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The optimizer's number of the step: a restored run goes on where its checkpoint was.
    pub step: u64,
    /// The request that took the step.
    #[serde(rename = "seq_id")]
    pub seq: u64,
    /// When.
    pub time: Time,
    /// The sum of the loss; `None` where it was not finite, or no pass came before the step.
    pub loss: Option<f64>,
    /// The same for each token that counts.
    pub loss_per_token: Option<f64>,
    /// Tokens of the passes.
    pub tokens: u64,
    /// The gradient's length before it was clipped; `None` where it was not finite or not measured.
    pub grad_norm: Option<f64>,
    /// The optimizer's learning rate.
    pub learning_rate: f64,
}

/// A stretch of a run's series: `GET /retinker/local/v1/runs/{run_id}/metrics?after=&limit=`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// The run.
    pub run_id: String,
    /// The points, by step.
    pub points: Vec<Point>,
    /// What to ask for next, where there is more.
    pub next_after: Option<u64>,
}

/// What happened to a run: `GET /retinker/local/v1/runs/{run_id}`, of which this is the part that is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunStory {
    /// When the run was made.
    pub created_at: Time,
    /// The checkpoint that it was made from.
    #[serde(default)]
    pub origin_path: Option<String>,
    /// That its state was lost.
    #[serde(default)]
    pub corruption: Option<Corruption>,
    /// Work that is in memory only.
    #[serde(default)]
    pub unsaved: Option<UnsavedWork>,
    /// By the path of a checkpoint of the run, or of the one that it was made from, the optimizer's last step that is in it,
    /// where that is known.
    #[serde(default)]
    pub saved_steps: BTreeMap<String, u64>,
}

/// That a run's state was lost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Corruption {
    /// Why.
    pub reason: String,
    /// When it was found; not known of corruptions that older versions found.
    #[serde(default)]
    pub since: Option<Time>,
    /// The last optimizer step that is known to have been taken; those of the last second before a kill are not.
    #[serde(default)]
    pub step: Option<u64>,
}

/// Work that is in memory only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnsavedWork {
    /// When the first of it was done.
    pub since: Time,
    /// How many training requests; after a restart not known exactly.
    pub requests: u64,
}
