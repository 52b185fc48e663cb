//! The simulated service over HTTP.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use retinker::wire::time::Time;
use tokio::net::TcpListener;

use super::Service;

/// Now.
#[must_use]
pub fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Serves until the process ends. Beside the protocol there are `POST /simulated/touch/COUNT`, after which so many runs have
/// been asked for something, and `POST /simulated/poison/N`.
///
/// # Errors
/// The connections cannot be accepted any more.
pub async fn serve(service: Arc<Service>, listener: TcpListener) -> Result<()> {
    let app = Router::new()
        .route("/simulated/touch/{count}", post(touch))
        .route("/simulated/poison/{n}", post(poison))
        .fallback(answer)
        .with_state(service);
    axum::serve(listener, app).await.context("the simulated service has ended")
}

/// Has so many runs be asked for something again and again.
pub async fn keep_changing(service: Arc<Service>, every: Duration, count: u64) {
    loop {
        tokio::time::sleep(every).await;
        service.touch(count, now());
    }
}

async fn touch(State(service): State<Arc<Service>>, Path(count): Path<u64>) {
    service.touch(count, now());
}

async fn poison(State(service): State<Arc<Service>>, Path(n): Path<u64>) {
    service.poison(n);
}

async fn answer(State(service): State<Arc<Service>>, uri: Uri, body: Bytes) -> Response {
    let asked = uri.path_and_query().map_or("", |asked| asked.as_str());
    // The ids of runs have colons, which some clients escape.
    let asked = asked.strip_prefix("/api/v1/").unwrap_or_default().replace("%3A", ":");
    let kind = [(header::CONTENT_TYPE, "application/json")];
    match service.answer(&asked, &body) {
        Some(text) => (kind, text).into_response(),
        None => (StatusCode::NOT_FOUND, kind, r#"{"detail":"Not Found"}"#).into_response(),
    }
}
