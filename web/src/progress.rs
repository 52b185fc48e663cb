//! A restore's story as steps.

use retinker::recovery::restore::{RestoreRecord, RestoreState};
use retinker::wire::time::Time;

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Behind us.
    Done,
    /// Under way.
    Active,
    /// Not begun.
    Ahead,
    /// It went wrong here.
    Failed,
    /// Somebody has stopped it here.
    Cancelled,
}

impl Stage {
    /// A word for those who do not see the mark beside the step.
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Active => "under way",
            Self::Ahead => "to come",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The state that the step leads to.
    pub state: RestoreState,
    /// How far it is.
    pub stage: Stage,
    /// When it was last heard of.
    pub at: Option<Time>,
    /// What happened, in the executor's words; empty while nothing did.
    pub message: String,
}

const WAY: [RestoreState; 5] = [
    RestoreState::Planned,
    RestoreState::OpeningSession,
    RestoreState::Loading,
    RestoreState::Checking,
    RestoreState::Adopted,
];

/// The steps of a restore in their order, with what has happened so far. One that failed or was cancelled
/// ends with that; the steps after it are left out, since nothing will take them.
pub fn steps(record: &RestoreRecord) -> Vec<Step> {
    let reached = match record.state {
        RestoreState::HandedOver => Some(WAY.len()),
        RestoreState::Failed | RestoreState::Cancelled => None,
        state => WAY.iter().position(|step| *step == state),
    };
    let mut steps = Vec::with_capacity(WAY.len() + 1);
    for (index, state) in WAY.into_iter().enumerate() {
        let last = record.events.iter().rev().find(|event| event.state == state);
        let stage = match (reached, last) {
            (None, Some(_)) => Stage::Done,
            (None, None) => continue,
            // The last step is a place to be in, not a thing that takes time.
            (Some(at), _) if index < at || state == RestoreState::Adopted && index == at => Stage::Done,
            (Some(at), _) if index == at => Stage::Active,
            _ => Stage::Ahead,
        };
        steps.push(Step {
            state,
            stage,
            at: last.map(|event| event.at),
            message: last.map(|event| event.message.clone()).unwrap_or_default(),
        });
    }
    if reached.is_none() {
        let last = record.events.iter().rev().find(|event| event.state == record.state);
        let failed = record.state == RestoreState::Failed;
        steps.push(Step {
            state: record.state,
            stage: if failed { Stage::Failed } else { Stage::Cancelled },
            at: last.map(|event| event.at),
            message: record
                .error
                .clone()
                .or_else(|| last.map(|event| event.message.clone()))
                .unwrap_or_default(),
        });
    }
    steps
}

/// Whether one account of a restore is newer than another of the same: a slow answer must not undo what an event has
/// told.
pub fn is_newer(one: &RestoreRecord, other: &RestoreRecord) -> bool {
    (one.updated_at, one.events.len()) > (other.updated_at, other.events.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(state: &str, events: &[&str]) -> RestoreRecord {
        let events: Vec<_> = events
            .iter()
            .map(|state| serde_json::json!({"at": "2026-01-01T00:00:01Z", "state": state, "message": format!("{state}!")}))
            .collect();
        serde_json::from_value(serde_json::json!({
            "id": "r1", "state": state, "events": events,
            "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:01Z",
            "plan": {
                "schema": 1, "id": "p", "run_id": "a:train:0", "made_at": "2026-01-01T00:00:00Z", "why": "newest",
                "optimizer": true, "base_model": "m", "root_run_id": "a:train:0", "generation": 1,
                "user_metadata": {}, "lost": {"seconds": 1, "summary": "a second"}, "checks": [],
                "checkpoint": {"checkpoint_id": "weights/1", "checkpoint_type": "training",
                    "time": "2026-01-01T00:00:00Z", "tinker_path": "tinker://a:train:0/weights/1"}
            }
        }))
        .unwrap()
    }

    fn stages(record: &RestoreRecord) -> Vec<Stage> {
        steps(record).into_iter().map(|step| step.stage).collect()
    }

    #[test]
    fn steps_before_the_state_are_done_and_those_after_it_ahead() {
        use Stage::{Active, Ahead, Done};
        let loading = record("loading", &["planned", "opening_session", "loading"]);
        assert_eq!(stages(&loading), [Done, Done, Active, Ahead, Ahead]);
        assert_eq!(steps(&loading)[2].message, "loading!");
        assert_eq!(steps(&loading)[3].message, "");
        assert_eq!(stages(&record("planned", &[])), [Active, Ahead, Ahead, Ahead, Ahead]);
    }

    #[test]
    fn adopted_and_handed_over_are_wholly_done() {
        assert!(
            stages(&record("adopted", &["planned", "adopted"])).iter().all(|stage| *stage == Stage::Done)
        );
        assert!(stages(&record("handed_over", &["planned"])).iter().all(|stage| *stage == Stage::Done));
    }

    #[test]
    fn a_failure_ends_the_list_with_its_reason() {
        let mut failed = record("failed", &["planned", "opening_session", "failed"]);
        assert_eq!(stages(&failed), [Stage::Done, Stage::Done, Stage::Failed]);
        assert_eq!(steps(&failed)[2].message, "failed!");
        failed.error = Some("the file is damaged".into());
        assert_eq!(steps(&failed)[2].message, "the file is damaged");
        let cancelled = record("cancelled", &["planned", "cancelled"]);
        assert_eq!(stages(&cancelled), [Stage::Done, Stage::Cancelled]);
        assert_eq!(steps(&cancelled)[1].message, "cancelled!");
    }

    #[test]
    fn a_late_answer_does_not_undo_an_event() {
        let old = record("planned", &["planned"]);
        let mut new = record("loading", &["planned", "loading"]);
        assert!(is_newer(&new, &old), "more is told at the same instant");
        assert!(!is_newer(&old, &new));
        assert!(!is_newer(&new, &new));
        new.updated_at = "2025-01-01T00:00:00Z".parse().unwrap();
        assert!(!is_newer(&new, &old));
    }
}
