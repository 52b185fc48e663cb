//! The checkpoints of all runs, read when they are asked for and kept for a short while.
//!
//! As with the runs, a list that cannot be read again stays as it was, with its time and the problem.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use retinker::client::{Error, RestClient};
use retinker::host::api::ApiProblem;
use retinker::host::checkpoints::CheckpointItem;
use retinker::recovery::retention::run_of;
use retinker::wire::run::{Checkpoint, TrainingRun};
use retinker::wire::time::Time;

use crate::going_back::stood_on;
use crate::host::{PATIENCE, Shared};
use crate::problem::of_service;

/// Checkpoints in one page: the most that services give.
const PAGE: u64 = 100;

/// Pages that are asked for at once.
const AT_ONCE: usize = 8;

/// How long a list is good, at least.
const FRESH: Duration = Duration::from_secs(4);

/// A list that takes long to read is good for so many times as long, up to [`LONG`]: reading it again and again would be a
/// burden. One that could not be read is asked for again as soon as any other, however long the failure took.
const REST: u32 = 20;

/// How long a list is good, at most.
const LONG: Duration = Duration::from_secs(60);

/// How long a caller waits for a new list where there is an old one.
const SHORT: Duration = Duration::from_secs(2);

/// The list, shared by all who ask.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    kept: RwLock<Kept>,
    /// Held by whoever reads the list.
    turn: tokio::sync::Mutex<()>,
    /// Held by whoever adds to a life: two at once would each add to the same.
    pub(crate) extending: tokio::sync::Mutex<()>,
}

/// A list as it was read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    pub(crate) list: Arc<Vec<Checkpoint>>,
    /// When it was read; `None` = never yet.
    pub(crate) as_of: Option<Time>,
    pub(crate) problem: Option<ApiProblem>,
    /// When the last reading ended, and how long it took.
    tried: Option<(Instant, Duration)>,
    /// How often something was done to it here.
    changes: u64,
}

impl Kept {
    /// Whether it need not be read again. To a person who acts, since `acting`, a failure of before is no answer: the service
    /// may be well again.
    fn is_fresh(&self, acting: Option<Instant>) -> bool {
        self.tried.is_some_and(|(at, took)| match (&self.problem, acting) {
            (Some(_), Some(acting)) => at >= acting,
            (Some(_), None) => at.elapsed() < FRESH,
            (None, _) => at.elapsed() < FRESH.max(took.saturating_mul(REST).min(LONG)),
        })
    }

    /// The checkpoint of this path.
    pub(crate) fn get(&self, path: &str) -> Option<&Checkpoint> {
        self.list.iter().find(|checkpoint| checkpoint.tinker_path == path)
    }
}

impl Checkpoints {
    pub(crate) fn kept(&self) -> Kept {
        self.kept.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Kept)) {
        change(&mut self.kept.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Notes that there are checkpoints which the list has not: it is read again when it is asked for.
    pub(crate) fn outdate(&self) {
        self.change(|kept| {
            kept.tried = None;
            kept.changes += 1;
        });
    }

    /// Notes what was done to checkpoints here.
    pub(crate) fn edit(&self, edit: impl FnOnce(&mut Vec<Checkpoint>)) {
        self.change(|kept| {
            edit(Arc::make_mut(&mut kept.list));
            kept.changes += 1;
        });
    }
}

/// The list, read anew if it is not fresh. Where that takes long, an old list is given meanwhile, and whoever follows the
/// host's events is told when there is a new one.
pub(crate) async fn current(host: &Arc<Shared>) -> Kept {
    list(host, None).await
}

/// The same for what a person does now, whom no failure of before is told.
pub(crate) async fn current_to_act(host: &Arc<Shared>) -> Kept {
    list(host, Some(Instant::now())).await
}

async fn list(host: &Arc<Shared>, acting: Option<Instant>) -> Kept {
    let kept = host.checkpoints.kept();
    if kept.is_fresh(acting) {
        return kept;
    }
    let patience = if kept.as_of.is_some() { SHORT } else { PATIENCE };
    let reader = Arc::clone(host);
    let reading = tokio::spawn(async move {
        let begun = Instant::now();
        read(&reader, acting).await;
        if begun.elapsed() >= patience {
            reader.tell_everything_changed();
        }
    });
    let _ = tokio::time::timeout(patience, reading).await;
    host.checkpoints.kept()
}

async fn read(host: &Shared, acting: Option<Instant>) {
    let checkpoints = &host.checkpoints;
    let _turn = checkpoints.turn.lock().await;
    let before = checkpoints.kept();
    if before.is_fresh(acting) {
        return;
    }
    let begun = Instant::now();
    let answer = all(host).await;
    checkpoints.change(|kept| {
        match answer {
            // What was done here meanwhile may have been read before or after it: it is read again.
            Ok(_) if kept.changes != before.changes => return,
            Ok(list) => {
                (kept.list, kept.as_of, kept.problem) = (Arc::new(list), Some(host.runtime.now()), None);
            }
            Err(error) => kept.problem = Some(of_service(&error)),
        }
        kept.tried = Some((Instant::now(), begun.elapsed()));
    });
}

/// Every checkpoint once. Where the service counts them, several pages at once: one after the other, a hundred thousand take
/// a thousand times as long as an answer.
async fn all(host: &Shared) -> Result<Vec<Checkpoint>, Error> {
    let first = host.api.user_checkpoints(PAGE, 0).await?;
    let (step, total) = (first.checkpoints.len(), first.cursor.map_or(0, |cursor| cursor.total_count));
    let mut all = first.checkpoints;
    if step == 0 || total == 0 {
        let mut pages = std::pin::pin!(RestClient::new(host.api.clone()).user_checkpoints(PAGE));
        all.clear();
        while let Some(page) = pages.next().await {
            all.extend(page?);
        }
        return Ok(all);
    }
    let rest =
        (step as u64..total).step_by(step).map(|offset| host.api.user_checkpoints(step as u64, offset));
    let mut rest = stream::iter(rest).buffered(AT_ONCE);
    while let Some(page) = rest.next().await {
        all.extend(page?.checkpoints);
    }
    // What is saved meanwhile moves the others on, and one comes twice.
    let mut seen = HashSet::new();
    all.retain(|checkpoint| seen.insert(checkpoint.tinker_path.clone()));
    Ok(all)
}

/// How old what is shown of redo logs may be; before anything is deleted they are read anew.
const LOGS_READ_EVERY: Duration = Duration::from_secs(60);

/// All of the list as the host API tells them. `fresh` are runs that were read by themselves.
pub(crate) async fn items(
    host: &Shared,
    list: &[Checkpoint],
    fresh: &[TrainingRun],
    now: Time,
) -> Vec<CheckpointItem> {
    let stood_on = stood_on(host, LOGS_READ_EVERY).await;
    let index = host.index();
    let mut needed = index.needed(list, fresh, &stood_on, now);
    let item = |checkpoint: &Checkpoint| {
        let run_id = run_of(&checkpoint.tinker_path).unwrap_or_default().to_owned();
        CheckpointItem {
            run_name: index.row(&run_id).map_or_else(|| run_id.clone(), |row| row.name.clone()),
            run_id,
            needed_because: needed.remove(&checkpoint.tinker_path),
            checkpoint: checkpoint.clone(),
        }
    };
    list.iter().map(item).collect()
}
