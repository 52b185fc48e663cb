//! Telemetry: what is sent, when, and what never is.

use std::error::Error as StdError;
use std::fmt;

use futures_core::future::BoxFuture;
use retinker_wire::telemetry::Severity;
use retinker_wire::training::ModelInput;
use serde_json::Map;

use super::*;
use crate::client::testing::test;
use crate::client::{CredentialSource, SampleOptions, SamplingSource, Telemetry};
use crate::runtime::Runtime;

/// The session's service, which also takes telemetry.
fn accepting(request: &Request) -> FakeReply {
    match path(request) {
        "telemetry" => FakeReply::json(200, r#"{"status":"accepted"}"#),
        _ => service(request),
    }
}

fn telling(
    answer: impl FnMut(&Request) -> FakeReply + Send + 'static,
) -> (ManualRuntime, FakeTransport, ServiceClient) {
    service_client_with(SessionOptions { telemetry: true, ..SessionOptions::default() }, answer)
}

/// Telemetry of a session, by itself.
fn telemetry(
    answer: impl FnMut(&Request) -> FakeReply + Send + 'static,
) -> (ManualRuntime, FakeTransport, Telemetry) {
    let runtime = ManualRuntime::new().with_chance();
    let transport = FakeTransport::new(&runtime, answer);
    let telemetry = Telemetry::of_session(&api(&runtime, &transport), "s");
    (runtime, transport, telemetry)
}

fn data(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// All events sent so far, in order.
fn events(transport: &FakeTransport) -> Vec<Value> {
    let batches = sent(transport, "telemetry").into_iter();
    batches.flat_map(|batch| batch["events"].as_array().unwrap().clone()).collect()
}

fn batch_sizes(transport: &FakeTransport) -> Vec<usize> {
    sent(transport, "telemetry").iter().map(|batch| batch["events"].as_array().unwrap().len()).collect()
}

/// An error of the program's own, caused by another.
#[derive(Debug)]
struct Outer(&'static str, Option<Error>);

impl fmt::Display for Outer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl StdError for Outer {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.1.as_ref().map(|cause| cause as _)
    }
}

#[test]
fn nothing_is_sent_unless_asked_for() {
    let (runtime, transport, client) = service_client(service);
    runtime.block_on(async {
        client.session_id().await.unwrap();
        assert!(client.get_telemetry().await.is_none());
        runtime.sleep(secs(60)).await;
        client.finish(FinishReason::Success, None).await.unwrap();
    });
    assert_eq!(sent(&transport, "telemetry").len(), 0);
}

#[test]
fn a_session_is_told_from_its_start_to_its_end() {
    let (runtime, transport, client) = telling(accepting);
    runtime.block_on(async {
        assert!(client.get_telemetry().await.is_none(), "asking opens no session");
        client.session_id().await.unwrap();
        let telemetry = client.get_telemetry().await.unwrap();
        assert_eq!(telemetry.session_id(), "s");
        runtime.sleep(secs(4)).await;
        assert!(telemetry.log("epoch", data(json!({"n": 1})), Severity::Debug));
        runtime.sleep(Duration::from_millis(5999)).await;
        assert_eq!(batch_sizes(&transport), [0; 0], "events wait");
        runtime.sleep(secs(1)).await;
        assert_eq!(batch_sizes(&transport), [2], "for ten seconds");
        runtime.sleep(secs(49)).await;
        assert_eq!(batch_sizes(&transport), [2], "nothing is sent of nothing");
        client.finish(FinishReason::Success, None).await.unwrap();
    });
    let batches = sent(&transport, "telemetry");
    let expected = [
        json!({"event": "SESSION_START", "event_session_index": 0, "severity": "INFO",
               "timestamp": "2026-01-01T00:00:00Z"}),
        json!({"event": "GENERIC_EVENT", "event_session_index": 1, "severity": "DEBUG",
               "timestamp": "2026-01-01T00:00:04Z", "event_name": "epoch", "event_data": {"n": 1}}),
        json!({"event": "SESSION_END", "event_session_index": 2, "severity": "INFO",
               "timestamp": "2026-01-01T00:00:59.999Z", "duration": "0:00:59.999000"}),
    ];
    let mut ids = std::collections::BTreeSet::new();
    for (mut found, expected) in events(&transport).into_iter().zip(expected) {
        let id = found.as_object_mut().unwrap().remove("event_id").unwrap();
        assert!(is_uuid4(id.as_str().unwrap()), "{id}");
        assert!(ids.insert(id.as_str().unwrap().to_owned()));
        assert_eq!(found, expected);
    }
    assert_eq!(ids.len(), 3);
    for batch in &batches {
        let members: Vec<_> = batch.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(members, ["events", "platform", "process_uuid", "sdk_version", "session_id"]);
        assert!(is_uuid4(batch["process_uuid"].as_str().unwrap()));
        assert_eq!(batch["session_id"], "s");
        assert_eq!(batch["sdk_version"], crate::client::SDK_VERSION);
    }
    assert_eq!(batches[0]["process_uuid"], batches[1]["process_uuid"]);
    assert_eq!(transport.paths().last().unwrap(), "POST /prefix/api/v1/telemetry", "after the finish");
}

fn is_uuid4(text: &str) -> bool {
    let parts: Vec<_> = text.split('-').map(str::len).collect();
    let hex = text.chars().all(|c| c == '-' || c.is_ascii_hexdigit());
    let at = |n: usize| text.chars().nth(n).unwrap();
    hex && parts == [8, 4, 4, 4, 12] && at(14) == '4' && "89ab".contains(at(19))
}

#[test]
fn the_end_is_told_once_also_where_nobody_finishes() {
    let (runtime, transport, client) = telling(accepting);
    runtime.block_on(async {
        client.session_id().await.unwrap();
        drop(client);
        runtime.sleep(secs(1)).await;
    });
    let names: Vec<_> = events(&transport).iter().map(|event| event["event"].clone()).collect();
    assert_eq!(names, ["SESSION_START", "SESSION_END"]);
    assert_eq!(runtime.elapsed(), secs(1), "what is left is sent at once");
}

#[test]
fn a_client_keeps_telemetry_alive() {
    let (runtime, transport, client) = telling(accepting);
    runtime.block_on(async {
        let run =
            client.create_lora_training_client("tiny", LoraConfig::default(), TrainingOptions::default());
        let run = run.await.unwrap();
        drop(client);
        runtime.sleep(secs(100)).await;
        assert_eq!(events(&transport).len(), 1);
        drop(run);
        runtime.sleep(secs(1)).await;
        assert_eq!(events(&transport).len(), 2);
    });
}

#[test]
fn batches_are_bounded_and_in_order() {
    let (runtime, transport, telemetry) = telemetry(accepting);
    runtime.block_on(async {
        for n in 1..250 {
            telemetry.log("n", data(json!({"n": n})), Severity::Info);
        }
        assert!(telemetry.flush().await);
        assert!(telemetry.flush().await, "with nothing to send, too");
    });
    assert_eq!(batch_sizes(&transport), [100, 100, 50]);
    let order: Vec<_> =
        events(&transport).iter().map(|e| e["event_session_index"].as_u64().unwrap()).collect();
    assert!(order.into_iter().eq(0..250));
    assert_eq!((runtime.elapsed(), telemetry.dropped()), (Duration::ZERO, 0));
}

#[test]
fn the_queue_is_bounded_and_what_it_does_not_take_is_counted() {
    let (runtime, transport, telemetry) = telemetry(accepting);
    for _ in 0..9_999 {
        assert!(telemetry.log("n", Map::new(), Severity::Info));
    }
    for _ in 0..3 {
        assert!(!telemetry.log("n", Map::new(), Severity::Info));
        assert!(!telemetry.log_exception(&Outer("no", None), Severity::Error));
    }
    assert_eq!(telemetry.dropped(), 6);
    assert!(runtime.block_on(telemetry.flush()));
    assert_eq!(batch_sizes(&transport), [100; 100]);
    assert!(telemetry.log("n", Map::new(), Severity::Info), "there is room again");
}

#[test]
fn a_refused_batch_is_dropped_and_the_next_one_goes_out() {
    let mut refusals = 2;
    let (runtime, transport, telemetry) = telemetry(move |request| {
        refusals -= i32::from(path(request) == "telemetry");
        if refusals >= 0 { FakeReply::json(403, "{}") } else { accepting(request) }
    });
    runtime.block_on(async {
        for _ in 0..250 {
            telemetry.log("n", Map::new(), Severity::Info);
        }
        assert!(telemetry.flush().await);
    });
    assert_eq!(batch_sizes(&transport), [100, 100, 51], "none is sent twice");
    assert_eq!(telemetry.dropped(), 200);
    assert_eq!(events(&transport).len(), 251, "that a batch was refused is no event");
}

#[test]
fn a_batch_has_a_budget_of_its_own() {
    let (runtime, transport, telemetry) = telemetry(|_| FakeReply::never());
    runtime.block_on(async {
        assert!(!telemetry.flush().await);
        assert_eq!(runtime.elapsed(), secs(30), "nobody waits longer for telemetry");
        assert_eq!(telemetry.dropped(), 0);
        runtime.sleep(secs(200)).await;
    });
    assert_eq!(batch_sizes(&transport), [1; 11]);
    assert_eq!(telemetry.dropped(), 1);
    let attempts = runtime.sleeps().into_iter().filter(|sleep| *sleep == secs(5)).count();
    assert_eq!(attempts, 11, "each has five seconds");
}

#[test]
fn errors_are_told_by_whose_fault_they_are() {
    let refused = |status, detail: &str| {
        Error::new(
            "get_info of run r",
            ErrorKind::Refused { status, detail: detail.into(), request_id: None },
        )
    };
    let failed = |category| {
        let (message, request_id) = ("what the server says".to_owned(), Some("7".to_owned()));
        Error::new("sample of sampler x", ErrorKind::Failed { category, message, request_id })
    };
    let poisoned =
        |cause| Error::new("optim_step", ErrorKind::Poisoned { run_id: "r".into(), checkpoint: None, cause });
    let user = |error: &(dyn StdError + 'static)| {
        let (runtime, transport, telemetry) = telemetry(accepting);
        assert!(telemetry.log_exception(error, Severity::Critical));
        runtime.block_on(async {
            runtime.sleep(secs(1)).await;
        });
        let event = events(&transport).pop().unwrap();
        match event["event"].as_str().unwrap() {
            "GENERIC_EVENT" => {
                assert_eq!(
                    (&event["event_name"], &event["severity"]),
                    (&json!("user_error"), &json!("WARNING"))
                );
                true
            }
            "UNHANDLED_EXCEPTION" => {
                assert_eq!(event["severity"], "CRITICAL");
                false
            }
            other => panic!("{other}"),
        }
    };
    for status in [400, 401, 402, 403, 404, 409, 422, 429, 499] {
        assert!(user(&refused(status, "")), "{status}");
        assert!(user(&Outer("outer", Some(refused(status, "")))), "{status}");
        assert!(user(&poisoned(refused(status, ""))), "{status}");
    }
    assert!(user(&Error::new("x", ErrorKind::Expired { request_id: None })));
    for status in [300, 408, 500, 503] {
        assert!(!user(&refused(status, "")), "{status}");
    }
    assert!(user(&failed(RequestErrorCategory::User)));
    assert!(!user(&failed(RequestErrorCategory::Server)));
    assert!(!user(&failed(RequestErrorCategory::Unknown)));
    assert!(!user(&Error::config("a batch", "it is empty")));
    assert!(!user(&Outer("mine", None)));

    let (runtime, transport, telemetry) = telemetry(accepting);
    runtime.block_on(async {
        telemetry.log_exception(&refused(404, "no run r"), Severity::Error);
        telemetry
            .log_exception(&Outer("it broke", Some(failed(RequestErrorCategory::Server))), Severity::Error);
        assert!(telemetry.log_fatal_exception(&Outer("over", None), Severity::Critical).await);
    });
    let found = events(&transport);
    assert_eq!(
        found[1]["event_data"],
        json!({"error_type": "refused", "status_code": 404,
               "message": "get_info of run r was refused with status 404: ***. Check the id or path."})
    );
    assert_eq!((&found[2]["error_type"], &found[2]["error_message"]), (&json!("error"), &json!("it broke")));
    let cause = found[2]["traceback"].as_str().unwrap();
    assert!(cause.starts_with("caused by: sample of sampler x failed: ***."), "{cause}");
    assert_eq!((&found[3]["error_message"], found[3].get("traceback")), (&json!("over"), None));
    assert_eq!(found[4]["event"], "SESSION_END");
}

#[test]
fn the_client_tells_of_what_fails() {
    let mut asked = 0;
    let (runtime, transport, client) = telling(move |request| match path(request) {
        "optim_step" => {
            asked += 1;
            match asked {
                1 => FakeReply::json(402, ""),
                2 => FakeReply::json(503, ""),
                3 => FakeReply::json(200, r#"{"request_id":"1"}"#),
                _ => FakeReply::json(422, r#"{"detail":"no such optimizer"}"#),
            }
        }
        "retrieve_future" if body(request)["request_id"] == "1" => match asked {
            3 => {
                asked += 1;
                FakeReply::json(408, r#"{"queue_state":"active"}"#).after(secs(2))
            }
            _ => FakeReply::json(200, r#"{"error":"the loss is NaN","category":"user"}"#),
        },
        "create_sampling_session" => FakeReply::json(500, "").header("x-should-retry", "false"),
        _ => accepting(request),
    });
    runtime.block_on(async {
        let run =
            client.create_lora_training_client("tiny", LoraConfig::default(), TrainingOptions::default());
        let run = run.await.unwrap();
        run.optim_step(AdamParams::default()).await.unwrap_err();
        run.optim_step(AdamParams::default()).await.unwrap_err();
        client.create_sampling_client(SamplingSource::BaseModel("tiny".into())).await.unwrap_err();
        client.finish(FinishReason::Errored, None).await.unwrap();
    });
    let found = events(&transport);
    let told: Vec<_> = found
        .iter()
        .map(|event| {
            let name = event.get("event_name").unwrap_or(&event["event"]).as_str().unwrap();
            (name, event["severity"].as_str().unwrap(), event["event_data"]["status_code"].as_u64())
        })
        .collect();
    const ATTEMPT: &str = "InternalClientHolder.execute_with_retries.exception";
    assert_eq!(
        told,
        [
            ("SESSION_START", "INFO", None),
            (ATTEMPT, "WARNING", Some(503)),
            ("APIFuture.result_async.application_error", "WARNING", None),
            ("user_error", "WARNING", None),
            (ATTEMPT, "WARNING", Some(422)),
            ("user_error", "WARNING", Some(422)),
            (ATTEMPT, "ERROR", Some(500)),
            ("UNHANDLED_EXCEPTION", "ERROR", None),
            ("SESSION_END", "INFO", None),
        ]
    );
    let attempt = &found[1]["event_data"];
    assert_eq!((&attempt["is_retryable"], &attempt["attempt_count"]), (&json!(true), &json!(1)));
    assert_eq!(attempt["func"], "optim_step (request 1) of run s:train:0");
    let failed = &found[2]["event_data"];
    assert_eq!((&failed["request_id"], &failed["request_type"]), (&json!("1"), &json!("OptimStep")));
    assert_eq!((&failed["iteration"], &failed["elapsed_time"]), (&json!(2), &json!(2.0)));
    let text = serde_json::to_string(&found).unwrap();
    assert!(!text.contains("NaN") && !text.contains("no such optimizer"), "the server knows what it said");
}

#[test]
fn a_sample_that_is_drawn_again_is_told_of() {
    let mut asked = 0;
    let (runtime, transport, client) = telling(move |request| match path(request) {
        "create_sampling_session" => FakeReply::json(200, r#"{"sampling_session_id":"x"}"#),
        "asample" => FakeReply::json(200, r#"{"request_id":"1"}"#),
        "retrieve_future" => {
            asked += 1;
            match asked {
                1 => FakeReply::json(410, "{}"),
                _ => FakeReply::json(200, r#"{"error":"it is too long","category":"user"}"#),
            }
        }
        _ => accepting(request),
    });
    runtime.block_on(async {
        let sampler = client.create_sampling_client(SamplingSource::BaseModel("tiny".into())).await.unwrap();
        let prompt = ModelInput::from_ints(vec![1]);
        sampler.sample(&prompt, &SampleOptions::default()).await.unwrap_err();
        client.finish(FinishReason::Errored, None).await.unwrap();
    });
    let again: Vec<_> = events(&transport)
        .into_iter()
        .filter(|event| event["event_name"] == "RetryHandler.execute.exception")
        .map(|event| {
            let data = &event["event_data"];
            [&data["exception_type"], &data["should_retry"], &data["attempt_count"], &data["func"]]
                .map(Value::clone)
        })
        .collect();
    let expected =
        json!([["expired", true, 1, "sample of sampler x"], ["failed", false, 2, "sample of sampler x"]]);
    assert_eq!(json!(again), expected);
}

#[test]
fn without_a_session_there_is_neither_start_nor_end() {
    let runtime = ManualRuntime::new().with_chance();
    let transport = FakeTransport::new(&runtime, |request| match path(request) {
        "telemetry" => accepting(request),
        _ => FakeReply::json(404, r#"{"detail":"there is none"}"#),
    });
    let plain = api(&runtime, &transport);
    let telemetry = Telemetry::sessionless(&plain);
    let id = telemetry.session_id().to_owned();
    assert!(is_uuid4(id.strip_prefix("sessionless-").unwrap()));
    runtime.block_on(async {
        let rest = RestClient::new(plain.with_telemetry(&telemetry));
        rest.get_training_run("r").await.unwrap_err();
        drop((rest, telemetry));
        runtime.sleep(secs(1)).await;
    });
    let found = events(&transport);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["event_data"]["status_code"], 404);
    assert_eq!(sent(&transport, "telemetry")[0]["session_id"], id.as_str());
}

/// Gives a credential that looks like nothing known.
#[derive(Debug)]
struct Source;

impl CredentialSource for Source {
    fn credential(&self) -> BoxFuture<'static, Result<Secret, String>> {
        Box::pin(std::future::ready(Ok(Secret::new("canary-source"))))
    }
}

/// What of a request is secret, all of it.
fn planted(request: &Request) -> String {
    let headers = request.headers.iter().map(|(_, value)| value.as_str());
    let token = body(request)["weights_access_token"].as_str().unwrap_or_default().to_owned();
    headers.filter(|value| value.contains("canary")).chain([token.as_str()]).collect::<Vec<_>>().join(" ")
}

/// The server repeats what it was sent, wherever it can; so does the program. Nothing of it is told.
#[test]
fn no_secret_is_ever_told() {
    const PLANTED: &str = "canary";
    for source in [false, true] {
        let runtime = ManualRuntime::new().with_chance();
        let mut calls = 0;
        let transport = FakeTransport::new(&runtime, move |request| {
            calls += 1;
            let echo = planted(request);
            let said = json!({ "detail": echo }).to_string();
            match path(request) {
                "telemetry" | "create_session" | "client/config" | "client/dynamic_config" => {
                    accepting(request)
                }
                "retrieve_future" => {
                    FakeReply::json(200, json!({"error": echo, "category": "server"}).to_string())
                }
                "create_model" if calls % 2 == 0 => accepting(request),
                "sessions/s/finish" => FakeReply::json(200, "{}"),
                _ => FakeReply::json([400, 401, 500, 200][calls % 4], said)
                    .header("x-should-retry", "false")
                    .header("x-echo", &echo),
            }
        });
        let config = ApiConfig {
            base_url: "http://service.test/prefix".into(),
            api_key: (!source).then(|| Secret::new("tml-canary-key")),
            credential_source: source.then(|| Arc::new(Source) as _),
            headers: vec![
                ("authorization".into(), "Bearer canary-header".into()),
                ("cookie".into(), "canary-cookie".into()),
            ],
        };
        let plain = Api::new(config, Arc::new(transport.clone()), Arc::new(runtime.clone())).unwrap();
        let options = SessionOptions { telemetry: true, ..SessionOptions::default() };
        let client = ServiceClient::with_options(plain, options);
        runtime.block_on(async {
            client.session_id().await.unwrap();
            let telemetry = client.get_telemetry().await.unwrap();
            let token = Secret::new("canary-weights-token");
            let mut said = String::new();
            for _ in 0..4 {
                let options = TrainingOptions {
                    weights_access_token: Some(token.clone()),
                    ..TrainingOptions::default()
                };
                let path = "tinker://r/weights/a";
                let error = client.create_training_client_from_state(path, options).await.unwrap_err();
                said += &error.to_string();
                telemetry.log_exception(&error, Severity::Error);
                let wrapped = Outer("tml-canary-key and canary-header", Some(error));
                telemetry.log_exception(&wrapped, Severity::Error);
                let api = client.api().clone().with_telemetry(&telemetry);
                let rest = RestClient::new(api);
                if let Err(error) = rest.copy_weights(path, None, None, Some(&token)).await {
                    said += &error.to_string();
                    telemetry.log_exception(&Outer("copying", Some(error)), Severity::Error);
                }
                let made = client.create_lora_training_client(
                    "tiny",
                    LoraConfig::default(),
                    TrainingOptions::default(),
                );
                telemetry.log_exception(&made.await.unwrap_err(), Severity::Error);
            }
            // They are there to be told: the program's errors have what the server said.
            let key = if source { "canary-source" } else { "tml-canary-key" };
            for planted in [key, "canary-weights-token", "canary-header", "canary-cookie"] {
                assert!(said.contains(planted), "{planted}: {said}");
            }
            telemetry.log(
                "tml-canary-key",
                data(json!({
                    "tml-canary-key": ["Bearer canary-header", {"cookie": "canary-cookie"}],
                    "key": key,
                    "another's key": "tml-canary",
                    "a token": "eyJjanary.canary.canary",
                    "url": "https://files.test/w?signature=canary",
                    "user": "https://canary@files.test/",
                    "plain": "nothing",
                })),
                Severity::Info,
            );
            client.finish(FinishReason::Success, None).await.unwrap();
        });
        let found = events(&transport);
        assert!(found.len() > 15, "{}", found.len());
        let text = serde_json::to_string(&sent(&transport, "telemetry")).unwrap();
        assert!(text.contains("nothing") && text.contains("files.test/w"), "{text}");
        assert_eq!(text.find(PLANTED).map(|at| &text[at.saturating_sub(200)..at + 50]), None);
    }
}
