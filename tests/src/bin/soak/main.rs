//! What takes too long for every change: kills, restores that are cut off, monitors that are killed, a storm of network faults,
//! fuzzing. Writes
//! `docs/soak.md`.

mod fuzz;
mod kills;
mod monitors;
mod restores;
mod storm;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use retinker::client::{ServiceClient, TrainingOptions};
use retinker_tests::schedule;
use retinker_tests::service::ServiceProcess;

/// Steps of the undisturbed run that all others are held against.
pub(crate) const STEPS: usize = 400;

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let kills: u64 = match (args.next().as_deref(), args.next()) {
        (None, _) => 300,
        (Some("--only-monitors"), Some(count)) => {
            println!("{}", monitors::run(count.parse()?).await?);
            return Ok(());
        }
        (Some("--kills"), Some(count)) => {
            count.parse().with_context(|| format!("'{count}' is not a number of kills"))?
        }
        (Some(other), _) => {
            bail!("'{other}' is not an option of the soak; it takes --kills N, or --only-monitors N")
        }
    };
    let start = Instant::now();
    let reference = Arc::new(undisturbed().await.context("the undisturbed run")?);
    let mut report = String::new();
    let mut add = |title: &str, found: String| {
        println!("## {title}\n\n{found}");
        report.push_str(&format!("\n## {title}\n\n{found}"));
    };
    add("Kills in mid-training", kills::run(kills, &reference).await.context("kills in mid-training")?);
    add("Kills in mid-restore", restores::run(kills / 5).await.context("kills in mid-restore")?);
    add("Kills of monitors", monitors::run(kills).await.context("kills of monitors")?);
    add("A storm of faults", storm::run(&reference).await.context("the storm of faults")?);
    add("Fuzzing", fuzz::run(kills * 50, &reference).await.context("fuzzing")?);
    let minutes = start.elapsed().as_secs_f64() / 60.0;
    let text = format!(
        "# Soak\n\nWritten by `cargo xtask soak --kills {kills}`, in {minutes:.1} minutes.\n{report}"
    );
    let path = Path::new("docs/soak.md");
    std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
}

/// The losses of a run that nothing happens to.
async fn undisturbed() -> Result<Vec<f64>> {
    let data = tempfile::tempdir()?;
    let service = ServiceProcess::start(data.path()).await?;
    let owner = ServiceClient::new(service.api()?);
    let client = owner
        .create_lora_training_client(schedule::BASE_MODEL, schedule::lora(), TrainingOptions::default())
        .await?;
    let mut losses = Vec::new();
    for step in 0..STEPS {
        losses.push(schedule::step(&client, step).await?);
    }
    Ok(losses)
}
