use futures_util::StreamExt;

use super::*;
use crate::client::testing::{FakeReply, FakeTransport, ManualRuntime, test};
use crate::host::api::RunSort;
use crate::recovery::health::Health;

fn client(runtime: &ManualRuntime, reply: FakeReply) -> (HostClient, FakeTransport) {
    let transport = FakeTransport::scripted(runtime, [reply]);
    let host = HostClient::new(
        Arc::new(transport.clone()),
        Arc::new(runtime.clone()),
        "http://127.0.0.1:8787/",
        "secret-token".to_owned(),
    );
    (host, transport)
}

fn failure(reply: FakeReply) -> HostError {
    let runtime = ManualRuntime::new();
    let (host, _) = client(&runtime, reply);
    runtime.block_on(host.status()).unwrap_err()
}

#[test]
fn requests_carry_the_token_and_encoded_values() {
    let runtime = ManualRuntime::new();
    let (host, transport) = client(
        &runtime,
        FakeReply::json(
            200,
            r#"{"rows":[],"matching":0,"total":0,"counts":{"poisoned":0,"unrecoverable":0,"at_risk":0,"recovered":0,"healthy":0}}"#,
        ),
    );
    let query = RunsQuery {
        health: Some(Health::AtRisk),
        q: Some("a&b=é #1".into()),
        sort: RunSort::Name,
        offset: 200,
        limit: Some(50),
        reverse: true,
        since: Some(7),
        order: Some("0a".into()),
        anchor: Some("b".into()),
    };
    runtime.block_on(host.runs(&query)).unwrap();
    assert_eq!(
        transport.paths(),
        [
            "GET /retinker/v1/runs?health=at_risk&q=a%26b%3D%C3%A9%20%231&sort=name&reverse=true&offset=200&limit=50&since=7&order=0a&anchor=b"
        ]
    );
    assert_eq!(transport.requests()[0].header(TOKEN_HEADER), Some("secret-token"));
    assert!(!format!("{host:?}").contains("secret-token"));
}

#[test]
fn a_connection_is_named_in_every_request() {
    let runtime = ManualRuntime::new();
    for (name, sent) in [("lab-2.eu", "lab-2.eu"), ("é\r\nx: y", "%C3%A9%0D%0Ax%3A%20y")] {
        let (host, transport) = client(&runtime, FakeReply::json(200, r#"{"connections":[]}"#));
        runtime.block_on(host.with_connection(name).connections()).unwrap();
        assert_eq!(transport.requests()[0].header(CONNECTION_HEADER), Some(sent));
    }
    for (name, is_one) in
        [("lab", true), ("0.a_b-c", true), ("", false), (".", false), ("a b", false), ("a%", false)]
    {
        assert_eq!(crate::host::api::is_connection_name(name), is_one, "{name}");
    }
    assert!(!crate::host::api::is_connection_name(&"a".repeat(65)));
}

#[test]
fn ids_stay_inside_their_segment() {
    let runtime = ManualRuntime::new();
    let (host, transport) =
        client(&runtime, FakeReply::json(404, r#"{"code":"run_not_found","message":"No."}"#));
    let error = runtime.block_on(host.run("s:train:0/../x?y")).unwrap_err();
    assert_eq!((error.status, error.problem.code.as_str()), (Some(404), "run_not_found"));
    assert_eq!(transport.paths(), ["GET /retinker/v1/runs/s:train:0%2F..%2Fx%3Fy"]);
}

#[test]
fn every_failure_has_a_sentence_and_a_way_out() {
    let html = FakeReply::bytes(200, "text/html", "<!doctype html><title>router login</title>");
    for (reply, code, part) in [
        (FakeReply::fail(TransportErrorKind::Connect), "host_unreachable", "still running"),
        (FakeReply::fail(TransportErrorKind::Request), "host_unreachable", "still running"),
        (FakeReply::never(), "host_timeout", "within 60 s"),
        (html, "not_a_host", "cannot be understood"),
        (FakeReply::bytes(502, "text/html", "<html>"), "not_a_host", "status 502"),
        (FakeReply::json(200, r#"{"version":"0.1","servi"#), "host_answer_cut_off", "ends in the middle"),
        (
            FakeReply::json(
                401,
                r#"{"code":"token_missing","message":"No token.","hint":"Open the address."}"#,
            ),
            "token_missing",
            "No token. Open the address.",
        ),
    ] {
        let error = failure(reply);
        assert_eq!(error.problem.code, code);
        assert!(error.to_string().contains(part), "{error}");
        assert!(!error.to_string().contains("router login"), "{error}");
    }
}

const RUNS: &str = "data: {\"type\":\"runs\",\"run_ids\":[\"a\"]}\r\n\r\n";

#[test]
fn events_come_until_the_stream_breaks() {
    let runtime = ManualRuntime::new();
    let text =
        format!(": hello\n\n{RUNS}data: {{\"type\":\"from_the_future\"}}\n\n{RUNS}data: {{\"type\":\"ru");
    let (host, _) = client(&runtime, FakeReply::bytes(200, "text/event-stream; charset=utf-8", text));
    runtime.block_on(async {
        let mut events = host.events().await.unwrap();
        for _ in 0..2 {
            assert_eq!(events.next().await.unwrap().unwrap(), HostEvent::Runs { run_ids: vec!["a".into()] });
        }
        assert_eq!(events.next().await.unwrap().unwrap_err().problem.code, "event_stream_lost");
        assert!(events.next().await.is_none());
    });
}

#[test]
fn an_event_stream_that_is_none() {
    for (reply, code) in [
        (FakeReply::bytes(200, "text/html", "<html>"), "not_a_host"),
        (FakeReply::json(401, r#"{"code":"token_missing","message":"No."}"#), "token_missing"),
    ] {
        let runtime = ManualRuntime::new();
        let (host, _) = client(&runtime, reply);
        let error = runtime.block_on(async { host.events().await.err() }).unwrap();
        assert_eq!(error.problem.code, code);
    }
}

#[test]
fn a_silent_stream_is_given_up() {
    let runtime = ManualRuntime::new();
    runtime.block_on(async {
        let body: BodyStream = Box::pin(stream::pending());
        let mut events = Box::pin(events_of(Arc::new(runtime.clone()), body));
        let error = events.next().await.unwrap().unwrap_err();
        assert!(error.to_string().contains("45 s"), "{error}");
        assert_eq!(runtime.elapsed(), SILENCE);
    });
}
