//! Measures the embedded service with 100,000 runs in its data directory. Writes `docs/bench.md`; the last line on
//! standard output is one JSON object.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use retinker::client::{LossFnConfig, SaveOptions, ServiceClient, TrainingClient};
use retinker::wire::UserMetadata;
use retinker::wire::model::LoraConfig;
use retinker::wire::run::TrainingRunsResponse;
use retinker::wire::training::Datum;
use retinker_tests::http::Connection;
use retinker_tests::random::Random;
use retinker_tests::schedule;
use retinker_tests::service::ServiceProcess;

/// Runs in the data directory.
const RUNS: u64 = 100_000;
/// Runs of one session.
const RUNS_OF_SESSION: u64 = 100;
/// One run in so many has a checkpoint.
const RUNS_TO_CHECKPOINT: u64 = 10;
/// Runs on a page.
const PAGE: usize = 100;
/// Pages read one after the other.
const PAGES: usize = 2000;
/// How long rates are measured.
const SPAN: Duration = Duration::from_secs(5);
/// What trains.
const MODEL: &str = "retinker/tiny-llama-1m";
const RANK: u32 = 32;
const BATCH: usize = 8;
const LENGTH: usize = 64;
/// Passes on their way at a time.
const PIPELINE: usize = 4;

#[tokio::main]
async fn main() -> Result<()> {
    if let Some(option) = std::env::args().nth(1) {
        bail!("'{option}' is not an option of the benchmark: it takes none");
    }
    let data = tempfile::tempdir()?;
    eprintln!("making {RUNS} runs");
    make_one(data.path()).await?;
    let path = data.path().to_owned();
    tokio::task::spawn_blocking(move || copy_runs(&path)).await??;

    let start = Instant::now();
    let service = ServiceProcess::start(data.path()).await?;
    let startup = start.elapsed();
    let url = service.base_url.clone();
    eprintln!("reading pages");
    let order = full_listing(&url).await?;
    let pages = Latencies::new(read_pages(&url, &order).await?);
    let page_rps = rate(4, &url, async |connection, random| {
        let offset = random_offset(random);
        connection.get(&format!("training_runs?limit={PAGE}&offset={offset}")).await.map(|_| ())
    })
    .await?;
    eprintln!("sending heartbeats");
    let owner = ServiceClient::new(service.api()?);
    let heartbeat = heartbeat_body(&owner.session_id().await?);
    let heartbeat_rps = rate(8, &url, async |connection, _| {
        connection.post("session_heartbeat", &heartbeat).await.map(|_| ())
    })
    .await?;
    eprintln!("training");
    let first = client(&owner, 1).await?;
    train(&first, Duration::from_secs(1)).await?;
    let tokens_per_second = train(&first, SPAN).await?;
    let second = client(&owner, 2).await?;
    let (one, two, api) =
        tokio::join!(train(&first, SPAN), train(&second, SPAN), calls_while_training(&url, &heartbeat, SPAN));
    let together = one? + two?;
    let api = Latencies::new(api?);
    let result = Measured { startup, pages, page_rps, heartbeat_rps, tokens_per_second, together, api };
    service.kill().await?;
    result.report()
}

/// Starts the service on an empty directory, and makes a run with a checkpoint.
async fn make_one(dir: &Path) -> Result<()> {
    let service = ServiceProcess::start(dir).await?;
    let owner = ServiceClient::new(service.api()?);
    let labels = UserMetadata::from([("name".to_owned(), "run 0".to_owned())]);
    let client =
        owner.create_lora_training_client(schedule::BASE_MODEL, schedule::lora(), Some(labels)).await?;
    schedule::step(&client, 0).await?;
    client.save_state("step-1", SaveOptions::default()).await?;
    service.kill().await
}

/// Copies the one run, with its session and its checkpoint's row, under other names.
fn copy_runs(dir: &Path) -> Result<()> {
    let path = dir.join("service").join("service.sqlite");
    let mut database =
        rusqlite::Connection::open_with_flags(&path, rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE)
            .with_context(|| format!("{} cannot be opened", path.display()))?;
    let change = database.transaction()?;
    change.execute_batch(&format!(
        "CREATE TEMP TABLE numbers (i INTEGER PRIMARY KEY, run TEXT, session TEXT);
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {RUNS})
         INSERT INTO numbers
             SELECT i, s || ':train:' || (i % {RUNS_OF_SESSION}), s FROM
                 (SELECT i, printf('00000000-0000-4000-8000-%012d', i / {RUNS_OF_SESSION}) AS s FROM n);
         INSERT INTO sessions (session_id, created_at, request)
             SELECT DISTINCT session, created_at, request FROM numbers, (SELECT * FROM sessions LIMIT 1);
         INSERT INTO runs (run_id, session_id, model_seq_id, base_model, lora, optimizer_config, user_metadata,
                 created_at, last_request_at)
             SELECT run, session, i % {RUNS_OF_SESSION}, base_model, lora, optimizer_config,
                 json_object('name', 'run ' || i), created_at, last_request_at
             FROM numbers, (SELECT * FROM runs LIMIT 1) ORDER BY i;
         INSERT INTO checkpoints (run_id, kind, name, directory, state, seq, saved_at, size_bytes, manifest_sha256)
             SELECT run, kind, name, 'copy-' || i, state, seq, saved_at, size_bytes, manifest_sha256
             FROM numbers, (SELECT * FROM checkpoints WHERE kind = 'training' LIMIT 1)
             WHERE i % {RUNS_TO_CHECKPOINT} = 0 ORDER BY i;"
    ))?;
    let runs: u64 = change.query_row("SELECT count(*) FROM runs", [], |row| row.get(0))?;
    ensure!(runs == RUNS, "{runs} runs were made, not {RUNS}");
    Ok(change.commit()?)
}

fn random_offset(random: &mut Random) -> usize {
    (random.next() % (RUNS - PAGE as u64 + 1)) as usize
}

fn ids(page: &[u8]) -> Result<Vec<String>> {
    let page: TrainingRunsResponse = serde_json::from_slice(page)?;
    Ok(page.training_runs.into_iter().map(|run| run.training_run_id).collect())
}

/// All runs' ids, in the order of the pages.
async fn full_listing(url: &str) -> Result<Vec<String>> {
    let mut connection = Connection::open(url).await?;
    let mut order = Vec::new();
    loop {
        let page = ids(connection.get(&format!("training_runs?limit=1000&offset={}", order.len())).await?)?;
        if page.is_empty() {
            break;
        }
        order.extend(page);
    }
    ensure!(order.len() as u64 == RUNS, "the listing holds {} runs, not {RUNS}", order.len());
    Ok(order)
}

/// How long random pages take, each of which has to hold its part of the order.
async fn read_pages(url: &str, order: &[String]) -> Result<Vec<Duration>> {
    let mut connection = Connection::open(url).await?;
    let mut random = Random(1);
    let mut took = Vec::with_capacity(PAGES);
    for _ in 0..PAGES {
        let offset = random_offset(&mut random);
        let path = format!("training_runs?limit={PAGE}&offset={offset}");
        let start = Instant::now();
        let page = connection.get(&path).await?;
        took.push(start.elapsed());
        let expected = order.get(offset..offset + PAGE);
        ensure!(Some(ids(page)?.as_slice()) == expected, "the page at {offset} is not that of the listing");
    }
    Ok(took)
}

/// Calls in a second, over so many connections at a time.
async fn rate(
    connections: u64,
    url: &str,
    call: impl AsyncFn(&mut Connection, &mut Random) -> Result<()>,
) -> Result<f64> {
    let start = Instant::now();
    let work = (0..connections).map(async |n| {
        let mut connection = Connection::open(url).await?;
        let (mut random, mut calls) = (Random(n), 0u32);
        while start.elapsed() < SPAN {
            call(&mut connection, &mut random).await?;
            calls += 1;
        }
        anyhow::Ok(calls)
    });
    let calls = futures_util::future::try_join_all(work).await?;
    Ok(f64::from(calls.iter().sum::<u32>()) / start.elapsed().as_secs_f64())
}

fn heartbeat_body(session_id: &str) -> String {
    serde_json::json!({ "session_id": session_id, "type": "session_heartbeat" }).to_string()
}

async fn client(owner: &ServiceClient, seed: u64) -> Result<TrainingClient> {
    let lora = LoraConfig { rank: RANK, seed: Some(seed), ..LoraConfig::default() };
    Ok(owner.create_lora_training_client(MODEL, lora, None).await?)
}

/// Passes for so long; tokens in a second.
async fn train(client: &TrainingClient, span: Duration) -> Result<f64> {
    let batch: Vec<Datum> = (0..BATCH)
        .map(|k| {
            let token = |t: usize| (k * 31 + t * 7) % 251;
            let tokens = (0..LENGTH).map(|t| token(t) as i32).collect();
            let targets = (1..=LENGTH).map(|t| token(t) as i64).collect();
            Datum::cross_entropy(tokens, targets, vec![1.0; LENGTH])
        })
        .collect();
    let pass = || client.forward_backward(&batch, "cross_entropy", &LossFnConfig::new());
    let mut pending: VecDeque<_> = (0..PIPELINE).map(|_| pass()).collect();
    let start = Instant::now();
    let mut passes = 0;
    while let Some(first) = pending.pop_front() {
        first.await?;
        passes += 1;
        if start.elapsed() < span {
            pending.push_back(pass());
        }
    }
    Ok((passes * BATCH * LENGTH) as f64 / start.elapsed().as_secs_f64())
}

/// How long pages and heartbeats take, by turns, with a pause after each.
async fn calls_while_training(url: &str, heartbeat: &str, span: Duration) -> Result<Vec<Duration>> {
    let mut connection = Connection::open(url).await?;
    let mut random = Random(2);
    let mut took = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < span {
        let path = format!("training_runs?limit={PAGE}&offset={}", random_offset(&mut random));
        let start = Instant::now();
        connection.get(&path).await?;
        took.push(start.elapsed());
        let start = Instant::now();
        connection.post("session_heartbeat", heartbeat).await?;
        took.push(start.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(took)
}

/// Latencies, shortest first.
struct Latencies(Vec<Duration>);

impl Latencies {
    fn new(mut took: Vec<Duration>) -> Self {
        took.sort();
        Self(took)
    }

    /// The latency that this share of the calls did not exceed, in ms.
    fn ms(&self, share: f64) -> f64 {
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).map_or(f64::NAN, |took| took.as_secs_f64() * 1e3)
    }
}

struct Measured {
    startup: Duration,
    pages: Latencies,
    page_rps: f64,
    heartbeat_rps: f64,
    tokens_per_second: f64,
    together: f64,
    api: Latencies,
}

impl Measured {
    fn report(&self) -> Result<()> {
        let Self { startup, pages, page_rps, heartbeat_rps, tokens_per_second, together, api } = self;
        let startup = startup.as_secs_f64();
        let (p50, p99, max) = (pages.ms(0.5), pages.ms(0.99), pages.ms(1.0));
        let (api_p99, calls) = (api.ms(0.99), api.0.len());
        let cores = std::thread::available_parallelism().context("the number of cores is not known")?;
        let rows = [
            ("start-up, until it answers", format!("{startup:.2} s")),
            ("page of runs, median", format!("{p50:.2} ms")),
            ("page of runs, 99th percentile", format!("{p99:.2} ms")),
            ("page of runs, longest", format!("{max:.2} ms")),
            ("pages of runs, 4 connections", format!("{page_rps:.0} per second")),
            ("heartbeats, 8 connections", format!("{heartbeat_rps:.0} per second")),
            ("forward_backward, one run", format!("{tokens_per_second:.0} tokens per second")),
            ("forward_backward, two runs together", format!("{together:.0} tokens per second")),
            ("call while two runs train, 99th percentile", format!("{api_p99:.2} ms")),
        ];
        let table: String = rows.iter().map(|(what, value)| format!("| {what} | {value} |\n")).collect();
        let text = format!(
            "# Benchmark of the embedded service\n\n\
             Written by `cargo xtask bench local`. These are absolute values of one run on one machine ({cores} \
             cores), with the client on the same machine. They say nothing about other software: ratios come with a \
             later benchmark.\n\n\
             | measured | value |\n| --- | --- |\n{table}\n\
             The data directory held {RUNS} runs in {} sessions and {} checkpoints. The release binary ran as a \
             process of its own and was called over loopback, on kept connections. Start-up is from the start of the \
             process until it says where it listens.\n\n\
             A page is `GET /api/v1/training_runs?limit={PAGE}` with a random offset; {PAGES} were read one after the \
             other, and each was held against its part of one full listing. Rates are over {} s.\n\n\
             The runs that train are LoRA adapters of rank {RANK} on `{MODEL}`, with {BATCH} sequences of {LENGTH} tokens \
             in a pass and {PIPELINE} passes on their way at a time. The calls made meanwhile, {calls} of them, were \
             pages and heartbeats by turns.\n",
            RUNS / RUNS_OF_SESSION + 1,
            RUNS / RUNS_TO_CHECKPOINT,
            SPAN.as_secs(),
        );
        let path = Path::new("docs/bench.md");
        std::fs::write(path, &text).with_context(|| format!("{} cannot be written", path.display()))?;
        for (what, value) in &rows {
            println!("{what:<44}{value:>26}");
        }
        let rounded = |value: f64| (value * 1e3).round() / 1e3;
        println!(
            "{}",
            serde_json::json!({
                "run_page_ms_p50": rounded(p50),
                "run_page_ms_p99": rounded(p99),
                "run_page_ms_max": rounded(max),
                "run_page_rps": rounded(*page_rps),
                "heartbeat_rps": rounded(*heartbeat_rps),
                "startup_seconds": rounded(startup),
                "train_tokens_per_second": rounded(*tokens_per_second),
                "api_ms_p99_while_training": rounded(api_p99),
            })
        );
        Ok(())
    }
}
