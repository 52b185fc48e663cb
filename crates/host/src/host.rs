//! What all routes and background tasks of one host share.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use retinker::client::{Api, Error, ErrorKind, Secret};
use retinker::host::api::{ApiProblem, DemoProgress, HostEvent, HostStatus, ServiceInfo};
use retinker::recovery::drives::Drives;
use retinker::recovery::journal::{Store, StoreError};
use retinker::recovery::listing::{ListingError, is_itself};
use retinker::recovery::monitor::{Monitor, Round};
use retinker::recovery::restore::RestoreRecord;
use retinker::runtime::Runtime;
use retinker::transport::Transport;
use retinker::wire::run::TrainingRun;
use tokio::sync::{Notify, broadcast, watch};

use crate::checkpoints::Checkpoints;
use crate::config::{Demo, ServiceTarget};
use crate::connections::Common;
use crate::downloads::Downloads;
use crate::going_back::{Going, RedoLogs};
use crate::hooks::Metrics;
use crate::index::Index;
use crate::keeper::Keeper;
use crate::problem::{contradicting_service, foreign_service, slow_service, without_key, wrong_key};
use crate::samplers::Samplers;
use crate::trial::Trial;

/// How long a person at the console waits for the service.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The same where an answer takes several questions, one after the other. The console's page waits for 60 s.
pub(crate) const LONG_PATIENCE: Duration = Duration::from_secs(55);

/// Most ids that a change names; more are told as "many".
const NAMED_CHANGES: usize = 50;

/// Events that a slow reader may lag behind before it is told to read everything again.
const EVENTS: usize = 256;

pub(crate) struct Shared {
    pub(crate) service: ServiceTarget,
    /// Where its key is to be put.
    key_from: String,
    /// For questions: gives up soon.
    pub(crate) api: Api,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) drives: Drives,
    pub(crate) monitor: Monitor,
    /// On whose behalf it acts.
    pub(crate) by: String,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) samplers: Samplers,
    /// Those of the whole host.
    pub(crate) downloads: Arc<Downloads>,
    /// Those of the whole host.
    pub(crate) redo_logs: RedoLogs,
    /// What is being done by them.
    pub(crate) going: Going,
    /// Samples for whoever tries a model.
    pub(crate) trial: Trial,
    /// Told of each reading of the runs.
    pub(crate) metrics: Option<Arc<Metrics>>,
    pub(crate) events: broadcast::Sender<HostEvent>,
    /// Runs that have lost their state or whose session is over, as of the last reading.
    pub(crate) affected: watch::Sender<Vec<TrainingRun>>,
    /// What was last done about them.
    round: Mutex<Round>,
    /// Asks for a new reading of the runs at once.
    pub(crate) refresh: Notify,
    /// Turns true when the host stops.
    pub(crate) stopping: watch::Receiver<bool>,
    index: RwLock<Index>,
    base_models: Mutex<Vec<String>>,
    demo: Option<Demo>,
    followers: AtomicUsize,
    /// Up to where the journal has been read; the last number there is: not at all.
    revision: AtomicU64,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("service", &self.service).finish_non_exhaustive()
    }
}

pub(crate) struct Parts {
    pub(crate) service: ServiceTarget,
    pub(crate) key_from: String,
    pub(crate) keeper: Keeper,
    pub(crate) metrics: Option<Arc<Metrics>>,
    pub(crate) demo: Option<Demo>,
    pub(crate) common: Common,
}

impl Shared {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { service, key_from, keeper, metrics, demo, common } = parts;
        let Common { downloads, redo_logs, stopping } = common;
        let Keeper { api, store, drives, monitor, runtime, by, transport, .. } = keeper;
        let index = Index::new(Arc::clone(monitor.sessions()), runtime.now());
        let trial = Trial::new(api.clone(), Arc::clone(&transport), Arc::clone(&runtime));
        Self {
            service,
            key_from,
            api,
            transport,
            runtime,
            store,
            drives,
            monitor,
            by,
            checkpoints: Checkpoints::default(),
            samplers: Samplers::default(),
            downloads,
            redo_logs,
            going: Going::default(),
            trial,
            metrics,
            events: broadcast::Sender::new(EVENTS),
            affected: watch::Sender::default(),
            round: Mutex::default(),
            refresh: Notify::new(),
            stopping,
            index: RwLock::new(index),
            base_models: Mutex::default(),
            demo,
            followers: AtomicUsize::new(0),
            revision: AtomicU64::new(u64::MAX),
        }
    }

    pub(crate) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn base_models(&self) -> MutexGuard<'_, Vec<String>> {
        self.base_models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn round(&self) -> MutexGuard<'_, Round> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn demo(&self) -> Option<&Demo> {
        self.demo.as_ref()
    }

    /// How far the demonstration is, where it was begun.
    fn demo_progress(&self) -> Option<DemoProgress> {
        let progress = self.demo.as_ref()?.progress.borrow().clone();
        (progress != DemoProgress::default()).then_some(progress)
    }

    /// Whether the demonstration can be asked for: it takes a trainer's memory away, so no run of anybody's may be there.
    pub(crate) fn offers_demo(&self) -> bool {
        let index = self.index();
        let is_empty = index.as_of().is_some() && index.problem().is_none() && index.total() == 0;
        drop(index);
        is_empty && self.demo.is_some() && self.demo_progress().is_none()
    }

    /// Whether a service that says "not found" is to be believed.
    pub(crate) async fn is_itself(&self) -> Result<(), Asked> {
        self.ask(is_itself(&self.api)).await
    }

    pub(crate) fn key(&self) -> Option<&Secret> {
        self.service.api_key.as_ref()
    }

    pub(crate) fn status(&self) -> HostStatus {
        let (as_of, problem, runs) = {
            let index = self.index();
            (index.as_of(), index.problem().cloned(), index.total())
        };
        HostStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            service: ServiceInfo {
                name: self.service.name.clone(),
                kind: self.service.kind,
                base_url: self.service.base_url.clone(),
                base_models: self.base_models().clone(),
                problem,
            },
            as_of,
            runs,
            now: self.runtime.now(),
            demo: self.demo_progress(),
        }
    }

    /// Tells everybody who follows; that nobody does is no failure.
    pub(crate) fn tell(&self, event: HostEvent) {
        let _ = self.events.send(event);
    }

    pub(crate) fn tell_changed(&self, mut run_ids: Vec<String>) {
        if run_ids.is_empty() {
            return;
        }
        if run_ids.len() > NAMED_CHANGES {
            run_ids.clear();
        }
        self.tell(HostEvent::Runs { run_ids });
    }

    pub(crate) fn tell_everything_changed(&self) {
        self.tell(HostEvent::Runs { run_ids: Vec::new() });
    }

    pub(crate) fn restore_changed(&self, record: &RestoreRecord) {
        // What was read from the journal right after it was written is told already.
        let changed = self.index_mut().set_restore(record.clone(), self.runtime.now());
        if let Some(changed) = changed {
            self.tell(HostEvent::Restore { restore: Box::new(record.clone()) });
            self.tell_changed(changed);
        }
        if record.state.is_settled() {
            self.refresh.notify_one();
        }
    }

    /// Reads what other programs have written to the journal, and tells of it.
    pub(crate) async fn follow_journal(&self) -> Result<(), StoreError> {
        let journal = self.monitor.journal().await?;
        if self.revision.swap(journal.revision, Ordering::Relaxed) == journal.revision {
            return Ok(());
        }
        let (restores, changed) = self.index_mut().set_journal(journal, self.runtime.now());
        for restore in restores {
            self.tell(HostEvent::Restore { restore: Box::new(restore) });
        }
        self.tell_changed(changed);
        Ok(())
    }

    /// Waits for the service as long as a person would.
    pub(crate) async fn ask<T>(&self, question: impl Future<Output = Result<T, Error>>) -> Result<T, Asked> {
        within(PATIENCE, question).await
    }

    /// The same of several questions, one after the other.
    pub(crate) async fn ask_all<T>(
        &self,
        questions: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Asked> {
        within(LONG_PATIENCE, questions).await
    }

    /// Why the runs cannot be listed, with what is known here of the key and of the service before.
    pub(crate) fn explain(&self, asked: &Asked) -> ApiProblem {
        let problem = asked.problem();
        match asked {
            Asked::Service(_) if problem.code == "service_unauthorized" => match self.key() {
                None => without_key(&self.service.base_url, &self.key_from),
                Some(_) => wrong_key(problem, &self.key_from),
            },
            // What is asked for here needs no id: whoever has nothing there does not speak the protocol.
            Asked::Service(error)
                if matches!(error.kind(), ErrorKind::Refused { status: 404 | 405, .. })
                    && self.index().as_of().is_none() =>
            {
                foreign_service(&self.service.base_url)
            }
            _ => problem,
        }
    }

    /// Counts a follower until the answer is dropped.
    pub(crate) fn follow(self: &Arc<Self>) -> Following {
        self.followers.fetch_add(1, Ordering::Relaxed);
        self.refresh.notify_one();
        Following(Arc::clone(self))
    }

    pub(crate) fn is_followed(&self) -> bool {
        self.followers.load(Ordering::Relaxed) > 0
    }
}

/// Waits no longer than this.
pub(crate) async fn within<T, E>(
    patience: Duration,
    question: impl Future<Output = Result<T, E>>,
) -> Result<T, Asked>
where
    Asked: From<E>,
{
    match tokio::time::timeout(patience, question).await {
        Ok(answer) => answer.map_err(Asked::from),
        Err(_) => Err(Asked::Slow(patience)),
    }
}

/// Why the service gave no answer.
#[derive(Debug)]
pub(crate) enum Asked {
    Service(Error),
    /// Not within this time.
    Slow(Duration),
    /// The service counts this many runs, and lists none.
    Contradicts(u64),
}

impl From<Error> for Asked {
    fn from(error: Error) -> Self {
        Self::Service(error)
    }
}

impl From<ListingError> for Asked {
    fn from(error: ListingError) -> Self {
        match error {
            ListingError::Service(error) => Self::Service(error),
            ListingError::Contradicts(total) => Self::Contradicts(total),
        }
    }
}

impl Asked {
    pub(crate) fn problem(&self) -> ApiProblem {
        match self {
            Self::Service(error) => crate::problem::of_service(error),
            Self::Slow(patience) => slow_service(patience.as_secs()),
            Self::Contradicts(total) => contradicting_service(*total),
        }
    }
}

/// Somebody follows the events.
#[derive(Debug)]
pub(crate) struct Following(Arc<Shared>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.followers.fetch_sub(1, Ordering::Relaxed);
    }
}
