//! The protocol's endpoints, under `/api/v1`. They check, ask the core, and answer; nothing here blocks or computes.

mod body;
mod downloads;
mod error;
mod futures;
mod guard;
mod runs;
mod samplers;
mod service;
mod sessions;
mod training;
mod weights;
mod words;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{any, get, post, put};

pub(crate) use error::ApiError;
#[cfg(test)]
pub(crate) use futures::not_yet;
pub(crate) use guard::Guard;

use crate::core::Core;

/// The largest body. A client cuts its batches at about 5 MB; one long example may be more.
const BODY_LIMIT: usize = 256 << 20;

/// What handlers are given.
pub(crate) type Shared = axum::extract::State<Arc<Core>>;

/// All endpoints, behind the guard.
pub(crate) fn router(core: Arc<Core>, guard: Guard) -> Router {
    let api = Router::new()
        .route("/healthz", get(service::healthz))
        .route("/client/config", post(service::client_config))
        .route("/client/dynamic_config", post(service::dynamic_config))
        .route("/get_server_capabilities", get(service::capabilities))
        .route("/telemetry", post(service::telemetry))
        .route("/create_session", post(sessions::create))
        .route("/session_heartbeat", post(sessions::heartbeat))
        .route("/sessions", get(sessions::list))
        .route("/sessions/{session_id}", get(sessions::get))
        .route("/sessions/search", post(sessions::search))
        .route("/sessions/{session_id}/finish", post(sessions::finish))
        .route("/sessions/{session_id}/project", put(sessions::set_project))
        .route("/create_sampling_session", post(samplers::create))
        .route("/join_sampling_session", post(samplers::join))
        .route("/samplers/{sampler_id}", get(samplers::get))
        .route("/create_model", post(training::create_model))
        .route("/get_info", post(runs::get_info))
        .route("/unload_model", post(training::unload_model))
        .route("/forward_backward", post(training::forward_backward))
        .route("/forward", post(training::forward))
        .route("/optim_step", post(training::optim_step))
        .route("/save_weights", post(weights::save))
        .route("/load_weights", post(weights::load))
        .route("/save_weights_for_sampler", post(weights::save_for_sampler))
        .route("/save_weights_external", post(weights::save_external))
        .route("/weights_info", post(weights::info))
        .route("/copy_weights", post(weights::copy))
        .route("/retrieve_future", post(futures::retrieve))
        .route("/training_runs", get(runs::list))
        .route("/training_runs/{run_id}", get(runs::get))
        .route("/training_runs/{run_id}/checkpoints", get(weights::list_of_run))
        // A checkpoint's id has a slash in it, which some clients escape and others do not.
        .route("/training_runs/{run_id}/checkpoints/{*rest}", any(weights::one))
        .route("/checkpoints", get(weights::list))
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .with_state(Arc::clone(&core));
    let own = Router::new()
        .route(&format!("{}/{{secret}}/{{name}}", downloads::FILES), get(downloads::file))
        .with_state(core);
    Router::new()
        .nest("/api/v1", api)
        .merge(own)
        .fallback(async || ApiError::not_offered())
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(from_fn_with_state(Arc::new(guard), guard::guard))
}
