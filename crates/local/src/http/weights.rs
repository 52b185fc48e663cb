//! Saving, loading, and what is done with checkpoints.

use axum::Json;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use retinker_wire::future::UntypedApiFuture;
use retinker_wire::model::LoadWeightsRequest;
use retinker_wire::path::{TinkerPath, checkpoint_type_of};
use retinker_wire::run::{CheckpointType, CheckpointsResponse, Cursor};
use retinker_wire::weights::{SaveWeightsRequest, SetTtlRequest, WeightsInfoRequest, WeightsInfoResponse};
use serde_json::json;

use super::body::{Body, PageQuery, Path, to_the_end};
use super::training::{submit, submitted};
use super::{ApiError, Shared};
use crate::ops::{training_path, unknown_run};
use crate::time::now_millis;
use crate::trainer::{Load, Op, Refusal, Save};

pub(crate) async fn save(State(core): Shared, body: Body) -> Result<Json<UntypedApiFuture>, ApiError> {
    let request: SaveWeightsRequest = body.numbered(&core)?;
    let op = match request.ttl_seconds {
        Some(0) => {
            let request = json!({
                "path": request.path,
                "overwrite": request.overwrite,
                "user_metadata": request.user_metadata,
            });
            let reason = "ttl_seconds must be at least 1; leave it out to keep the checkpoint".to_owned();
            Op::Refuse(Refusal { reason, operation: "save_weights", request })
        }
        ttl_seconds => Op::Save(Save {
            name: request.path,
            overwrite: request.overwrite,
            ttl_seconds,
            user_metadata: request.user_metadata,
        }),
    };
    submit(core, request.model_id, request.seq_id, op).await
}

pub(crate) async fn load(State(core): Shared, body: Body) -> Result<Json<UntypedApiFuture>, ApiError> {
    let request: LoadWeightsRequest = body.numbered(&core)?;
    match (&request.model_id, request.seq_id, &request.session_id, request.model_seq_id) {
        (Some(model_id), Some(seq), None, None) => {
            let (model_id, path) = (model_id.clone(), training_path(&request.path));
            if seq > 1 {
                core.note_refused(&model_id, seq);
                return Err(ApiError::bad_request(format!(
                    "LoadWeights is not permitted with seq_id {seq}: weights can be loaded into a model that was just \
                     made, as its first request"
                )));
            }
            let path = path.inspect_err(|_| core.note_refused(&model_id, seq))?;
            submit(core, model_id, seq, Op::Load(Load { path, optimizer: request.optimizer })).await
        }
        (None, None, Some(session_id), Some(model_seq_id)) => {
            let session_id = session_id.clone();
            core.create_from_checkpoint(request, session_id, model_seq_id).map(submitted)
        }
        _ => Err(ApiError::unprocessable(
            "give either model_id and seq_id, to load into that model, or session_id and model_seq_id, to make one"
                .to_owned(),
        )),
    }
}

pub(crate) async fn info(State(core): Shared, body: Body) -> Result<Json<WeightsInfoResponse>, ApiError> {
    let request: WeightsInfoRequest = body.json()?;
    let path = training_path(&request.tinker_path)?;
    // Reading and summing the files takes a while.
    let answer = tokio::task::spawn_blocking(move || core.weights_info(&path)).await;
    answer
        .unwrap_or_else(|_| Err(ApiError::internal("the checkpoint could not be read".to_owned())))
        .map(Json)
}

pub(crate) async fn list(
    State(core): Shared,
    page: PageQuery,
) -> Result<Json<CheckpointsResponse>, ApiError> {
    let page = page.page(100);
    let (checkpoints, total) = core.index().checkpoints_page(page, now_millis());
    let cursor = Cursor { offset: page.offset as u64, limit: page.limit as u64, total_count: total as u64 };
    Ok(Json(CheckpointsResponse { checkpoints, cursor: Some(cursor) }))
}

pub(crate) async fn list_of_run(
    State(core): Shared,
    Path(run_id): Path<String>,
) -> Result<Json<CheckpointsResponse>, ApiError> {
    let index = core.index();
    let run = index.run(&run_id).ok_or_else(|| unknown_run(&run_id))?;
    let newest_first = run.newest_first(now_millis());
    Ok(Json(CheckpointsResponse {
        checkpoints: newest_first.map(|checkpoint| checkpoint.to_wire()).collect(),
        cursor: None,
    }))
}

/// What can be done with one checkpoint: `<segment>/<name>`, then `publish` or `ttl` or nothing.
pub(crate) async fn one(
    State(core): Shared,
    method: Method,
    Path((run_id, rest)): Path<(String, String)>,
    body: Result<Body, ApiError>,
) -> Result<Response, ApiError> {
    let parts: Vec<&str> = rest.split('/').collect();
    let (segment, name, action) = match parts.as_slice() {
        [segment, name] => (*segment, (*name).to_owned(), None),
        [segment, name, action] => (*segment, (*name).to_owned(), Some(*action)),
        [only] => {
            return Err(ApiError::bad_request(format!(
                "'{only}' is not a checkpoint id; expected weights/<name>"
            )));
        }
        _ => return Err(ApiError::not_offered()),
    };
    match checkpoint_type_of(segment) {
        Some(CheckpointType::Training) => {}
        Some(_) => {
            return Err(ApiError::not_found(format!(
                "checkpoint {segment}/{name} of {run_id} does not exist"
            )));
        }
        None => {
            return Err(ApiError::bad_request(format!(
                "'{segment}/{name}' is not a checkpoint id; expected weights/<name>"
            )));
        }
    }
    match (method, action) {
        (Method::DELETE, None) => {
            to_the_end(async move { core.delete_checkpoint(&run_id, &name).await }).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        (method @ (Method::POST | Method::DELETE), Some("publish")) => {
            let public = method == Method::POST;
            to_the_end(async move { core.set_public(&run_id, &name, public).await }).await?;
            Ok(Json(json!({})).into_response())
        }
        (Method::PUT, Some("ttl")) => {
            let request: SetTtlRequest = body?.json()?;
            if request.ttl_seconds == Some(0) {
                return Err(ApiError::unprocessable(format!(
                    "ttl_seconds must be at least 1; delete {} to be rid of it",
                    TinkerPath::training(run_id, name)
                )));
            }
            to_the_end(async move { core.set_ttl(&run_id, &name, request.ttl_seconds).await }).await?;
            Ok(Json(json!({})).into_response())
        }
        (_, Some("publish" | "ttl") | None) => Err(ApiError::method_not_allowed()),
        (_, Some(_)) => Err(ApiError::not_offered()),
    }
}
