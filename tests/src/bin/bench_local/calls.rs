//! Calls: how many in a second, and how long they take.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use retinker::client::{ServiceClient, TrainingClient};
use retinker::wire::run::{CheckpointsResponse, TrainingRunsResponse};
use retinker::wire::training::AdamParams;
use retinker_tests::http::Connection;
use retinker_tests::random::Random;
use retinker_tests::service::ServiceProcess;

use crate::SPAN;
use crate::stored::{CHECKPOINTS_OF_RUN, RUNS};
use crate::training::{self, Load};

/// Runs on a page.
pub(crate) const PAGE: usize = 100;
/// Pages read one after the other.
pub(crate) const PAGES: usize = 2000;
/// Results that are read again and again.
pub(crate) const RESULTS: usize = 256;
/// Connections for small answers, and for pages.
pub(crate) const CONNECTIONS: (u64, u64) = (8, 4);

/// What was measured.
pub(crate) struct Calls {
    pub(crate) pages: Latencies,
    pub(crate) checkpoint_pages: Latencies,
    pub(crate) page_rps: f64,
    pub(crate) heartbeat_rps: f64,
    pub(crate) retrieve_rps: f64,
    /// Pages and heartbeats by turns, while two runs train.
    pub(crate) while_training: Latencies,
}

/// Measures calls of a service that holds [`RUNS`] runs.
pub(crate) async fn measure(service: &ServiceProcess) -> Result<Calls> {
    let url = service.base_url.as_str();
    eprintln!("reading pages");
    let order = full_listing(url).await?;
    let pages = Latencies::new(read_pages(url, &order).await?);
    let checkpoint_pages = Latencies::new(read_checkpoint_pages(url).await?);
    let page_rps = rate(CONNECTIONS.1, url, async |connection, random| {
        let offset = random_offset(random, RUNS);
        connection.get(&format!("training_runs?limit={PAGE}&offset={offset}")).await.map(|_| ())
    })
    .await?;
    eprintln!("sending heartbeats");
    let owner = ServiceClient::new(service.api()?);
    let heartbeat = heartbeat_body(&owner.session_id().await?);
    let heartbeat_rps = rate(CONNECTIONS.0, url, async |connection, _| {
        connection.post("session_heartbeat", &heartbeat).await.map(|_| ())
    })
    .await?;
    eprintln!("retrieving finished futures");
    let (first, second) = (training::client(&owner, 1).await?, training::client(&owner, 2).await?);
    let questions = finished(&first).await?;
    let retrieve_rps = rate(CONNECTIONS.0, url, async |connection, random| {
        let at = (random.next() % RESULTS as u64) as usize;
        let question = questions.get(at).context("there are fewer results than were made")?;
        let answer = connection.post("retrieve_future", question).await?;
        ensure!(answer.starts_with(b"{\"metrics\""), "a finished request was answered without its result");
        Ok(())
    })
    .await?;
    eprintln!("calling while two runs train");
    let load = Load { batch: 8, length: 64 };
    let (one, two, took) = tokio::join!(
        training::train(&first, load, SPAN),
        training::train(&second, load, SPAN),
        calls_while_training(url, &heartbeat, SPAN)
    );
    one?;
    two?;
    let while_training = Latencies::new(took?);
    Ok(Calls { pages, checkpoint_pages, page_rps, heartbeat_rps, retrieve_rps, while_training })
}

fn random_offset(random: &mut Random, of: u64) -> usize {
    (random.next() % (of - PAGE as u64 + 1)) as usize
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
        let offset = random_offset(&mut random, RUNS);
        let path = format!("training_runs?limit={PAGE}&offset={offset}");
        let start = Instant::now();
        let page = connection.get(&path).await?;
        took.push(start.elapsed());
        let expected = order.get(offset..offset + PAGE);
        ensure!(Some(ids(page)?.as_slice()) == expected, "the page at {offset} is not that of the listing");
    }
    Ok(took)
}

/// How long random pages of everybody's checkpoints take, each of which has to be whole.
async fn read_checkpoint_pages(url: &str) -> Result<Vec<Duration>> {
    let mut connection = Connection::open(url).await?;
    let mut random = Random(3);
    let mut took = Vec::with_capacity(PAGES);
    for _ in 0..PAGES {
        let offset = random_offset(&mut random, RUNS * CHECKPOINTS_OF_RUN);
        let start = Instant::now();
        let page = connection.get(&format!("checkpoints?limit={PAGE}&offset={offset}")).await?;
        took.push(start.elapsed());
        let page: CheckpointsResponse = serde_json::from_slice(page)?;
        let found = page.checkpoints.len();
        ensure!(found == PAGE, "the page of checkpoints at {offset} holds {found}, not {PAGE}");
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

/// Bodies that ask for results that are there.
async fn finished(client: &TrainingClient) -> Result<Vec<String>> {
    let mut questions = Vec::with_capacity(RESULTS);
    for _ in 0..RESULTS {
        let mut step = client.optim_step(AdamParams::default());
        (&mut step).await?;
        let request_id = step.request_id().context("a request that was answered has no id")?;
        questions.push(serde_json::json!({ "request_id": request_id }).to_string());
    }
    Ok(questions)
}

/// How long pages and heartbeats take, by turns, with a pause after each two.
async fn calls_while_training(url: &str, heartbeat: &str, span: Duration) -> Result<Vec<Duration>> {
    let mut connection = Connection::open(url).await?;
    let mut random = Random(2);
    let mut took = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < span {
        let path = format!("training_runs?limit={PAGE}&offset={}", random_offset(&mut random, RUNS));
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
pub(crate) struct Latencies(Vec<Duration>);

impl Latencies {
    fn new(mut took: Vec<Duration>) -> Self {
        took.sort();
        Self(took)
    }

    /// How many calls there were.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The latency that this share of the calls did not exceed, in ms.
    pub(crate) fn ms(&self, share: f64) -> f64 {
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).map_or(f64::NAN, |took| took.as_secs_f64() * 1e3)
    }
}
