//! PyTorch, as a process that trains when it is told to.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use retinker_nn::{LoraConfig, ModelConfig};
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::training::{Load, Speed};
use retinker_tests::process;

const SCRIPT: &str = "tests/bench/torch_baseline.py";

/// A PyTorch that waits; killed when dropped.
pub(crate) struct Torch {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
    load: Load,
    pub(crate) about: About,
}

/// What it says of itself.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct About {
    /// PyTorch's version.
    pub(crate) torch: String,
    /// The file of the library that multiplies matrices.
    pub(crate) blas: String,
    /// How many parameters it trains.
    pub(crate) trained: usize,
}

#[derive(Deserialize)]
struct Steps {
    steps: u32,
    seconds: f64,
}

impl Torch {
    /// Starts it on this model with so many threads, as fast as it gets: OpenBLAS may be built for threads of its own, which
    /// can get in the way of PyTorch's. Warmed up.
    pub(crate) async fn fastest(
        python: &Path,
        model: &ModelConfig,
        lora: &LoraConfig,
        load: Load,
        threads: usize,
        warm_up: Duration,
    ) -> Result<Self> {
        let mut fastest: Option<(f64, Self)> = None;
        for blas_threads in BTreeSet::from([1, threads]) {
            let mut torch = Self::start(python, model, lora, load, threads, blas_threads).await?;
            torch.train(warm_up).await?;
            let speed = torch.train(warm_up).await?.tokens;
            if fastest.as_ref().is_none_or(|(other, _)| speed > *other) {
                fastest = Some((speed, torch));
            }
        }
        fastest.map(|(_, torch)| torch).context("PyTorch was not started")
    }

    async fn start(
        python: &Path,
        model: &ModelConfig,
        lora: &LoraConfig,
        load: Load,
        threads: usize,
        blas_threads: usize,
    ) -> Result<Self> {
        let mut child = Command::new(python)
            .arg(SCRIPT)
            .env("OMP_NUM_THREADS", threads.to_string())
            .env("OPENBLAS_NUM_THREADS", blas_threads.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} could not be started", python.display()))?;
        let stdin = child.stdin.take().context("PyTorch has no input")?;
        let stdout = BufReader::new(child.stdout.take().context("PyTorch has no output")?).lines();
        let about = About { torch: String::new(), blas: String::new(), trained: 0 };
        let mut torch = Self { child, stdin, stdout, load, about };
        let sizes = json!({
            "vocab_size": model.vocab_size,
            "d_model": model.d_model,
            "n_layers": model.n_layers,
            "n_heads": model.n_heads,
            "n_kv_heads": model.n_kv_heads,
            "d_ff": model.d_ff,
            "rope_theta": model.rope_theta,
            "norm_eps": model.norm_eps,
            "rank": lora.rank,
            "alpha": lora.alpha,
            "batch": load.batch,
            "length": load.length,
            "threads": threads,
        });
        torch.about = serde_json::from_str(&torch.ask(&sizes.to_string()).await?)?;
        Ok(torch)
    }

    async fn ask(&mut self, line: &str) -> Result<String> {
        self.stdin.write_all(format!("{line}\n").as_bytes()).await?;
        self.stdout.next_line().await?.context("PyTorch ended; what it said is above")
    }

    /// Steps for so long.
    pub(crate) async fn train(&mut self, span: Duration) -> Result<Speed> {
        let id = self.child.id();
        let before = id.and_then(process::cpu_time);
        let answer: Steps = serde_json::from_str(&self.ask(&span.as_secs_f64().to_string()).await?)?;
        let tokens = f64::from(answer.steps) * self.load.tokens() as f64;
        let after = id.and_then(process::cpu_time);
        Ok(Speed::new(tokens, answer.seconds, before.zip(after).map(|(before, after)| after - before)))
    }
}
