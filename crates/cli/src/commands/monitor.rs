//! `retinker monitor`: what all monitors of a journal are told.

use anyhow::Result;
use retinker::recovery::policy::Gate;
use retinker::recovery::{control, reports};

use super::target::Target;
use crate::say::say;

/// What `retinker monitor` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    word: Word,
}

#[derive(Debug, clap::Subcommand)]
enum Word {
    /// Begin no more restores by themselves; those under way go on.
    Pause(Only),
    /// Let restores begin by themselves again, where the policy allows it.
    Resume(Only),
    /// Begin none any more, and let monitors end when nothing is under way.
    Drain(Only),
    /// Tell whether restores may begin, and which runs are left alone.
    Status(Only),
    /// Leave a run and its successors alone.
    OptOut(Run),
    /// Leave a run alone no longer.
    OptIn(Run),
    /// Take back that a run was told to be lost ('retinker restore --seen'): it is well after all.
    Well(Run),
}

#[derive(Debug, clap::Args)]
struct Only {
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, clap::Args)]
struct Run {
    /// The run.
    run: String,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    match args.word {
        Word::Pause(Only { target }) => {
            set(&target, Gate::Paused, "Paused: no restore begins by itself.").await
        }
        Word::Resume(Only { target }) => {
            set(&target, Gate::Open, "Resumed: restores begin where a monitor's policy allows it.").await
        }
        Word::Drain(Only { target }) => {
            set(&target, Gate::Draining, "Draining: monitors end when nothing is under way.").await
        }
        Word::Status(Only { target }) => status(&target).await,
        Word::OptOut(Run { run, target }) => leave_alone(&target, &run, true).await,
        Word::OptIn(Run { run, target }) => leave_alone(&target, &run, false).await,
        Word::Well(Run { run, target }) => {
            let withdrawn = reports::withdraw(&*target.reader().await?.store, &run).await?;
            say(if withdrawn { "Taken back." } else { "Nobody had told that this run was lost." });
            Ok(())
        }
    }
}

async fn set(target: &Target, gate: Gate, said: &str) -> Result<()> {
    control::set_gate(&*target.reader().await?.store, gate).await?;
    say(said);
    Ok(())
}

async fn leave_alone(target: &Target, run_id: &str, opted_out: bool) -> Result<()> {
    let keeper = target.reader().await?;
    // A mistyped run would be left alone for nothing.
    keeper.api.training_run(run_id).await?;
    control::opt_out(&*keeper.store, run_id, opted_out).await?;
    say(format_args!(
        "Run {run_id} and its successors are {}.",
        if opted_out { "left alone" } else { "restored by themselves again, where a policy allows it" }
    ));
    Ok(())
}

async fn status(target: &Target) -> Result<()> {
    let keeper = target.reader().await?;
    let store = &*keeper.store;
    say(match control::gate(store).await? {
        Gate::Open => "Restores begin by themselves where a monitor's policy allows it.",
        Gate::Paused => "Paused: no restore begins by itself.",
        Gate::Draining => "Draining: no restore begins, and monitors end.",
    });
    for run_id in control::opt_outs(store).await? {
        say(format_args!("Left alone: {run_id}"));
    }
    Ok(())
}
