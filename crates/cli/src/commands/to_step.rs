//! `retinker restore --to-step`: a run as it was after one of its steps, by its redo log.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use retinker::client::{Api, ApiConfig, ServiceClient};
use retinker::native::{DiskLog, NativeRuntime, NativeTransport};
use retinker::redo::{Matching, Recorded, ReplayPlan};

use super::target::Target;
use crate::say::say;

/// The options that say so.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Make a new run that is as this one was after its N-th step of the optimizer, 0 for the beginning, by its redo log. The run
    /// itself stays as it is.
    #[arg(long = "to-step", value_name = "N", requires = "log")]
    step: Option<u64>,
    /// The directory of the run's redo log. Its program may go on writing it.
    #[arg(long, value_name = "DIR", requires = "step")]
    log: Option<PathBuf>,
    /// By which part of itself a sum of what is replayed may differ from what was recorded, e.g. 1e-4; by default nothing may.
    #[arg(long, value_name = "PART", requires = "step")]
    tolerance: Option<f64>,
    /// What the new run's state is saved as.
    #[arg(long = "as", value_name = "NAME", requires = "step")]
    name: Option<String>,
}

impl Options {
    /// What was asked for, if it was.
    pub(crate) fn asked(&self) -> Option<(u64, &Path)> {
        self.step.zip(self.log.as_deref())
    }
}

/// Who is asked, and how it is told.
pub(crate) struct How<'a> {
    pub(crate) target: &'a Target,
    pub(crate) dry_run: bool,
    pub(crate) json: bool,
}

pub(crate) async fn run(
    run_id: &str,
    (step, log): (u64, &Path),
    options: &Options,
    how: How<'_>,
) -> Result<()> {
    let recorded = Recorded::read(DiskLog::read_only(log)?).await?;
    let recorded = recorded.with_context(|| format!("there is no run in the redo log {}", log.display()))?;
    let covered = recorded.covered();
    let service = how.target.service()?;
    if covered.service != service.base_url.trim_end_matches('/') {
        bail!(
            "the redo log {} is of a run at {}, not at {}: give --base-url {}",
            log.display(),
            covered.service,
            service.base_url,
            covered.service
        );
    }
    let runtime = Arc::new(NativeRuntime::new(tokio::runtime::Handle::current()));
    let config = ApiConfig { base_url: service.base_url, api_key: service.api_key, ..ApiConfig::default() };
    let service = ServiceClient::new(Api::new(config, Arc::new(NativeTransport::new()?), runtime)?);
    // What the log itself names needs nobody to tell whose it is: the service may be away while a plan is looked at.
    let is_of = [&covered.run_id, &covered.root_run_id].contains(&&run_id.to_owned())
        || match service.api().training_run(run_id).await {
            Ok(run) => recorded.is_of(&run),
            Err(error) if error.is_not_found() => false,
            Err(error) => return Err(error.into()),
        };
    if !is_of {
        bail!("the redo log {} is of run {}, not of run {run_id}", log.display(), covered.run_id);
    }
    let plan = recorded.plan_to(step)?;
    match how.json {
        true => say(serde_json::to_string(&plan)?),
        false => show(&plan),
    }
    if how.dry_run {
        return Ok(());
    }
    let matching = options.tolerance.map_or(Matching::Exact, Matching::Tolerance);
    let (requests, json) = (plan.requests, how.json);
    let tenth = |done: u64| done * 10 / requests.max(1);
    let done = |done: u64| {
        if !json && tenth(done) > tenth(done.saturating_sub(1)) {
            say(format_args!("  {done} of {requests} requests are done again"));
        }
    };
    let saved = recorded.save_step(&service, matching, (step, options.name.as_deref()), done).await?;
    match how.json {
        true => say(serde_json::to_string(&saved)?),
        false => {
            say(format_args!("Step {step} of run {} is saved, with the optimizer's state:", covered.run_id));
            say(format_args!("  {}", saved.path));
            say("Go on from there: create_training_client_from_state_with_optimizer(path)");
        }
    }
    Ok(())
}

fn show(plan: &ReplayPlan) {
    say(format_args!("Restore run {} to step {}", plan.run_id, plan.to_step));
    match &plan.path {
        Some(path) => say(format_args!("  from   {path}  (step {})", plan.from_step)),
        None => say("  from   the beginning"),
    }
    say(format_args!(
        "  again  {} requests with {} tokens; from the first to the last it was {:.0} s",
        plan.requests, plan.tokens, plan.seconds
    ));
}
