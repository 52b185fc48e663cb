//! What survives the end of a service, and what is said of what does not.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // A test that fails, panics.

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::process::Process;
use common::{Client, at, batch, eventually, start};
use retinker_local::{LocalConfig, LocalService, StartError};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_the_dirty_are_flagged_the_clean_go_on_and_all_saved_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let service = Process::start(dir.path());
    let client = Client::new(&service.base);
    let session = client.session().await;

    // What uninterrupted runs do.
    let mut reference = client.run(&session, 0).await;
    let mut expected = reference.losses(0..3).await;
    reference.save("r").await;
    expected.extend(reference.losses(3..8).await);
    reference.save("r2").await;

    let mut clean = client.run(&session, 1).await;
    assert_eq!(clean.losses(0..3).await, expected[..3]);
    let clean_path = clean.save("c").await;
    // Changes nothing, so the run stays clean, but takes a number.
    clean.forward(batch(0)).await;

    let mut dirty = client.run(&session, 2).await;
    dirty.losses(0..3).await;
    let dirty_path = dirty.save("d").await;
    dirty.losses(3..5).await;

    let mut never_saved = client.run(&session, 3).await;
    never_saved.train(0).await;
    let untouched = client.run(&session, 4).await;

    // Gradients that wait for a step are not in a checkpoint.
    let mut half_step = client.run(&session, 5).await;
    half_step.forward_backward(batch(0)).await;
    half_step.save("h").await;

    // In mid-training: accepted, and not all carried out.
    let mut busy = client.run(&session, 6).await;
    for _ in 0..50 {
        let (a, b) = (busy.next(), busy.next());
        client.ok("forward_backward", busy.pass_body(a, batch(1))).await;
        client.ok("optim_step", busy.step_body(b)).await;
    }
    service.kill();

    let service = Process::start(dir.path());
    let client = Client::new(&service.base);
    let mut corrupted = Vec::new();
    for run in [&reference, &clean, &dirty, &never_saved, &untouched, &half_step, &busy] {
        let info = at(&client, run).info().await;
        if info["corrupted"] == true {
            let reason = info["corrupted_reason"].as_str().unwrap();
            assert!(reason.contains("service stopped") && reason.contains("unsaved"), "{reason}");
            corrupted.push(run.id.clone());
        } else {
            assert!(info.get("corrupted_reason").is_none(), "{info}");
        }
    }
    assert_eq!(corrupted, [&dirty, &never_saved, &half_step, &busy].map(|run| run.id.clone()));
    let info = at(&client, &dirty).info().await;
    assert_eq!(info["last_checkpoint"]["tinker_path"], dirty_path);
    assert!(info["corrupted_reason"].as_str().unwrap().contains("weights/d"), "{info}");
    assert!(at(&client, &never_saved).info().await["last_checkpoint"].is_null());
    assert_eq!(info["user_metadata"]["name"], "run 2");

    // The clean run's client goes on with the next number, as if nothing had happened.
    let mut clean = at(&client, &clean);
    assert_eq!(clean.losses(3..8).await, expected[3..]);
    let mut untouched = at(&client, &untouched);
    assert_eq!(untouched.losses(0..3).await, expected[..3]);

    // A request that was carried out is not carried out again.
    let saved_again =
        client.call("save_weights", json!({"model_id": clean.id, "seq_id": 7, "path": "c"})).await;
    assert_eq!(saved_again["path"], clean_path);
    client.ok("optim_step", clean.step_body(2)).await;
    let (status, forgotten) = client.result_of(&format!("{}:2", clean.id)).await;
    assert_eq!((status, &forgotten["category"]), (200, &json!("server")), "{forgotten}");
    assert!(forgotten["error"].as_str().unwrap().contains("was carried out"), "{forgotten}");
    let made_again = client.run(&session, 1).await;
    assert_eq!(made_again.id, clean.id);

    // The lost ones say what to do.
    let mut dirty = at(&client, &dirty);
    for result in
        [dirty.forward_backward(batch(0)).await, client.result_of(&format!("{}:100", busy.id)).await.1]
    {
        assert_eq!(result["category"], "server", "{result}");
        assert!(result["error"].as_str().unwrap().contains("corrupted"), "{result}");
    }
    let failed = dirty.optim_step().await;
    assert!(failed["error"].as_str().unwrap().contains(&dirty_path), "{failed}");

    // And can be restored.
    let mut restored = client.run_from(&session, 10, &dirty_path, true).await.unwrap();
    assert_eq!(restored.losses(3..8).await, expected[3..]);
    assert_eq!(at(&client, &dirty).info().await["corrupted"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_any_moment_lose_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<String> = Vec::new();
    let mut sessions: Vec<String> = Vec::new();
    for round in 0..6u64 {
        let service = Process::start(dir.path());
        let client = Client::new(&service.base);
        for path in &acknowledged {
            let (status, info) = client.post("weights_info", json!({"tinker_path": path})).await;
            assert_eq!(status, 200, "{path}: {info}");
        }
        let (_, listed) = client.get("sessions?limit=100").await;
        for session in &sessions {
            assert!(listed["sessions"].as_array().unwrap().contains(&json!(session)));
        }
        let (_, all) = client.get("checkpoints?limit=1000").await;
        for checkpoint in all["checkpoints"].as_array().unwrap() {
            // Nothing half-written is ever listed.
            let (status, info) =
                client.post("weights_info", json!({"tinker_path": checkpoint["tinker_path"]})).await;
            assert_eq!(status, 200, "{checkpoint}: {info}");
        }
        let session = client.session().await;
        sessions.push(session.clone());
        let mut run = client.run(&session, 0).await;
        let killer = {
            let delay = Duration::from_millis(60 + 45 * round);
            tokio::task::spawn_blocking(move || {
                std::thread::sleep(delay);
                service.kill();
            })
        };
        // Saves as fast as it can until the service is gone.
        for i in 0.. {
            let (fb, step, save) = (run.next(), run.next(), run.next());
            let requests = [
                ("forward_backward", run.pass_body(fb, batch(i))),
                ("optim_step", run.step_body(step)),
                ("save_weights", json!({"model_id": run.id, "seq_id": save, "path": format!("{round}-{i}")})),
            ];
            match saved(&client, &requests, &format!("{}:{save}", run.id)).await {
                Some(path) => acknowledged.push(path),
                None => break,
            }
        }
        killer.await.unwrap();
    }
    assert!(!acknowledged.is_empty(), "nothing was ever saved; the kills come too early to test anything");
}

/// The path that a save resolved to, or `None` once the service is gone.
async fn saved(client: &Client, requests: &[(&str, Value)], request_id: &str) -> Option<String> {
    for (path, body) in requests {
        client.http.post(client.url(path)).json(body).send().await.ok()?;
    }
    let ask = client.http.post(client.url("retrieve_future")).json(&json!({"request_id": request_id}));
    let answer: Value = ask.send().await.ok()?.json().await.ok()?;
    answer["path"].as_str().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_no_save_and_a_clean_run_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    assert!(service.is_empty());
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let mut clean = client.run(&session, 0).await;
    clean.losses(0..2).await;
    clean.save("a").await;
    let mut dirty = client.run(&session, 1).await;
    let expected = dirty.losses(0..4).await;
    let mut restored =
        client.run_from(&session, 2, &format!("tinker://{}/weights/a", clean.id), true).await.unwrap();
    service.stop().await;

    let service = start(dir.path()).await;
    assert!(!service.is_empty());
    let client = Client::new(service.base_url());
    assert_eq!(at(&client, &dirty).info().await["corrupted"], true);
    clean.client = client.clone();
    restored.client = client.clone();
    assert_eq!(clean.losses(2..4).await, expected[2..]);
    // A run that was only restored has a starting point of its own, also when its checkpoint is gone.
    assert_eq!(restored.losses(2..4).await, expected[2..]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_request_leaves_a_clean_run_clean() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let mut run = client.run(&session, 0).await;
    let mut bad = batch(0);
    bad[0]["loss_fn_inputs"]["target_tokens"]["data"][0] = json!(70000);
    assert_eq!(run.forward_backward(bad).await["category"], "user");
    service.stop().await;
    let service = start(dir.path()).await;
    run.client = Client::new(service.base_url());
    assert_eq!(run.info().await["corrupted"], false);
    run.train(0).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_outlives_the_checkpoint_that_it_stands_on() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let mut run = client.run(&session, 0).await;
    run.losses(0..2).await;
    let path = run.save("a").await;
    let mut twin = client.run_from(&session, 1, &path, true).await.unwrap();
    let deleted = client.http.delete(client.url(&format!("training_runs/{}/checkpoints/weights/a", run.id)));
    assert_eq!(deleted.send().await.unwrap().status(), 204);
    assert!(run.info().await["last_checkpoint"].is_null());
    assert_eq!(client.post("weights_info", json!({"tinker_path": path})).await.0, 404);
    service.stop().await;

    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    run.client = client.clone();
    twin.client = client.clone();
    let losses = run.losses(2..4).await;
    assert_eq!(twin.losses(2..4).await, losses);
    // Once it stands on something else the files go.
    run.save("a").await;
    let kept = std::fs::read_dir(checkpoint_dir(dir.path(), &run.id)).unwrap().count();
    assert_eq!(kept, 1);
    service.stop().await;
}

/// Where a run's checkpoints lie.
fn checkpoint_dir(data_dir: &Path, run_id: &str) -> PathBuf {
    data_dir.join("checkpoints").join(run_id.replace(':', "%3A")).join("weights")
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_found_and_the_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let mut run = client.run(&session, 0).await;
    run.train(0).await;
    let path = run.save("a").await;
    let file = checkpoint_dir(dir.path(), &run.id).join("a").join("optimizer.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&file, &bytes).unwrap();

    let sentence = format!("checkpoint {path} is damaged: optimizer.safetensors does not match its checksum");
    let (status, answer) = client.post("weights_info", json!({"tinker_path": path})).await;
    assert_eq!(status, 422);
    assert_eq!(answer["detail"], sentence);
    let failure = client.run_from(&session, 1, &path, true).await.err().unwrap();
    assert_eq!(failure["error"], sentence);
    assert_eq!(failure["category"], "server");
    let (_, runs) = client.get("training_runs").await;
    assert_eq!(runs["cursor"]["total_count"], 1, "a failed restore leaves no run: {runs}");
    service.stop().await;

    // The run was clean, but cannot be brought back: it says so and does not start anew in silence.
    let service = start(dir.path()).await;
    run.client = Client::new(service.base_url());
    assert_eq!(run.info().await["corrupted"], false);
    let failed = run.forward_backward(batch(1)).await;
    assert!(failed["error"].as_str().unwrap().contains("optimizer.safetensors"), "{failed}");
    let info = run.info().await;
    assert_eq!(info["corrupted"], true);
    assert!(info["corrupted_reason"].as_str().unwrap().contains("optimizer.safetensors"), "{info}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn saves_replace_only_when_asked_and_expire_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let mut run = client.run(&session, 0).await;
    run.train(0).await;
    let path = run.save("a").await;
    run.train(1).await;
    let refused = run.try_save("a").await;
    assert_eq!(refused["category"], "user");
    assert!(refused["error"].as_str().unwrap().contains(&path), "{refused}");
    let seq = run.next();
    let replaced = client
        .call(
            "save_weights",
            json!({"model_id": run.id, "seq_id": seq, "path": "a", "overwrite": true, "user_metadata": {"n": "2"}}),
        )
        .await;
    assert_eq!(replaced["path"], path);
    let losses = run.losses(2..4).await;
    let mut restored = client.run_from(&session, 1, &path, true).await.unwrap();
    assert_eq!(restored.losses(2..4).await, losses);
    let (_, list) = client.get(&format!("training_runs/{}/checkpoints", run.id)).await;
    assert_eq!(list["checkpoints"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!(list["checkpoints"][0]["user_metadata"], json!({"n": "2"}));
    // Names that differ in case only are two names, on any file system.
    run.save("A").await;

    let ttl = |seconds: Value| {
        let url = client.url(&format!("training_runs/{}/checkpoints/weights/a/ttl", run.id));
        client.http.put(url).json(&json!({"ttl_seconds": seconds})).send()
    };
    assert_eq!(ttl(json!(3600)).await.unwrap().status(), 200);
    let (_, list) = client.get(&format!("training_runs/{}/checkpoints", run.id)).await;
    assert!(list["checkpoints"][1]["expires_at"].is_string(), "{list}");
    assert_eq!(ttl(json!(null)).await.unwrap().status(), 200);
    assert_eq!(ttl(json!(0)).await.unwrap().status(), 422);
    let (_, list) = client.get(&format!("training_runs/{}/checkpoints", run.id)).await;
    assert!(list["checkpoints"][1].get("expires_at").is_none(), "{list}");
    assert_eq!(ttl(json!(1)).await.unwrap().status(), 200);
    eventually("the checkpoint expires", async || {
        (client.post("weights_info", json!({"tinker_path": path})).await.0 == 404).then_some(())
    })
    .await;
    let failure = client.run_from(&session, 2, &path, true).await.err().unwrap();
    assert_eq!(failure["category"], "user");
    eventually("its files are deleted", async || {
        (!checkpoint_dir(dir.path(), &run.id).join("a").exists()).then_some(())
    })
    .await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_falls_silent_takes_its_unsaved_work_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = LocalConfig { session_timeout: Duration::from_secs(2), ..LocalConfig::new(dir.path()) };
    let service = LocalService::start(config).await.unwrap();
    let client = Client::new(service.base_url());
    let (silent, alive) = (client.session().await, client.session().await);
    let mut dirty = client.run(&silent, 0).await;
    dirty.train(0).await;
    let mut clean = client.run(&silent, 1).await;
    clean.train(0).await;
    let path = clean.save("a").await;
    let mut kept = client.run(&alive, 0).await;
    kept.train(0).await;
    eventually("the silent session ends", async || {
        assert_eq!(client.post("session_heartbeat", json!({"session_id": alive})).await.0, 200);
        (dirty.info().await["corrupted"] == true).then_some(())
    })
    .await;
    let reason = dirty.info().await["corrupted_reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("no heartbeat for 2 s"), "{reason}");
    assert_eq!(clean.info().await["corrupted"], false);
    assert_eq!(kept.info().await["corrupted"], false);
    let (status, answer) = client.post("session_heartbeat", json!({"session_id": silent})).await;
    assert_eq!(status, 410);
    assert!(answer["detail"].as_str().unwrap().contains("no heartbeat"), "{answer}");
    let (status, _) = client.post("optim_step", clean.step_body(clean.seq + 1)).await;
    assert_eq!(status, 410);
    // What was saved can be restored elsewhere.
    let mut restored = client.run_from(&alive, 1, &path, true).await.unwrap();
    restored.train(1).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_session_is_over_and_nothing_is_corrupted() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let mut run = client.run(&session, 0).await;
    run.train(0).await;
    for _ in 0..2 {
        let finish = json!({"reason": {"type": "success"}, "detail": null});
        assert_eq!(client.post(&format!("sessions/{session}/finish"), finish).await.0, 200);
    }
    assert_eq!(client.post("session_heartbeat", json!({"session_id": session})).await.0, 410);
    let (status, answer) = client.post("optim_step", run.step_body(3)).await;
    assert_eq!(status, 410);
    assert!(answer["detail"].as_str().unwrap().contains(&session), "{answer}");
    let body = json!({"session_id": session, "model_seq_id": 1, "base_model": common::MODEL});
    assert_eq!(client.post("create_model", body).await.0, 410);
    assert_eq!(run.info().await["corrupted"], false);
    service.stop().await;
    let service = start(dir.path()).await;
    run.client = Client::new(service.base_url());
    assert_eq!(run.info().await["corrupted"], false);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_prevents_a_start_is_said_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let again = LocalService::start(LocalConfig::new(dir.path())).await.unwrap_err();
    assert!(
        matches!(again, StartError::InUse { pid: Some(pid), .. } if pid == std::process::id()),
        "{again}"
    );
    assert!(again.to_string().contains("--data-dir"), "{again}");

    let other = tempfile::tempdir().unwrap();
    let config = LocalConfig { listen: service.address(), ..LocalConfig::new(other.path()) };
    let busy = LocalService::start(config.clone()).await.unwrap_err().to_string();
    assert!(busy.contains(&format!("port {} on 127.0.0.1 is in use", service.address().port())), "{busy}");
    assert!(busy.ends_with("choose another port with --port"), "{busy}");
    let renamed = LocalConfig { port_option: "--service-port", ..config.clone() };
    let busy = LocalService::start(renamed).await.unwrap_err().to_string();
    assert!(busy.ends_with("choose another port with --service-port"), "{busy}");
    service.stop().await;
    // The failed start gave its directory back, and the port is free now.
    LocalService::start(config).await.unwrap().stop().await;

    let open = LocalConfig { listen: "0.0.0.0:0".parse().unwrap(), ..LocalConfig::new(other.path()) };
    assert!(matches!(LocalService::start(open).await.unwrap_err(), StartError::KeyRequired { .. }));

    let file = other.path().join("file");
    std::fs::write(&file, "x").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = LocalService::start(LocalConfig::new(&path)).await.unwrap_err();
        assert!(matches!(error, StartError::DataDir { .. }), "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }

    let newer = tempfile::tempdir().unwrap();
    let database = rusqlite::Connection::open(newer.path().join("service.sqlite")).unwrap();
    database.pragma_update(None, "user_version", 99).unwrap();
    drop(database);
    let error = LocalService::start(LocalConfig::new(newer.path())).await.unwrap_err();
    assert!(matches!(error, StartError::NewerFormat { found: 99, .. }), "{error}");

    let broken = tempfile::tempdir().unwrap();
    std::fs::write(broken.path().join("service.sqlite"), "this is not a database, but it is long enough")
        .unwrap();
    let error = LocalService::start(LocalConfig::new(broken.path())).await.unwrap_err();
    assert!(matches!(error, StartError::Database { .. }), "{error}");
}
