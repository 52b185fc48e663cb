//! Two monitors, a console and the command line on one journal watch 200 runs, which are poisoned over and over, restored ones
//! among them. The programs are killed with SIGKILL at random all the while. In the end every lost run has one successor.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use retinker::client::Api;
use retinker::recovery::journal::Store;
use retinker::recovery::plan::LABEL_RESTORE_ID;
use retinker::recovery::policy::Policy;
use retinker::recovery::probe::Verification;
use retinker::recovery::restore::{RestoreRecord, RestoreState};
use retinker_store::Location;
use retinker_store::testing::Postgres;
use retinker_tests::command::Retinker;
use retinker_tests::random::Random;
use retinker_tests::runs;
use retinker_tests::service::ServiceProcess;
use tokio::process::{Child, Command};

const RUNS: usize = 200;
/// How many are poisoned at once: first these, then these after every so many kills.
const POISONED: (usize, usize, u64) = (50, 10, 25);
/// For how long the last restores may take.
const PATIENCE: Duration = Duration::from_secs(240);

/// Kills so many programs, half of them on each kind of journal; tells what was found.
pub(crate) async fn run(kills: u64) -> Result<String> {
    let home = tempfile::tempdir()?;
    let sqlite = one("SQLite", home.path().into(), kills / 2).await.context("a journal in SQLite")?;
    let server = Postgres::shared();
    let url = server.database().await.into();
    let postgres = one("PostgreSQL", url, kills - kills / 2).await.context("a journal in PostgreSQL")?;
    Ok(format!("{sqlite}{postgres}"))
}

async fn one(kind: &str, journal: OsString, kills: u64) -> Result<String> {
    let data = tempfile::tempdir()?;
    let service = ServiceProcess::start_with(data.path(), &["--faults"]).await?;
    let api = service.api()?;
    let clients = runs::saved(&api, RUNS).await?;
    let policy = data.path().join("policy.json");
    std::fs::write(&policy, serde_json::to_string(&unbounded())?)?;
    let program = |command: &str, more: &[&str]| retinker(&service, &journal, &policy, command, more);
    let start = |which: usize| match which {
        0 | 1 => program("watch", &[]),
        _ => program("console", &["--port", "0"]),
    };
    let mut programs = (0..3).map(start).collect::<Result<Vec<_>>>()?;
    let (mut random, mut by_hand) = (Random(0x5ca1e), Vec::new());
    let first: Vec<String> = clients.iter().take(POISONED.0).map(|client| client.model_id()).collect();
    poison(&service, &first).await?;
    for kill in 0..kills {
        tokio::time::sleep(Duration::from_millis(20 + random.next() % 180)).await;
        let which = (random.next() % 3) as usize;
        if let Some(victim) = programs.get_mut(which) {
            victim.kill().await?;
            *victim = start(which)?;
        }
        if kill % POISONED.2 == POISONED.2 - 1 {
            let live: Vec<String> = sound(&api).await?;
            let chosen: BTreeSet<String> = (0..POISONED.1)
                .filter_map(|_| live.get((random.next() % live.len().max(1) as u64) as usize).cloned())
                .collect();
            let chosen: Vec<String> = chosen.into_iter().collect();
            poison(&service, &chosen).await?;
            // As a person would, at the same time.
            for run in chosen.iter().take(2) {
                by_hand.push(command(&service, &journal, &["restore", run, "--detach"])?.spawn()?);
            }
        }
    }
    let store = retinker_store::open(&Location::from(journal.clone())).await?;
    let records = settled(&api, &*store).await?;
    for mut command in by_hand {
        command.wait().await?;
    }
    let found = check(&api, &records).await?;
    drop(programs);
    service.kill().await?;
    Ok(format!(
        "Journal in {kind}: {kills} times one of two monitors and a console was killed with SIGKILL, each started again at once, \
         while {} runs of {RUNS} and their successors were poisoned, in batches, and some of them restored by hand at the same time. \
         Every one of them has exactly one adopted successor, {} of {} verified by their probes; {} restores failed and were done \
         again.\n",
        found.lost, found.verified, found.lost, found.failed
    ))
}

/// Lets everything be restored as often as it is poisoned.
fn unbounded() -> Policy {
    Policy {
        enabled: true,
        max_attempts: u32::MAX,
        max_no_progress: u32::MAX,
        max_restores_per_hour: u32::MAX,
        backoff_ms: 100,
        max_backoff_ms: 1_000,
        poll_interval_ms: 1_000,
        step_back: false,
        ..Policy::default()
    }
}

fn command(service: &ServiceProcess, journal: &OsString, words: &[&str]) -> Result<Command> {
    let mut command = Retinker::new(&service.base_url, journal).command(words)?;
    command.env("RETINKER_LOG", "off").stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command)
}

fn retinker(
    service: &ServiceProcess,
    journal: &OsString,
    policy: &Path,
    name: &str,
    more: &[&str],
) -> Result<Child> {
    let mut command = command(service, journal, &[name])?;
    command.arg("--policy").arg(policy).args(more);
    Ok(command.spawn()?)
}

async fn poison(service: &ServiceProcess, runs: &[String]) -> Result<()> {
    for run in runs {
        let status = service.poison(run).await?;
        ensure!(status == 200 || status == 409, "a poisoning was answered with {status}");
    }
    Ok(())
}

/// Runs that are not poisoned.
async fn sound(api: &Api) -> Result<Vec<String>> {
    let runs = runs::all(api).await?;
    Ok(runs.into_iter().filter(|run| run.corrupted != Some(true)).map(|run| run.training_run_id).collect())
}

/// The journal, once every poisoned run has a settled successor.
async fn settled(api: &Api, store: &dyn Store) -> Result<Vec<RestoreRecord>> {
    let all = async {
        loop {
            let (runs, records) = (runs::all(api).await?, store.list().await?);
            let done: BTreeSet<&str> = records
                .iter()
                .filter(|record| record.state.is_done())
                .map(|record| record.plan.run_id.as_str())
                .collect();
            let lost = runs.iter().filter(|run| run.corrupted == Some(true));
            if lost.clone().all(|run| done.contains(run.training_run_id.as_str())) {
                return anyhow::Ok(records);
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.context("some lost runs were never restored")?
}

struct Found {
    lost: usize,
    verified: usize,
    failed: usize,
}

/// One adopted successor for each lost run, and no other run that claims to be one.
async fn check(api: &Api, records: &[RestoreRecord]) -> Result<Found> {
    let runs = runs::all(api).await?;
    let mut adopted: BTreeMap<&str, Vec<&RestoreRecord>> = BTreeMap::new();
    for record in records.iter().filter(|record| record.state.holds_the_run()) {
        adopted.entry(&record.plan.run_id).or_default().push(record);
    }
    let lost: Vec<_> = runs.iter().filter(|run| run.corrupted == Some(true)).collect();
    for run in &lost {
        let count = adopted.get(run.training_run_id.as_str()).map_or(0, Vec::len);
        ensure!(count == 1, "run {} has {count} successors", run.training_run_id);
    }
    ensure!(adopted.len() == lost.len(), "{} restores of {} lost runs", adopted.len(), lost.len());
    let by_id: BTreeMap<&str, &RestoreRecord> =
        records.iter().map(|record| (record.id.as_str(), record)).collect();
    for run in &runs {
        let label = run.user_metadata.as_ref().and_then(|labels| labels.get(LABEL_RESTORE_ID));
        let Some(restore) = label else { continue };
        let record =
            by_id.get(restore.as_str()).with_context(|| format!("the journal lost restore {restore}"))?;
        // What a restore that failed has made belongs to nobody, and its session is finished.
        ensure!(
            record.state == RestoreState::Failed || record.new_run_id.as_ref() == Some(&run.training_run_id),
            "run {} is a surplus successor of {}",
            run.training_run_id,
            record.plan.run_id
        );
    }
    let holding = || records.iter().filter(|record| record.state.holds_the_run());
    Ok(Found {
        lost: lost.len(),
        verified: holding()
            .filter(|record| matches!(record.verification, Some(Verification::Verified { .. })))
            .count(),
        failed: records.len() - holding().count(),
    })
}
