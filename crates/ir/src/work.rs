//! Work (nsai_work 0.1.0): jobs. That package writes no JSON; this is its struct by the conventions of its siblings.

use retinker::recovery::restore::{RestoreRecord, RestoreState};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::lineage::{SOURCE, id_of_restore};
use crate::stamp::Stamp;
use crate::training::RetryPolicy;
use crate::{IrError, read};

/// What kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A call of a tool.
    ToolCall,
    /// A step of an experiment.
    ExperimentStep,
    /// A step of a workflow.
    WorkflowStep,
    /// A step of training.
    TrainingStep,
    /// Sampling.
    Inference,
    /// Something that a backend is told to do: a restore.
    BackendCommand,
    /// Several jobs.
    Composite,
}

/// How urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// At once.
    Realtime,
    /// Somebody waits.
    Interactive,
    /// In its turn.
    #[default]
    Batch,
    /// When there is nothing else.
    Offline,
}

/// How far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Not begun.
    #[default]
    Pending,
    /// Waiting for its turn.
    Queued,
    /// Under way.
    Running,
    /// Done. Also read as `completed`.
    #[serde(alias = "completed")]
    Succeeded,
    /// It went wrong.
    Failed,
    /// Somebody has stopped it. Also read as `cancelled`.
    #[serde(alias = "cancelled")]
    Canceled,
    /// It took too long.
    Timeout,
}

/// What a job takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Cores.
    pub cpu: Option<f64>,
    /// Memory.
    pub memory_mb: Option<u64>,
    /// A kind of GPU, such as `A100`.
    pub gpu: Option<String>,
    /// How many.
    pub gpu_count: u32,
    /// Room on a disk.
    pub storage_mb: Option<u64>,
    /// How long it may take.
    pub timeout_ms: Option<u64>,
    /// How long it takes, about.
    pub estimated_duration_ms: Option<u64>,
    /// What it may cost.
    pub max_cost_usd: Option<f64>,
    /// Whether it needs a network; yes.
    pub requires_network: bool,
    /// Whether it needs somebody else's service; yes.
    pub requires_external_api: bool,
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            cpu: None,
            memory_mb: None,
            gpu: None,
            gpu_count: 0,
            storage_mb: None,
            timeout_ms: None,
            estimated_duration_ms: None,
            max_cost_usd: None,
            requires_network: true,
            requires_external_api: true,
        }
    }
}

/// Where a job may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Locality {
    /// Anywhere.
    #[default]
    Any,
    /// On this machine.
    Local,
    /// In this region.
    Region,
}

/// When and where a job may run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Constraints {
    /// How often it is tried again; always with all of its keys, since Work fails on a part of them.
    pub retry_policy: RetryPolicy,
    /// One of these alone.
    pub required_backends: Vec<String>,
    /// Rather these.
    pub preferred_backends: Vec<String>,
    /// None of these.
    pub excluded_backends: Vec<String>,
    /// The session that it belongs to.
    pub session_id: Option<String>,
    /// Where.
    pub locality: Locality,
    /// Jobs that come before it.
    pub depends_on: Vec<String>,
    /// Jobs that come after it.
    pub blocks: Vec<String>,
    /// When at the earliest.
    pub not_before: Option<Stamp>,
    /// When at the latest.
    pub deadline: Option<Stamp>,
    /// Jobs that do not run at once.
    pub concurrency_group: Option<String>,
    /// How many of them may.
    pub max_concurrent_in_group: Option<u32>,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct WorkError {
    /// `validation`, `resource`, `timeout`, `backend`, `network`, `quota`, `permission`, `internal`, `canceled`.
    pub category: Option<String>,
    /// For programs, in capitals by habit.
    pub code: Option<String>,
    /// For people.
    pub message: Option<String>,
    /// More.
    pub details: Map<String, Value>,
    /// Whether another try may help.
    pub retryable: bool,
    /// When.
    pub retry_after_ms: Option<u64>,
    /// Where.
    pub stacktrace: Option<String>,
}

/// A piece of work. Its ids are of 32 digits without dashes; see [`Uuid`](crate::id::Uuid).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Job {
    /// Its id.
    pub id: String,
    /// The job that it is a part of.
    pub parent_id: Option<String>,
    /// Whose it is.
    pub tenant_id: Option<String>,
    /// Which of theirs.
    pub namespace: Option<String>,
    /// Who has asked for it.
    pub owner: Option<String>,
    /// What kind.
    pub kind: Option<Kind>,
    /// How urgent.
    pub priority: Priority,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// What is to be done.
    pub payload: Option<Map<String, Value>>,
    /// What it takes.
    pub resources: Resources,
    /// When and where.
    pub constraints: Constraints,
    /// How far it is.
    pub status: Status,
    /// When it was asked for.
    pub created_at: Option<Stamp>,
    /// When it was queued.
    pub queued_at: Option<Stamp>,
    /// When it began.
    pub started_at: Option<Stamp>,
    /// When it ended.
    pub completed_at: Option<Stamp>,
    /// Who does it.
    pub backend: Option<String>,
    /// Which of their workers.
    pub worker_id: Option<String>,
    /// Tries before this one.
    pub attempt: u32,
    /// What came of it.
    pub result: Option<Value>,
    /// What went wrong.
    pub error: Option<WorkError>,
    /// The trace that it is.
    pub trace_id: Option<String>,
    /// The span of it.
    pub span_id: Option<String>,
    /// More.
    pub metadata: Map<String, Value>,
}

impl Default for Job {
    fn default() -> Self {
        Self {
            id: String::new(),
            parent_id: None,
            tenant_id: None,
            namespace: None,
            owner: None,
            kind: None,
            priority: Priority::default(),
            tags: Vec::new(),
            payload: None,
            resources: Resources::default(),
            constraints: Constraints::default(),
            status: Status::default(),
            created_at: None,
            queued_at: None,
            started_at: None,
            completed_at: None,
            backend: None,
            worker_id: None,
            attempt: 0,
            result: None,
            error: None,
            trace_id: None,
            span_id: None,
            metadata: Map::new(),
        }
    }
}

impl Job {
    /// Reads one. What is missing has its default, what is unknown is passed over.
    ///
    /// # Errors
    /// [`IrError::Form`].
    pub fn from_json(text: &str) -> Result<Self, IrError> {
        read("job", text)
    }

    /// Writes it, every key of it.
    pub fn to_json(&self) -> String {
        // Its members are texts, numbers and maps of them: there is nothing that JSON has no form for.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// A restore as a job: of the same id as its trace, so that the two are found by each other. `service` is the address of the service that the
    /// run is on, and `attempt` the restores of its lineage before this one.
    pub fn of_restore(record: &RestoreRecord, service: &str, attempt: u32) -> Self {
        let plan = &record.plan;
        let id = id_of_restore(&record.id).undashed();
        let first = |states: &[RestoreState]| {
            record.events.iter().find(|event| states.contains(&event.state)).map(|event| Stamp::new(event.at))
        };
        let begun = [RestoreState::OpeningSession, RestoreState::Loading, RestoreState::Checking];
        let settled = record.state.is_settled();
        let error = record.error.clone().map(|message| WorkError {
            category: Some("backend".to_owned()),
            code: Some("RESTORE_FAILED".to_owned()),
            message: Some(message),
            details: members(json!({ "checkpoint_useless": record.checkpoint_useless })),
            retryable: true,
            ..WorkError::default()
        });
        let result = record.new_run_id.as_ref().filter(|_| record.state.is_done()).map(|new_run_id| {
            json!({ "run_id": new_run_id, "attachment": record.attachment, "verdicts": record.verdicts().collect::<Vec<_>>() })
        });
        Self {
            id: id.clone(),
            tenant_id: Some(SOURCE.to_owned()),
            namespace: Some("recovery".to_owned()),
            owner: record.asked_by.clone(),
            kind: Some(Kind::BackendCommand),
            tags: vec!["restore".to_owned()],
            payload: Some(members(json!({
                "command": "restore",
                "restore_id": record.id,
                "run_id": plan.run_id,
                "checkpoint": plan.checkpoint.tinker_path,
                "optimizer": plan.optimizer,
            }))),
            status: match record.state {
                RestoreState::Planned => Status::Pending,
                RestoreState::OpeningSession | RestoreState::Loading | RestoreState::Checking => {
                    Status::Running
                }
                RestoreState::Adopted | RestoreState::HandedOver => Status::Succeeded,
                RestoreState::Failed => Status::Failed,
                RestoreState::Cancelled => Status::Canceled,
            },
            created_at: Some(Stamp::new(record.created_at)),
            started_at: first(&begun),
            completed_at: settled.then(|| Stamp::new(record.updated_at)),
            backend: Some("tinker".to_owned()),
            attempt,
            result,
            error,
            trace_id: Some(id),
            metadata: members(
                json!({ "service": service, "plan_id": plan.id, "root_run_id": plan.root_run_id }),
            ),
            ..Self::default()
        }
    }
}

fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}
