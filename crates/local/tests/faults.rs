//! Failures on purpose.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // A test that fails, panics.

mod common;

use common::{Client, batch, start};
use retinker_local::FaultError;

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
