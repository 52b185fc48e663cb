//! What the page of one run is told, by the embedded service and by one that has nothing beyond the protocol.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{FakeService, client, config, start, until};
use retinker::host::run::MetricsQuery;
use retinker::recovery::health::Health;
use retinker_host::Host;
use retinker_local::{LocalConfig, LocalService};
use serde_json::{Value, json};

/// Asks the embedded service, as an SDK would; what it promises is waited for.
async fn ask(service: &LocalService, path: &str, body: Value) -> Value {
    let client = reqwest::Client::new();
    let post = async |path: &str, body: &Value| {
        let sent = client
            .post(format!("{}{path}", service.base_url()))
            .header("x-api-key", "tml-test")
            .header("content-type", "application/json")
            .body(body.to_string());
        let answer = sent.send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let mut answer = post(path, &body).await;
    if let Some(request_id) = answer.get("request_id").cloned() {
        answer = until("a result", async || {
            let answer = post("/api/v1/retrieve_future", &json!({"request_id": request_id})).await;
            (answer["type"] != "try_again").then_some(answer)
        })
        .await;
    }
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_service_tells_curves_and_evidence() {
    let (data, journal) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let service = LocalService::start(LocalConfig::new(data.path())).await.unwrap();
    let post = async |endpoint: &str, body: Value| ask(&service, &format!("/api/v1/{endpoint}"), body).await;
    let session =
        post("create_session", json!({"tags": [], "sdk_version": "0", "display_name": "mine"})).await;
    let session_id = session["session_id"].as_str().unwrap();
    let model = post(
        "create_model",
        json!({"session_id": session_id, "model_seq_id": 0, "base_model": "retinker/nano-llama",
            "lora_config": {"rank": 2}}),
    )
    .await;
    let run_id = model["model_id"].as_str().unwrap();
    let datum = json!({
        "model_input": {"chunks": [{"type": "encoded_text", "tokens": [1, 2, 3]}]},
        "loss_fn_inputs": {"target_tokens": {"data": [2, 3, 4], "dtype": "int64", "shape": [3]},
            "weights": {"data": [1.0, 1.0, 1.0], "dtype": "float32", "shape": [3]}},
    });
    for step in 0..3 {
        let input = json!({"data": [datum], "loss_fn": "cross_entropy"});
        let pass = json!({"model_id": run_id, "seq_id": 2 * step + 1, "forward_backward_input": input});
        post("forward_backward", pass).await;
        let adam = json!({"learning_rate": 0.25, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8});
        post("optim_step", json!({"model_id": run_id, "seq_id": 2 * step + 2, "adam_params": adam})).await;
    }
    post(
        "create_sampling_session",
        json!({"session_id": session_id, "sampling_session_seq_id": 0,
        "base_model": "retinker/nano-llama"}),
    )
    .await;

    let running = Host::start(config(service.base_url(), journal.path())).await.unwrap();
    let host = client(&running);
    let all = host.run_metrics(run_id, &MetricsQuery::default()).await.unwrap();
    assert!(all.offered);
    assert_eq!((all.steps.as_slice(), all.next_after), ([1, 2, 3].as_slice(), None));
    assert_eq!(all.learning_rate, [Some(0.25); 3]);
    assert!(all.loss.iter().chain(&all.loss_per_token).chain(&all.grad_norm).all(Option::is_some), "{all:?}");
    assert!((all.loss[0].unwrap() - 3.0 * all.loss_per_token[0].unwrap()).abs() < 1e-9);
    let first = host.run_metrics(run_id, &MetricsQuery { after: None, limit: Some(2) }).await.unwrap();
    assert_eq!((first.steps.as_slice(), first.next_after), ([1, 2].as_slice(), Some(2)));
    let rest = host.run_metrics(run_id, &MetricsQuery { after: Some(2), limit: Some(2) }).await.unwrap();
    assert_eq!((rest.steps.as_slice(), rest.next_after), ([3].as_slice(), None));
    assert_eq!(rest.loss, all.loss[2..]);

    let evidence = host.run_evidence(run_id).await.unwrap();
    assert_eq!(evidence.problem, None);
    assert!(evidence.created_at.is_some());
    let kinds: Vec<_> = evidence.entries.iter().map(|entry| entry.kind.as_str()).collect();
    assert_eq!(kinds, ["made", "unsaved", "asked"]);
    let told = evidence.session.unwrap();
    assert_eq!((told.session_id.as_str(), told.status.as_str()), (session_id, "active"));
    assert_eq!((told.name.as_deref(), told.runs, told.samplers), (Some("mine"), Some(1), Some(1)));
    assert_eq!(told.newest_samplers.len(), 1);

    let missing = host.run_metrics("none:train:0", &MetricsQuery::default()).await.unwrap_err();
    assert_eq!((missing.status, missing.problem.code.as_str()), (Some(404), "run_not_found"));
    assert_eq!(host.run_evidence("none:train:0").await.unwrap_err().problem.code, "run_not_found");

    // The session is ended from outside: the run loses its unsaved work.
    let finish = json!({"reason": {"type": "errored"}, "detail": "the disk is full"});
    post(&format!("sessions/{session_id}/finish"), finish).await;
    let evidence = host.run_evidence(run_id).await.unwrap();
    let last = evidence.entries.last().unwrap();
    assert_eq!(last.text, "The run's program finished the session (errored): the disk is full.");
    running.stop().await;
    service.stop().await;
}

#[tokio::test]
async fn a_service_without_curves_says_so_and_still_tells_what_it_knows() {
    let (service, dir) = (FakeService::start().await, tempfile::tempdir().unwrap());
    let running = start(&service, dir.path()).await;
    let host = client(&running);
    let metrics = host.run_metrics("old", &MetricsQuery::default()).await.unwrap();
    assert!(!metrics.offered && metrics.steps.is_empty(), "{metrics:?}");
    let evidence = host.run_evidence("old").await.unwrap();
    assert_eq!((evidence.created_at, evidence.session, evidence.problem), (None, None, None));
    let mut kinds: Vec<_> = evidence.entries.iter().map(|entry| entry.kind.as_str()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["asked", "lost"], "what was lost long ago is history to a monitor");

    let detail = host.run("old").await.unwrap();
    assert_eq!((detail.lineage.len(), detail.lineage[0].health), (1, Some(Health::Poisoned)));

    service.state().fault = common::Fault::Status(400);
    let refused = host.run_metrics("old", &MetricsQuery::default()).await.unwrap_err();
    assert_eq!(refused.problem.code, "service_refused");
}
