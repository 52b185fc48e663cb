//! The data directory with everything in it, and how a service starts on it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use retinker::client::{SaveOptions, ServiceClient};
use retinker::wire::UserMetadata;
use retinker_tests::schedule;
use retinker_tests::service::ServiceProcess;

use retinker_tests::process;

/// Runs in the data directory.
pub(crate) const RUNS: u64 = 100_000;
/// Checkpoints of a run.
pub(crate) const CHECKPOINTS_OF_RUN: u64 = 10;
/// Runs of one session.
pub(crate) const RUNS_OF_SESSION: u64 = 100;
/// How often the start is timed.
pub(crate) const STARTS: usize = 5;

/// What was found at the start.
pub(crate) struct Stored {
    /// From the start of the process until it says where it listens; shortest first.
    pub(crate) starts: Vec<Duration>,
    /// Resident memory after a start, where it is known.
    pub(crate) resident: Option<u64>,
    /// What one checkpoint more adds to it.
    pub(crate) bytes_per_checkpoint: Option<u64>,
}

impl Stored {
    /// Fills the directory and starts a service on it several times.
    pub(crate) async fn make(dir: &Path) -> Result<Self> {
        eprintln!("making {RUNS} runs");
        make_one(dir).await?;
        copy(dir, RUNS_SQL).await?;
        let (_, before) = start(dir).await?;
        eprintln!("making {} checkpoints", RUNS * CHECKPOINTS_OF_RUN);
        copy(dir, CHECKPOINTS_SQL).await?;
        make_directories(dir).await?;
        let (mut starts, mut resident) = (Vec::new(), None);
        for _ in 0..STARTS {
            let (took, after) = start(dir).await?;
            starts.push(took);
            resident = after;
        }
        starts.sort();
        let bytes_per_checkpoint = before
            .zip(resident)
            .map(|(before, after)| after.saturating_sub(before) / (RUNS * CHECKPOINTS_OF_RUN));
        Ok(Self { starts, resident, bytes_per_checkpoint })
    }

    /// The median start.
    pub(crate) fn start(&self) -> Duration {
        self.starts.get(self.starts.len() / 2).copied().unwrap_or_default()
    }
}

/// Starts a service and ends it; how long it took, and its memory.
async fn start(dir: &Path) -> Result<(Duration, Option<u64>)> {
    let begin = Instant::now();
    let service = ServiceProcess::start(dir).await?;
    let took = begin.elapsed();
    let resident = service.id().and_then(process::resident);
    service.kill().await?;
    Ok((took, resident))
}

/// Starts the service on an empty directory, and makes a run with a checkpoint.
async fn make_one(dir: &Path) -> Result<()> {
    let service = ServiceProcess::start(dir).await?;
    let owner = ServiceClient::new(service.api()?);
    let labels = UserMetadata::from([("name".to_owned(), "run 0".to_owned())]);
    let client = owner.create_lora_training_client(schedule::BASE_MODEL, schedule::lora(), labels).await?;
    schedule::step(&client, 0).await?;
    client.save_state("step-1", SaveOptions::default()).await?;
    service.kill().await
}

/// Copies the one run with its session under other names.
const RUNS_SQL: &str = "
    CREATE TEMP TABLE numbers (i INTEGER PRIMARY KEY, run TEXT, session TEXT);
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :runs)
    INSERT INTO numbers
        SELECT i, s || ':train:' || (i % :runs_of_session), s FROM
            (SELECT i, printf('00000000-0000-4000-8000-%012d', i / :runs_of_session) AS s FROM n);
    INSERT INTO sessions (session_id, created_at, request)
        SELECT DISTINCT session, created_at, request FROM numbers, (SELECT * FROM sessions LIMIT 1);
    INSERT INTO runs (run_id, session_id, model_seq_id, base_model, lora, optimizer_config, user_metadata,
            created_at, last_request_at)
        SELECT run, session, i % :runs_of_session, base_model, lora, optimizer_config,
            json_object('name', 'run ' || i), created_at, last_request_at
        FROM numbers, (SELECT * FROM runs LIMIT 1) ORDER BY i;";

/// Copies the row of the one checkpoint to every run, under several names.
const CHECKPOINTS_SQL: &str = "
    CREATE TEMP TABLE model AS SELECT * FROM checkpoints WHERE state = 'live' LIMIT 1;
    WITH RECURSIVE n (k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM n WHERE k < :checkpoints_of_run)
    INSERT INTO checkpoints (run_id, run, kind, name, directory, state, seq, saved_at, size_bytes, manifest_sha256)
        SELECT runs.run_id, runs.ordinal, kind, printf('step-%06d', k * 50), 'copy-' || runs.ordinal || '/' || k, state, k * 100,
            saved_at, size_bytes, manifest_sha256
        FROM runs, n, model ORDER BY n.k, runs.ordinal;";

/// Makes the directory of each run, with one checkpoint's in it: a start must not look through them.
async fn make_directories(dir: &Path) -> Result<()> {
    let checkpoints = dir.join("service").join("checkpoints");
    let make = move || {
        (1..=RUNS).try_for_each(|run| std::fs::create_dir_all(checkpoints.join(format!("copy-{run}/1"))))
    };
    Ok(tokio::task::spawn_blocking(make).await??)
}

/// Changes the database of a service that does not run.
async fn copy(dir: &Path, statements: &'static str) -> Result<()> {
    let path = dir.join("service").join("service.sqlite");
    let statements = statements
        .replace(":runs_of_session", &RUNS_OF_SESSION.to_string())
        .replace(":runs", &RUNS.to_string())
        .replace(":checkpoints_of_run", &CHECKPOINTS_OF_RUN.to_string());
    let change = move || {
        let mut database =
            rusqlite::Connection::open_with_flags(&path, rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE)
                .with_context(|| format!("{} cannot be opened", path.display()))?;
        let change = database.transaction()?;
        change.execute_batch(&statements)?;
        let runs: u64 = change.query_row("SELECT count(*) FROM runs", [], |row| row.get(0))?;
        ensure!(runs == RUNS, "{runs} runs were made, not {RUNS}");
        Ok(change.commit()?)
    };
    tokio::task::spawn_blocking(change).await?
}
