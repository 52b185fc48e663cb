//! `retinker watch`: the recovery monitor, without a console.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use retinker::host::api::HealthCounts;
use retinker::recovery::control;
use retinker::recovery::health::Health;
use retinker::recovery::monitor::{MonitorError, Round};
use retinker::recovery::policy::Gate;
use retinker::recovery::telling::Teller;
use retinker_host::Keeper;
use retinker_host::hooks::Metrics;
use tokio::sync::oneshot;

use super::target::Target;
use super::watching::WatchArgs;
use crate::shutdown;

const EXAMPLES: &str = "\
Examples:
  retinker watch                                     see and tell; nothing is restored
  retinker watch --auto-restore --events -           restore by the default policy, events as JSON lines
  retinker watch --auto-restore --exec ./train.sh    and start a program for each event
  retinker watch --once                              one round, for a cron job";

/// How long restores that are under way are waited for at the end.
const GRACE: Duration = Duration::from_secs(300);
/// How often it is looked whether all monitors are to end.
const LOOK: Duration = Duration::from_secs(5);
const STOPPING: &str = "Stopping: no restore begins; those under way go on. Ctrl-C again stops at once.";

/// What `retinker watch` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    watching: WatchArgs,
    /// Look once, wait for the restores that this began, and end. Their new runs have to be kept alive by others.
    #[arg(long)]
    once: bool,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let policy = args.watching.policy()?;
    let hooks = args.watching.hooks(&args.target.service()?.base_url).await?;
    let enabled = policy.enabled;
    let keeper = args.target.keeper(policy, hooks.sink(), |_| {}).await?;
    let metrics = Arc::clone(&hooks.metrics);
    let mut teller = hooks.told().map(|sink| keeper.teller(sink));
    if let Some(teller) = &mut teller {
        // From now on, if nobody has listened before.
        teller.tell().await?;
    }
    let watching = async {
        if args.once {
            return once(&keeper, &metrics).await;
        }
        // Not on the standard output, which events may be written to.
        eprintln!(
            "Watching {}; poisoned runs are {}. Stop with Ctrl-C.",
            keeper.api.base_url(),
            if enabled { "restored as the policy allows" } else { "told of, and not restored" }
        );
        watch(&keeper, &metrics).await
    };
    let outcome = beside(teller, watching).await;
    hooks.drain().await;
    outcome
}

/// Does something, and tells what happens meanwhile, to the end.
async fn beside<T>(teller: Option<Teller>, watching: impl Future<Output = T>) -> T {
    let Some(mut teller) = teller else { return watching.await };
    let (over, ended) = oneshot::channel::<()>();
    let watching = async {
        let outcome = watching.await;
        drop(over);
        outcome
    };
    let telling = teller.run_until(async {
        let _ = ended.await;
    });
    tokio::join!(watching, telling).0
}

async fn once(keeper: &Keeper, metrics: &Metrics) -> Result<()> {
    let looked = async {
        // What an earlier call was cut off at.
        for record in keeper.store.unfinished().await? {
            keeper.drives.drive(&record.id);
        }
        let round = keeper.monitor.round().await;
        note(keeper, metrics, &round).await;
        keeper.drives.settled().await;
        let round = round?;
        // Not on the standard output, which events may be written to.
        eprintln!(
            "Runs: {}. Lost: {}. Stalled: {}. Restores begun: {}.",
            round.runs, round.lost, round.stalled, round.begun
        );
        Ok(())
    };
    let ended = async {
        tokio::select! {
            outcome = looked => return outcome,
            () = shutdown::requested() => eprintln!("{STOPPING}"),
        }
        wind_up(keeper).await;
        Ok(())
    };
    with_heartbeats(keeper, ended).await
}

async fn watch(keeper: &Keeper, metrics: &Metrics) -> Result<()> {
    let (rounds, mut told) = tokio::sync::mpsc::unbounded_channel();
    let noting = async {
        while let Some(round) = told.recv().await {
            note(keeper, metrics, &round).await;
        }
    };
    let mut rounds = pin!(keeper.monitor.run(move |round| drop(rounds.send(round.clone()))));
    let ended = async {
        tokio::select! {
            () = &mut rounds => bail!("the monitor has ended"),
            () = noting => bail!("the monitor has ended"),
            () = keeper.drives.clone().resume() => bail!("the monitor has ended"),
            () = drained(keeper) => eprintln!("Drained: all monitors of this journal are to end."),
            () = shutdown::requested() => eprintln!("{STOPPING}"),
        }
        // The round that is under way comes to its end.
        tokio::select! {
            () = rounds => {}
            () = wind_up(keeper) => {}
        }
        Ok(())
    };
    with_heartbeats(keeper, ended).await
}

/// Sends heartbeats until all is done: what is under way needs its session, however long its load is queued.
async fn with_heartbeats(keeper: &Keeper, ended: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::select! {
        outcome = ended => outcome,
        () = keeper.ownership().run() => bail!("the heartbeats have ended"),
    }
}

/// Begins nothing more, and waits for what is under way, within bounds.
async fn wind_up(keeper: &Keeper) {
    tokio::select! {
        () = keeper.monitor.drain() => {}
        () = tokio::time::sleep(GRACE) => eprintln!("Restores are left where the journal says they are."),
        () = shutdown::requested() => {}
    }
    keeper.drives.stop();
}

/// Resolves when all monitors of the journal are told to end.
async fn drained(keeper: &Keeper) {
    loop {
        if matches!(control::gate(&*keeper.store).await, Ok(Gate::Draining)) {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn note(keeper: &Keeper, metrics: &Metrics, round: &Result<Round, MonitorError>) {
    match round {
        Ok(round) => {
            metrics.round_read(round.requests, keeper.runtime.now());
            metrics.set_runs(healths(&round.health));
        }
        Err(_) => metrics.round_failed(1),
    }
    if let Ok(records) = keeper.store.list().await {
        metrics.set_restores(records.iter().map(|record| record.state));
    }
}

fn healths(counts: &HealthCounts) -> impl Iterator<Item = Health> {
    let counts = *counts;
    Health::ALL.into_iter().flat_map(move |health| {
        std::iter::repeat_n(health, usize::try_from(counts.get(health)).unwrap_or(usize::MAX))
    })
}
