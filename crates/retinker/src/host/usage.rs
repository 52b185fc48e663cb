//! What is stored and what is used, as far as the service tells.

use retinker_wire::time::Time;
use serde::{Deserialize, Serialize};

use super::api::ApiProblem;
use super::client::{Call, HostClient};

/// Which usage to show.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageQuery {
    /// How many days up to the last full hour; 7 when absent, at most 14, the longest that services tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<u64>,
    /// What rows stand for: `model` when absent, `session`, `project` or `day`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// What is stored, what is used, and who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Checkpoints that are stored now, by project and owner, the largest first; empty where the service does not tell.
    pub storage: Vec<StorageRow>,
    /// Whether the service tells what is stored.
    pub storage_offered: bool,
    /// Whether it was summed up from the sessions, which tell no costs, since the service does not tell it by itself.
    #[serde(default)]
    pub storage_from_sessions: bool,
    /// Whether there are more sessions than were summed up.
    #[serde(default)]
    pub storage_is_part: bool,
    /// Why it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_problem: Option<ApiProblem>,
    /// What was used, the dearest first; empty where the service does not tell.
    pub used: Vec<UsedRow>,
    /// Whether the service bills, and tells so.
    pub billing_offered: bool,
    /// Why it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub billing_problem: Option<ApiProblem>,
    /// When the time that `used` is about begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Until when costs come from invoices, and not from published rates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_data_through: Option<Time>,
    /// The principal behind the host's key, where its token tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The organization that the key acts in, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
}

/// Checkpoints of one owner in one project.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageRow {
    /// The project; `None` for checkpoints of none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
    /// The owner by name or address, where the service tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// How many checkpoints.
    pub checkpoints: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What a month of it would cost, in millionths of a US dollar, as the service estimates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly_micros: Option<u64>,
}

/// What something used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedRow {
    /// The base model, session, project or day; empty where the service does not say.
    pub what: String,
    /// Tokens trained on.
    pub training_tokens: u64,
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// Sampled tokens.
    pub sampled_tokens: u64,
    /// Estimated cost in millionths of a US dollar, before credits; `None` where nothing of it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_micros: Option<u64>,
}

impl HostClient {
    /// What is stored and what is used.
    pub fn usage(&self, query: &UsageQuery) -> Call<'_, Usage> {
        let (days, by) = (query.days.unwrap_or(7), query.by.as_deref().unwrap_or("model"));
        Call::of(self.get(&format!("/usage?days={days}&by={by}")))
    }
}
