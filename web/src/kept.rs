//! What was read before stays on the page where it could not be read again.

use retinker::host::api::{Activity, ApiProblem, Connections, GettingStarted, RunDetail};
use retinker::host::checkpoints::CheckpointWindow;
use retinker::host::redo::RedoWindow;
use retinker::host::run::RunEvidence;
use retinker::host::samples::SampleSources;
use retinker::host::sessions::{Projects, SamplerWindow, SessionDetail, SessionWindow};
use retinker::host::usage::Usage;
use retinker::recovery::incidents::Incident;

use crate::order::sorted_by;

/// What a page reads of the host.
pub trait Answer: Sized {
    /// Some of it could not be read: it is asked for again soon, though nothing has changed.
    fn is_part(&self) -> bool {
        false
    }

    /// With what was read before, where that could not be read again.
    fn after(self, _before: &Self) -> Self {
        self
    }
}

impl Answer for RunDetail {
    fn is_part(&self) -> bool {
        self.checkpoints_problem.is_some()
    }

    fn after(mut self, before: &Self) -> Self {
        if self.is_part() && self.checkpoints.is_empty() {
            self.checkpoints.clone_from(&before.checkpoints);
        }
        self
    }
}

impl Answer for RunEvidence {
    fn is_part(&self) -> bool {
        self.problem.is_some()
    }

    fn after(mut self, before: &Self) -> Self {
        if self.is_part() {
            let is_told = |kind: &str| self.entries.iter().any(|entry| entry.kind == kind);
            let mut entries: Vec<_> =
                before.entries.iter().filter(|entry| !is_told(&entry.kind)).cloned().collect();
            entries.append(&mut self.entries);
            self.entries = sorted_by(entries, |entry| entry.at.map_or(i64::MAX, |at| at.as_millis()));
            self.created_at = self.created_at.or(before.created_at);
            self.session = self.session.or_else(|| before.session.clone());
        }
        self
    }
}

impl Answer for Usage {
    fn is_part(&self) -> bool {
        self.storage_problem.is_some() || self.billing_problem.is_some()
    }

    fn after(mut self, before: &Self) -> Self {
        if self.storage_problem.is_some() && self.storage.is_empty() {
            self.storage.clone_from(&before.storage);
            self.storage_offered = before.storage_offered;
            self.storage_from_sessions = before.storage_from_sessions;
            self.storage_is_part = before.storage_is_part;
        }
        if self.billing_problem.is_some() && self.used.is_empty() {
            self.used.clone_from(&before.used);
            self.cost_data_through = before.cost_data_through;
            self.billing_offered = before.billing_offered;
        }
        self
    }
}

impl Answer for CheckpointWindow {
    fn is_part(&self) -> bool {
        self.problem.is_some()
    }
}

impl Answer for RedoWindow {
    /// What is under way is nowhere else told of.
    fn is_part(&self) -> bool {
        self.going.as_ref().is_some_and(|going| going.under_way)
    }
}

impl Answer for Vec<Result<RunDetail, ApiProblem>> {
    fn is_part(&self) -> bool {
        self.iter().any(|run| run.as_ref().map_or(true, Answer::is_part))
    }
}

impl Answer for Activity {}
impl Answer for Connections {}
impl Answer for GettingStarted {}
impl Answer for Projects {}
impl Answer for SampleSources {}
impl Answer for SamplerWindow {}
impl Answer for SessionDetail {}
impl Answer for SessionWindow {}
impl Answer for Vec<Incident> {}

#[cfg(test)]
mod tests {
    use retinker::host::api::ApiProblem;
    use retinker::host::run::Evidence;
    use retinker::wire::time::Time;

    use super::*;

    fn problem() -> Option<ApiProblem> {
        Some(ApiProblem { code: "service_unreachable".into(), message: String::new(), hint: String::new() })
    }

    fn told(kind: &str, at: Option<i64>) -> Evidence {
        Evidence {
            kind: kind.into(),
            by: "service".into(),
            at: at.map(Time::from_millis),
            text: format!("{kind} {at:?}"),
        }
    }

    #[test]
    fn what_could_not_be_read_stays_and_what_was_is_new() {
        let before = RunEvidence {
            entries: vec![told("made", Some(1)), told("asked", Some(5)), told("session", None)],
            created_at: Some(Time::from_millis(1)),
            ..RunEvidence::default()
        };
        let now = RunEvidence {
            entries: vec![told("lost", Some(7)), told("asked", Some(6))],
            problem: problem(),
            ..RunEvidence::default()
        };
        let both = now.clone().after(&before);
        let kinds: Vec<_> = both.entries.iter().map(|entry| entry.text.as_str()).collect();
        assert_eq!(kinds, ["made Some(1)", "asked Some(6)", "lost Some(7)", "session None"]);
        assert_eq!((both.created_at, both.problem.is_some()), (before.created_at, true));
        let whole = RunEvidence { problem: None, ..now };
        assert_eq!(whole.clone().after(&before), whole);
    }

    #[test]
    fn checkpoints_stay_only_where_they_could_not_be_read() {
        let read = |checkpoints: serde_json::Value, problem: serde_json::Value| -> RunDetail {
            serde_json::from_value(serde_json::json!({
                "row": {
                    "name": "n",
                    "verdict": {"health": "healthy", "reason": ""},
                    "run": {"training_run_id": "r", "base_model": "m", "last_request_time": "2026-01-02T03:04:05Z"},
                },
                "checkpoints": checkpoints, "checkpoints_problem": problem, "lineage": [], "own_metadata": {}, "snippets": [],
            }))
            .unwrap()
        };
        let one = serde_json::json!([{"checkpoint": {
            "checkpoint_id": "weights/a", "checkpoint_type": "training", "time": "2026-01-02T03:04:05Z",
            "tinker_path": "tinker://r/weights/a", "public": false,
        }}]);
        let before = read(one.clone(), serde_json::Value::Null);
        let unread = read(serde_json::json!([]), serde_json::json!({"code": "c", "message": "", "hint": ""}));
        let kept = unread.clone().after(&before);
        assert_eq!(
            (&kept.checkpoints, &kept.checkpoints_problem),
            (&before.checkpoints, &unread.checkpoints_problem)
        );
        let none = read(serde_json::json!([]), serde_json::Value::Null);
        assert_eq!(none.clone().after(&before), none, "all of them were deleted");
    }
}
