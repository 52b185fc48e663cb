//! What the protocol has no place for, under a prefix of its own: the metric series, a run in full, the stream of changes.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use retinker_wire::run::TrainingRun;
use retinker_wire::series::{Corruption, UnsavedWork};
use retinker_wire::time::Time;
use serde::Serialize;

use super::body::{NumberQuery, Path};
use super::{ApiError, Shared};
use crate::db::CheckpointRow;
use crate::index::{Index, Run};
use crate::metrics::{Point, Series, Stored};
use crate::ops::unknown_run;
use crate::time::{now_millis, time};

/// How often a quiet stream says that it is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The longest stretch of a series that is sent at once, and the usual one.
const POINTS: i64 = 10_000;
const USUAL_POINTS: i64 = 1000;

pub(crate) async fn metrics(
    State(core): Shared,
    Path(run_id): Path<String>,
    query: NumberQuery,
) -> Result<Json<Series>, ApiError> {
    let after = query.get("after", 0, i64::MAX)?;
    let limit = query.get("limit", 1, POINTS)?.unwrap_or(USUAL_POINTS);
    let limit = usize::try_from(limit).unwrap_or_default();
    core.series(&run_id, after, limit).await.map(Json)
}

/// A run, and what the protocol does not tell of it.
#[derive(Serialize)]
pub(crate) struct Whole {
    run: TrainingRun,
    created_at: Time,
    session: SessionStatus,
    /// The checkpoint that it was made from.
    origin_path: Option<String>,
    corruption: Option<Corruption>,
    /// Work that is in memory only.
    unsaved: Option<UnsavedWork>,
    trainer: Trainer,
    last_step: Option<Point>,
    /// By a checkpoint's path, the optimizer's last step that is in it.
    saved_steps: BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct SessionStatus {
    session_id: String,
    /// `active` or `ended`.
    status: &'static str,
    /// How it ended.
    reason: Option<String>,
}

#[derive(Serialize)]
struct Trainer {
    /// `unassigned`, `idle`, `busy`, or `waiting` for a request that has not come.
    state: &'static str,
    /// Which one.
    number: Option<usize>,
    /// Requests taken in and not carried out yet.
    waiting_requests: usize,
    /// The last request carried out since the service started; 0 = none.
    executed_seq: u64,
    /// The request that later ones wait for.
    awaited_seq: Option<u64>,
}

impl Whole {
    fn new(index: &Index, run: &Run, saved: &[Arc<CheckpointRow>], stored: Stored) -> Self {
        let mut saved_steps: BTreeMap<String, u64> = saved
            .iter()
            .zip(&stored.steps_at)
            // One that was saved before any step was taken has what the run began with.
            .filter_map(|(saved, step)| Some((saved.path().to_string(), step.or(stored.first_step)?)))
            .collect();
        if let (Some(origin), Some(step)) = (&run.new.origin_path, stored.first_step) {
            saved_steps.insert(origin.clone(), step);
        }
        let ended = index.session(&run.new.session_id).and_then(|session| session.ended.clone());
        let waiting_requests = Arc::strong_count(&run.permit) - 1;
        Self {
            run: run.to_wire(now_millis()),
            created_at: time(run.new.created_at),
            session: SessionStatus {
                session_id: run.new.session_id.to_string(),
                status: if ended.is_some() { "ended" } else { "active" },
                reason: ended.map(|end| end.reason),
            },
            origin_path: run.new.origin_path.clone(),
            corruption: run.corrupted.clone().map(|reason| Corruption {
                reason,
                since: stored.corrupted_at.map(time),
                step: stored.lost_step,
            }),
            unsaved: run
                .unsaved
                .since
                .map(|since| UnsavedWork { since: time(since), requests: run.unsaved.requests }),
            trainer: Trainer {
                state: match run.trainer {
                    None => "unassigned",
                    Some(_) if run.awaited_seq.is_some() => "waiting",
                    Some(_) if waiting_requests > 0 => "busy",
                    Some(_) => "idle",
                },
                number: run.trainer,
                waiting_requests,
                executed_seq: run.executed_seq,
                awaited_seq: run.awaited_seq,
            },
            last_step: stored.last,
            saved_steps,
        }
    }
}

pub(crate) async fn run(State(core): Shared, Path(run_id): Path<String>) -> Result<Json<Whole>, ApiError> {
    let saved = core.index().run(&run_id).ok_or_else(|| unknown_run(&run_id))?.checkpoints.clone();
    let stored = core.stored(&run_id, saved.iter().map(|saved| saved.new.seq).collect()).await?;
    let index = core.index();
    let run = index.run(&run_id).ok_or_else(|| unknown_run(&run_id))?;
    Ok(Json(Whole::new(&index, run, &saved, stored)))
}

pub(crate) async fn changes(
    State(core): Shared,
    headers: HeaderMap,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let last_event_id = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let state = (core.changes.follow(last_event_id), core.stopping.subscribe());
    let stream = stream::unfold(state, |(mut follower, mut stopping)| async move {
        let told = tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => return None,
            told = follower.next() => told?,
        };
        let event = Event::default().id(told.id).event(told.name).data(told.data);
        Some((Ok(event), (follower, stopping)))
    });
    Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive"))
}
