//! Sampling sessions.

use axum::Json;
use axum::extract::State;
use retinker_wire::sampler::{
    CreateSamplingSessionRequest, CreateSamplingSessionResponse, GetSamplerResponse,
    JoinSamplingSessionRequest, JoinSamplingSessionResponse,
};

use super::body::{Body, Path, to_the_end};
use super::{ApiError, Shared};

pub(crate) async fn create(
    State(core): Shared,
    body: Body,
) -> Result<Json<CreateSamplingSessionResponse>, ApiError> {
    let request: CreateSamplingSessionRequest = body.json().await?;
    let sampling_session_id = to_the_end(async move { core.create_sampler(request).await }).await?;
    Ok(Json(CreateSamplingSessionResponse { sampling_session_id }))
}

pub(crate) async fn join(
    State(core): Shared,
    body: Body,
) -> Result<Json<JoinSamplingSessionResponse>, ApiError> {
    let request: JoinSamplingSessionRequest = body.json().await?;
    let joined = to_the_end(async move { core.join_sampler(&request.sampling_session_id).await });
    Ok(Json(JoinSamplingSessionResponse { client_counter: joined.await? }))
}

pub(crate) async fn get(
    State(core): Shared,
    Path(sampler_id): Path<String>,
) -> Result<Json<GetSamplerResponse>, ApiError> {
    core.describe_sampler(&sampler_id).map(Json)
}
