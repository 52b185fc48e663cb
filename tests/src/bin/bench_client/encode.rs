//! A large batch, from vectors to the bodies of its requests.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use retinker::client::{Api, ApiConfig, LossFnConfig, TrainingClient};
use retinker::native::NativeRuntime;
use retinker::recovery::restore::Attachment;
use retinker::transport::{Request, Response, Transport, TransportError, TransportErrorKind};
use retinker::wire::training::Datum;
use retinker_tests::process;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

/// Sequences of the batch.
pub(crate) const SEQUENCES: usize = 1024;
/// Tokens of each.
pub(crate) const LENGTH: usize = 4096;
/// How often it is encoded here, and in Python; the best counts.
const ROUNDS: (usize, usize) = (9, 3);
/// Bytes of a token, its target and its weight.
const PAYLOAD: usize = SEQUENCES * LENGTH * (4 + 8 + 4);

/// What a side took.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Encoded {
    pub(crate) payload_bytes: u64,
    pub(crate) seconds: f64,
    /// Of the SDK.
    #[serde(default)]
    pub(crate) version: Option<String>,
}

/// What it took in memory: what was used at most beyond what there was before, over the payload.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) factor: f64,
}

/// A client that cannot send: what is measured ends where sending begins.
fn client() -> Result<TrainingClient> {
    let runtime = NativeRuntime::current().context("there is no tokio runtime")?;
    let config = ApiConfig { base_url: "http://nowhere".to_owned(), ..ApiConfig::default() };
    let api = Api::new(config, Arc::new(Nowhere), Arc::new(runtime))?;
    let attachment = Attachment { session_id: "s".into(), model_id: "s:train:0".into(), next_seq_id: 1 };
    Ok(TrainingClient::attach(api, attachment))
}

#[derive(Debug)]
struct Nowhere;

impl Transport for Nowhere {
    fn send(&self, _request: Request) -> BoxFuture<'static, Result<Response, TransportError>> {
        let error = TransportError::new(TransportErrorKind::Build, "nothing is sent");
        std::future::ready(Err(error)).boxed()
    }
}

/// What a program has before there is a batch: tokens, targets and weights of each sequence.
type Sequence = (Vec<i32>, Vec<i64>, Vec<f32>);

fn sequences() -> Vec<Sequence> {
    let (tokens, targets): (Vec<i32>, Vec<i64>) = (0..LENGTH).map(|i| (i as i32, i as i64)).unzip();
    let weights = vec![1.0; LENGTH];
    (0..SEQUENCES).map(|_| (tokens.clone(), targets.clone(), weights.clone())).collect()
}

fn batch(sequences: Vec<Sequence>) -> Vec<Datum> {
    let made = |(tokens, targets, weights)| Datum::cross_entropy(tokens, targets, weights);
    sequences.into_iter().map(made).collect()
}

/// This side.
pub(crate) async fn here() -> Result<Encoded> {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS.0 {
        let (client, sequences) = (client()?, sequences());
        let begin = Instant::now();
        let data = batch(sequences);
        let pending = client.forward_backward(&data, "cross_entropy", &LossFnConfig::new());
        best = best.min(begin.elapsed().as_secs_f64());
        ensure!(pending.await.is_err(), "it was sent nowhere, and answered");
    }
    Ok(Encoded { payload_bytes: PAYLOAD as u64, seconds: best, version: None })
}

/// The memory of this side.
pub(crate) async fn memory() -> Result<Memory> {
    let client = client()?;
    let id = std::process::id();
    let before = process::resident(id).context("the memory of this process is not known")?;
    let data = batch(sequences());
    let pending = client.forward_backward(&data, "cross_entropy", &LossFnConfig::new());
    let peak = process::peak(id).context("the memory of this process is not known")?;
    drop(pending);
    Ok(Memory { factor: peak.saturating_sub(before) as f64 / PAYLOAD as f64 })
}

/// The official SDK's.
pub(crate) fn python() -> Result<Command> {
    let mut command = crate::python("encode")?;
    command.args([SEQUENCES, LENGTH, ROUNDS.1].map(|number| number.to_string()));
    Ok(command)
}
