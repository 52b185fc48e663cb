//! Saving, loading, and what is done with checkpoints.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use retinker_wire::future::UntypedApiFuture;
use retinker_wire::model::LoadWeightsRequest;
use retinker_wire::path::{TinkerPath, checkpoint_type_of};
use retinker_wire::run::{CheckpointsResponse, Cursor};
use retinker_wire::weights::{
    CopyWeightsRequest, CopyWeightsResponse, SamplerKind, SaveWeightsExternalRequest,
    SaveWeightsForSamplerRequest, SaveWeightsRequest, SetTtlRequest, WeightsInfoRequest, WeightsInfoResponse,
};
use serde_json::json;

use super::body::{Body, IdempotencyKey, PageQuery, Path, required_seq, to_the_end};
use super::downloads;
use super::training::{submit, submitted};
use super::{ApiError, Shared};
use crate::db::CheckpointKind;
use crate::ops::{checkpoint_path, training_path, unknown_run};
use crate::time::now_millis;
use crate::trainer::{Load, Op, Refusal, Save, SaveForSampler};

pub(crate) async fn save(State(core): Shared, body: Body) -> Result<Json<UntypedApiFuture>, ApiError> {
    let request: SaveWeightsRequest = body.numbered(&core).await?;
    let save = Save {
        kind: CheckpointKind::Training,
        name: request.path,
        overwrite: request.overwrite,
        ttl_seconds: request.ttl_seconds,
        user_metadata: request.user_metadata,
    };
    submit(core, request.model_id, request.seq_id, named("save_weights", save)).await
}

pub(crate) async fn save_for_sampler(
    State(core): Shared,
    body: Body,
) -> Result<Json<UntypedApiFuture>, ApiError> {
    const OPERATION: &str = "save_weights_for_sampler";
    let request: SaveWeightsForSamplerRequest = body.numbered(&core).await?;
    let seq = required_seq(request.seq_id)?;
    let op = match (request.path, request.sampling_session_seq_id, request.kind) {
        (_, _, SamplerKind::Other(kind)) => {
            let reason = format!("kind '{kind}' is not offered here; offered: snapshot, inflight");
            Op::Refuse(Refusal { reason, operation: OPERATION, request: json!({ "kind": kind }) })
        }
        (Some(name), None, _) => named(
            OPERATION,
            Save {
                kind: CheckpointKind::Sampler,
                name,
                overwrite: false,
                ttl_seconds: request.ttl_seconds,
                user_metadata: request.user_metadata,
            },
        ),
        (None, Some(sampling_session_seq_id), kind) => Op::SaveForSampler(SaveForSampler {
            sampling_session_seq_id,
            follows: kind == SamplerKind::Inflight,
        }),
        (path, sampler, _) => {
            let reason =
                "give either path, to save under a name, or sampling_session_seq_id, to make a sampler";
            let request = json!({ "path": path, "sampling_session_seq_id": sampler });
            Op::Refuse(Refusal { reason: reason.to_owned(), operation: OPERATION, request })
        }
    };
    submit(core, request.model_id, seq, op).await
}

pub(crate) async fn save_external(
    State(core): Shared,
    body: Body,
) -> Result<Json<UntypedApiFuture>, ApiError> {
    const OPERATION: &str = "save_weights_external";
    let request: SaveWeightsExternalRequest = body.numbered(&core).await?;
    let seq = required_seq(request.seq_id)?;
    let op = match request.age_encryption_recipients {
        Some(recipients) if !recipients.is_empty() => {
            let reason =
                "encryption to age recipients is not offered here: leave age_encryption_recipients out";
            let request = json!({ "path": request.path, "age_encryption_recipients": recipients });
            Op::Refuse(Refusal { reason: reason.to_owned(), operation: OPERATION, request })
        }
        _ => named(
            OPERATION,
            Save {
                kind: CheckpointKind::External,
                name: request.path,
                overwrite: false,
                ttl_seconds: request.ttl_seconds,
                user_metadata: None,
            },
        ),
    };
    submit(core, request.model_id, seq, op).await
}

/// Saving under a name, or the refusal of a lifetime of nothing.
fn named(operation: &'static str, save: Save) -> Op {
    if save.ttl_seconds != Some(0) {
        return Op::Save(save);
    }
    Op::Refuse(Refusal {
        reason: "ttl_seconds must be at least 1; leave it out to keep the checkpoint".to_owned(),
        operation,
        request: json!({
            "path": save.name,
            "overwrite": save.overwrite,
            "user_metadata": save.user_metadata,
        }),
    })
}

pub(crate) async fn load(State(core): Shared, body: Body) -> Result<Json<UntypedApiFuture>, ApiError> {
    let request: LoadWeightsRequest = body.numbered(&core).await?;
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
    let request: WeightsInfoRequest = body.json().await?;
    let path = checkpoint_path(&request.tinker_path)?;
    // Reading and summing the files takes a while.
    let answer = tokio::task::spawn_blocking(move || core.weights_info(&path)).await;
    answer
        .unwrap_or_else(|_| Err(ApiError::internal("the checkpoint could not be read".to_owned())))
        .map(Json)
}

pub(crate) async fn copy(
    State(core): Shared,
    key: IdempotencyKey,
    body: Body,
) -> Result<Json<CopyWeightsResponse>, ApiError> {
    let request: CopyWeightsRequest = body.json().await?;
    let path = to_the_end(async move { core.copy_weights(request, key.0).await }).await?;
    Ok(Json(CopyWeightsResponse { tinker_path: path.to_string() }))
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

/// The form of a checkpoint's id.
const CHECKPOINT_ID: &str = "weights/<name>, sampler_weights/<name> or external_weights/<name>";

/// What can be done with one checkpoint: `<segment>/<name>`, then what to do with it or nothing.
pub(crate) async fn one(
    State(core): Shared,
    method: Method,
    Path((run_id, rest)): Path<(String, String)>,
    headers: HeaderMap,
    body: Result<Body, ApiError>,
) -> Result<Response, ApiError> {
    let parts: Vec<&str> = rest.split('/').collect();
    let (segment, name, action) = match parts.as_slice() {
        [segment, name] => (*segment, (*name).to_owned(), None),
        [segment, name, action] => (*segment, (*name).to_owned(), Some(*action)),
        [only] => {
            return Err(ApiError::bad_request(format!(
                "'{only}' is not a checkpoint id; expected {CHECKPOINT_ID}"
            )));
        }
        _ => return Err(ApiError::not_offered()),
    };
    let Some(checkpoint_type) = checkpoint_type_of(segment) else {
        return Err(ApiError::bad_request(format!(
            "'{segment}/{name}' is not a checkpoint id; expected {CHECKPOINT_ID}"
        )));
    };
    let path = TinkerPath { training_run_id: run_id, checkpoint_type, name };
    match (method, action) {
        (Method::DELETE, None) => {
            to_the_end(async move { core.delete_checkpoint(&path).await }).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        (method @ (Method::POST | Method::DELETE), Some("publish")) => {
            let public = method == Method::POST;
            to_the_end(async move { core.set_public(&path, public).await }).await?;
            Ok(Json(json!({})).into_response())
        }
        (Method::PUT, Some("ttl")) => {
            let request: SetTtlRequest = body?.json().await?;
            if request.ttl_seconds == Some(0) {
                return Err(ApiError::unprocessable(format!(
                    "ttl_seconds must be at least 1; delete {path} to be rid of it"
                )));
            }
            to_the_end(async move { core.set_ttl(&path, request.ttl_seconds).await }).await?;
            Ok(Json(json!({})).into_response())
        }
        (Method::GET, Some("external_weights_urls")) => downloads::urls(core, path, &headers).await,
        (Method::GET, Some("archive")) => downloads::archive_address(core, path, &headers).await,
        (_, Some("publish" | "ttl" | "external_weights_urls" | "archive") | None) => {
            Err(ApiError::method_not_allowed())
        }
        (_, Some(_)) => Err(ApiError::not_offered()),
    }
}
