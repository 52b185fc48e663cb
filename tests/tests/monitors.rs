//! Several processes on one journal, killed at every step: in the end each lost run has exactly one adopted successor.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // A test that fails, panics.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use retinker::client::{Api, LossFnConfig, ServiceClient, TrainingClient, TrainingOptions};
use retinker::host::api::PlanAnswer;
use retinker::host::client::HostClient;
use retinker::recovery::events::{EventKind, RecoveryEvent};
use retinker::recovery::journal::Store;
use retinker::recovery::plan::{LABEL_RESTORE_ID, LABEL_RESTORED_FROM, PlanRequest};
use retinker::recovery::policy::Policy;
use retinker::recovery::probe::Verification;
use retinker::recovery::restore::{RestoreRecord, RestoreState};
use retinker::recovery::{findings, protect};
use retinker::wire::path::TinkerPath;
use retinker_host::{Location, RedoLogs};
use retinker_local::LocalService;
use retinker_store::testing::Postgres;
use retinker_tests::command::Retinker;
use retinker_tests::console::console;
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
    join_all(
        clients
            .iter()
            .map(async |client: &TrainingClient| faults.poison(&client.model_id(), "a backend failed").await),
    )
    .await
    .into_iter()
    .for_each(Result::unwrap);
    clients.iter().map(|client| client.model_id()).collect()
}

/// Quick rounds, and no bound that these tests would meet.
fn policy() -> String {
    let policy =
        Policy { enabled: true, poll_interval_ms: 1_000, max_restores_per_hour: 1_000, ..Policy::default() };
    serde_json::to_string(&policy).unwrap()
}

fn monitor(api: &Api, journal: &Journal) -> Child {
    Command::new(env!("CARGO_BIN_EXE_monitor"))
        .arg(api.base_url())
        .arg(journal.location())
        .arg(policy())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// The binary's own monitor, which tells its events in the file `events` of this directory.
fn watch(api: &Api, journal: &Journal, dir: &Path) -> Child {
    let (policed, events) = (dir.join("policy.json"), dir.join("events"));
    std::fs::write(&policed, policy()).unwrap();
    let mut command =
        Retinker::new(api.base_url(), journal.location()).command(&["watch", "--auto-restore"]).unwrap();
    command.arg("--policy").arg(policed).arg("--events").arg(events);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
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

/// A monitor sees a run that can be restored and one that cannot, and is killed at a write, of a restore or a document; then
/// another finishes. Answers whether it was killed: it was not if there are not so many writes.
async fn monitor_killed_at(journal: Journal, write: u64, when: &str) -> bool {
    let (_dir, service, api) = retinker_tests::service::embedded().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let events = dir.path().join("events");
    let client = trained(&api, 1).await.remove(0);
    let owner = ServiceClient::new(api.clone());
    let unsaved = owner
        .create_lora_training_client(schedule::BASE_MODEL, schedule::lora(), TrainingOptions::default())
        .await
        .unwrap();
    let saved = api.run_checkpoints(&client.model_id()).await.unwrap().checkpoints.remove(0);
    // It would not outlast the weekend: it is protected.
    let path: TinkerPath = saved.tinker_path.parse().unwrap();
    api.set_checkpoint_ttl(&path.training_run_id, &path.checkpoint_id(), Some(3_600)).await.unwrap();
    let saved = api.run_checkpoints(&client.model_id()).await.unwrap().checkpoints.remove(0);
    let lost = poison(&service, &[client]).await;
    let hopeless = poison(&service, &[unsaved]).await.remove(0);
    let mut mortal = Command::new(env!("CARGO_BIN_EXE_mortal_monitor"));
    mortal.arg(api.base_url()).arg(journal.location()).arg(&events).args([&write.to_string(), when]);
    let status = mortal.stderr(Stdio::null()).status().await.unwrap();
    assert!(status.success() || status.signal() == Some(9), "{write} {when}: {status}");
    let mut second = watch(&api, &journal, dir.path());
    let store = journal.open().await;
    let records = all_adopted(&*store, &lost).await;
    let given_up = async || {
        let found = findings::all(&*store).await.unwrap();
        found.get(&hopeless).is_some_and(|finding| finding.given_up.is_some())
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !given_up().await {
        assert!(tokio::time::Instant::now() < deadline, "{write} {when}: it was never given up");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    exactly_one_each(&api, &records, &lost, 2).await;
    second.kill().await.unwrap();
    let told = std::fs::read_to_string(&events).unwrap();
    let told: Vec<RecoveryEvent> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for run in [&lost[0], &hopeless] {
        for kind in EventKind::ALL {
            let times = told.iter().filter(|event| event.run_id == *run && event.event == kind).count();
            // The telling is lost with whoever dies right after the write.
            assert!(times <= 1, "{write} {when}: {kind:?} of run {run} was told {times} times: {told:#?}");
            let once = [
                EventKind::Detected,
                if *run == hopeless { EventKind::Exhausted } else { EventKind::Completed },
            ];
            assert!(times == 1 || !status.success() || !once.contains(&kind), "{kind:?}: {told:#?}");
        }
    }
    let protected = protect::protections(&*store).await.unwrap();
    let former: Vec<_> = protected.iter().map(|found| (&found.tinker_path, Some(found.expired_at))).collect();
    assert_eq!(former, [(&saved.tinker_path, saved.expires_at)], "{write} {when}: its former life is known");
    service.stop().await;
    !status.success()
}

/// A monitor for each write of a round, killed before and after it.
async fn monitor_killed_at_every_write(journal: impl AsyncFn() -> Journal) {
    // That somebody listens; two findings, a protection and that it is done, one that is given up; begin, lease, five states, release; what is
    // claimed to be told of the four.
    const WRITES: u64 = 18;
    let deaths = (1..=WRITES + 1).flat_map(|write| [(write, "before"), (write, "after")]);
    let journal = &journal;
    let killed: Vec<_> = stream::iter(deaths)
        .map(|(write, when)| async move { (write, monitor_killed_at(journal().await, write, when).await) })
        // What takes time is waiting for leases of the dead.
        .buffer_unordered(13)
        .collect()
        .await;
    for (write, was_killed) in killed {
        assert_eq!(was_killed, write <= WRITES, "at write {write}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_killed_at_every_write_to_sqlite() {
    monitor_killed_at_every_write(async || Journal::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_killed_at_every_write_to_postgresql() {
    monitor_killed_at_every_write(Journal::postgres).await;
}

/// What two clicks do: a plan, and its confirmation. Somebody else may have been sooner at either.
async fn click(tab: &HostClient, run: &str) {
    if let Ok(PlanAnswer::Plan(plan)) = tab.plan(&PlanRequest::new(run)).await {
        let _ = tab.start_restore(&plan).await;
    }
}

/// 200 runs are watched by two monitors, one of them `retinker watch`, and a console, 50 of them poisoned at once; the monitors
/// are killed and come back meanwhile, and restores are asked for from a tab and by `retinker restore` at the same time.
async fn an_incident(journal: Journal) {
    const RUNS: usize = 200;
    const LOST: usize = 50;
    let (_dir, service, api) = retinker_tests::service::embedded().await.unwrap();
    let clients = trained(&api, RUNS).await;
    let store = journal.open().await;
    let dir = tempfile::tempdir().unwrap();
    let start = |which: usize| match which {
        0 => watch(&api, &journal, dir.path()),
        _ => monitor(&api, &journal),
    };
    let (first, events) = (start(0), dir.path().join("events"));
    let lost = poison(&service, &clients[..LOST]).await;
    // Until the binary's own takes part: it is the only one that could tell of anything yet.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while std::fs::read_to_string(&events).unwrap_or_default().is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "'retinker watch' saw nothing");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut monitors = [first, start(1)];
    // By hand, and by clicks in the console, for some of the same runs.
    let retinker = Retinker::new(api.base_url(), journal.location());
    let (run, asked) = (lost[0].clone(), retinker.clone());
    let restore = tokio::spawn(async move { asked.run(&["restore", &run, "--detach"]).await.unwrap() });
    let by_hand: Vec<_> = lost
        .iter()
        .step_by(7)
        .skip(1)
        .map(|run| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_mortal"));
            command.arg(api.base_url()).arg(journal.location()).args([run, "99", "after"]);
            command.stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap()
        })
        .collect();
    let (host, tab) = console(&api, Location::from(journal.location()), RedoLogs::default()).await.unwrap();
    join_all(lost.iter().step_by(5).map(|run| click(&tab, run))).await;
    for round in 0..6 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        monitors[round % 2].kill().await.unwrap();
        monitors[round % 2] = start(round % 2);
    }
    let records = all_adopted(&*store, &lost).await;
    drop(by_hand);
    let said = restore.await.unwrap();
    let record = records.iter().find(|r| r.plan.run_id == lost[0] && r.state.is_done()).unwrap();
    let told = format!("Run {} has taken the place of run {}.", record.new_run_id.as_ref().unwrap(), lost[0]);
    assert!(said.code == Some(0) && said.out.contains(&told), "{said:#?}");
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
