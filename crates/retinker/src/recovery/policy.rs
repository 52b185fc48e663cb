//! Whether a poisoned run is restored without anybody asking: a pure function of the run, the journal and the clock.
//!
//! No budget is kept anywhere: what is spent is counted from the journal each time, back along the lineage, until a
//! run that lasted. A run *lasted* if, after it had been adopted, it stayed healthy for [`Policy::healthy_ms`] **and**
//! then saved a checkpoint of its own; both times are the service's, so no clock of ours can forge it. Where runs are
//! made that the journal does not know (it was lost, or another program restored them), the labels that they carry
//! count.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use retinker_wire::run::{Checkpoint, TrainingRun};
use retinker_wire::time::Time;
use serde::{Deserialize, Deserializer, Serialize};

use super::health::{FailureCategory, Health, Verdict};
use super::plan::{LABEL_GENERATION, LABEL_OPT_OUT, PlanRequest, Strategy};
use super::planner::{last_save, origin_of};
use super::restore::{RestoreRecord, RestoreState, maker_of};
use crate::client::retry::backoff;

/// When runs are restored by themselves, and how. Named as `Tinkex.Recovery.Policy` is, with more budgets.
///
/// A member that is missing has its default; one that is unknown is ignored. Any budget of 0 allows nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// Whether any run is restored without being asked for; off by default.
    pub enabled: bool,
    /// Restores of one lineage in all, failed ones and those that people asked for included, until a run lasts; 3.
    pub max_attempts: u32,
    /// Restored runs of one lineage that may be poisoned without a new checkpoint of their own, until a run lasts; 2.
    pub max_no_progress: u32,
    /// Restores of all runs that may begin within an hour; 60, so that an incident of 50 runs is over in one go.
    pub max_restores_per_hour: u32,
    /// How long a restored run has to be healthy before its next checkpoint to have lasted, in milliseconds;
    /// ten minutes.
    pub healthy_ms: u64,
    /// The pause after a lineage's first restore, in milliseconds; 5,000. It doubles with each, and is up to a quarter
    /// shorter by chance.
    pub backoff_ms: u64,
    /// The longest such pause, in milliseconds; 60,000.
    pub max_backoff_ms: u64,
    /// How often a monitor looks at the runs, in milliseconds; 30,000.
    pub poll_interval_ms: u64,
    /// Which checkpoint; the newest that can be used. Also read from a word: `latest`, or a checkpoint's path.
    #[serde(deserialize_with = "strategy_or_word")]
    pub checkpoint_strategy: Strategy,
    /// Whether the optimizer's state is restored as well; yes.
    pub restore_optimizer: bool,
    /// Whether it is found out, on throw-away copies, that the optimizer's state came back, before a new run is adopted; no.
    pub check_optimizer: bool,
    /// Whether a lineage steps back over one checkpoint more for each restored run that was poisoned without a new
    /// checkpoint of its own, and a run over each checkpoint that could not be loaded or was not what had been saved; yes.
    /// Not with a checkpoint that was asked for by its path.
    pub step_back: bool,
    /// A run that was asked for nothing for so long when it is first seen to be lost is history: it is not told of, nor
    /// protected, nor restored by itself; in milliseconds, a day.
    pub max_age_ms: u64,
    /// How long the checkpoint that a poisoned run can be restored from lives at least, in milliseconds: a week. 0 leaves its
    /// life as it is.
    pub protect_ms: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            enabled: false,
            max_attempts: 3,
            max_no_progress: 2,
            max_restores_per_hour: 60,
            healthy_ms: 600_000,
            backoff_ms: 5_000,
            max_backoff_ms: 60_000,
            poll_interval_ms: 30_000,
            checkpoint_strategy: Strategy::LatestValid,
            restore_optimizer: true,
            check_optimizer: false,
            step_back: true,
            max_age_ms: 24 * 3_600_000,
            protect_ms: 7 * 24 * 3_600_000,
        }
    }
}

impl Policy {
    /// The plan to ask for when a run is to be restored.
    pub fn request(&self, situation: &Situation<'_>) -> PlanRequest {
        let by_name = matches!(self.checkpoint_strategy, Strategy::Specific { .. });
        let (step_back, exclude) = match self.step_back && !by_name {
            true => (spent(self, situation).no_progress, useless(situation)),
            false => (0, Vec::new()),
        };
        PlanRequest {
            strategy: self.checkpoint_strategy.clone(),
            optimizer: self.restore_optimizer,
            check_optimizer: self.check_optimizer,
            step_back,
            exclude,
            ..PlanRequest::new(&situation.run.training_run_id)
        }
    }

    fn allows_any(&self) -> bool {
        self.enabled && self.max_attempts > 0 && self.max_no_progress > 0 && self.max_restores_per_hour > 0
    }
}

fn strategy_or_word<'de, D: Deserializer<'de>>(d: D) -> Result<Strategy, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Word(String),
        Whole(Strategy),
    }
    match Written::deserialize(d)? {
        Written::Whole(strategy) => Ok(strategy),
        Written::Word(word) if matches!(word.as_str(), "latest" | "latest_valid") => {
            Ok(Strategy::LatestValid)
        }
        Written::Word(path) if path.starts_with("tinker://") => Ok(Strategy::Specific { path }),
        Written::Word(word) => Err(serde::de::Error::custom(format!(
            "'{word}' does not say which checkpoint: write 'latest', a tinker:// path, or \
             {{\"type\": \"best\", \"metric\": ..., \"mode\": \"min\" or \"max\"}}"
        ))),
    }
}

/// Whether restores may begin at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// They may.
    #[default]
    Open,
    /// None begins until somebody resumes; those under way go on.
    Paused,
    /// None begins any more; those under way go on, and then the program ends.
    Draining,
}

/// What is decided on.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The run.
    pub run: &'a TrainingRun,
    /// How it is.
    pub verdict: &'a Verdict,
    /// All checkpoints that it could be restored from (see [`candidates`](super::planner::candidates)); `None` where
    /// they have not been read, and then it is not held against the run that none is known.
    pub checkpoints: Option<&'a [Checkpoint]>,
    /// All restores in the journal as it is now, in any order: the one that was begun a moment ago counts.
    pub records: &'a [RestoreRecord],
    /// Whether restores may begin at all.
    pub gate: Gate,
    /// Whether the journal says that the run is not to be restored by itself; its label [`LABEL_OPT_OUT`] says the same.
    pub opted_out: bool,
    /// Until when the service asked to be left alone (402, 429). Waiting for that spends no attempt.
    pub left_alone_until: Option<Time>,
    /// The wall clock.
    pub now: Time,
    /// 64 random bits, for the pause. Draw them once for each run: with others, the end of a pause is another.
    pub random: u64,
}

/// What to do with the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Decision {
    /// Restore it now, as [`Policy::request`] says.
    Restore,
    /// Decide again then.
    NotBefore {
        /// When.
        at: Time,
        /// Why not now.
        wait: Wait,
    },
    /// Leave it alone.
    No(Refusal),
}

/// Why a restore has to wait. As text, a sentence for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// The pause after the lineage's last restore is not over.
    Backoff,
    /// So many restores have begun within the hour.
    HourlyBudget,
    /// The service asked for it.
    Service,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Backoff => "The last restore of this run, or of one that it came from, was a moment ago.",
            Self::HourlyBudget => "As many restores as are allowed have begun within the last hour.",
            Self::Service => "The service asked to be left alone for a while.",
        })
    }
}

/// Why a run is not restored by itself. As text, a sentence for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Refusal {
    /// It needs no restore.
    NotPoisoned,
    /// Its session is over: a restored run would have nobody to train it.
    NobodyTrains,
    /// No checkpoint.
    NothingToRestoreFrom,
    /// A restored run has taken its place.
    AlreadyRestored,
    /// A restore of it is not settled.
    UnderWay,
    /// A request was at fault: a restored run would meet it again.
    UserFailure,
    /// The policy is not enabled, or allows nothing.
    Off,
    /// Restores are paused.
    Paused,
    /// The program is about to end.
    Draining,
    /// Its owner does not want it.
    OptedOut,
    /// A person has cancelled the last restore of it.
    Cancelled,
    /// The lineage's attempts are spent.
    AttemptsSpent {
        /// Restores made.
        spent: u32,
        /// [`Policy::max_attempts`].
        allowed: u32,
    },
    /// Restored runs of the lineage came to nothing.
    NoProgress {
        /// How many were poisoned without a new checkpoint of their own.
        runs: u32,
        /// [`Policy::max_no_progress`].
        allowed: u32,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotPoisoned => "It is not poisoned, so there is nothing to restore.",
            Self::NobodyTrains => {
                "Its session is over, so nobody would train a restored run; it can be restored by hand."
            }
            Self::NothingToRestoreFrom => "It has no checkpoint to restore from.",
            Self::AlreadyRestored => "A restored run has taken its place.",
            Self::UnderWay => "A restore of it is under way.",
            Self::UserFailure => "A request was at fault; a restored run would fail on it again.",
            Self::Off => "Automatic restores are off; it can be restored by hand.",
            Self::Paused => "Automatic restores are paused; resume them, or restore it by hand.",
            Self::Draining => "No more restores are begun here: the program is about to end.",
            Self::OptedOut => "Its owner wants no automatic restores of it; it can be restored by hand.",
            Self::Cancelled => "Its restore was cancelled; it can be restored by hand.",
            Self::AttemptsSpent { spent, allowed } => {
                return write!(
                    f,
                    "It and the runs that it came from have been restored {spent} times, and {allowed} are allowed \
                     until one lasts. Find the cause, then restore it by hand."
                );
            }
            Self::NoProgress { runs, allowed } => {
                return write!(
                    f,
                    "{runs} restored runs were poisoned before they had saved a checkpoint of their own, and {allowed} \
                     are enough to stop. Find the cause, then restore it by hand."
                );
            }
        })
    }
}

/// Whether this run is restored by itself, now or later. Two that decide at once may both say yes: the journal lets
/// one of them begin.
pub fn decide(policy: &Policy, situation: &Situation<'_>) -> Decision {
    let refusal = needless(situation).or_else(|| forbidden(policy, situation));
    if let Some(refusal) = refusal {
        return Decision::No(refusal);
    }
    let spent = spent(policy, situation);
    if let Some(refusal) = exhausted(policy, &spent) {
        return Decision::No(refusal);
    }
    let waits = [
        situation.left_alone_until.map(|at| (at, Wait::Service)),
        hour_is_over(policy, situation).map(|at| (at, Wait::HourlyBudget)),
        pause_is_over(policy, situation, &spent).map(|at| (at, Wait::Backoff)),
    ];
    match waits.into_iter().flatten().max_by_key(|(at, _)| *at) {
        Some((at, wait)) if at > situation.now => Decision::NotBefore { at, wait },
        _ => Decision::Restore,
    }
}

/// Why there is nothing to do for this run.
fn needless(situation: &Situation<'_>) -> Option<Refusal> {
    match situation.verdict.health {
        Health::Healthy | Health::AtRisk => return Some(Refusal::NotPoisoned),
        Health::Stalled => return Some(Refusal::NobodyTrains),
        Health::Recovered => return Some(Refusal::AlreadyRestored),
        Health::Unrecoverable => return Some(Refusal::NothingToRestoreFrom),
        Health::Poisoned => {}
    }
    // The journal may be newer than the verdict.
    let holder = restores_of(situation, &situation.run.training_run_id).find(|r| r.state.holds_the_run())?;
    Some(if holder.state.is_settled() { Refusal::AlreadyRestored } else { Refusal::UnderWay })
}

/// Why it may not be done, whatever has been spent.
fn forbidden(policy: &Policy, situation: &Situation<'_>) -> Option<Refusal> {
    if situation.verdict.category == Some(FailureCategory::User) {
        return Some(Refusal::UserFailure);
    }
    if situation.opted_out || label(situation.run, LABEL_OPT_OUT).is_some_and(|value| value != "false") {
        return Some(Refusal::OptedOut);
    }
    let last = restores_of(situation, &situation.run.training_run_id).max_by_key(|record| record.created_at);
    if last.is_some_and(|record| record.state == RestoreState::Cancelled) {
        return Some(Refusal::Cancelled);
    }
    if !policy.allows_any() {
        return Some(Refusal::Off);
    }
    match situation.gate {
        Gate::Open => None,
        Gate::Paused => Some(Refusal::Paused),
        Gate::Draining => Some(Refusal::Draining),
    }
}

/// What a lineage has spent since a run of it lasted.
#[derive(Debug, Default)]
struct Spent {
    /// Restores.
    attempts: u32,
    /// Restored runs that were poisoned without a new checkpoint of their own.
    no_progress: u32,
    /// When the last restore that the journal knows ended.
    last: Option<Time>,
}

/// What is known of a run's saving its own work.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Saved {
    At(Time),
    Never,
    Unknown,
}

/// Goes back from run to run, by the restores that made them.
fn spent(policy: &Policy, situation: &Situation<'_>) -> Spent {
    let mut spent = Spent::default();
    let mut run_id = situation.run.training_run_id.as_str();
    let mut generation =
        label(situation.run, LABEL_GENERATION).and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut saved = saved_now(situation, maker_of(situation.records, run_id));
    // A damaged journal could lead round in a circle.
    for _ in 0..=situation.records.len() {
        for record in restores_of(situation, run_id) {
            spent.attempts = spent.attempts.saturating_add(1);
            spent.last = spent.last.max(Some(ended(record)));
        }
        let maker = maker_of(situation.records, run_id);
        if maker.is_some_and(|maker| lasted(policy, maker, saved)) {
            return spent;
        }
        if saved == Saved::Never && (maker.is_some() || generation > 0) {
            spent.no_progress = spent.no_progress.saturating_add(1);
        }
        let Some(maker) = maker else {
            spent.attempts = spent.attempts.saturating_add(generation);
            return spent;
        };
        run_id = &maker.plan.run_id;
        generation = maker.plan.generation.saturating_sub(1);
        saved = maker.plan.last_save.map_or(Saved::Never, Saved::At);
    }
    spent
}

/// The checkpoints that restores of this run could not use: one that was refused or is not what was saved, and one that could
/// not be loaded twice, whatever the reason.
fn useless(situation: &Situation<'_>) -> Vec<String> {
    let mut failures = BTreeMap::<&str, u32>::new();
    for record in restores_of(situation, &situation.run.training_run_id) {
        let weight = match (record.state, record.checkpoint_useless) {
            (RestoreState::Failed, true) => 2,
            (RestoreState::Failed, false) if record.failed_at_load() => 1,
            _ => continue,
        };
        *failures.entry(&record.plan.checkpoint.tinker_path).or_default() += weight;
    }
    failures.into_iter().filter(|(_, weight)| *weight >= 2).map(|(path, _)| path.to_owned()).collect()
}

fn restores_of<'a>(situation: &Situation<'a>, run_id: &'a str) -> impl Iterator<Item = &'a RestoreRecord> {
    situation.records.iter().filter(move |record| record.plan.run_id == run_id)
}

/// What is known of the saves of the run that is decided on.
fn saved_now(situation: &Situation<'_>, maker: Option<&RestoreRecord>) -> Saved {
    let origin = origin_of(situation.run, maker);
    let listed = situation.checkpoints.unwrap_or_default().iter();
    let run_id = &situation.run.training_run_id;
    match last_save(run_id, listed.chain(situation.run.last_checkpoint.as_ref()), origin.as_deref()) {
        Some(at) => Saved::At(at),
        None if situation.checkpoints.is_some() => Saved::Never,
        None => Saved::Unknown,
    }
}

/// Whether the run that this restore made was healthy for long enough, and then saved.
fn lasted(policy: &Policy, maker: &RestoreRecord, saved: Saved) -> bool {
    let (Saved::At(saved), Some(adopted)) = (saved, maker.last_request_time) else { return false };
    adopted.later(Duration::from_millis(policy.healthy_ms)) <= saved
}

/// When a restore came to its end; for one that has not, when it last went on.
fn ended(record: &RestoreRecord) -> Time {
    let is_end =
        |state| matches!(state, RestoreState::Adopted | RestoreState::Failed | RestoreState::Cancelled);
    record.events.iter().rfind(|event| is_end(event.state)).map_or(record.updated_at, |event| event.at)
}

fn exhausted(policy: &Policy, spent: &Spent) -> Option<Refusal> {
    if spent.no_progress >= policy.max_no_progress {
        return Some(Refusal::NoProgress { runs: spent.no_progress, allowed: policy.max_no_progress });
    }
    (spent.attempts >= policy.max_attempts)
        .then_some(Refusal::AttemptsSpent { spent: spent.attempts, allowed: policy.max_attempts })
}

/// When enough of the last restores, of any run, lie more than an hour back.
fn hour_is_over(policy: &Policy, situation: &Situation<'_>) -> Option<Time> {
    let until = situation.records.iter().map(|record| record.created_at.later(HOUR));
    let mut until: Vec<Time> = until.filter(|until| *until > situation.now).collect();
    until.sort_unstable_by(|a, b| b.cmp(a));
    let allowed = usize::try_from(policy.max_restores_per_hour).unwrap_or(usize::MAX);
    until.get(allowed.checked_sub(1)?).copied()
}

const HOUR: Duration = Duration::from_secs(3_600);

fn pause_is_over(policy: &Policy, situation: &Situation<'_>, spent: &Spent) -> Option<Time> {
    let last = spent.last?;
    let (first, longest) =
        (Duration::from_millis(policy.backoff_ms), Duration::from_millis(policy.max_backoff_ms));
    let pause = backoff(first, longest, spent.attempts.saturating_sub(1), situation.random);
    Some(last.later(pause))
}

fn label<'a>(run: &'a TrainingRun, name: &str) -> Option<&'a str> {
    run.user_metadata.as_ref()?.get(name).map(String::as_str)
}

#[cfg(test)]
mod tests;
