//! `retinker journal`.

use anyhow::{Result, bail};
use retinker::recovery::protect::{protections, put_back};
use retinker::recovery::restore::RestoreRecord;
use retinker_ir::lineage::{Record, events_of_restore};
use retinker_ir::work::Job;

use super::target::Target;
use crate::say::say;

/// What `retinker journal` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print the whole story of this restore.
    restore: Option<String>,
    /// Print the checkpoints whose life was made longer.
    #[arg(long, conflicts_with = "restore")]
    protections: bool,
    /// Give this checkpoint the life back that it had before it was protected.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["restore", "protections"])]
    put_back: Option<String>,
    /// Print each entry as a line of JSON.
    #[arg(long)]
    json: bool,
    /// Print restores in a form of the North-Shore-AI platform, a line of JSON each: lineage, the events of lineage_ir; work, a job of
    /// nsai_work.
    #[arg(long = "as", value_enum, value_name = "FORM", conflicts_with_all = ["json", "protections", "put_back"])]
    form: Option<Form>,
    #[command(flatten)]
    target: Target,
}

/// A form of the wider platform.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Form {
    Lineage,
    Work,
}

impl Form {
    /// Restores, oldest first.
    fn print(self, records: &[RestoreRecord], service: &str) {
        let mut lineages = std::collections::BTreeMap::<&str, u32>::new();
        for record in records {
            let attempt = lineages.entry(&record.plan.root_run_id).or_default();
            match self {
                Self::Lineage => events_of_restore(record).iter().for_each(|event| say(event.to_json())),
                Self::Work => say(Job::of_restore(record, service, *attempt).to_json()),
            }
            *attempt += 1;
        }
    }
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let keeper = args.target.reader().await?;
    let store = &*keeper.store;
    if let Some(path) = &args.put_back {
        let protection = put_back(&keeper.api, store, path, keeper.runtime.now()).await?;
        say(format_args!(
            "{path} expires as its owner wanted: at {}, or in a minute.",
            protection.expired_at
        ));
        return Ok(());
    }
    if args.protections {
        for protection in protections(store).await? {
            if args.json {
                say(serde_json::to_string(&protection)?);
                continue;
            }
            let until = protection.expires_at.map_or_else(
                || "as its owner wanted again".to_owned(),
                |until| format!("{until} instead of {}", protection.expired_at),
            );
            say(format_args!("{}  for run {}: {until}", protection.tinker_path, protection.run_id));
        }
        return Ok(());
    }
    if let Some(form) = args.form {
        let mut records = store.list().await?;
        records.reverse();
        if let Some(id) = &args.restore {
            // Those before it tell which attempt it is.
            let Some(last) = records.iter().position(|record| record.id == *id) else {
                bail!("the journal knows no restore {id}")
            };
            records.truncate(last + 1);
            let root = records.last().map(|record| record.plan.root_run_id.clone()).unwrap_or_default();
            records.retain(|record| record.plan.root_run_id == root);
        }
        form.print(&records, &keeper.identity);
        return Ok(());
    }
    if let Some(id) = &args.restore {
        let Some(record) = store.get(id).await? else { bail!("the journal knows no restore {id}") };
        return tell(&record, args.json);
    }
    let records = store.list().await?;
    if records.is_empty() && !args.json {
        say("Nothing has been restored yet.");
    }
    for record in &records {
        if args.json {
            say(serde_json::to_string(record)?);
        } else {
            let new_run = record.new_run_id.as_deref().unwrap_or("-");
            say(format_args!(
                "{}  {}  {:<14} {} -> {new_run}",
                record.updated_at,
                record.id,
                record.state.as_str(),
                record.plan.run_id
            ));
        }
    }
    Ok(())
}

fn tell(record: &RestoreRecord, json: bool) -> Result<()> {
    if json {
        say(serde_json::to_string(record)?);
        return Ok(());
    }
    say(format_args!(
        "{}: run {} from {}",
        record.id, record.plan.run_id, record.plan.checkpoint.tinker_path
    ));
    for event in &record.events {
        say(format_args!("  {}  {:<15} {}", event.at, event.state.as_str(), event.message));
    }
    if let Some(verification) = &record.verification {
        say(format_args!("  {verification}"));
    }
    Ok(())
}
