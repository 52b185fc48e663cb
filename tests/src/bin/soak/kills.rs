//! Kills the embedded service at random moments under load, again and again, and checks after each start that
//! nothing acknowledged was lost and that nothing lost is called healthy.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use retinker::client::{Api, SaveOptions, ServiceClient, TrainingOptions};
use retinker::wire::UserMetadata;
use retinker_tests::random::Random;
use retinker_tests::schedule;
use retinker_tests::service::ServiceProcess;

/// Trainers at work when the service is killed.
const TRAINERS: u64 = 3;
/// What the service has acknowledged about one run.
#[derive(Debug, Clone, Default)]
struct Known {
    /// Step of each acknowledged checkpoint, by path.
    checkpoints: BTreeMap<String, usize>,
    /// Training was acknowledged after the last acknowledged save, and no save was in flight at the kill.
    surely_unsaved: bool,
    /// The label given at creation.
    label: String,
}

type Ledger = Arc<Mutex<BTreeMap<String, Known>>>;

#[derive(Debug, Default)]
struct Report {
    checkpoints: usize,
    runs: usize,
    poisoned: usize,
    resumed_steps: usize,
}

/// Kills the service this often, and tells what was found.
pub(crate) async fn run(kills: u64, reference: &Arc<Vec<f64>>) -> Result<String> {
    let data = tempfile::tempdir()?;
    let ledger = Ledger::default();
    let mut random = Random(0x5eed);
    let mut report = Report::default();
    for round in 0..kills {
        let service = ServiceProcess::start(data.path()).await?;
        check(&service.api()?, &ledger, reference, &mut report)
            .await
            .with_context(|| format!("after kill {round} (service data in {})", data.path().display()))?;
        let tasks: Vec<_> = (0..TRAINERS)
            .map(|n| {
                let (ledger, seed) = (Arc::clone(&ledger), random.next());
                let api = service.api();
                let label = format!("round {round}, trainer {n}");
                tokio::spawn(async move { train(api?, label, &ledger, Random(seed)).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(50 + random.next() % 900)).await;
        service.kill().await?;
        for task in tasks {
            task.abort();
            // The trainers end by the kill or by the abort; what they knew is in the ledger.
            let _ = task.await;
        }
    }
    let service = ServiceProcess::start(data.path()).await?;
    check(&service.api()?, &ledger, reference, &mut report).await.context("after the last kill")?;
    let Report { checkpoints, runs, poisoned, resumed_steps } = report;
    Ok(format!(
        "The embedded service was killed with SIGKILL {kills} times, at random moments, while {TRAINERS} programs \
         trained and saved. After each start:\n\n\
         - {runs} runs were looked up; every one was there, with its labels.\n\
         - {poisoned} of them had certainly lost work; every one was `corrupted`, with a reason.\n\
         - {checkpoints} acknowledged checkpoints were looked up and verified; none was missing or damaged.\n\
         - {resumed_steps} steps were trained from restored checkpoints with optimizer state; every loss was equal \
         to the undisturbed run's, bit for bit.\n"
    ))
}

/// Trains and saves at random until the service dies.
async fn train(api: Api, label: String, ledger: &Ledger, mut random: Random) -> Result<()> {
    let owner = ServiceClient::new(api);
    let labels = UserMetadata::from([("soak".to_owned(), label.clone())]);
    let client = owner.create_lora_training_client(schedule::BASE_MODEL, schedule::lora(), labels).await?;
    let note = |change: &dyn Fn(&mut Known)| {
        let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
        change(ledger.entry(client.model_id()).or_default());
    };
    note(&|known| known.label.clone_from(&label));
    for step in 1..crate::STEPS {
        schedule::step(&client, step - 1).await?;
        note(&|known| known.surely_unsaved = true);
        if random.next().is_multiple_of(3) {
            note(&|known| known.surely_unsaved = false);
            let saved = client.save_state(&format!("step-{step}"), SaveOptions::default()).await?;
            note(&|known| {
                known.checkpoints.insert(saved.path.clone(), step);
            });
        }
    }
    Ok(())
}

/// Holds the service against everything that it ever acknowledged, then resumes from one checkpoint of each run that
/// was new since the last check, and forgets those runs but for their existence.
async fn check(api: &Api, ledger: &Ledger, reference: &[f64], report: &mut Report) -> Result<()> {
    let known = std::mem::take(&mut *ledger.lock().unwrap_or_else(PoisonError::into_inner));
    for (run_id, known) in known {
        report.runs += 1;
        let run = api.training_run(&run_id).await?;
        ensure!(
            run.user_metadata.as_ref().and_then(|m| m.get("soak")) == Some(&known.label),
            "run {run_id} has lost its label '{}'",
            known.label
        );
        if known.surely_unsaved {
            ensure!(run.corrupted == Some(true), "run {run_id} lost work, but is not called corrupted");
            ensure!(run.corrupted_reason.is_some(), "run {run_id} is corrupted without a reason");
            report.poisoned += 1;
        }
        let listed = api.run_checkpoints(&run_id).await?;
        for path in known.checkpoints.keys() {
            ensure!(
                listed.checkpoints.iter().any(|c| &c.tinker_path == path),
                "acknowledged checkpoint {path} is gone"
            );
            api.weights_info(path)
                .await
                .with_context(|| format!("acknowledged checkpoint {path} cannot be used"))?;
            report.checkpoints += 1;
        }
        if let Some((path, &saved)) = known.checkpoints.iter().max_by_key(|(_, step)| **step) {
            let owner = ServiceClient::new(api.clone());
            let client = owner
                .create_training_client_from_state_with_optimizer(path, TrainingOptions::default())
                .await?;
            for (step, expected) in reference.iter().enumerate().skip(saved).take(2) {
                let loss = schedule::step(&client, step).await?;
                ensure!(
                    loss == *expected,
                    "resumed from {path}, step {step} has the loss {loss}; the undisturbed run has {expected}"
                );
                report.resumed_steps += 1;
            }
        }
    }
    Ok(())
}
