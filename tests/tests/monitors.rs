//! Several processes on one journal, killed at every step: in the end each lost run has exactly one adopted successor.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // A test that fails, panics.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use retinker::client::{Api, LossFnConfig, Secret, TrainingClient};
use retinker::host::api::{PlanAnswer, ServiceKind};
use retinker::host::client::HostClient;
use retinker::native::{NativeRuntime, NativeTransport};
use retinker::recovery::journal::Store;
use retinker::recovery::plan::{LABEL_RESTORE_ID, LABEL_RESTORED_FROM, PlanRequest};
use retinker::recovery::policy::Policy;
use retinker::recovery::probe::Verification;
use retinker::recovery::restore::{RestoreRecord, RestoreState};
use retinker_host::{Host, HostConfig, Location, RunningHost, ServiceTarget, Watching};
use retinker_local::LocalService;
use retinker_store::testing::Postgres;
use retinker_tests::{runs, schedule};
use tokio::process::{Child, Command};

/// Where the journal is.
enum Journal {
    Sqlite(tempfile::TempDir),
    Postgres { url: String, _server: Arc<Postgres> },
}

impl Journal {
    fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    async fn postgres() -> Self {
        let server = Postgres::shared();
        Self::Postgres { url: server.database().await, _server: server }
    }

    fn location(&self) -> OsString {
        match self {
            Self::Sqlite(dir) => dir.path().into(),
            Self::Postgres { url, .. } => url.into(),
        }
    }

    async fn open(&self) -> Arc<dyn Store> {
        retinker_store::open(&Location::from(self.location())).await.unwrap()
    }
}

/// Runs with a checkpoint each, and work that is not saved.
async fn trained(api: &Api, count: usize) -> Vec<TrainingClient> {
    let clients = runs::saved(api, count).await.unwrap();
    let pass = |client: &TrainingClient| {
        client.forward_backward(schedule::batch(0), "cross_entropy", &LossFnConfig::new())
    };
    join_all(clients.iter().map(pass)).await.into_iter().for_each(|passed| drop(passed.unwrap()));
    clients
}

async fn poison(service: &LocalService, clients: &[TrainingClient]) -> Vec<String> {
    let faults = service.faults();
    join_all(clients.iter().map(|client| faults.poison(client.model_id(), "a backend failed")))
        .await
        .into_iter()
        .for_each(Result::unwrap);
    clients.iter().map(|client| client.model_id().to_owned()).collect()
}

fn monitor(api: &Api, journal: &Journal) -> Child {
    // Quick rounds, and no bound that this test would meet.
    let policy =
        Policy { enabled: true, poll_interval_ms: 1_000, max_restores_per_hour: 1_000, ..Policy::default() };
    Command::new(env!("CARGO_BIN_EXE_monitor"))
        .arg(api.base_url())
        .arg(journal.location())
        .arg(serde_json::to_string(&policy).unwrap())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Waits until each of these runs has a restore that is adopted.
async fn all_adopted(store: &dyn Store, lost: &[String]) -> Vec<RestoreRecord> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(180);
    loop {
        let records = store.list().await.unwrap();
        let adopted = |run: &&String| {
            records.iter().any(|r| r.plan.run_id == **run && r.state == RestoreState::Adopted)
        };
        let missing: Vec<_> = lost.iter().filter(|run| !adopted(run)).collect();
        if missing.is_empty() {
            return records;
        }
        assert!(tokio::time::Instant::now() < deadline, "never restored: {missing:?} of {records:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Exactly one successor is adopted for each lost run, no other run claims to be one, and nothing else was touched.
async fn exactly_one_each(api: &Api, records: &[RestoreRecord], lost: &[String], runs_before: usize) {
    let mut adopted: BTreeMap<&str, Vec<&RestoreRecord>> = BTreeMap::new();
    for record in records.iter().filter(|record| record.state.holds_the_run()) {
        adopted.entry(&record.plan.run_id).or_default().push(record);
    }
    assert!(lost.iter().all(|run| adopted[run.as_str()].len() == 1), "{adopted:#?}");
    assert_eq!(adopted.len(), lost.len(), "no run was restored that was not lost");
    let runs = runs::all(api).await.unwrap();
    let made: Vec<_> = runs
        .iter()
        .filter_map(|run| Some((run, run.user_metadata.as_ref()?.get(LABEL_RESTORED_FROM)?)))
        .collect();
    for (run, from) in &made {
        let record = adopted[from.as_str()][0];
        assert_eq!(record.new_run_id.as_ref(), Some(&run.training_run_id), "a surplus run of {from}");
        assert_eq!(run.user_metadata.as_ref().unwrap()[LABEL_RESTORE_ID], record.id);
    }
    assert_eq!(made.len(), lost.len());
    assert_eq!(runs.len(), runs_before + lost.len(), "the service deduplicates: one run for each restore");
    for record in records.iter().filter(|record| record.state.holds_the_run()) {
        assert_eq!(record.verification, Some(Verification::Verified { difference: 0.0 }));
        let attachment = record.attachment.as_ref().unwrap();
        assert_eq!(attachment.next_seq_id, 2, "the probe took the first number");
        let alive = api.session_heartbeat(&attachment.session_id).await;
        assert!(alive.is_ok(), "the session of {}: {alive:?}", attachment.model_id);
    }
}

/// One process for each write of a restore, killed before and after it; then two monitors find what is left.
async fn killed_at_every_write(journal: Journal) {
    const WRITES: u64 = 10;
    let (_dir, service, api) = retinker_tests::service::embedded().await.unwrap();
    let clients = trained(&api, 2 * usize::try_from(WRITES).unwrap()).await;
    let lost = poison(&service, &clients).await;
    let store = journal.open().await;
    let deaths = (1..=WRITES).flat_map(|write| [(write, "before"), (write, "after")]);
    let killed = stream::iter(lost.iter().zip(deaths))
        .map(|(run, (write, when))| {
            let mut mortal = Command::new(env!("CARGO_BIN_EXE_mortal"));
            mortal.arg(api.base_url()).arg(journal.location()).args([run, &write.to_string(), when]);
            async move { mortal.stderr(Stdio::null()).status().await.unwrap().success() }
        })
        .buffered(4)
        .collect::<Vec<_>>()
        .await;
    let survived = killed.iter().filter(|ended_by_itself| **ended_by_itself).count();
    // begin, lease, five states of which one is written twice, release: then there is nothing to be killed at.
    assert_eq!(survived, 4, "processes that ended by themselves: {killed:?}");
    let unfinished = store.unfinished().await.unwrap().len();
    assert!(unfinished >= 8, "{unfinished} restores were cut off");
    let monitors = [monitor(&api, &journal), monitor(&api, &journal)];
    let records = all_adopted(&*store, &lost).await;
    exactly_one_each(&api, &records, &lost, clients.len()).await;
    drop(monitors);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_write_to_sqlite() {
    killed_at_every_write(Journal::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_write_to_postgresql() {
    killed_at_every_write(Journal::postgres().await).await;
}

/// The console's host on the same journal, and a client of it as a browser's tab has one.
async fn console(api: &Api, journal: &Journal) -> (RunningHost, HostClient) {
    let token = "a-token-of-this-test";
    let host = Host::start(HostConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        service: ServiceTarget {
            name: "service".to_owned(),
            kind: ServiceKind::Remote,
            base_url: api.base_url().to_owned(),
            api_key: Some(Secret::new("tml-test")),
        },
        journal: Location::from(journal.location()),
        watching: Watching::default(),
        demo: None,
        token: Some(token.to_owned()),
    })
    .await
    .unwrap();
    let (transport, runtime) = (NativeTransport::new().unwrap(), NativeRuntime::current().unwrap());
    let address = format!("http://{}", host.address());
    let tab = HostClient::new(Arc::new(transport), Arc::new(runtime), &address, Secret::new(token));
    (host, tab)
}

/// What two clicks do: a plan, and its confirmation. Somebody else may have been sooner at either.
async fn click(tab: &HostClient, run: &str) {
    if let Ok(PlanAnswer::Plan(plan)) = tab.plan(&PlanRequest::new(run)).await {
        let _ = tab.start_restore(&plan).await;
    }
}

/// 200 runs are watched by two monitors and a console, 50 of them poisoned at once; the monitors are killed and come back
/// meanwhile, and restores are asked for from a tab and from the command line at the same time.
async fn an_incident(journal: Journal) {
    const RUNS: usize = 200;
    const LOST: usize = 50;
    let (_dir, service, api) = retinker_tests::service::embedded().await.unwrap();
    let clients = trained(&api, RUNS).await;
    let store = journal.open().await;
    let mut monitors = vec![monitor(&api, &journal), monitor(&api, &journal)];
    let lost = poison(&service, &clients[..LOST]).await;
    // As `retinker restore` does, and a click in the console, for some of the same runs.
    let by_hand: Vec<_> = lost
        .iter()
        .step_by(7)
        .map(|run| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_mortal"));
            command.arg(api.base_url()).arg(journal.location()).args([run, "99", "after"]);
            command.stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap()
        })
        .collect();
    let (host, tab) = console(&api, &journal).await;
    join_all(lost.iter().step_by(5).map(|run| click(&tab, run))).await;
    for round in 0..6 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        monitors[round % 2].kill().await.unwrap();
        monitors[round % 2] = monitor(&api, &journal);
    }
    let records = all_adopted(&*store, &lost).await;
    drop(by_hand);
    exactly_one_each(&api, &records, &lost, RUNS).await;
    host.stop().await;
    drop(monitors);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incident_of_fifty_runs_with_a_journal_in_sqlite() {
    an_incident(Journal::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incident_of_fifty_runs_with_a_journal_in_postgresql() {
    an_incident(Journal::postgres().await).await;
}
