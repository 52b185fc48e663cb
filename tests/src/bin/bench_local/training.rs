//! Training by the service, over HTTP as any client does it, and by PyTorch, by turns.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use retinker::client::{LossFnConfig, ServiceClient, TrainingClient, TrainingOptions};
use retinker::wire::model::LoraConfig;
use retinker::wire::training::{AdamParams, Datum};
use retinker_nn as nn;
use retinker_tests::service::ServiceProcess;

use crate::torch::{About, Torch};
use retinker_tests::process;

/// What trains.
pub(crate) const MODEL: &str = "retinker/tiny-llama-1m";
pub(crate) const RANK: u32 = 32;
/// Steps on their way at a time, each a pass and an optimizer step.
pub(crate) const PIPELINE: usize = 2;
/// How often each of the two is measured.
pub(crate) const ROUNDS: usize = 5;
/// How long each time.
pub(crate) const TURN: Duration = Duration::from_secs(4);
/// Batches that are compared.
pub(crate) const LOADS: [Load; 2] = [Load { batch: 8, length: 64 }, Load { batch: 8, length: 256 }];

/// The size of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) batch: usize,
    pub(crate) length: usize,
}

impl Load {
    /// Tokens in a batch.
    pub(crate) fn tokens(self) -> usize {
        self.batch * self.length
    }

    pub(crate) fn data(self) -> Vec<Datum> {
        (0..self.batch)
            .map(|k| {
                let token = |t: usize| (k * 31 + t * 7) % 251;
                let tokens = (0..self.length).map(|t| token(t) as i32).collect();
                let targets = (1..=self.length).map(|t| token(t) as i64).collect();
                Datum::cross_entropy(tokens, targets, vec![1.0; self.length])
            })
            .collect()
    }
}

/// How fast something trained.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Speed {
    /// Tokens in a second.
    pub(crate) tokens: f64,
    /// Tokens in a second of processor time.
    pub(crate) by_cpu: Option<f64>,
}

impl Speed {
    pub(crate) fn new(tokens: f64, seconds: f64, cpu: Option<Duration>) -> Self {
        Self { tokens: tokens / seconds, by_cpu: cpu.map(|cpu| tokens / cpu.as_secs_f64()) }
    }
}

/// The two beside each other, with one batch size and number of threads.
pub(crate) struct Comparison {
    pub(crate) load: Load,
    pub(crate) threads: usize,
    /// Of each round: ours, then PyTorch's.
    pub(crate) rounds: Vec<(Speed, Speed)>,
    pub(crate) torch: About,
}

impl Comparison {
    /// The median of something over the rounds.
    pub(crate) fn median(&self, of: impl Fn(&(Speed, Speed)) -> f64) -> f64 {
        let mut values: Vec<f64> = self.rounds.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// How many times as fast as PyTorch: the median of the rounds' ratios.
    pub(crate) fn ratio(&self) -> f64 {
        self.median(|(ours, torch)| ours.tokens / torch.tokens)
    }

    /// The same by processor time.
    pub(crate) fn cpu_ratio(&self) -> f64 {
        let by_cpu = |speed: &Speed| speed.by_cpu.unwrap_or(f64::NAN);
        self.median(|(ours, torch)| by_cpu(ours) / by_cpu(torch))
    }
}

/// Compares every batch size, with one thread and with one for each core.
pub(crate) async fn beside_torch(cores: usize) -> Result<Vec<Comparison>> {
    let python = std::env::var_os("RETINKER_TORCH_PYTHON").map(PathBuf::from);
    let python = python.context("RETINKER_TORCH_PYTHON names no python: use `cargo xtask bench local`")?;
    let model = nn::ModelConfig::by_name(MODEL).with_context(|| format!("there is no model {MODEL}"))?;
    let lora = nn::LoraConfig { rank: RANK as usize, ..nn::LoraConfig::default() };
    let trained = nn::Layout::new(&model, &lora)?.parameter_count();
    let mut comparisons = Vec::new();
    for threads in if cores > 1 { vec![1, cores] } else { vec![1] } {
        for load in LOADS {
            eprintln!("training, {threads} threads, {} x {} tokens", load.batch, load.length);
            let data = tempfile::tempdir()?;
            let service =
                ServiceProcess::start_with(data.path(), &["--threads", &threads.to_string()]).await?;
            let client = client(&ServiceClient::new(service.api()?), 1).await?;
            let mut torch = Torch::fastest(&python, &model, &lora, load, threads, TURN / 4).await?;
            let found = torch.about.trained;
            ensure!(found == trained, "PyTorch trains {found} parameters, the service {trained}");
            train(&client, load, TURN / 4).await?;
            let mut rounds = Vec::new();
            for _ in 0..ROUNDS {
                let cpu = || service.id().and_then(process::cpu_time);
                let before = cpu();
                let (tokens, took) = train(&client, load, TURN).await?;
                let used = before.zip(cpu()).map(|(before, after)| after - before);
                let ours = Speed::new(tokens as f64, took.as_secs_f64(), used);
                rounds.push((ours, torch.train(TURN).await?));
            }
            let comparison = Comparison { load, threads, rounds, torch: torch.about.clone() };
            eprintln!("{:.2} times as fast as PyTorch", comparison.ratio());
            comparisons.push(comparison);
            service.kill().await?;
        }
    }
    Ok(comparisons)
}

/// A run on the default model.
pub(crate) async fn client(owner: &ServiceClient, seed: u64) -> Result<TrainingClient> {
    let lora = LoraConfig { rank: RANK, seed: Some(seed), ..LoraConfig::default() };
    Ok(owner.create_lora_training_client(MODEL, lora, TrainingOptions::default()).await?)
}

/// Steps for so long; tokens, and the time they took.
pub(crate) async fn train(client: &TrainingClient, load: Load, span: Duration) -> Result<(usize, Duration)> {
    let batch = load.data();
    let params = AdamParams::default();
    let step = || {
        let pass = client.forward_backward(batch.as_slice(), "cross_entropy", &LossFnConfig::new());
        (pass, client.optim_step(params))
    };
    let start = Instant::now();
    let mut pending: VecDeque<_> = (0..PIPELINE).map(|_| step()).collect();
    let mut steps = 0;
    while let Some((pass, update)) = pending.pop_front() {
        pass.await?;
        update.await?;
        steps += 1;
        if start.elapsed() < span {
            pending.push_back(step());
        }
    }
    Ok((steps * load.tokens(), start.elapsed()))
}
