//! The routes of `/retinker/v1` that are about one service; which, was decided before (see `connections`).

mod start;

mod redo;
mod run;

mod activity;
mod checkpoints;
mod completions;
mod measures;

mod samples;
mod sessions;
mod usage;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::{get, post};
use futures_util::{Stream, StreamExt, stream};
use http::StatusCode;
use retinker::host::api::{
    CheckpointRow, HandOver, HostEvent, HostStatus, MAX_EARLIER, MAX_PLANS, PLANS_AT_ONCE, PlanAnswer,
    PlanBatch, PlannedBatch, PlannedRun, Restores, RunDetail, RunIds, RunWindow, RunsQuery, Snippet,
    StartRestore, StartedRestore,
};
use retinker::host::query::QueryError;
use retinker::recovery::health::{newest_usable, unusable_because};
use retinker::recovery::journal::Begun;
use retinker::recovery::ownership::heartbeats_until;
use retinker::recovery::plan::{NoPlan, PlanRequest, RestorePlan};
use retinker::recovery::planner::{candidates, gather, make_plan, origin_of};
use retinker::recovery::restore::RestoreRecord;
use retinker::wire::run::{Checkpoint, TrainingRun};
use tokio::sync::broadcast;

use crate::acts::to_its_end;
use crate::host::{Asked, Shared};
use crate::index::{no_restore_because, own_metadata};
use crate::problem::Problem;
use crate::snippets;

/// Most bytes of a request's body.
const MAX_BODY: usize = 1 << 20;

/// Between two signs of life on a quiet event stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

type Host = State<Arc<Shared>>;

/// The routes.
pub(crate) fn routes() -> Router<Arc<Shared>> {
    let v1 = Router::new()
        .route("/status", get(status))
        .route("/start", get(start::start))
        .route("/demo", post(start::begin_demo))
        .route("/runs", get(runs))
        .route("/run-ids", get(run_ids))
        .route("/completions", get(completions::completions))
        .route("/runs/{run_id}", get(run))
        .route("/runs/{run_id}/metrics", get(run::metrics))
        .route("/runs/{run_id}/evidence", get(run::evidence))
        .route("/plans", post(plan))
        .route("/plan-batches", post(plan_batch))
        .route("/restores", get(list_restores).post(start_restore))
        .route("/restores/{id}", get(restore))
        .route("/restores/{id}/cancel", post(cancel))
        .route("/restores/{id}/hand-over", post(hand_over))
        .route("/events", get(events))
        .merge(redo::routes())
        .merge(activity::routes())
        .merge(sessions::routes())
        .merge(samples::routes())
        .merge(usage::routes())
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .merge(checkpoints::routes());
    Router::new().nest("/retinker/v1", v1)
}

async fn status(State(host): Host) -> Json<HostStatus> {
    Json(host.status())
}

async fn runs(
    State(host): Host,
    query: Result<Query<RunsQuery>, QueryRejection>,
) -> Result<Json<RunWindow>, Problem> {
    let Query(query) = query?;
    let window = host.index().window(&query, host.runtime.now());
    window.map(Json).map_err(|error| bad_query(&error))
}

async fn run_ids(
    State(host): Host,
    query: Result<Query<RunsQuery>, QueryRejection>,
) -> Result<Json<RunIds>, Problem> {
    let Query(query) = query?;
    let found = host.index().ids(&query, host.runtime.now());
    found.map(Json).map_err(|error| bad_query(&error))
}

fn bad_query(error: &QueryError) -> Problem {
    let hint =
        "Words are looked for as they are; health:poisoned, rank>=16, age<2d or meta.team=x compare a field.";
    Problem::new(StatusCode::BAD_REQUEST, "bad_query", format!("{error}."), hint)
}

async fn run(State(host): Host, Path(run_id): Path<String>) -> Result<Json<RunDetail>, Problem> {
    let run = read_run(&host, &run_id).await?;
    let restored_by = host.store.by_new_run(&run_id).await?;
    let origin = origin_of(&run, restored_by.as_ref());
    let listed = host.ask(candidates(&host.api, &run, origin.as_deref())).await;
    let (mut checkpoints, checkpoints_problem) = match listed {
        Ok(list) => (list, None),
        Err(asked) => (Vec::new(), Some(asked.problem())),
    };
    checkpoints.sort_by(|a, b| (b.time, &b.checkpoint_id).cmp(&(a.time, &a.checkpoint_id)));
    let now = host.runtime.now();
    let mut restores = host.store.by_old_run(&run_id).await?.into_iter();
    let (restore, earlier_restores) = (restores.next(), restores.take(MAX_EARLIER).collect());
    let known = checkpoints_problem.is_none().then_some(checkpoints.as_slice());
    let (row, lineage) = {
        let index = host.index();
        let row = index.row_for(&run, known, now);
        let family = index.family(&row);
        (row, family)
    };
    Ok(Json(RunDetail {
        no_restore_because: no_restore_because(&row.verdict, &row),
        own_metadata: own_metadata(&run),
        snippets: snippets_for(&host, &run, restored_by.as_ref(), &checkpoints),
        taken_over_at: restored_by.as_ref().and_then(|record| record.taken_over_at(&run)),
        checkpoints: checkpoints
            .into_iter()
            .map(|checkpoint| CheckpointRow {
                unusable_because: unusable_because(&checkpoint, now),
                checkpoint,
            })
            .collect(),
        checkpoints_problem,
        lineage,
        restored_by,
        restore,
        earlier_restores,
        row,
    }))
}

/// The run as the service tells it now; as the index has it, when the service does not answer.
async fn read_run(host: &Shared, run_id: &str) -> Result<TrainingRun, Problem> {
    match host.ask(host.api.training_run(run_id)).await {
        Ok(run) => Ok(run),
        // While the list cannot be read, a service that is not itself may not know its runs either.
        Err(Asked::Service(error)) if error.is_not_found() && host.index().problem().is_none() => {
            Err(Problem::run_not_found(run_id))
        }
        Err(asked) => {
            let known = host.index().run(run_id).cloned();
            known.ok_or_else(|| Problem::from(asked))
        }
    }
}

fn snippets_for(
    host: &Shared,
    run: &TrainingRun,
    restored_by: Option<&RestoreRecord>,
    checkpoints: &[Checkpoint],
) -> Vec<Snippet> {
    let owned = restored_by
        .filter(|r| r.state.is_done())
        // One attach uses the attachment's number up.
        .filter(|r| r.taken_over_at(run).is_none());
    if let Some(attachment) = owned.and_then(|record| record.attachment.as_ref())
        && run.corrupted != Some(true)
    {
        return snippets::attach(&host.service.base_url, attachment);
    }
    newest_usable(checkpoints, host.runtime.now())
        .map(|checkpoint| snippets::from_checkpoint(&host.service.base_url, checkpoint, &own_metadata(run)))
        .unwrap_or_default()
}

async fn plan(
    State(host): Host,
    request: Result<Json<PlanRequest>, JsonRejection>,
) -> Result<Json<PlanAnswer>, Problem> {
    let Json(request) = request?;
    Ok(Json(match planned(&host, &request).await? {
        Ok(plan) => PlanAnswer::Plan(Box::new(plan)),
        Err(none) => PlanAnswer::None(none),
    }))
}

async fn planned(host: &Shared, request: &PlanRequest) -> Result<Result<RestorePlan, NoPlan>, Problem> {
    let succession = host.index().succession(&request.run_id);
    let made_by = host.store.by_new_run(&request.run_id).await?;
    let now = host.runtime.now();
    match host.ask_all(gather(&host.api, request, succession, made_by.as_ref(), now)).await {
        Ok(facts) => Ok(make_plan(&facts, request)),
        Err(Asked::Service(error)) if error.is_not_found() => {
            host.is_itself().await?;
            Err(Problem::run_not_found(&request.run_id))
        }
        Err(asked) => Err(Problem::from(asked)),
    }
}

async fn plan_batch(
    State(host): Host,
    request: Result<Json<PlanBatch>, JsonRejection>,
) -> Result<Json<PlannedBatch>, Problem> {
    let Json(batch) = request?;
    let run_ids = batch.run_ids.clone();
    if run_ids.len() > MAX_PLANS {
        return Err(Problem::bad_request(format!(
            "{} runs were asked about; at most {MAX_PLANS} can be at once.",
            run_ids.len()
        )));
    }
    let (host, batch) = (&*host, &batch);
    let runs = stream::iter(run_ids)
        .map(|run_id| async move {
            let request = batch.request(&run_id);
            let name = host.index().name(&run_id).unwrap_or(&run_id).to_owned();
            let mut planned_run = PlannedRun { run_id, name, plan: None, none: None, problem: None };
            match planned(host, &request).await {
                Ok(Ok(plan)) => planned_run.plan = Some(plan),
                Ok(Err(none)) => planned_run.none = Some(none),
                Err(problem) => planned_run.problem = Some(problem.problem),
            }
            planned_run
        })
        .buffered(PLANS_AT_ONCE)
        .collect()
        .await;
    Ok(Json(PlannedBatch { runs }))
}

async fn start_restore(
    State(host): Host,
    request: Result<Json<StartRestore>, JsonRejection>,
) -> Result<Json<StartedRestore>, Problem> {
    let Json(StartRestore { plan }) = request?;
    let confirmed = essence(&plan);
    // A task of its own: what is journaled is carried out, although the caller may have gone meanwhile.
    let asked = Arc::clone(&host);
    let begun = to_its_end("The restore could not be begun.", async move {
        let begun = asked.drives.executor().begin(plan).await?;
        let (Begun::New(record) | Begun::Existing(record)) = &begun;
        if !record.state.is_settled() {
            asked.drives.drive(&record.id);
        }
        Ok(begun)
    })
    .await?;
    Ok(Json(match begun {
        Begun::New(restore) => StartedRestore { restore, already: false },
        Begun::Existing(restore) if essence(&restore.plan) == confirmed => {
            StartedRestore { restore, already: true }
        }
        Begun::Existing(restore) => return Err(another_plan(&restore)),
    }))
}

/// What a person has decided by confirming a plan.
fn essence(plan: &RestorePlan) -> (String, bool) {
    (plan.checkpoint.tinker_path.clone(), plan.optimizer)
}

/// What was confirmed is not what is being done: that is never answered with a yes.
fn another_plan(restore: &RestoreRecord) -> Problem {
    let RestorePlan { run_id, checkpoint, optimizer, .. } = &restore.plan;
    let optimizer = if *optimizer { "with" } else { "without" };
    Problem::new(
        StatusCode::CONFLICT,
        "another_plan",
        format!(
            "Run {run_id} is restored by another plan already: from {}, {optimizer} optimizer state ({}).",
            checkpoint.tinker_path, restore.id
        ),
        "Look at the run again to see that restore.",
    )
}

async fn list_restores(State(host): Host) -> Result<Json<Restores>, Problem> {
    Ok(Json(Restores { restores: host.store.list().await? }))
}

async fn restore(State(host): Host, Path(id): Path<String>) -> Result<Json<RestoreRecord>, Problem> {
    host.store.get(&id).await?.map(Json).ok_or_else(|| Problem::restore_not_found(&id))
}

async fn cancel(State(host): Host, Path(id): Path<String>) -> Result<Json<RestoreRecord>, Problem> {
    // A task of its own: a wish that is journaled is carried out, although the caller may have gone meanwhile.
    let asked = async move { Ok(host.drives.executor().cancel(&id).await?) };
    to_its_end("The restore could not be cancelled.", asked).await.map(Json)
}

async fn hand_over(State(host): Host, Path(id): Path<String>) -> Result<Json<HandOver>, Problem> {
    let record = host.drives.executor().hand_over(&id).await?;
    let attachment = record.attachment.clone().ok_or_else(|| Problem::restore_not_found(&id))?;
    let snippets = match read_run(&host, &attachment.model_id).await {
        Ok(run) => {
            let origin = origin_of(&run, Some(&record));
            let checkpoints = host.ask(candidates(&host.api, &run, origin.as_deref())).await;
            snippets_for(&host, &run, Some(&record), &checkpoints.unwrap_or_default())
        }
        Err(_) => snippets::attach(&host.service.base_url, &attachment),
    };
    Ok(Json(HandOver {
        snippets,
        attachment,
        base_url: host.service.base_url.clone(),
        heartbeats_until: heartbeats_until(&record).unwrap_or(record.updated_at),
    }))
}

/// First the state of the host, then every change. A reader that falls far behind is told that much has changed.
async fn events(State(host): Host) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let receiver = host.events.subscribe();
    let first = HostEvent::Status { status: host.status() };
    let state = (receiver, host.stopping.clone(), host.follow(), Some(first));
    let stream = stream::unfold(state, |(mut receiver, mut stopping, following, first)| async move {
        let event = match first {
            Some(first) => first,
            None => tokio::select! {
                event = receiver.recv() => match event {
                    Ok(event) => event,
                    Err(broadcast::error::RecvError::Lagged(_)) => HostEvent::Runs { run_ids: Vec::new() },
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
                _ = stopping.wait_for(|stop| *stop) => return None,
            },
        };
        let data = Event::default().json_data(&event).unwrap_or_default();
        Some((Ok(data), (receiver, stopping, following, None)))
    });
    Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive"))
}

impl From<Asked> for Problem {
    fn from(asked: Asked) -> Self {
        match &asked {
            Asked::Service(error) => Self::from(error),
            Asked::Slow(_) => Self { status: StatusCode::GATEWAY_TIMEOUT, problem: asked.problem() },
            Asked::Contradicts(_) => Self { status: StatusCode::BAD_GATEWAY, problem: asked.problem() },
        }
    }
}
