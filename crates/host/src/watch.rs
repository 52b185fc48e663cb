//! Reads the list of runs, over and over: often while somebody looks, rarely otherwise.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use retinker::client::Error;
use retinker::host::api::HostEvent;
use retinker::recovery::evidence::Symptom;
use retinker::recovery::health::session_of_run;
use retinker::recovery::listing::{Listing, session_status};
use retinker::recovery::planner::candidates;
use retinker::wire::run::TrainingRun;
use retinker::wire::session::SessionStatus;

use crate::host::{Asked, PATIENCE, Shared};

/// Between two readings while somebody follows.
const FOLLOWED: Duration = Duration::from_secs(3);
/// Between two readings while nobody does.
const ALONE: Duration = Duration::from_secs(30);
/// A list that takes long to read is read less often: this many times as long is left between.
const REST: u32 = 3;
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
        let pause = if shared.is_followed() { FOLLOWED } else { ALONE };
        // Only what was read has cost the service anything; one that is down is looked for as often as ever.
        let rest = if listed { took * REST } else { Duration::ZERO };
        tokio::select! {
            () = tokio::time::sleep(pause.max(rest)) => {}
            () = shared.refresh.notified() => {
                // Several wishes at once are one.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Reads the whole list once; tells what changed, and answers whether it could be read.
pub(crate) async fn read(shared: &Arc<Shared>) -> bool {
    let before = shared.index().problem().cloned();
    let listed = list(shared).await;
    let could = listed.is_ok();
    match listed {
        Ok((runs, requests)) => {
            let lost = shared.monitor.sift(&runs).await;
            let changed = shared.index_mut().replace(runs, shared.runtime.now());
            let mut changed: HashSet<String> = changed.into_iter().collect();
            let (judged, asked) = (judge(shared).await, ask_for_sessions(shared).await);
            if judged || asked {
                changed.extend(shared.index_mut().rebuild(shared.runtime.now()));
            }
            shared.tell_changed(changed.into_iter().collect());
            measure(shared, requests);
            match lost {
                Ok(lost) => drop(shared.lost.send_replace(lost)),
                Err(error) => tracing::error!(%error, "nothing can be done about lost runs"),
            }
        }
        Err(asked) => {
            let problem = asked.problem();
            if before.as_ref() != Some(&problem) {
                tracing::warn!(code = %problem.code, "the runs cannot be listed: {}", problem.message);
            }
            shared.index_mut().fail(problem);
            if let Some(metrics) = &shared.metrics {
                metrics.round_failed(1);
            }
        }
    }
    let after = shared.index().problem().cloned();
    if before != after {
        // Every window carries the problem, so each has to be read again, whether or not a run has changed.
        shared.tell(HostEvent::Runs { run_ids: Vec::new() });
    }
    if before != after || shared.index().as_of().is_none() {
        shared.tell(HostEvent::Status { status: shared.status() });
    }
    could
}

/// Tells the counters what was read, with so many requests.
fn measure(shared: &Shared, requests: u64) {
    let Some(metrics) = &shared.metrics else { return };
    let index = shared.index();
    metrics.round_read(requests, shared.runtime.now());
    metrics.set_runs(index.healths());
    metrics.set_restores(index.restore_states());
}

/// All runs, page by page, and how many pages there were.
async fn list(shared: &Shared) -> Result<(Vec<TrainingRun>, u64), Asked> {
    let api = shared.ask(shared.api.settled()).await?;
    let (mut runs, mut listing) = (Vec::new(), Listing::new());
    let mut next = async || {
        let page = tokio::time::timeout(PATIENCE, listing.next(api)).await.map_err(|_| Asked::Slow)?;
        page.map_err(Asked::from)
    };
    while let Some(page) = next().await? {
        runs.extend(page);
    }
    Ok((runs, listing.requests()))
}

/// Does what is to be done about lost runs, whenever the list was read: the reading itself waits for nothing.
pub(crate) async fn care(shared: Arc<Shared>) {
    let mut lost = shared.lost.subscribe();
    while lost.changed().await.is_ok() {
        let lost = lost.borrow_and_update().clone();
        if let Err(error) = shared.monitor.care(lost).await {
            tracing::error!(%error, "nothing can be done about lost runs");
        }
    }
}

/// Reads the checkpoints of corrupted runs of which the list does not tell enough; answers whether any was learnt.
async fn judge(shared: &Shared) -> bool {
    let (at_once, in_all) = LISTS;
    let unjudged = shared.index().unjudged(shared.runtime.now());
    let lists: Vec<_> = stream::iter(unjudged.into_iter().take(in_all))
        .map(|(run, origin)| async move {
            let answer = shared.ask(candidates(&shared.api, &run, origin.as_deref())).await;
            (run, answer)
        })
        .buffer_unordered(at_once)
        .collect()
        .await;
    let mut learnt = false;
    for (run, answer) in lists {
        let run_id = run.training_run_id;
        match answer {
            Ok(checkpoints) => {
                shared.index_mut().set_checkpoints(run_id, run.last_request_time, checkpoints);
                learnt = true;
            }
            Err(asked) => tracing::warn!(
                run = %run_id,
                "the checkpoints of a corrupted run could not be read: {}",
                asked.problem().message
            ),
        }
    }
    learnt
}

/// Asks how the sessions of quiet runs stand; answers whether any was learnt.
async fn ask_for_sessions(shared: &Shared) -> bool {
    let (at_once, in_all) = LISTS;
    let searches = !shared.has_no_session_search();
    let can_be_asked = |run: &TrainingRun| !searches || session_of_run(&run.training_run_id).is_some();
    let quiet = shared.index().quiet(shared.runtime.now());
    let answers: Vec<_> = stream::iter(quiet.into_iter().filter(can_be_asked).take(in_all))
        .map(|run| async move {
            let run_id = &run.training_run_id;
            let status =
                if searches { by_session(shared, run_id).await } else { by_model(shared, run_id).await };
            (run, status)
        })
        .buffer_unordered(at_once)
        .collect()
        .await;
    let mut learnt = false;
    for (run, status) in answers {
        let Some(status) = status else { continue };
        shared.index_mut().set_session(run.training_run_id, run.last_request_time, status);
        learnt = true;
    }
    learnt
}

/// How a run's session stands, by the search for sessions; `None` where that could not be told now.
async fn by_session(shared: &Shared, run_id: &str) -> Option<SessionStatus> {
    match shared.ask(session_status(&shared.api, run_id)).await {
        Ok(status) => Some(status.unwrap_or(SessionStatus::Unknown)),
        Err(Asked::Service(error)) if error.is_unsupported() => {
            shared.without_session_search();
            None
        }
        Err(asked) => {
            tracing::debug!(run = run_id, "its session is not known: {}", asked.problem().message);
            None
        }
    }
}

/// The same where there is no search for sessions: a service that does not hold a run's model any more has let its session
/// go.
async fn by_model(shared: &Shared, run_id: &str) -> Option<SessionStatus> {
    match shared.ask(shared.api.get_info(run_id)).await {
        Ok(_) => Some(SessionStatus::Active),
        Err(Asked::Service(error)) if Symptom::of(&error) == Some(Symptom::NotLoaded) => {
            Some(SessionStatus::cancelled("the service does not hold the run's model any more"))
        }
        Err(_) => None,
    }
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
        Err(Asked::Slow | Asked::Contradicts(_)) => false,
    }
}

/// Tells how far the demonstration is, whenever that changes.
pub(crate) async fn demo(shared: Arc<Shared>) {
    let Some(mut progress) = shared.demo() else { return };
    while progress.changed().await.is_ok() {
        shared.tell(HostEvent::Status { status: shared.status() });
        shared.refresh.notify_one();
        // Nobody reads faster than this.
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    shared.tell(HostEvent::Status { status: shared.status() });
}
