//! Web pages: which may call, and what their browsers are told.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // A test that fails, panics.

mod common;

use common::Client;
use reqwest::header::HeaderMap;
use reqwest::{Method, Response};
use retinker_local::{LocalConfig, LocalService, StartError};
use serde_json::{Value, json};

const PAGE: &str = "http://localhost:3000";

async fn service(dir: &std::path::Path, origins: &[&str]) -> (LocalService, Client) {
    let cors_origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
    let config =
        LocalConfig { faults: true, cors_origins, api_key: Some("tml-k".into()), ..LocalConfig::new(dir) };
    let service = LocalService::start(config).await.unwrap();
    let client = Client::new(service.base_url());
    (service, client)
}

async fn send(client: &Client, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = client.http.request(method, format!("{}{path}", client.base));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

fn list<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    let values = headers.get_all(name).iter().flat_map(|value| value.to_str().unwrap().split(", "));
    values.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_named_origins_may_call_and_read_the_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (service, client) = service(dir.path(), &["https://other.example", PAGE]).await;
    let asked = "content-type,X-Api-Key, x-idempotency-key,x-stainless-retry-count,x-stainless-anything, \
                 x-tinker-request-type,x-sdk-version,x-evil";
    let preflight = send(
        &client,
        Method::OPTIONS,
        "/api/v1/create_session",
        &[
            ("origin", PAGE),
            ("sec-fetch-site", "same-site"),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", asked),
            ("access-control-request-private-network", "true"),
        ],
    )
    .await;
    assert_eq!(preflight.status(), 204);
    let headers = preflight.headers();
    assert_eq!(headers["access-control-allow-origin"], PAGE);
    assert_eq!(headers["access-control-allow-private-network"], "true");
    assert_eq!(
        list(headers, "access-control-allow-headers"),
        [
            "content-type",
            "X-Api-Key",
            "x-idempotency-key",
            "x-stainless-retry-count",
            "x-stainless-anything",
            "x-tinker-request-type",
            "x-sdk-version",
        ]
    );
    for method in ["GET", "POST", "PUT", "DELETE"] {
        assert!(list(headers, "access-control-allow-methods").contains(&method), "{method}");
    }
    assert!(list(headers, "vary").contains(&"origin"));
    assert!(headers.get("access-control-allow-credentials").is_none());

    // The answer can be read, also when it is a refusal.
    for (key, status) in [("tml-k", 200), ("tml-wrong", 401)] {
        let answer =
            send(&client, Method::GET, "/api/v1/sessions", &[("origin", PAGE), ("x-api-key", key)]).await;
        assert_eq!(answer.status(), status);
        assert_eq!(answer.headers()["access-control-allow-origin"], PAGE);
        assert!(list(answer.headers(), "vary").contains(&"origin"));
        for name in ["retry-after", "retry-after-ms", "x-should-retry"] {
            assert!(list(answer.headers(), "access-control-expose-headers").contains(&name), "{name}");
        }
    }
    // Programs are answered as ever, and caches are told that pages are answered otherwise.
    let answer = send(&client, Method::GET, "/api/v1/sessions", &[("x-api-key", "tml-k")]).await;
    assert_eq!(answer.status(), 200);
    assert!(answer.headers().get("access-control-allow-origin").is_none());
    assert!(list(answer.headers(), "vary").contains(&"origin"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_pages_are_refused_and_get_no_word_that_a_browser_would_take_for_leave() {
    let dir = tempfile::tempdir().unwrap();
    let (service, client) = service(dir.path(), &[PAGE]).await;
    let faults = "/retinker/local/v1/faults";
    for (path, origin) in [
        ("/api/v1/sessions", "http://localhost:3001"),
        ("/api/v1/sessions", "https://localhost:3000"),
        ("/api/v1/sessions", "null"),
        (faults, "http://localhost:3001"),
        // Not even a named one may break things.
        (faults, PAGE),
        ("/retinker/local/v1/faults/poison", PAGE),
    ] {
        for method in [Method::GET, Method::POST, Method::OPTIONS, Method::DELETE] {
            let headers = [
                ("origin", origin),
                ("x-api-key", "tml-k"),
                ("content-type", "application/json"),
                ("access-control-request-method", "POST"),
            ];
            let answer = send(&client, method.clone(), path, &headers).await;
            assert_eq!(answer.status(), 403, "{method} {path} {origin}");
            let told = answer.headers().keys().find(|name| name.as_str().starts_with("access-control-"));
            assert_eq!(told, None, "{method} {path} {origin}");
            let answer: Value = answer.json().await.unwrap();
            assert!(answer["detail"].as_str().unwrap().contains("--cors-origin"), "{answer}");
        }
    }
    let embedded = [("sec-fetch-site", "cross-site"), ("x-api-key", "tml-k")];
    assert_eq!(send(&client, Method::GET, "/api/v1/sessions", &embedded).await.status(), 403);
    assert_eq!(send(&client, Method::GET, faults, &embedded).await.status(), 403);
    let form = [("content-type", "text/plain"), ("x-api-key", "tml-k")];
    for method in [Method::POST, Method::DELETE] {
        assert_eq!(send(&client, method, faults, &form).await.status(), 415);
    }
    assert_eq!(send(&client, Method::GET, faults, &[]).await.status(), 401);
    assert_eq!(send(&client, Method::GET, faults, &[("x-api-key", "tml-k")]).await.status(), 200);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_origin_prevents_a_start() {
    let dir = tempfile::tempdir().unwrap();
    for bad in ["*", "localhost:3000", "http://localhost:3000/app"] {
        let config = LocalConfig { cors_origins: vec![bad.into()], ..LocalConfig::new(dir.path()) };
        let error = LocalService::start(config).await.unwrap_err();
        assert!(matches!(error, StartError::Origin(_)), "{error}");
        assert!(error.to_string().contains(&format!("'{bad}'")), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_named_origins_no_preflight_is_granted() {
    let dir = tempfile::tempdir().unwrap();
    let service = common::start(dir.path()).await;
    let client = Client::new(service.base_url());
    let headers = [("origin", PAGE), ("access-control-request-method", "POST")];
    let answer = send(&client, Method::OPTIONS, "/api/v1/create_session", &headers).await;
    assert_eq!(answer.status(), 403);
    assert!(answer.headers().get("vary").is_none());
    assert_eq!(client.post("create_session", json!({"tags": []})).await.0, 200);
    service.stop().await;
}
