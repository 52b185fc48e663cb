//! Weights to sample from, to download and to copy: saved, listed, handed out, gone.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // A test that fails, panics.

mod common;

use std::collections::BTreeMap;
use std::io::Read;

use common::{Client, Run, start};
use serde_json::{Value, json};

async fn save(run: &mut Run, call: &str, mut body: Value) -> Value {
    body["model_id"] = json!(run.id);
    body["seq_id"] = json!(run.next());
    run.client.call(call, body).await
}

/// What lies behind an address.
async fn fetch(client: &Client, url: &str) -> Vec<u8> {
    let response = client.http.get(url).send().await.unwrap();
    assert_eq!(response.status(), 200, "{url}");
    response.bytes().await.unwrap().to_vec()
}

fn tensor_names(file: &[u8]) -> Vec<String> {
    let tensors = safetensors::SafeTensors::deserialize(file).unwrap();
    let mut names: Vec<String> = tensors.names().into_iter().map(ToString::to_string).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_has_names_of_its_own_and_is_listed_as_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let mut run = client.run(&session, 0).await;
    run.train(0).await;
    let training = run.save("one").await;
    let sampler =
        save(&mut run, "save_weights_for_sampler", json!({"path": "one", "kind": "snapshot"})).await;
    let external = save(&mut run, "save_weights_external", json!({"path": "one", "ttl_seconds": 3600})).await;
    assert_eq!(sampler["path"], format!("tinker://{}/sampler_weights/one", run.id));
    assert_eq!(external["path"], format!("tinker://{}/external_weights/one", run.id));
    let (_, listed) = client.get(&format!("training_runs/{}/checkpoints", run.id)).await;
    let kinds: Vec<(&str, &str)> = listed["checkpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| (c["checkpoint_id"].as_str().unwrap(), c["checkpoint_type"].as_str().unwrap()))
        .collect();
    let expected = [
        ("external_weights/one", "external"),
        ("sampler_weights/one", "sampler"),
        ("weights/one", "training"),
    ];
    assert_eq!(kinds, expected);
    let info = run.info().await;
    assert_eq!(info["last_checkpoint"]["tinker_path"], training);
    assert_eq!(info["last_sampler_checkpoint"]["tinker_path"], sampler["path"]);
    for path in [&json!(training), &sampler["path"], &external["path"]] {
        let info = client.ok("weights_info", json!({ "tinker_path": path })).await;
        assert_eq!(info["base_model"], common::MODEL);
    }
    // Only training checkpoints hold what training needs.
    let (status, refusal) = client
        .post("load_weights", json!({"session_id": session, "model_seq_id": 5, "path": sampler["path"]}))
        .await;
    assert_eq!(status, 400, "{refusal}");
    // The same name again is the caller's mistake, for each kind.
    for call in ["save_weights_for_sampler", "save_weights_external"] {
        let again = save(&mut run, call, json!({"path": "one"})).await;
        assert_eq!(again["category"], "user", "{again}");
    }
    // Each is deleted by its own id.
    let url = client.url(&format!("training_runs/{}/checkpoints/sampler_weights/one", run.id));
    assert_eq!(client.http.delete(url).send().await.unwrap().status(), 204);
    assert_eq!(run.info().await["last_sampler_checkpoint"], Value::Null);
    assert_eq!(run.info().await["last_checkpoint"]["tinker_path"], training);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_for_sampling_do_not_count_as_saved_work() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let mut run = client.run(&session, 0).await;
    run.train(0).await;
    save(&mut run, "save_weights_for_sampler", json!({"path": "s"})).await;
    let made = save(&mut run, "save_weights_for_sampler", json!({"sampling_session_seq_id": 3})).await;
    assert_eq!(made, json!({"path": null, "sampling_session_id": format!("{session}:sample:3")}));
    let lost = service.faults().stop_trainer_of(&run.id).await.unwrap();
    assert_eq!(lost.corrupted, [run.id.clone()]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn samplers_are_made_once_described_and_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let mut run = client.run(&session, 0).await;
    let weights = save(&mut run, "save_weights_for_sampler", json!({"path": "s"})).await["path"].clone();
    let saved_at = run.seq + 1;
    let own = save(&mut run, "save_weights_for_sampler", json!({"sampling_session_seq_id": 0})).await;
    let make = async |client: &Client, number: u64, body: Value| {
        let mut body = body;
        body["session_id"] = json!(session);
        body["sampling_session_seq_id"] = json!(number);
        client.post("create_sampling_session", body).await
    };
    let by_path = json!({"model_path": weights});
    let (status, first) = make(&client, 1, by_path.clone()).await;
    assert_eq!((status, &first["sampling_session_id"]), (200, &json!(format!("{session}:sample:1"))));
    assert_eq!(make(&client, 1, by_path.clone()).await.1, first);
    let (status, _) = make(&client, 1, json!({"base_model": common::MODEL})).await;
    assert_eq!(status, 400, "another sampler under the same number");
    assert_eq!(make(&client, 2, json!({"base_model": common::MODEL})).await.0, 200);
    assert_eq!(make(&client, 4, json!({"base_model": "no/such"})).await.0, 400);
    assert_eq!(make(&client, 4, json!({})).await.0, 400);
    let absent = format!("tinker://{}/sampler_weights/absent", run.id);
    assert_eq!(make(&client, 4, json!({ "model_path": absent })).await.0, 404);
    let joined =
        client.ok("join_sampling_session", json!({"sampling_session_id": format!("{session}:sample:1")}));
    assert_eq!(joined.await["client_counter"], 1);
    service.stop().await;

    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    // Some clients escape the colons of an id, others do not.
    for id in [format!("{session}:sample:1"), format!("{session}%3Asample%3A1")] {
        let (_, sampler) = client.get(&format!("samplers/{id}")).await;
        let expected = json!({"sampler_id": format!("{session}:sample:1"), "base_model": common::MODEL,
                              "model_path": weights});
        assert_eq!(sampler, expected);
    }
    let joined =
        client.ok("join_sampling_session", json!({"sampling_session_id": format!("{session}:sample:1")}));
    assert_eq!(joined.await["client_counter"], 2);
    let (_, listed) = client.get(&format!("sessions/{session}")).await;
    assert_eq!(listed["sampler_ids"].as_array().unwrap().len(), 3, "{listed}");
    // A result that was not read before the restart is still known.
    assert_eq!(client.result_of(&format!("{}:{saved_at}", run.id)).await, (200, own));
    assert_eq!(client.get("samplers/nobody").await.0, 404);

    let copies = dir.path().join("checkpoints");
    let count =
        |copies: &std::path::Path| walk(copies).into_iter().filter(|path| path.contains("/session/")).count();
    assert!(count(&copies) > 0);
    client.ok(&format!("sessions/{session}/finish"), json!({"reason": {"type": "success"}})).await;
    assert_eq!(count(&copies), 0, "what a sampler alone used goes with its session");
    service.stop().await;
}

/// All files below a directory.
fn walk(directory: &std::path::Path) -> Vec<String> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(walk(&path));
        } else {
            files.push(path.to_string_lossy().into_owned());
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_checkpoint_is_downloaded_file_by_file() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let mut run = client.run(&session, 0).await;
    run.train(0).await;
    save(&mut run, "save_weights_external", json!({"path": "out"})).await;
    let checkpoints = format!("training_runs/{}/checkpoints", run.id);
    let (status, answer) =
        client.get(&format!("{checkpoints}/external_weights/out/external_weights_urls")).await;
    assert_eq!(status, 200, "{answer}");
    let urls: BTreeMap<String, String> = serde_json::from_value(answer["urls"].clone()).unwrap();
    let names: Vec<&str> = urls.keys().map(String::as_str).collect();
    assert_eq!(names, ["adapter_config.json", "adapter_model.safetensors", "checkpoint_complete"]);
    let config: Value = serde_json::from_slice(&fetch(&client, &urls["adapter_config.json"]).await).unwrap();
    assert_eq!(config["r"], 4);
    let weights = fetch(&client, &urls["adapter_model.safetensors"]).await;
    assert!(tensor_names(&weights).iter().all(|name| name.contains(".lora_")));
    assert_eq!(fetch(&client, &urls["checkpoint_complete"]).await, b"");
    // Addresses are secrets: a guessed one has nothing, and there is no way up.
    let guessed = urls["checkpoint_complete"].replace("/checkpoint_complete", "/..%2f..%2fmanifest.json");
    assert_eq!(client.http.get(guessed).send().await.unwrap().status(), 404);
    let manifest = urls["checkpoint_complete"].replace("/checkpoint_complete", "/manifest.json");
    assert_eq!(client.http.get(manifest).send().await.unwrap().status(), 404);

    let recipients = json!({"path": "secret", "age_encryption_recipients": ["age1"]});
    let refused = save(&mut run, "save_weights_external", recipients).await;
    assert_eq!(refused["category"], "user", "{refused}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn older_clients_get_an_archive_by_redirection() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let mut run = client.run(&session, 0).await;
    run.train(0).await;
    run.save("t").await;
    save(&mut run, "save_weights_for_sampler", json!({"path": "s"})).await;
    for (id, file) in [("sampler_weights/s", "checkpoint_complete"), ("weights%2Ft", "optimizer.safetensors")]
    {
        let url = client.url(&format!("training_runs/{}/checkpoints/{id}/archive", run.id));
        let plain = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let answer = plain.get(&url).header("x-api-key", "tml-test").send().await.unwrap();
        assert_eq!(answer.status(), 302, "{url}");
        assert!(answer.headers()["expires"].to_str().unwrap().ends_with("GMT"));
        let location = answer.headers()["location"].to_str().unwrap().to_owned();
        let bytes = fetch(&client, &location).await;
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut files = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_string_lossy().into_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.insert(name, content);
        }
        assert!(files.contains_key(file) && files.contains_key("adapter_config.json"), "{:?}", files.keys());
        assert!(!tensor_names(&files["adapter_model.safetensors"]).is_empty());
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_made_once_and_outlives_its_source() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let mut run = client.run(&session, 0).await;
    run.train(0).await;
    let source = run.save("step").await;
    let expected = run.losses(1..4).await;
    let copy = async |key: &str, body: Value| {
        let request =
            client.http.post(client.url("copy_weights")).header("x-idempotency-key", key).json(&body);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let to_project = json!({"source_path": source, "destination_project_id": "archive"});
    let (status, first) = copy("k1", to_project.clone()).await;
    assert_eq!(status, 200, "{first}");
    assert_eq!(copy("k1", to_project.clone()).await.1, first, "the same key is the same copy");
    assert_ne!(copy("k2", to_project.clone()).await.1, first);
    let to_session = json!({"source_path": source, "session_id": session, "model_seq_id": 8});
    let (_, second) = copy("k3", to_session.clone()).await;
    assert_eq!(second["tinker_path"], format!("tinker://{session}:train:8/weights/step"));
    assert_eq!(copy("k4", to_session).await.1, second, "the same place is the same copy");
    assert_eq!(copy("k5", json!({"source_path": source})).await.0, 422);
    // It only holds the checkpoint.
    let mut held = Run { client: client.clone(), id: format!("{session}:train:8"), seq: 0 };
    let refused = held.optim_step().await;
    assert_eq!(refused["category"], "user", "{refused}");

    let url = client.url(&format!("training_runs/{}/checkpoints/weights/step", run.id));
    assert_eq!(client.http.delete(url).send().await.unwrap().status(), 204);
    let path = first["tinker_path"].as_str().unwrap();
    let mut restored = client.run_from(&session, 9, path, true).await.unwrap();
    assert_eq!(restored.losses(1..4).await, expected);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unloaded_run_is_over_and_its_checkpoints_stay() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let mut run = client.run(&session, 0).await;
    run.train(0).await;
    let path = run.save("kept").await;
    run.train(1).await;
    let unloaded = client.call("unload_model", json!({"model_id": run.id})).await;
    assert_eq!(unloaded["model_id"], run.id);
    assert_eq!(client.call("unload_model", json!({"model_id": run.id})).await, unloaded);
    let refused = run.optim_step().await;
    assert_eq!(refused["category"], "user", "{refused}");
    service.stop().await;

    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    run.client = client.clone();
    assert_eq!(run.info().await["corrupted"], false, "what its client let go is not lost");
    assert_eq!(run.optim_step().await["category"], "user");
    client.run_from(&session, 1, &path, true).await.unwrap();
    assert_eq!(client.post("unload_model", json!({"model_id": "nobody:train:0"})).await.0, 404);
    service.stop().await;
}
