//! The protocol's endpoints, under `/api/v1`, and the service's own, under `/retinker/local/v1`. They check, ask the core,
//! and answer; nothing here blocks or computes.

mod auth;
mod beyond;
mod body;
mod cors;
mod downloads;
mod error;
mod faults;
mod futures;
mod guard;
mod hub;
mod inject;
mod openapi;
mod routes;
mod runs;
mod salvage;
mod samplers;
mod sampling;
mod service;
mod sessions;
mod training;
mod weights;
mod words;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;

pub(crate) use auth::Tokens;
pub(crate) use cors::Origins;
pub(crate) use error::ApiError;
#[cfg(test)]
pub(crate) use futures::not_yet;
pub(crate) use guard::Guard;

use crate::core::Core;

/// Where the protocol's endpoints are.
const API: &str = "/api/v1";

/// Where the service's own are.
const OWN: &str = "/retinker/local/v1";

/// The largest body. A client cuts its batches at about 5 MB; one long example may be more.
const BODY_LIMIT: usize = 256 << 20;

/// What handlers are given.
pub(crate) type Shared = axum::extract::State<Arc<Core>>;

/// All endpoints, behind the guard.
pub(crate) fn router(core: Arc<Core>, guard: Guard) -> Router {
    let mut router = Router::new().merge(routes::root()).nest(API, routes::api()).nest(OWN, routes::own());
    if core.faults.enabled() {
        router = router.layer(from_fn_with_state(Arc::clone(&core), inject::inject));
    }
    router
        .with_state(Arc::clone(&core))
        .nest(faults::PREFIX, faults::router(core))
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .fallback(async || ApiError::not_offered())
        .layer(from_fn_with_state(Arc::new(guard), guard::guard))
}
