//! Prometheus' answers.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use super::Metrics;

/// Answers `GET /metrics` on this listener, for ever. They name no run and hold nothing secret, so whoever reaches the
/// address may read them.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>) {
    let app = Router::new().route("/metrics", get(render)).with_state(metrics);
    if let Err(error) = axum::serve(listener, app).await {
        tracing::error!(%error, "metrics are no longer served");
    }
}

async fn render(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, Metrics::CONTENT_TYPE)], metrics.render())
}
