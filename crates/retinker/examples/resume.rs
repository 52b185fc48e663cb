//! A training loop that can be stopped at any time and started again: it finds the checkpoint with the most steps among the
//! runs of its name, and goes on from there with the optimizer's state.
//!
//! ```sh
//! export TINKER_BASE_URL=http://127.0.0.1:8788 TINKER_API_KEY=tml-local
//! cargo run -p retinker --example resume -- my-run 10    # trains steps 0 to 9
//! cargo run -p retinker --example resume -- my-run 20    # goes on with step 10
//! ```
#![allow(clippy::disallowed_methods)] // This is the program, which reads its environment.

use std::sync::Arc;

use futures_util::StreamExt;
use retinker::client::{
    Api, Error, LossFnConfig, RestClient, SaveOptions, ServiceClient, TrainingClient, TrainingOptions,
};
use retinker::native::{NativeRuntime, NativeTransport, resolve};
use retinker::wire::UserMetadata;
use retinker::wire::model::LoraConfig;
use retinker::wire::run::CheckpointType;
use retinker::wire::session::FinishReason;
use retinker::wire::training::{AdamParams, Datum};

const MODEL: &str = "retinker/nano-llama";
/// Steps from one checkpoint to the next.
const SAVE_EVERY: u64 = 5;
/// A checkpoint's label that says how many steps were done.
const STEP: &str = "step";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(name), Some(steps)) = (args.next(), args.next()) else {
        return Err("usage: resume NAME STEPS".into());
    };
    let steps: u64 = steps.parse()?;
    let config = resolve(|name| std::env::var(name).ok(), None, None)?;
    let runtime = NativeRuntime::current().ok_or("there is no tokio runtime")?;
    let service = ServiceClient::new(Api::new(config, Arc::new(NativeTransport::new()?), Arc::new(runtime))?);
    let options = TrainingOptions::from(UserMetadata::from([("name".to_owned(), name.clone())]));
    let (client, done) = match furthest(&service.create_rest_client(), &name).await? {
        Some((path, done)) => {
            eprintln!("going on from {path}");
            (service.create_training_client_from_state_with_optimizer(&path, options).await?, done)
        }
        None => {
            let lora = LoraConfig { rank: 8, seed: Some(1), ..LoraConfig::default() };
            (service.create_lora_training_client(MODEL, lora, options).await?, 0)
        }
    };
    train(&client, done, steps).await?;
    service.finish(FinishReason::Success, None).await?;
    Ok(())
}

/// The checkpoint with the most steps among all runs of this name, and how many those are.
async fn furthest(rest: &RestClient, name: &str) -> Result<Option<(String, u64)>, Error> {
    let mut furthest = None;
    let mut pages = Box::pin(rest.training_runs(100));
    while let Some(page) = pages.next().await {
        let named = |labels: &UserMetadata| labels.get("name").is_some_and(|found| found == name);
        for run in page?.into_iter().filter(|run| run.user_metadata.as_ref().is_some_and(named)) {
            let checkpoints = rest.list_checkpoints(&run.training_run_id).await?.checkpoints;
            let counted = checkpoints.into_iter().filter_map(|checkpoint| {
                let steps = checkpoint.user_metadata?.get(STEP)?.parse().ok()?;
                (checkpoint.checkpoint_type == CheckpointType::Training)
                    .then_some((checkpoint.tinker_path, steps))
            });
            furthest = furthest.into_iter().chain(counted).max_by_key(|(_, steps)| *steps);
        }
    }
    Ok(furthest)
}

/// Trains from this step on, and saves now and then, and at the end.
async fn train(client: &TrainingClient, done: u64, steps: u64) -> Result<(), Error> {
    let adam = AdamParams { learning_rate: 1e-2, ..AdamParams::default() };
    for step in done..steps {
        let pass = client.forward_backward(batch(step), "cross_entropy", &LossFnConfig::new());
        let update = client.optim_step(adam);
        let loss = pass.await?.metrics.get("loss:sum").copied().unwrap_or(f64::NAN);
        update.await?;
        println!("step {step} loss {loss}");
        if (step + 1).is_multiple_of(SAVE_EVERY) || step + 1 == steps {
            let labels = UserMetadata::from([(STEP.to_owned(), (step + 1).to_string())]);
            let options =
                SaveOptions { user_metadata: Some(labels), overwrite: true, ..SaveOptions::default() };
            client.save_state(&format!("step-{}", step + 1), options).await?;
        }
    }
    Ok(())
}

/// A step's batch depends on the step's number alone, so that whoever goes on sees what would have come.
fn batch(step: u64) -> Vec<Datum> {
    let token = |at: u64| ((step * 7 + at * at) % 26 + 97) as i32;
    let (tokens, targets) = (0..32).map(|at| (token(at), i64::from(token(at + 1)))).unzip();
    vec![Datum::cross_entropy(tokens, targets, vec![1.0; 32])]
}
