//! What needs no session.

use retinker_wire::account::AuditEventType;
use retinker_wire::run::AccessScope;
use retinker_wire::time::Time;

use super::*;
use crate::client::testing::test;

fn rest(
    answer: impl FnMut(&Request) -> FakeReply + Send + 'static,
) -> (ManualRuntime, FakeTransport, RestClient) {
    let runtime = ManualRuntime::new();
    let transport = FakeTransport::new(&runtime, answer);
    let client = RestClient::new(api(&runtime, &transport));
    (runtime, transport, client)
}

fn no_settings(request: &Request) -> Option<FakeReply> {
    (path(request) == "client/config").then(|| FakeReply::json(404, r#"{"detail":"Not Found"}"#))
}

#[test]
fn a_client_without_a_session_is_told_how_to_ask_too() {
    let (runtime, transport, client) = rest(|request| match path(request) {
        "client/config" => FakeReply::json(200, r#"{"pjwt_auth_enabled":true}"#),
        "auth/token" => FakeReply::json(200, r#"{"jwt":"eyJhbGciOiJub25lIn0.eyJleHAiOjQ4MDAwMDAwMDB9.x"}"#),
        _ => FakeReply::json(200, "{}"),
    });
    runtime.block_on(async {
        client.get_server_capabilities().await.unwrap();
        client.clone().get_server_capabilities().await.unwrap();
    });
    let asked: Vec<_> = transport.requests().iter().map(|r| path(r).to_owned()).collect();
    assert_eq!(asked, ["client/config", "auth/token", "get_server_capabilities", "get_server_capabilities"]);
    let requests = transport.requests();
    assert!(requests[2..].iter().all(|r| r.header("x-api-key").unwrap().starts_with("eyJ")));
}

#[test]
fn an_audit_log_is_read_where_it_is_kept_without_the_key() {
    let runtime = ManualRuntime::new();
    let transport = FakeTransport::new(&runtime, |request| {
        if let Some(reply) =
            request.url.starts_with("http://service.test").then(|| no_settings(request)).flatten()
        {
            return reply;
        }
        match request.url.as_str() {
            "https://storage.test/log?signature=s3cret" => {
                FakeReply::json(200, r#"{"event_type":"api_key","day":"2026-01-01","entries":[]}"#)
            }
            _ => FakeReply::json(302, "").header("location", "https://storage.test/log?signature=s3cret"),
        }
    });
    let client = RestClient::new(api(&runtime, &transport));
    let kind: AuditEventType = "api_key".to_owned().into();
    runtime.block_on(client.get_audit_log(&kind, Some("2026-01-01"))).unwrap();
    let requests = transport.requests();
    assert_eq!(requests[1].url, "http://service.test/prefix/api/v1/audit?event_type=api_key&day=2026-01-01");
    let elsewhere = requests.last().unwrap();
    assert_eq!((elsewhere.header("x-api-key"), elsewhere.header("x-extra")), (None, None));
}

#[test]
fn scopes_projects_and_spans_stand_in_the_questions() {
    let (runtime, transport, client) = rest(|request| {
        let answer = match path(request) {
            p if p.starts_with("billing/usage/events") => json!({"events": []}),
            p if p.starts_with("billing") => json!({"checkpoints": [], "total_size_bytes": 0}),
            p if p.starts_with("sessions/") => json!({"training_run_ids": [], "sampler_ids": []}),
            p if p.starts_with("training_runs/") => {
                json!({"training_run_id": "r", "last_request_time": "2026-01-01T00:00:00"})
            }
            p if p.starts_with("sessions") => json!({"sessions": []}),
            _ => json!({"training_runs": [], "cursor": {"total_count": 0}}),
        };
        no_settings(request).unwrap_or_else(|| FakeReply::json(200, answer.to_string()))
    });
    let all = AccessScope::Accessible;
    runtime.block_on(async {
        client.training_runs_in(50, all, Some("p")).collect::<Vec<_>>().await;
        client.sessions_in(50, all).collect::<Vec<_>>().await;
        client.get_session_in("s", all).await.unwrap();
        client.get_training_run_by_tinker_path_in("tinker://r/weights/a", all).await.unwrap();
        let _ = client.get_billing_usage(Time::from_millis(0), Time::from_millis(3_600_000)).await;
        let _ = client.get_current_checkpoint_storage_usage(Some("p")).await;
        let error = client.get_external_weights_urls("tinker://r/weights/a").await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Config { .. }), "{error}");
    });
    let asked: Vec<_> = transport.paths()[1..].iter().map(|p| p.replace("/prefix/api/v1/", "")).collect();
    assert_eq!(
        asked,
        [
            "GET training_runs?limit=50&offset=0&access_scope=accessible&project_id=p",
            "GET sessions?limit=50&offset=0&access_scope=accessible",
            "GET sessions/s?access_scope=accessible",
            "GET training_runs/r?access_scope=accessible",
            "GET billing/usage/events?starting_on=1970-01-01T00%3A00%3A00Z&ending_before=1970-01-01T01%3A00%3A00Z",
            "GET billing/usage/checkpoints/current?project_id=p",
        ]
    );
}

#[test]
fn a_trace_is_waited_for_and_a_state_that_is_new_is_no_error() {
    let mut answers = [
        r#"{"status":"pending"}"#,
        r#"{"status":"queued_by_moon"}"#,
        r#"{"status":"ready","url":"https://storage.test/trace"}"#,
    ]
    .into_iter();
    let (runtime, _, client) = rest(move |request| {
        no_settings(request).unwrap_or_else(|| FakeReply::json(200, answers.next().unwrap()))
    });
    let begin = runtime.elapsed();
    assert_eq!(runtime.block_on(client.export_session_trace("s")).unwrap(), "https://storage.test/trace");
    assert_eq!(runtime.elapsed() - begin, secs(10));
}
