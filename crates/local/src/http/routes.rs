//! Every endpoint there is. The router is made of these lists, and the description of the service is checked against them.

use std::sync::Arc;

use axum::Router;
use axum::routing::{any, delete, get, post, put};

use super::{
    auth, beyond, downloads, faults, futures, hub, openapi, runs, samplers, sampling, service, sessions,
    training, weights,
};
use crate::core::Core;

/// Makes a router and the list of what it serves: method and path.
macro_rules! routes {
    ($(#[$doc:meta])* $name:ident, $list:ident: $($method:ident $path:literal => $handler:path,)*) => {
        $(#[$doc])*
        pub(super) fn $name() -> Router<Arc<Core>> {
            Router::new()$(.route($path, $method($handler)))*
        }

        // Not all of the lists are asked outside tests.
        #[allow(dead_code)]
        pub(super) const $list: &[(&str, &str)] = &[$((stringify!($method), $path)),*];
    };
}

routes! {
    /// The protocol's endpoints.
    api, API:
    get "/healthz" => service::healthz,
    post "/client/config" => service::client_config,
    post "/client/dynamic_config" => service::dynamic_config,
    post "/auth/token" => auth::token,
    get "/auth/apikey/me" => auth::describe_key,
    delete "/auth/apikey/me" => auth::delete_key,
    get "/get_server_capabilities" => service::capabilities,
    post "/telemetry" => service::telemetry,
    post "/create_session" => sessions::create,
    post "/session_heartbeat" => sessions::heartbeat,
    get "/sessions" => sessions::list,
    get "/sessions/{session_id}" => sessions::get,
    post "/sessions/search" => sessions::search,
    post "/sessions/{session_id}/finish" => sessions::finish,
    put "/sessions/{session_id}/project" => sessions::set_project,
    post "/create_sampling_session" => samplers::create,
    post "/join_sampling_session" => samplers::join,
    get "/samplers/{sampler_id}" => samplers::get,
    post "/create_model" => training::create_model,
    post "/get_info" => runs::get_info,
    post "/unload_model" => training::unload_model,
    post "/forward_backward" => training::forward_backward,
    post "/forward" => training::forward,
    post "/optim_step" => training::optim_step,
    post "/save_weights" => weights::save,
    post "/load_weights" => weights::load,
    post "/save_weights_for_sampler" => weights::save_for_sampler,
    post "/save_weights_external" => weights::save_external,
    post "/weights_info" => weights::info,
    post "/copy_weights" => weights::copy,
    post "/retrieve_future" => futures::retrieve,
    post "/retrieve_futures" => sampling::retrieve_futures,
    post "/cancel_future" => sampling::cancel_future,
    post "/asample" => sampling::asample,
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
    ("get", "/training_runs/{run_id}/checkpoints/{checkpoint_id}/external_weights_urls"),
    ("get", "/training_runs/{run_id}/checkpoints/{checkpoint_id}/archive"),
];

routes! {
    /// What the protocol has no place for.
    own, OWN:
    get "/runs/{run_id}" => beyond::run,
    get "/runs/{run_id}/metrics" => beyond::metrics,
    get "/changes" => beyond::changes,
    get "/files/{secret}/{name}" => downloads::file,
}

routes! {
    /// The service's description of itself, and its tokenizers, at the addresses of a Hugging Face hub.
    root, ROOT:
    get "/openapi.json" => openapi::describe,
    get "/{org}/{model}/resolve/{revision}/{file}" => hub::file,
}

routes! {
    /// Failures on purpose, where the service was started with them.
    faults, FAULTS:
    get "/" => faults::list,
    delete "/" => faults::clear,
    post "/requests" => faults::add_request_rule,
    post "/operations" => faults::add_operation_rule,
    post "/cold_loads" => faults::add_cold_loads,
    post "/noise" => faults::set_noise,
    post "/pause" => faults::pause,
    delete "/pause" => faults::resume,
    post "/poison" => faults::poison,
    post "/stop_trainer" => faults::stop_trainer,
    post "/roll_back" => faults::roll_back,
    post "/expire" => faults::expire,
    post "/damage" => faults::damage,
}
