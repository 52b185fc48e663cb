//! `retinker verify`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use retinker::recovery::planner::{candidates, origin_of};
use retinker::recovery::probe::Verification;
use retinker::recovery::verify::{self, OptimizerState};
use retinker::wire::path::TinkerPath;
use retinker::wire::run::Checkpoint;
use retinker_host::Keeper;

use super::target::Target;
use crate::say::say;

/// What is found has codes of its own: 1 and 2 are those of a command that went wrong or was mistyped, whichever it is.
const EXIT: &str = "\
Exit code:
  0  the checkpoint is verified, and its optimizer warm
  1  that could not be found out: an error is told, as by every command
  2  these arguments are none, as with every command
  3  not known: nothing was saved to compare with, or the optimizer's state cannot be told
  4  the checkpoint is different from what was saved, or its optimizer cold";

/// What `retinker verify` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT)]
pub(crate) struct Args {
    /// A checkpoint's tinker:// path, or a run, whose newest checkpoint is looked into.
    what: String,
    /// Print what was found as a line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let keeper = args.target.reader().await?;
    let checkpoint = find(&keeper, &args.what).await?;
    let found = verify::checkpoint(&keeper.api, &checkpoint).await?;
    if args.json {
        say(serde_json::to_string(&found)?);
    } else {
        say(&checkpoint.tinker_path);
        say(format_args!("  {}", found.weights));
        say(format_args!("  {}", found.optimizer));
    }
    Ok(ExitCode::from(match (&found.weights, &found.optimizer) {
        (Verification::Different { .. }, _) | (_, OptimizerState::Cold { .. }) => 4,
        (Verification::Verified { .. }, OptimizerState::Warm { .. }) => 0,
        _ => 3,
    }))
}

async fn find(keeper: &Keeper, what: &str) -> Result<Checkpoint> {
    let run_id = match what.parse::<TinkerPath>() {
        Ok(path) => path.training_run_id,
        Err(error) if what.starts_with("tinker://") => return Err(error.into()),
        Err(_) => what.to_owned(),
    };
    let run = keeper.api.training_run(&run_id).await?;
    let made_by = keeper.store.by_new_run(&run_id).await?;
    let found = candidates(&keeper.api, &run, origin_of(&run, made_by.as_ref()).as_deref()).await?;
    let newest = || retinker::recovery::health::newest_usable(&found, keeper.runtime.now()).cloned();
    let wanted = found.iter().find(|checkpoint| checkpoint.tinker_path == what).cloned();
    match wanted.or_else(|| newest().filter(|_| !what.starts_with("tinker://"))) {
        Some(checkpoint) => Ok(checkpoint),
        None if what.starts_with("tinker://") => bail!("run {run_id} has no checkpoint {what}"),
        None => bail!("run {run_id} has no checkpoint that training could go on from"),
    }
}
