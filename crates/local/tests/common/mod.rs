//! A client as plain as can be, and data to train on.
#![allow(dead_code)] // Each test program uses a part of it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // A test that fails, panics.

pub(crate) mod process;

use std::path::Path;
use std::sync::Once;
use std::time::{Duration, Instant};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use retinker_local::{LocalConfig, LocalService};
use serde_json::{Value, json};

/// The smallest built-in model: steps take milliseconds.
pub(crate) const MODEL: &str = "retinker/nano-llama";
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) fn http() -> reqwest::Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    // What a test sends itself goes before this.
    let key =
        HeaderMap::from_iter([(HeaderName::from_static("x-api-key"), HeaderValue::from_static("tml-test"))]);
    reqwest::Client::builder().default_headers(key).build().unwrap()
}

/// A service in this process.
pub(crate) async fn start(data_dir: &Path) -> LocalService {
    LocalService::start(LocalConfig::new(data_dir)).await.unwrap()
}

#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) http: reqwest::Client,
    pub(crate) base: String,
}

impl Client {
    pub(crate) fn new(base: impl Into<String>) -> Self {
        Self { http: http(), base: base.into() }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}/api/v1/{path}", self.base)
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        answer(self.http.post(self.url(path)).json(&body).send().await.unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        answer(self.http.get(self.url(path)).send().await.unwrap()).await
    }

    /// Posts what has to be accepted.
    pub(crate) async fn ok(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.post(path, body).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    /// Puts what has to be accepted.
    pub(crate) async fn ok_put(&self, path: &str, body: Value) {
        let (status, answer) = answer(self.http.put(self.url(path)).json(&body).send().await.unwrap()).await;
        assert_eq!(status, 200, "{path}: {answer}");
    }

    pub(crate) async fn session(&self) -> String {
        let answer =
            self.ok("create_session", json!({"tags": [], "user_metadata": {}, "sdk_version": "t"})).await;
        answer["session_id"].as_str().unwrap().to_owned()
    }

    /// What a request resolves to: status and body.
    pub(crate) async fn result_of(&self, request_id: &str) -> (u16, Value) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let (status, answer) = self.post("retrieve_future", json!({"request_id": request_id})).await;
            if status == 200 && answer["type"] == "try_again" {
                assert!(Instant::now() < deadline, "{request_id} was never carried out");
                continue;
            }
            return (status, answer);
        }
    }

    /// Submits and waits; the result, which may be a failure.
    pub(crate) async fn call(&self, path: &str, body: Value) -> Value {
        let submitted = self.ok(path, body).await;
        let (status, result) = self.result_of(submitted["request_id"].as_str().unwrap()).await;
        assert_eq!(status, 200, "{path}: {result}");
        result
    }

    /// A new run with a fixed seed.
    pub(crate) async fn run(&self, session: &str, number: u64) -> Run {
        let result = self
            .call(
                "create_model",
                json!({"session_id": session, "model_seq_id": number, "base_model": MODEL,
                       "lora_config": {"rank": 4, "seed": 7}, "user_metadata": {"name": format!("run {number}")}}),
            )
            .await;
        assert_eq!(result["model_id"], format!("{session}:train:{number}"), "{result}");
        Run { client: self.clone(), id: format!("{session}:train:{number}"), seq: 0 }
    }

    /// A run made from a checkpoint, or the failure.
    pub(crate) async fn run_from(
        &self,
        session: &str,
        number: u64,
        path: &str,
        optimizer: bool,
    ) -> Result<Run, Value> {
        let result = self
            .call(
                "load_weights",
                json!({"session_id": session, "model_seq_id": number, "path": path, "optimizer": optimizer,
                       "user_metadata": {"name": "restored"}}),
            )
            .await;
        if result.get("error").is_some() {
            return Err(result);
        }
        Ok(Run { client: self.clone(), id: format!("{session}:train:{number}"), seq: 0 })
    }
}

async fn answer(response: reqwest::Response) -> (u16, Value) {
    let status = response.status().as_u16();
    assert!(
        status < 400 || response.headers().contains_key("content-length"),
        "a refusal without Content-Length is taken for a proxy's fault"
    );
    let bytes = response.bytes().await.unwrap();
    if status >= 400 {
        let detail: Value = serde_json::from_slice(&bytes).unwrap();
        assert!(detail["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{detail}");
        return (status, detail);
    }
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

/// The same run, asked for through this client.
pub(crate) fn at(client: &Client, run: &Run) -> Run {
    Run { client: client.clone(), ..run.clone() }
}

/// One run, as its owner sees it.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) client: Client,
    pub(crate) id: String,
    /// The number of the last request sent.
    pub(crate) seq: u64,
}

impl Run {
    pub(crate) fn next(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    pub(crate) fn pass_body(&self, seq: u64, data: Vec<Value>) -> Value {
        json!({"model_id": self.id, "seq_id": seq,
               "forward_backward_input": {"data": data, "loss_fn": "cross_entropy"}})
    }

    pub(crate) fn step_body(&self, seq: u64) -> Value {
        json!({"model_id": self.id, "seq_id": seq, "adam_params": {"learning_rate": 0.01}})
    }

    pub(crate) async fn forward_backward(&mut self, data: Vec<Value>) -> Value {
        let seq = self.next();
        self.client.call("forward_backward", self.pass_body(seq, data)).await
    }

    pub(crate) async fn forward(&mut self, data: Vec<Value>) -> Value {
        let seq = self.next();
        let body = json!({"model_id": self.id, "seq_id": seq,
                          "forward_input": {"data": data, "loss_fn": "cross_entropy"}});
        self.client.call("forward", body).await
    }

    pub(crate) async fn optim_step(&mut self) -> Value {
        let seq = self.next();
        self.client.call("optim_step", self.step_body(seq)).await
    }

    /// One pass and one step; the loss.
    pub(crate) async fn train(&mut self, step: usize) -> f64 {
        let output = self.forward_backward(batch(step)).await;
        let loss = output["metrics"]["loss:sum"].as_f64().unwrap_or_else(|| panic!("{output}"));
        let stepped = self.optim_step().await;
        assert!(stepped.get("error").is_none(), "{stepped}");
        loss
    }

    pub(crate) async fn losses(&mut self, steps: std::ops::Range<usize>) -> Vec<f64> {
        let mut losses = Vec::new();
        for step in steps {
            losses.push(self.train(step).await);
        }
        losses
    }

    pub(crate) async fn try_save(&mut self, name: &str) -> Value {
        let seq = self.next();
        self.client.call("save_weights", json!({"model_id": self.id, "seq_id": seq, "path": name})).await
    }

    pub(crate) async fn save(&mut self, name: &str) -> String {
        let result = self.try_save(name).await;
        result["path"].as_str().unwrap_or_else(|| panic!("{result}")).to_owned()
    }

    pub(crate) async fn info(&self) -> Value {
        let (status, run) = self.client.get(&format!("training_runs/{}", self.id)).await;
        assert_eq!(status, 200);
        run
    }
}

const TEXT: &[u8] = b"In the beginning there was a checkpoint, and the checkpoint was good. Then the trainer lost its memory.";

/// The data of a step.
pub(crate) fn batch(step: usize) -> Vec<Value> {
    vec![datum(step * 5 % 40, 30), datum(step * 11 % 50, 17)]
}

/// A stretch of text.
pub(crate) fn datum(from: usize, length: usize) -> Value {
    let window = &TEXT[from..from + length + 1];
    json!({
        "model_input": {"chunks": [{"type": "encoded_text", "tokens": &window[..length]}]},
        "loss_fn_inputs": {
            "target_tokens": {"data": &window[1..], "dtype": "int64"},
            "weights": {"data": vec![1.0; length], "dtype": "float32"},
        },
    })
}

/// Asks until the answer is as wanted.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
