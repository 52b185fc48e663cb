//! `retinker checkpoints`: looked into, given a longer life, and deleted where nothing needs them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use retinker::client::RestClient;
use retinker::native::DiskLog;
use retinker::recovery::journal::Store;
use retinker::recovery::plan::{LABEL_OPT_OUT, MetricMode};
use retinker::recovery::planner::origin_of;
use retinker::recovery::protect::{LIFE, protect};
use retinker::recovery::retention::{Kept, Needs, Rule, goes, measure, needed, run_of};
use retinker::redo::Recorded;
use retinker::wire::run::{Checkpoint, TrainingRun};
use serde_json::json;

use super::target::Target;
use super::{restore, verify};
use crate::say::say;

/// What `retinker checkpoints` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Load a checkpoint into throw-away copies, and tell whether it is what was saved.
    Verify(verify::Args),
    /// Delete a run's checkpoints but those that a rule keeps, or that something needs. Without --yes it is only told which.
    Prune(Prune),
    /// Give a checkpoint a life of a week at least. The former one can be put back: 'retinker journal --put-back PATH'.
    Protect(Protect),
}

/// Which are kept: what any of the rules keeps.
#[derive(Debug, clap::Args)]
struct Prune {
    /// The run.
    run: String,
    /// Keep the newest so many.
    #[arg(long, value_name = "N")]
    keep_last: Option<u32>,
    /// Keep so many of the best, by --by.
    #[arg(long, value_name = "M", requires = "by")]
    keep_best: Option<u32>,
    /// By which label checkpoints are compared, and which values are better. One without the label is kept.
    #[arg(long, value_name = "LABEL:min|max", value_parser = restore::best, requires = "keep_best")]
    by: Option<(String, MetricMode)>,
    /// Keep one of every so many, from the oldest on.
    #[arg(long, value_name = "K")]
    keep_every: Option<u32>,
    /// The directory of the run's redo log: what it stands on is kept.
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
    /// Delete them.
    #[arg(long)]
    yes: bool,
    /// Print a line of JSON for each.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, clap::Args)]
struct Protect {
    /// The checkpoint's tinker:// path.
    path: String,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    match args.what {
        What::Verify(args) => verify::run(args).await,
        What::Prune(args) => prune(args).await.map(|()| ExitCode::SUCCESS),
        What::Protect(args) => lengthen(args).await.map(|()| ExitCode::SUCCESS),
    }
}

async fn lengthen(args: Protect) -> Result<()> {
    let keeper = args.target.reader().await?;
    let Some(run_id) = run_of(&args.path) else { bail!("'{}' is no tinker:// path", args.path) };
    let listed = keeper.api.run_checkpoints(run_id).await?.checkpoints;
    let checkpoint = listed.into_iter().find(|checkpoint| checkpoint.tinker_path == args.path);
    let checkpoint = checkpoint.with_context(|| format!("run {run_id} has no checkpoint {}", args.path))?;
    match protect(&keeper.api, &*keeper.store, run_id, &checkpoint, LIFE, keeper.runtime.now()).await? {
        Some(protection) => match protection.message() {
            Some(message) => say(message),
            None => bail!("{}", protection.refused.unwrap_or_else(|| "the service did not do it".to_owned())),
        },
        None => say(format_args!("{} lives for as long already.", args.path)),
    }
    Ok(())
}

async fn prune(args: Prune) -> Result<()> {
    let rule = Rule { last: args.keep_last, best: args.keep_best, every: args.keep_every };
    if rule == Rule::default() {
        bail!("say what is kept: --keep-last N, --keep-best M --by LABEL:min, --keep-every K");
    }
    let keeper = args.target.reader().await?;
    let run = keeper.api.training_run(&args.run).await?;
    let checkpoints = keeper.api.run_checkpoints(&args.run).await?.checkpoints;
    let mut reasons = reasons(&run, &checkpoints, &*keeper.store, keeper.runtime.now()).await?;
    for path in stood_on(&run, args.log.as_ref()).await? {
        reasons.insert(path, "The redo log stands on it.".to_owned());
    }
    let weighed: Vec<Kept<'_>> = checkpoints
        .iter()
        .map(|checkpoint| Kept {
            run_id: &args.run,
            kind: &checkpoint.checkpoint_type,
            saved: (checkpoint.time, &checkpoint.tinker_path),
            measure: args.by.as_ref().and_then(|by| measure(checkpoint, by)),
            needed: reasons.contains_key(&checkpoint.tinker_path),
        })
        .collect();
    let gone: Vec<&Checkpoint> =
        checkpoints.iter().zip(goes(&rule, &weighed)).filter(|(_, goes)| *goes).map(|(one, _)| one).collect();
    let paths: BTreeSet<&str> = gone.iter().map(|checkpoint| checkpoint.tinker_path.as_str()).collect();
    let rest = RestClient::new(keeper.api.clone());
    for checkpoint in &checkpoints {
        let path = &checkpoint.tinker_path;
        let goes = paths.contains(path.as_str());
        if goes && args.yes {
            rest.delete_checkpoint_from_tinker_path(path).await?;
        }
        let why = reasons.get(path).map(String::as_str).unwrap_or_default();
        if args.json {
            say(
                json!({ "path": path, "goes": goes, "deleted": goes && args.yes, "needed": reasons.get(path) }),
            );
        } else {
            let what = match (goes, args.yes) {
                (true, true) => "deleted",
                (true, false) => "goes",
                (false, _) => "stays",
            };
            say(format_args!("{what:<8} {path}  {:#}  {why}", checkpoint.time));
        }
    }
    if !args.json {
        let bytes: u64 = gone.iter().filter_map(|checkpoint| checkpoint.size_bytes).sum();
        let of = format!("{} of {} checkpoints, {bytes} bytes", gone.len(), checkpoints.len());
        match args.yes {
            true => say(format_args!("Deleted {of}.")),
            false => say(format_args!("That would delete {of}. Nothing was deleted: add --yes.")),
        }
    }
    Ok(())
}

/// The checkpoints that something needs, and why.
async fn reasons(
    run: &TrainingRun,
    checkpoints: &[Checkpoint],
    store: &dyn Store,
    now: retinker::wire::time::Time,
) -> Result<BTreeMap<String, String>> {
    let restores = store.list().await?;
    let id = &run.training_run_id;
    let succeeded = restores.iter().any(|record| record.plan.run_id == *id && record.state.holds_the_run());
    let origin = origin_of(run, restores.iter().find(|record| record.new_run_id.as_ref() == Some(id)));
    let poisoned = (run.corrupted == Some(true) && !succeeded).then_some((run, id.as_str(), origin));
    let needs = Needs {
        poisoned: poisoned.into_iter().collect(),
        restores: restores.iter().collect(),
        ..Needs::default()
    };
    Ok(needed(&needs, checkpoints, now))
}

/// The checkpoints that the run's redo log stands on. Without the log that cannot be known of a run that has one.
async fn stood_on(run: &TrainingRun, log: Option<&PathBuf>) -> Result<Vec<String>> {
    let Some(log) = log else {
        let labels = run.user_metadata.as_ref();
        if labels.and_then(|labels| labels.get(LABEL_OPT_OUT)).is_some_and(|by| by == "redo_log") {
            bail!(
                "run {} has a redo log: give its directory with --log, so that no checkpoint is deleted that it stands on",
                run.training_run_id
            );
        }
        return Ok(Vec::new());
    };
    let recorded = Recorded::read(DiskLog::read_only(log)?).await?;
    let recorded = recorded.with_context(|| format!("there is no run in the redo log {}", log.display()))?;
    let covered = recorded.covered();
    let of_run = |path: &String| run_of(path) == Some(&run.training_run_id);
    if !recorded.is_of(run) && !covered.stands_on.iter().any(of_run) {
        bail!(
            "the redo log {} is of run {}, not of run {}",
            log.display(),
            covered.run_id,
            run.training_run_id
        );
    }
    Ok(covered.stands_on)
}
