//! `retinker attach`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use retinker::recovery::policy::Policy;
use retinker::recovery::restore::{RestoreRecord, RestoreState};
use retinker_host::{Keeper, attach_snippets};

use super::target::{Target, nobody};
use crate::say::say;

/// What `retinker attach` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A run that was restored, or the one that has taken its place.
    run: String,
    /// In which language the code is printed.
    #[arg(long, value_parser = ["python", "rust", "typescript", "json"], default_value = "python")]
    language: String,
    /// Print what is needed without handing the run over.
    #[arg(long)]
    dry_run: bool,
    /// Print what is needed although the run was handed over already: for when what was printed then is lost. Make sure that
    /// no other program goes on with it.
    #[arg(long)]
    again: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    // Told of what is written here alone: of several that hand a run over at once, one does.
    let here = Arc::<AtomicBool>::default();
    let told = Arc::clone(&here);
    let progress = move |record: &RestoreRecord| {
        told.fetch_or(record.state == RestoreState::HandedOver, Ordering::Relaxed);
    };
    let keeper = args.target.keeper(Policy::default(), nobody(), progress).await?;
    let record = find(&keeper, &args.run).await?;
    let Some(attachment) = record.attachment.clone() else {
        bail!(
            "restore {} of run {} has no run to hand over: it is {}",
            record.id,
            record.plan.run_id,
            record.state.as_str()
        );
    };
    let run = keeper.api.training_run(&attachment.model_id).await?;
    if run.corrupted == Some(true) {
        bail!(
            "run {} is poisoned itself: restore it first, with 'retinker restore {}'",
            attachment.model_id,
            attachment.model_id
        );
    }
    if let Some(at) = record.taken_over_at(&run) {
        bail!(
            "run {} has been taken over already: a program asked it for something at {at}, so the number {} is used up",
            attachment.model_id,
            attachment.next_seq_id
        );
    }
    match keeper.api.session_heartbeat(&attachment.session_id).await {
        Err(error) if error.status() == Some(410) || error.is_not_found() => bail!(
            "the session of run {} is over, and the run with it: nothing kept it alive. Make a new one: 'retinker restore {} \
             --seen session-over'",
            attachment.model_id,
            attachment.model_id
        ),
        _ => {}
    }
    if !args.again {
        refuse_second(&record)?;
    }
    if !args.dry_run {
        let handed = keeper.drives.executor().hand_over(&record.id).await?;
        if !args.again && !here.load(Ordering::Relaxed) {
            refuse_second(&handed)?;
        }
    }
    if args.language == "json" {
        say(serde_json::to_string(&attachment)?);
        return Ok(());
    }
    let snippets = attach_snippets(&args.target.service()?.base_url, &attachment);
    let wanted = snippets.into_iter().find(|snippet| snippet.language == args.language);
    if let Some(snippet) = wanted {
        say(snippet.code);
    }
    Ok(())
}

/// Two programs that go on with one run would both send the same number.
fn refuse_second(record: &RestoreRecord) -> Result<()> {
    match record.events.iter().find(|event| event.state == RestoreState::HandedOver) {
        None => Ok(()),
        Some(earlier) => bail!(
            "run {} was handed over at {}; if what was printed then is lost, print it again with --again",
            record.new_run_id.as_deref().unwrap_or_default(),
            earlier.at
        ),
    }
}

/// The restore that made the run which stands in this one's place now, or this one itself.
async fn find(keeper: &Keeper, run_id: &str) -> Result<RestoreRecord> {
    let (mut newest, mut run) = (keeper.store.by_new_run(run_id).await?, run_id.to_owned());
    // A damaged journal could lead round in a circle.
    for _ in 0..1000 {
        let of_old = keeper.store.by_old_run(&run).await?;
        let Some(next) = of_old.into_iter().find(|record| record.state.holds_the_run()) else { break };
        let made = next.new_run_id.clone().filter(|_| next.state.is_settled());
        newest = Some(next);
        match made {
            Some(new_run) => run = new_run,
            None => break,
        }
    }
    newest.with_context(|| {
        format!(
            "the journal knows no restore of run {run_id}, nor one that made it: restore it first, with 'retinker restore \
             {run_id}'"
        )
    })
}
