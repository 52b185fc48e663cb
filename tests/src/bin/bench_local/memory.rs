//! What the service holds in memory of runs that nobody trains at the moment, with a limit and without.

use anyhow::{Context, Result};
use retinker::client::{LossFnConfig, ServiceClient};
use retinker::wire::training::AdamParams;
use retinker_tests::service::ServiceProcess;

use crate::training::{self, LOADS};
use retinker_tests::process;

/// Runs, each trained for a step and then left alone.
pub(crate) const RUNS: u64 = 200;
/// The limit, as `--memory-limit` takes it, for the two trainers together.
pub(crate) const LIMIT: &str = "32MiB";
/// More than all runs together need.
const ENOUGH: &str = "64GiB";

/// Resident bytes of the process after all runs were trained.
pub(crate) struct Memory {
    /// Before any run was made.
    pub(crate) empty: u64,
    pub(crate) limited: u64,
    pub(crate) unlimited: u64,
}

impl Memory {
    /// How much of what the runs take without a limit they take with it.
    pub(crate) fn ratio(&self) -> f64 {
        let grown = |bytes: u64| bytes.saturating_sub(self.empty) as f64;
        grown(self.limited) / grown(self.unlimited)
    }
}

/// Measures it.
pub(crate) async fn measure() -> Result<Memory> {
    eprintln!("{RUNS} idle runs, with a limit of {LIMIT} and without");
    let (empty, limited) = idle_runs(LIMIT).await?;
    let (_, unlimited) = idle_runs(ENOUGH).await?;
    Ok(Memory { empty, limited, unlimited })
}

async fn idle_runs(limit: &str) -> Result<(u64, u64)> {
    let data = tempfile::tempdir()?;
    let service = ServiceProcess::start_with(data.path(), &["--memory-limit", limit]).await?;
    let resident = || service.id().and_then(process::resident).context("memory is not known on this system");
    let empty = resident()?;
    let owner = ServiceClient::new(service.api()?);
    let [load, ..] = LOADS;
    let batch = load.data();
    for seed in 0..RUNS {
        let client = training::client(&owner, seed).await?;
        let pass = client.forward_backward(batch.as_slice(), "cross_entropy", &LossFnConfig::new());
        client.optim_step(AdamParams::default()).await?;
        pass.await?;
    }
    let after = resident()?;
    service.kill().await?;
    Ok((empty, after))
}
