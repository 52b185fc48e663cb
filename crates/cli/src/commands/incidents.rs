//! `retinker incidents`.

use std::time::Duration;

use anyhow::Result;
use retinker::recovery::incidents::Incident;
use retinker::recovery::monitor::incidents;

use super::target::Target;
use crate::say::say;

/// What `retinker incidents` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Runs that were poisoned within so many seconds of each other are one incident.
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    within: u64,
    /// Look for lost runs first, as 'retinker watch' does; nothing is restored.
    #[arg(long)]
    look: bool,
    /// Print each as a line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let keeper = args.target.reader().await?;
    if args.look {
        keeper.monitor.round().await?;
    }
    let service = args.target.service()?.base_url;
    let found = incidents(&*keeper.store, &service, Duration::from_secs(args.within)).await?;
    if found.is_empty() && !args.json {
        say(
            "No run was seen to be lost. (A console or 'retinker watch' looks for them; --look does it now.)",
        );
    }
    for incident in &found {
        if args.json {
            say(serde_json::to_string(incident)?);
        } else {
            show(incident);
        }
    }
    Ok(())
}

fn show(incident: &Incident) {
    let count = incident.count();
    let runs = if count == 1 { "run" } else { "runs" };
    say(format_args!(
        "{} to {}: {count} {runs} poisoned, {} can be restored, {} cannot",
        incident.first, incident.last, incident.recoverable, incident.unrecoverable
    ));
    if let Some(reason) = &incident.reason {
        say(format_args!("  {} of them: {}", reason.count, reason.value));
    }
    for run_id in &incident.run_ids {
        say(format_args!("  {run_id}"));
    }
}
