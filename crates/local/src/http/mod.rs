//! The protocol's endpoints, under `/api/v1`, and the service's own, under `/retinker/local/v1`. They check, ask the core,
//! and answer; nothing here blocks or computes.

mod auth;
mod body;
mod cors;
mod downloads;
mod error;
mod faults;
mod futures;
mod guard;
mod inject;
mod runs;
mod samplers;
mod sampling;
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

pub(crate) use auth::Tokens;
pub(crate) use cors::Origins;
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
        .route("/auth/token", post(auth::token))
        .route("/auth/apikey/me", get(auth::describe_key).delete(auth::delete_key))
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
        .route("/retrieve_futures", post(sampling::retrieve_futures))
        .route("/cancel_future", post(sampling::cancel_future))
        .route("/asample", post(sampling::asample))
        .route("/training_runs", get(runs::list))
        .route("/training_runs/{run_id}", get(runs::get))
        .route("/training_runs/{run_id}/checkpoints", get(weights::list_of_run))
        // A checkpoint's id has a slash in it, which some clients escape and others do not.
        .route("/training_runs/{run_id}/checkpoints/{*rest}", any(weights::one))
        .route("/checkpoints", get(weights::list))
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .with_state(Arc::clone(&core));
    let mut router = Router::new().nest("/api/v1", api);
    if core.faults.enabled() {
        router = router.layer(from_fn_with_state(Arc::clone(&core), inject::inject));
    }
    router
        .route(&format!("{}/{{secret}}/{{name}}", downloads::FILES), get(downloads::file))
        .with_state(Arc::clone(&core))
        .nest(faults::PREFIX, faults::router(core))
        .fallback(async || ApiError::not_offered())
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(from_fn_with_state(Arc::new(guard), guard::guard))
}
