//! What can go wrong around a restore, and what comes of it: always one adopted successor, or none and a reason.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // A test that fails, panics.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, join};
use futures_util::stream;
use retinker::client::{
    Api, ApiConfig, LossFnConfig, SaveOptions, Secret, ServiceClient, TrainingClient, TrainingOptions,
};
use retinker::native::{NativeRuntime, NativeTransport};
use retinker::recovery::drives::Drives;
use retinker::recovery::events::{EventKind, EventSink, RecoveryEvent, of_progress};
use retinker::recovery::executor::{Executor, RestoreError};
use retinker::recovery::journal::{Begun, MemoryStore, Store};
use retinker::recovery::monitor::{Monitor, Parts};
use retinker::recovery::plan::{PlanRequest, RestorePlan};
use retinker::recovery::planner::{gather, make_plan};
use retinker::recovery::policy::Policy;
use retinker::recovery::restore::{RestoreRecord, RestoreState};
use retinker::runtime::Runtime;
use retinker::transport::{Request, Response, Transport, TransportError, TransportErrorKind};
use retinker::wire::path::TinkerPath;
use retinker::wire::time::Time;
use retinker_local::LocalService;
use retinker_store::{Location, SqliteStore};
use retinker_tests::schedule;
use tokio::process::Command;

async fn service() -> (tempfile::TempDir, LocalService, Api) {
    retinker_tests::service::faulty().await.unwrap()
}

fn runtime() -> Arc<dyn Runtime> {
    Arc::new(NativeRuntime::current().unwrap())
}

fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new(runtime()))
}

/// A run with these checkpoints, oldest first, and unsaved work.
async fn trained(api: &Api, names: &[&str]) -> (TrainingClient, Vec<TinkerPath>) {
    let owner = ServiceClient::new(api.clone());
    let made = TrainingOptions::default();
    let client =
        owner.create_lora_training_client(schedule::BASE_MODEL, schedule::lora(), made).await.unwrap();
    let mut paths = Vec::new();
    for name in names {
        let saved = client.save_state(name, SaveOptions::default()).await.unwrap();
        paths.push(saved.path.parse().unwrap());
        let pass = client.forward_backward(schedule::batch(0), "cross_entropy", &LossFnConfig::new());
        pass.await.unwrap();
    }
    (client, paths)
}

async fn poisoned(service: &LocalService, api: &Api, names: &[&str]) -> (String, Vec<TinkerPath>) {
    let (client, paths) = trained(api, names).await;
    service.faults().poison(&client.model_id(), "a backend failed").await.unwrap();
    (client.model_id(), paths)
}

async fn plan(api: &Api, run_id: &str, now: Time) -> RestorePlan {
    let request = PlanRequest::new(run_id);
    make_plan(&gather(api, &request, None, None, now).await.unwrap(), &request).unwrap()
}

async fn restore(executor: &Executor, plan: RestorePlan) -> Result<RestoreRecord, RestoreError> {
    let (Begun::New(record) | Begun::Existing(record)) = executor.begin(plan).await?;
    executor.run(&record.id).await
}

/// How many runs there are in all.
async fn runs(api: &Api) -> u64 {
    api.training_runs(1, 0).await.unwrap().cursor.total_count
}

/// A clock that is wrong by so much.
#[derive(Debug)]
struct Skewed(Arc<dyn Runtime>, i64);

impl Runtime for Skewed {
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.0.sleep(duration)
    }
    fn now(&self) -> Time {
        Time::from_millis(self.0.now().as_millis() + self.1)
    }
    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
    fn random(&self) -> u64 {
        self.0.random()
    }
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.0.spawn(task);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_whose_clocks_differ_by_twenty_minutes_restore_once() {
    const TEN_MINUTES: i64 = 600_000;
    let (_dir, service, api) = service().await;
    let (run_id, _) = poisoned(&service, &api, &["a"]).await;
    let home = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(home.path()).unwrap());
    let executor = |skew| {
        let runtime: Arc<dyn Runtime> = Arc::new(Skewed(runtime(), skew));
        (Executor::new(api.clone(), Arc::clone(&store), Arc::clone(&runtime)), runtime.now())
    };
    let ((late, late_now), (early, early_now)) = (executor(-TEN_MINUTES), executor(TEN_MINUTES));
    let (a, b) = join(
        restore(&late, plan(&api, &run_id, late_now).await),
        restore(&early, plan(&api, &run_id, early_now).await),
    )
    .await;
    // One drives it; to the other it is told, or it finds it done.
    assert!([a, b].into_iter().any(|outcome| outcome.is_ok_and(|r| r.state == RestoreState::Adopted)));
    let records = store.list().await.unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!(runs(&api).await, 2);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_expires_between_plan_and_load_is_told_and_the_one_before_is_taken() {
    let (_dir, service, api) = service().await;
    let (run_id, paths) = poisoned(&service, &api, &["a", "b"]).await;
    let executor = Executor::new(api.clone(), memory(), runtime());
    let shown = plan(&api, &run_id, runtime().now()).await;
    assert_eq!(shown.checkpoint.tinker_path, paths[1].to_string());
    service.faults().expire(&paths[1]).await.unwrap();
    let refused = restore(&executor, shown.clone()).await.unwrap_err().to_string();
    assert!(refused.starts_with("the plan no longer holds: checkpoint"), "{refused}");
    // It expires after the restore has begun: the load fails, with the reason, and the run can be planned for again.
    let (other, paths) = poisoned(&service, &api, &["a", "b"]).await;
    let Begun::New(record) = executor.begin(plan(&api, &other, runtime().now()).await).await.unwrap() else {
        panic!()
    };
    service.faults().expire(&paths[1]).await.unwrap();
    let failed = executor.run(&record.id).await.unwrap();
    assert_eq!(failed.state, RestoreState::Failed);
    assert!(failed.error.unwrap().contains("could not be loaded"), "the reason is told");
    let again = plan(&api, &other, runtime().now()).await;
    assert_eq!(again.checkpoint.tinker_path, paths[0].to_string());
    assert_eq!(restore(&executor, again).await.unwrap().state, RestoreState::Adopted);
    service.stop().await;
}

/// Passes requests on, and spoils the first answers to loads after the service has done what was asked.
#[derive(Debug)]
struct Spoiling {
    transport: NativeTransport,
    left: Arc<AtomicU32>,
    /// The status that is answered instead; `None` = no answer.
    status: Option<u16>,
}

impl Transport for Spoiling {
    fn send(&self, request: Request) -> BoxFuture<'static, Result<Response, TransportError>> {
        let is_load = request.url.ends_with("/api/v1/load_weights");
        let (answer, status, left) = (self.transport.send(request), self.status, Arc::clone(&self.left));
        Box::pin(async move {
            let answer = answer.await;
            let spoil = is_load
                && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
            match status {
                _ if !spoil => answer,
                Some(status) => {
                    let body = stream::iter([Ok(r#"{"detail":"internal error"}"#.into())]);
                    Ok(Response { status, headers: Vec::new(), body: Box::pin(body) })
                }
                None => Err(TransportError::new(TransportErrorKind::Request, "the connection broke off")),
            }
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_was_done_and_answered_wrongly_or_not_at_all_makes_one_run() {
    for status in [Some(500), None] {
        let (_dir, service, api) = service().await;
        let (run_id, _) = poisoned(&service, &api, &["a"]).await;
        let left = Arc::new(AtomicU32::new(2));
        let transport =
            Spoiling { transport: NativeTransport::new().unwrap(), left: Arc::clone(&left), status };
        let config = ApiConfig {
            base_url: service.base_url(),
            api_key: Some(Secret::new("tml-test")),
            ..ApiConfig::default()
        };
        let spoilt = Api::new(config, Arc::new(transport), runtime()).unwrap();
        let executor = Executor::new(spoilt, memory(), runtime());
        let record = restore(&executor, plan(&api, &run_id, runtime().now()).await).await.unwrap();
        assert_eq!(record.state, RestoreState::Adopted, "{status:?}: {:?}", record.error);
        assert_eq!(left.load(Ordering::SeqCst), 0, "{status:?}: both answers were spoilt");
        assert_eq!(runs(&api).await, 2, "{status:?}: the old run and one new");
        service.stop().await;
    }
}

/// The journal's disk is full from some write on: the process is allowed files of this many blocks of 512 bytes.
async fn with_full_disk(api: &Api, journal: &Path, run_id: &str, blocks: u32) -> (bool, String) {
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
    let output = Command::new("sh")
        .args(["-c", &script, "sh", env!("CARGO_BIN_EXE_mortal"), api.base_url()])
        .arg(journal)
        .args([run_id, "99", "after"])
        .stdout(Stdio::null())
        .output()
        .await
        .unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_the_journal_adopts_nothing_that_is_not_written() {
    let (_dir, service, api) = service().await;
    let mut stopped = 0;
    // From a size where not even the first page can be written to one where everything can.
    for blocks in [4, 40, 80, 120, 160, 200, 240, 400] {
        let (run_id, _) = poisoned(&service, &api, &["a"]).await;
        let home = tempfile::tempdir().unwrap();
        let (done, said) = with_full_disk(&api, home.path(), &run_id, blocks).await;
        if !done {
            stopped += 1;
            assert!(said.contains("journal"), "{blocks}: {said}");
        }
        // With room again, whoever comes goes on with what is written, and the run has one successor.
        let store = retinker_store::open(&Location::from(OsString::from(home.path()))).await.unwrap();
        store.bind(api.base_url()).await.unwrap();
        let executor = Executor::new(api.clone(), Arc::clone(&store), runtime());
        if store.by_old_run(&run_id).await.unwrap().is_empty() {
            restore(&executor, plan(&api, &run_id, runtime().now()).await).await.unwrap();
        } else {
            // The lease of the one that was stopped may still hold.
            while !store.unfinished().await.unwrap().is_empty() {
                executor.resume_unfinished().await.unwrap();
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        let records = store.by_old_run(&run_id).await.unwrap();
        let adopted = records.iter().filter(|record| record.state == RestoreState::Adopted).count();
        assert_eq!((records.len(), adopted), (1, 1), "{blocks}: {records:#?}");
    }
    assert!((2..8).contains(&stopped), "{stopped} of 8 were stopped by the full disk");
    service.stop().await;
}

#[derive(Debug, Clone, Default)]
struct Told(Arc<std::sync::Mutex<Vec<RecoveryEvent>>>);

impl EventSink for Told {
    fn tell(&self, event: &RecoveryEvent) {
        self.0.lock().unwrap().push(event.clone());
    }
}

fn monitor(api: &Api, store: &Arc<dyn Store>, policy: Policy, told: &Told) -> (Monitor, Drives) {
    monitor_with(api, store, policy, told, &runtime())
}

/// One with this clock.
fn monitor_with(
    api: &Api,
    store: &Arc<dyn Store>,
    policy: Policy,
    told: &Told,
    clock: &Arc<dyn Runtime>,
) -> (Monitor, Drives) {
    let sink = told.clone();
    let executor = Executor::new(api.clone(), Arc::clone(store), Arc::clone(clock))
        .on_progress(move |record| of_progress("service", record).iter().for_each(|event| sink.tell(event)));
    let drives = Drives::new(executor, Arc::clone(clock));
    let parts = Parts {
        api: api.clone(),
        store: Arc::clone(store),
        runtime: Arc::clone(clock),
        drives: drives.clone(),
        policy,
        sink: Arc::new(told.clone()),
        service: "service".to_owned(),
        by: "a monitor".to_owned(),
    };
    (Monitor::new(parts), drives)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_poisoned_again_and_again_steps_back_and_then_stops_at_its_budget() {
    let (_dir, service, api) = service().await;
    let (first, paths) = poisoned(&service, &api, &["a", "b", "c"]).await;
    let (store, told) = (memory(), Told::default());
    let policy = Policy {
        enabled: true,
        max_no_progress: 3,
        max_attempts: 10,
        backoff_ms: 1,
        max_backoff_ms: 1,
        ..Policy::default()
    };
    let (monitor, drives) = monitor(&api, &store, policy, &told);
    for _ in 0..8 {
        monitor.round().await.unwrap();
        drives.settled().await;
        // Whatever was restored fails again at once, before it has saved anything.
        let records = store.list().await.unwrap();
        for new_run in records.iter().filter_map(|record| record.new_run_id.as_deref()) {
            let _ = service.faults().poison(new_run, "it failed again").await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut records = store.list().await.unwrap();
    records.reverse();
    let taken: Vec<_> = records.iter().map(|record| record.plan.checkpoint.tinker_path.clone()).collect();
    let expected: Vec<_> = paths.iter().rev().map(ToString::to_string).collect();
    assert_eq!(taken, expected, "one step back more with each that came to nothing");
    assert_eq!(records[0].plan.run_id, first);
    assert!(records.iter().all(|record| record.plan.root_run_id == first));
    let told = told.0.lock().unwrap().clone();
    let exhausted: Vec<_> = told.iter().filter(|event| event.event == EventKind::Exhausted).collect();
    assert_eq!(exhausted.len(), 1);
    assert!(
        exhausted[0].message.starts_with("3 restored runs were poisoned before"),
        "{}",
        exhausted[0].message
    );
    service.stop().await;
}

/// The checkpoints expire in a quarter of an hour: for the one clock that is soon, for the other not.
#[tokio::test(flavor = "multi_thread")]
async fn monitors_whose_clocks_differ_by_twenty_minutes_restore_each_run_once_and_tell_once() {
    const RUNS: usize = 6;
    let (_dir, service, api) = service().await;
    let mut lost = Vec::new();
    for _ in 0..RUNS {
        let (run_id, paths) = poisoned(&service, &api, &["a"]).await;
        api.set_checkpoint_ttl(&run_id, &paths[0].checkpoint_id(), Some(900)).await.unwrap();
        lost.push(run_id);
    }
    let home = tempfile::tempdir().unwrap();
    let (store, told) = (SqliteStore::open(home.path()).unwrap(), Told::default());
    let store: Arc<dyn Store> = Arc::new(store);
    let policy = Policy { enabled: true, backoff_ms: 1, max_backoff_ms: 1, ..Policy::default() };
    let monitors = [-600_000, 600_000].map(|skew| {
        let clock: Arc<dyn Runtime> = Arc::new(Skewed(runtime(), skew));
        monitor_with(&api, &store, policy.clone(), &told, &clock)
    });
    let [(late, of_late), (early, of_early)] = &monitors;
    // One whose clock is early may see the others' restores as being long ago, and the other as yet to come.
    for _ in 0..4 {
        let (a, b) = join(late.round(), early.round()).await;
        a.unwrap();
        b.unwrap();
        join(of_late.settled(), of_early.settled()).await;
    }
    let records = store.list().await.unwrap();
    let mut adopted: Vec<_> = records
        .iter()
        .filter(|record| record.state == RestoreState::Adopted)
        .map(|record| record.plan.run_id.clone())
        .collect();
    adopted.sort();
    lost.sort();
    assert_eq!(adopted, lost, "each once");
    assert_eq!(runs(&api).await, 2 * RUNS as u64, "and nothing surplus");
    for kind in [EventKind::Detected, EventKind::Planned, EventKind::Started, EventKind::Completed] {
        let count = told.0.lock().unwrap().iter().filter(|event| event.event == kind).count();
        assert_eq!(count, RUNS, "{kind:?}");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_restores_begin_within_an_hour_than_are_allowed() {
    let (_dir, service, api) = service().await;
    for _ in 0..6 {
        poisoned(&service, &api, &["a"]).await;
    }
    let (store, told) = (memory(), Told::default());
    let policy = Policy { enabled: true, max_restores_per_hour: 4, ..Policy::default() };
    let (monitor, drives) = monitor(&api, &store, policy, &told);
    let round = monitor.round().await.unwrap();
    assert_eq!((round.lost, round.begun), (6, 4), "decided at once, and counted all the same");
    drives.settled().await;
    assert_eq!(monitor.round().await.unwrap().begun, 0);
    assert_eq!(store.list().await.unwrap().len(), 4);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_is_about_to_expire_is_protected_and_can_be_given_its_life_back() {
    let (_dir, service, api) = service().await;
    let owner = ServiceClient::new(api.clone());
    let made = TrainingOptions::default();
    let client =
        owner.create_lora_training_client(schedule::BASE_MODEL, schedule::lora(), made).await.unwrap();
    let options = SaveOptions { ttl_seconds: Some(3_600), ..SaveOptions::default() };
    let path = client.save_state("a", options).await.unwrap().path;
    service.faults().poison(&client.model_id(), "a backend failed").await.unwrap();
    let (store, told) = (memory(), Told::default());
    let (monitor, _) = monitor(&api, &store, Policy::default(), &told);
    let expires = async || {
        let listed = api.run_checkpoints(&client.model_id()).await.unwrap().checkpoints;
        listed[0].expires_at.unwrap().as_millis()
    };
    let before = expires().await;
    monitor.round().await.unwrap();
    const DAYS: i64 = 24 * 3_600_000;
    assert!(expires().await - before > 6 * DAYS, "a week instead of an hour");
    let kinds: Vec<_> = told.0.lock().unwrap().iter().map(|event| event.event).collect();
    assert_eq!(kinds, [EventKind::Detected, EventKind::Protected]);
    retinker::recovery::protect::put_back(&api, &*store, &path, runtime().now()).await.unwrap();
    assert!((expires().await - before).abs() < 5_000, "as its owner wanted");
    service.stop().await;
}
