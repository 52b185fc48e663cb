//! The guard and the forward, over the wire.

mod common;

use common::{FakeService, Fault, KEY, Raw, TOKEN, raw, start};
use retinker_host::RunningHost;

struct Page<'a>(&'a RunningHost);

impl Page<'_> {
    /// Sends what the console's page would, with these headers more, or instead.
    async fn send(&self, line: &str, headers: &[(&str, &str)], body: &str) -> Raw {
        let host = self.0.address().to_string();
        let mut all = vec![("host", host.as_str()), ("x-retinker-token", TOKEN)];
        if line.starts_with("POST") {
            all.push(("content-type", "application/json"));
        }
        for (name, value) in headers {
            all.retain(|(n, _)| n != name);
            if !value.is_empty() {
                all.push((name, value));
            }
        }
        let lines: Vec<_> = all.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        raw(self.0.address(), line, &lines, body).await
    }

    async fn get(&self, path: &str) -> Raw {
        self.send(&format!("GET {path}"), &[], "").await
    }
}

#[tokio::test]
async fn each_refusal() {
    let (service, dir) = (FakeService::start().await, tempfile::tempdir().unwrap());
    let running = start(&service, dir.path()).await;
    let page = Page(&running);
    let own = format!("http://{}", running.address());
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let cases: &[(&str, Headers<'_>, u16, &str)] = &[
        ("GET /retinker/v1/status", &[], 200, ""),
        ("GET /retinker/v1/status", &[("origin", &own), ("sec-fetch-site", "same-origin")], 200, ""),
        ("GET /retinker/v1/status", &[("x-retinker-token", "")], 401, "token_missing"),
        ("GET /retinker/v1/status", &[("x-retinker-token", "wrong")], 401, "token_missing"),
        ("GET /retinker/v1/events", &[("x-retinker-token", "")], 401, "token_missing"),
        ("GET /api/v1/training_runs", &[("x-retinker-token", "")], 401, "token_missing"),
        ("GET /retinker/v1/status", &[("host", "evil.example")], 403, "host_not_allowed"),
        ("GET /", &[("host", "evil.example")], 403, "host_not_allowed"),
        ("GET /retinker/v1/status", &[("origin", "https://evil.example")], 403, "origin_not_allowed"),
        ("GET /retinker/v1/status", &[("sec-fetch-site", "cross-site")], 403, "site_not_allowed"),
        ("POST /retinker/v1/plans", &[("content-type", "text/plain")], 415, "content_type_not_allowed"),
        ("POST /retinker/v1/plans", &[], 400, "bad_request"),
        ("GET /retinker/v1/nothing", &[], 404, "no_such_call"),
        ("GET /retinker/v1/runs?health=sick", &[], 400, "bad_request"),
        ("GET /retinker/v1/restores/none", &[], 404, "restore_not_found"),
        ("GET /api/v1/auth/token", &[], 404, "not_forwarded"),
        ("POST /api/v1/auth/token", &[], 404, "not_forwarded"),
        ("POST /api/v1/load_weights", &[], 404, "not_forwarded"),
        ("GET /missing.js", &[], 404, "no_such_file"),
        ("POST /", &[], 405, "no_such_call"),
    ];
    for (line, headers, status, code) in cases {
        let answer = page.send(line, headers, "").await;
        assert_eq!((answer.status, answer.code().as_str()), (*status, *code), "{line} {headers:?}");
        for name in ["content-security-policy", "x-content-type-options", "referrer-policy"] {
            assert!(answer.header(name).is_some(), "{name} of {line} {headers:?}");
        }
    }
    let long = format!("{{\"run_id\":\"{}\"}}", "x".repeat(2 << 20));
    assert_eq!(page.send("POST /retinker/v1/plans", &[], &long).await.status, 400);
    running.stop().await;
}

#[tokio::test]
async fn the_page_needs_no_token_and_holds_none() {
    let (service, dir) = (FakeService::start().await, tempfile::tempdir().unwrap());
    let running = start(&service, dir.path()).await;
    let page = Page(&running);
    let answer = page.send("GET /runs/s:train:0", &[("x-retinker-token", "")], "").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(!answer.body.contains(TOKEN) && !answer.body.contains(KEY));
    assert!(running.console_url().ends_with(&format!("/#token={TOKEN}")));
    assert!(!format!("{running:?}").contains(TOKEN));
    running.stop().await;
}

#[tokio::test]
async fn the_forward_adds_the_key_and_takes_the_rest_away() {
    let (service, dir) = (FakeService::start().await, tempfile::tempdir().unwrap());
    let running = start(&service, dir.path()).await;
    let page = Page(&running);
    let answer = page
        .send(
            "GET /api/v1/training_runs?limit=2&offset=0&evil=1",
            &[("x-api-key", "mine"), ("cookie", "c=1")],
            "",
        )
        .await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("\"training_run_id\":\"old\""), "{}", answer.body);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("set-cookie"), None);
    let expected =
        ("GET".to_owned(), "/api/v1/training_runs?limit=2&offset=0".to_owned(), Some(KEY.to_owned()));
    assert!(service.state().seen.contains(&expected), "{:?}", service.state().seen);
    let info =
        page.send("POST /api/v1/weights_info", &[], r#"{"tinker_path":"tinker://old/weights/a"}"#).await;
    assert!(info.status == 200 && info.body.contains("lora_rank"), "{info:?}");
    for (fault, status, code) in [
        (Fault::Redirect, 502, "service_redirects"),
        (Fault::HalfBody, 502, "service_unreachable"),
        (Fault::Status(408), 200, ""),
        (Fault::Status(500), 500, ""),
        (Fault::Html, 200, ""),
    ] {
        service.state().fault = fault;
        let answer = page.get("/api/v1/training_runs/old").await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{fault:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{fault:?}");
        assert_eq!((answer.header("set-cookie"), answer.header("location")), (None, None), "{fault:?}");
        assert!(!answer.body.contains(KEY));
    }
    running.stop().await;
}
