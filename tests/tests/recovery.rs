//! Restores on the embedded service: what was saved is what comes back, and what is not is told.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // A test that fails, panics.

use std::sync::Arc;

use retinker::client::{Api, LossFnConfig, SaveOptions, ServiceClient, TrainingClient, TrainingOptions};
use retinker::native::NativeRuntime;
use retinker::recovery::driver::DriverWatch;
use retinker::recovery::drives::Drives;
use retinker::recovery::events::Traced;
use retinker::recovery::evidence::Symptom;
use retinker::recovery::executor::Executor;
use retinker::recovery::journal::{Begun, MemoryStore, Store};
use retinker::recovery::monitor::{Monitor, Parts};
use retinker::recovery::plan::PlanRequest;
use retinker::recovery::planner::{gather, make_plan};
use retinker::recovery::policy::Policy;
use retinker::recovery::probe::{LABEL_PROBE, Probe, Verification, save_state_with_probe};
use retinker::recovery::restore::{RestoreRecord, RestoreState};
use retinker::recovery::verify::{self, OptimizerState};
use retinker::runtime::Runtime;
use retinker::wire::run::Checkpoint;
use retinker::wire::training::AdamParams;
use retinker_tests::schedule;

const TEXT: [i32; 8] = [84, 101, 108, 108, 32, 109, 101, 46];

async fn run(api: &Api) -> TrainingClient {
    let owner = ServiceClient::new(api.clone());
    owner
        .create_lora_training_client(schedule::BASE_MODEL, schedule::lora(), TrainingOptions::default())
        .await
        .unwrap()
}

/// One step of the schedule; its loss.
async fn step(client: &TrainingClient, step: usize) -> f64 {
    let passed = client.forward_backward(schedule::batch(step), "cross_entropy", &LossFnConfig::new());
    let stepped = client.optim_step(AdamParams { learning_rate: 1e-2, ..AdamParams::default() });
    let loss = passed.await.unwrap().metrics["loss:sum"];
    stepped.await.unwrap();
    loss
}

async fn train(client: &TrainingClient, steps: std::ops::Range<usize>) -> Vec<f64> {
    let mut losses = Vec::new();
    for n in steps {
        losses.push(step(client, n).await);
    }
    losses
}

async fn checkpoint(api: &Api, path: &str) -> Checkpoint {
    let run_id = path.strip_prefix("tinker://").unwrap().split('/').next().unwrap();
    let listed = api.run_checkpoints(run_id).await.unwrap().checkpoints;
    listed.into_iter().find(|checkpoint| checkpoint.tinker_path == path).unwrap()
}

async fn restore(api: &Api, run_id: &str) -> RestoreRecord {
    restore_as(api, PlanRequest::new(run_id)).await
}

async fn restore_as(api: &Api, request: PlanRequest) -> RestoreRecord {
    let runtime: Arc<dyn Runtime> = Arc::new(NativeRuntime::current().unwrap());
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::clone(&runtime)));
    let executor = Executor::new(api.clone(), store, Arc::clone(&runtime));
    let facts = gather(api, &request, None, None, runtime.now()).await.unwrap();
    let Begun::New(record) = executor.begin(make_plan(&facts, &request).unwrap()).await.unwrap() else {
        panic!()
    };
    executor.run(&record.id).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_run_is_verified_by_the_probe_that_was_saved_with_its_checkpoint_and_goes_on_as_undisturbed()
 {
    let (_dir, service, api) = retinker_tests::service::embedded().await.unwrap();
    let undisturbed = run(&api).await;
    let expected = train(&undisturbed, 0..6).await;
    let client = run(&api).await;
    assert_eq!(train(&client, 0..3).await, expected[..3]);
    let saved = save_state_with_probe(&client, "a", SaveOptions::default(), &TEXT).await.unwrap();
    let found = Probe::of_checkpoint(&checkpoint(&api, &saved.path).await).unwrap().unwrap();
    assert_eq!(found.tokens(), TEXT);
    train(&client, 3..5).await;
    service.faults().poison(&client.model_id(), "a test").await.unwrap();
    let record = restore(&api, &client.model_id()).await;
    assert_eq!(record.state, RestoreState::Adopted, "{:?}", record.error);
    assert_eq!(record.verification, Some(Verification::Verified { difference: 0.0 }));
    // The probe took a number of the new run: who attaches goes on with the next.
    let attached = TrainingClient::attach(api.clone(), record.attachment.unwrap());
    assert_eq!(train(&attached, 3..6).await, expected[3..], "bit for bit, with the optimizer's state");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_not_what_was_saved_is_not_adopted() {
    let (_dir, service, api) = retinker_tests::service::embedded().await.unwrap();
    let client = run(&api).await;
    train(&client, 0..2).await;
    let probe = Probe::record(&client, &TEXT).await.unwrap();
    // The label says what the weights were before the steps that the checkpoint has.
    train(&client, 2..6).await;
    let options = SaveOptions { user_metadata: Some(probe.label()), ..SaveOptions::default() };
    client.save_state("a", options).await.unwrap();
    service.faults().poison(&client.model_id(), "a test").await.unwrap();
    let record = restore(&api, &client.model_id()).await;
    assert_eq!(record.state, RestoreState::Failed);
    assert!(matches!(record.verification, Some(Verification::Different { .. })), "{:?}", record.verification);
    assert!(record.error.unwrap().contains("is not what was saved"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_probe_nothing_passes_in_silence() {
    let (_dir, service, api) = retinker_tests::service::embedded().await.unwrap();
    let client = run(&api).await;
    train(&client, 0..1).await;
    client.save_state("a", SaveOptions::default()).await.unwrap();
    service.faults().poison(&client.model_id(), "a test").await.unwrap();
    let record = restore(&api, &client.model_id()).await;
    assert_eq!(record.state, RestoreState::Adopted);
    assert!(matches!(record.verification, Some(Verification::NotVerified { .. })));
    assert_eq!(record.attachment.unwrap().next_seq_id, 1);
    service.stop().await;
}

/// As TuFT does after a restart: the same client goes on, from the last checkpoint, and nothing says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_rollback_of_a_live_run_is_found_by_its_driver() {
    let (_dir, service, api) = retinker_tests::service::embedded().await.unwrap();
    let client = run(&api).await;
    train(&client, 0..2).await;
    let old = client.save_state("old", SaveOptions::default()).await.unwrap();
    train(&client, 2..6).await;
    let probe = Probe::record(&client, &TEXT).await.unwrap();
    assert_eq!(probe.check(&client).await.unwrap(), Verification::Verified { difference: 0.0 });
    service.faults().roll_back(&old.path.parse().unwrap()).await.unwrap();
    let found = probe.check(&client).await.unwrap();
    assert!(matches!(found, Verification::Different { .. }), "{found}");
    let listed = api.training_run(&client.model_id()).await.unwrap();
    assert_eq!(listed.corrupted, Some(false), "the service says nothing");
    service.stop().await;
}

/// Nothing but the driver's own word says that the run is lost: it is enough for a monitor.
#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_driver_can_see_is_told_by_it_and_restored_by_a_monitor() {
    let (_dir, service, api) = retinker_tests::service::embedded().await.unwrap();
    let runtime: Arc<dyn Runtime> = Arc::new(NativeRuntime::current().unwrap());
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::clone(&runtime)));
    let executor = Executor::new(api.clone(), Arc::clone(&store), Arc::clone(&runtime));
    let drives = Drives::new(executor, Arc::clone(&runtime));
    let monitor = Monitor::new(Parts {
        api: api.clone(),
        store: Arc::clone(&store),
        runtime: Arc::clone(&runtime),
        drives: drives.clone(),
        policy: Policy { enabled: true, ..Policy::default() },
        sink: Arc::new(Traced),
        service: "service".to_owned(),
        by: "a monitor".to_owned(),
    });
    let client = run(&api).await;
    let mut watch = DriverWatch::new(client.model_id(), Arc::clone(&store), runtime);
    train(&client, 0..2).await;
    let old = client.save_state("old", SaveOptions::default()).await.unwrap();
    train(&client, 2..6).await;
    let probe = Probe::record(&client, &TEXT).await.unwrap();
    let saved = client.save_state("new", SaveOptions::default()).await.unwrap();
    service.faults().roll_back(&old.path.parse().unwrap()).await.unwrap();
    assert_eq!(monitor.round().await.unwrap().lost, 0, "no monitor can see it");
    let verdict = watch.probe(&probe.check(&client).await.unwrap()).await.unwrap().unwrap().clone();
    assert!(verdict.reason.starts_with("A fixed batch gave other results"), "{}", verdict.reason);
    assert_eq!(monitor.round().await.unwrap().begun, 1);
    drives.settled().await;
    let record = store.list().await.unwrap().remove(0);
    assert_eq!(record.state, RestoreState::Adopted, "{:?}", record.error);
    assert_eq!(record.plan.observed, Some(Symptom::RolledBack));
    assert_eq!(record.plan.checkpoint.tinker_path, saved.path);
    let attached = TrainingClient::attach(api.clone(), record.attachment.unwrap());
    assert_eq!(probe.check(&attached).await.unwrap(), Verification::Verified { difference: 0.0 });
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_is_looked_into_on_throw_away_copies() {
    let (_dir, service, api) = retinker_tests::service::embedded().await.unwrap();
    let client = run(&api).await;
    let fresh = save_state_with_probe(&client, "fresh", SaveOptions::default(), &TEXT).await.unwrap();
    train(&client, 0..4).await;
    let trained = save_state_with_probe(&client, "trained", SaveOptions::default(), &TEXT).await.unwrap();
    let weights = Verification::Verified { difference: 0.0 };
    let found = verify::checkpoint(&api, &checkpoint(&api, &trained.path).await).await.unwrap();
    assert_eq!(found.weights, weights);
    assert!(matches!(found.optimizer, OptimizerState::Warm { noise: 0.0, .. }), "{found:?}");
    // Before the first step there is no state that could be lost; a load that drops the state looks the same.
    let found = verify::checkpoint(&api, &checkpoint(&api, &fresh.path).await).await.unwrap();
    assert_eq!(
        (found.weights, found.optimizer),
        (weights, OptimizerState::Cold { difference: 0.0, noise: 0.0 })
    );
    let mut altered = checkpoint(&api, &trained.path).await;
    let label = checkpoint(&api, &fresh.path).await.user_metadata.unwrap()[LABEL_PROBE].clone();
    altered.user_metadata.as_mut().unwrap().insert(LABEL_PROBE.to_owned(), label);
    let found = verify::checkpoint(&api, &altered).await.unwrap();
    assert!(matches!(found.weights, Verification::Different { .. }), "{found:?}");
    assert_eq!(train(&client, 4..5).await.len(), 1, "the run itself is untouched");
    service.stop().await;
}

/// A service that loads the weights alone, whatever it was asked for, and does not say so: the first loss is the same, and
/// only copies tell.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_drops_the_optimizers_state_is_found_out_before_the_new_run_is_adopted() {
    for cold in [false, true] {
        let (_dir, service, api) = retinker_tests::service::faulty().await.unwrap();
        let client = run(&api).await;
        train(&client, 0..4).await;
        let saved = save_state_with_probe(&client, "a", SaveOptions::default(), &TEXT).await.unwrap();
        let expected = train(&client, 4..6).await;
        service.faults().poison(&client.model_id(), "a test").await.unwrap();
        if cold {
            service.faults().add_cold_loads(100).unwrap();
        }
        let request = PlanRequest { check_optimizer: true, ..PlanRequest::new(client.model_id()) };
        let record = restore_as(&api, request).await;
        assert_eq!(record.state, RestoreState::Adopted, "{:?}", record.error);
        assert_eq!(record.plan.checkpoint.tinker_path, saved.path);
        assert_eq!(
            record.verification,
            Some(Verification::Verified { difference: 0.0 }),
            "the weights are right"
        );
        let told = &record.events.last().unwrap().message;
        match record.optimizer_state.unwrap() {
            OptimizerState::Cold { .. } if cold => assert!(told.contains("The optimizer is cold"), "{told}"),
            OptimizerState::Warm { .. } if !cold => assert!(told.contains("state is restored"), "{told}"),
            other => panic!("{cold}: {other:?}"),
        }
        // What it means: the step after the first goes elsewhere.
        let losses = train(&TrainingClient::attach(api.clone(), record.attachment.unwrap()), 4..6).await;
        assert_eq!(losses[0], expected[0]);
        assert_eq!(losses[1] == expected[1], !cold, "{losses:?} {expected:?}");
        let sessions = retinker::recovery::sessions::lasting(&api).await.unwrap().unwrap();
        assert_eq!(sessions.ids.len(), 2, "the driver's and the new run's: that of the copies is finished");
        service.stop().await;
    }
}
