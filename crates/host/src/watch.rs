//! Reads the runs, over and over: often while somebody looks, rarely otherwise.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use retinker::client::Error;
use retinker::host::api::{ApiProblem, HostEvent};
use retinker::recovery::monitor::REST;
use retinker::recovery::planner::candidates;
use retinker::recovery::sessions;
use retinker::wire::run::TrainingRun;

use crate::host::{Asked, PATIENCE, Shared, within};

/// Between two readings while somebody follows.
const FOLLOWED: Duration = Duration::from_secs(3);
/// Between two questions for the base models.
const MODELS: Duration = Duration::from_secs(60);
/// Lists of checkpoints read at once, and in one reading.
const LISTS: (usize, usize) = (8, 64);

/// Reads for ever.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut models_at = None;
    loop {
        let start = shared.runtime.monotonic();
        if let Err(error) = shared.follow_journal().await {
            tracing::warn!(%error, "what other programs did cannot be read");
        }
        let listed = read(&shared).await;
        if listed
            && models_at.is_none_or(|at| start.saturating_sub(at) >= MODELS)
            && read_models(&shared).await
        {
            models_at = Some(start);
        }
        let took = shared.runtime.monotonic().saturating_sub(start);
        // Only what was read has cost the service anything; one that is down is looked for as often as ever.
        let took = if listed { took } else { Duration::ZERO };
        tokio::select! {
            () = tokio::time::sleep(pause(&shared, took)) => {}
            () = shared.refresh.notified() => {
                // Several wishes at once are one.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// How long to wait after a reading that took this long.
fn pause(shared: &Shared, took: Duration) -> Duration {
    let by_policy = shared.monitor.pause(&Ok(*shared.round()), took, 0);
    let pause = match shared.is_followed() {
        true => by_policy.min(FOLLOWED.max(took * REST)),
        false => by_policy,
    };
    pause.max(shared.monitor.left_alone())
}

/// Reads the runs that can have changed; tells what has, and answers whether they could be read.
pub(crate) async fn read(shared: &Arc<Shared>) -> bool {
    let before = known(shared);
    let listed = list(shared).await;
    let could = listed.is_ok();
    match listed {
        Ok(Listed { whole, runs, open, requests }) => {
            let (lost, now) = (shared.monitor.sift(&runs).await, shared.runtime.now());
            let changed = match whole {
                true => shared.index_mut().replace(runs, now),
                false => shared.index_mut().update(runs, now),
            };
            let mut changed: HashSet<String> = changed.into_iter().collect();
            if !open.is_empty() && shared.monitor.ask(open.clone()).await {
                changed.extend(shared.index_mut().set_sessions(&open, shared.runtime.now()));
            }
            changed.extend(judge(shared).await);
            shared.tell_changed(changed.into_iter().collect());
            measure(shared, requests);
            // Only what was asked about can have turned out to be stalled.
            match (lost, shared.monitor.sift(&open).await) {
                (Ok(lost), Ok(stalled)) => {
                    drop(shared.affected.send_replace(lost.into_iter().chain(stalled).collect()));
                }
                (Err(error), _) | (_, Err(error)) => {
                    tracing::error!(%error, "nothing can be done about lost runs");
                }
            }
        }
        Err(asked) => {
            if let Asked::Service(error) = &asked {
                shared.monitor.heed(error);
            }
            let problem = shared.explain(&asked);
            if before.problem.as_ref() != Some(&problem) {
                tracing::warn!(code = %problem.code, "the runs cannot be listed: {}", problem.message);
            }
            shared.index_mut().fail(problem);
            if let Some(metrics) = &shared.metrics {
                metrics.round_failed(1);
            }
        }
    }
    let after = known(shared);
    if before.problem != after.problem {
        // Every window carries the problem, so each has to be read again, whether or not a run has changed.
        shared.tell(HostEvent::Runs { run_ids: Vec::new() });
    }
    if before != after || !after.was_read {
        shared.tell(HostEvent::Status { status: shared.status() });
    }
    could
}

/// What of the index makes a page another one.
#[derive(PartialEq)]
struct Known {
    problem: Option<ApiProblem>,
    was_read: bool,
    has_runs: bool,
}

fn known(shared: &Shared) -> Known {
    let index = shared.index();
    Known {
        problem: index.problem().cloned(),
        was_read: index.as_of().is_some(),
        has_runs: index.total() > 0,
    }
}

/// Tells the counters what was read, with so many requests.
fn measure(shared: &Shared, requests: u64) {
    let Some(metrics) = &shared.metrics else { return };
    let index = shared.index();
    metrics.round_read(requests, shared.runtime.now());
    metrics.set_runs(index.healths());
    metrics.set_restores(index.restore_states());
}

/// What a reading came to.
struct Listed {
    /// Whether these are all runs.
    whole: bool,
    runs: Vec<TrainingRun>,
    /// Those whose sessions are to be asked for.
    open: Vec<TrainingRun>,
    requests: u64,
}

async fn list(shared: &Shared) -> Result<Listed, Asked> {
    shared.ask(shared.api.settled()).await?;
    let mut reading = shared.monitor.reading().await;
    let (whole, now) = (reading.is_whole(), shared.runtime.now());
    let (mut runs, mut open) = (Vec::new(), Vec::new());
    while let Some(page) = within(PATIENCE, reading.next()).await? {
        let sessions = shared.monitor.sessions();
        let is_open = |run: &&TrainingRun| sessions.is_open(run, reading.lasting(), now);
        open.extend(page.iter().filter(is_open).take(sessions::MOST + 1 - open.len()).cloned());
        runs.extend(page);
    }
    Ok(Listed { whole, runs, open, requests: reading.requests() })
}

/// Does what is to be done about lost and stalled runs, whenever they were read: the reading itself waits for nothing.
pub(crate) async fn care(shared: Arc<Shared>) {
    let mut affected = shared.affected.subscribe();
    while affected.changed().await.is_ok() {
        let affected = affected.borrow_and_update().clone();
        match shared.monitor.care(affected).await {
            Ok(round) => *shared.round() = round,
            Err(error) => tracing::error!(%error, "nothing can be done about lost runs"),
        }
    }
}

/// Reads the checkpoints of corrupted runs of which the list does not tell enough; answers which runs look different by that.
async fn judge(shared: &Shared) -> Vec<String> {
    let (at_once, in_all) = LISTS;
    let unjudged = shared.index().unjudged(shared.runtime.now());
    if unjudged.is_empty() {
        return Vec::new();
    }
    let answers: Vec<_> = stream::iter(unjudged.into_iter().take(in_all))
        .map(|(run, origin)| async move {
            let answer = shared.ask(candidates(&shared.api, &run, origin.as_deref())).await;
            (run, answer)
        })
        .buffer_unordered(at_once)
        .collect()
        .await;
    let mut lists = Vec::new();
    for (run, answer) in answers {
        match answer {
            Ok(checkpoints) => lists.push((run, checkpoints)),
            Err(asked) => tracing::warn!(
                run = %run.training_run_id,
                "the checkpoints of a corrupted run could not be read: {}",
                asked.problem().message
            ),
        }
    }
    shared.index_mut().set_checkpoints(lists, shared.runtime.now())
}

/// Asks which base models are offered; answers whether that is settled for a while.
async fn read_models(shared: &Shared) -> bool {
    match shared.ask(shared.api.capabilities()).await {
        Ok(capabilities) => {
            let names: Vec<String> =
                capabilities.supported_models.into_iter().filter_map(|m| m.model_name).collect();
            let changed = std::mem::replace(&mut *shared.base_models(), names.clone()) != names;
            if changed {
                shared.tell(HostEvent::Status { status: shared.status() });
            }
            true
        }
        Err(Asked::Service(error)) => Error::is_unsupported(&error),
        Err(Asked::Slow(_) | Asked::Contradicts(_)) => false,
    }
}

/// Tells how far the demonstration is, whenever that changes.
pub(crate) async fn demo(shared: Arc<Shared>) {
    let Some(mut progress) = shared.demo().map(|demo| demo.progress.clone()) else { return };
    while progress.changed().await.is_ok() {
        shared.tell(HostEvent::Status { status: shared.status() });
        shared.refresh.notify_one();
        // Nobody reads faster than this.
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    shared.tell(HostEvent::Status { status: shared.status() });
}
