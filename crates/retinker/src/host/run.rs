//! What the page of one run asks for beside the run itself: its curves, and what its verdict rests on.
//!
//! | Call | Request | Answer |
//! |---|---|---|
//! | `GET /retinker/v1/runs/{run_id}/metrics?after=&limit=` | [`MetricsQuery`] | [`RunMetrics`] |
//! | `GET /retinker/v1/runs/{run_id}/evidence` | | [`RunEvidence`] |

use retinker_wire::time::Time;
use serde::{Deserialize, Serialize};

use super::api::ApiProblem;
use super::client::{Call, HostClient};
use super::encode::segment;

/// Which stretch of a run's curves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricsQuery {
    /// Only steps after this one; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// How many points; 10,000 when absent, which is also the most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// A stretch of a run's curves: one point for each optimizer step, column by column. All columns are of one length.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunMetrics {
    /// Whether the service has curves at all. Where it has none, all columns are empty.
    pub offered: bool,
    /// The optimizer's number of the step, rising: a restored run goes on where its checkpoint was.
    pub steps: Vec<u64>,
    /// When the step was taken, in milliseconds since 1970.
    pub times: Vec<i64>,
    /// The sum of the loss; `None` where it was not finite, or no pass came before the step.
    pub loss: Vec<Option<f64>>,
    /// The loss for each token that counts.
    pub loss_per_token: Vec<Option<f64>>,
    /// The gradient's length before it was clipped.
    pub grad_norm: Vec<Option<f64>>,
    /// The optimizer's learning rate.
    pub learning_rate: Vec<Option<f64>>,
    /// What to ask for next, where there is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_after: Option<u64>,
}

/// What is known of a run, and from where: what its verdict rests on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunEvidence {
    /// Oldest first; what has no time comes last.
    pub entries: Vec<Evidence>,
    /// When the run was made, where the service tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,
    /// The session that the run was made in, where the run's id tells which it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<RunSession>,
    /// Whether the host knows a redo log of it (see [`redo`](super::redo)).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub redo_log: bool,
    /// Why some of it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<ApiProblem>,
}

/// One thing that is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// `made`, `unsaved`, `lost`, `found`, `reported`, `given_up`, `session` or `asked`.
    pub kind: String,
    /// Who says so: `service`, `program` (the one that trains the run) or `monitor`.
    pub by: String,
    /// When it happened, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// What, as a sentence for people.
    pub text: String,
}

/// The session of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunSession {
    /// Its id.
    pub session_id: String,
    /// `active`, `cancelled`, `client_finished`, `failed`; empty where the service does not tell.
    #[serde(default)]
    pub status: String,
    /// Whose fault a failure was, or how the client finished it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// What the service says of its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Its name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The project that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
    /// When it was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,
    /// How many runs were made in it; `None` where the service does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<u64>,
    /// How many samplers were made in it; `None` where the service does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samplers: Option<u64>,
    /// The newest of its samplers, at most 10.
    #[serde(default)]
    pub newest_samplers: Vec<RunSampler>,
}

/// A sampler of a run's session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSampler {
    /// Its id.
    pub sampler_id: String,
    /// The checkpoint that it samples from; `None`: its base model, or the service did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_path: Option<String>,
}

impl HostClient {
    /// A stretch of a run's curves.
    pub fn run_metrics(&self, run_id: &str, query: &MetricsQuery) -> Call<'_, RunMetrics> {
        let mut path = format!("/runs/{}/metrics", segment(run_id));
        let members = [("after", query.after), ("limit", query.limit)];
        let members = members.into_iter().filter_map(|(name, value)| Some((name, value?)));
        for ((name, value), before) in members.zip(["?", "&"]) {
            path.push_str(&format!("{before}{name}={value}"));
        }
        Call::of(self.get(&path))
    }

    /// What is known of a run, and from where.
    pub fn run_evidence(&self, run_id: &str) -> Call<'_, RunEvidence> {
        Call::of(self.get(&format!("/runs/{}/evidence", segment(run_id))))
    }
}
