//! Sessions and projects, as the host tells them.

use std::fmt::Write as _;

use retinker_wire::UserMetadata;
use retinker_wire::sampler::GetSamplerResponse;
use retinker_wire::time::Time;
use serde::{Deserialize, Serialize};

use super::api::ApiProblem;
use super::client::{Call, HostClient};
use super::encode::{percent, segment};
use super::language::split;
use crate::recovery::health::Health;

/// Which sessions to show. Absent members mean: all, the newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionsQuery {
    /// A session's id, or words of its name; `meta.KEY=VALUE` among them is a label that it has. Absent or empty = all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub q: Option<String>,
    /// Only sessions in one of these states, with commas: `active`, `failed`, `cancelled`, `client_finished`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Only sessions of this project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// How many to give; 50 when absent, at most 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

impl SessionsQuery {
    /// What `q` looks for: the id or the words of a name, `None` = any; and the labels.
    pub fn wanted(&self) -> (Option<String>, UserMetadata) {
        let (mut name, mut labels) = (Vec::new(), UserMetadata::new());
        for word in split(self.q.as_deref().unwrap_or_default()).into_iter().map(|word| word.text) {
            match word.strip_prefix("meta.").and_then(|label| label.split_once('=')) {
                Some((key, value)) if !key.is_empty() => {
                    labels.insert(key.to_owned(), value.to_owned());
                }
                _ => name.push(word),
            }
        }
        ((!name.is_empty()).then(|| name.join(" ")), labels)
    }
}

/// A run of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRun {
    /// The run.
    pub run_id: String,
    /// Its name for people; its id, where it has none or the host has not read it yet.
    pub name: String,
    /// How it is; `None` where the host has not read it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

/// A session in a list. A service without a search tells ids and names alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// The session.
    pub session_id: String,
    /// Its name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Its project; `None` where it has none or the service does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,
    /// `active`, `failed`, `cancelled` or `client_finished`; `None` where the service does not tell, or tells what is not
    /// known here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// More of the status: whose fault a failure is (`user`, `internal`), or how its client ended it (`success`, `errored`,
    /// `interrupted`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// What the service says of it, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How many checkpoints its runs have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoints: Option<u64>,
    /// Bytes of these checkpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_bytes: Option<u64>,
    /// How many runs of it the host knows.
    #[serde(default)]
    pub run_count: u64,
    /// The first of them: at most 20.
    #[serde(default)]
    pub runs: Vec<SessionRun>,
    /// When one of its runs was last asked for something; a service does not tell its heartbeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_request: Option<Time>,
    /// Its labels.
    #[serde(default)]
    pub labels: UserMetadata,
}

/// A part of the list of sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionWindow {
    /// The sessions, newest first.
    pub rows: Vec<SessionRow>,
    /// Whether there are more. Services do not count sessions: the number of rows is their total only when this is `false`.
    pub more: bool,
    /// Whether the service searches sessions. Where it does not, all but the limit of the query is passed over, and rows
    /// have no status.
    pub searchable: bool,
}

/// Everything about one session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionDetail {
    /// The session as in a list, with all of its runs.
    pub session: SessionRow,
    /// Its samplers: at most 50 of them.
    pub samplers: Vec<SamplerRow>,
    /// How many samplers it has.
    pub sampler_count: u64,
    /// Whether the service can assign it to a project: services without a search of sessions have no projects.
    pub has_projects: bool,
    /// In an answer to who has done something with it: it is done, and how it stands could not be read. Nothing else is told then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unread: bool,
}

/// The samplers of the newest sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SamplerWindow {
    /// Those of the newest sessions, newest session first: at most 100 of them.
    pub rows: Vec<SamplerRow>,
    /// How many sessions were looked into: at most 50; none where there is only the sampler whose id is looked for, of an older one.
    pub sessions: u64,
    /// How many samplers of theirs were not asked about: beyond 100 of those that may be meant.
    #[serde(default)]
    pub unread: u64,
    /// Whether the service tells of sessions and samplers at all.
    pub offered: bool,
}

/// Which samplers are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SamplersQuery {
    /// A part of their id, their session's, their base model's name or their checkpoint's path; absent or empty = all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub q: Option<String>,
}

/// A sampler of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SamplerRow {
    /// The sampler.
    pub sampler_id: String,
    /// The session that it was made in, in a list over several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// What its weights belong to; `None` where it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_model: Option<String>,
    /// The checkpoint that it was made from; `None` for a base model by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_path: Option<String>,
    /// Why it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<ApiProblem>,
}

impl From<GetSamplerResponse> for SamplerRow {
    fn from(sampler: GetSamplerResponse) -> Self {
        let GetSamplerResponse { sampler_id, base_model, model_path } = sampler;
        Self { sampler_id, session_id: None, base_model: Some(base_model), model_path, problem: None }
    }
}

/// Ends a session: its runs and samplers can no longer be used. The first end counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishSession {
    /// How it ended: `success`, `errored` or `interrupted`.
    pub reason: String,
}

/// Moves a session into a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignProject {
    /// The project; not empty.
    pub project_id: String,
}

/// Sessions by project, the largest project first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Projects {
    /// The projects.
    pub projects: Vec<ProjectRow>,
    /// `false`: there are more sessions than were read, so counts are at least so many.
    pub whole: bool,
    /// `false`: the service tells no projects.
    pub offered: bool,
}

/// What is in a project.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectRow {
    /// The project; empty = sessions without one.
    pub project_id: String,
    /// Its sessions.
    pub sessions: u64,
    /// Those that last.
    pub active: u64,
    /// Those that failed.
    pub failed: u64,
    /// Checkpoints of their runs.
    pub checkpoints: u64,
    /// Bytes of these checkpoints, where the service tells.
    pub storage_bytes: u64,
}

impl HostClient {
    /// Sessions, newest first.
    pub fn sessions(&self, query: &SessionsQuery) -> Call<'_, SessionWindow> {
        let mut path = format!("/sessions?limit={}", query.limit.unwrap_or(50));
        for (name, value) in [("q", &query.q), ("status", &query.status), ("project", &query.project)] {
            if let Some(value) = value {
                let _ = write!(path, "&{name}={}", percent(value, ""));
            }
        }
        Call::of(self.get(&path))
    }

    /// Everything about one session.
    pub fn session(&self, session_id: &str) -> Call<'_, SessionDetail> {
        Call::of(self.get(&format!("/sessions/{}", segment(session_id))))
    }

    /// Ends a session. Answers how it stands then, if that can be read.
    pub fn finish_session(&self, session_id: &str, reason: &str) -> Call<'_, SessionDetail> {
        let body = FinishSession { reason: reason.to_owned() };
        Call::of(self.post(&format!("/sessions/{}/finish", segment(session_id)), &body))
    }

    /// Moves a session into a project. Answers how it stands then, if that can be read.
    pub fn assign_project(&self, session_id: &str, project_id: &str) -> Call<'_, SessionDetail> {
        let body = AssignProject { project_id: project_id.to_owned() };
        Call::of(self.post(&format!("/sessions/{}/project", segment(session_id)), &body))
    }

    /// The samplers of the newest sessions in which this text is found.
    pub fn samplers(&self, q: &str) -> Call<'_, SamplerWindow> {
        Call::of(self.get(&format!("/samplers?q={}", percent(q, ""))))
    }

    /// Sessions by project.
    pub fn projects(&self) -> Call<'_, Projects> {
        Call::of(self.get("/projects"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::test;

    #[test]
    fn names_and_labels_are_told_apart() {
        let wanted = |q: &str| SessionsQuery { q: Some(q.to_owned()), ..SessionsQuery::default() }.wanted();
        let labels = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect::<UserMetadata>()
        };
        assert_eq!(SessionsQuery::default().wanted(), (None, labels(&[])));
        assert_eq!(wanted("  "), (None, labels(&[])));
        assert_eq!(wanted("my  sweep"), (Some("my sweep".into()), labels(&[])));
        assert_eq!(wanted("sweep meta.team=x"), (Some("sweep".into()), labels(&[("team", "x")])));
        assert_eq!(
            wanted("meta.name=\"never saved\" meta.a="),
            (None, labels(&[("name", "never saved"), ("a", "")]))
        );
        assert_eq!(wanted("meta.=x meta.y"), (Some("meta.=x meta.y".into()), labels(&[])));
    }
}
