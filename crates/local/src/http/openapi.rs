//! The service's description of itself, in OpenAPI 3.1. Written by hand, beside the code; the tests compare it with the
//! routes, and with what the service answers.

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

const DESCRIPTION: &str = include_str!("../../openapi.json");

pub(crate) async fn describe() -> Response {
    ([(CONTENT_TYPE, "application/json")], DESCRIPTION).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::super::routes;
    use super::super::{API, OWN};

    /// Described already; their routes are on their way. An entry must go when its route is there.
    const COMING: &[&str] = &[
        "post /api/v1/auth/token",
        "get /api/v1/auth/apikey/me",
        "delete /api/v1/auth/apikey/me",
        "post /api/v1/sessions/search",
        "put /api/v1/sessions/{session_id}/project",
        "post /api/v1/unload_model",
        "post /api/v1/save_weights_for_sampler",
        "post /api/v1/save_weights_external",
        "post /api/v1/copy_weights",
        "post /api/v1/retrieve_futures",
        "post /api/v1/cancel_future",
        "post /api/v1/create_sampling_session",
        "post /api/v1/join_sampling_session",
        "get /api/v1/samplers/{sampler_id}",
        "post /api/v1/asample",
        "get /api/v1/training_runs/{run_id}/checkpoints/{checkpoint_id}/external_weights_urls",
        "get /api/v1/training_runs/{run_id}/checkpoints/{checkpoint_id}/archive",
        "get /retinker/local/v1/faults",
        "delete /retinker/local/v1/faults",
        "post /retinker/local/v1/faults/requests",
        "post /retinker/local/v1/faults/operations",
        "post /retinker/local/v1/faults/pause",
        "delete /retinker/local/v1/faults/pause",
        "post /retinker/local/v1/faults/poison",
        "post /retinker/local/v1/faults/stop_trainer",
        "post /retinker/local/v1/faults/expire",
        "post /retinker/local/v1/faults/damage",
        "get /retinker/local/v1/files/{secret}/{name}",
    ];

    #[test]
    fn what_is_served_is_described_and_what_is_described_is_served() {
        let description: Value = serde_json::from_str(super::DESCRIPTION).unwrap();
        let mut described = BTreeSet::new();
        for (path, methods) in description["paths"].as_object().unwrap() {
            described.extend(methods.as_object().unwrap().keys().map(|method| format!("{method} {path}")));
        }
        let mut served = BTreeSet::new();
        let lists =
            [("", routes::ROOT), (API, routes::API), (API, routes::OF_A_CHECKPOINT), (OWN, routes::OWN)];
        for (prefix, list) in lists {
            let one_by_one = list.iter().filter(|(method, _)| *method != "any");
            served.extend(one_by_one.map(|(method, path)| format!("{method} {prefix}{path}")));
        }
        let coming: BTreeSet<String> = COMING.iter().map(|route| (*route).to_owned()).collect();
        let undescribed: Vec<_> = served.difference(&described).collect();
        assert!(undescribed.is_empty(), "not in openapi.json: {undescribed:#?}");
        let unserved: BTreeSet<_> = described.difference(&served).cloned().collect();
        assert_eq!(unserved, coming);
    }
}
