//! Going back to a step of a run, by its redo log.

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::routing::get;
use axum::{Json, Router};
use retinker::host::redo::{GoBack, RedoQuery, RedoWindow};

use super::{Host, read_run};
use crate::going_back;
use crate::problem::Problem;

pub(super) fn routes() -> Router<std::sync::Arc<crate::host::Shared>> {
    Router::new().route("/runs/{run_id}/redo", get(window).post(go_back))
}

async fn window(
    State(host): Host,
    Path(run_id): Path<String>,
    query: Result<Query<RedoQuery>, QueryRejection>,
) -> Result<Json<RedoWindow>, Problem> {
    let Query(query) = query?;
    let run = read_run(&host, &run_id).await?;
    going_back::window(&host, &run, query.step).await.map(Json)
}

async fn go_back(
    State(host): Host,
    Path(run_id): Path<String>,
    request: Result<Json<GoBack>, JsonRejection>,
) -> Result<Json<RedoWindow>, Problem> {
    let Json(GoBack { step }) = request?;
    let run = read_run(&host, &run_id).await?;
    match step {
        Some(step) => going_back::begin(&host, &run, step).await?,
        None => going_back::stop(&host, &run_id)?,
    }
    going_back::window(&host, &run, step).await.map(Json)
}
