//! Keeps the sessions of restored runs alive: from the load until somebody has taken the run over, and a while
//! beyond, so that the taker's first heartbeat comes in time.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use retinker_wire::session::HEARTBEAT_INTERVAL;
use retinker_wire::time::Time;

use super::journal::Store;
use super::restore::{RestoreRecord, RestoreState};
use crate::client::Api;
use crate::runtime::Runtime;

/// How long a session is kept alive beside its taker.
pub const HAND_OVER_GRACE: Duration = Duration::from_secs(120);

/// Heartbeats under way at once.
const AT_ONCE: usize = 16;

/// Until when a restore's session is kept alive; `None`: until the run is handed over, or not at all
/// (see [`needs_heartbeat`]).
pub fn heartbeats_until(record: &RestoreRecord) -> Option<Time> {
    let handed_over = record.events.iter().find(|event| event.state == RestoreState::HandedOver)?;
    Some(handed_over.at.later(HAND_OVER_GRACE))
}

/// The session that this restore needs kept alive now.
pub fn needs_heartbeat(record: &RestoreRecord, now: Time) -> Option<&str> {
    let session = record.session_id.as_deref()?;
    match record.state {
        RestoreState::Loading | RestoreState::Checking | RestoreState::Adopted => Some(session),
        RestoreState::HandedOver => heartbeats_until(record).filter(|until| now < *until).map(|_| session),
        RestoreState::Planned
        | RestoreState::OpeningSession
        | RestoreState::Failed
        | RestoreState::Cancelled => None,
    }
}

/// The sessions to keep alive.
fn sessions_of(records: &[RestoreRecord], now: Time) -> BTreeSet<String> {
    let replaced = replaced(records);
    let is_replaced = |record: &&RestoreRecord| {
        record.new_run_id.as_ref().is_some_and(|new_run| replaced.contains(new_run.as_str()))
    };
    let needed = records.iter().filter(|record| !is_replaced(record));
    needed.filter_map(|record| needs_heartbeat(record, now)).map(str::to_owned).collect()
}

/// Runs that another has taken the place of: nobody will take these over any more.
fn replaced(records: &[RestoreRecord]) -> BTreeSet<&str> {
    records.iter().filter(|record| record.state.is_done()).map(|record| record.plan.run_id.as_str()).collect()
}

/// Sends the heartbeats. What it owns stands in the journal, so a restart goes on with the same sessions.
pub struct Ownership {
    api: Api,
    store: Arc<dyn Store>,
    runtime: Arc<dyn Runtime>,
    /// Sessions that the service says are over (status 410).
    over: BTreeSet<String>,
    /// Those that were kept alive last: they are for as long as the journal cannot be read.
    kept: BTreeSet<String>,
}

impl fmt::Debug for Ownership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ownership").field("over", &self.over).finish_non_exhaustive()
    }
}

impl Ownership {
    /// Over this service and journal.
    pub fn new(api: Api, store: Arc<dyn Store>, runtime: Arc<dyn Runtime>) -> Self {
        Self { api, store, runtime, over: BTreeSet::new(), kept: BTreeSet::new() }
    }

    /// Sends heartbeats for ever: each round [`HEARTBEAT_INTERVAL`] after the last one ended.
    pub async fn run(mut self) {
        loop {
            self.beat().await;
            self.runtime.sleep(HEARTBEAT_INTERVAL).await;
        }
    }

    /// One round of heartbeats; answers how many the service took. A failed one is tried again in the next round.
    pub async fn beat(&mut self) -> usize {
        match self.store.list().await {
            Ok(records) => self.kept = sessions_of(&records, self.runtime.now()),
            Err(error) => {
                tracing::error!(%error, "the journal cannot be read; the sessions that are known are kept alive");
            }
        }
        let sessions: Vec<String> = self.kept.difference(&self.over).cloned().collect();
        let api = &self.api;
        let answers: Vec<_> = stream::iter(sessions)
            .map(|session| async move { (api.session_heartbeat(&session).await, session) })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let mut taken = 0;
        for (answer, session) in answers {
            match answer {
                Ok(_) => taken += 1,
                Err(error) if error.status() == Some(410) => {
                    tracing::warn!(%session, "the session of a restored run is over, and what it had not saved with it");
                    self.over.insert(session);
                }
                Err(error) => tracing::warn!(%session, %error, "a heartbeat failed"),
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;
    use crate::client::testing::test;

    fn record(state: RestoreState, events: &[(i64, RestoreState)]) -> RestoreRecord {
        RestoreRecord {
            state,
            session_id: Some("s".into()),
            events: events
                .iter()
                .map(|(at, state)| super::super::restore::RestoreEvent {
                    at: Time::from_millis(*at),
                    state: *state,
                    message: String::new(),
                })
                .collect(),
            ..samples::record("r", "old")
        }
    }

    #[test]
    fn owned_until_handed_over_and_a_grace_beyond() {
        let at = Time::from_millis;
        for state in [RestoreState::Loading, RestoreState::Checking, RestoreState::Adopted] {
            assert_eq!(needs_heartbeat(&record(state, &[]), at(0)), Some("s"), "{state:?}");
        }
        for state in [RestoreState::Planned, RestoreState::OpeningSession, RestoreState::Failed] {
            assert_eq!(needs_heartbeat(&record(state, &[]), at(0)), None, "{state:?}");
        }
        let handed = record(RestoreState::HandedOver, &[(1_000, RestoreState::HandedOver)]);
        assert_eq!(heartbeats_until(&handed), Some(at(121_000)));
        assert_eq!(needs_heartbeat(&handed, at(120_999)), Some("s"));
        assert_eq!(needs_heartbeat(&handed, at(121_000)), None);
    }

    #[test]
    fn a_restored_run_that_was_replaced_is_let_go() {
        let first = RestoreRecord { new_run_id: Some("n1".into()), ..record(RestoreState::Adopted, &[]) };
        let mut second = RestoreRecord { new_run_id: Some("n2".into()), ..samples::record("r2", "n1") };
        assert!(!replaced(&[first.clone(), second.clone()]).contains("n1"), "its restore has only begun");
        second.state = RestoreState::Adopted;
        let both = [first, second];
        assert!(replaced(&both).contains("n1") && !replaced(&both).contains("n2"));
    }

    #[test]
    fn heartbeats_go_on_after_a_restart_and_end_when_the_session_does() {
        use super::super::journal::Begun;
        use super::super::simulation::{Service, World};
        let world = World::new(Service::default());
        let ownership =
            || Ownership::new(world.api.clone(), Arc::clone(&world.store), Arc::new(world.runtime.clone()));
        world.runtime.block_on(async {
            let executor = world.executor();
            let Begun::New(record) = executor.begin(samples::plan("old")).await.unwrap() else { panic!() };
            executor.run(&record.id).await.unwrap();
            assert_eq!(ownership().beat().await, 1);
            let mut after_restart = ownership();
            assert_eq!(after_restart.beat().await, 1);
            world.crash.unreadable.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(after_restart.beat().await, 1, "a journal that is away costs no run its session");
            assert_eq!(ownership().beat().await, 0, "it cannot know any");
            world.crash.unreadable.store(false, std::sync::atomic::Ordering::Relaxed);
            executor.hand_over(&record.id).await.unwrap();
            assert_eq!(after_restart.beat().await, 1, "beside the taker");
            world.service().over.push("s0".into());
            assert_eq!(after_restart.beat().await, 0);
            world.service().over.clear();
            assert_eq!(after_restart.beat().await, 0, "410 is final");
            assert_eq!(ownership().beat().await, 1);
            world.sleep(HAND_OVER_GRACE).await;
            assert_eq!(ownership().beat().await, 0, "the grace is over at {}", world.now());
            assert_eq!(world.service().heartbeats, ["s0"; 5]);
        });
    }
}
