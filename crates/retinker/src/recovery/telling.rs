//! Tells each event of a journal once, whichever program on it made it happen, and whichever tells.
//!
//! What happened is in the journal. A program that has somebody to tell (a webhook, another program, a file) looks there
//! for what has not been told yet, claims it there, and tells it; one that has nobody claims nothing. A crash right between
//! claim and telling loses an event, and nothing tells one twice.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{Either, select};
use retinker_wire::time::Time;
use serde::{Deserialize, Serialize};

use super::events::{EventKind, EventSink, RecoveryEvent, of_step};
use super::findings::{self, Finding};
use super::health::Health;
use super::journal::shelf::Shelf;
use super::journal::{Store, StoreError};
use super::protect::{self, Protection};
use super::restore::RestoreRecord;
use crate::runtime::Runtime;

/// Between two looks for something new.
const LOOK: Duration = Duration::from_millis(250);
/// The same while the journal cannot be read.
const LOOK_AFTER_FAILURE: Duration = Duration::from_secs(5);

const TOLD: Shelf<Told> = Shelf::new("told");
const BEGUN: Shelf<Begun> = Shelf::new("telling");
/// There is one beginning.
const BEGINNING: &str = "begun";

/// How much has been told of a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    /// So many of its events, from the first on.
    events: usize,
}

/// Since when events of this journal are told. What happened before is history to whoever begins to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Begun {
    at: Time,
}

/// Tells the events of one journal.
pub struct Teller {
    store: Arc<dyn Store>,
    runtime: Arc<dyn Runtime>,
    sink: Arc<dyn EventSink>,
    service: String,
    /// Up to where the journal has been read.
    revision: Option<u64>,
}

impl fmt::Debug for Teller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Teller")
            .field("service", &self.service)
            .field("sink", &self.sink)
            .finish_non_exhaustive()
    }
}

impl Teller {
    /// Tells `sink` of what happens in this journal, which is bound to `service`.
    pub fn new(
        store: Arc<dyn Store>,
        runtime: Arc<dyn Runtime>,
        sink: Arc<dyn EventSink>,
        service: impl Into<String>,
    ) -> Self {
        Self { store, runtime, sink, service: service.into(), revision: None }
    }

    /// Tells until `ended` resolves, and once more then. Let it come to its end: one that is dropped while it claims something
    /// loses that.
    pub async fn run_until(&mut self, ended: impl Future<Output = ()>) {
        let (mut ended, mut failing) = (pin!(ended), false);
        loop {
            let told = self.tell().await;
            if let Err(error) = &told
                && !failing
            {
                tracing::error!(%error, "events cannot be told now");
            }
            failing = told.is_err();
            let pause = if failing { LOOK_AFTER_FAILURE } else { LOOK };
            if let Either::Right(_) = select(self.runtime.sleep(pause), ended.as_mut()).await {
                break;
            }
        }
        if let Err(error) = self.tell().await {
            tracing::error!(%error, "the last events are not told");
        }
    }

    /// Tells what is new, and how many events that were. The first call on a journal tells nothing, but that from then on
    /// everything is told.
    ///
    /// # Errors
    /// The journal could not be read or written. What was claimed is told.
    pub async fn tell(&mut self) -> Result<usize, StoreError> {
        let revision = self.store.revision().await?;
        if self.revision == Some(revision) {
            return Ok(0);
        }
        let store = Arc::clone(&self.store);
        let begun = self.begun(&*store).await?;
        let told = TOLD.all(&*store).await?;
        let mut count = 0;
        for (key, events) in self.things(&*store).await? {
            let known = told.get(&key).map_or(0, |told| told.events);
            // Of history nothing is claimed either: there may be much of it.
            if !events.iter().skip(known).flatten().any(|event| event.at >= begun) {
                continue;
            }
            let Some(from) = self.claim(&*store, &key, events.len()).await? else { continue };
            for event in events.iter().skip(from).flatten().filter(|event| event.at >= begun) {
                self.sink.tell(event);
                count += 1;
            }
        }
        self.revision = Some(revision);
        Ok(count)
    }

    /// Claims the steps of a thing up to this number; answers from where on they are this program's to tell.
    async fn claim(&self, store: &dyn Store, key: &str, steps: usize) -> Result<Option<usize>, StoreError> {
        let from = AtomicUsize::new(0);
        let change = |found: Option<&Told>| {
            let before = found.map_or(0, |found| found.events);
            from.store(before, Ordering::Relaxed);
            (before < steps).then_some(Told { events: steps })
        };
        let claimed = TOLD.update(store, key, change).await?.is_ok();
        Ok(claimed.then(|| from.into_inner()))
    }

    /// Since when events are told.
    async fn begun(&self, store: &dyn Store) -> Result<Time, StoreError> {
        let now = Begun { at: self.runtime.now() };
        let first = |found: Option<&Begun>| found.is_none().then_some(now);
        let (Ok(begun) | Err(Some(begun))) = BEGUN.update(store, BEGINNING, first).await? else {
            return Ok(now.at);
        };
        Ok(begun.at)
    }

    /// Everything of which there are events: by its key, what each of its steps tells, in the order in which things began.
    async fn things(&self, store: &dyn Store) -> Result<Vec<(String, Vec<Vec<RecoveryEvent>>)>, StoreError> {
        let mut things = Vec::new();
        let found = findings::all(store).await?;
        things.extend(found.values().map(|finding| (finding.noted_at(), self.of_finding(finding))));
        let protected = protect::protections(store).await?;
        things.extend(protected.iter().filter_map(|one| Some((one.at, self.of_protection(one)?))));
        let restores = store.list().await?;
        things.extend(restores.iter().map(|record| (record.created_at, self.of_restore(record))));
        things.sort_by_key(|(at, _)| *at);
        Ok(things.into_iter().map(|(_, thing)| thing).collect())
    }

    fn of_finding(&self, finding: &Finding) -> (String, Vec<Vec<RecoveryEvent>>) {
        let event = |kind, message: &str| {
            RecoveryEvent::new(kind, finding.noted_at(), &self.service, &finding.run_id, message)
        };
        let health = match (finding.stalled, finding.recoverable) {
            (true, _) => Health::Stalled,
            (false, true) => Health::Poisoned,
            (false, false) => Health::Unrecoverable,
        };
        let detected = RecoveryEvent {
            since: Some(finding.since),
            category: Some(finding.category),
            health: Some(health),
            ..event(EventKind::Detected, &finding.reason)
        };
        // It may be given up long after it was found.
        let exhausted = finding.given_up.as_ref().zip(finding.given_up_at);
        let exhausted =
            exhausted.map(|(why, at)| vec![RecoveryEvent { at, ..event(EventKind::Exhausted, why) }]);
        let kind = if finding.stalled { "stalled" } else { "lost" };
        (format!("{kind} {}", finding.run_id), std::iter::once(vec![detected]).chain(exhausted).collect())
    }

    fn of_protection(&self, protection: &Protection) -> Option<(String, Vec<Vec<RecoveryEvent>>)> {
        let message = protection.message()?;
        let event = RecoveryEvent::new(
            EventKind::Protected,
            protection.at,
            &self.service,
            &protection.run_id,
            message,
        );
        let event = RecoveryEvent { checkpoint: Some(protection.tinker_path.clone()), ..event };
        // Protected again from the same end, it is no news.
        let key = format!("protected {} {}", protection.tinker_path, protection.expired_at);
        Some((key, vec![vec![event]]))
    }

    fn of_restore(&self, record: &RestoreRecord) -> (String, Vec<Vec<RecoveryEvent>>) {
        let steps = (0..record.events.len()).map(|step| of_step(&self.service, record, step));
        (record.id.clone(), steps.collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::events::EventKind::{
        CheckpointSelected, ClientCreated, Completed, Detected, Exhausted, Planned, Started, Verified,
    };
    use super::super::journal::Begun as Restore;
    use super::super::simulation::{Service, World};
    use super::super::{reports, samples};
    use super::*;
    use crate::client::testing::test;
    use crate::recovery::health::{FailureCategory, Verdict};

    #[derive(Debug, Clone, Default)]
    struct Heard(Arc<Mutex<Vec<RecoveryEvent>>>);

    impl EventSink for Heard {
        fn tell(&self, event: &RecoveryEvent) {
            self.0.lock().unwrap().push(event.clone());
        }
    }

    impl Heard {
        fn kinds(&self) -> Vec<EventKind> {
            self.0.lock().unwrap().drain(..).map(|event| event.event).collect()
        }
    }

    fn teller(world: &World, heard: &Heard) -> Teller {
        let (runtime, sink) = (Arc::new(world.runtime.clone()), Arc::new(heard.clone()));
        Teller::new(Arc::clone(&world.store), runtime, sink, "service")
    }

    async fn find(world: &World, run_id: &str) {
        let verdict = Verdict {
            health: Health::Poisoned,
            reason: "It failed.".into(),
            category: Some(FailureCategory::Server),
            since: None,
        };
        let finding = Finding::of(run_id, &verdict, None, world.now(), 0);
        assert!(findings::note(&*world.store, &finding).await.unwrap());
    }

    /// Who makes it happen tells nobody, as a command does that ends; two others listen.
    #[test]
    fn what_others_did_is_told_once_by_one_of_those_who_listen() {
        let world = World::new(Service::default());
        let (heard, other) = (Heard::default(), Heard::default());
        let (mut a, mut b) = (teller(&world, &heard), teller(&world, &other));
        world.runtime.block_on(async {
            find(&world, "long ago").await;
            findings::give_up(&*world.store, "long ago", Some("enough".into()), world.now()).await.unwrap();
            world.sleep(Duration::from_secs(1)).await;
            assert_eq!(a.tell().await.unwrap(), 0, "that is history");
            find(&world, "old").await;
            let executor = world.executor();
            let Restore::New(record) = executor.begin(samples::plan("old")).await.unwrap() else { panic!() };
            let (of_a, of_b) = futures_util::future::join(a.tell(), b.tell()).await;
            assert_eq!(of_a.unwrap() + of_b.unwrap(), 3);
            executor.run(&record.id).await.unwrap();
            findings::give_up(&*world.store, "old", Some("enough".into()), world.now()).await.unwrap();
            for _ in 0..2 {
                b.tell().await.unwrap();
                a.tell().await.unwrap();
            }
            let mut kinds = heard.kinds();
            kinds.extend(other.kinds());
            kinds.sort_unstable();
            let whole = [
                Detected,
                Planned,
                Started,
                CheckpointSelected,
                ClientCreated,
                Verified,
                Completed,
                Exhausted,
            ];
            assert_eq!(kinds, whole, "each once");
            // What a teller claimed before it ended is not told again; what came since is.
            reports::report(&*world.store, "old", super::super::evidence::Symptom::NotLoaded, world.now())
                .await
                .unwrap();
            find(&world, "another").await;
            let late = Heard::default();
            teller(&world, &late).tell().await.unwrap();
            assert_eq!(late.kinds(), [Detected]);
        });
    }

    #[test]
    fn a_restore_is_told_as_it_goes_in_its_order() {
        let world = World::new(Service::default());
        let heard = Heard::default();
        let mut teller = teller(&world, &heard);
        world.runtime.block_on(async {
            teller.tell().await.unwrap();
            let executor = world.executor();
            let Restore::New(record) = executor.begin(samples::plan("old")).await.unwrap() else { panic!() };
            executor.run(&record.id).await.unwrap();
            assert_eq!(teller.tell().await.unwrap(), 6);
            let told = heard.0.lock().unwrap().clone();
            let kinds: Vec<_> = told.iter().map(|event| event.event).collect();
            assert_eq!(kinds, [Planned, Started, CheckpointSelected, ClientCreated, Verified, Completed]);
            assert!(told.iter().all(|event| event.restore_id.as_deref() == Some(record.id.as_str())));
            assert_eq!(told[5].new_run_id.as_deref(), Some("s0:train:0"));
        });
    }
}
