//! The record of one restore: what the journal keeps, and what everybody watches.

use std::time::Duration;

use retinker_wire::run::TrainingRun;
use retinker_wire::time::Time;
use serde::{Deserialize, Serialize};

use super::health::Succession;
use super::plan::RestorePlan;
use super::probe::Verification;
use super::verify::OptimizerState;

/// How far a restore is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestoreState {
    /// In the journal; nothing has been sent yet.
    Planned,
    /// A session is being opened for the new run.
    OpeningSession,
    /// The new run's identity is in the journal and its weights are being loaded.
    Loading,
    /// The weights are loaded; the new run is being looked at.
    Checking,
    /// The new run is there; its session is kept alive here until somebody takes it over.
    Adopted,
    /// Somebody has taken the new run over.
    HandedOver,
    /// It failed; `error` says why, and the run can be planned for again.
    Failed,
    /// A person has cancelled it before it was done; the run can be planned for again, by a person.
    Cancelled,
}

impl RestoreState {
    /// Every state, in the order in which they come.
    pub const ALL: [Self; 8] = [
        Self::Planned,
        Self::OpeningSession,
        Self::Loading,
        Self::Checking,
        Self::Adopted,
        Self::HandedOver,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The state's name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::OpeningSession => "opening_session",
            Self::Loading => "loading",
            Self::Checking => "checking",
            Self::Adopted => "adopted",
            Self::HandedOver => "handed_over",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more will happen by itself.
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Adopted | Self::HandedOver | Self::Failed | Self::Cancelled)
    }

    /// Whether a new run has taken the old one's place.
    pub fn is_done(self) -> bool {
        matches!(self, Self::Adopted | Self::HandedOver)
    }

    /// Whether the old run has a live successor or one on its way.
    pub fn holds_the_run(self) -> bool {
        !matches!(self, Self::Failed | Self::Cancelled)
    }
}

/// Requests of the adopted run that a service notes this much later may still be those of the restore itself.
const TAKEN_OVER_MARGIN: Duration = Duration::from_secs(2);

/// What a training program needs to go on with a run that it did not make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The session to keep alive.
    pub session_id: String,
    /// The run.
    pub model_id: String,
    /// The number of the next training request.
    pub next_seq_id: u64,
}

/// One step in a restore's story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreEvent {
    /// When.
    pub at: Time,
    /// The state it led to.
    pub state: RestoreState,
    /// What happened, for people.
    pub message: String,
}

/// A restore.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RestoreRecord {
    /// Its id, also in the new run's labels as `retinker.restore_id`.
    pub id: String,
    /// What was confirmed.
    pub plan: RestorePlan,
    /// How far it is.
    pub state: RestoreState,
    /// On whose behalf it was begun, e.g. `the monitor of ada@box`, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_by: Option<String>,
    /// Its story, oldest first.
    pub events: Vec<RestoreEvent>,
    /// The identity of the new run's session, once chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// The number of the new run in that session, once chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_seq_id: Option<u64>,
    /// The new run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_run_id: Option<String>,
    /// What a training program needs to take it over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachment: Option<Attachment>,
    /// The new run's last request when it was adopted, by the service's clock: later ones are its taker's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_request_time: Option<Time>,
    /// The number of the request that compares the new run with what was saved, once chosen: it is used up, whether or
    /// not the request was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe_seq_id: Option<u64>,
    /// Whether the new run is the one that was saved; `None` until it has been looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    /// Whether the optimizer's state came back, where the plan has that found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer_state: Option<OptimizerState>,
    /// Whether it failed because of its checkpoint: the service refused it, or it was not what had been saved.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub checkpoint_useless: bool,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When it was asked for.
    pub created_at: Time,
    /// When it last changed.
    pub updated_at: Time,
}

impl RestoreRecord {
    /// One that nothing has been done for yet.
    pub fn planned(id: String, plan: RestorePlan, now: Time, message: String) -> Self {
        Self {
            id,
            plan,
            state: RestoreState::Planned,
            asked_by: None,
            events: vec![RestoreEvent { at: now, state: RestoreState::Planned, message }],
            session_id: None,
            model_seq_id: None,
            new_run_id: None,
            attachment: None,
            last_request_time: None,
            probe_seq_id: None,
            verification: None,
            optimizer_state: None,
            checkpoint_useless: false,
            error: None,
            created_at: now,
            updated_at: now,
        }
    }

    /// What it means for the old run; `None` if it does not hold it.
    pub fn succession(&self) -> Option<Succession> {
        let new_run_id = self.new_run_id.clone().filter(|_| self.state.is_done());
        self.state.holds_the_run().then(|| Succession { restore_id: self.id.clone(), new_run_id })
    }

    /// What the new run turned out to be, a sentence for each thing that was looked at.
    pub fn verdicts(&self) -> impl Iterator<Item = String> {
        let weights = self.verification.as_ref().map(ToString::to_string);
        weights.into_iter().chain(self.optimizer_state.as_ref().map(ToString::to_string))
    }

    /// Whether it failed while it loaded its checkpoint or looked at what that gave.
    pub fn failed_at_load(&self) -> bool {
        let last = self.events.iter().rev().find(|event| event.state != RestoreState::Failed);
        let at_load = |state| matches!(state, RestoreState::Loading | RestoreState::Checking);
        self.state == RestoreState::Failed && last.is_some_and(|event| at_load(event.state))
    }

    /// When the new run was last asked for something by a program that has taken it over; `None` as long as none
    /// has. From then on the attachment's `next_seq_id` is used up. `new_run` is the run as it is now.
    pub fn taken_over_at(&self, new_run: &TrainingRun) -> Option<Time> {
        let latest_own = self.last_request_time?.later(TAKEN_OVER_MARGIN);
        Some(new_run.last_request_time).filter(|at| *at > latest_own)
    }
}

/// The restore that made this run.
pub(super) fn maker_of<'a>(records: &'a [RestoreRecord], run_id: &str) -> Option<&'a RestoreRecord> {
    let made = |record: &&RestoreRecord| record.new_run_id.as_deref() == Some(run_id);
    records.iter().filter(made).find(|record| record.state.holds_the_run())
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;
    use crate::client::testing::test;

    #[test]
    fn states_are_named_as_on_the_wire() {
        for state in RestoreState::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
    }

    #[test]
    fn taken_over_once_the_service_tells_of_later_requests() {
        let mut run = samples::run("new", Some(false));
        let adopted = run.last_request_time.as_millis();
        let mut record = samples::record("r", "old");
        assert_eq!(record.taken_over_at(&run), None, "not adopted");
        record.last_request_time = Some(run.last_request_time);
        assert_eq!(record.taken_over_at(&run), None);
        for (later, taken) in [(2_000, false), (2_001, true)] {
            run.last_request_time = Time::from_millis(adopted + later);
            assert_eq!(record.taken_over_at(&run), taken.then_some(run.last_request_time), "{later}");
        }
    }
}
