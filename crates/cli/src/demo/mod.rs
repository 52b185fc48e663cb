//! What fills an empty data directory: a handful of short training runs on a public-domain text, trained live
//! through the client, and then a real failure. A trainer loses its memory, and the runs that it held with unsaved
//! work are poisoned, one of them before its first checkpoint.

mod corpus;
mod marker;
mod story;

use std::sync::Arc;

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use retinker::client::{Api, ApiConfig, LossFnConfig, Pending, Secret, ServiceClient, TrainingClient};
use retinker::host::api::DemoProgress;
use retinker::native::{NativeRuntime, NativeTransport};
use retinker::wire::UserMetadata;
use retinker::wire::session::FinishReason;
use retinker::wire::training::{AdamParams, ForwardBackwardOutput};
use retinker_local::Faults;
use tokio::sync::watch;

use self::corpus::Corpus;
pub(crate) use self::marker::Marker;
use self::story::{Ending, STORIES, Story};

/// Trains the demonstration runs, then breaks the trainer. Failures are told, never fatal: the service goes on.
pub(crate) async fn run(
    base_url: String,
    faults: Faults,
    marker: Marker,
    progress: watch::Sender<DemoProgress>,
) {
    let total = STORIES.iter().map(|story| story.steps).sum();
    progress.send_replace(DemoProgress {
        running: true,
        steps_done: 0,
        steps_total: total,
        message: "Training a few short runs".to_owned(),
    });
    let outcome = async {
        marker.put()?;
        let poisoned = perform(base_url, &faults, &progress).await?;
        marker.remove()?;
        Ok::<_, anyhow::Error>(poisoned)
    }
    .await;
    let message = match &outcome {
        Ok(poisoned) => format!("Done. A trainer has lost its memory, and {poisoned} runs are poisoned"),
        Err(error) => format!("The demonstration stopped early: {error:#}"),
    };
    if outcome.is_ok() {
        tracing::info!("demonstration: {message}");
    } else {
        tracing::warn!("demonstration: {message}");
    }
    progress.send_modify(|p| {
        p.running = false;
        p.message = message;
    });
}

/// A key for the service in this process, which takes any.
pub(crate) const KEY: &str = "tml-local";

async fn perform(base_url: String, faults: &Faults, progress: &watch::Sender<DemoProgress>) -> Result<usize> {
    let config = ApiConfig { base_url, api_key: Some(Secret::new(KEY)), ..ApiConfig::default() };
    let transport = NativeTransport::new().context("no HTTP client could be made")?;
    let runtime = NativeRuntime::current().context("there is no tokio runtime")?;
    let api = Api::new(config, Arc::new(transport), Arc::new(runtime))?;
    let corpus = Corpus::new();
    let trained = try_join_all(STORIES.iter().map(|story| train(&api, &corpus, story, progress))).await?;

    progress.send_modify(|p| p.message = "A trainer loses its memory".to_owned());
    let mut poisoned = 0;
    for run in trained {
        match run.story.ending {
            Ending::Finishes => run.service.finish(FinishReason::Success, None).await?,
            Ending::LosesItsTrainer => {
                let run_id = &run.client.model_id();
                // One trainer holds several runs: an earlier stop may have taken this one's memory already.
                if api.training_run(run_id).await?.corrupted != Some(true) {
                    faults.stop_trainer_of(run_id).await?;
                }
                poisoned += 1;
                // Its owner finds out the way owners do: the next request fails.
                let next = forward_backward(&run.client, &corpus, run.story.steps).await;
                if next.is_ok() {
                    anyhow::bail!(
                        "run {} went on although its trainer had been stopped",
                        run.client.model_id()
                    );
                }
            }
        }
    }
    Ok(poisoned)
}

/// A run that has done its steps, and what keeps its session alive.
struct Trained {
    story: &'static Story,
    service: ServiceClient,
    client: TrainingClient,
}

async fn train(
    api: &Api,
    corpus: &Corpus,
    story: &'static Story,
    progress: &watch::Sender<DemoProgress>,
) -> Result<Trained> {
    let service = ServiceClient::new(api.clone());
    let client = service
        .create_lora_training_client(&story.base_model(api).await?, story.lora_config(), story.metadata())
        .await
        .with_context(|| format!("run '{}' could not be made", story.name))?;
    let adam = AdamParams { learning_rate: story.learning_rate, ..AdamParams::default() };
    for step in 1..=story.steps {
        // Both are sent before either is awaited, as training loops do.
        let gradients = forward_backward(&client, corpus, step - 1);
        let update = client.optim_step(adam);
        gradients.await?;
        update.await?;
        progress.send_modify(|p| p.steps_done += 1);
        if story.saves_at(step) {
            let loss = held_out_loss(&client, corpus).await?;
            let labels = UserMetadata::from([
                ("step".to_owned(), step.to_string()),
                ("held_out_loss".to_owned(), format!("{loss:.4}")),
            ]);
            client.save_state(&format!("step-{step:03}"), story.save_options(labels)).await?;
        }
    }
    Ok(Trained { story, service, client })
}

fn forward_backward(client: &TrainingClient, corpus: &Corpus, step: u32) -> Pending<ForwardBackwardOutput> {
    client.forward_backward(corpus.batch(step), "cross_entropy", &LossFnConfig::new())
}

/// Mean loss per token on text that is never trained on, in nats.
async fn held_out_loss(client: &TrainingClient, corpus: &Corpus) -> Result<f64> {
    let batch = corpus.held_out();
    let tokens: usize = batch.iter().filter_map(|datum| datum.model_input.length()).sum();
    let output = client.forward(batch, "cross_entropy", &LossFnConfig::new()).await?;
    let sum = output.metrics.get("loss:sum").context("the service gave no loss:sum")?;
    Ok(sum / tokens as f64)
}
