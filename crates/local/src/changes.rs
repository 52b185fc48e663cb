//! What happens to runs, as it happens: a log in memory that readers follow.
//!
//! Readers hold a position only and share the log, so a slow one costs nothing: when the log has gone past it, or it names
//! a position of another process, it is told to look at everything anew.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde::Serialize;
use tokio::sync::watch;

use crate::sync::lock;
use crate::time::now_millis;

/// How many changes are kept.
const KEPT: usize = 4096;

/// The longest text in a change: some come from clients.
const TEXT: usize = 1000;

/// One change. Describes what readers need to know whether to ask for more.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Change {
    /// A run was made.
    RunCreated { run_id: Arc<str>, session_id: Arc<str>, base_model: Arc<str>, origin_path: Option<String> },
    /// A run was asked for something, or did it; told about once a second. `step` and `loss` are its last step's.
    RunProgress {
        run_id: Arc<str>,
        executed_seq: u64,
        unsaved_requests: u64,
        step: Option<u64>,
        loss: Option<f64>,
    },
    /// A run's state is lost.
    RunCorrupted { run_id: Arc<str>, reason: String },
    /// A checkpoint can be loaded.
    CheckpointSaved { run_id: Arc<str>, tinker_path: String },
    /// A checkpoint was published, or hidden, or expires at another time.
    CheckpointChanged { run_id: Arc<str>, tinker_path: String },
    /// A checkpoint was deleted, replaced, or has expired.
    CheckpointDeleted { run_id: Arc<str>, tinker_path: String },
    /// A session is over, and so is the training of its runs.
    SessionEnded { session_id: String, reason: String },
    /// What the reader knows may be out of date: ask for everything anew. The first event of a stream that does not go
    /// on from another.
    Reset {},
}

impl Change {
    /// The event's name.
    fn name(&self) -> &'static str {
        match self {
            Self::RunCreated { .. } => "run_created",
            Self::RunProgress { .. } => "run_progress",
            Self::RunCorrupted { .. } => "run_corrupted",
            Self::CheckpointSaved { .. } => "checkpoint_saved",
            Self::CheckpointChanged { .. } => "checkpoint_changed",
            Self::CheckpointDeleted { .. } => "checkpoint_deleted",
            Self::SessionEnded { .. } => "session_ended",
            Self::Reset {} => "reset",
        }
    }

    fn shorten(&mut self) {
        if let Self::RunCorrupted { reason, .. } | Self::SessionEnded { reason, .. } = self
            && let Some((at, _)) = reason.char_indices().nth(TEXT)
        {
            reason.truncate(at);
            reason.push('…');
        }
    }
}

/// A change as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) id: String,
    pub(crate) name: &'static str,
    pub(crate) data: String,
}

/// The log.
#[derive(Debug)]
pub(crate) struct Changes {
    /// Tells positions of this process from those of others.
    epoch: i64,
    log: Mutex<VecDeque<Arc<Change>>>,
    /// How many changes there ever were, which is the newest one's number.
    newest: watch::Sender<u64>,
}

impl Default for Changes {
    fn default() -> Self {
        Self { epoch: now_millis(), log: Mutex::default(), newest: watch::Sender::new(0) }
    }
}

impl Changes {
    /// Adds a change.
    pub(crate) fn tell(&self, mut change: Change) {
        change.shorten();
        let mut log = lock(&self.log);
        log.push_back(Arc::new(change));
        if log.len() > KEPT {
            log.pop_front();
        }
        // With the log locked, so that number and log agree.
        self.newest.send_modify(|newest| *newest += 1);
    }

    /// A reader; goes on after the event with this id if it can.
    pub(crate) fn follow(self: &Arc<Self>, last_event_id: Option<&str>) -> Follower {
        let position = last_event_id.and_then(|id| {
            let (epoch, number) = id.split_once('-')?;
            (epoch.parse() == Ok(self.epoch)).then_some(())?;
            number.parse().ok()
        });
        Follower { changes: Arc::clone(self), position, newest: self.newest.subscribe() }
    }

    fn told(&self, number: u64, change: &Change) -> Told {
        Told {
            id: format!("{}-{number}", self.epoch),
            name: change.name(),
            data: serde_json::to_string(change).unwrap_or_default(),
        }
    }

    /// The change after a position and its number. `None` when there is none yet; a reset when it is no longer, or never
    /// was, known what came after.
    fn after(&self, position: Option<u64>) -> Option<(u64, Arc<Change>)> {
        let log = lock(&self.log);
        let newest = *self.newest.borrow();
        let behind = position.and_then(|position| newest.checked_sub(position)).map(usize::try_from);
        match behind {
            Some(Ok(0)) => None,
            Some(Ok(behind)) if behind <= log.len() => {
                let change = log.get(log.len() - behind)?;
                Some((newest - behind as u64 + 1, Arc::clone(change)))
            }
            _ => Some((newest, Arc::new(Change::Reset {}))),
        }
    }
}

/// A reader of the changes.
#[derive(Debug)]
pub(crate) struct Follower {
    changes: Arc<Changes>,
    /// The number of the last change read; `None` = must look at everything first.
    position: Option<u64>,
    newest: watch::Receiver<u64>,
}

impl Follower {
    /// The next change; waits for it.
    pub(crate) async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some((number, change)) = self.changes.after(self.position) {
                self.position = Some(number);
                return Some(self.changes.told(number, &change));
            }
            let position = self.position.unwrap_or_default();
            self.newest.wait_for(|newest| *newest > position).await.ok()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corrupted(n: usize) -> Change {
        Change::RunCorrupted { run_id: format!("run {n}").into(), reason: "r".into() }
    }

    async fn read(follower: &mut Follower, count: usize) -> Vec<Told> {
        let mut told = Vec::new();
        for _ in 0..count {
            told.push(follower.next().await.unwrap());
        }
        told
    }

    #[tokio::test]
    async fn a_reader_goes_on_where_it_was() {
        let changes = Arc::new(Changes::default());
        changes.tell(corrupted(0));
        let mut first = changes.follow(None);
        assert_eq!(read(&mut first, 1).await[0].name, "reset");
        (1..=3).for_each(|n| changes.tell(corrupted(n)));
        let seen = read(&mut first, 3).await;
        assert!(seen[0].data.contains("run 1"), "{seen:?}");
        let again = read(&mut changes.follow(Some(&seen[0].id)), 2).await;
        assert_eq!(again, seen[1..]);
    }

    #[tokio::test]
    async fn a_reader_that_is_not_known_or_too_far_behind_starts_anew() {
        let changes = Arc::new(Changes::default());
        let mut slow = changes.follow(None);
        let reset = read(&mut slow, 1).await.remove(0);
        (0..=KEPT).for_each(|n| changes.tell(corrupted(n)));
        assert_eq!(lock(&changes.log).len(), KEPT);
        let newest = format!("{}-{}", changes.epoch, KEPT + 1);
        let other_process = format!("{}-1", changes.epoch - 1);
        let future = format!("{}-{}", changes.epoch, KEPT + 2);
        for unknown in [reset.id.as_str(), &other_process, &future, "", "x", "-", "1"] {
            let told = read(&mut changes.follow(Some(unknown)), 1).await.remove(0);
            assert_eq!((told.name, &told.id), ("reset", &newest), "{unknown}");
        }
        assert_eq!(read(&mut slow, 1).await[0].name, "reset");
        changes.tell(corrupted(7));
        assert!(read(&mut slow, 1).await[0].data.contains("run 7"));
    }

    #[test]
    fn texts_of_clients_are_cut() {
        let changes = Changes::default();
        changes.tell(Change::SessionEnded { session_id: "s".into(), reason: "é".repeat(1 << 20) });
        let told = changes.told(1, &lock(&changes.log)[0]);
        assert!(told.data.len() < 4 * TEXT, "{}", told.data.len());
    }
}
