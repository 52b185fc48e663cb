//! Runs as they were after a step, by redo logs that lie on this machine.
//!
//! The host is told in which directories logs lie. It reads them only, whatever program writes them meanwhile. What is begun goes
//! on by itself; what becomes of it is remembered as long as the host runs, and told in the journal's acts.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{AbortHandle, abortable};
use http::StatusCode;
use retinker::client::retry::RetryPolicy;
use retinker::client::waiting::WaitPolicy;
use retinker::client::{ServiceClient, SessionOptions};
use retinker::host::redo::{GoingBack, RedoWindow};
use retinker::native::DiskLog;
use retinker::redo::{Covered, LogSubject, Matching, Recorded, RedoError, RedoLog, ReplayPlan, SavedStep};
use retinker::wire::run::TrainingRun;

use crate::acts::{noted, wholly};
use crate::host::Shared;
use crate::problem::{Problem, capitalised};

/// Where redo logs lie.
#[derive(Debug, Clone, Default)]
pub struct RedoLogs {
    /// Directories that are logs, or hold them.
    pub directories: Vec<PathBuf>,
    /// How near a replayed result must come to the recorded one.
    pub matching: Matching,
}

/// What is being done for the runs of a connection, and what came of it, by run.
#[derive(Debug, Default)]
pub(crate) struct Going {
    jobs: Mutex<HashMap<String, Job>>,
    /// The log that was read last, by where it is and how long it was then: reading one may take seconds.
    last: Mutex<Option<(String, u64, Arc<Recorded>)>>,
    /// What the logs stood on, and when they were read for that.
    stood_on: tokio::sync::Mutex<Option<(Instant, Arc<StoodOn>)>>,
}

/// What the logs there are stand on.
#[derive(Debug, Default)]
pub(crate) struct StoodOn {
    /// Checkpoints that must not be deleted, and which log stands on each.
    pub(crate) paths: BTreeMap<String, String>,
    /// Whose logs they are: the run of now, and what the others are known by.
    subjects: Vec<(String, LogSubject)>,
}

impl StoodOn {
    /// Whether this run's log is among them.
    pub(crate) fn tells_of(&self, run: &TrainingRun) -> bool {
        self.subjects.iter().any(|(now, subject)| *now == run.training_run_id || subject.is_of(run))
    }
}

#[derive(Debug)]
struct Job {
    step: u64,
    /// What was told of the log when it was begun.
    window: RedoWindow,
    requests: u64,
    done: Arc<AtomicU64>,
    task: AbortHandle,
    /// `None` while it is under way.
    outcome: Option<Result<SavedStep, String>>,
}

impl Job {
    fn told(&self) -> GoingBack {
        let mut told = GoingBack { step: self.step, ..GoingBack::default() };
        match &self.outcome {
            None => {
                let (done, all) = (self.done.load(Ordering::Relaxed), self.requests);
                told.summary = match done >= all {
                    true => "Saving it…".to_owned(),
                    false => format!("{done} of {all} requests are done again."),
                };
                told.under_way = true;
            }
            Some(Ok(saved)) => {
                told.summary = "It is saved, with the optimizer's state.".to_owned();
                (told.run_id, told.path) = (Some(saved.run_id.clone()), Some(saved.path.clone()));
            }
            Some(Err(why)) => told.summary.clone_from(why),
        }
        told
    }
}

impl Going {
    fn jobs(&self) -> MutexGuard<'_, HashMap<String, Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last(&self) -> MutexGuard<'_, Option<(String, u64, Arc<Recorded>)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `done` tells which of those for this run there were has ended.
    fn end(&self, run_id: &str, done: &Arc<AtomicU64>, outcome: Result<SavedStep, String>) {
        if let Some(job) = self.jobs().get_mut(run_id).filter(|job| Arc::ptr_eq(&job.done, done)) {
            // What is saved is saved, though somebody has stopped it in the last moment.
            if outcome.is_ok() || job.outcome.is_none() {
                job.outcome = Some(outcome);
            }
        }
    }

    /// Ends what is under way.
    pub(crate) fn stop(&self) {
        self.jobs().values().for_each(|job| job.task.abort());
    }
}

impl RedoLogs {
    /// The logs there are: each directory that was named, and those in it.
    fn all(&self) -> impl Iterator<Item = DiskLog> {
        let within = |directory: &PathBuf| {
            let entries = fs::read_dir(directory).inspect_err(|error| {
                tracing::warn!(%error, "the redo logs in {} cannot be read", directory.display());
            });
            let entries = entries.into_iter().flatten().flatten();
            let mut within: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
            within.sort();
            within.insert(0, directory.clone());
            within
        };
        let directories: Vec<_> = self.directories.iter().flat_map(within).collect();
        directories.into_iter().filter_map(|directory| DiskLog::read_only(directory).ok())
    }

    /// All of them, without keeping anybody waiting meanwhile.
    async fn listed(&self) -> Vec<DiskLog> {
        if self.directories.is_empty() {
            return Vec::new();
        }
        let this = self.clone();
        tokio::task::spawn_blocking(move || this.all().collect::<Vec<_>>()).await.unwrap_or_default()
    }

    /// What they stand on. One that cannot be read is said in this program's own log, and tells of nothing.
    async fn read_what_they_stand_on(&self) -> StoodOn {
        let mut stood_on = StoodOn::default();
        for log in self.listed().await {
            let name = log.name();
            let read = async move {
                let subject = Recorded::subject(&log).await?;
                Ok::<_, RedoError>(subject.zip(Recorded::read(log).await?))
            };
            match read.await {
                Ok(Some((subject, recorded))) => {
                    let Covered { run_id, stands_on, .. } = recorded.covered();
                    stood_on.paths.extend(stands_on.into_iter().map(|path| (path, name.clone())));
                    stood_on.subjects.push((run_id, subject));
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "what a redo log stands on is not known"),
            }
        }
        stood_on
    }

    /// The log of a run; what cannot be read is said in this program's own log, and is none.
    pub(crate) async fn of(&self, run: &TrainingRun) -> Option<DiskLog> {
        for log in self.listed().await {
            match Recorded::subject(&log).await {
                Ok(Some(subject)) if subject.is_of(run) => return Some(log),
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "a redo log is passed over"),
            }
        }
        None
    }
}

/// What the logs there are stand on, read no longer ago than this: a log of a gigabyte takes seconds.
pub(crate) async fn stood_on(host: &Shared, at_most: Duration) -> Arc<StoodOn> {
    let mut known = host.going.stood_on.lock().await;
    if let Some((_, stood_on)) = known.as_ref().filter(|(read, _)| read.elapsed() < at_most) {
        return Arc::clone(stood_on);
    }
    let stood_on = Arc::new(host.redo_logs.read_what_they_stand_on().await);
    *known = Some((Instant::now(), Arc::clone(&stood_on)));
    stood_on
}

/// What the log of a run covers, and how far it is with what was asked for.
pub(crate) async fn window(
    host: &Shared,
    run: &TrainingRun,
    step: Option<u64>,
) -> Result<RedoWindow, Problem> {
    if let Some(job) = host.going.jobs().get(&run.training_run_id).filter(|job| job.outcome.is_none())
        && step.is_none_or(|step| step == job.step)
    {
        return Ok(RedoWindow { going: Some(job.told()), ..job.window.clone() });
    }
    let recorded = recorded(host, run).await?;
    let going = host.going.jobs().get(&run.training_run_id).map(Job::told);
    let covered = recorded.covered();
    let summary = match recorded.plan_to(step.unwrap_or(covered.last_step)) {
        Ok(plan) => sentence(&plan),
        Err(error) => capitalised(&error.to_string()),
    };
    Ok(RedoWindow { going, ..told(covered, summary) })
}

/// What a log covers, but for what is being done.
fn told(Covered { first_step, last_step, .. }: Covered, summary: String) -> RedoWindow {
    RedoWindow { first_step, last_step, summary, going: None }
}

/// Begins it; what was begun for the same step before goes on.
pub(crate) async fn begin(host: &Arc<Shared>, run: &TrainingRun, step: u64) -> Result<(), Problem> {
    let recorded = recorded(host, run).await?;
    let plan = recorded.plan_to(step).map_err(refused)?;
    let window = told(recorded.covered(), sentence(&plan));
    let run_id = run.training_run_id.clone();
    let mut jobs = host.going.jobs();
    match jobs.get(&run_id) {
        Some(job) if job.outcome.is_none() && job.step != step => {
            let message = format!("Run {run_id} is being made as it was after step {} already.", job.step);
            let hint = "Wait for that, or stop it.";
            return Err(Problem::new(StatusCode::CONFLICT, "going_back_already", message, hint));
        }
        Some(job) if job.outcome.is_none() => return Ok(()),
        _ => {}
    }
    let done = Arc::<AtomicU64>::default();
    let (work, task) = abortable({
        let (host, done) = (Arc::clone(host), Arc::clone(&done));
        async move {
            let options = SessionOptions {
                display_name: Some(format!("retinker: step {step} of a run")),
                ..SessionOptions::default()
            };
            // A replay outlasts a service that is away for a while.
            let patient =
                host.api.clone().with_retry(RetryPolicy::default()).with_wait(WaitPolicy::default());
            let service = ServiceClient::with_options(patient, options);
            let matching = host.redo_logs.matching;
            let count = move |number| done.store(number, Ordering::Relaxed);
            let saved = recorded.save_step(&service, matching, (step, None), count).await;
            saved.map_err(failed)
        }
    });
    let job = Job { step, window, requests: plan.requests, done: Arc::clone(&done), task, outcome: None };
    jobs.insert(run_id.clone(), job);
    drop(jobs);
    let host = Arc::clone(host);
    tokio::spawn(async move {
        let stopped = |_| Err(Problem::new(StatusCode::CONFLICT, "stopped", "It was stopped.", ""));
        let act = async move { work.await.unwrap_or_else(stopped) };
        let what = format!("Made a run as this one was after step {step}, by its redo log");
        let outcome = noted(&host, what, vec![run_id.clone()], act, wholly).await;
        host.going.end(&run_id, &done, outcome.map_err(|problem| problem.problem.message));
        host.refresh.notify_one();
        host.tell_changed(vec![run_id]);
    });
    Ok(())
}

/// Stops what is under way for a run.
pub(crate) fn stop(host: &Shared, run_id: &str) -> Result<(), Problem> {
    let mut jobs = host.going.jobs();
    let nothing = || {
        let message = format!("Nothing is being done for run {run_id} by its redo log.");
        Problem::new(StatusCode::NOT_FOUND, "not_going_back", message, "")
    };
    let job = jobs.get_mut(run_id).ok_or_else(nothing)?;
    job.task.abort();
    job.outcome.get_or_insert(Err("It was stopped.".to_owned()));
    Ok(())
}

async fn recorded(host: &Shared, run: &TrainingRun) -> Result<Arc<Recorded>, Problem> {
    let no_log = || {
        Problem::new(
            StatusCode::NOT_FOUND,
            "no_redo_log",
            format!("No redo log of run {} is known here.", run.training_run_id),
            "Start retinker with --redo-logs DIR, the directory in which its training program keeps its log.",
        )
    };
    let log = host.redo_logs.of(run).await.ok_or_else(no_log)?;
    let (name, size) = (log.name(), log.size());
    let known = host.going.last().as_ref().filter(|(n, s, _)| (n, s) == (&name, &size)).cloned();
    if let Some((.., recorded)) = known {
        return Ok(recorded);
    }
    let recorded = Arc::new(Recorded::read(log).await.map_err(refused)?.ok_or_else(no_log)?);
    *host.going.last() = Some((name, size, Arc::clone(&recorded)));
    Ok(recorded)
}

fn refused(error: RedoError) -> Problem {
    let (status, code) = match &error {
        RedoError::NotCovered { .. } => (StatusCode::BAD_REQUEST, "step_not_covered"),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "redo_log_unusable"),
    };
    Problem::new(status, code, capitalised(&error.to_string()), "")
}

fn failed(error: RedoError) -> Problem {
    match &error {
        RedoError::Service(error) => Problem::from(error),
        _ => refused(error),
    }
}

fn sentence(plan: &ReplayPlan) -> String {
    let from = match &plan.path {
        Some(path) => format!("From {path}, which has step {}", plan.from_step),
        None => "From the run's beginning".to_owned(),
    };
    match plan.requests {
        0 => format!("{from}: nothing has to be done again."),
        requests => format!(
            "{from}: {requests} requests with {} tokens are done again. The first time, that took {}.",
            plan.tokens,
            lasting(plan.seconds),
        ),
    }
}

fn lasting(seconds: f64) -> String {
    match seconds {
        ..1.0 => "less than a second".to_owned(),
        ..90.0 => format!("{seconds:.0} s"),
        ..5400.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}
