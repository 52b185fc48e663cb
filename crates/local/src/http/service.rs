//! What the service says of itself.

use axum::Json;
use axum::extract::State;
use retinker_wire::capabilities::{ServerCapabilities, SupportedModel};
use serde_json::{Value, json};

use super::Shared;

pub(crate) async fn healthz() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// How clients should talk to it. Compression on a local link would only cost time.
pub(crate) async fn client_config() -> Json<Value> {
    Json(json!({
        "pjwt_auth_enabled": false,
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
