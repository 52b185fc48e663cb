//! The client against a transport whose answers are given by hand, in a time that is moved by hand.

mod auth;
mod passes;
mod rest;
mod sampling;
mod servers;
mod settings;
mod telemetry;

use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use prost::Message;
use retinker_wire::UserMetadata;
use retinker_wire::future::{PROTOBUF, QueueState, RequestErrorCategory};
use retinker_wire::model::LoraConfig;
use retinker_wire::proto;
use retinker_wire::session::FinishReason;
use retinker_wire::tensor::TensorData;
use retinker_wire::training::{AdamParams, Datum, ForwardBackwardOutput};
use serde_json::{Value, json};

use super::testing::{FakeReply, FakeTransport, ManualRuntime, test};
use super::{
    Api, ApiConfig, Error, ErrorKind, LossFnConfig, PendingEvent, RestClient, SDK_VERSION, SaveOptions,
    Secret, ServiceClient, SessionOptions, TrainingClient, TrainingOptions,
};
use crate::recovery::restore::Attachment;
use crate::transport::{Request, TransportErrorKind};

const KEY: &str = "tml-very-secret";

fn api(runtime: &ManualRuntime, transport: &FakeTransport) -> Api {
    let config = ApiConfig {
        base_url: "http://service.test/prefix/".into(),
        api_key: Some(Secret::new(KEY)),
        headers: vec![("x-extra".into(), "1".into())],
        ..ApiConfig::default()
    };
    Api::new(config, Arc::new(transport.clone()), Arc::new(runtime.clone())).unwrap()
}

fn body(request: &Request) -> Value {
    serde_json::from_slice(&request.body).unwrap_or(Value::Null)
}

fn forward_backward(request: &Request) -> proto::ForwardBackwardRequest {
    let mut plain = request.body.to_vec();
    if request.header("content-encoding") == Some("zstd") {
        plain.clear();
        ruzstd::decoding::StreamingDecoder::new(&*request.body).unwrap().read_to_end(&mut plain).unwrap();
    }
    proto::ForwardBackwardRequest::decode(&*plain).unwrap()
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn fail(request: &Request) -> ! {
    panic!("unexpected {} {}", request.method.as_str(), request.url)
}

fn path(request: &Request) -> &str {
    request.url.strip_prefix("http://service.test/prefix/api/v1/").unwrap_or_else(|| fail(request))
}

fn seq_id(request: &Request) -> u64 {
    match path(request) {
        "forward_backward" => forward_backward(request).seq_id as u64,
        _ => body(request)["seq_id"].as_u64().unwrap(),
    }
}

/// The sequenced requests among those sent, as `endpoint seq_id`.
fn sequence(transport: &FakeTransport) -> Vec<String> {
    transport
        .requests()
        .iter()
        .filter(|r| !["retrieve", "session", "client"].iter().any(|start| path(r).starts_with(start)))
        .map(|r| format!("{} {}", path(r), seq_id(r)))
        .collect()
}

/// Accepts everything, gives each request an id made of its number, and answers futures at once.
fn obliging(request: &Request) -> FakeReply {
    match path(request) {
        "session_heartbeat" => FakeReply::json(200, "{}"),
        "client/config" | "client/dynamic_config" => FakeReply::json(404, r#"{"detail":"Not Found"}"#),
        "retrieve_future" => {
            let id = body(request)["request_id"].as_str().unwrap().to_owned();
            match request.header("x-tinker-request-type").unwrap() {
                "ForwardBackward" => output(id.parse().unwrap()),
                "SaveWeights" => FakeReply::json(200, r#"{"path":"tinker://s:train:0/weights/a"}"#),
                _ => FakeReply::json(200, "{}"),
            }
        }
        _ => FakeReply::json(200, json!({"request_id": seq_id(request).to_string()}).to_string()),
    }
}

/// A forward_backward's result whose loss is `n`.
fn output(n: u64) -> FakeReply {
    let output = ForwardBackwardOutput {
        loss_fn_output_type: "t".into(),
        loss_fn_outputs: vec![[("logprobs".to_owned(), TensorData::float32(vec![n as f32]))].into()],
        metrics: [("loss:sum".to_owned(), n as f64)].into(),
    };
    FakeReply::bytes(200, PROTOBUF, output.to_proto().encode_to_vec())
}

fn attachment(next_seq_id: u64) -> Attachment {
    Attachment { session_id: "s".into(), model_id: "s:train:0".into(), next_seq_id }
}

fn datum() -> Datum {
    Datum::cross_entropy(vec![1, 2], vec![2, 3], vec![1.0, 1.0])
}

fn none() -> LossFnConfig {
    LossFnConfig::new()
}

fn training(
    answer: impl FnMut(&Request) -> FakeReply + Send + 'static,
) -> (ManualRuntime, FakeTransport, TrainingClient) {
    let runtime = ManualRuntime::new();
    let transport = FakeTransport::new(&runtime, answer);
    let client = TrainingClient::attach(api(&runtime, &transport), attachment(7));
    (runtime, transport, client)
}

// -- calls --------------------------------------------------------------------------------------------------------

#[test]
fn a_retry_keeps_its_idempotency_key_and_a_new_call_has_a_new_one() {
    let runtime = ManualRuntime::new().with_chance();
    let transport = FakeTransport::scripted(
        &runtime,
        [
            FakeReply::json(503, ""),
            FakeReply::fail(TransportErrorKind::Request),
            FakeReply::json(200, r#"{"base_model":"m","is_lora":true}"#),
            FakeReply::json(200, r#"{"base_model":"m","is_lora":true}"#),
        ],
    );
    let api = api(&runtime, &transport);
    runtime.block_on(async {
        api.weights_info("tinker://r/weights/a").await.unwrap();
        api.weights_info("tinker://r/weights/a").await.unwrap();
    });
    let requests = transport.requests();
    let keys: Vec<_> = requests.iter().map(|r| r.header("x-idempotency-key").unwrap()).collect();
    assert_eq!(keys[0], keys[1]);
    assert_eq!(keys[0], keys[2]);
    assert_ne!(keys[0], keys[3]);
    assert!(requests.iter().all(|r| r.header("x-api-key") == Some(KEY) && r.header("x-extra") == Some("1")));
    assert_eq!(requests[0].url, "http://service.test/prefix/api/v1/weights_info");
}

#[test]
fn a_get_has_no_idempotency_key_and_ids_go_into_the_path_as_they_are() {
    let runtime = ManualRuntime::new();
    let transport = FakeTransport::new(&runtime, |_| {
        FakeReply::json(200, r#"{"training_run_id":"a:train:0","last_request_time":"2026-01-01T00:00:00Z"}"#)
    });
    let run = runtime.block_on(api(&runtime, &transport).training_run("a:train:0")).unwrap();
    assert_eq!(run.training_run_id, "a:train:0");
    assert_eq!(transport.paths(), ["GET /prefix/api/v1/training_runs/a:train:0"]);
    assert_eq!(transport.requests()[0].header("x-idempotency-key"), None);
}

#[test]
fn ids_that_would_change_the_path_are_refused_before_anything_is_sent() {
    let runtime = ManualRuntime::new();
    let transport = FakeTransport::scripted(&runtime, []);
    let api = api(&runtime, &transport);
    for id in ["", "..", "a/b", "a?b", "a#b", "a b", "a%2fb", "a\n"] {
        let error = runtime.block_on(api.training_run(id)).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Config { .. }), "{id}: {error}");
    }
    for id in ["../x", "weights/", "weights/../../sessions"] {
        assert!(runtime.block_on(api.delete_checkpoint("r", id)).is_err(), "{id}");
    }
}

#[test]
fn delays_are_those_of_the_policy() {
    let runtime = ManualRuntime::new();
    let transport = FakeTransport::scripted(
        &runtime,
        [
            FakeReply::json(500, ""),
            FakeReply::json(429, "").header("retry-after", "7"),
            FakeReply::fail(TransportErrorKind::Connect),
            FakeReply::json(200, r#"{"status":"ok"}"#),
        ],
    );
    runtime.block_on(api(&runtime, &transport).healthz()).unwrap();
    let limit = secs(60);
    assert_eq!(runtime.sleeps(), [limit, Duration::from_millis(500), limit, secs(7), limit, secs(2), limit]);
}

#[test]
fn a_call_without_an_answer_times_out_and_the_whole_has_its_budget() {
    let runtime = ManualRuntime::new();
    let transport = FakeTransport::new(&runtime, |_| FakeReply::never());
    let error = runtime.block_on(api(&runtime, &transport).healthz()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TimedOut { after } if *after == secs(60)), "{error}");
    assert!(error.may_have_been_seen());
    // 60 s each, with 0.5, 1, 2 and 4 s between; after 307.5 s nothing is begun any more.
    assert_eq!(transport.requests().len(), 5);
    assert_eq!(runtime.elapsed(), Duration::from_millis(307_500));
}

#[test]
fn errors_say_what_happened_and_hold_no_secret() {
    let page = "<!DOCTYPE html><title>nginx</title>";
    let cases: [(FakeReply, &str); 6] = [
        (FakeReply::json(302, "").header("location", "http://elsewhere/"), "redirects are not followed"),
        (FakeReply::bytes(404, "text/html", page), "the answer is HTML, not JSON"),
        (FakeReply::bytes(200, "text/html", page), "the answer is HTML, not JSON"),
        (FakeReply::json(404, r#"{"detail":"Run r does not exist"}"#), "Run r does not exist. Check the id"),
        (FakeReply::json(200, r#"{"training_run_id":"r"#), "the answer cannot be read at line 1"),
        (FakeReply::json(401, r#"{"detail":"no such key"}"#), "Check the API key"),
    ];
    for (reply, expected) in cases {
        let runtime = ManualRuntime::new();
        let transport = FakeTransport::scripted(&runtime, [reply]);
        let error = runtime.block_on(api(&runtime, &transport).training_run("r")).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains(expected) && text.contains("training_run of run r"), "{text}");
        assert!(!text.contains(KEY) && !text.contains("nginx"), "{text}");
    }
}

#[test]
fn addresses_and_keys_are_checked_and_not_repeated() {
    let runtime = ManualRuntime::new();
    let transport = FakeTransport::scripted(&runtime, []);
    let make = |base_url: &str, key: &str| {
        let config =
            ApiConfig { base_url: base_url.into(), api_key: Some(Secret::new(key)), ..ApiConfig::default() };
        Api::new(config, Arc::new(transport.clone()), Arc::new(runtime.clone()))
    };
    for bad in
        ["", "localhost:8000", "ftp://h", "http://", "http://u:pa55@h", "http://h/?q=pa55", "http://h h"]
    {
        let error = make(bad, "k").unwrap_err().to_string();
        assert!(error.starts_with("the service's address") && !error.contains("pa55"), "{bad}: {error}");
    }
    let error = make("http://h", "tml-x\ny").unwrap_err().to_string();
    assert!(!error.contains("tml-x"), "{error}");
    assert_eq!(make("https://h:1/a/b//", "k").unwrap().base_url(), "https://h:1/a/b");
    assert!(!format!("{:?}", make("http://h", KEY).unwrap()).contains(KEY));
}

// -- pending results ----------------------------------------------------------------------------------------------

#[test]
fn waiting_goes_on_through_everything_that_passes() {
    let runtime = ManualRuntime::new();
    let transport = FakeTransport::scripted(
        &runtime,
        [
            FakeReply::json(408, r#"{"queue_state":"paused_capacity","queue_state_reason":"no room"}"#)
                .after(secs(30)),
            FakeReply::json(200, r#"{"type":"try_again","request_id":"9","queue_state":"active"}"#)
                .after(secs(30)),
            FakeReply::json(200, r#"{"type":"try_again","request_id":"9","queue_state":"active"}"#),
            FakeReply::json(503, "x"),
            FakeReply::fail(TransportErrorKind::Request),
            FakeReply::json(429, "x"),
            FakeReply::never(),
            FakeReply::json(400, r#"{"detail":"odd"}"#),
            FakeReply::json(402, "x"),
            FakeReply::json(400, ""),
            output(9),
        ],
    );
    let pending = api(&runtime, &transport).retrieve_future::<ForwardBackwardOutput>("9");
    assert_eq!(pending.request_id().as_deref(), Some("9"));
    let events = pending.events();
    let output = runtime.block_on(pending).unwrap();
    assert_eq!(output.metrics["loss:sum"], 9.0);
    let queued = |state, reason: Option<&str>| PendingEvent::Queued {
        state: Some(state),
        reason: reason.map(str::to_owned),
    };
    let events = runtime.block_on(events.collect::<Vec<_>>());
    assert_eq!(
        events,
        [queued(QueueState::PausedCapacity, Some("no room")), queued(QueueState::Active, None)]
    );
    // What was slept between the questions, each of which may take 45 s.
    let between: Vec<_> =
        runtime.sleeps().into_iter().filter(|s| *s != secs(45)).map(|s| s.as_millis()).collect();
    assert_eq!(between, [50, 1000, 2000, 4000, 8000, 50, 5000, 16_000]);
    let requests = transport.requests();
    let iterations: Vec<_> =
        requests.iter().map(|r| r.header("x-tinker-request-iteration").unwrap().to_owned()).collect();
    assert_eq!(iterations, (0..11).map(|i| i.to_string()).collect::<Vec<_>>());
    assert!(requests.iter().all(|r| r.header("accept") == Some(PROTOBUF)));
}

fn outcome(replies: Vec<FakeReply>) -> Error {
    let runtime = ManualRuntime::new();
    let transport = FakeTransport::scripted(&runtime, replies);
    let pending = api(&runtime, &transport).retrieve_future::<ForwardBackwardOutput>("9");
    runtime.block_on(pending).unwrap_err()
}

#[test]
fn final_answers_have_their_kinds() {
    let failed = outcome(vec![FakeReply::json(200, r#"{"error":"NaN in the loss","category":"user"}"#)]);
    assert!(
        matches!(failed.kind(), ErrorKind::Failed { category: RequestErrorCategory::User, .. }),
        "{failed}"
    );
    assert!(!failed.is_retryable() && failed.to_string().contains("NaN in the loss"), "{failed}");

    let odd = outcome(vec![FakeReply::json(200, r#"{"error":null,"category":"Server"}"#)]);
    assert!(matches!(odd.kind(), ErrorKind::Failed { category: RequestErrorCategory::Unknown, .. }), "{odd}");

    let expired = outcome(vec![FakeReply::json(410, r#"{"detail":"gone"}"#)]);
    assert!(matches!(expired.kind(), ErrorKind::Expired { request_id: Some(id) } if id == "9"), "{expired}");

    let unknown = outcome(vec![FakeReply::json(404, r#"{"detail":"Future not found"}"#)]);
    assert_eq!((unknown.status(), unknown.request_id()), (Some(404), Some("9")));

    let bad = outcome(vec![FakeReply::json(400, r#"{"detail":"Model s not loaded"}"#); 4]);
    assert_eq!((bad.status(), bad.detail()), (Some(400), Some("Model s not loaded")));

    let unreadable = outcome(vec![FakeReply::bytes(200, PROTOBUF, vec![0xff, 0xff])]);
    assert!(matches!(unreadable.kind(), ErrorKind::Undecodable { .. }), "{unreadable}");
}

#[test]
fn a_forward_pass_answered_in_json_is_read_too() {
    let runtime = ManualRuntime::new();
    let reply = r#"{"loss_fn_output_type":"t","loss_fn_outputs":[],"metrics":{"loss:sum":2.5}}"#;
    let transport = FakeTransport::scripted(&runtime, [FakeReply::json(200, reply)]);
    let pending = api(&runtime, &transport).retrieve_future::<ForwardBackwardOutput>("9");
    assert_eq!(runtime.block_on(pending).unwrap().metrics["loss:sum"], 2.5);
}

// -- training -----------------------------------------------------------------------------------------------------

#[test]
fn operations_go_out_in_the_order_of_their_calls_whoever_waits_for_them() {
    let (runtime, transport, client) = training(obliging);
    runtime.block_on(async {
        let first = client.forward_backward(&[datum()], "cross_entropy", &none());
        drop(client.optim_step(AdamParams::default()));
        let save = client.save_state("a", SaveOptions { ttl_seconds: Some(60), ..SaveOptions::default() });
        let forward = client.forward(&[datum()], "cross_entropy", &none());
        // Waited for backwards: that is not the order of the run.
        assert_eq!(forward.await.unwrap().metrics["loss:sum"], 10.0);
        assert_eq!(save.await.unwrap().path, "tinker://s:train:0/weights/a");
        assert_eq!(first.await.unwrap().metrics["loss:sum"], 7.0);
    });
    assert_eq!(
        sequence(&transport),
        ["forward_backward 7", "optim_step 8", "save_weights 9", "forward_backward 10"]
    );
    let passes: Vec<_> = transport
        .requests()
        .iter()
        .filter(|r| path(r) == "forward_backward")
        .map(|r| (forward_backward(r).forward_only, forward_backward(r).data.len()))
        .collect();
    assert_eq!(passes, [(false, 1), (true, 1)]);
}

#[test]
fn the_next_is_sent_when_the_one_before_was_accepted() {
    let (runtime, transport, client) = training(|request| match path(request) {
        "forward_backward" => obliging(request).after(secs(20)),
        _ => obliging(request),
    });
    let step = runtime.block_on(async {
        drop(client.forward_backward(&[datum()], "cross_entropy", &none()));
        client.optim_step(AdamParams::default()).await
    });
    step.unwrap();
    assert_eq!(runtime.elapsed(), secs(20));
    assert_eq!(sequence(&transport), ["forward_backward 7", "optim_step 8"]);
}

#[test]
fn a_certain_refusal_gives_its_number_back() {
    let mut refused = false;
    let (runtime, transport, client) = training(move |request| match path(request) {
        "forward_backward" if !refused => {
            refused = true;
            FakeReply::json(422, r#"{"detail":"bad datum"}"#)
        }
        _ => obliging(request),
    });
    runtime.block_on(async {
        let pass = client.forward_backward(&[datum()], "cross_entropy", &none());
        let step = client.optim_step(AdamParams::default());
        let error = pass.await.unwrap_err();
        assert_eq!((error.status(), error.detail()), (Some(422), Some("bad datum")));
        // Called in the belief that the pass would go through: not sent, and no number lost.
        let error = step.await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Cancelled { .. }), "{error}");
        assert!(error.to_string().contains("bad datum"), "{error}");
        client.forward_backward(&[datum()], "cross_entropy", &none()).await.unwrap();
        client.optim_step(AdamParams::default()).await.unwrap();
    });
    assert!(client.poisoned().is_none());
    assert_eq!(sequence(&transport), ["forward_backward 7", "forward_backward 7", "optim_step 8"]);
}

#[test]
fn what_follows_a_refusal_does_not_depend_on_how_fast_it_came() {
    let mut refused = false;
    let (runtime, transport, client) = training(move |request| match path(request) {
        "forward_backward" if !refused => {
            refused = true;
            FakeReply::json(422, r#"{"detail":"bad datum"}"#)
        }
        _ => obliging(request),
    });
    runtime.block_on(async {
        let pass = client.forward_backward(&[datum()], "cross_entropy", &none());
        // The refusal is here long before the next call, but its caller has not been told.
        client.test_sleep(secs(1)).await;
        let step = client.optim_step(AdamParams::default()).await;
        assert!(matches!(step.unwrap_err().kind(), ErrorKind::Cancelled { .. }));
        assert!(pass.await.is_err());
        client.optim_step(AdamParams::default()).await.unwrap();
    });
    assert_eq!(sequence(&transport), ["forward_backward 7", "optim_step 7"]);
}

#[test]
fn an_undecided_submission_poisons_the_client() {
    let (runtime, transport, client) = training(|request| match path(request) {
        "optim_step" => FakeReply::fail(TransportErrorKind::Request),
        _ => obliging(request),
    });
    let clone = client.clone();
    runtime.block_on(async {
        client.save_state("a", SaveOptions::default()).await.unwrap();
        let pass = client.forward_backward(&[datum()], "cross_entropy", &none());
        let step = client.optim_step(AdamParams::default());
        let queued = client.save_state("a", SaveOptions::default());
        assert!(pass.await.is_ok());
        assert!(matches!(step.await.unwrap_err().kind(), ErrorKind::MayHaveBeenSent { .. }));
        for error in [
            queued.await.unwrap_err(),
            clone.save_state("b", SaveOptions::default()).await.unwrap_err(),
            clone.hand_over().await.unwrap_err(),
        ] {
            let ErrorKind::Poisoned { run_id, checkpoint, cause } = error.kind() else { panic!("{error}") };
            assert_eq!(
                (run_id.as_str(), checkpoint.as_deref()),
                ("s:train:0", Some("tinker://s:train:0/weights/a"))
            );
            assert!(matches!(cause.kind(), ErrorKind::MayHaveBeenSent { .. }));
            let restore = "Restore the run from tinker://s:train:0/weights/a, the last checkpoint";
            assert!(
                error.to_string().contains("run s:train:0") && error.to_string().contains(restore),
                "{error}"
            );
        }
    });
    assert_eq!(sequence(&transport).iter().filter(|line| line.starts_with("save")).count(), 1);
    // All tries of the step carried the same number and the same key.
    let steps: Vec<_> = transport.requests().into_iter().filter(|r| path(r) == "optim_step").collect();
    assert!(steps.len() > 5);
    assert!(steps.iter().all(|r| seq_id(r) == 9));
}

#[test]
fn a_refusal_after_an_attempt_that_broke_off_is_undecided() {
    let mut tries = 0;
    let (runtime, _, client) = training(move |request| match path(request) {
        "optim_step" => {
            tries += 1;
            match tries {
                1 => FakeReply::fail(TransportErrorKind::Request),
                _ => FakeReply::json(400, r#"{"detail":"Training request sequence number was reused"}"#),
            }
        }
        _ => obliging(request),
    });
    let error = runtime.block_on(client.optim_step(AdamParams::default())).unwrap_err();
    assert_eq!(error.status(), Some(400));
    assert!(client.poisoned().is_some());
}

#[test]
fn a_service_that_was_never_reached_poisons_nothing() {
    let (runtime, _, client) = training(|request| match path(request) {
        "optim_step" => FakeReply::fail(TransportErrorKind::Connect),
        _ => obliging(request),
    });
    let error = runtime.block_on(client.optim_step(AdamParams::default())).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NeverSent { .. }), "{error}");
    assert!(client.poisoned().is_none());
    assert!(runtime.elapsed() <= secs(300) && runtime.elapsed() > secs(280), "{:?}", runtime.elapsed());
}

#[test]
fn a_failed_result_fails_its_call_and_no_other() {
    let (runtime, transport, client) = training(|request| match path(request) {
        "retrieve_future" if body(request)["request_id"] == "7" => {
            FakeReply::json(200, r#"{"error":"out of memory","category":"server"}"#)
        }
        _ => obliging(request),
    });
    runtime.block_on(async {
        let error = client.forward_backward(&[datum()], "cross_entropy", &none()).await.unwrap_err();
        assert_eq!(error.category(), RequestErrorCategory::Server);
        assert!(
            error.to_string().starts_with("forward_backward of run s:train:0 failed: out of memory"),
            "{error}"
        );
        client.optim_step(AdamParams::default()).await.unwrap();
    });
    assert!(client.poisoned().is_none());
    assert_eq!(sequence(&transport), ["forward_backward 7", "optim_step 8"]);
}

#[test]
fn a_large_batch_goes_out_in_chunks_and_comes_back_as_one() {
    let (runtime, transport, client) = training(obliging);
    let data = vec![datum(); 2050];
    let output = runtime.block_on(client.forward_backward(data, "cross_entropy", &none())).unwrap();
    assert_eq!(sequence(&transport), ["forward_backward 7", "forward_backward 8", "forward_backward 9"]);
    let sizes: Vec<_> = transport
        .requests()
        .iter()
        .filter(|r| path(r) == "forward_backward")
        .map(|r| forward_backward(r).data.len())
        .collect();
    assert_eq!(sizes, [1024, 1024, 2]);
    assert_eq!(output.metrics["loss:sum"], (7 + 8 + 9) as f64);
    let values: Vec<_> = output.loss_fn_outputs.iter().map(|o| o["logprobs"].to_f32()[0]).collect();
    assert_eq!(values, [7.0, 8.0, 9.0]);
}

#[test]
fn an_empty_batch_is_an_error_and_takes_no_number() {
    let (runtime, transport, client) = training(obliging);
    let error = runtime.block_on(client.forward(&[], "cross_entropy", &none())).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Config { .. }));
    runtime.block_on(client.optim_step(AdamParams::default())).unwrap();
    assert_eq!(sequence(&transport), ["optim_step 7"]);
}

#[test]
fn attaching_heartbeats_and_handing_over_stops_it() {
    let (runtime, transport, client) = training(obliging);
    let handed = runtime.block_on(async {
        client.test_sleep(secs(35)).await;
        drop(client.optim_step(AdamParams::default()));
        let handed = client.hand_over().await.unwrap();
        assert!(client.optim_step(AdamParams::default()).await.is_err());
        client.test_sleep(secs(100)).await;
        handed
    });
    assert_eq!(handed, attachment(8));
    let paths = transport.paths();
    assert_eq!(paths.iter().filter(|p| p.ends_with("session_heartbeat")).count(), 3, "{paths:?}");
    assert!(paths.iter().all(|p| !p.ends_with("create_session")));
}

#[test]
fn dropping_the_client_stops_the_heartbeat_but_not_what_was_called() {
    let (runtime, transport, client) = training(|request| obliging(request).after(secs(1)));
    let sleeper = runtime.clone();
    runtime.block_on(async move {
        for _ in 0..3 {
            drop(client.optim_step(AdamParams::default()));
        }
        drop(client);
        crate::runtime::Runtime::sleep(&sleeper, secs(60)).await;
    });
    assert_eq!(sequence(&transport), ["optim_step 7", "optim_step 8", "optim_step 9"]);
    assert!(transport.paths().iter().all(|p| !p.ends_with("session_heartbeat")));
}

#[test]
fn a_session_that_is_over_is_not_heartbeated_any_more() {
    let (runtime, transport, client) = training(|request| match path(request) {
        "session_heartbeat" => FakeReply::json(410, r#"{"detail":"finished"}"#),
        _ => obliging(request),
    });
    runtime.block_on(client.test_sleep(secs(60)));
    assert_eq!(transport.paths(), ["POST /prefix/api/v1/session_heartbeat"]);
    assert!(client.session_is_over());
}

#[test]
fn heartbeats_go_on_through_failures() {
    let (runtime, transport, client) = training(|_| FakeReply::json(500, ""));
    runtime.block_on(client.test_sleep(secs(55)));
    assert_eq!(transport.requests().len(), 5);
    assert!(!client.session_is_over());
}

/// After how many seconds of silence there were warnings of it.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<u64>>>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

impl tracing::field::Visit for Warnings {
    fn record_u64(&mut self, field: &tracing::field::Field, value: u64) {
        if field.name() == "seconds" {
            self.0.lock().unwrap().push(value);
        }
    }
    fn record_debug(&mut self, _: &tracing::field::Field, _: &dyn std::fmt::Debug) {}
}

#[test]
fn a_session_that_no_heartbeat_reaches_for_two_minutes_is_warned_of_at_each_beat() {
    let warnings = Warnings::default();
    tracing::subscriber::with_default(warnings.clone(), || {
        let mut beats = 0;
        let (runtime, _, client) = training(move |request| match path(request) {
            // One every 10 s; only the one at 160 s gets through.
            "session_heartbeat" => {
                beats += 1;
                FakeReply::json(if beats == 16 { 200 } else { 500 }, "{}")
            }
            _ => obliging(request),
        });
        runtime.block_on(client.test_sleep(secs(305)));
        assert!(!client.session_is_over());
    });
    assert_eq!(*warnings.0.lock().unwrap(), [130, 140, 150, 130, 140]);
}

// -- service ------------------------------------------------------------------------------------------------------

fn service(request: &Request) -> FakeReply {
    match path(request) {
        "client/config" | "client/dynamic_config" => FakeReply::json(404, r#"{"detail":"Not Found"}"#),
        "create_session" => FakeReply::json(200, r#"{"session_id":"s"}"#),
        "sessions/s/finish" => FakeReply::json(200, "{}"),
        "weights_info" => FakeReply::json(200, r#"{"base_model":"tiny","is_lora":true,"lora_rank":16}"#),
        "create_model" => FakeReply::json(200, r#"{"request_id":"made"}"#),
        "load_weights" => FakeReply::json(200, r#"{"request_id":"loaded"}"#),
        "retrieve_future" => match body(request)["request_id"].as_str() {
            Some("made") => FakeReply::json(200, r#"{"model_id":"s:train:0"}"#),
            _ => FakeReply::json(200, "{}"),
        },
        _ => obliging(request),
    }
}

fn service_client(
    answer: impl FnMut(&Request) -> FakeReply + Send + 'static,
) -> (ManualRuntime, FakeTransport, ServiceClient) {
    let options = SessionOptions { display_name: Some("test".into()), ..SessionOptions::default() };
    service_client_with(options, answer)
}

fn service_client_with(
    options: SessionOptions,
    answer: impl FnMut(&Request) -> FakeReply + Send + 'static,
) -> (ManualRuntime, FakeTransport, ServiceClient) {
    let runtime = ManualRuntime::new().with_chance();
    let transport = FakeTransport::new(&runtime, answer);
    let client = ServiceClient::with_options(api(&runtime, &transport), options);
    (runtime, transport, client)
}

fn sent(transport: &FakeTransport, endpoint: &str) -> Vec<Value> {
    transport.requests().iter().filter(|r| path(r) == endpoint).map(body).collect()
}

#[test]
fn a_run_is_made_with_a_seed_and_trained_from_number_one() {
    let (runtime, transport, client) = service_client(service);
    assert!(transport.requests().is_empty());
    runtime.block_on(async {
        let metadata = UserMetadata::from([("name".to_owned(), "a".to_owned())]);
        let config = LoraConfig { rank: 8, ..LoraConfig::default() };
        let training = client.create_lora_training_client("tiny", config, metadata).await.unwrap();
        assert_eq!(training.model_id(), "s:train:0");
        training.optim_step(AdamParams::default()).await.unwrap();
        client
            .create_lora_training_client("tiny", LoraConfig::default(), TrainingOptions::default())
            .await
            .unwrap();
    });
    assert_eq!(sent(&transport, "create_session").len(), 1);
    let made = sent(&transport, "create_model");
    assert_eq!((made[0]["model_seq_id"].clone(), made[1]["model_seq_id"].clone()), (json!(0), json!(1)));
    assert_eq!(made[0]["user_metadata"], json!({"name": "a"}));
    let seed = made[0]["lora_config"]["seed"].as_u64().unwrap();
    assert!(seed < 1 << 31);
    assert_ne!(made[0]["lora_config"]["seed"], made[1]["lora_config"]["seed"]);
    assert_eq!(made[0].get("optimizer_config"), None);
    assert_eq!(sent(&transport, "optim_step")[0]["seq_id"], 1);
}

#[test]
fn a_run_goes_on_from_a_checkpoint() {
    let (runtime, transport, client) = service_client(service);
    let training = runtime
        .block_on(client.create_training_client_from_state_with_optimizer(
            "tinker://r/weights/a",
            TrainingOptions::default(),
        ))
        .unwrap();
    assert_eq!(training.model_id(), "s:train:0");
    assert_eq!(
        sent(&transport, "load_weights"),
        [json!({"session_id": "s", "model_seq_id": 0, "path": "tinker://r/weights/a", "optimizer": true,
                "type": "load_weights"})]
    );
    runtime.block_on(training.optim_step(AdamParams::default())).unwrap();
    assert_eq!(sent(&transport, "optim_step")[0]["seq_id"], 1);
}

#[test]
fn where_create_via_load_is_unknown_the_run_is_made_first() {
    let (runtime, transport, client) = service_client(|request| match path(request) {
        "load_weights" if body(request).get("session_id").is_some() => {
            FakeReply::json(422, r#"{"detail":[{"type":"missing","msg":"Field required"}]}"#)
        }
        _ => service(request),
    });
    let training = runtime
        .block_on(
            client.create_training_client_from_state("tinker://r/weights/a", TrainingOptions::default()),
        )
        .unwrap();
    assert_eq!(sent(&transport, "create_model")[0]["lora_config"]["rank"], 16);
    assert_eq!(
        sent(&transport, "load_weights")[1],
        json!({"model_id": "s:train:0", "seq_id": 1, "path": "tinker://r/weights/a", "optimizer": false,
               "type": "load_weights"})
    );
    runtime.block_on(training.optim_step(AdamParams::default())).unwrap();
    assert_eq!(sent(&transport, "optim_step")[0]["seq_id"], 2);
}

#[test]
fn the_way_round_keeps_the_checkpoints_optimizer_and_the_token() {
    let (runtime, transport, client) = service_client(|request| match path(request) {
        "load_weights" if body(request).get("session_id").is_some() => {
            FakeReply::json(422, r#"{"detail":[{"type":"missing","msg":"Field required"}]}"#)
        }
        "weights_info" => FakeReply::json(
            200,
            r#"{"base_model":"tiny","is_lora":true,"lora_rank":16,"optimizer_config":{"type":"dimuon"}}"#,
        ),
        _ => service(request),
    });
    let token = Secret::new("s3cret-token");
    let options = TrainingOptions { weights_access_token: Some(token), ..TrainingOptions::default() };
    let made = client.create_training_client_from_state_with_optimizer("tinker://r/weights/a", options);
    runtime.block_on(made).unwrap();
    assert_eq!(sent(&transport, "create_model")[0]["optimizer_config"], json!({"type": "dimuon"}));
    let loads = sent(&transport, "load_weights");
    assert!(loads.iter().all(|load| load["weights_access_token"] == "s3cret-token"), "{loads:?}");
    assert_eq!((&loads[1]["model_id"], &loads[1]["optimizer"]), (&json!("s:train:0"), &json!(true)));
}

#[test]
fn a_loss_that_the_server_computes_is_uploaded_and_named() {
    let graph =
        json!({"format": 1, "nodes": [{"op": "placeholder", "name": "logprobs", "target": "logprobs"}]});
    let inputs = || vec![retinker_wire::training::CustomLossInput { name: "logprobs".into(), rank: 1 }];
    for offered in [true, false] {
        let (runtime, transport, client) = service_client(move |request| match path(request) {
            "client/config" => FakeReply::json(200, json!({"custom_loss_server_side": offered}).to_string()),
            "create_custom_loss" => FakeReply::json(200, r#"{"request_id":"l"}"#),
            "retrieve_future" => FakeReply::json(200, r#"{"loss_id":"L","type":"create_custom_loss"}"#),
            _ => service(request),
        });
        let graph = graph.clone();
        let made = runtime.block_on(async {
            client.create_custom_loss("first", inputs(), graph.clone()).await?.await?;
            client.create_custom_loss("second", inputs(), graph).await?.await
        });
        let sent = sent(&transport, "create_custom_loss");
        if !offered {
            assert!(matches!(made.unwrap_err().kind(), ErrorKind::Config { .. }));
            assert!(sent.is_empty());
            continue;
        }
        assert_eq!(made.unwrap().loss_id, "L");
        assert_eq!(
            sent[1],
            json!({"session_id": "s", "custom_loss_seq_id": 1, "name": "second",
                   "inputs": [{"name": "logprobs", "rank": 1}],
                   "graph": {"format": 1, "nodes": [{"op": "placeholder", "name": "logprobs", "target": "logprobs"}]},
                   "type": "create_custom_loss"})
        );
    }
}

#[test]
fn an_adapter_of_nothing_is_refused_at_once() {
    let (runtime, transport, client) = service_client(service);
    let nothing =
        LoraConfig { train_mlp: false, train_attn: false, train_unembed: false, ..LoraConfig::default() };
    let made = client.create_lora_training_client("tiny", nothing, TrainingOptions::default());
    assert!(matches!(runtime.block_on(made).unwrap_err().kind(), ErrorKind::Config { .. }));
    assert!(transport.paths().is_empty());
}

#[test]
fn what_is_refused_for_what_it_asks_for_makes_no_run() {
    let refusals = [
        (400, "the weights access token is not valid"),
        (403, "the weights access token is not valid"),
        (422, "base model 'large' does not fit the checkpoint"),
    ];
    for (status, said) in refusals {
        let (runtime, transport, client) = service_client(move |request| match path(request) {
            "load_weights" => FakeReply::json(status, json!({ "detail": said }).to_string()),
            _ => service(request),
        });
        let made =
            client.create_training_client_from_state("tinker://r/weights/a", TrainingOptions::default());
        let error = runtime.block_on(made).unwrap_err();
        assert_eq!((error.status(), error.detail()), (Some(status), Some(said)));
        assert!(sent(&transport, "create_model").is_empty(), "{said}");
        assert_eq!(sent(&transport, "load_weights").len(), 1, "{said}");
    }
}

#[test]
fn a_checkpoint_that_is_not_there_is_the_error_not_the_way_round_it() {
    let (runtime, transport, client) = service_client(|request| match path(request) {
        "load_weights" => {
            FakeReply::json(400, r#"{"detail":"Invalid checkpoint tinker path tinker://r/weights/x"}"#)
        }
        "weights_info" => FakeReply::json(404, r#"{"detail":"no such checkpoint"}"#),
        _ => service(request),
    });
    let error = runtime
        .block_on(
            client.create_training_client_from_state("tinker://r/weights/x", TrainingOptions::default()),
        )
        .unwrap_err();
    assert_eq!(error.status(), Some(400));
    assert!(error.to_string().contains("Invalid checkpoint tinker path"), "{error}");
    assert!(sent(&transport, "create_model").is_empty());
}

#[test]
fn a_session_is_kept_alive_until_it_is_finished() {
    let (runtime, transport, client) = service_client(service);
    runtime.block_on(async {
        assert_eq!(client.session_id().await.unwrap(), "s");
        let sleeper = client.api().runtime().clone();
        sleeper.sleep(secs(25)).await;
        client.finish(FinishReason::Success, Some("done".into())).await.unwrap();
        sleeper.sleep(secs(25)).await;
        let error = client.session_id().await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Config { .. }), "{error}");
    });
    assert_eq!(sent(&transport, "session_heartbeat").len(), 2);
    assert_eq!(
        sent(&transport, "sessions/s/finish"),
        [json!({"reason": {"type": "success"}, "detail": "done"})]
    );
    assert_eq!(sent(&transport, "create_session")[0]["display_name"], "test");
}

#[test]
fn a_session_is_opened_with_all_its_labels() {
    let opened = |options| {
        let (runtime, transport, client) = service_client_with(options, service);
        runtime.block_on(client.session_id()).unwrap();
        sent(&transport, "create_session")
    };
    let options = SessionOptions {
        tags: vec!["a".into(), "b".into()],
        user_metadata: UserMetadata::from([("k".to_owned(), "v".to_owned())]),
        project_id: Some("p1".into()),
        display_name: Some("mine".into()),
        telemetry: false,
    };
    let labelled = json!({
        "tags": ["a", "b"], "user_metadata": {"k": "v"}, "project_id": "p1", "display_name": "mine",
        "sdk_version": SDK_VERSION, "type": "create_session",
    });
    assert_eq!(opened(options), [labelled]);
    // Without labels the members that the protocol requires are there all the same, and no others.
    let plain =
        json!({"tags": [], "user_metadata": {}, "sdk_version": SDK_VERSION, "type": "create_session"});
    assert_eq!(opened(SessionOptions::default()), [plain]);
}

#[test]
fn a_client_that_opened_no_session_finishes_none() {
    let (runtime, transport, client) = service_client(service);
    runtime.block_on(client.finish(FinishReason::Success, None)).unwrap();
    assert!(transport.requests().is_empty());
}

// -- rest ---------------------------------------------------------------------------------------------------------

#[test]
fn all_runs_come_once_although_the_pages_move() {
    let page = |ids: &[&str], total: u64| {
        let runs: Vec<_> = ids
            .iter()
            .map(|id| json!({"training_run_id": id, "last_request_time": "2026-01-01T00:00:00"}))
            .collect();
        FakeReply::json(200, json!({"training_runs": runs, "cursor": {"total_count": total}}).to_string())
    };
    let ids = |replies: Vec<FakeReply>| {
        let runtime = ManualRuntime::new();
        let says_nothing = FakeReply::json(404, r#"{"detail":"Not Found"}"#);
        let transport = FakeTransport::scripted(&runtime, [says_nothing].into_iter().chain(replies));
        let rest = RestClient::new(api(&runtime, &transport));
        let pages = runtime.block_on(rest.training_runs(2).collect::<Vec<_>>());
        let ids: Vec<_> = pages.into_iter().flat_map(|p| p.unwrap()).map(|r| r.training_run_id).collect();
        (ids, transport.paths())
    };
    // A run was made after the first page: what was second is now third.
    let still = [page(&["d", "c"], 4), page(&["c", "b"], 4), page(&["b", "a"], 4)];
    let moved = [page(&["c", "b"], 3), page(&["c", "b"], 4), page(&["b", "a"], 4)];
    // From the beginning, where what was made meanwhile stands, until nothing is new.
    let (seen, paths) = ids(moved.into_iter().chain(still.clone()).chain(still).collect());
    assert_eq!(seen, ["c", "b", "a", "d"]);
    assert_eq!(paths[2], "GET /prefix/api/v1/training_runs?limit=2&offset=1");
    // A server that tells no total, and one that ignores the offset as well.
    assert_eq!(ids(vec![page(&["a"], 0), page(&[], 0), page(&["a"], 0)]).0, ["a"]);
    assert_eq!(ids(vec![page(&["a", "b"], 0); 101]).0, ["a", "b"]);
}
