//! What the service says of itself.

use axum::Json;
use axum::extract::State;
use axum::http::header::USER_AGENT;
use axum::http::{HeaderMap, HeaderValue};
use retinker_wire::capabilities::{ServerCapabilities, SupportedModel};
use serde_json::{Value, json};

use super::Shared;

pub(crate) async fn healthz() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// How clients should talk to it. Compression on a local link would only cost time.
///
/// Samples are waited for one by one: after a restart each is answered 410 and submitted anew, where `retrieve_futures` has no
/// way to tell of a request that is not known any more.
///
/// The official SDK is told to exchange its key for a token, by which alone it knows who it is (`tinker auth whoami`). Other
/// clients need not be able to: their keys do as they are.
pub(crate) async fn client_config(headers: HeaderMap) -> Json<Value> {
    let agent = headers.get(USER_AGENT).map(HeaderValue::as_bytes).unwrap_or_default();
    Json(json!({
        "pjwt_auth_enabled": agent.starts_with(b"AsyncTinker/Python"),
        "parallel_fwdbwd_chunks": true,
        "proto_compress_fwdbwd": false,
        "sample_use_retrieve_futures": false,
        "custom_loss_server_side": false,
        "sample_join_sampling_session": false,
    }))
}

pub(crate) async fn dynamic_config() -> Json<Value> {
    Json(json!({ "sample_cancel_enabled": true }))
}

pub(crate) async fn capabilities(State(core): Shared) -> Json<ServerCapabilities> {
    let models = core.models.configs().map(|config| SupportedModel {
        model_name: Some(config.name.clone()),
        max_context_length: Some(config.max_context as u64),
        trainable: Some(true),
        sampleable: Some(true),
    });
    Json(ServerCapabilities { supported_models: models.collect() })
}

/// Telemetry is accepted, so that clients are content, and thrown away unread: it can hold keys.
pub(crate) async fn telemetry() -> Json<Value> {
    Json(json!({ "status": "accepted" }))
}
