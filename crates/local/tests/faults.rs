//! Failures on purpose.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // A test that fails, panics.

mod common;

use std::time::{Duration, Instant};

use common::{Client, Run, batch, start};
use reqwest::Method;
use retinker_local::{
    ActiveFaults, Damage, DropWhen, FaultError, LocalConfig, LocalService, OperationRule, Pause,
    RequestFault, RequestRule,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A service that can be made to fail, one run on it, and a client.
async fn faulty(dir: &std::path::Path) -> (LocalService, Client, Run) {
    let config = LocalConfig { faults: true, ..LocalConfig::new(dir) };
    let service = LocalService::start(config).await.unwrap();
    let client = Client::new(service.base_url());
    let run = client.run(&client.session().await, 0).await;
    (service, client, run)
}

/// Calls the fault API.
async fn ask(client: &Client, method: Method, path: &str, body: Value) -> (u16, Value) {
    let url = format!("{}/retinker/local/v1/faults{path}", client.base);
    let response = client.http.request(method, url).json(&body).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

fn fail(status: u16) -> RequestFault {
    RequestFault::Fail { status, retry_after: None, empty_body: false }
}

/// Sends a request by hand; all that comes back.
async fn raw(service: &LocalService, body: &Value) -> (Vec<u8>, std::io::Result<usize>) {
    let mut stream = TcpStream::connect(service.address()).await.unwrap();
    let body = body.to_string();
    let request = format!(
        "POST /api/v1/optim_step HTTP/1.1\r\nHost: {}\r\nX-API-Key: tml-test\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        service.address(),
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes).await;
    (bytes, end)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trainer_that_loses_its_memory_corrupts_what_was_unsaved_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    // Two trainers, which take runs in turn.
    let mut runs = Vec::new();
    for number in 0..6 {
        let mut run = client.run(&session, number).await;
        run.losses(0..2).await;
        runs.push(run);
    }
    for run in &mut runs[2..4] {
        run.save("s").await;
    }
    runs[4].save("s").await;
    runs[4].train(2).await;
    let expected = client.run_from(&session, 9, &format!("tinker://{}/weights/s", runs[2].id), true).await;
    let expected = expected.unwrap().losses(2..4).await;

    let stopped = service.faults().stop_trainer_of(&runs[0].id).await.unwrap();
    assert!(stopped.corrupted.contains(&runs[0].id), "{stopped:?}");
    let mut held = 0;
    for (number, run) in runs.iter_mut().enumerate() {
        let info = run.info().await;
        let lost = stopped.corrupted.contains(&run.id);
        assert_eq!(info["corrupted"], lost, "{number}");
        if lost {
            held += 1;
            assert!(number != 2 && number != 3, "a saved run was corrupted");
            let reason = info["corrupted_reason"].as_str().unwrap();
            assert!(reason.contains("its trainer lost its memory"), "{reason}");
            let requests =
                if number == 4 { "2 unsaved training requests" } else { "4 unsaved training requests" };
            assert!(reason.contains(requests), "{reason}");
            let failed = run.forward_backward(batch(0)).await;
            assert_eq!(failed["category"], "server");
            let error = failed["error"].as_str().unwrap();
            if number == 4 {
                assert!(error.contains("weights/s"), "{error}");
            } else {
                assert!(error.contains("no checkpoint"), "{error}");
            }
        } else {
            // Held by the other trainer, or reloaded from its checkpoint: it goes on where it was.
            let losses = run.losses(if number == 4 { 3..4 } else { 2..4 }).await;
            if number != 4 {
                assert_eq!(losses, expected, "{number}");
            }
        }
    }
    assert!((1..4).contains(&held), "{stopped:?}");
    assert_eq!(
        service.faults().stop_trainer_of("none:train:0").await,
        Err(FaultError::UnknownRun("none:train:0".into()))
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_lost_trainer_fails_and_is_the_services_fault() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let mut run = client.run(&session, 0).await;
    run.train(0).await;
    // Ahead of its turn: it waits for a request that never comes.
    let ahead = run.seq + 2;
    client.ok("forward_backward", run.pass_body(ahead, batch(0))).await;
    service.faults().stop_trainer_of(&run.id).await.unwrap();
    let (_, result) = client.result_of(&format!("{}:{ahead}", run.id)).await;
    assert_eq!(result["category"], "server", "{result}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_fail_as_often_as_asked_and_in_the_way_asked() {
    let dir = tempfile::tempdir().unwrap();
    let (service, client, mut run) = faulty(dir.path()).await;
    let faults = service.faults();
    let slow_down = RequestFault::Fail { status: 429, retry_after: Some(7), empty_body: false };
    faults.add_request_rule(RequestRule::new("optim_step", slow_down).times(2)).unwrap();
    let body = run.step_body(1);
    for _ in 0..2 {
        let response = client.http.post(client.url("optim_step")).json(&body).send().await.unwrap();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "7");
        let answer: Value = response.json().await.unwrap();
        assert!(answer["detail"].as_str().unwrap().contains("on purpose"), "{answer}");
    }
    // Nothing was applied: number 1 is still free, and the third is let through.
    run.optim_step().await;
    let empty = RequestFault::Fail { status: 400, retry_after: None, empty_body: true };
    faults.add_request_rule(RequestRule::new("*", empty)).unwrap();
    let response = client.http.get(client.url("healthz")).send().await.unwrap();
    assert_eq!(response.status(), 400);
    assert_eq!(response.headers()["content-length"], "0");
    let read = RequestRule { method: Some("GET".into()), ..RequestRule::new("training_runs/*", fail(503)) };
    faults.add_request_rule(read).unwrap();
    assert_eq!(client.post("get_info", json!({"model_id": run.id})).await.0, 200);
    assert_eq!(client.get(&format!("training_runs/{}", run.id)).await.0, 503);
    assert_eq!(client.get(&format!("training_runs/{}", run.id)).await.0, 200);
    assert_eq!(faults.active(), ActiveFaults::default());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_request_is_applied_late() {
    let dir = tempfile::tempdir().unwrap();
    let (service, client, mut run) = faulty(dir.path()).await;
    let delay = RequestFault::Delay { milliseconds: 150 };
    service.faults().add_request_rule(RequestRule::new("optim_step", delay)).unwrap();
    let start = Instant::now();
    let stepped = run.optim_step().await;
    assert!(start.elapsed() >= Duration::from_millis(150));
    assert!(stepped.get("error").is_none(), "{stepped}");
    assert_eq!(client.get("healthz").await.0, 200);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_connection_gives_no_byte_and_the_request_is_applied_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let (service, client, mut run) = faulty(dir.path()).await;
    for (when, applied) in [(DropWhen::Before, false), (DropWhen::After, true)] {
        let drop = RequestFault::Drop { when };
        service.faults().add_request_rule(RequestRule::new("optim_step", drop)).unwrap();
        let seq = run.seq + 1;
        let (bytes, end) = raw(&service, &run.step_body(seq)).await;
        assert_eq!(bytes, b"", "{when:?}");
        assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset, "{when:?}");
        let (status, _) =
            client.post("retrieve_future", json!({"request_id": format!("{}:{seq}", run.id)})).await;
        assert_eq!(status, if applied { 200 } else { 410 }, "{when:?}");
        // Sent again it is done once: the same request under the same number.
        let again = run.optim_step().await;
        assert!(again.get("error").is_none(), "{again}");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_fails_when_its_turn_comes_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (service, client, mut run) = faulty(dir.path()).await;
    let mut untouched = client.run(&client.session().await, 0).await;
    let expected = untouched.losses(0..3).await;
    let mut losses = run.losses(0..1).await;
    let faults = service.faults();
    for operation in ["forward_backward", "optim_step", "save_weights"] {
        let rule = OperationRule {
            run_id: Some(run.id.clone()),
            category: "unknown".to_owned().into(),
            message: Some("the roof leaks".into()),
            ..OperationRule::new(operation)
        };
        faults.add_operation_rule(rule).unwrap();
    }
    for failed in [run.forward_backward(batch(9)).await, run.optim_step().await, run.try_save("a").await] {
        assert_eq!(failed, json!({"error": "the roof leaks", "category": "unknown"}));
    }
    losses.extend(run.losses(1..3).await);
    assert_eq!(losses, expected);
    run.save("a").await;
    faults.add_operation_rule(OperationRule::new("create_model")).unwrap();
    faults.add_operation_rule(OperationRule::new("load_weights")).unwrap();
    let session = client.session().await;
    let create = json!({"session_id": session, "model_seq_id": 0, "base_model": common::MODEL});
    assert_eq!(client.call("create_model", create).await["category"], "server");
    let path = format!("tinker://{}/weights/a", run.id);
    let failed = client.run_from(&session, 1, &path, true).await.err().unwrap();
    assert!(failed["error"].as_str().unwrap().contains("load_weights failed on purpose"), "{failed}");
    client.run_from(&session, 2, &path, true).await.unwrap();
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_rests_while_capacity_is_paused_and_clients_are_told_why() {
    let dir = tempfile::tempdir().unwrap();
    let (service, client, mut run) = faulty(dir.path()).await;
    run.save("a").await;
    let faults = service.faults();
    let pause = Pause { reason: Some("maintenance".into()), ..Pause::default() };
    faults.pause(pause.clone()).unwrap();
    let step = client.ok("optim_step", run.step_body(run.seq + 1)).await;
    let load = json!({"session_id": client.session().await, "model_seq_id": 0, "optimizer": true,
                      "path": format!("tinker://{}/weights/a", run.id)});
    let load = client.ok("load_weights", load).await;
    for submitted in [&step, &load] {
        let (status, answer) =
            client.post("retrieve_future", json!({"request_id": submitted["request_id"]})).await;
        assert_eq!(status, 200);
        assert_eq!(
            (&answer["type"], &answer["queue_state"], &answer["queue_state_reason"]),
            (&json!("try_again"), &json!("paused_capacity"), &json!("maintenance"))
        );
    }
    assert_eq!(faults.active().pause, Some(pause));
    // A run can be lost in a pause too, and what waits for it fails at once.
    let other = client.run(&client.session().await, 0).await;
    let waits = client.ok("optim_step", other.step_body(1)).await;
    faults.poison(&other.id, "its machine died").await.unwrap();
    let (_, failed) = client.result_of(waits["request_id"].as_str().unwrap()).await;
    assert_eq!(failed["category"], "server", "{failed}");
    faults.resume();
    for submitted in [&step, &load] {
        let (_, result) = client.result_of(submitted["request_id"].as_str().unwrap()).await;
        assert!(result.get("error").is_none(), "{result}");
    }
    // A pause of a second ends by itself.
    let limit = Pause { queue_state: "paused_rate_limit".to_owned().into(), reason: None, seconds: Some(1) };
    faults.pause(limit).unwrap();
    run.seq += 1;
    let stepped = run.optim_step().await;
    assert!(stepped.get("error").is_none(), "{stepped}");
    assert_eq!(faults.active().pause, None);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_run_fails_what_waits_and_its_checkpoints_are_unharmed() {
    let dir = tempfile::tempdir().unwrap();
    let (service, client, mut run) = faulty(dir.path()).await;
    run.train(0).await;
    let path = run.save("a").await;
    // Ahead of its turn: it waits for a request that never comes.
    let ahead = run.seq + 2;
    client.ok("optim_step", run.step_body(ahead)).await;
    let faults = service.faults();
    faults.poison(&run.id, "a cosmic ray").await.unwrap();
    for answer in [client.result_of(&format!("{}:{ahead}", run.id)).await.1, run.optim_step().await] {
        assert_eq!(answer["category"], "server");
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains("a cosmic ray") && error.contains(&path), "{error}");
    }
    let info = run.info().await;
    assert_eq!((&info["corrupted"], &info["corrupted_reason"]), (&json!(true), &json!("a cosmic ray")));
    let again = faults.poison(&run.id, "x").await.unwrap_err().to_string();
    assert_eq!(again, format!("training run {} is corrupted already: a cosmic ray", run.id));
    client.run_from(&client.session().await, 0, &path, true).await.unwrap().train(1).await;
    service.stop().await;
    // It is on the disk.
    let service = start(dir.path()).await;
    let run = Run { client: Client::new(service.base_url()), ..run };
    assert_eq!(run.info().await["corrupted_reason"], "a cosmic ray");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_expire_and_break_on_purpose() {
    let dir = tempfile::tempdir().unwrap();
    let (service, client, mut run) = faulty(dir.path()).await;
    let (expiring, breaking) = (run.save("a").await, run.save("b").await);
    let faults = service.faults();
    faults.expire(&expiring.parse().unwrap()).await.unwrap();
    let (status, _) = client.post("weights_info", json!({"tinker_path": expiring})).await;
    assert_eq!(status, 404);
    let (_, listed) = client.get(&format!("training_runs/{}/checkpoints", run.id)).await;
    assert_eq!(listed["checkpoints"].as_array().unwrap().len(), 1, "{listed}");
    let gone = faults.expire(&expiring.parse().unwrap()).await.unwrap_err();
    assert_eq!(gone, FaultError::UnknownCheckpoint(expiring.parse().unwrap()));

    let path = breaking.parse().unwrap();
    let wrong =
        faults.damage(&path, Some("../../service.sqlite"), Damage::Flip).await.unwrap_err().to_string();
    assert!(
        wrong.starts_with("file must be one of adapter_config.json, adapter_model.safetensors"),
        "{wrong}"
    );
    let info = async || client.post("weights_info", json!({"tinker_path": breaking})).await;
    assert_eq!(info().await.0, 200);
    for (file, damage) in [(None, Damage::Flip), (Some("optimizer.safetensors"), Damage::Truncate)] {
        let damaged = faults.damage(&path, file, damage).await.unwrap();
        assert_eq!(damaged.file, file.unwrap_or("adapter_model.safetensors"));
        let (status, answer) = info().await;
        assert_eq!(status, 422);
        assert!(answer["detail"].as_str().unwrap().contains(&damaged.file), "{answer}");
        if damage == Damage::Flip {
            // Flipped again it is whole.
            faults.damage(&path, file, damage).await.unwrap();
            assert_eq!(info().await.0, 200);
        }
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fault_api_does_the_same_over_http() {
    let dir = tempfile::tempdir().unwrap();
    let (service, client, mut run) = faulty(dir.path()).await;
    let path = run.save("a").await;
    let rule = json!({"endpoint": "healthz", "times": 2, "fault": {"fail": {"status": 503}}});
    let (status, answer) = ask(&client, Method::POST, "/requests", rule).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(client.get("healthz").await.0, 503);
    let (_, listed) = ask(&client, Method::GET, "", json!({})).await;
    assert_eq!(
        listed,
        json!({"requests": [{"endpoint": "healthz", "times": 1, "fault": {"fail": {"status": 503, "empty_body": false}}}],
               "operations": [], "cold_loads": 0, "noise": 0.0, "pause": null})
    );
    let (_, listed) = ask(&client, Method::POST, "/cold_loads", json!({"times": 2})).await;
    assert_eq!(listed["cold_loads"], 2);
    assert_eq!(ask(&client, Method::POST, "/cold_loads", json!({"times": 0})).await.0, 422);
    assert_eq!(ask(&client, Method::POST, "/noise", json!({"relative": 1e-6})).await.1["noise"], 1e-6);
    assert_eq!(ask(&client, Method::POST, "/noise", json!({"relative": 2})).await.0, 422);
    let rule = json!({"operation": "optim_step", "category": "user"});
    assert_eq!(ask(&client, Method::POST, "/operations", rule).await.0, 200);
    assert_eq!(ask(&client, Method::POST, "/pause", json!({})).await.0, 200);
    assert_eq!(ask(&client, Method::DELETE, "/pause", json!({})).await.1["pause"], json!(null));
    let (_, cleared) = ask(&client, Method::DELETE, "", json!({})).await;
    assert_eq!(
        cleared,
        json!({"requests": [], "operations": [], "cold_loads": 0, "noise": 0.0, "pause": null})
    );
    assert_eq!(client.get("healthz").await.0, 200);

    assert_eq!(
        ask(&client, Method::POST, "/damage", json!({"path": path, "damage": "truncate"})).await.0,
        200
    );
    assert_eq!(ask(&client, Method::POST, "/expire", json!({"path": path})).await.0, 200);
    run.train(0).await;
    let (_, stopped) = ask(&client, Method::POST, "/stop_trainer", json!({"run_id": run.id})).await;
    assert_eq!(stopped, json!({"corrupted": [run.id], "unharmed": []}));
    for (path, body, status, said) in [
        ("/poison", json!({"run_id": run.id}), 409, "is corrupted already"),
        ("/poison", json!({"run_id": "r"}), 404, "training run r does not exist"),
        ("/poison", json!({}), 422, "run_id is missing"),
        ("/poison", json!({"run_id": "r", "why": "x"}), 422, "why is not known here; known: run_id, reason"),
        ("/expire", json!({"path": "a"}), 422, "path: 'a' is not a checkpoint path"),
        ("/expire", json!({"path": path}), 404, "does not exist"),
        ("/pause", json!({"queue_state": "active"}), 422, "paused_rate_limit, not 'active'"),
        ("/pause", json!({"seconds": 0}), 422, "seconds must be at least 1"),
        ("/requests", json!({"endpoint": "*"}), 422, "fault is missing"),
        ("/requests", json!({"endpoint": "*", "times": -1}), 422, "times must be a whole number"),
        (
            "/requests",
            json!({"endpoint": "*", "fault": {"burn": {}}}),
            422,
            "must be one of fail, delay, drop",
        ),
        ("/requests", json!({"endpoint": "*", "fault": {"fail": {"status": 99}}}), 422, "from 400 to 599"),
        (
            "/requests",
            json!({"endpoint": "*", "fault": {"drop": {"when": "now"}}}),
            422,
            "one of before, after, not 'now'",
        ),
        (
            "/operations",
            json!({"operation": "*", "category": "mine"}),
            422,
            "server, user, unknown, not 'mine'",
        ),
        (
            "/damage",
            json!({"path": "a", "damage": "burn"}),
            422,
            "damage must be one of flip, truncate, not 'burn'",
        ),
    ] {
        let (found, answer) = ask(&client, Method::POST, path, body.clone()).await;
        assert_eq!(found, status, "{path} {body}: {answer}");
        assert!(answer["detail"].as_str().unwrap().contains(said), "{path} {body}: {answer}");
    }
    assert_eq!(service.faults().active(), ActiveFaults::default());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_faults_there_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    for (method, path) in
        [(Method::GET, ""), (Method::DELETE, ""), (Method::POST, "/poison"), (Method::PUT, "/x/y")]
    {
        let (status, answer) = ask(&client, method, path, json!({})).await;
        assert_eq!(status, 404, "{path}");
        assert_eq!(answer["detail"], "faults are off: start the service with --faults");
    }
    let rule = RequestRule::new("*", fail(500));
    assert_eq!(service.faults().add_request_rule(rule), Err(FaultError::Off));
    assert_eq!(client.get("healthz").await.0, 200);
    service.stop().await;
}
