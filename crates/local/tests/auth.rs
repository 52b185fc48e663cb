//! Keys, and the tokens that the official SDK exchanges them for.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // A test that fails, panics.

mod common;

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::Client;
use reqwest::Response;
use retinker_local::{LocalConfig, LocalService};
use serde_json::{Value, json};

async fn keyed(dir: &Path) -> (LocalService, Client) {
    let config = LocalConfig { api_key: Some("tml-right".into()), ..LocalConfig::new(dir) };
    let service = LocalService::start(config).await.unwrap();
    let client = Client::new(service.base_url());
    (service, client)
}

async fn exchange(client: &Client, key: &str) -> Response {
    client.http.post(client.url("auth/token")).header("x-api-key", key).json(&json!({})).send().await.unwrap()
}

async fn token(client: &Client, key: &str) -> String {
    let answer: Value = exchange(client, key).await.json().await.unwrap();
    answer["jwt"].as_str().unwrap().to_owned()
}

async fn sessions(client: &Client, key: &str) -> Response {
    client.http.get(client.url("sessions")).header("x-api-key", key).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_does_for_the_key_until_the_service_is_started_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (service, client) = keyed(dir.path()).await;
    assert_eq!(exchange(&client, "tml-wrong").await.status(), 401);
    let first = token(&client, "tml-right").await;
    assert_eq!(sessions(&client, &first).await.status(), 200);
    // A token can be exchanged too.
    let next = token(&client, &first).await;
    assert_eq!(sessions(&client, &next).await.status(), 200);
    let claims: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(first.split('.').nth(1).unwrap()).unwrap()).unwrap();
    for member in ["iss", "sub", "org_id", "email"] {
        assert!(claims[member].as_str().is_some_and(|text| !text.is_empty()), "{claims}");
    }
    service.stop().await;

    let (service, client) = keyed(dir.path()).await;
    let refused = sessions(&client, &first).await;
    assert_eq!(refused.status(), 401);
    // By this the SDK knows that it can exchange its key again.
    assert_eq!(refused.headers()["www-authenticate"], r#"Bearer error="invalid_token""#);
    let refused = sessions(&client, "tml-wrong").await;
    assert_eq!(refused.status(), 401);
    assert!(refused.headers().get("www-authenticate").is_none());
    assert_eq!(sessions(&client, "tml-right").await.status(), 200);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_any_credential_does() {
    let dir = tempfile::tempdir().unwrap();
    let service = common::start(dir.path()).await;
    let client = Client::new(service.base_url());
    for key in ["tml-anything", "eyJhbGciOiJIUzI1NiJ9.e30.old", "not a key"] {
        assert_eq!(sessions(&client, key).await.status(), 200, "{key}");
        assert!(token(&client, key).await.starts_with("eyJ"));
    }
    for refused in [sessions(&client, "").await, keyless(&client, "sessions").await] {
        assert_eq!(refused.status(), 401);
        let detail: Value = refused.json().await.unwrap();
        assert!(detail["detail"].as_str().unwrap().contains("TINKER_API_KEY=tml-local"), "{detail}");
    }
    assert_eq!(keyless(&client, "healthz").await.status(), 200);
    service.stop().await;
}

/// Asks without a key.
async fn keyless(client: &Client, path: &str) -> Response {
    reqwest::get(client.url(path)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_official_sdk_is_told_to_exchange_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let service = common::start(dir.path()).await;
    let client = Client::new(service.base_url());
    for (agent, told) in
        [("AsyncTinker/Python 0.38.0", true), ("retinker/0.1.0", false), ("python-httpx/0.28", false)]
    {
        let request = client.http.post(client.url("client/config")).header("user-agent", agent);
        let config: Value = request.json(&json!({})).send().await.unwrap().json().await.unwrap();
        assert_eq!(config["pjwt_auth_enabled"], told, "{agent}");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_described_and_a_required_one_cannot_be_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let (service, client) = keyed(dir.path()).await;
    let me = client.url("auth/apikey/me");
    assert_eq!(client.http.get(&me).send().await.unwrap().status(), 401);
    let described = client.http.get(&me).header("x-api-key", "tml-right").send().await.unwrap();
    let described: Value = described.json().await.unwrap();
    assert!(described["key_id"].is_i64() && described["name"].is_string() && described["note"].is_string());
    assert!(described["details"]["org_details"]["name"].is_string(), "{described}");
    assert_eq!(described["details"]["user_details"]["email"], "you@localhost");
    let delete = client.http.delete(&me).header("x-api-key", "tml-right").send().await.unwrap();
    assert_eq!(delete.status(), 403);
    assert!(delete.text().await.unwrap().contains("--api-key"));
    assert_eq!(sessions(&client, "tml-right").await.status(), 200);
    service.stop().await;

    let open = tempfile::tempdir().unwrap();
    let service = common::start(open.path()).await;
    let me = format!("{}/api/v1/auth/apikey/me", service.base_url());
    assert_eq!(client.http.delete(me).send().await.unwrap().status(), 204);
    service.stop().await;
}
