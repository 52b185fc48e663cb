//! Watches all runs of a service, and restores those that the policy allows.
//!
//! A round reads the runs that can have changed ([`survey`](super::survey)), page by page, and keeps nothing of those that
//! are well. For each that has lost its state, or whose session is over ([`sessions`]): it is noted in the journal since
//! when ([`findings`]), its checkpoint is given a longer life ([`protect`]), the policy decides ([`decide`]), and a restore
//! is planned, begun and driven. Any number of monitors may share a journal: each run is told of once, and restored once.
//!
//! Named as `Tinkex.Recovery.Monitor` is. What it tells is in [`events`](super::events).

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use self::journal::{Journal, incidents};
use self::tally::Tally;
use futures_util::stream::{self, StreamExt};
use retinker_wire::run::{Checkpoint, TrainingRun};
use retinker_wire::session::SessionStatus;
use retinker_wire::time::Time;

use super::control::{self, is_opted_out};
use super::drives::Drives;
use super::events::{EventKind, EventSink, RecoveryEvent};
use super::executor::{RestoreError, patience};
use super::findings::{self, Finding};
use super::health::{Health, Known, Verdict, assess, cause_of, newest_usable, session_of_run};
use super::journal::{Begun, Store, StoreError};
use super::listing::ListingError;
use super::plan::{NoPlan, PlanRequest, RestorePlan};
use super::planner::{candidates, gather, make_plan, origin_of, preferred};
use super::policy::{Decision, Gate, Policy, Refusal, Situation, decide};
use super::protect;
use super::reports;
use super::restore::{RestoreRecord, RestoreState, maker_of};
use super::sessions::{self, Sessions, session_status};
use super::survey::{Reading, Survey};
use crate::client::{Api, Error};
use crate::host::api::HealthCounts;
use crate::runtime::Runtime;

/// Runs that are looked into at once.
const AT_ONCE: usize = 8;
/// While something is wrong, rounds come so many times as often.
const HURRY: u32 = 6;
/// But never more often than this.
const SHORTEST: Duration = Duration::from_secs(1);
/// A round that took long is followed by a rest of so many times its length: watching must not be the load.
pub const REST: u32 = 3;
/// So many times the life that a protection gives, a run is looked after.
const LIVES: u32 = 4;
/// How often it is looked whether all that is under way is done.
const LOOK: Duration = Duration::from_millis(50);
/// The longest pause between rounds while the service cannot be read, in intervals.
const PATIENCE: u32 = 10;

/// What a round came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Round {
    /// Runs that the service has.
    pub runs: u64,
    /// Requests to read those that can have changed.
    pub requests: u64,
    /// All runs by health, as far as the list tells and how their sessions ended.
    pub health: HealthCounts,
    /// Runs that have lost their state and have no successor yet.
    pub lost: u64,
    /// Runs whose session is over, and that have no successor.
    pub stalled: u64,
    /// Restores begun.
    pub begun: u64,
    /// When the next restore may begin, of those that have to wait.
    pub next: Option<Time>,
}

/// Why a round came to nothing. The next one tries again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MonitorError {
    /// The runs could not be listed.
    #[error("the runs cannot be listed: {0}")]
    Listing(#[from] ListingError),
    /// The journal failed.
    #[error("{0}")]
    Journal(#[from] StoreError),
}

/// Watches the runs of one service. Cheap to clone.
#[derive(Clone)]
pub struct Monitor {
    inner: Arc<Inner>,
}

struct Inner {
    api: Api,
    store: Arc<dyn Store>,
    runtime: Arc<dyn Runtime>,
    drives: Drives,
    sink: Arc<dyn EventSink>,
    service: String,
    by: String,
    policy: Policy,
    survey: Survey,
    sessions: Arc<Sessions>,
    state: Mutex<State>,
    /// The restores that decisions are made on: those of the journal as the round began, and those begun here since. One
    /// decision is made at a time, so that the budgets hold within this process; what other monitors begin meanwhile counts
    /// from the next round on.
    decided_on: Mutex<Vec<RestoreRecord>>,
}

/// What is remembered between rounds: nothing that the journal does not know better.
#[derive(Default)]
struct State {
    /// The journal as it was read last.
    journal: Option<Journal>,
    /// Runs that were cared for in the last round.
    cared_for: BTreeSet<String>,
    /// What was read of them.
    facts: HashMap<String, Arc<Facts>>,
    tally: Tally,
    left_alone_until: Option<Time>,
    draining: bool,
    /// Runs that are being looked into.
    at_work: usize,
}

/// What was read of a lost run.
#[derive(Debug)]
struct Facts {
    /// Its last request then.
    at: Time,
    checkpoints: Vec<Checkpoint>,
    session: Option<SessionStatus>,
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").field("service", &self.inner.service).finish_non_exhaustive()
    }
}

/// What a monitor is made of.
#[derive(Debug)]
pub struct Parts {
    /// The service. Give it a patience for questions.
    pub api: Api,
    /// The journal, bound to `service`.
    pub store: Arc<dyn Store>,
    /// Time and chance.
    pub runtime: Arc<dyn Runtime>,
    /// Drives the restores. Whoever made it tells of their progress
    /// ([`of_progress`](super::events::of_progress)).
    pub drives: Drives,
    /// When runs are restored.
    pub policy: Policy,
    /// Where events go.
    pub sink: Arc<dyn EventSink>,
    /// What the journal is bound to.
    pub service: String,
    /// On whose behalf it restores runs, as the journal tells it, e.g. `the monitor of ada@box`.
    pub by: String,
}

impl Monitor {
    /// A monitor. Does nothing by itself: see [`run`](Self::run) and [`round`](Self::round).
    pub fn new(parts: Parts) -> Self {
        let Parts { api, store, runtime, drives, policy, sink, service, by } = parts;
        let inner = Inner {
            api,
            store,
            runtime,
            drives,
            sink,
            service,
            by,
            policy,
            survey: Survey::new(),
            sessions: Arc::default(),
            state: Mutex::default(),
            decided_on: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.inner.policy
    }

    /// The journal as it is, read anew only if it has changed.
    pub async fn journal(&self) -> Result<Journal, StoreError> {
        self.inner.read_journal().await
    }

    /// Begins no more restores from now on, in this process; those under way go on. Resolves when none is, and no round
    /// either: go on polling [`run`](Self::run) meanwhile.
    pub async fn drain(&self) {
        self.inner.state().draining = true;
        while self.inner.state().at_work > 0 {
            self.inner.runtime.sleep(LOOK).await;
        }
        self.inner.drives.settled().await;
    }

    /// Watches for ever: round after round, more often while something is wrong, less often while the service cannot be
    /// read. `told` hears how each round went.
    pub async fn run(&self, told: impl Fn(&Result<Round, MonitorError>) + Send + Sync) {
        let mut failures = 0;
        loop {
            let begin = self.inner.runtime.monotonic();
            let round = self.round().await;
            told(&round);
            let took = self.inner.runtime.monotonic().saturating_sub(begin);
            failures = if round.is_ok() { 0 } else { failures + 1 };
            if let Err(error) = &round {
                tracing::warn!(%error, failures, "a round came to nothing");
            }
            let pause = self.pause(&round, took, failures);
            self.inner.runtime.sleep(pause).await;
        }
    }

    /// How long to wait after a round that took this long, the n-th failed one in a row: the policy's interval, a sixth of it
    /// while something is lost or until the next restore may begin, longer where readings take long or the service wants it.
    pub fn pause(&self, round: &Result<Round, MonitorError>, took: Duration, failures: u32) -> Duration {
        let interval = Duration::from_millis(self.inner.policy.poll_interval_ms).max(SHORTEST);
        match round {
            Err(_) => (interval * failures.clamp(1, PATIENCE)).max(self.left_alone()),
            Ok(Round { lost: 0, .. }) => interval.max(took * REST),
            Ok(Round { next, .. }) => {
                let now = self.inner.runtime.now().as_millis();
                let until = next.map(|at| u64::try_from(at.as_millis().saturating_sub(now)).unwrap_or(0));
                let wait = until.map_or(interval, Duration::from_millis);
                wait.min(interval / HURRY).max(SHORTEST).max(took * REST)
            }
        }
    }

    /// How the sessions of runs ended, as far as that was asked.
    pub fn sessions(&self) -> &Arc<Sessions> {
        &self.inner.sessions
    }

    /// Begins a reading of the runs that can have changed. For who lists runs anyhow, e.g. a
    /// host for its console; then see [`ask`](Self::ask), [`sift`](Self::sift) and [`care`](Self::care).
    pub async fn reading(&self) -> Reading<'_> {
        let inner = &self.inner;
        let mut also = inner.state().cared_for.clone();
        match inner.read_journal().await {
            Ok(journal) => {
                also.extend(journal.reports.keys().filter(|run_id| !journal.is_held(run_id)).cloned());
                also.extend(journal.open().cloned());
            }
            Err(error) => tracing::debug!(%error, "what training programs have told is not known"),
        }
        inner.survey.begin(&inner.api, &inner.sessions, also, inner.runtime.monotonic()).await
    }

    /// Notes what a service asks for that has refused a question (402, 429): no restore begins until then.
    pub fn heed(&self, error: &Error) {
        self.inner.heed_error(error);
    }

    /// For how long from now the service wants to be left alone.
    pub fn left_alone(&self) -> Duration {
        let until = self.inner.state().left_alone_until.map_or(0, Time::as_millis);
        let left = until.saturating_sub(self.inner.runtime.now().as_millis());
        Duration::from_millis(u64::try_from(left).unwrap_or(0))
    }

    /// Has the next reading be of all runs.
    pub fn want_whole(&self) {
        self.inner.survey.want_whole();
    }

    /// Asks how the sessions of these runs ended, which are [open](Sessions::is_open): of a part at a time. Answers whether
    /// any has.
    pub async fn ask(&self, mut open: Vec<TrainingRun>) -> bool {
        let inner = &self.inner;
        if open.len() > sessions::MOST {
            open.truncate(sessions::MOST);
            inner.survey.want_whole();
        }
        let now = inner.runtime.now();
        let ended = inner.sessions.ask(&inner.api, open.clone(), now).await;
        if open.iter().any(|run| inner.sessions.is_unanswered(run)) {
            // Else nobody would ask again: their sessions do not last any more.
            inner.survey.want_whole();
        }
        ended
    }

    /// One round: reads the runs that can have changed, and does what is to be done.
    pub async fn round(&self) -> Result<Round, MonitorError> {
        let inner = &self.inner;
        let journal = inner.read_journal().await?;
        let (successions, now) = (journal.successions(), inner.runtime.now());
        let health_of = |run: &TrainingRun| {
            journal.health_of(run, &successions, inner.sessions.end_of(run).as_ref(), now)
        };
        let mut reading = self.reading().await;
        let mut tally = if reading.is_whole() { Tally::default() } else { inner.state().tally.clone() };
        let (mut affected, mut open) = (Vec::new(), Vec::new());
        while let Some(page) = inner.heed(reading.next().await)? {
            for run in page {
                let session = session_of_run(&run.training_run_id);
                let lasts =
                    session.zip(reading.lasting()).is_some_and(|(id, lasting)| lasting.ids.contains(id));
                let is_affected = inner.is_affected(&journal, &run);
                let is_open = inner.sessions.is_open(&run, reading.lasting(), now);
                let may_change =
                    lasts || is_affected || is_open || reading.is_asked_for(&run.training_run_id);
                let known = tally.count(&run.training_run_id, health_of(&run), may_change);
                if !known && !lasts && !reading.is_whole() {
                    // Whether it was counted with the list is not known any more.
                    inner.survey.want_whole();
                }
                if is_affected {
                    affected.push(run);
                } else if is_open && open.len() <= sessions::MOST {
                    open.push(run);
                }
            }
        }
        // Its successor may have been listed after it.
        affected.retain(|run| !inner.is_succeeded(&journal, &run.training_run_id));
        if !open.is_empty() && self.ask(open.clone()).await {
            for run in open.into_iter().filter(|run| inner.is_affected(&journal, run)) {
                tally.count(&run.training_run_id, health_of(&run), true);
                affected.push(run);
            }
        }
        let (runs, health, requests) = (tally.runs, tally.health, reading.requests());
        inner.state().tally = tally;
        Ok(Round { runs, requests, health, ..self.care(affected).await? })
    }

    /// Those of these runs that have lost their state, or whose session is over, and that have no successor yet.
    ///
    /// # Errors
    /// The journal could not be read.
    pub async fn sift(&self, runs: &[TrainingRun]) -> Result<Vec<TrainingRun>, StoreError> {
        let inner = &self.inner;
        let journal = inner.read_journal().await?;
        let affected: Vec<_> = runs.iter().filter(|run| inner.is_affected(&journal, run)).cloned().collect();
        // They are read again in any case until somebody has cared for them.
        inner.state().cared_for.extend(affected.iter().map(|run| run.training_run_id.clone()));
        Ok(affected)
    }

    /// Does what is to be done for runs that have lost their state or whose session is over: all that were read.
    ///
    /// # Errors
    /// The journal failed.
    pub async fn care(&self, mut affected: Vec<TrainingRun>) -> Result<Round, StoreError> {
        let inner = &self.inner;
        let journal = inner.read_journal().await?;
        affected.sort_by(|a, b| a.training_run_id.cmp(&b.training_run_id));
        affected.dedup_by(|a, b| a.training_run_id == b.training_run_id);
        inner.state().remember(&affected);
        *inner.decided_on() = Vec::clone(&journal.records);
        let journal = &journal;
        let lost = affected.iter().filter(|run| journal.is_lost(run)).count() as u64;
        let mut round = Round { lost, stalled: affected.len() as u64 - lost, ..Round::default() };
        let _at_work = AtWork::begin(inner);
        let outcomes: Vec<_> = stream::iter(affected)
            .map(|run| async move {
                inner.look_into(journal, &run).await.inspect_err(|error| {
                    tracing::warn!(run = %run.training_run_id, %error, "a lost run could not be looked into");
                })
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for outcome in outcomes {
            match outcome {
                Ok(Outcome::Begun) => round.begun += 1,
                Ok(Outcome::Waits(at)) => round.next = Some(round.next.map_or(at, |next| next.min(at))),
                Ok(Outcome::Left) => {}
                // The journal is all that keeps restores apart: without it nothing more is done.
                Err(Trouble::Journal(error)) => return Err(error),
                Err(Trouble::Service(_) | Trouble::Restore(_)) => {}
            }
        }
        Ok(round)
    }
}

/// Runs are being looked into, until this is dropped.
struct AtWork<'a>(&'a Inner);

impl<'a> AtWork<'a> {
    fn begin(inner: &'a Inner) -> Self {
        inner.state().at_work += 1;
        Self(inner)
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.state().at_work -= 1;
    }
}

/// What came of looking into a run.
enum Outcome {
    /// A restore has begun.
    Begun,
    /// Not before then.
    Waits(Time),
    /// Nothing is to be done.
    Left,
}

/// Why no restore begins.
enum Undone {
    Waits(Time),
    Refused(Refusal),
}

/// Why a run could not be looked into.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    Service(#[from] Error),
    #[error("{0}")]
    Journal(#[from] StoreError),
    #[error("{0}")]
    Restore(RestoreError),
}

impl Inner {
    fn decided_on(&self) -> MutexGuard<'_, Vec<RestoreRecord>> {
        self.decided_on.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether something is to be done about a run: it has lost its state, or its session is over, no other has taken its
    /// place, and it is not history.
    fn is_affected(&self, journal: &Journal, run: &TrainingRun) -> bool {
        (journal.is_lost(run) || self.sessions.cut_off(run))
            && !self.is_succeeded(journal, &run.training_run_id)
            && !self.is_history(journal, run)
    }

    /// Whether another run has taken this one's place, or is about to: by a restore of the journal, or by one that the journal
    /// does not know.
    fn is_succeeded(&self, journal: &Journal, run_id: &str) -> bool {
        journal.is_held(run_id) || self.survey.restore_of(run_id).is_some_and(|id| !journal.knows(&id))
    }

    /// Whether a run was found so long ago that nobody comes for it any more: its checkpoints are left to their fate.
    fn is_long_known(&self, journal: &Journal, run: &TrainingRun, now: Time) -> bool {
        let life = Duration::from_millis(self.policy.protect_ms);
        let found = journal.findings.get(&run.training_run_id);
        found.is_some_and(|found| now >= found.since.later(life.saturating_mul(LIVES)))
    }

    /// Whether a run was seen too late for anything to be done about it.
    fn is_history(&self, journal: &Journal, run: &TrainingRun) -> bool {
        let run_id = &run.training_run_id;
        let told = journal.reports.get(run_id).map(|report| report.at);
        let last = told.max(Some(run.last_request_time)).unwrap_or(run.last_request_time);
        let age = Duration::from_millis(self.policy.max_age_ms);
        !journal.findings.contains_key(run_id) && self.runtime.now() >= last.later(age)
    }

    /// The journal as it is, read anew only if it has changed.
    async fn read_journal(&self) -> Result<Journal, StoreError> {
        let revision = self.store.revision().await?;
        let known = self.state().journal.clone();
        if let Some(known) = known.filter(|known| known.revision == revision) {
            return Ok(known);
        }
        let store = &*self.store;
        let records = store.list().await?;
        let held = records.iter().filter(|record| record.state.holds_the_run());
        let journal = Journal {
            revision,
            held: Arc::new(held.map(|record| record.plan.run_id.clone()).collect()),
            findings: Arc::new(findings::all(store).await?),
            reports: Arc::new(reports::all(store).await?),
            opt_outs: Arc::new(control::opt_outs(store).await?),
            gate: control::gate(store).await?,
            records: Arc::new(records),
        };
        self.state().journal = Some(journal.clone());
        Ok(journal)
    }

    /// Notes when the service asks to be left alone.
    fn heed<T>(&self, answer: Result<T, ListingError>) -> Result<T, ListingError> {
        if let Err(ListingError::Service(error)) = &answer {
            self.heed_error(error);
        }
        answer
    }

    fn heed_error(&self, error: &Error) {
        if matches!(error.status(), Some(402 | 429)) {
            self.state().left_alone_until = Some(self.runtime.now().later(patience(error)));
        }
    }

    /// Until when no restore begins, by the service's wish.
    fn left_alone_until(&self) -> Option<Time> {
        self.state().left_alone_until.max(self.drives.executor().held_until())
    }

    async fn look_into(&self, journal: &Journal, run: &TrainingRun) -> Result<Outcome, Trouble> {
        let made_by = maker_of(&journal.records, &run.training_run_id);
        let origin = origin_of(run, made_by);
        let read = self.facts_of(run, origin.as_deref()).await;
        let reported = journal.reports.get(&run.training_run_id);
        let now = self.runtime.now();
        let end = self.sessions.end_of(run);
        let verdict = {
            let facts = read.as_ref().ok();
            let known = Known {
                checkpoints: facts.map(|facts| facts.checkpoints.as_slice()),
                succession: None,
                origin: origin.as_deref(),
                session: facts.and_then(|facts| facts.session.as_ref()).or(end.as_ref()),
                reported,
                since: journal.findings.get(&run.training_run_id).map(|finding| finding.since),
            };
            assess(run, known, now)
        };
        if !matches!(verdict.health, Health::Poisoned | Health::Unrecoverable | Health::Stalled) {
            return Ok(Outcome::Left);
        }
        // Before anything else: a service in trouble may tell no more than that.
        let random = self.note(journal, run, &verdict, now).await?;
        let facts = read?;
        let checkpoints = &facts.checkpoints;
        let opted_out = is_opted_out(&journal.opt_outs, &journal.records, run);
        let case = Situation {
            run,
            verdict: &verdict,
            checkpoints: Some(checkpoints),
            // Put in when the decision is made.
            records: &[],
            gate: if self.state().draining { Gate::Draining } else { journal.gate },
            opted_out,
            left_alone_until: self.left_alone_until(),
            now,
            random,
        };
        if !opted_out && !self.is_long_known(journal, run, now) {
            let newest = newest_usable(checkpoints.iter(), now);
            self.protect(run, newest, now).await?;
            // By the strategy it may be another.
            let request = self.policy.request(&Situation { records: &journal.records, ..case });
            let chosen = preferred(run, checkpoints, origin.as_deref(), &request, now);
            let other = |one: &&Checkpoint| newest.is_none_or(|newest| newest.tinker_path != one.tinker_path);
            self.protect(run, chosen.as_ref().filter(other), now).await?;
        }
        let request = match self.decide(case, None) {
            Ok(request) => request,
            Err(Undone::Waits(at)) => return Ok(Outcome::Waits(at)),
            Err(Undone::Refused(refusal)) => {
                self.refused(run, &verdict, refusal).await?;
                return Ok(Outcome::Left);
            }
        };
        let request = PlanRequest { observed: reported.map(|report| report.symptom), ..request };
        let plan = match self.plan(made_by, request).await? {
            Ok(plan) => plan,
            // It is not so any more: the next reading will tell.
            Err(NoPlan::NotPoisoned { .. } | NoPlan::AlreadyRestored { .. }) => return Ok(Outcome::Left),
            Err(no_plan) => {
                self.give_up(run, no_plan.message().to_owned()).await?;
                return Ok(Outcome::Left);
            }
        };
        // It may not be the newest.
        self.protect(run, Some(&plan.checkpoint), now).await?;
        // Others were decided on while the plan was made.
        match self.decide(case, Some(&plan)) {
            Ok(_) => self.restore(plan).await,
            Err(Undone::Waits(at)) => Ok(Outcome::Waits(at)),
            Err(Undone::Refused(_)) => Ok(Outcome::Left),
        }
    }

    /// Decides on a run, by the restores as they are now; with a plan, a restore that may begin counts from now on.
    fn decide(&self, case: Situation<'_>, plan: Option<&RestorePlan>) -> Result<PlanRequest, Undone> {
        let mut records = self.decided_on();
        let situation = Situation { records: &records, ..case };
        match decide(&self.policy, &situation) {
            Decision::NotBefore { at, .. } => Err(Undone::Waits(at)),
            Decision::No(refusal) => Err(Undone::Refused(refusal)),
            Decision::Restore => {
                let request = self.policy.request(&situation);
                if let Some(plan) = plan {
                    let id = format!("reserved for {}", plan.run_id);
                    records.push(RestoreRecord::planned(id, plan.clone(), case.now, String::new()));
                }
                Ok(request)
            }
        }
    }

    /// What a lost run can be restored from, and how its session stands: read once, and again if it was asked for anything
    /// since.
    async fn facts_of(&self, run: &TrainingRun, origin: Option<&str>) -> Result<Arc<Facts>, Error> {
        let known = self.state().facts.get(&run.training_run_id).cloned();
        if let Some(facts) = known
            && facts.at == run.last_request_time
        {
            return Ok(facts);
        }
        let checkpoints =
            candidates(&self.api, run, origin).await.inspect_err(|error| self.heed_error(error))?;
        let session = match self.sessions.end_of(run) {
            Some(end) => Some(end),
            // It may know that a request was at fault: then nothing is to be restored.
            None => match session_status(&self.api, &run.training_run_id).await {
                Err(error) if error.is_unsupported() || error.is_not_found() => None,
                status => status.inspect_err(|error| self.heed_error(error))?,
            },
        };
        let facts = Arc::new(Facts { at: run.last_request_time, checkpoints, session });
        self.state().facts.insert(run.training_run_id.clone(), Arc::clone(&facts));
        Ok(facts)
    }

    /// Notes a run that is seen for the first time; answers its chance.
    async fn note(
        &self,
        journal: &Journal,
        run: &TrainingRun,
        verdict: &Verdict,
        now: Time,
    ) -> Result<u64, StoreError> {
        let run_id = &run.training_run_id;
        let found = journal.findings.get(run_id);
        let random = found.map_or_else(|| self.runtime.random(), |found| found.random);
        let finding = Finding::of(run_id, verdict, cause_of(run), now, random);
        if !finding.is_news(found) {
            return Ok(random);
        }
        if findings::note(&*self.store, &finding).await? {
            let mut event = self.event(EventKind::Detected, run_id, verdict.reason.clone());
            event.since = Some(finding.since);
            event.category = Some(finding.category);
            event.health = Some(verdict.health);
            self.sink.tell(&event);
        }
        Ok(random)
    }

    /// Makes sure that the checkpoint is still there when somebody comes for it. That this fails holds nothing up.
    async fn protect(
        &self,
        run: &TrainingRun,
        checkpoint: Option<&Checkpoint>,
        now: Time,
    ) -> Result<(), StoreError> {
        let Some(checkpoint) = checkpoint.filter(|_| self.policy.protect_ms > 0) else { return Ok(()) };
        let life = Duration::from_millis(self.policy.protect_ms);
        let run_id = &run.training_run_id;
        match protect::protect(&self.api, &*self.store, run_id, checkpoint, life, now).await {
            Ok(Some(protection)) => {
                let message = protection.message().unwrap_or_default();
                let mut event = self.event(EventKind::Protected, run_id, message);
                event.checkpoint = Some(protection.tinker_path);
                self.sink.tell(&event);
                // Its new life is read with the next round.
                self.state().facts.remove(run_id);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(protect::ProtectError::Journal(error)) => Err(error),
            Err(error) => {
                tracing::warn!(run = %run_id, %error, "a checkpoint is not protected");
                Ok(())
            }
        }
    }

    /// Tells, once, that a run is given up.
    async fn refused(
        &self,
        run: &TrainingRun,
        verdict: &Verdict,
        refusal: Refusal,
    ) -> Result<(), StoreError> {
        let run_id = &run.training_run_id;
        let given_up = match refusal {
            Refusal::AttemptsSpent { .. } | Refusal::NoProgress { .. } => Some(refusal.to_string()),
            Refusal::NothingToRestoreFrom if verdict.health == Health::Unrecoverable => {
                Some(refusal.to_string())
            }
            _ => None,
        };
        let Some(why) = given_up else {
            tracing::debug!(run = %run_id, "not restored by itself: {refusal}");
            return Ok(());
        };
        self.give_up(run, why).await
    }

    /// Tells, once, that a run is not restored, and why.
    async fn give_up(&self, run: &TrainingRun, why: String) -> Result<(), StoreError> {
        let run_id = &run.training_run_id;
        if findings::give_up(&*self.store, run_id, Some(why.clone()), self.runtime.now()).await? {
            self.sink.tell(&self.event(EventKind::Exhausted, run_id, why));
        }
        Ok(())
    }

    async fn restore(&self, plan: RestorePlan) -> Result<Outcome, Trouble> {
        let run_id = plan.run_id.clone();
        let begun = self.drives.executor().clone().on_behalf_of(&self.by).begin(plan).await;
        if !matches!(begun, Ok(Begun::New(_))) {
            // It does not count.
            self.decided_on()
                .retain(|record| record.state != RestoreState::Planned || record.plan.run_id != run_id);
        }
        match begun {
            Ok(Begun::New(record)) => {
                self.drives.drive(&record.id);
                Ok(Outcome::Begun)
            }
            // Somebody else was sooner.
            Ok(Begun::Existing(_)) => Ok(Outcome::Left),
            Err(RestoreError::Journal(error)) => Err(Trouble::Journal(error)),
            Err(RestoreError::Service(error)) => {
                self.heed_error(&error);
                Err(Trouble::Service(error))
            }
            Err(error) => Err(Trouble::Restore(error)),
        }
    }

    /// The plan; with fewer steps back where there are not so many checkpoints.
    async fn plan(
        &self,
        made_by: Option<&RestoreRecord>,
        mut request: PlanRequest,
    ) -> Result<Result<RestorePlan, NoPlan>, Error> {
        let facts = gather(&self.api, &request, None, made_by, self.runtime.now()).await;
        let mut facts = facts.inspect_err(|error| self.heed_error(error))?;
        loop {
            match make_plan(&facts, &request) {
                Ok(plan) => return Ok(Ok(plan)),
                // With fewer steps back, and at last from one that has failed before: the attempts are counted.
                Err(_) if request.step_back > 0 || !request.exclude.is_empty() => {
                    match request.step_back.checked_sub(1) {
                        Some(fewer) => request.step_back = fewer,
                        None => request.exclude.clear(),
                    }
                    facts = gather(&self.api, &request, None, made_by, self.runtime.now()).await?;
                }
                Err(no_plan) => return Ok(Err(no_plan)),
            }
        }
    }

    fn event(&self, kind: EventKind, run_id: &str, message: String) -> RecoveryEvent {
        RecoveryEvent::new(kind, self.runtime.now(), &self.service, run_id, message)
    }
}

impl State {
    fn remember(&mut self, affected: &[TrainingRun]) {
        self.cared_for = affected.iter().map(|run| run.training_run_id.clone()).collect();
        self.facts.retain(|id, _| self.cared_for.contains(id));
    }
}

mod journal;
mod tally;
#[cfg(test)]
mod tests;
