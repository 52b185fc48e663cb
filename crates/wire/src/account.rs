//! Who asks, what was done with their things, and what it costs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::UserMetadata;
use crate::open_enum::open_enum;
use crate::time::Time;

/// The identity behind a credential, as the claims of its token say it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whoami {
    /// The principal's URN.
    pub user_urn: String,
    /// The URN of the organization that the credential acts in.
    pub org_urn: String,
    /// The user's address, if the principal is a user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}

open_enum! {
    /// Which events of the audit log are asked for.
    AuditEventType {
        /// All.
        All = "all",
        /// Those of checkpoints.
        Checkpoints = "checkpoints",
        /// Those of projects.
        Projects = "projects",
        /// Those of teams.
        Teams = "teams",
        /// Those of organizations.
        Organizations = "organizations",
    }
}

/// An entry of the audit log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditLogEntry {
    /// When it happened.
    pub timestamp: Time,
    /// `<resource>_<action>`, e.g. `checkpoint_read`.
    pub event: String,
    /// Who did it, what it was about, and what else the event records.
    #[serde(default)]
    pub event_details: serde_json::Map<String, serde_json::Value>,
}

/// The answer of `GET /api/v1/audit`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AuditLogResponse {
    /// The entries, by time.
    pub entries: Vec<AuditLogEntry>,
}

/// What kind of usage an event is, and how much.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum BillingEventInfo {
    /// Tokens of forward and backward passes.
    Training {
        /// How many.
        token_count: u64,
    },
    /// Tokens of prompts.
    SamplingPrefill {
        /// Whether they were in a cache, which is cheaper.
        cached: bool,
        /// How many.
        token_count: u64,
    },
    /// Sampled tokens.
    SamplingSample {
        /// How many.
        token_count: u64,
    },
    /// Operations on checkpoints.
    Checkpoint {
        /// How many.
        count: u64,
    },
    /// Storage of checkpoints.
    Storage {
        /// Whether it costs nothing.
        #[serde(default)]
        free: bool,
        /// Gigabytes times hours.
        gigabyte_hours: f64,
    },
    /// A kind that this version does not know.
    #[serde(other)]
    Unknown,
}

/// Usage of one hour.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BillingUsageEvent {
    /// When the hour begins.
    pub bucket_start: Time,
    /// When it ends.
    pub bucket_end: Time,
    /// The base model, where it is known.
    #[serde(default)]
    pub base_model: Option<String>,
    /// Whose session it was: a URN.
    #[serde(default)]
    pub user_id: Option<String>,
    /// The same by name.
    #[serde(default)]
    pub user_name: Option<String>,
    /// The session.
    #[serde(default)]
    pub session_id: Option<String>,
    /// The session's project.
    #[serde(default)]
    pub project_id: Option<String>,
    /// Estimated cost in US dollars before credits; not an amount due. Absent where it cannot be said.
    #[serde(default)]
    pub estimated_cost_usd: Option<f64>,
    /// The rate behind it, of tokens.
    #[serde(default)]
    pub effective_rate_usd_per_million_tokens: Option<f64>,
    /// The rate behind it, of storage; a month is 720 hours.
    #[serde(default)]
    pub effective_rate_usd_per_gigabyte_month: Option<f64>,
    /// What was used.
    pub event_info: BillingEventInfo,
}

/// A session that used something.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BillingUsageSession {
    /// Its labels.
    #[serde(default)]
    pub user_metadata: Option<UserMetadata>,
}

/// The answer of `GET /api/v1/billing/usage/events`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BillingUsageResponse {
    /// Usage by the hour.
    pub data: Vec<BillingUsageEvent>,
    /// The sessions in it, by id.
    #[serde(default)]
    pub sessions: BTreeMap<String, BillingUsageSession>,
    /// Up to when costs come from invoices; after that from published rates.
    #[serde(default)]
    pub cost_data_through: Option<Time>,
}

/// Checkpoints of one owner in one project.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointStorageUsage {
    /// The project of their session.
    #[serde(default)]
    pub project_id: Option<String>,
    /// The owner's URN.
    #[serde(default)]
    pub org_user_urn: Option<String>,
    /// The owner's address.
    #[serde(default)]
    pub user_email: Option<String>,
    /// The owner's name.
    #[serde(default)]
    pub user_name: Option<String>,
    /// How many there are.
    pub checkpoint_count: u64,
    /// Their bytes.
    pub size_bytes: u64,
    /// The same in the unit of billing.
    pub size_gigabytes: f64,
    /// What 720 hours of it would cost in US dollars, at the present rate.
    #[serde(default)]
    pub estimated_monthly_cost_usd: Option<f64>,
}

/// The answer of `GET /api/v1/billing/usage/checkpoints/current`; an hour or two old.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckpointStorageUsageResponse {
    /// The present rate.
    #[serde(default)]
    pub effective_rate_usd_per_gigabyte_month: Option<f64>,
    /// By project and owner.
    pub data: Vec<CheckpointStorageUsage>,
}

/// The answer of `GET /api/v1/sessions/{id}/trace_export`, which begins the export and tells how it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
#[non_exhaustive]
pub enum TraceExport {
    /// It can be downloaded for about an hour from this address, which is a secret.
    Ready {
        /// The address.
        url: String,
    },
    /// It could not be built.
    Failed {
        /// Why.
        #[serde(default)]
        error: Option<String>,
    },
    /// It is being built; so is one whose state this version does not know.
    #[serde(other)]
    Pending,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_of_every_kind_is_read_and_a_new_one_is_no_error() {
        let event = |info: &str| {
            let text = format!(
                r#"{{"bucket_start":"2026-01-01T00:00:00Z","bucket_end":"2026-01-01T01:00:00Z","event_info":{info}}}"#
            );
            serde_json::from_str::<BillingUsageEvent>(&text).unwrap().event_info
        };
        assert_eq!(
            event(r#"{"type":"training","token_count":3}"#),
            BillingEventInfo::Training { token_count: 3 }
        );
        assert_eq!(
            event(r#"{"type":"storage","gigabyte_hours":0.5}"#),
            BillingEventInfo::Storage { free: false, gigabyte_hours: 0.5 }
        );
        assert_eq!(event(r#"{"type":"teleport","count":3}"#), BillingEventInfo::Unknown);
    }

    #[test]
    fn an_export_is_read_in_each_state() {
        let read = |text: &str| serde_json::from_str::<TraceExport>(text).unwrap();
        assert_eq!(read(r#"{"status":"pending","url":null,"error":null}"#), TraceExport::Pending);
        assert_eq!(read(r#"{"status":"ready","url":"u"}"#), TraceExport::Ready { url: "u".into() });
        assert_eq!(read(r#"{"status":"failed","error":null}"#), TraceExport::Failed { error: None });
    }
}
