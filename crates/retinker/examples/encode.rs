//! A large batch, from vectors to the bodies of its requests: what `cargo xtask bench client` measures, natively and under
//! wasm from one text. Prints one line of JSON. Nothing is sent anywhere.
//!
//! `encode` measures time, `encode memory` (natively, on Linux) what it takes in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_core::future::BoxFuture;
use futures_util::FutureExt;
use retinker::client::{Api, ApiConfig, Error, ErrorKind, LossFnConfig, TrainingClient};
use retinker::recovery::restore::Attachment;
use retinker::runtime::Runtime;
use retinker::transport::{Request, Response, Transport, TransportError};
use retinker::wire::training::Datum;

/// Sequences of the batch.
const SEQUENCES: usize = 1024;
/// Tokens of each.
const LENGTH: usize = 4096;
/// How often it is encoded; the best counts.
const ROUNDS: usize = 9;
/// Bytes of a token, its target and its weight.
const PAYLOAD: usize = SEQUENCES * LENGTH * (4 + 8 + 4);

/// Takes requests as a server would that needs so long for each, and carries none of them out.
#[derive(Debug)]
struct Nowhere {
    runtime: Arc<dyn Runtime>,
    takes: Duration,
    received: AtomicUsize,
}

impl Transport for Nowhere {
    fn send(&self, request: Request) -> BoxFuture<'static, Result<Response, TransportError>> {
        self.received.fetch_add(request.body.len(), Ordering::Relaxed);
        let body = if request.url.ends_with("/forward_backward") {
            r#"{"request_id":"1"}"#
        } else if request.url.ends_with("/retrieve_future") {
            r#"{"error":"nothing is carried out here","category":"user"}"#
        } else {
            "{}"
        };
        let (runtime, takes) = (self.runtime.clone(), self.takes);
        let answer = async move {
            if !takes.is_zero() {
                runtime.sleep(takes).await;
            }
            // Held until now, as it would be while it is sent.
            drop(request);
            let body = futures_util::stream::iter([Ok(body.into())]);
            Ok(Response { status: 200, headers: Vec::new(), body: Box::pin(body) })
        };
        answer.boxed()
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

fn client(runtime: &Arc<dyn Runtime>, takes: Duration) -> Result<(TrainingClient, Arc<Nowhere>), Error> {
    let config = ApiConfig { base_url: "http://nowhere".to_owned(), ..ApiConfig::default() };
    let transport = Arc::new(Nowhere { runtime: runtime.clone(), takes, received: AtomicUsize::new(0) });
    let api = Api::new(config, transport.clone(), runtime.clone())?;
    let attachment = Attachment { session_id: "s".into(), model_id: "s:train:0".into(), next_seq_id: 1 };
    Ok((TrainingClient::attach(api, attachment), transport))
}

/// Sends a batch; whether all of it was.
async fn send(client: &TrainingClient, transport: &Nowhere, data: Vec<Datum>) -> bool {
    let result = client.forward_backward(data, "cross_entropy", &LossFnConfig::new()).await;
    let carried_out = matches!(result.map_err(|error| error.kind().clone()), Err(ErrorKind::Failed { .. }));
    carried_out && transport.received.load(Ordering::Relaxed) > PAYLOAD
}

/// The least seconds that a round took, as JSON.
async fn time(runtime: Arc<dyn Runtime>) -> Result<String, String> {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let (client, transport) = client(&runtime, Duration::ZERO).map_err(|e| e.to_string())?;
        let sequences = sequences();
        let begin = runtime.monotonic();
        let whole = send(&client, &transport, batch(sequences)).await;
        best = best.min((runtime.monotonic() - begin).as_secs_f64());
        if !whole {
            return Err("the batch was not sent as a whole".to_owned());
        }
    }
    Ok(serde_json::json!({ "payload_bytes": PAYLOAD, "seconds": best }).to_string())
}

#[cfg(not(target_arch = "wasm32"))]
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = retinker::native::NativeRuntime::current().ok_or("there is no tokio runtime")?;
    let runtime: Arc<dyn Runtime> = Arc::new(runtime);
    let line = match std::env::args().nth(1).as_deref() {
        None => time(runtime).await?,
        Some("memory") => memory::taken(&runtime).await?,
        Some(other) => return Err(format!("'{other}' cannot be measured; 'memory' can").into()),
    };
    println!("{line}");
    Ok(())
}

#[cfg(not(target_arch = "wasm32"))]
mod memory {
    use super::*;

    /// What a server on another machine takes for a request, about.
    const TAKES: Duration = Duration::from_millis(50);

    /// The most memory in use beyond what there was before, over the payload, as JSON.
    pub(super) async fn taken(runtime: &Arc<dyn Runtime>) -> Result<String, Box<dyn std::error::Error>> {
        let (client, transport) = client(runtime, TAKES)?;
        let before = in_use("VmRSS:")?;
        if !send(&client, &transport, batch(sequences())).await {
            return Err("the batch was not sent as a whole".into());
        }
        let factor = in_use("VmHWM:")?.saturating_sub(before) as f64 / PAYLOAD as f64;
        Ok(serde_json::json!({ "factor": factor }).to_string())
    }

    fn in_use(member: &str) -> Result<usize, Box<dyn std::error::Error>> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(member)).ok_or("no such member")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse::<usize>()? * 1024)
    }
}

#[cfg(target_arch = "wasm32")]
#[wasm_bindgen::prelude::wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = console)]
    fn log(line: &str);
}

#[cfg(target_arch = "wasm32")]
fn main() {
    wasm_bindgen_futures::spawn_local(async {
        match time(Arc::new(retinker::web::WebRuntime::new())).await {
            Ok(line) => log(&line),
            Err(error) => log(&error),
        }
    });
}
