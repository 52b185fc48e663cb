//! What a monitor tells of: one value per event, the same for logs, JSON lines, webhooks and commands.

use retinker_wire::time::Time;
use serde::{Deserialize, Serialize};

use super::health::{FailureCategory, Health};
use super::restore::{RestoreRecord, RestoreState};

/// What happened to a run that has lost its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// It was seen to be poisoned, or its session to be over. Told once, by whichever monitor of a journal saw it first.
    Detected,
    /// The checkpoint to restore from was given a longer life.
    Protected,
    /// A plan was made and is about to be carried out; `message` says why from this checkpoint.
    Planned,
    /// A restore has begun.
    Started,
    /// The checkpoint is chosen and the new run's identity is in the journal.
    CheckpointSelected,
    /// The weights are loaded into the new run.
    ClientCreated,
    /// The new run was compared with what was saved; `message` says with which outcome.
    Verified,
    /// The new run is adopted: it has taken the old one's place.
    Completed,
    /// The restore failed.
    Failed,
    /// A person has cancelled the restore.
    Cancelled,
    /// The run is not restored any more: its budget is spent, it makes no progress, or there is nothing to restore it from.
    Exhausted,
}

impl EventKind {
    /// Every kind, in the order in which they come.
    pub const ALL: [Self; 11] = [
        Self::Detected,
        Self::Protected,
        Self::Planned,
        Self::Started,
        Self::CheckpointSelected,
        Self::ClientCreated,
        Self::Verified,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::Exhausted,
    ];

    /// The kind's name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Detected => "detected",
            Self::Protected => "protected",
            Self::Planned => "planned",
            Self::Started => "started",
            Self::CheckpointSelected => "checkpoint_selected",
            Self::ClientCreated => "client_created",
            Self::Verified => "verified",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Exhausted => "exhausted",
        }
    }
}

/// An event. Holds nothing secret: no key, no label but the run's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryEvent {
    /// What happened.
    pub event: EventKind,
    /// When, by the monitor's clock.
    pub at: Time,
    /// The service that the run is on, as the journal is bound to it.
    pub service: String,
    /// The poisoned run.
    pub run_id: String,
    /// A sentence for people.
    pub message: String,
    /// Since when the run is poisoned, as far as is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Whose fault it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<FailureCategory>,
    /// How the run was found to be; of `detected`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// The restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_id: Option<String>,
    /// The checkpoint that is restored from: a `tinker://` path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    /// The new run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_run_id: Option<String>,
}

impl RecoveryEvent {
    /// One that says no more than this.
    pub fn new(
        event: EventKind,
        at: Time,
        service: impl Into<String>,
        run_id: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            event,
            at,
            service: service.into(),
            run_id: run_id.into(),
            message: message.into(),
            since: None,
            category: None,
            health: None,
            restore_id: None,
            checkpoint: None,
            new_run_id: None,
        }
    }
}

/// What a restore's last write to the journal tells. Tell it after the write: a crash right in between loses an event, and
/// nothing tells one twice; the journal has the whole story.
pub fn of_progress(service: &str, record: &RestoreRecord) -> Vec<RecoveryEvent> {
    record.events.len().checked_sub(1).map_or_else(Vec::new, |last| of_step(service, record, last))
}

/// What one step of a restore's story tells.
pub(super) fn of_step(service: &str, record: &RestoreRecord, step: usize) -> Vec<RecoveryEvent> {
    let (before, Some(last)) = (record.events.get(..step).unwrap_or_default(), record.events.get(step))
    else {
        return Vec::new();
    };
    let told = |event, message: String| RecoveryEvent {
        category: None,
        since: None,
        restore_id: Some(record.id.clone()),
        checkpoint: Some(record.plan.checkpoint.tinker_path.clone()),
        new_run_id: record.new_run_id.clone(),
        ..RecoveryEvent::new(event, last.at, service, &record.plan.run_id, message)
    };
    let message = last.message.clone();
    // A state that is written twice, with more detail, is told once.
    let first = before.iter().all(|event| event.state != last.state);
    let verified = record.verification.as_ref().map(|v| told(EventKind::Verified, v.to_string()));
    match last.state {
        RestoreState::Planned => {
            vec![told(EventKind::Planned, record.plan.why.clone()), told(EventKind::Started, message)]
        }
        RestoreState::Loading if first => vec![told(EventKind::CheckpointSelected, message)],
        RestoreState::Checking if first => vec![told(EventKind::ClientCreated, message)],
        RestoreState::Adopted => verified.into_iter().chain([told(EventKind::Completed, message)]).collect(),
        RestoreState::Failed => verified.into_iter().chain([told(EventKind::Failed, message)]).collect(),
        RestoreState::Cancelled => vec![told(EventKind::Cancelled, message)],
        _ => Vec::new(),
    }
}

/// Where events go. Must not block: what is slow puts them in a queue.
pub trait EventSink: std::fmt::Debug + Send + Sync + 'static {
    /// Takes an event.
    fn tell(&self, event: &RecoveryEvent);
}

/// Events as `tracing` events of the target `retinker::recovery`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Traced;

impl EventSink for Traced {
    fn tell(&self, event: &RecoveryEvent) {
        tracing::info!(
            target: "retinker::recovery",
            event = event.event.as_str(),
            run_id = %event.run_id,
            restore_id = event.restore_id,
            checkpoint = event.checkpoint,
            new_run_id = event.new_run_id,
            "{}",
            event.message
        );
    }
}

/// Several places, in this order.
impl<S: EventSink> EventSink for Vec<S> {
    fn tell(&self, event: &RecoveryEvent) {
        for sink in self {
            sink.tell(event);
        }
    }
}

impl EventSink for std::sync::Arc<dyn EventSink> {
    fn tell(&self, event: &RecoveryEvent) {
        (**self).tell(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::test;

    #[test]
    fn kinds_are_named_as_on_the_wire() {
        for kind in EventKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let event = RecoveryEvent::new(EventKind::Detected, Time::from_millis(0), "local", "r", "It failed.");
        let value = serde_json::to_value(&event).unwrap();
        let mut names: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["at", "event", "message", "run_id", "service"]);
        assert_eq!(serde_json::from_value::<RecoveryEvent>(value).unwrap(), event);
    }
}
