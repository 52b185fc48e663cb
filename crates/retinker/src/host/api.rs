//! The types of `/retinker/v1`, which host and callers share.
//!
//! | Call | Request | Answer |
//! |---|---|---|
//! | `GET /retinker/v1/connections` | | [`Connections`] |
//! | `GET /retinker/v1/start` | | [`GettingStarted`] |
//! | `POST /retinker/v1/demo` | `{}` | [`GettingStarted`] |
//! | `GET /retinker/v1/status` | | [`HostStatus`] |
//! | `GET /retinker/v1/runs?health=&q=&sort=&reverse=&offset=&limit=&since=&order=` | [`RunsQuery`] | [`RunWindow`] |
//! | `GET /retinker/v1/run-ids?health=&q=&sort=&reverse=&anchor=&offset=` | [`RunsQuery`] | [`RunIds`] |
//! | `GET /retinker/v1/completions?of=&q=` | [`CompletionQuery`](super::completion::CompletionQuery) | [`Completions`](super::completion::Completions) |
//! | `GET /retinker/v1/runs/{run_id}` | | [`RunDetail`] |
//! | `GET /retinker/v1/runs/{run_id}/metrics`, `.../evidence` | | see [`run`](super::run) |
//! | `POST /retinker/v1/plans` | [`PlanRequest`] | [`PlanAnswer`] |
//! | `POST /retinker/v1/plan-batches` | [`PlanBatch`] | [`PlannedBatch`] |
//! | `POST /retinker/v1/restores` | [`StartRestore`] | [`StartedRestore`] |
//! | `GET /retinker/v1/restores` | | [`Restores`] |
//! | `GET /retinker/v1/restores/{id}` | | [`RestoreRecord`] |
//! | `POST /retinker/v1/restores/{id}/cancel` | | [`RestoreRecord`], cancelled |
//! | `POST /retinker/v1/restores/{id}/hand-over` | | [`HandOver`] |
//! | `GET /retinker/v1/incidents?open=` | [`IncidentsQuery`] | [`Incidents`] |
//! | `GET /retinker/v1/activity?whole=&newest=` | [`ActivityQuery`] | [`Activity`] |
//! | `GET /retinker/v1/monitor` | | [`MonitorState`] |
//! | `POST /retinker/v1/monitor` | [`SetMonitor`] | [`MonitorState`] |
//! | `GET /retinker/v1/sessions?q=&status=&project=&limit=` | [`SessionsQuery`](super::sessions::SessionsQuery) | [`SessionWindow`](super::sessions::SessionWindow) |
//! | `GET /retinker/v1/sessions/{id}` | | [`SessionDetail`](super::sessions::SessionDetail) |
//! | `POST /retinker/v1/sessions/{id}/finish` | [`FinishSession`](super::sessions::FinishSession) | [`SessionDetail`](super::sessions::SessionDetail) |
//! | `POST /retinker/v1/sessions/{id}/project` | [`AssignProject`](super::sessions::AssignProject) | [`SessionDetail`](super::sessions::SessionDetail) |
//! | `GET /retinker/v1/projects` | | [`Projects`](super::sessions::Projects) |
//! | `GET /retinker/v1/usage?days=&by=` | [`UsageQuery`](super::usage::UsageQuery) | [`Usage`](super::usage::Usage) |
//! | `GET /retinker/v1/samples/sources` | | [`SampleSources`](super::samples::SampleSources) |
//! | `POST /retinker/v1/samples` | [`SampleRequest`](super::samples::SampleRequest) | [`Samples`](super::samples::Samples) |
//! | `GET /retinker/v1/events` | | server-sent events, each `data:` an [`HostEvent`] |
//!
//! Every call carries the host's token in the header [`TOKEN_HEADER`], and can name the connection that it is about in
//! [`CONNECTION_HEADER`]: without it, it is about the host's first. A refused call is answered with an [`ApiProblem`].

use retinker_wire::UserMetadata;
use retinker_wire::run::{Checkpoint, TrainingRun};
use retinker_wire::time::Time;
use serde::{Deserialize, Serialize};

use crate::recovery::acts::Act;
use crate::recovery::health::{Health, Verdict};
use crate::recovery::incidents::Incident;
use crate::recovery::plan::{NoPlan, PlanRequest, RestorePlan, Strategy};
use crate::recovery::policy::{Gate, Policy};
use crate::recovery::restore::{Attachment, RestoreRecord};

/// The header that carries the host's token.
pub const TOKEN_HEADER: &str = "x-retinker-token";

/// The header that names the connection which a call is about.
pub const CONNECTION_HEADER: &str = "x-retinker-connection";

/// Whether a connection can go by this name: 1 to 64 ASCII letters, digits, `-`, `_` and `.`, the first a letter or
/// digit. Such a name is the same in a header, an address and a file's name.
pub fn is_connection_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// The services that the host can stand before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// They; the first is the one that is meant when none is named.
    pub connections: Vec<ConnectionInfo>,
}

/// A service that the host can stand before, as far as is known without asking it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionInfo {
    /// What callers name it by.
    pub name: String,
    /// Its name for people.
    pub title: String,
    /// What kind.
    pub kind: ServiceKind,
    /// Where training programs reach it. Without credentials.
    pub base_url: String,
    /// Whether the host has a key for it.
    #[serde(default)]
    pub has_key: bool,
    /// Where its key is to be put, e.g. `TINKER_API_KEY`: the name of a variable, never a key. Empty where it needs none.
    #[serde(default)]
    pub key_from: String,
    /// Whether the host looks after it: false until somebody asks for it.
    #[serde(default)]
    pub asked: bool,
    /// When its runs were last read; `None` = never yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Time>,
    /// Why it cannot be read now; `None` while it can, and before it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<ApiProblem>,
}

/// What gets a newcomer to a first run on a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GettingStarted {
    /// Ready-made commands.
    pub snippets: Vec<Snippet>,
    /// Whether the demonstration can be asked for.
    #[serde(default)]
    pub demo: bool,
}

/// What went wrong, to which thing, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiProblem {
    /// A stable name for programs, e.g. `run_not_found`, `service_unreachable`, `plan_changed`.
    pub code: String,
    /// What happened, for people.
    pub message: String,
    /// What to do, for people; empty when there is nothing to add.
    #[serde(default)]
    pub hint: String,
}

/// What kind of service stands behind the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceKind {
    /// The embedded one.
    Local,
    /// Another, by its base URL.
    Remote,
}

/// The service behind the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceInfo {
    /// Its name in the console.
    pub name: String,
    /// What kind.
    pub kind: ServiceKind,
    /// Where training programs reach it. Without credentials.
    pub base_url: String,
    /// The names of the base models that it offers; empty until it has answered.
    #[serde(default)]
    pub base_models: Vec<String>,
    /// Why it cannot be read now; `None` while it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<ApiProblem>,
}

/// The demonstration that fills an empty data directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DemoProgress {
    /// Whether it is still at work.
    pub running: bool,
    /// Training steps done.
    pub steps_done: u32,
    /// Training steps in all.
    pub steps_total: u32,
    /// What it is doing, for people.
    pub message: String,
}

/// How the host is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostStatus {
    /// The host's version.
    pub version: String,
    /// The service behind it.
    pub service: ServiceInfo,
    /// When the index of runs was last read whole; `None` = never yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Time>,
    /// How many runs there are; 0 until they have been read.
    #[serde(default)]
    pub runs: u64,
    /// The host's clock, by which all times here are told; a browser's may be wrong.
    pub now: Time,
    /// The demonstration, where it was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub demo: Option<DemoProgress>,
}

/// The order of a window. Each has the direction in which it is most useful; [`RunsQuery::reverse`] turns it round.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunSort {
    /// Worst health first, then newest activity.
    #[default]
    Health,
    /// Newest activity first.
    Activity,
    /// By name.
    Name,
    /// By the base model's name.
    Model,
    /// Highest rank first; runs without one last.
    Rank,
    /// Newest last checkpoint first; runs without one last.
    Saved,
    /// The last checkpoint that expires soonest first; those that never do, and runs without one, last.
    Expires,
}

impl RunSort {
    /// All there are.
    pub const ALL: [Self; 7] =
        [Self::Health, Self::Activity, Self::Name, Self::Model, Self::Rank, Self::Saved, Self::Expires];

    /// Its name in queries and addresses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Activity => "activity",
            Self::Name => "name",
            Self::Model => "model",
            Self::Rank => "rank",
            Self::Saved => "saved",
            Self::Expires => "expires",
        }
    }
}

/// Which runs to show. Absent members mean: all, by health, from the first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunsQuery {
    /// Only runs of this health.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// Only runs that this matches: words, and what is compared with fields (see [`query`](super::query)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub q: Option<String>,
    /// The order.
    #[serde(default)]
    pub sort: RunSort,
    /// The other way round.
    #[serde(default)]
    pub reverse: bool,
    /// How many to pass over.
    #[serde(default)]
    pub offset: u64,
    /// How many to give; 100 when absent, at most 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Only rows that have changed since this [`RunWindow::revision`]; all, when that is not one of this host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// The [`RunWindow::order`] that the caller knows, with `since`: the ids are told only if it is another one now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// In a call for [`RunIds`]: only the range between this run and the one at `offset`, whichever comes first, both included;
    /// if this run does not match, only the one at `offset`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<String>,
}

/// The ids of all runs that a query matches, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunIds {
    /// The ids, at most [`MAX_IDS`]: of a range those nearest to its anchor, else the first.
    pub ids: Vec<String>,
    /// How many runs match, or are in the range that was asked for.
    pub matching: u64,
}

/// Most ids in a [`RunIds`].
pub const MAX_IDS: usize = 10_000;

/// A run in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRow {
    /// The run as the service tells it.
    pub run: TrainingRun,
    /// Its name for people: the label `name`, else the id.
    pub name: String,
    /// How it is.
    pub verdict: Verdict,
    /// The run that it replaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_from: Option<String>,
    /// The run that replaces it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_to: Option<String>,
    /// A restore of it that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_id: Option<String>,
}

/// How many runs of each health there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCounts {
    /// [`Health::Poisoned`].
    pub poisoned: u64,
    /// [`Health::Unrecoverable`].
    pub unrecoverable: u64,
    /// [`Health::Stalled`].
    #[serde(default)]
    pub stalled: u64,
    /// [`Health::AtRisk`].
    pub at_risk: u64,
    /// [`Health::Recovered`].
    pub recovered: u64,
    /// [`Health::Healthy`].
    pub healthy: u64,
}

impl HealthCounts {
    /// The count of one health.
    pub fn get(&self, health: Health) -> u64 {
        match health {
            Health::Poisoned => self.poisoned,
            Health::Unrecoverable => self.unrecoverable,
            Health::Stalled => self.stalled,
            Health::AtRisk => self.at_risk,
            Health::Recovered => self.recovered,
            Health::Healthy => self.healthy,
        }
    }

    /// Counts one more.
    pub fn add(&mut self, health: Health) {
        *self.slot(health) += 1;
    }

    /// Counts one less.
    pub fn remove(&mut self, health: Health) {
        let slot = self.slot(health);
        *slot = slot.saturating_sub(1);
    }

    fn slot(&mut self, health: Health) -> &mut u64 {
        match health {
            Health::Poisoned => &mut self.poisoned,
            Health::Unrecoverable => &mut self.unrecoverable,
            Health::Stalled => &mut self.stalled,
            Health::AtRisk => &mut self.at_risk,
            Health::Recovered => &mut self.recovered,
            Health::Healthy => &mut self.healthy,
        }
    }
}

/// A part of the list of runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunWindow {
    /// The rows; of a `partial` window those that have changed.
    pub rows: Vec<RunRow>,
    /// How many runs match.
    pub matching: u64,
    /// How many runs there are.
    pub total: u64,
    /// Of all runs that match the text, by health.
    pub counts: HealthCounts,
    /// Which state of the host's index this is; to be sent back as [`RunsQuery::since`]. Another host, or the same one after a
    /// new start, counts from elsewhere.
    #[serde(default)]
    pub revision: u64,
    /// A digest of which runs stand in the window, and in which order; to be sent back as [`RunsQuery::order`].
    #[serde(default)]
    pub order: String,
    /// `rows` holds only what has changed since the revision that was asked for.
    #[serde(default)]
    pub partial: bool,
    /// The ids of the window's runs in order, if it is `partial` and its order is not the one that the caller knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<String>>,
    /// A word of the text that seems to name a field of which there is none, where nothing matches: it was looked for as a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_field: Option<String>,
    /// When the list was last read from the service; `None` = never yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Time>,
    /// Why the list could not be read again since; the rows are then those of `as_of`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<ApiProblem>,
}

/// A run in a lineage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineageEntry {
    /// The run.
    pub run_id: String,
    /// 0 for the root.
    pub generation: u32,
    /// The restore that made it; `None` for the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_id: Option<String>,
    /// The run that it was restored from; `None` for the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The path of the checkpoint that it was restored from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    /// Its name for people.
    #[serde(default)]
    pub name: String,
    /// How it is; `None`: the service does not list it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

/// Ready-made code that goes on with a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snippet {
    /// `python`, `rust`, `typescript`, `elixir`, or `cookbook` (Python, for the recipes of tinker-cookbook).
    pub language: String,
    /// What it does, in a few words.
    pub title: String,
    /// The code.
    pub code: String,
}

/// Everything about one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunDetail {
    /// The run as in the list.
    pub row: RunRow,
    /// What it can be restored from, newest first: its own checkpoints, and the one that it was restored from itself.
    pub checkpoints: Vec<CheckpointRow>,
    /// Why the checkpoints could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoints_problem: Option<ApiProblem>,
    /// All runs of its family, parents before their children, root first; more than one only when something was
    /// restored.
    pub lineage: Vec<LineageEntry>,
    /// The restore that made this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_by: Option<RestoreRecord>,
    /// When a program that has taken this restored run over last asked it for something; `None` as long as none has,
    /// and for runs that were not restored. What [`HandOver`] tells is used up then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_over_at: Option<Time>,
    /// The latest restore of this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<RestoreRecord>,
    /// Those before it, newest first: at most [`MAX_EARLIER`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier_restores: Vec<RestoreRecord>,
    /// Why it offers no restore; `None` = it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_restore_because: Option<String>,
    /// The run's own labels, without the lineage.
    pub own_metadata: UserMetadata,
    /// Code that goes on with this run: by attaching, when the host has restored it and nobody has taken it over; else
    /// from its newest checkpoint.
    pub snippets: Vec<Snippet>,
}

/// Most earlier restores in a [`RunDetail`].
pub const MAX_EARLIER: usize = 20;

/// A checkpoint with what the console says of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointRow {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Why it cannot be restored from; `None` = it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unusable_because: Option<String>,
}

/// The answer to a request for a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanAnswer {
    /// What a restore would do.
    Plan(Box<RestorePlan>),
    /// Why there is none.
    None(NoPlan),
}

/// Asks for the plans of many runs at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanBatch {
    /// The runs, at most [`MAX_PLANS`].
    pub run_ids: Vec<String>,
    /// Which checkpoint of each; the newest that can be used by default.
    #[serde(default)]
    pub strategy: Strategy,
    /// How many of those that can be used are stepped back over first; 0 by default.
    #[serde(default)]
    pub step_back: u32,
    /// Whether to restore the optimizer's state as well.
    pub optimizer: bool,
    /// Whether it is found out first, on throw-away copies, that it came back; not by default.
    #[serde(default)]
    pub check_optimizer: bool,
}

impl PlanBatch {
    /// What is asked of one of the runs.
    pub fn request(&self, run_id: &str) -> PlanRequest {
        PlanRequest {
            strategy: self.strategy.clone(),
            step_back: self.step_back,
            optimizer: self.optimizer,
            check_optimizer: self.check_optimizer,
            ..PlanRequest::new(run_id)
        }
    }
}

/// Plans that a host makes at once. Of a batch of so many each has the host's whole patience with a slow service.
pub const PLANS_AT_ONCE: usize = 8;

/// Most runs in a [`PlanBatch`].
pub const MAX_PLANS: usize = 50;

/// The plans of many runs, in the order in which they were asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedBatch {
    /// One for each run.
    pub runs: Vec<PlannedRun>,
}

/// What a restore of one run would do: exactly one of the last three is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedRun {
    /// The run.
    pub run_id: String,
    /// Its name for people.
    pub name: String,
    /// What a restore would do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<RestorePlan>,
    /// Why there can be none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub none: Option<NoPlan>,
    /// Why it could not be found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<ApiProblem>,
}

/// A confirmed plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartRestore {
    /// The plan exactly as it was shown.
    pub plan: RestorePlan,
}

/// A restore that was started, or found to be under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartedRestore {
    /// The restore.
    pub restore: RestoreRecord,
    /// It had been started before, by another tab, click or program; nothing was started now.
    pub already: bool,
}

/// All restores, newest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Restores {
    /// The restores.
    pub restores: Vec<RestoreRecord>,
}

/// Which incidents are asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentsQuery {
    /// Only runs that still wait to be restored, and only where there are several of them.
    #[serde(default)]
    pub open: bool,
}

/// Which runs failed together, newest incident first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Incidents {
    /// The incidents.
    pub incidents: Vec<Incident>,
}

/// What is done about lost runs that nobody asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MonitorState {
    /// Whether restores may begin by themselves now, in any monitor of the journal.
    pub gate: Gate,
    /// Which are restored by this host.
    pub policy: PolicySummary,
}

/// What a person is told of a [`Policy`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicySummary {
    /// Whether poisoned runs are restored by themselves.
    pub enabled: bool,
    /// How often a run, with those that came from it, is restored at most until one lasts.
    pub max_attempts: u32,
    /// How many restores begin in an hour at most.
    pub max_restores_per_hour: u32,
}

impl From<&Policy> for PolicySummary {
    fn from(policy: &Policy) -> Self {
        let Policy { enabled, max_attempts, max_restores_per_hour, .. } = *policy;
        Self { enabled, max_attempts, max_restores_per_hour }
    }
}

/// How much of the activity is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivityQuery {
    /// Everything, with all that it was about; else the newest of each list, and of a thing [`TOLD_SUBJECTS`] names or
    /// [`TOLD_RUNS`] runs at most.
    #[serde(default)]
    pub whole: bool,
    /// How many incidents, restores and acts each, where not all are asked for; [`TOLD_NEWEST`] when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<u64>,
}

/// So many of each list are told where nobody says otherwise.
pub const TOLD_NEWEST: u64 = 100;

/// Of so many runs an incident is told by name where not all are asked for.
pub const TOLD_RUNS: usize = 100;

/// Of so many things an act is told by name where not all are asked for.
pub const TOLD_SUBJECTS: usize = 10;

/// What people, consoles and monitors did: about lost runs, and with the service's things.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Activity {
    /// Whether restores begin by themselves.
    pub monitor: MonitorState,
    /// Newest first.
    pub incidents: Vec<Incident>,
    /// How many incidents there are.
    #[serde(default)]
    pub incidents_total: u64,
    /// Newest first.
    pub restores: Vec<RestoreRecord>,
    /// How many restores there are.
    #[serde(default)]
    pub restores_total: u64,
    /// What else was done, newest first.
    #[serde(default)]
    pub acts: Vec<Act>,
    /// How many acts there are.
    #[serde(default)]
    pub acts_total: u64,
}

/// Pauses or resumes all monitors of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetMonitor {
    /// Whether restores may begin by themselves.
    pub gate: Gate,
}

/// What the taker of a restored run needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandOver {
    /// The run's identity.
    pub attachment: Attachment,
    /// Where the service is.
    pub base_url: String,
    /// Code that takes it over; once that has been done, code that starts a new run from its newest checkpoint.
    pub snippets: Vec<Snippet>,
    /// Until when the host keeps the session alive beside the taker.
    pub heartbeats_until: Time,
}

/// Something changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", try_from = "FlatEvent")]
// Few are alive at once, and the large one is rare.
#[allow(clippy::large_enum_variant)]
pub enum HostEvent {
    /// Runs changed, came or went: read the window again.
    Runs {
        /// Which, when they are few; empty = many.
        run_ids: Vec<String>,
    },
    /// A restore went on.
    Restore {
        /// As it is now.
        restore: Box<RestoreRecord>,
    },
    /// The host's own state changed: the service came or went, the demonstration went on.
    Status {
        /// As it is now.
        status: HostStatus,
    },
}

/// A [`HostEvent`] as it is read. Serde reads a tagged enum through a buffer, by code that is there a second time for
/// every type within; read flat, the events cost the console no more than the calls.
#[derive(Deserialize)]
struct FlatEvent {
    r#type: String,
    #[serde(default)]
    run_ids: Vec<String>,
    #[serde(default)]
    restore: Option<Box<RestoreRecord>>,
    #[serde(default)]
    status: Option<HostStatus>,
}

impl TryFrom<FlatEvent> for HostEvent {
    type Error = String;

    fn try_from(flat: FlatEvent) -> Result<Self, String> {
        match (flat.r#type.as_str(), flat.restore, flat.status) {
            ("runs", ..) => Ok(Self::Runs { run_ids: flat.run_ids }),
            ("restore", Some(restore), _) => Ok(Self::Restore { restore }),
            ("status", _, Some(status)) => Ok(Self::Status { status }),
            (kind, ..) => Err(format!("an event of type '{kind}' that is unknown or incomplete")),
        }
    }
}
