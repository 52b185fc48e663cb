//! What the protocol has no place for: metric series, a run in full, the stream of changes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // A test that fails, panics.

mod common;

use std::time::Duration;

use common::{Client, batch, eventually, start};
use retinker_local::{LocalConfig, LocalService};
use serde_json::{Value, json};

/// Asks under the service's own prefix.
async fn own(client: &Client, path: &str) -> (u16, Value) {
    let url = format!("{}/retinker/local/v1/{path}", client.base);
    let response = client.http.get(url).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn series(client: &Client, run: &str) -> Vec<Value> {
    let (status, answer) = own(client, &format!("runs/{run}/metrics")).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["run_id"], run);
    assert_eq!(answer["next_after"], Value::Null);
    answer["points"].as_array().unwrap().clone()
}

fn steps(points: &[Value]) -> Vec<u64> {
    points.iter().map(|point| point["step"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_becomes_a_point_with_what_its_passes_add_up_to() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let mut run = client.run(&client.session().await, 0).await;
    assert!(series(&client, &run.id).await.is_empty());

    let first = run.forward_backward(batch(0)).await["metrics"]["loss:sum"].as_f64().unwrap();
    run.forward(batch(1)).await;
    let second = run.forward_backward(batch(2)).await["metrics"]["loss:sum"].as_f64().unwrap();
    let norm = run.optim_step().await["metrics"]["unclipped_grad_l2:mean"].clone();
    let third = run.train(3).await;

    // At once, before anything was written.
    let points = series(&client, &run.id).await;
    assert_eq!(steps(&points), [1, 2]);
    let point = &points[0];
    let near = |member: &str, expected: f64| {
        let value = point[member].as_f64().unwrap();
        assert!((value - expected).abs() < 1e-9 * expected, "{member}: {value}, not {expected}");
    };
    near("loss", first + second);
    near("loss_per_token", (first + second) / 94.0);
    near("learning_rate", 0.01);
    assert_eq!((&point["tokens"], &point["seq_id"], &point["grad_norm"]), (&json!(94), &json!(4), &norm));
    assert!(point["time"].as_str().unwrap().ends_with('Z'));
    assert_eq!(points[1]["loss"], third);

    let (_, page) = own(&client, &format!("runs/{}/metrics?limit=1", run.id)).await;
    assert_eq!((steps(page["points"].as_array().unwrap()), &page["next_after"]), (vec![1], &json!(1)));
    let (_, page) = own(&client, &format!("runs/{}/metrics?after=1&limit=1", run.id)).await;
    assert_eq!((steps(page["points"].as_array().unwrap()), &page["next_after"]), (vec![2], &Value::Null));
    for (query, status) in
        [("limit=0", 422), ("limit=x", 422), ("after=-1", 422), ("limit=10001", 422), ("x=y", 200)]
    {
        assert_eq!(own(&client, &format!("runs/{}/metrics?{query}", run.id)).await.0, status, "{query}");
    }
    assert_eq!(own(&client, "runs/nobody/metrics").await.0, 404);
    assert_eq!(own(&client, "runs/nobody").await.0, 404);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_series_lasts_as_long_as_its_steps() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let mut saved = client.run(&session, 0).await;
    saved.losses(0..3).await;
    let path = saved.save("three").await;
    let mut lost = client.run(&session, 1).await;
    lost.losses(0..2).await;
    lost.save("two").await;
    lost.losses(2..5).await;
    let before = series(&client, &saved.id).await;
    service.stop().await;

    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    assert_eq!(series(&client, &saved.id).await, before);
    let points = series(&client, &lost.id).await;
    assert_eq!(steps(&points), [1, 2], "the run lost the others");
    let (_, whole) = own(&client, &format!("runs/{}", lost.id)).await;
    assert!(whole["corruption"]["reason"].as_str().unwrap().contains("the service stopped"), "{whole}");
    assert!(whole["corruption"]["since"].as_str().unwrap().ends_with('Z'), "{whole}");
    assert_eq!((&whole["run"]["corrupted"], &whole["last_step"]), (&json!(true), &points[1]));

    // The same run goes on, and so does one that is made from its checkpoint.
    saved.client = client.clone();
    saved.train(3).await;
    assert_eq!(steps(&series(&client, &saved.id).await), [1, 2, 3, 4]);
    let mut with_optimizer = client.run_from(&session, 2, &path, true).await.unwrap();
    with_optimizer.train(3).await;
    assert_eq!(steps(&series(&client, &with_optimizer.id).await), [4]);
    let mut without = client.run_from(&session, 3, &path, false).await.unwrap();
    without.train(3).await;
    assert_eq!(steps(&series(&client, &without.id).await), [1]);
    let (_, whole) = own(&client, &format!("runs/{}", without.id)).await;
    assert_eq!(whole["origin_path"], path);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trainers_loss_of_memory_takes_the_points_of_lost_steps() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let mut run = client.run(&client.session().await, 0).await;
    run.losses(0..2).await;
    run.save("two").await;
    run.losses(2..4).await;
    assert_eq!(steps(&series(&client, &run.id).await), [1, 2, 3, 4]);
    service.faults().stop_trainer_of(&run.id).await.unwrap();
    assert_eq!(steps(&series(&client, &run.id).await), [1, 2]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_told_in_full() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let mut run = client.run(&session, 0).await;
    let (_, fresh) = own(&client, &format!("runs/{}", run.id)).await;
    assert_eq!(fresh["run"], run.info().await);
    assert_eq!(fresh["session"], json!({"session_id": session, "status": "active", "reason": null}));
    for nothing in ["corruption", "unsaved", "origin_path", "last_step"] {
        assert_eq!(fresh[nothing], Value::Null, "{nothing}");
    }
    assert_eq!(fresh["trainer"]["state"], "unassigned");

    run.train(0).await;
    let (_, busy) = own(&client, &format!("runs/{}", run.id.replace(':', "%3A"))).await;
    assert_eq!(busy["unsaved"]["requests"], 2, "{busy}");
    assert_eq!((&busy["trainer"]["state"], &busy["trainer"]["executed_seq"]), (&json!("idle"), &json!(2)));
    assert_eq!(busy["last_step"], series(&client, &run.id).await[0]);

    client.ok("optim_step", run.step_body(4)).await;
    let waiting = eventually("the trainer waits for 3", async || {
        let (_, whole) = own(&client, &format!("runs/{}", run.id)).await;
        (whole["trainer"]["state"] == "waiting").then_some(whole)
    })
    .await;
    assert_eq!(waiting["trainer"]["awaited_seq"], 3);
    assert_eq!(waiting["trainer"]["waiting_requests"], 1);

    client
        .ok(&format!("sessions/{session}/finish"), json!({"reason": {"type": "success"}, "detail": null}))
        .await;
    let (_, over) = own(&client, &format!("runs/{}", run.id)).await;
    assert_eq!(over["session"]["status"], "ended");
    assert!(over["session"]["reason"].as_str().unwrap().contains("success"));
    service.stop().await;
}

/// A reader of the stream of changes.
struct Reader {
    response: reqwest::Response,
    text: String,
}

/// An event: its id, its name, and what it says.
type Event = (String, String, Value);

impl Reader {
    async fn open(client: &Client, last_event_id: Option<&str>) -> Self {
        let mut request = client.http.get(format!("{}/retinker/local/v1/changes", client.base));
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    /// The next event; `None` at the end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    event.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).map(str::to_owned)
                };
                let told = field("id").map(|id| {
                    (id, field("event").unwrap(), serde_json::from_str(&field("data").unwrap()).unwrap())
                });
                self.text = rest.to_owned();
                match told {
                    Some(told) => return Some(told),
                    None => continue,
                }
            }
            // An event comes within a minute, if only a comment that the stream is alive.
            let piece = tokio::time::timeout(Duration::from_secs(60), self.response.chunk());
            let piece = piece.await.unwrap().ok()??;
            self.text.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }

    /// The next event of this name, and all before it.
    async fn until(&mut self, name: &str) -> (Event, Vec<Event>) {
        let mut before = Vec::new();
        loop {
            let event =
                self.next().await.unwrap_or_else(|| panic!("the stream ended before {name}: {before:?}"));
            if event.1 == name {
                return (event, before);
            }
            before.push(event);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_told_as_they_happen_and_can_be_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let config = LocalConfig { session_timeout: Duration::from_secs(3600), ..LocalConfig::new(dir.path()) };
    let service = LocalService::start(config).await.unwrap();
    let client = Client::new(service.base_url());
    let mut reader = Reader::open(&client, None).await;
    let (start_id, name, _) = reader.next().await.unwrap();
    assert_eq!(name, "reset");

    let session = client.session().await;
    let mut run = client.run(&session, 0).await;
    let (created, _) = reader.until("run_created").await;
    assert_eq!((&created.2["run_id"], &created.2["type"]), (&json!(run.id), &json!("run_created")));
    let losses = run.losses(0..3).await;
    loop {
        let (progress, _) = reader.until("run_progress").await;
        assert_eq!(progress.2["run_id"], run.id);
        if progress.2["executed_seq"] == 6 {
            assert_eq!((&progress.2["step"], &progress.2["loss"]), (&json!(3), &json!(losses[2])));
            break;
        }
    }
    let path = run.save("a").await;
    let (saved, _) = reader.until("checkpoint_saved").await;
    assert_eq!(saved.2["tinker_path"], path);
    let url = client.url(&format!("training_runs/{}/checkpoints/weights/a", run.id));
    client.http.post(format!("{url}/publish")).send().await.unwrap();
    reader.until("checkpoint_changed").await;
    client.http.delete(url).send().await.unwrap();
    let (deleted, _) = reader.until("checkpoint_deleted").await;
    assert_eq!(deleted.2["tinker_path"], path);
    run.train(3).await;
    service.faults().stop_trainer_of(&run.id).await.unwrap();
    let (corrupted, _) = reader.until("run_corrupted").await;
    assert_eq!(corrupted.2["reason"], run.info().await["corrupted_reason"]);
    client.ok(&format!("sessions/{session}/finish"), json!({"reason": {"type": "success"}})).await;
    let (ended, _) = reader.until("session_ended").await;
    assert_eq!(ended.2["session_id"], session);

    // Whoever comes back hears what it missed, in the same words.
    let (again, before) = Reader::open(&client, Some(&saved.0)).await.until("session_ended").await;
    assert_eq!(again, ended);
    assert!(before.contains(&corrupted) && !before.contains(&created));
    let mut from_start = Reader::open(&client, Some(&start_id)).await;
    assert_eq!(from_start.next().await.unwrap(), created);

    // A stop ends the streams at once, and positions mean nothing to the next process.
    let stopped = tokio::spawn(service.stop());
    while reader.next().await.is_some() {}
    while from_start.next().await.is_some() {}
    stopped.await.unwrap();
    let service = start(dir.path()).await;
    let mut reader = Reader::open(&Client::new(service.base_url()), Some(&ended.0)).await;
    let (id, name, _) = reader.next().await.unwrap();
    assert_eq!(name, "reset");
    assert_ne!(id.split('-').next(), ended.0.split('-').next());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_own_prefix_is_guarded_like_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let config = LocalConfig { api_key: Some("tml-right".into()), ..LocalConfig::new(dir.path()) };
    let service = LocalService::start(config).await.unwrap();
    let client = Client::new(service.base_url());
    for path in ["retinker/local/v1/changes", "retinker/local/v1/runs/x", "openapi.json"] {
        let get = || client.http.get(format!("{}/{path}", client.base));
        assert_eq!(get().send().await.unwrap().status(), 401, "{path}");
        let page = get().header("x-api-key", "tml-right").header("origin", "http://evil.example");
        assert_eq!(page.send().await.unwrap().status(), 403, "{path}");
    }
    service.stop().await;
}
