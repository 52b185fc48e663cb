//! docs/compatibility.md says what is so.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // A test that fails, panics.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{Client, start};
use reqwest::Method;
use serde_json::Value;

const PAGE: &str = include_str!("../../../docs/compatibility.md");

/// The cells of the rows of the table below a heading.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let mut section = PAGE.lines().skip_while(|line| *line != heading).skip(1);
    let rows: Vec<Vec<&str>> = section
        .by_ref()
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|line| {
            line.trim_end_matches(" |").split(" | ").map(|cell| cell.trim_matches(['`', ' '])).collect()
        })
        .collect();
    assert!(!rows.is_empty(), "there is no table below '{heading}'");
    rows
}

/// Endpoints and what the page says of them: `yes`, or the status of an absent one.
fn endpoints() -> BTreeMap<&'static str, &'static str> {
    let rows = rows("## Endpoints");
    let count = rows.len();
    let endpoints: BTreeMap<_, _> = rows.into_iter().map(|row| (row[0], row[1])).collect();
    assert_eq!(endpoints.len(), count, "an endpoint has two rows");
    endpoints
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_answer_as_the_page_says() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let mut wrong = Vec::new();
    for (endpoint, said) in endpoints() {
        let (method, path) = endpoint.split_once(' ').unwrap();
        let path = path
            .replace("{checkpoint_id}", "weights/x")
            .split('/')
            .map(|part| if part.starts_with('{') { "x" } else { part })
            .collect::<Vec<_>>()
            .join("/");
        let method: Method = method.parse().unwrap();
        let mut request = client.http.request(method.clone(), format!("{}{path}", client.base));
        if method == Method::POST || method == Method::PUT {
            request = request.json(&serde_json::json!({}));
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        let body: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default();
        // A thing that does not exist is another 404 than an endpoint that does not.
        let absent = status == 405 || (status == 404 && body["detail"] == "Not Found");
        let found = if absent { status.as_str() } else { "yes" };
        assert!(!status.is_server_error(), "{endpoint}: {status} {body}");
        if found != said {
            wrong.push(format!("{endpoint}: the page says {said}, the service {found} ({status} {body})"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    service.stop().await;
}

#[test]
fn every_described_endpoint_of_the_protocol_has_a_row() {
    let description: Value = serde_json::from_str(include_str!("../openapi.json")).unwrap();
    let mut described = BTreeSet::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            described.insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    let protocol = |endpoint: &&String| endpoint.contains(" /api/v1/");
    let offered: BTreeSet<String> =
        endpoints().into_iter().filter(|(_, said)| *said == "yes").map(|(name, _)| name.to_owned()).collect();
    let described: BTreeSet<String> = described.iter().filter(protocol).cloned().collect();
    assert_eq!(offered, described);
}

#[test]
fn methods_and_commands_are_there_when_their_endpoints_are() {
    let endpoints = endpoints();
    for heading in [
        "## ServiceClient",
        "## TrainingClient",
        "## SamplingClient",
        "## RestClient",
        "## AdminClient",
        "## The tinker command",
    ] {
        for row in rows(heading) {
            let [method, said, needs, ..] = row[..] else { panic!("{row:?} has too few cells") };
            let needs: Vec<&str> = needs.split(", ").filter(|need| *need != "-").collect();
            let mut all = true;
            for need in needs {
                let need = need.trim_matches('`');
                let said =
                    endpoints.get(need).unwrap_or_else(|| panic!("{method} needs {need}, which has no row"));
                all &= *said == "yes";
            }
            match said {
                "yes" => assert!(all, "{method} is said to work, but an endpoint that it needs is absent"),
                "no" => {
                    assert!(!all, "{method} is said not to work, but all endpoints that it needs are there")
                }
                // Works for the client's own reasons.
                "client" => {}
                other => panic!("{method}: '{other}'"),
            }
        }
    }
}
