//! A training loop that goes on through the loss of its run, and through its own end: its requests are in a redo log on the
//! disk. Stop it at any time, poison its run, and start it again.
//!
//! ```sh
//! export TINKER_BASE_URL=http://127.0.0.1:8788 TINKER_API_KEY=tml-local
//! cargo run -p retinker --example redo -- ./my-run.redo 20    # trains steps 1 to 20
//! cargo run -p retinker --example redo -- ./my-run.redo 40    # goes on with step 21
//! ```
//!
//! Once it has ended, or meanwhile: `retinker restore RUN --to-step 12 --log ./my-run.redo`.
#![allow(clippy::disallowed_methods)] // This is the program, which reads its environment.

use std::sync::Arc;

use retinker::client::{Api, LossFnConfig, ServiceClient};
use retinker::native::{DiskLog, NativeRuntime, NativeTransport, resolve};
use retinker::redo::{CheckpointPolicy, Redo, RedoOptions};
use retinker::wire::model::LoraConfig;
use retinker::wire::training::{AdamParams, Datum};

const MODEL: &str = "retinker/nano-llama";
const TEXT: &[u8] = b"It was the best of times, it was the worst of times, it was the age of wisdom";
const LENGTH: usize = 32;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(log), Some(steps)) = (args.next(), args.next()) else {
        return Err("usage: redo LOG-DIRECTORY STEPS".into());
    };
    let steps: u64 = steps.parse()?;
    let config = resolve(|name| std::env::var(name).ok(), None, None)?;
    let runtime = NativeRuntime::current().ok_or("there is no tokio runtime")?;
    let service = ServiceClient::new(Api::new(config, Arc::new(NativeTransport::new()?), Arc::new(runtime))?);
    let lora = LoraConfig { rank: 4, seed: Some(1), ..LoraConfig::default() };
    let options = RedoOptions {
        checkpoints: CheckpointPolicy { every_steps: Some(10), ..CheckpointPolicy::default() },
        ..RedoOptions::default()
    };
    let redo = Redo::lora(&service, DiskLog::open(log)?, MODEL, lora, options).await?;
    let training = redo.training_client();
    let done = redo.resumed().map_or(0, |resumed| resumed.step);
    for step in done..steps {
        // What a step is trained on depends on its number alone: a program that begins again sees what it would have seen.
        let passed =
            training.forward_backward(vec![datum(step as usize)], "cross_entropy", &LossFnConfig::new());
        training.optim_step(AdamParams { learning_rate: 1e-3, ..AdamParams::default() }).await?;
        let loss = passed.await?.metrics.get("loss:sum").copied().unwrap_or(f64::NAN);
        println!("{}\t{loss:.4}\t{}", step + 1, training.model_id());
    }
    Ok(())
}

fn datum(step: usize) -> Datum {
    let piece: Vec<i32> = TEXT
        .iter()
        .cycle()
        .skip(step * 7 % TEXT.len())
        .take(LENGTH + 1)
        .map(|byte| i32::from(*byte))
        .collect();
    let targets = piece.iter().skip(1).map(|token| i64::from(*token)).collect();
    Datum::cross_entropy(piece.into_iter().take(LENGTH).collect(), targets, vec![1.0; LENGTH])
}
