//! A service of any number of runs, in this process: no network, no memory for what it lists.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures_util::future::BoxFuture;
use futures_util::stream;
use retinker::client::{Api, ApiConfig};
use retinker::native::NativeRuntime;
use retinker::recovery::drives::Drives;
use retinker::recovery::events::{EventSink, RecoveryEvent};
use retinker::recovery::executor::Executor;
use retinker::recovery::journal::{MemoryStore, Store};
use retinker::recovery::monitor::{Monitor, Parts};
use retinker::recovery::policy::Policy;
use retinker::runtime::Runtime;
use retinker::transport::{Request, Response, Transport, TransportError};

use crate::process;

/// The service: run `n` is poisoned if `n` is a multiple of `every`, 0 = none. Each has a session of its own; those of the
/// first `lasting` last.
#[derive(Debug)]
struct Simulated {
    runs: u64,
    every: u64,
    lasting: u64,
    requests: Arc<AtomicU64>,
}

impl Simulated {
    fn page(&self, limit: u64, offset: u64) -> String {
        let mut body = String::with_capacity(40_000);
        body.push_str(r#"{"training_runs":["#);
        let end = offset.saturating_add(limit).min(self.runs);
        for n in offset..end {
            body.push_str(if n == offset { "" } else { "," });
            self.run(&mut body, n);
        }
        let _ =
            write!(body, r#"],"cursor":{{"offset":{offset},"limit":{limit},"total_count":{}}}}}"#, self.runs);
        body
    }
}

impl Simulated {
    fn run(&self, body: &mut String, n: u64) {
        let corrupted = self.every > 0 && n.is_multiple_of(self.every);
        let _ = write!(
            body,
            r#"{{"training_run_id":"{}:train:0","base_model":"retinker/nano-llama","model_owner":"owner-{}","is_lora":true,"corrupted":{corrupted},"lora_rank":8,"last_request_time":"2026-01-02T03:04:05.678Z","last_checkpoint":{},"user_metadata":{{"name":"run {n}","project":"p{}"}}}}"#,
            session(n),
            n % 10_000,
            checkpoint(n),
            n % 100
        );
    }

    /// The sessions that last.
    fn search(&self) -> String {
        let summary = |n| {
            format!(
                r#"{{"session_id":"{}","created_at":"2026-01-02T03:00:00Z","owner":"me","project_id":"p","checkpoints_count":1,"status":{{"type":"active"}}}}"#,
                session(n)
            )
        };
        let found: Vec<String> = (0..self.lasting).map(summary).collect();
        format!(r#"{{"sessions":[{}]}}"#, found.join(","))
    }
}

fn session(n: u64) -> String {
    format!("{n:08x}-7d3f-4a0e-9a55-0f1d2c3b4a59")
}

/// The number of the run or session in a path.
fn numbered(id: &str) -> u64 {
    u64::from_str_radix(id.get(..8).unwrap_or("0"), 16).unwrap_or(0)
}

fn checkpoint(n: u64) -> String {
    format!(
        r#"{{"checkpoint_id":"weights/a","checkpoint_type":"training","time":"2026-01-02T03:00:00Z","tinker_path":"tinker://{n:08x}-7d3f-4a0e-9a55-0f1d2c3b4a59:train:0/weights/a","size_bytes":1048576,"public":false}}"#
    )
}

/// A number of the query.
fn number(url: &str, name: &str) -> u64 {
    let found = url.split(['?', '&']).find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    found.and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl Transport for Simulated {
    fn send(&self, request: Request) -> BoxFuture<'static, Result<Response, TransportError>> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let path = request.url.split_once("/api/v1/").map_or("", |(_, path)| path);
        let body = if path.starts_with("training_runs?") {
            self.page(number(path, "limit"), number(path, "offset"))
        } else if path == "sessions/search" {
            self.search()
        } else if let Some(id) = path.strip_prefix("sessions/") {
            format!(r#"{{"training_run_ids":["{id}:train:0"],"sampler_ids":[]}}"#)
        } else if let Some(id) = path.strip_prefix("training_runs/") {
            match id.strip_suffix("/checkpoints") {
                Some(id) => format!(r#"{{"checkpoints":[{}]}}"#, checkpoint(numbered(id))),
                None => {
                    let mut body = String::new();
                    self.run(&mut body, numbered(id));
                    body
                }
            }
        } else {
            "{}".to_owned()
        };
        let body = Box::pin(stream::iter([Ok(body.into())]));
        Box::pin(std::future::ready(Ok(Response { status: 200, headers: Vec::new(), body })))
    }
}

#[derive(Debug)]
struct Nobody;

impl EventSink for Nobody {
    fn tell(&self, _: &RecoveryEvent) {}
}

/// What a round took.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Runs of the service.
    pub runs: u64,
    /// Of them poisoned.
    pub lost: u64,
    /// Requests.
    pub requests: u64,
    /// Processor time of this process; of a whole reading without what it takes to make the answers.
    pub cpu: Duration,
    /// Memory beyond what there was before, at most, in bytes.
    pub memory: u64,
}

/// What rounds took.
#[derive(Debug, Clone, Copy)]
pub struct Costs {
    /// Of one that reads the whole list.
    pub whole: Cost,
    /// Of the next.
    pub part: Cost,
}

/// Rounds of a monitor that restores nothing, over so many runs of which every so manieth is poisoned and so many last: an
/// earlier one has noted what is poisoned.
pub async fn rounds(runs: u64, every: u64, lasting: u64) -> Result<Costs> {
    let requests = Arc::<AtomicU64>::default();
    let runtime: Arc<dyn Runtime> = Arc::new(NativeRuntime::current().context("there is no runtime")?);
    let service = Simulated { runs, every, lasting, requests: Arc::clone(&requests) };
    let answers = making_answers(&service)?;
    let config = ApiConfig { base_url: "http://simulated".to_owned(), ..ApiConfig::default() };
    let api = Api::new(config, Arc::new(service), Arc::clone(&runtime))?;
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::clone(&runtime)));
    let executor = Executor::new(api.clone(), Arc::clone(&store), Arc::clone(&runtime));
    let drives = Drives::new(executor, Arc::clone(&runtime));
    let monitor = Monitor::new(Parts {
        api,
        store,
        runtime,
        drives,
        // The runs are of long ago.
        policy: Policy { max_age_ms: u64::MAX, ..Policy::default() },
        sink: Arc::new(Nobody),
        service: "simulated".to_owned(),
    });
    let id = std::process::id();
    let resident = || process::resident(id).context("the memory of this process is not known");
    let cpu = || process::cpu_time(id).context("the processor time of this process is not known");
    let empty = resident()?;
    let measured = async |making: Duration| {
        requests.store(0, Ordering::Relaxed);
        let before = cpu()?;
        let round = monitor.round().await?;
        let spent = (cpu()? - before).saturating_sub(making);
        let peak = process::peak(id).context("the memory of this process is not known")?;
        anyhow::ensure!(round.runs == runs, "{} runs were counted instead of {runs}", round.runs);
        Ok(Cost {
            runs: round.runs,
            lost: round.lost,
            requests: requests.load(Ordering::Relaxed),
            cpu: spent,
            memory: peak.saturating_sub(empty),
        })
    };
    measured(answers).await?;
    monitor.want_whole();
    let whole = measured(answers).await?;
    Ok(Costs { whole, part: measured(Duration::ZERO).await? })
}

/// How long it takes to make the answers of a whole reading.
fn making_answers(service: &Simulated) -> Result<Duration> {
    let begin = Instant::now();
    let mut bytes = 0;
    for offset in (0..service.runs).step_by(100) {
        bytes += std::hint::black_box(service.page(100, offset)).len();
    }
    anyhow::ensure!(bytes > 0 || service.runs == 0, "the simulated service lists nothing");
    Ok(begin.elapsed())
}
