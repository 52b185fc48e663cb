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

/// The service: run `n` is poisoned if `n` is a multiple of `every`, 0 = none.
#[derive(Debug)]
struct Simulated {
    runs: u64,
    every: u64,
    requests: Arc<AtomicU64>,
}

impl Simulated {
    fn page(&self, limit: u64, offset: u64) -> String {
        let mut body = String::with_capacity(40_000);
        body.push_str(r#"{"training_runs":["#);
        let end = offset.saturating_add(limit).min(self.runs);
        for n in offset..end {
            let corrupted = self.every > 0 && n % self.every == 0;
            let comma = if n == offset { "" } else { "," };
            let _ = write!(
                body,
                r#"{comma}{{"training_run_id":"{n:08x}-7d3f-4a0e-9a55-0f1d2c3b4a59:train:0","base_model":"retinker/nano-llama","model_owner":"owner-{}","is_lora":true,"corrupted":{corrupted},"lora_rank":8,"last_request_time":"2026-01-02T03:04:05.678Z","last_checkpoint":{},"user_metadata":{{"name":"run {n}","project":"p{}"}}}}"#,
                n % 10_000,
                checkpoint(n),
                n % 100
            );
        }
        let _ =
            write!(body, r#"],"cursor":{{"offset":{offset},"limit":{limit},"total_count":{}}}}}"#, self.runs);
        body
    }
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
        } else if let Some(id) =
            path.strip_prefix("training_runs/").and_then(|p| p.strip_suffix("/checkpoints"))
        {
            let n = u64::from_str_radix(id.get(..8).unwrap_or("0"), 16).unwrap_or(0);
            format!(r#"{{"checkpoints":[{}]}}"#, checkpoint(n))
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
    /// Runs listed.
    pub runs: u64,
    /// Of them poisoned.
    pub lost: u64,
    /// Requests.
    pub requests: u64,
    /// Processor time of this process, without what it takes to make the answers.
    pub cpu: Duration,
    /// Memory beyond what there was before, at most, in bytes.
    pub memory: u64,
}

/// The second round of a monitor that restores nothing, over so many runs of which every so manieth is poisoned: the first
/// has noted what is poisoned.
pub async fn round(runs: u64, every: u64) -> Result<Cost> {
    let requests = Arc::<AtomicU64>::default();
    let runtime: Arc<dyn Runtime> = Arc::new(NativeRuntime::current().context("there is no runtime")?);
    let service = Simulated { runs, every, requests: Arc::clone(&requests) };
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
        policy: Policy::default(),
        sink: Arc::new(Nobody),
        service: "simulated".to_owned(),
    });
    let id = std::process::id();
    let resident = || process::resident(id).context("the memory of this process is not known");
    let cpu = || process::cpu_time(id).context("the processor time of this process is not known");
    let empty = resident()?;
    monitor.round().await?;
    requests.store(0, Ordering::Relaxed);
    let before = cpu()?;
    let round = monitor.round().await?;
    let spent = (cpu()? - before).saturating_sub(answers);
    Ok(Cost {
        runs: round.runs,
        lost: round.lost,
        requests: requests.load(Ordering::Relaxed),
        cpu: spent,
        memory: process::peak(id).context("the memory of this process is not known")?.saturating_sub(empty),
    })
}

/// How long it takes to make the answers of a round.
fn making_answers(service: &Simulated) -> Result<Duration> {
    let begin = Instant::now();
    let mut bytes = 0;
    for offset in (0..service.runs).step_by(100) {
        bytes += std::hint::black_box(service.page(100, offset)).len();
    }
    anyhow::ensure!(bytes > 0 || service.runs == 0, "the simulated service lists nothing");
    Ok(begin.elapsed())
}
