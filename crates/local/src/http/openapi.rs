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

    use super::super::faults::PREFIX as FAULTS;
    use super::super::routes;
    use super::super::{API, OWN};

    #[test]
    fn what_is_served_is_described_and_what_is_described_is_served() {
        let description: Value = serde_json::from_str(super::DESCRIPTION).unwrap();
        let mut described = BTreeSet::new();
        for (path, methods) in description["paths"].as_object().unwrap() {
            described.extend(methods.as_object().unwrap().keys().map(|method| format!("{method} {path}")));
        }
        let mut served = BTreeSet::new();
        let lists = [
            ("", routes::ROOT),
            (API, routes::API),
            (API, routes::OF_A_CHECKPOINT),
            (OWN, routes::OWN),
            (FAULTS, routes::FAULTS),
        ];
        for (prefix, list) in lists {
            let one_by_one = list.iter().filter(|(method, _)| *method != "any");
            served.extend(
                one_by_one.map(|(method, path)| format!("{method} {prefix}{}", path.trim_end_matches('/'))),
            );
        }
        let undescribed: Vec<_> = served.difference(&described).collect();
        assert!(undescribed.is_empty(), "not in openapi.json: {undescribed:#?}");
        let unserved: Vec<_> = described.difference(&served).collect();
        assert!(unserved.is_empty(), "only in openapi.json: {unserved:#?}");
    }
}
