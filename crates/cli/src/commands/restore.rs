//! `retinker restore`.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use retinker::recovery::evidence::Symptom;
use retinker::recovery::executor::RestoreError;
use retinker::recovery::journal::Begun;
use retinker::recovery::plan::{CheckOutcome, MetricMode, PlanRequest, RestorePlan, Strategy};
use retinker::recovery::planner::{gather, make_plan};
use retinker::recovery::policy::Policy;
use retinker::recovery::restore::{RestoreRecord, RestoreState};
use retinker::recovery::{protect, reports};
use retinker_host::Keeper;

use super::target::{Target, nobody};
use super::to_step;
use crate::say::say;
use crate::shutdown;

const EXAMPLES: &str = "\
Examples:
  retinker restore RUN --dry-run                  what would be done, and what would be lost
  retinker restore RUN                            from the newest checkpoint that can be used
  retinker restore RUN --checkpoint tinker://…    from this one
  retinker restore RUN --best loss:min            from the one with the lowest label 'loss'
  retinker restore RUN --seen not-loaded          although the service does not call it corrupted
  retinker restore RUN --to-step 120 --log DIR    as it was after a step, by its redo log
  retinker restore RUN --cancel                   stop the restore that is under way";

/// How often it is looked whether somebody has taken the restored run over.
const LOOK: Duration = Duration::from_secs(2);

/// What `retinker restore` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The run that has lost its state.
    run: String,
    /// Print what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Restore the weights alone: the optimizer begins anew.
    #[arg(long)]
    without_optimizer: bool,
    /// Find out, before the new run takes the old one's place, whether the optimizer's state came back: on three throw-away
    /// copies.
    #[arg(long, conflicts_with = "without_optimizer")]
    check_optimizer: bool,
    /// Restore from this checkpoint: its tinker:// path.
    #[arg(long, value_name = "PATH", conflicts_with = "best")]
    checkpoint: Option<String>,
    /// Restore from the checkpoint with the best value of a label: its name, and min or max.
    #[arg(long, value_name = "LABEL:min|max", value_parser = best)]
    best: Option<(String, MetricMode)>,
    /// Step back over so many of the newest checkpoints that can be used.
    #[arg(long, value_name = "N", default_value_t = 0)]
    step_back: u32,
    /// What its training program has seen, where the service does not call the run corrupted.
    #[arg(long, value_name = "SYMPTOM", value_parser = symptom)]
    seen: Option<Symptom>,
    /// Stop the restore of this run that is under way, whoever carries it out. The run is left alone by every monitor then.
    #[arg(long, conflicts_with_all = ["dry_run", "without_optimizer", "check_optimizer", "checkpoint", "best", "step_back", "seen", "detach"])]
    cancel: bool,
    #[command(flatten)]
    to_step: to_step::Options,
    /// End once the new run is there. Somebody else has to keep its session alive then: a console or 'retinker watch' on the
    /// same journal, or the program that takes it over.
    #[arg(long)]
    detach: bool,
    /// Print the plan and the restore as JSON, a line each.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// A label, and which of its values are better.
pub(crate) fn best(text: &str) -> Result<(String, MetricMode), String> {
    let (metric, mode) = text.rsplit_once(':').ok_or("write LABEL:min or LABEL:max")?;
    match (metric, mode) {
        ("", _) => Err("the label has no name".to_owned()),
        (_, "min") => Ok((metric.to_owned(), MetricMode::Min)),
        (_, "max") => Ok((metric.to_owned(), MetricMode::Max)),
        _ => Err(format!("'{mode}' is neither min nor max")),
    }
}

fn symptom(text: &str) -> Result<Symptom, String> {
    let word = text.replace('-', "_");
    serde_json::from_value(word.into()).map_err(|_| {
        "it is one of not-loaded, sequence-conflict, promise-expired, order-lost, loss-jumped, rolled-back, session-over"
            .to_owned()
    })
}

impl Args {
    fn request(&self) -> PlanRequest {
        let strategy = match (&self.checkpoint, &self.best) {
            (Some(path), _) => Strategy::Specific { path: path.clone() },
            (None, Some((metric, mode))) => Strategy::Best { metric: metric.clone(), mode: *mode },
            (None, None) => Strategy::LatestValid,
        };
        PlanRequest {
            strategy,
            optimizer: !self.without_optimizer,
            check_optimizer: self.check_optimizer,
            step_back: self.step_back,
            observed: self.seen,
            ..PlanRequest::new(&self.run)
        }
    }

    /// Why these options are not what a plan that somebody else has made does; `None` if they may be.
    fn contradicts(&self, plan: &RestorePlan) -> Option<&'static str> {
        if self.checkpoint.as_ref().is_some_and(|path| *path != plan.checkpoint.tinker_path) {
            Some("that is not the --checkpoint that was asked for")
        } else if self.best.is_some() || self.step_back > 0 {
            // The plan does not tell by which rule its checkpoint was chosen.
            Some("--best and --step-back cannot be heeded any more")
        } else if self.without_optimizer && plan.optimizer {
            Some("--without-optimizer cannot be heeded any more")
        } else if self.check_optimizer && !plan.check_optimizer {
            Some("--check-optimizer cannot be heeded any more")
        } else {
            None
        }
    }
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let json = args.json;
    if let Some(asked) = args.to_step.asked() {
        let how = to_step::How { target: &args.target, dry_run: args.dry_run, json };
        return to_step::run(&args.run, asked, &args.to_step, how).await;
    }
    let keeper = args
        .target
        .keeper(Policy::default(), nobody(), move |record| {
            if let Some(event) = record.events.last().filter(|_| !json) {
                say(format_args!("  {}  {}", event.at, event.message));
            }
        })
        .await?;
    if args.cancel {
        return cancel(&keeper, &args).await;
    }
    if !args.dry_run
        && let Some(held) = holder(&keeper, &args.run).await?
    {
        return go_on(&keeper, held, &args).await;
    }
    let plan = match plan(&keeper, &args.request()).await? {
        Ok(plan) => plan,
        Err(why) => match holder(&keeper, &args.run).await? {
            // Somebody else has begun it a moment ago.
            Some(held) if !args.dry_run => return go_on(&keeper, held, &args).await,
            _ => bail!("{why}"),
        },
    };
    if json {
        say(serde_json::to_string(&plan)?);
    } else {
        show(&plan);
    }
    if args.dry_run {
        return Ok(());
    }
    secure(&keeper, &plan, json).await;
    let begun = keeper.drives.executor().begin(plan).await?;
    // Only now: a mistaken symptom must not stay behind.
    if let Some(symptom) = args.seen {
        reports::report(&*keeper.store, &args.run, symptom, keeper.runtime.now()).await?;
    }
    match begun {
        Begun::New(record) => {
            let record = drive(&keeper, &record.id, json).await?;
            ended(&keeper, record, &args).await
        }
        Begun::Existing(record) => go_on(&keeper, record, &args).await,
    }
}

/// Stops the restore of this run that is under way.
async fn cancel(keeper: &Keeper, args: &Args) -> Result<()> {
    let Some(held) = holder(keeper, &args.run).await? else {
        bail!("no restore of run {} is under way, as this journal knows", args.run);
    };
    let record = keeper.drives.executor().cancel(&held.id).await?;
    match args.json {
        true => say(serde_json::to_string(&record)?),
        false => say(format_args!(
            "Restore {} is cancelled. Run {} can be restored by hand; no monitor does so by itself.",
            record.id, args.run
        )),
    }
    Ok(())
}

/// The restore that holds this run: cut off, under way or done, by whomever.
async fn holder(keeper: &Keeper, run_id: &str) -> Result<Option<RestoreRecord>> {
    let of_run = keeper.store.by_old_run(run_id).await?;
    Ok(of_run.into_iter().find(|record| record.state.holds_the_run()))
}

/// Goes on with a restore that somebody has begun, or tells what it came to: a run is restored once, however often it is
/// asked for. But not as something else than was asked for.
async fn go_on(keeper: &Keeper, held: RestoreRecord, args: &Args) -> Result<()> {
    let (json, from) = (args.json, told(&held.plan));
    if let Some(why) = args.contradicts(&held.plan) {
        let (id, run) = (&held.id, &held.plan.run_id);
        if held.state.is_settled() {
            let new_run = held.new_run_id.as_deref().unwrap_or_default();
            bail!("run {run} has been restored already, as run {new_run}, {from}: {why}");
        }
        bail!(
            "restore {id} of run {run} has been begun already, {from}: {why}. Without these options it is gone on with"
        );
    }
    if !held.state.is_settled() {
        if !json {
            say(format_args!("Restore {} has been begun already, {from}.", held.id));
        }
        let record = drive(keeper, &held.id, json).await?;
        return ended(keeper, record, args).await;
    }
    if json {
        say(serde_json::to_string(&held)?);
    } else {
        say(format_args!("It has been restored already, {from}."));
    }
    tell_successor(&held, json);
    Ok(())
}

/// What a plan restores, within a sentence.
fn told(plan: &RestorePlan) -> String {
    let optimizer = match (plan.optimizer, plan.check_optimizer) {
        (false, _) => "without the optimizer's state",
        (true, false) => "with the optimizer's state",
        (true, true) => "with the optimizer's state, which is checked",
    };
    format!("from {} {optimizer}", plan.checkpoint.tinker_path)
}

/// Makes sure that the checkpoint is there for as long as it may be needed. That this cannot be done holds nothing up.
async fn secure(keeper: &Keeper, plan: &RestorePlan, json: bool) {
    let (store, now) = (&*keeper.store, keeper.runtime.now());
    match protect::protect(&keeper.api, store, &plan.run_id, &plan.checkpoint, protect::LIFE, now).await {
        Ok(Some(protection)) if !json => {
            say(format_args!(
                "  The checkpoint lives for a week from now, instead of until {}.",
                protection.expired_at
            ));
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the checkpoint is not protected"),
    }
}

/// Tells how a restore ended, and goes on keeping the new run alive if that was asked for.
async fn ended(keeper: &Keeper, record: RestoreRecord, args: &Args) -> Result<()> {
    let json = args.json;
    if json {
        say(serde_json::to_string(&record)?);
    }
    match record.state {
        RestoreState::Adopted if !args.detach => keep_alive(keeper, record, json).await,
        RestoreState::Adopted | RestoreState::HandedOver => {
            tell_successor(&record, json);
            Ok(())
        }
        RestoreState::Cancelled => bail!("the restore was cancelled; ask for it again to restore the run"),
        _ => bail!("the restore failed. {}", record.error.as_deref().unwrap_or("It does not say why.")),
    }
}

/// Carries the restore out, or waits for whoever does; Ctrl-C leaves it where the journal says.
async fn drive(keeper: &Keeper, restore_id: &str, json: bool) -> Result<RestoreRecord> {
    let renewal = keeper.ownership().run();
    tokio::select! {
        record = carry_out(keeper, restore_id, json) => record,
        () = renewal => bail!("the heartbeats have ended"),
        () = shutdown::requested() => bail!(
            "stopped; restore {restore_id} is gone on with by a console or 'retinker watch' on the same journal, or by this \
             command again"
        ),
    }
}

/// Somebody else may be at it, alive or not: a lease that nobody renews is over in a moment.
async fn carry_out(keeper: &Keeper, restore_id: &str, json: bool) -> Result<RestoreRecord> {
    let mut told = json;
    loop {
        match keeper.drives.executor().run(restore_id).await {
            Err(RestoreError::DrivenElsewhere(_)) => {}
            outcome => return Ok(outcome?),
        }
        if !std::mem::replace(&mut told, true) {
            say("Another program carries it out; waiting for that.");
        }
        tokio::time::sleep(LOOK).await;
        if let Some(record) = keeper.store.get(restore_id).await?.filter(|record| record.state.is_settled()) {
            return Ok(record);
        }
    }
}

async fn plan(keeper: &Keeper, request: &PlanRequest) -> Result<Result<RestorePlan, String>> {
    let held = keeper.store.by_old_run(&request.run_id).await?;
    let succession = held.iter().find_map(RestoreRecord::succession);
    let made_by = keeper.store.by_new_run(&request.run_id).await?;
    let now = keeper.runtime.now();
    let facts = gather(&keeper.api, request, succession, made_by.as_ref(), now)
        .await
        .with_context(|| format!("no plan can be made for run {}", request.run_id))?;
    Ok(make_plan(&facts, request).map_err(|no_plan| no_plan.message().to_owned()))
}

fn show(plan: &RestorePlan) {
    let optimizer = if plan.optimizer { "with" } else { "without" };
    say(format_args!("Restore run {}", plan.run_id));
    say(format_args!("  from   {}  ({optimizer} the optimizer's state)", plan.checkpoint.tinker_path));
    say(format_args!("  why    {}", plan.why));
    say(format_args!("  lost   {}", plan.lost.summary));
    for check in &plan.checks {
        let mark = match check.outcome {
            CheckOutcome::Passed => "ok  ",
            CheckOutcome::Unknown => "?   ",
            CheckOutcome::Warning => "mind",
        };
        say(format_args!("  {mark}   {}: {}", check.name, check.detail));
    }
    for rejected in &plan.rejected {
        say(format_args!("  not    {}: {}", rejected.tinker_path, rejected.reason));
    }
}

fn tell_successor(record: &RestoreRecord, json: bool) {
    if json {
        return;
    }
    let new_run = record.new_run_id.as_deref().unwrap_or_default();
    say(format_args!("Run {} has taken the place of run {}.", new_run, record.plan.run_id));
    say(format_args!("Go on with it: retinker attach {new_run}"));
}

/// Keeps the new run's session alive until somebody has taken it over.
async fn keep_alive(keeper: &Keeper, record: RestoreRecord, json: bool) -> Result<()> {
    tell_successor(&record, json);
    if !json {
        say(
            "Its session is kept alive here until a program has taken it over. Ctrl-C ends that: unless another retinker on the \
             same journal goes on, the new run ends with its session.",
        );
    }
    tokio::select! {
        () = keeper.ownership().run() => {}
        taken = taken_over(keeper, &record) => {
            taken?;
            if !json {
                say("It was taken over.");
            }
        }
        () = shutdown::requested() => {}
    }
    Ok(())
}

async fn taken_over(keeper: &Keeper, record: &RestoreRecord) -> Result<()> {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(now) = keeper.store.get(&record.id).await? else { return Ok(()) };
        if now.state == RestoreState::HandedOver {
            return Ok(());
        }
        let Some(new_run) = &now.new_run_id else { return Ok(()) };
        // A service that does not answer now will later.
        if let Ok(run) = keeper.api.training_run(new_run).await
            && now.taken_over_at(&run).is_some()
        {
            keeper.drives.executor().hand_over(&record.id).await?;
            return Ok(());
        }
    }
}
