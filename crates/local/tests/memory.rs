//! Runs that do not fit into memory.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // A test that fails, panics.

mod common;

use std::path::{Path, PathBuf};

use common::process::Process;
use common::{Client, Run, at, batch, eventually, start};
use retinker_local::{LocalConfig, LocalService};
use serde_json::json;

/// A service with one trainer and room for so many bytes.
async fn limited(data_dir: &Path, memory_limit: u64) -> LocalService {
    let config = LocalConfig { trainers: 1, memory_limit, ..LocalConfig::new(data_dir) };
    LocalService::start(config).await.unwrap()
}

/// What is put aside.
fn aside(data_dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(data_dir.join("aside")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// So many new runs, each trained once.
async fn trained(client: &Client, session: &str, count: u64) -> Vec<Run> {
    let mut runs = Vec::new();
    for number in 0..count {
        let mut run = client.run(session, number).await;
        run.train(number as usize).await;
        runs.push(run);
    }
    runs
}

/// How many bytes a run of [`Client::run`] takes in memory.
async fn state_bytes() -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let service = limited(dir.path(), 0).await;
    let client = Client::new(service.base_url());
    trained(&client, &client.session().await, 2).await;
    let [file] = aside(dir.path()).try_into().unwrap();
    let bytes = file.metadata().unwrap().len();
    service.stop().await;
    // Weights and two moments of four bytes each, after ten of other kinds; in memory there are the gradients, too.
    (bytes - 10) / 12 * 16
}

/// Trains 12 runs in turn, one request each; some are saved on the way. Their losses.
async fn in_turn(client: &Client, session: &str, mut check: impl FnMut()) -> (Vec<Run>, Vec<f64>) {
    let (mut runs, mut losses) = (Vec::new(), Vec::new());
    for number in 0..12 {
        runs.push(client.run(session, number).await);
    }
    for step in 0..4 {
        for (number, run) in runs.iter_mut().enumerate() {
            let output = run.forward_backward(batch(step + number)).await;
            losses.push(output["metrics"]["loss:sum"].as_f64().unwrap_or_else(|| panic!("{output}")));
        }
        check();
        for (number, run) in runs.iter_mut().enumerate() {
            assert!(run.optim_step().await["metrics"].is_object());
            if step == 1 && number < 6 {
                run.save("s").await;
            }
        }
    }
    (runs, losses)
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_beyond_the_limit_train_as_if_there_were_none() {
    let unlimited = tempfile::tempdir().unwrap();
    let service = start(unlimited.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let (_, expected) = in_turn(&client, &session, || ()).await;
    assert!(aside(unlimited.path()).is_empty());
    service.stop().await;

    let dir = tempfile::tempdir().unwrap();
    let service = limited(dir.path(), 2 * state_bytes().await).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    // All have gradients that wait for a step, so what is not in memory is in a file.
    let (mut runs, losses) = in_turn(&client, &session, || assert_eq!(aside(dir.path()).len(), 10)).await;
    assert_eq!(losses, expected);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir.path().join("aside")), 0o700);
        assert!(aside(dir.path()).iter().all(|file| mode(file) == 0o600));
    }
    // What is saved needs no file: it is read from its checkpoint.
    for run in &mut runs {
        run.save("t").await;
    }
    assert!(aside(dir.path()).is_empty());
    let mut twin =
        client.run_from(&session, 20, &format!("tinker://{}/weights/t", runs[0].id), true).await.unwrap();
    assert_eq!(twin.losses(4..6).await, runs[0].losses(4..6).await);

    // The end of a session takes what was aside with it.
    runs[1].train(5).await;
    runs[2].train(5).await;
    assert!(!aside(dir.path()).is_empty());
    client.ok(&format!("sessions/{session}/finish"), json!({"reason": {"type": "success"}})).await;
    eventually("the files go", async || aside(dir.path()).is_empty().then_some(())).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_aside_is_lost_with_the_process_and_what_was_saved_is_not() {
    let dir = tempfile::tempdir().unwrap();
    // No room at all: each of the two trainers holds the run that it works on.
    let arguments = ["0", "0"];
    let service = Process::start_with(dir.path(), &arguments);
    let client = Client::new(&service.base);
    let session = client.session().await;
    let mut runs = trained(&client, &session, 8).await;
    for run in &mut runs[..4] {
        run.save("s").await;
    }
    assert!(aside(dir.path()).len() >= 2);
    service.kill();

    assert!(!aside(dir.path()).is_empty());
    let service = Process::start_with(dir.path(), &arguments);
    assert!(aside(dir.path()).is_empty());
    let client = Client::new(&service.base);
    for (number, run) in runs.iter().enumerate() {
        let mut run = at(&client, run);
        let info = run.info().await;
        assert_eq!(info["corrupted"], number >= 4, "{info}");
        if number >= 4 {
            assert!(info["corrupted_reason"].as_str().unwrap().contains("service stopped"), "{info}");
        } else {
            run.train(1).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trainer_that_loses_its_memory_loses_what_it_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    let service = limited(dir.path(), 0).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let mut runs = trained(&client, &session, 3).await;
    runs[1].save("s").await;
    assert_eq!(aside(dir.path()).len(), 2);
    let stopped = service.faults().stop_trainer_of(&runs[0].id).await.unwrap();
    assert_eq!(stopped.corrupted, [&runs[0], &runs[2]].map(|run| run.id.clone()));
    assert_eq!(stopped.unharmed, [runs[1].id.clone()]);
    assert!(aside(dir.path()).is_empty());
    assert_eq!(runs[0].forward_backward(batch(0)).await["category"], "server");
    runs[1].train(1).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_cannot_be_put_aside_stays_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    // Nothing can be written below a file.
    std::fs::write(dir.path().join("aside"), "").unwrap();
    let service = limited(dir.path(), 0).await;
    std::fs::write(dir.path().join("aside"), "").unwrap();
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let mut alone = client.run(&session, 9).await;
    let expected = alone.losses(0..3).await;
    let (mut a, mut b) = (client.run(&session, 0).await, client.run(&session, 1).await);
    let mut losses = (Vec::new(), Vec::new());
    for step in 0..3 {
        losses.0.push(a.train(step).await);
        losses.1.push(b.train(step).await);
    }
    assert_eq!(losses, (expected.clone(), expected));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_cannot_be_taken_back_is_corrupted_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let service = limited(dir.path(), 0).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let mut runs = trained(&client, &session, 4).await;
    let file_of = |run: &Run| dir.path().join("aside").join(run.id.replace(':', "%3A"));
    let mut bytes = std::fs::read(file_of(&runs[0])).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(file_of(&runs[0]), &bytes).unwrap();
    std::fs::remove_file(file_of(&runs[1])).unwrap();
    std::fs::write(file_of(&runs[2]), &bytes[..middle]).unwrap();
    for (run, said) in [(0, "does not match its checksum"), (1, "No such file"), (2, "fill whole buffer")] {
        let run = &mut runs[run];
        // Ahead of its turn: it must not be left waiting for a run that is no more.
        let ahead = run.seq + 2;
        client.ok("optim_step", run.step_body(ahead)).await;
        let failed = run.forward_backward(batch(0)).await;
        assert_eq!(failed["category"], "server", "{failed}");
        let (_, after) = client.result_of(&format!("{}:{ahead}", run.id)).await;
        assert_eq!(after["category"], "server", "{after}");
        let info = run.info().await;
        assert_eq!(info["corrupted"], true);
        let reason = info["corrupted_reason"].as_str().unwrap();
        assert!(reason.starts_with("its unsaved work was put aside on the disk"), "{reason}");
        assert!(reason.contains(said), "{reason}");
    }
    runs[3].train(1).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_turns_requests_away_but_for_those_that_others_wait_for() {
    let dir = tempfile::tempdir().unwrap();
    let config = LocalConfig { queue_limit: 20_000, ..LocalConfig::new(dir.path()) };
    let service = LocalService::start(config).await.unwrap();
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let mut alone = client.run(&session, 0).await;
    let expected = alone.losses(0..4).await;
    let (run, mut other) = (client.run(&session, 1).await, client.run(&session, 2).await);

    // Nothing is carried out while the first is missing.
    let send = |seq: u64| {
        let step = (seq as usize - 1) / 2;
        let (path, body) = match seq % 2 {
            1 => ("forward_backward", run.pass_body(seq, batch(step))),
            _ => ("optim_step", run.step_body(seq)),
        };
        client.http.post(client.url(path)).json(&body).send()
    };
    let mut last = 1;
    let refused = loop {
        let response = send(last + 1).await.unwrap();
        if response.status() == 429 {
            break response;
        }
        assert_eq!(response.status(), 200);
        last += 1;
        assert!(last < 100, "nothing is ever full");
    };
    assert!(last > 5);
    assert_eq!(refused.headers()["retry-after"], "1");
    let refused: serde_json::Value = refused.json().await.unwrap();
    let detail = refused["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("the service is full: ") && detail.contains("then send this one again"),
        "{detail}"
    );
    // Full for all; what was taken in already is still known.
    let other_pass = other.pass_body(1, batch(0));
    assert_eq!(client.post("forward_backward", other_pass).await.0, 429);
    assert_eq!(send(2).await.unwrap().status(), 200);

    // The one that all wait for is let in, and with it the rest goes through.
    assert_eq!(send(1).await.unwrap().status(), 200);
    for seq in 1..=8 {
        while send(seq).await.unwrap().status() == 429 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let (_, result) = client.result_of(&format!("{}:{seq}", run.id)).await;
        if seq % 2 == 1 {
            let loss = result["metrics"]["loss:sum"].as_f64();
            assert_eq!(loss, Some(expected[(seq as usize - 1) / 2]), "{result}");
        }
    }
    assert_eq!(other.train(0).await, expected[0]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_alone_is_read_however_far_it_unpacks() {
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    let dir = tempfile::tempdir().unwrap();
    let config = LocalConfig { queue_limit: 20_000, ..LocalConfig::new(dir.path()) };
    let service = LocalService::start(config).await.unwrap();
    let client = Client::new(service.base_url());
    let body = format!(r#"{{"tags": [], "sdk_version": "x"{}}}"#, " ".repeat(3 << 20));
    let packed = compress_to_vec(body.as_bytes(), CompressionLevel::Fastest);
    let response = client
        .http
        .post(client.url("create_session"))
        .header("content-type", "application/json")
        .header("content-encoding", "zstd")
        .body(packed)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    service.stop().await;
}
