//! What is refused, and in which words.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // A test that fails, panics.

mod common;

use common::{Client, MODEL, batch, start};
use reqwest::Method;
use retinker_local::{LocalConfig, LocalService, StartError};
use serde_json::{Value, json};

fn detail(answer: &Value) -> &str {
    answer["detail"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_health_check_needs_no_key() {
    let dir = tempfile::tempdir().unwrap();
    let config = LocalConfig { api_key: Some("tml-right".into()), ..LocalConfig::new(dir.path()) };
    let service = LocalService::start(config).await.unwrap();
    let client = Client::new(service.base_url());
    assert_eq!(client.get("healthz").await.0, 200);
    for path in ["sessions/healthz", "training_runs/healthz", "training_runs/healthz/checkpoints"] {
        assert_eq!(client.get(path).await.0, 401, "{path}");
    }
    let (status, _) = client.post("sessions/healthz/finish", json!({})).await;
    assert_eq!(status, 401);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_sentences_about_members() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    for (path, said) in [
        (
            "training_runs?limit=x",
            "limit must be a whole number that is not negative and not too large, not 'x'",
        ),
        (
            "checkpoints?offset=-1",
            "offset must be a whole number that is not negative and not too large, not '-1'",
        ),
        (
            "sessions?limit=1.5",
            "limit must be a whole number that is not negative and not too large, not '1.5'",
        ),
    ] {
        let (status, answer) = client.get(path).await;
        assert_eq!((status, detail(&answer)), (422, said), "{path}");
    }
    for path in ["training_runs/%ff", "training_runs/%ff/checkpoints", "sessions/%ff"] {
        let (status, answer) = client.get(path).await;
        assert_eq!(status, 400, "{path}");
        assert!(detail(&answer).contains("UTF-8"), "{answer}");
    }
    for (method, path) in
        [("FOO", "training_runs"), ("PUT", "create_session"), ("FOO", "healthz"), ("TRACE", "checkpoints")]
    {
        let request = client.http.request(method.parse::<Method>().unwrap(), client.url(path));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 405, "{method} {path}");
        let answer: Value = response.json().await.unwrap();
        assert_eq!(detail(&answer), "Method Not Allowed");
    }
    let optim = json!({"model_id": "m", "seq_id": 1, "adam_params": {"learning_rate": "fast"}});
    for (path, body, said) in [
        ("optim_step", optim, "adam_params.learning_rate must be a number, not 'fast'"),
        ("save_weights", json!({"model_id": "m", "seq_id": 1, "path": 7}), "path must be a string, not 7"),
        ("create_session", json!([[], null, "sdk"]), "the body must be an object, not a list"),
        ("get_info", json!({}), "model_id is missing"),
        ("create_session", json!(5), "the body must be an object, not 5"),
    ] {
        let (status, answer) = client.post(path, body).await;
        assert_eq!((status, detail(&answer)), (422, said), "{path}");
    }
    let (_, answer) = client.post("weights_info", json!({"tinker_path": "tinker://x/y"})).await;
    assert_eq!(detail(&answer).matches("tinker://x/y").count(), 1, "{answer}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_cannot_be_stored_are_the_callers_fault() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let run = client.run(&session, 0).await;
    let checkpoint = format!("tinker://{}/weights/a", run.id);
    for number in [1u64 << 63, u64::MAX] {
        for (path, member, body) in [
            ("create_model", "model_seq_id", json!({"session_id": session, "base_model": MODEL})),
            ("load_weights", "model_seq_id", json!({"session_id": session, "path": checkpoint})),
            ("optim_step", "seq_id", json!({"model_id": run.id})),
            ("save_weights", "seq_id", json!({"model_id": run.id, "path": "a"})),
        ] {
            let mut body = body;
            body[member] = json!(number);
            let (status, answer) = client.post(path, body).await;
            assert_eq!(status, 422, "{path} {number}: {answer}");
            let said = format!("{member} must be at most {}, not {number}", i64::MAX);
            assert_eq!(detail(&answer), said, "{path}");
        }
    }
    // At the top of the range no number is promised that would be refused.
    let top = i64::MAX as u64;
    client.ok("optim_step", run.step_body(top - 1)).await;
    let (_, answer) =
        client.post("save_weights", json!({"model_id": run.id, "seq_id": top - 1, "path": "a"})).await;
    assert!(detail(&answer).ends_with(&format!("the next free number is {top}")), "{answer}");
    client.ok("optim_step", run.step_body(top)).await;
    let (status, answer) =
        client.post("save_weights", json!({"model_id": run.id, "seq_id": top, "path": "a"})).await;
    assert_eq!(status, 409);
    assert!(detail(&answer).ends_with("go on in a new run"), "{answer}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_batch_that_stands_for_a_huge_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let run = client.run(&session, 0).await;
    // 128 MiB each, of one value.
    let wide = json!({
        "data": [1.0], "dtype": "float32", "shape": [1, 1 << 25],
        "sparse_crow_indices": [0, 1], "sparse_col_indices": [7],
    });
    let text = json!({"type": "encoded_text", "tokens": [1]});
    let datum = json!({"model_input": {"chunks": [text]}, "loss_fn_inputs": {"weights": wide}});
    let batch = json!({"data": [datum, datum, datum], "loss_fn": "cross_entropy"});
    let request = json!({"model_id": run.id, "seq_id": 1, "forward_backward_input": batch});
    let result = client.call("forward_backward", request).await;
    let said = result["error"].as_str().unwrap_or_else(|| panic!("{result}"));
    assert!(said.contains("datum 2: with it the batch has more than 256 MiB"), "{said}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_that_would_ruin_the_weights_are_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let mut clean = client.run(&session, 0).await;
    let expected = clean.losses(0..3).await;
    let mut run = client.run(&session, 1).await;
    let mut losses = vec![run.train(0).await];
    for (member, value) in
        [("learning_rate", 1e39), ("learning_rate", 1e38), ("eps", 1e39), ("weight_decay", 1e300)]
    {
        run.forward_backward(batch(1)).await;
        let mut body = run.step_body(run.seq + 1);
        run.seq += 1;
        body["adam_params"][member] = json!(value);
        let failed = client.call("optim_step", body).await;
        assert_eq!(failed["category"], "user", "{member} {value}: {failed}");
        assert!(failed["error"].as_str().unwrap().contains("weights are as before"), "{failed}");
    }
    losses.extend(run.losses(1..3).await);
    assert_eq!(losses, expected);
    run.save("good").await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_without_their_database_prevent_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let mut run = client.run(&client.session().await, 0).await;
    run.train(0).await;
    run.save("a").await;
    service.stop().await;
    let database = dir.path().join("service.sqlite");
    let kept = std::fs::read(&database).unwrap();
    std::fs::write(&database, "").unwrap();
    let error = LocalService::start(LocalConfig::new(dir.path())).await.unwrap_err();
    assert!(matches!(error, StartError::DatabaseGone { checkpoints: 1, missing: false, .. }), "{error}");
    std::fs::remove_file(&database).unwrap();
    let error = LocalService::start(LocalConfig::new(dir.path())).await.unwrap_err();
    assert!(matches!(error, StartError::DatabaseGone { checkpoints: 1, missing: true, .. }), "{error}");
    // The way out.
    std::fs::write(&database, kept).unwrap();
    let service = start(dir.path()).await;
    assert!(!service.is_empty());
    service.stop().await;
}

#[cfg(unix)] // Elsewhere a directory with open files cannot be moved.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_when_the_data_directory_is_gone() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data");
    let service = start(&dir).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let mut run = client.run(&session, 0).await;
    run.train(0).await;
    std::fs::rename(&dir, parent.path().join("moved")).unwrap();
    let path = dir.to_str().unwrap();
    let create =
        json!({"session_id": session, "model_seq_id": 1, "base_model": MODEL, "lora_config": {"rank": 4}});
    for (what, body) in [("create_model", create.clone()), ("create_session", json!({"tags": []}))] {
        let (status, answer) = client.post(what, body).await;
        assert_eq!(status, 503, "{what}: {answer}");
        assert!(detail(&answer).contains(path), "{answer}");
    }
    let failed = run.try_save("a").await;
    let error = failed["error"].as_str().unwrap();
    assert!(error.contains(path) && !error.contains("save again"), "{error}");
    assert_eq!(failed["category"], "server");
    assert!(!dir.exists(), "the service made a new directory of its own accord");
    // Put back, it goes on.
    std::fs::rename(parent.path().join("moved"), &dir).unwrap();
    client.ok("create_model", create).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_the_number_of_a_body_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let mut run = client.run(&session, 0).await;
    for tail in [
        r#""adam_params": {"learning_rate": NaN}}"#,
        r#""adam_params": {"learning_rate": 1e999}}"#,
        r#""adam_params": {"learning_rate": 0.1"#,
    ] {
        for number in ["{}", "{}.0", "\"{}\""] {
            let number = number.replace("{}", &run.next().to_string());
            let body = format!(r#"{{"model_id": "{}", "seq_id": {number}, {tail}"#, run.id);
            let request =
                client.http.post(client.url("optim_step")).header("content-type", "application/json");
            let refused = request.body(body.clone()).send().await.unwrap();
            assert!(refused.status().is_client_error(), "{body}");
            run.optim_step().await;
        }
    }
    service.stop().await;
}
