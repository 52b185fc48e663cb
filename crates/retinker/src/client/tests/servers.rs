//! What other servers were seen to answer (SkyRL, TuFT), one exchange for each endpoint and status: all of it is read, or
//! reported with its status and the server's words. `servers.json` was recorded with their Tinker servers on a CPU.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use retinker_wire::model::{CreateModelResult, LoadWeightsResult};
use retinker_wire::path::TinkerPath;
use retinker_wire::sampling::{AsampleRequest, SampleResponse};
use retinker_wire::training::OptimStepResult;
use retinker_wire::weights::{SaveWeightsForSamplerResult, SaveWeightsResult};
use serde::Deserialize;

use super::*;
use crate::client::api::save_weights_external_call;
use crate::client::retry::RetryPolicy;
use crate::client::testing::test;
use crate::client::{Download, FutureResult};

#[derive(Debug, Deserialize)]
struct Exchange {
    server: String,
    method: String,
    path: String,
    #[serde(rename = "type", default)]
    kind: Option<String>,
    status: u16,
    #[serde(default)]
    location: Option<String>,
    body: Value,
    /// The body of a protobuf answer, as base64.
    #[serde(default)]
    protobuf: Option<String>,
}

impl Exchange {
    fn all() -> Vec<Self> {
        serde_json::from_str(include_str!("servers.json")).unwrap()
    }

    /// The path with its ids replaced, and the ids.
    fn endpoint(&self) -> (String, Vec<&str>) {
        let mut ids = Vec::new();
        let parts = self.path.trim_start_matches("/api/v1/").split('/').collect::<Vec<_>>();
        let mut named = Vec::new();
        for (i, part) in parts.iter().enumerate() {
            let before = i.checked_sub(1).map(|i| parts[i]);
            if matches!(before, Some("training_runs" | "sessions" | "samplers")) && *part != "search" {
                ids.push(*part);
                named.push("ID");
            } else {
                named.push(part);
            }
        }
        (named.join("/"), ids)
    }

    fn reply(&self) -> FakeReply {
        if let Some(text) = &self.protobuf {
            return FakeReply::bytes(self.status, PROTOBUF, STANDARD.decode(text).unwrap());
        }
        let text = match &self.body {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let reply = FakeReply::json(self.status, text);
        match &self.location {
            Some(location) => reply.header("location", location),
            None => reply,
        }
    }
}

/// Does what the exchange was part of; what came of it, for people.
async fn replay(api: &Api, exchange: &Exchange) -> Result<String, Error> {
    fn told<T: std::fmt::Debug>(result: Result<T, Error>) -> Result<String, Error> {
        result.map(|value| format!("{value:?}"))
    }
    async fn result<T: FutureResult + std::fmt::Debug>(api: &Api) -> Result<String, Error> {
        told(api.retrieve_future::<T>("r").await)
    }
    let (endpoint, ids) = exchange.endpoint();
    let id = ids.first().copied().unwrap_or("r");
    let numbered = |kind: &str| json!({"model_id": "m", "seq_id": 1, "path": "a", "type": kind});
    match (exchange.method.as_str(), endpoint.as_str()) {
        ("POST", "client/config") => told(api.client_config().await),
        ("POST", "client/dynamic_config") => told(api.dynamic_config().await),
        ("GET", "get_server_capabilities") => told(api.capabilities().await),
        ("POST", "create_session") => {
            told(api.create_session(&serde_json::from_value(json!({"sdk_version": "x"})).unwrap()).await)
        }
        ("POST", "session_heartbeat") => told(api.session_heartbeat("s").await),
        ("POST", "sessions/ID/finish") => told(api.finish_session(id, FinishReason::Success, None).await),
        ("POST", "sessions/search") => told(api.search_sessions(&Default::default()).await),
        ("GET", "sessions") => told(api.list_sessions(20, 0).await),
        ("GET", "sessions/ID") => told(api.get_session(id).await),
        ("POST", "create_model") => {
            let request = json!({"session_id": "s", "base_model": "m"});
            told(api.create_model(&serde_json::from_value(request).unwrap()).await)
        }
        ("POST", "get_info") => told(api.get_info("m").await),
        ("POST", "forward_backward") => {
            told(api.forward_backward("m", 1, &[datum()], "cross_entropy", &none(), false).await)
        }
        ("POST", "optim_step") => {
            told(api.optim_step(&serde_json::from_value(numbered("optim_step")).unwrap()).await)
        }
        ("POST", "save_weights") => {
            told(api.save_weights(&serde_json::from_value(numbered("save_weights")).unwrap()).await)
        }
        ("POST", "save_weights_for_sampler") => {
            told(api.save_weights_for_sampler(&serde_json::from_value(numbered("x")).unwrap()).await)
        }
        ("POST", "save_weights_external") => {
            let call = serde_json::from_value(numbered("save_weights_external")).unwrap();
            told(api.accept(&save_weights_external_call(&call).unwrap()).await)
        }
        ("POST", "load_weights") => {
            told(api.load_weights(&serde_json::from_value(numbered("load_weights")).unwrap()).await)
        }
        ("POST", "weights_info") => told(api.weights_info("tinker://m/weights/a").await),
        ("POST", "create_sampling_session") => {
            let request = json!({"session_id": "s", "sampling_session_seq_id": 0, "base_model": "m"});
            told(api.create_sampling_session(&serde_json::from_value(request).unwrap()).await)
        }
        ("POST", "asample") => {
            let call = json!({"prompt": {"chunks": []}, "base_model": "m"});
            let call: AsampleRequest = serde_json::from_value(call).unwrap();
            told(api.asample(&call).await)
        }
        ("GET", "samplers/ID") => told(api.get_sampler(id).await),
        ("POST", "retrieve_future") => match exchange.kind.as_deref() {
            Some("CreateModel") => result::<CreateModelResult>(api).await,
            Some("LoadWeights") => result::<LoadWeightsResult>(api).await,
            Some("SaveWeights") => result::<SaveWeightsResult>(api).await,
            Some("SaveWeightsForSampler") => result::<SaveWeightsForSamplerResult>(api).await,
            Some("Sample") => result::<SampleResponse>(api).await,
            Some("ForwardBackward" | "Forward") => result::<ForwardBackwardOutput>(api).await,
            Some("OptimStep") | None => result::<OptimStepResult>(api).await,
            Some(other) => panic!("no result of type {other} is known"),
        },
        ("GET", "training_runs") => told(api.training_runs(20, 0).await),
        ("GET", "training_runs/ID") => told(api.training_run(id).await),
        ("GET", "training_runs/ID/checkpoints") => told(api.run_checkpoints(id).await),
        ("GET", "checkpoints") => told(api.user_checkpoints(100, 0).await),
        (method, of_checkpoint) => {
            let rest = of_checkpoint.strip_prefix("training_runs/ID/checkpoints/").unwrap();
            let (checkpoint, what) = match rest.split('/').collect::<Vec<_>>()[..] {
                [kind @ ("weights" | "sampler_weights"), name] => (format!("{kind}/{name}"), ""),
                [kind @ ("weights" | "sampler_weights"), name, what] => (format!("{kind}/{name}"), what),
                [name, what] => (name.to_owned(), what),
                _ => panic!("{method} {of_checkpoint} is of no call"),
            };
            match (method, what) {
                ("DELETE", "") => told(api.delete_checkpoint(id, &checkpoint).await),
                ("POST", "publish") => told(api.set_checkpoint_public(id, &checkpoint, true).await),
                ("DELETE", "publish") => told(api.set_checkpoint_public(id, &checkpoint, false).await),
                ("PUT", "ttl") => told(api.set_checkpoint_ttl(id, &checkpoint, Some(60)).await),
                ("GET", "archive") => told(api.checkpoint_archive_address(id, &checkpoint).await),
                _ => panic!("{method} {of_checkpoint} is of no call"),
            }
        }
    }
}

#[test]
fn everything_is_read_or_reported_with_the_servers_words() {
    let mut done = BTreeMap::<String, u32>::new();
    for exchange in Exchange::all() {
        let case = format!("{} {} {} {}", exchange.server, exchange.method, exchange.path, exchange.status);
        let runtime = ManualRuntime::new();
        let reply = exchange.reply();
        let transport = FakeTransport::new(&runtime, move |_| reply.clone());
        let api = api(&runtime, &transport).with_retry(RetryPolicy::none());
        let result = runtime.block_on(replay(&api, &exchange));
        *done.entry(exchange.server.clone()).or_default() += 1;
        // An older server has no settings that change: that is no error.
        let fine = exchange.status < 400 || exchange.path.ends_with("dynamic_config");
        match result {
            Ok(_) => assert!(fine, "{case}"),
            Err(error) => {
                assert!(!fine, "{case}: {error}");
                assert_eq!(error.status(), Some(exchange.status), "{case}: {error}");
                let detail = exchange.body.get("detail").and_then(Value::as_str).unwrap_or_default();
                // Control characters, such as colours, do not reach those who read errors.
                let told = detail.split(char::is_control).next().unwrap_or_default().trim();
                let told = told.chars().take(40).collect::<String>();
                assert!(error.to_string().contains(&told) || exchange.status == 410, "{case}: {error}");
            }
        }
    }
    assert!(done["skyrl"] > 25 && done["tuft"] > 25, "{done:?}");
}

#[test]
fn what_a_server_does_not_have_is_told_apart_from_what_is_not_there() {
    for exchange in Exchange::all() {
        let (endpoint, _) = exchange.endpoint();
        let runtime = ManualRuntime::new();
        let reply = exchange.reply();
        let transport = FakeTransport::new(&runtime, move |_| reply.clone());
        let api = api(&runtime, &transport).with_retry(RetryPolicy::none());
        let unsupported = match (exchange.server.as_str(), endpoint.as_str()) {
            ("skyrl", "checkpoints" | "sessions" | "sessions/search" | "sessions/ID/finish") => true,
            ("tuft", "sessions/search" | "sessions/ID/finish") => true,
            _ if exchange.status == 405 => true,
            _ if exchange.status == 422 => false,
            _ => continue,
        };
        if let Err(error) = runtime.block_on(replay(&api, &exchange)) {
            assert_eq!(error.is_unsupported(), unsupported, "{} {}: {error}", exchange.server, exchange.path);
        }
    }
}

#[test]
fn the_path_of_a_sampler_checkpoint_without_its_kind_is_reported_with_the_path() {
    // SkyRL answers tinker://RUN/NAME, which no call takes.
    let path: Result<TinkerPath, _> = "tinker://model_95a73b36/samp5".parse();
    assert!(path.unwrap_err().to_string().contains("tinker://model_95a73b36/samp5"));
}

/// What a server was seen to answer to this.
fn seen(server: &str, path_ends: &str) -> FakeReply {
    let all = Exchange::all();
    let found = all.iter().find(|exchange| exchange.server == server && exchange.path.ends_with(path_ends));
    found.unwrap_or_else(|| panic!("{server} was not asked for {path_ends}")).reply()
}

#[test]
fn an_archive_on_the_servers_own_disk_is_named_at_once() {
    let runtime = ManualRuntime::new();
    let transport = FakeTransport::new(&runtime, |request| match path(request) {
        "client/config" | "client/dynamic_config" => obliging(request),
        _ => seen("tuft", "checkpoints/weights/step5/archive"),
    });
    let rest = RestClient::new(api(&runtime, &transport));
    let error = runtime.block_on(async {
        let address = rest.checkpoint_archive_address("tinker://r/weights/step5").await.unwrap();
        Download::open(rest.api(), "the archive of tinker://r/weights/step5", &address, 0).await.unwrap_err()
    });
    let said = error.to_string();
    assert!(said.contains("tinker://r/weights/step5") && said.contains("file:///srv/tinker"), "{said}");
    assert!(!error.is_retryable());
    assert_eq!(runtime.elapsed(), secs(0));
    assert_eq!(
        transport.paths().last().unwrap(),
        "GET /prefix/api/v1/training_runs/r/checkpoints/weights/step5/archive"
    );
}

#[test]
fn an_archive_is_asked_for_by_its_bare_name_where_only_that_is_known() {
    let runtime = ManualRuntime::new();
    let transport = FakeTransport::new(&runtime, |request| match path(request) {
        "client/config" | "client/dynamic_config" => obliging(request),
        other => seen("skyrl", &other["training_runs/r/".len()..]),
    });
    let rest = RestClient::new(api(&runtime, &transport));
    let ask = |checkpoint: &str| {
        runtime.block_on(rest.checkpoint_archive_address(&format!("tinker://r/{checkpoint}")))
    };
    let address = ask("sampler_weights/samp5").unwrap();
    assert!(address.expose().ends_with("/checkpoints/samp5/download"), "{}", address.expose());
    // Of training checkpoints there are none, and a sampler's of that name would be the wrong one.
    let error = ask("weights/step5").unwrap_err();
    assert!(error.is_unsupported() && error.to_string().contains("weights/step5"), "{error}");
    let asked = transport.paths().iter().filter(|path| path.ends_with("/checkpoints/step5/archive")).count();
    assert_eq!(asked, 0);
}

#[test]
fn a_name_that_is_taken_fails_that_save_and_no_more() {
    let taken = std::cell::Cell::new(0);
    let (runtime, transport, client) = training(move |request| match path(request) {
        "save_weights" if taken.replace(taken.get() + 1) < 3 => seen_409(),
        _ => obliging(request),
    });
    fn seen_409() -> FakeReply {
        let all = Exchange::all();
        let taken =
            all.iter().find(|exchange| exchange.path.ends_with("save_weights") && exchange.status == 409);
        taken.unwrap().reply()
    }
    runtime.block_on(async {
        let error = client.save_state("step5", SaveOptions::default()).await.unwrap_err();
        assert_eq!(error.status(), Some(409));
        assert!(error.to_string().contains("Checkpoint 'step5' already exists"), "{error}");
        client.optim_step(AdamParams::default()).await.unwrap();
        client.save_state("step6", SaveOptions::default()).await.unwrap();
    });
    assert!(client.poisoned().is_none());
    let sent = ["save_weights 7", "save_weights 7", "save_weights 7", "optim_step 7", "save_weights 8"];
    assert_eq!(sequence(&transport), sent);
    // Half a second and a second between the attempts.
    assert_eq!(runtime.elapsed(), Duration::from_millis(1500));
}

#[test]
fn where_a_server_was_seen_not_to_know_create_via_load_the_run_is_made_first() {
    let unknown = || {
        let all = Exchange::all();
        let refused = |one: &&Exchange| one.path.ends_with("load_weights") && one.status == 422;
        all.iter().find(refused).unwrap().reply()
    };
    let (runtime, transport, client) = service_client(move |request| match path(request) {
        "load_weights" if body(request).get("session_id").is_some() => unknown(),
        _ => service(request),
    });
    let made = client.create_training_client_from_state("tinker://r/weights/a", TrainingOptions::default());
    runtime.block_on(made).unwrap();
    assert_eq!(sent(&transport, "create_model").len(), 1);
    assert_eq!(sent(&transport, "load_weights")[1]["model_id"], "s:train:0");
}
