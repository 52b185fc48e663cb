//! Carrying out the rules for requests, in front of the protocol's endpoints.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request, State};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::{BODY_LIMIT, Shared};
use crate::core::Core;
use crate::faults::{API_PREFIX, DropWhen, Line, RequestFault};

/// Lets a request pass as the rules say.
pub(crate) async fn inject(State(core): Shared, mut request: Request, next: Next) -> Response {
    let endpoint = request.uri().path().strip_prefix(API_PREFIX);
    let faults = match endpoint {
        Some(endpoint) => core.faults.of_request(request.method().as_str(), endpoint),
        None => Vec::new(),
    };
    for fault in faults {
        tracing::info!(path = request.uri().path(), ?fault, "fault on purpose");
        match fault {
            RequestFault::Delay { milliseconds } => wait(&core, Duration::from_millis(milliseconds)).await,
            RequestFault::Fail { status, retry_after, empty_body } => {
                refuse(&core, request, status).await;
                return failure(status, retry_after, empty_body);
            }
            RequestFault::Drop { when } => {
                let line = request.extensions().get::<Line>().cloned();
                match when {
                    DropWhen::Before => swallow(&mut request).await,
                    DropWhen::After => drop(next.run(request).await),
                }
                if let Some(line) = line {
                    line.cut();
                }
                // Nobody gets this: the line is cut.
                return StatusCode::INTERNAL_SERVER_ERROR.into_response();
            }
        }
    }
    next.run(request).await
}

/// Waits, but does not hold up the service's end.
async fn wait(core: &Arc<Core>, time: Duration) {
    let mut stopping = core.stopping.subscribe();
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
}

/// Reads the body before it is refused. What a client does not send again is noted as refused, as a real refusal is, so
/// that the run does not wait for its number.
async fn refuse(core: &Arc<Core>, mut request: Request, status: u16) {
    // Those with which the SDK sends the same request again.
    let again = matches!(status, 408 | 409 | 429) || status >= 500;
    if again || !request.headers().contains_key(CONTENT_TYPE) {
        return swallow(&mut request).await;
    }
    if let Ok(body) = super::body::Body::from_request(request, core).await {
        body.note_refused(core).await;
    }
}

/// Reads the body and throws it away: a client that is still sending would not see the answer.
async fn swallow(request: &mut Request) {
    let body = std::mem::replace(request.body_mut(), Body::empty());
    let _ = axum::body::to_bytes(body, BODY_LIMIT).await;
}

fn failure(status: u16, retry_after: Option<u64>, empty_body: bool) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = if empty_body {
        status.into_response()
    } else {
        let detail = "the request failed on purpose, by a fault rule".to_owned();
        ApiError { status, detail }.into_response()
    };
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
