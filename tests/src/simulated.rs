//! A service of any number of runs, in this process or over HTTP: no memory for what it lists.

pub mod http;
mod odd;
mod service;

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

pub use self::service::Service;
use crate::process;

/// A transport whose other end is in this process.
#[derive(Debug)]
struct Simulated {
    service: Arc<Service>,
    requests: Arc<AtomicU64>,
}

impl Transport for Simulated {
    fn send(&self, request: Request) -> BoxFuture<'static, Result<Response, TransportError>> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let path = request.url.split_once("/api/v1/").map_or("", |(_, path)| path);
        let body = self.service.answer(path, &[]).unwrap_or_else(|| "{}".to_owned());
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
    let service = Arc::new(Service::alike(runs, every, lasting));
    let answers = making_answers(&service)?;
    let transport = Simulated { service, requests: Arc::clone(&requests) };
    let config = ApiConfig { base_url: "http://simulated".to_owned(), ..ApiConfig::default() };
    let api = Api::new(config, Arc::new(transport), Arc::clone(&runtime))?;
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
        by: "a monitor".to_owned(),
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
fn making_answers(service: &Service) -> Result<Duration> {
    let begin = Instant::now();
    let mut bytes = 0;
    for offset in (0..service.runs).step_by(100) {
        bytes += std::hint::black_box(service.page(100, offset)).len();
    }
    anyhow::ensure!(bytes > 0 || service.runs == 0, "the simulated service lists nothing");
    Ok(begin.elapsed())
}
