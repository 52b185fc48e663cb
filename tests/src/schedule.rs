//! One fixed training schedule, so that any run of it can be held against any other, step for step.

use anyhow::{Context, Result};
use retinker::client::{LossFnConfig, TrainingClient};
use retinker::wire::model::LoraConfig;
use retinker::wire::training::{AdamParams, Datum};

/// The smallest base model of the embedded service.
pub const BASE_MODEL: &str = "retinker/nano-llama";

const TEXT: &[u8] = include_bytes!("../../crates/cli/src/demo/corpus.txt");
const LENGTH: usize = 24;
const BATCH: usize = 2;

/// The adapter of every run.
pub fn lora() -> LoraConfig {
    LoraConfig { rank: 4, seed: Some(11), ..LoraConfig::default() }
}

/// The batch of a step.
pub fn batch(step: usize) -> Vec<Datum> {
    let count = (TEXT.len() - 1) / LENGTH;
    (0..BATCH)
        .map(|k| {
            let piece = TEXT.iter().skip((step * BATCH + k) % count * LENGTH).take(LENGTH + 1);
            let tokens: Vec<i32> = piece.map(|&byte| i32::from(byte)).collect();
            let targets = tokens.iter().skip(1).map(|&token| i64::from(token)).collect();
            Datum::cross_entropy(tokens.into_iter().take(LENGTH).collect(), targets, vec![1.0; LENGTH])
        })
        .collect()
}

/// Takes a step and gives its loss.
pub async fn step(client: &TrainingClient, step: usize) -> Result<f64> {
    let gradients = client.forward_backward(batch(step), "cross_entropy", &LossFnConfig::new());
    let update = client.optim_step(AdamParams { learning_rate: 1e-3, ..AdamParams::default() });
    let output = gradients.await?;
    update.await?;
    output.metrics.get("loss:sum").copied().context("the service gave no loss:sum")
}
