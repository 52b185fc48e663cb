//! The `retinker` binary: the console's host, the embedded service, and the commands around them.

#![warn(clippy::print_stdout)] // A closed stdout must not end a service: see `say`.

mod commands;
mod demo;
mod paths;
mod say;
mod shutdown;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A start makes millions of small objects on several threads, at which glibc's allocator is slow.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Look after Tinker training runs: see which are poisoned, and restore them.
#[derive(Debug, Parser)]
#[command(name = "retinker", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the embedded service and the console on it.
    Up(commands::up::Args),
    /// Start only the embedded Tinker-compatible service.
    Local(commands::local::Args),
    /// Start the console on another Tinker-compatible service.
    Console(commands::console::Args),
    /// Watch all runs of a service, and restore poisoned ones as a policy allows.
    Watch(commands::watch::Args),
    /// Restore a run that has lost its state.
    Restore(commands::restore::Args),
    /// Print what a training program needs to go on with a restored run, and hand it over.
    Attach(commands::attach::Args),
    /// Load a checkpoint into throw-away copies, and tell whether it is what was saved.
    Verify(commands::verify::Args),
    /// Look into checkpoints, give them a longer life, delete those that nothing needs.
    Checkpoints(commands::checkpoints::Args),
    /// Find out how much a service's results vary by themselves: by what a redo log's replays are to be held.
    Calibrate(commands::calibrate::Args),
    /// List which runs failed together.
    Incidents(commands::incidents::Args),
    /// List the restores in the journal, or tell one's story.
    Journal(commands::journal::Args),
    /// Pause, resume or drain all monitors of a journal; leave a run alone.
    Monitor(commands::monitor::Args),
}

/// A command that either fails or is done.
fn done((): ()) -> ExitCode {
    ExitCode::SUCCESS
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("RETINKER_LOG").unwrap_or_else(|_| "info".into()),
        )
        .with_target(false)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let outcome = match cli.command {
        Command::Up(args) => commands::up::run(args).await.map(done),
        Command::Local(args) => commands::local::run(args).await.map(done),
        Command::Console(args) => commands::console::run(args).await.map(done),
        Command::Watch(args) => commands::watch::run(args).await.map(done),
        Command::Restore(args) => commands::restore::run(args).await.map(done),
        Command::Attach(args) => commands::attach::run(args).await.map(done),
        Command::Verify(args) => commands::verify::run(args).await,
        Command::Checkpoints(args) => commands::checkpoints::run(args).await,
        Command::Calibrate(args) => commands::calibrate::run(args).await.map(done),
        Command::Incidents(args) => commands::incidents::run(args).await.map(done),
        Command::Journal(args) => commands::journal::run(args).await.map(done),
        Command::Monitor(args) => commands::monitor::run(args).await.map(done),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", told(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes. Some errors tell their cause themselves: it is not said twice.
fn told(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if told.is_empty() {
            told = cause;
        } else if !told.contains(&cause) {
            told = format!("{told}: {cause}");
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::told;

    #[derive(Debug, thiserror::Error)]
    #[error("it failed: {0}")]
    struct Telling(#[from] std::num::ParseIntError);

    #[test]
    fn a_cause_is_told_once() {
        let cause = "x".parse::<u8>().unwrap_err();
        let error = anyhow::Error::from(Telling(cause)).context("no plan");
        assert_eq!(told(&error), "no plan: it failed: invalid digit found in string");
        assert_eq!(told(&anyhow!("alone")), "alone");
    }
}
