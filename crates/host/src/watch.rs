//! Reads the list of runs, over and over: often while somebody looks, rarely otherwise.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use retinker::client::Error;
use retinker::host::api::HostEvent;
use retinker::recovery::planner::candidates;
use retinker::wire::run::TrainingRun;

use crate::host::{Asked, Shared};

/// Between two readings while somebody follows.
const FOLLOWED: Duration = Duration::from_secs(3);
/// Between two readings while nobody does.
const ALONE: Duration = Duration::from_secs(30);
/// A list that takes long to read is read less often: this many times as long is left between.
const REST: u32 = 3;
/// Between two questions for the base models.
const MODELS: Duration = Duration::from_secs(60);
/// Runs in one page.
const PAGE: u64 = 100;
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
        Ok(runs) => {
            let changed = shared.index_mut().replace(runs, shared.runtime.now());
            let judged = judge(shared).await;
            let mut changed: HashSet<String> = changed.into_iter().collect();
            changed.extend(judged);
            shared.tell_changed(changed.into_iter().collect());
        }
        Err(asked) => {
            let problem = asked.problem();
            if before.as_ref() != Some(&problem) {
                tracing::warn!(code = %problem.code, "the runs cannot be listed: {}", problem.message);
            }
            shared.index_mut().fail(problem);
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

/// All runs, page by page. Runs that are added meanwhile shift the pages: an id may then come twice, but none is
/// passed over, since services list the newest first or append at the end.
async fn list(shared: &Shared) -> Result<Vec<TrainingRun>, Asked> {
    let api = shared.ask(shared.api.settled()).await?;
    let mut runs = Vec::new();
    let mut offset = 0;
    loop {
        let page = shared.ask(api.training_runs(PAGE, offset)).await?;
        let count = page.training_runs.len() as u64;
        runs.extend(page.training_runs);
        offset += count;
        // Some services count 0 runs in all past the end.
        let total = page.cursor.total_count;
        if offset == 0 && total > 0 {
            return Err(Asked::Contradicts(total));
        }
        if count == 0 || (total > 0 && offset >= total) || (total == 0 && count < PAGE) {
            return Ok(runs);
        }
    }
}

/// Reads the checkpoints of corrupted runs of which the list does not tell enough.
async fn judge(shared: &Shared) -> Vec<String> {
    let (at_once, in_all) = LISTS;
    let unjudged = shared.index().unjudged(shared.runtime.now());
    if unjudged.is_empty() {
        return Vec::new();
    }
    let lists: Vec<_> = stream::iter(unjudged.into_iter().take(in_all))
        .map(|(run, origin)| async move {
            let answer = shared.ask(candidates(&shared.api, &run, origin.as_deref())).await;
            (run, answer)
        })
        .buffer_unordered(at_once)
        .collect()
        .await;
    let mut index = shared.index_mut();
    for (run, answer) in lists {
        let run_id = run.training_run_id;
        match answer {
            Ok(checkpoints) => index.set_checkpoints(run_id, run.last_request_time, checkpoints),
            Err(asked) => tracing::warn!(
                run = %run_id,
                "the checkpoints of a corrupted run could not be read: {}",
                asked.problem().message
            ),
        }
    }
    index.rebuild(shared.runtime.now())
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
