//! Waiting for results.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use prost::Message;
use retinker_wire::future::{PROTOBUF, QueueState, RequestFailed, RetrieveFutureRequest, TryAgain};

use super::body::Body;
use super::{ApiError, Shared, sampling};
use crate::core::Core;
use crate::futures::Outcome;

/// How long a question is held before the answer is "try again". Clients give up after 45 s.
const HOLD: Duration = Duration::from_secs(20);
/// How long while work is paused.
const PAUSED_HOLD: Duration = Duration::from_secs(1);

pub(crate) async fn retrieve(
    State(core): Shared,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let RetrieveFutureRequest { request_id, .. } = body.json().await?;
    let protobuf = headers
        .get_all(ACCEPT)
        .iter()
        .any(|accept| accept.to_str().is_ok_and(|accept| accept.contains(PROTOBUF)));
    let Some(mut result) = core.futures.watch(&request_id) else {
        return match core.forgotten(&request_id) {
            Some(outcome) => answer(&outcome, protobuf),
            None if core.is_sample(&request_id) => Err(sampling::lost(&request_id)),
            None => Err(ApiError::not_found(format!("request {request_id} does not exist"))),
        };
    };
    // Most questions come when the result is there: no clock is needed for those.
    let ready = result.borrow().clone();
    if let Some(outcome) = ready {
        return answer(&outcome, protobuf);
    }
    let mut stopping = core.stopping.subscribe();
    let outcome: Option<Arc<Outcome>> = tokio::select! {
        resolved = result.wait_for(Option::is_some) => resolved.ok().and_then(|outcome| outcome.clone()),
        () = tokio::time::sleep(HOLD) => None,
        () = told_of_pause(&core) => None,
        _ = stopping.wait_for(|stopping| *stopping) => None,
    };
    match outcome {
        Some(outcome) => answer(&outcome, protobuf),
        // Not 408: browsers send a request again on their own when it is answered so on a used connection.
        None => Ok(Json(not_yet(&core, request_id)).into_response()),
    }
}

/// Resolves a while after work was paused: clients hear of it soon, yet do not ask over and over.
async fn told_of_pause(core: &Core) {
    core.faults.wait_for_pause().await;
    tokio::time::sleep(PAUSED_HOLD).await;
}

/// The answer for a request that is not carried out yet.
pub(crate) fn not_yet(core: &Core, request_id: String) -> TryAgain {
    let (queue_state, queue_state_reason) = match (core.faults.paused(), core.waits_for(&request_id)) {
        (Some(pause), _) => (pause.queue_state, pause.reason),
        (None, Some(waits_for)) => (QueueState::Active, Some(waits_for)),
        (None, None) => match core.backlog.full() {
            Some(full) => (QueueState::PausedCapacity, Some(full)),
            None => (QueueState::Active, None),
        },
    };
    TryAgain {
        kind: Some("try_again".to_owned()),
        queue_state: Some(queue_state),
        queue_state_reason,
        request_id: Some(request_id),
        ..TryAgain::default()
    }
}

fn answer(outcome: &Outcome, protobuf: bool) -> Result<Response, ApiError> {
    match outcome {
        Outcome::Forward(output) if protobuf => {
            Ok(([(CONTENT_TYPE, PROTOBUF)], output.to_proto().encode_to_vec()).into_response())
        }
        Outcome::Forward(output) => Ok(Json(output).into_response()),
        Outcome::Sample(response) if protobuf => {
            Ok(([(CONTENT_TYPE, PROTOBUF)], response.to_proto().encode_to_vec()).into_response())
        }
        Outcome::Sample(response) => Ok(Json(response).into_response()),
        Outcome::Done(result) => Ok(Json(result).into_response()),
        Outcome::Failed { message, category } => {
            Ok(Json(RequestFailed { error: message.clone(), category: category.clone() }).into_response())
        }
        Outcome::Gone(detail) => Err(ApiError::gone(detail.clone())),
    }
}
