//! Sessions.

use axum::Json;
use axum::extract::State;
use retinker_wire::session::{
    CreateSessionRequest, CreateSessionResponse, FinishReason, FinishReasonBody, FinishSessionRequest,
    GetSessionResponse, ListSessionsResponse, SessionHeartbeatRequest, SessionSearchRequest,
    SessionSearchResponse, SetProjectRequest,
};
use serde_json::{Value, json};

use super::body::{Body, IdempotencyKey, PageQuery, Path, to_the_end};
use super::{ApiError, Shared};
use crate::ops::{labels, unknown_session};

pub(crate) async fn create(
    State(core): Shared,
    key: IdempotencyKey,
    body: Body,
) -> Result<Json<CreateSessionResponse>, ApiError> {
    let request: CreateSessionRequest = body.json().await?;
    let session_id = to_the_end(async move { core.create_session(request, key.0).await }).await?;
    Ok(Json(CreateSessionResponse {
        session_id,
        info_message: None,
        warning_message: None,
        error_message: None,
    }))
}

pub(crate) async fn heartbeat(State(core): Shared, body: Body) -> Result<Json<Value>, ApiError> {
    let request: SessionHeartbeatRequest = body.json().await?;
    core.heartbeat(&request.session_id)?;
    Ok(Json(json!({ "type": "session_heartbeat" })))
}

pub(crate) async fn finish(
    State(core): Shared,
    Path(session_id): Path<String>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    // Some clients send nothing, or `{}`.
    let request = body.json().await.unwrap_or(FinishSessionRequest {
        reason: FinishReasonBody { kind: FinishReason::Success },
        detail: None,
    });
    to_the_end(async move { core.finish_session(&session_id, &request).await }).await?;
    Ok(Json(json!({})))
}

pub(crate) async fn get(
    State(core): Shared,
    Path(session_id): Path<String>,
) -> Result<Json<GetSessionResponse>, ApiError> {
    let index = core.index();
    let session = index.session(&session_id).ok_or_else(|| unknown_session(&session_id))?;
    Ok(Json(GetSessionResponse {
        training_run_ids: session.runs.iter().map(|run| run.to_string()).collect(),
        sampler_ids: session.samplers.iter().map(|sampler| sampler.to_string()).collect(),
        user_metadata: Some(labels(session)),
        display_name: session.request.display_name.clone(),
    }))
}

pub(crate) async fn list(
    State(core): Shared,
    page: PageQuery,
) -> Result<Json<ListSessionsResponse>, ApiError> {
    let page = page.page(20);
    Ok(Json(ListSessionsResponse { sessions: core.index().sessions_page(page) }))
}

pub(crate) async fn search(State(core): Shared, body: Body) -> Result<Json<SessionSearchResponse>, ApiError> {
    let request: SessionSearchRequest = body.json().await?;
    core.search_sessions(&request).map(Json)
}

pub(crate) async fn set_project(
    State(core): Shared,
    Path(session_id): Path<String>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let SetProjectRequest { project_id } = body.json().await?;
    to_the_end(async move { core.set_project(&session_id, project_id).await }).await?;
    Ok(Json(json!({})))
}
