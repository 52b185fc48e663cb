//! Kills host and service together while a restore is on its way, and checks that the next start ends it with exactly
//! one successor.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use retinker::client::{SaveOptions, ServiceClient, TrainingOptions};
use retinker::host::api::PlanAnswer;
use retinker::recovery::plan::PlanRequest;
use retinker::recovery::restore::RestoreState;
use retinker_tests::random::Random;
use retinker_tests::schedule;
use retinker_tests::service::UpProcess;

/// How long a restore may take after a start, in tenths of a second.
const PATIENCE: u32 = 600;

/// Cuts this many restores off, and tells what was found.
pub(crate) async fn run(restores: u64) -> Result<String> {
    let data = tempfile::tempdir()?;
    let mut random = Random(0x7e57);
    let mut cut_off = 0;
    for round in 0..restores {
        let old = poisoned_run(data.path()).await?;
        let up = UpProcess::start(data.path()).await?;
        let host = up.host()?;
        let request = PlanRequest::new(&old);
        let PlanAnswer::Plan(plan) = host.plan(&request).await? else { bail!("run {old} has no plan") };
        let restore = host.start_restore(&plan).await?.restore;
        tokio::time::sleep(Duration::from_millis(random.next() % 40)).await;
        up.kill().await?;

        let up = UpProcess::start(data.path()).await?;
        let host = up.host()?;
        let first = host
            .restore(&restore.id)
            .await
            .with_context(|| format!("round {round}: the journal lost the restore"))?;
        cut_off += u64::from(!first.state.is_settled());
        let mut record = first;
        for _ in 0..PATIENCE {
            if record.state.is_settled() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            record = host.restore(&restore.id).await?;
        }
        ensure!(
            record.state == RestoreState::Adopted,
            "round {round}: the restore ended as {:?}: {:?}",
            record.state,
            record.error
        );
        let runs = up.api()?.training_runs(1000, 0).await?.training_runs;
        let label = |key: &str, run: &retinker::wire::run::TrainingRun| {
            run.user_metadata.as_ref().and_then(|labels| labels.get(key).cloned())
        };
        let successors: Vec<_> =
            runs.iter().filter(|run| label("retinker.restored_from", run).as_ref() == Some(&old)).collect();
        ensure!(successors.len() == 1, "round {round}: run {old} has {} successors", successors.len());
        ensure!(
            successors.first().map(|run| &run.training_run_id) == record.new_run_id.as_ref(),
            "round {round}: the successor is not the adopted run"
        );
        up.kill().await?;
    }
    Ok(format!(
        "{restores} restores were begun through the host, and host and service were killed with SIGKILL up to 40 ms \
         later; {cut_off} of them were cut off by it. Every one was adopted after the next start without being asked \
         for again, and every poisoned run had exactly one successor.\n"
    ))
}

/// A run with one checkpoint, killed with unsaved work.
async fn poisoned_run(data: &std::path::Path) -> Result<String> {
    let up = UpProcess::start(data).await?;
    let owner = ServiceClient::new(up.api()?);
    let client = owner
        .create_lora_training_client(schedule::BASE_MODEL, schedule::lora(), TrainingOptions::default())
        .await?;
    schedule::step(&client, 0).await?;
    client.save_state("step-1", SaveOptions::default()).await?;
    schedule::step(&client, 1).await?;
    up.kill().await?;
    Ok(client.model_id())
}
