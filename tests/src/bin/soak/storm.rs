//! Trains through a network that refuses, breaks off and answers nonsense, and checks that no loss is other than it
//! would have been.

use anyhow::{Context, Result, ensure};
use retinker::client::{ServiceClient, TrainingOptions};
use retinker_tests::schedule;
use retinker_tests::service::{ServiceProcess, api};
use retinker_tests::weather::{Fault, Storm};

/// Trains all steps through the storm, and tells what it withstood.
pub(crate) async fn run(reference: &[f64]) -> Result<String> {
    let data = tempfile::tempdir()?;
    let service = ServiceProcess::start(data.path()).await?;
    let storm = Storm::before(&service.base_url, 0x570f).await?;
    let owner = ServiceClient::new(api(&storm.base_url)?);
    let client = owner
        .create_lora_training_client(schedule::BASE_MODEL, schedule::lora(), TrainingOptions::default())
        .await?;
    for (step, expected) in reference.iter().enumerate() {
        let loss = schedule::step(&client, step).await.with_context(|| format!("step {step}"))?;
        ensure!(loss == *expected, "step {step} has the loss {loss}; the undisturbed run has {expected}");
    }
    Ok(format!(
        "{} steps were trained through a proxy that delayed, refused, answered with half a body or 429, or cut the \
         connection: {} requests suffered that; {} of them arrived twice. Every step was taken once, and every loss was equal to the undisturbed run's, bit for bit.\n",
        reference.len(),
        storm.faults(),
        storm.count(Fault::Twice)
    ))
}
