//! Every endpoint there is. The router is made of these lists, and the description of the service is checked against them.

use std::sync::Arc;

use axum::Router;
use axum::routing::{any, get, post};

use super::{beyond, futures, openapi, runs, service, sessions, training, weights};
use crate::core::Core;

/// Makes a router and the list of what it serves: method and path.
macro_rules! routes {
    ($(#[$doc:meta])* $name:ident, $list:ident: $($method:ident $path:literal => $handler:path,)*) => {
        $(#[$doc])*
        pub(super) fn $name() -> Router<Arc<Core>> {
            Router::new()$(.route($path, $method($handler)))*
        }

        #[cfg(test)]
        pub(super) const $list: &[(&str, &str)] = &[$((stringify!($method), $path)),*];
    };
}

routes! {
    /// The protocol's endpoints.
    api, API:
    get "/healthz" => service::healthz,
    post "/client/config" => service::client_config,
    post "/client/dynamic_config" => service::dynamic_config,
    get "/get_server_capabilities" => service::capabilities,
    post "/telemetry" => service::telemetry,
    post "/create_session" => sessions::create,
    post "/session_heartbeat" => sessions::heartbeat,
    get "/sessions" => sessions::list,
    get "/sessions/{session_id}" => sessions::get,
    post "/sessions/{session_id}/finish" => sessions::finish,
    post "/create_model" => training::create_model,
    post "/get_info" => runs::get_info,
    post "/forward_backward" => training::forward_backward,
    post "/forward" => training::forward,
    post "/optim_step" => training::optim_step,
    post "/save_weights" => weights::save,
    post "/load_weights" => weights::load,
    post "/weights_info" => weights::info,
    post "/retrieve_future" => futures::retrieve,
    get "/training_runs" => runs::list,
    get "/training_runs/{run_id}" => runs::get,
    get "/training_runs/{run_id}/checkpoints" => weights::list_of_run,
    // A checkpoint's id has a slash in it, which some clients escape and others do not.
    any "/training_runs/{run_id}/checkpoints/{*rest}" => weights::one,
    get "/checkpoints" => weights::list,
}

/// What is served below a run's checkpoints by the one route that takes everything there.
#[cfg(test)]
pub(super) const OF_A_CHECKPOINT: &[(&str, &str)] = &[
    ("delete", "/training_runs/{run_id}/checkpoints/{checkpoint_id}"),
    ("post", "/training_runs/{run_id}/checkpoints/{checkpoint_id}/publish"),
    ("delete", "/training_runs/{run_id}/checkpoints/{checkpoint_id}/publish"),
    ("put", "/training_runs/{run_id}/checkpoints/{checkpoint_id}/ttl"),
];

routes! {
    /// What the protocol has no place for.
    own, OWN:
    get "/runs/{run_id}" => beyond::run,
    get "/runs/{run_id}/metrics" => beyond::metrics,
    get "/changes" => beyond::changes,
}

routes! {
    /// The service's description of itself.
    root, ROOT:
    get "/openapi.json" => openapi::describe,
}
