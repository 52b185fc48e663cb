//! Lineage (lineage_ir 0.1.0): what came of what. And a restore as its records.

use retinker::recovery::restore::{RestoreRecord, RestoreState};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::id::Uuid;
use crate::stamp::Stamp;
use crate::{IrError, read};

/// Who emits what this module makes.
pub const SOURCE: &str = "retinker";

/// One piece of work with all that belongs to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Trace {
    /// Required.
    pub id: Option<Uuid>,
    /// The first trace of its story.
    pub root_trace_id: Option<Uuid>,
    /// The trace that has begun it.
    pub parent_trace_id: Option<Uuid>,
    /// The run that it is about.
    pub run_id: Option<Uuid>,
    /// The job that it is.
    pub work_id: Option<Uuid>,
    /// Who has begun it.
    pub origin: Option<String>,
    /// What that calls it.
    pub origin_ref: Option<String>,
    /// How it is.
    pub status: Option<String>,
    /// More.
    pub attributes: Option<Map<String, Value>>,
    /// When it began.
    pub started_at: Option<Stamp>,
    /// When it ended.
    pub finished_at: Option<Stamp>,
}

/// A part of a trace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Span {
    /// Required.
    pub id: Option<Uuid>,
    /// Required.
    pub trace_id: Option<Uuid>,
    /// The span that it is a part of.
    pub parent_span_id: Option<Uuid>,
    /// The run that it is about.
    pub run_id: Option<Uuid>,
    /// The step that it is.
    pub step_id: Option<Uuid>,
    /// The job that it belongs to.
    pub work_id: Option<Uuid>,
    /// Required.
    pub name: Option<String>,
    /// What kind of work.
    pub kind: Option<String>,
    /// How it is.
    pub status: Option<String>,
    /// More.
    pub attributes: Option<Map<String, Value>>,
    /// Numbers.
    pub metrics: Option<Map<String, Value>>,
    /// What went wrong: its kind.
    pub error_type: Option<String>,
    /// The same as a sentence.
    pub error_message: Option<String>,
    /// More of it.
    pub error_details: Option<Map<String, Value>>,
    /// Required.
    pub started_at: Option<Stamp>,
    /// When it ended.
    pub finished_at: Option<Stamp>,
}

/// A thing that was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Artifact {
    /// Required.
    pub id: Option<Uuid>,
    /// The trace that has made it.
    pub trace_id: Option<Uuid>,
    /// The span that has.
    pub span_id: Option<Uuid>,
    /// The run that it is of.
    pub run_id: Option<Uuid>,
    /// The step that has made it.
    pub step_id: Option<Uuid>,
    /// Required: `checkpoint`, `model`, `dataset`, ...
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Where it is.
    pub uri: Option<String>,
    /// An algorithm, a colon, a digest.
    pub checksum: Option<String>,
    /// How large it is.
    pub size_bytes: Option<u64>,
    /// What its bytes are.
    pub mime_type: Option<String>,
    /// More.
    pub metadata: Option<Map<String, Value>>,
    /// When it was made.
    pub created_at: Option<Stamp>,
}

/// A thing that is named elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct ArtifactRef {
    /// Required.
    pub artifact_id: Option<Uuid>,
    /// What kind of thing.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Where it is.
    pub uri: Option<String>,
    /// An algorithm, a colon, a digest.
    pub checksum: Option<String>,
    /// More.
    pub metadata: Option<Map<String, Value>>,
}

/// What one thing has to do with another. The source is the one that was there first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct ProvenanceEdge {
    /// Required.
    pub id: Option<Uuid>,
    /// The trace that tells of it.
    pub trace_id: Option<Uuid>,
    /// Required: `artifact`, `run`, `span`, `step`.
    pub source_type: Option<String>,
    /// Required.
    pub source_id: Option<Uuid>,
    /// Required.
    pub target_type: Option<String>,
    /// Required.
    pub target_id: Option<Uuid>,
    /// Required: `derived_from`, `produces`, `consumes`, `depends_on`, `triggers`, ...
    pub relationship: Option<String>,
    /// More.
    pub metadata: Option<Map<String, Value>>,
}

/// A trace with all of its records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct LineageGraph {
    /// The trace.
    pub trace: Option<Trace>,
    /// Its spans.
    pub spans: Vec<Span>,
    /// What it has made.
    pub artifacts: Vec<Artifact>,
    /// What that has to do with what.
    pub edges: Vec<ProvenanceEdge>,
    /// More.
    pub metadata: Option<Map<String, Value>>,
}

/// What a sink is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Event {
    /// Derived from source, `source_ref`, type and time where there is none.
    pub id: Option<Uuid>,
    /// One of [`EVENT_TYPES`].
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Required.
    pub trace_id: Option<Uuid>,
    /// Required of spans.
    pub span_id: Option<Uuid>,
    /// The run that it is about.
    pub run_id: Option<Uuid>,
    /// The step.
    pub step_id: Option<Uuid>,
    /// The job.
    pub work_id: Option<Uuid>,
    /// The plan.
    pub plan_id: Option<Uuid>,
    /// Required.
    pub occurred_at: Option<Stamp>,
    /// Required: who tells it.
    pub source: Option<String>,
    /// What that calls it.
    pub source_ref: Option<String>,
    /// Required: the record that the type names, or any members.
    pub payload: Option<Value>,
}

/// The types of events.
pub const EVENT_TYPES: [&str; 7] =
    ["trace_start", "span_start", "span_end", "artifact", "edge", "metric", "log"];

/// What can be read from JSON and written to it. Every key is written; unknown ones are passed over when it is read.
pub trait Record: Serialize + DeserializeOwned {
    /// What it is called.
    const NAME: &'static str;

    /// Reads one.
    ///
    /// # Errors
    /// [`IrError::Form`], also for an id that is no UUID with dashes and a time without an offset.
    fn from_json(text: &str) -> Result<Self, IrError> {
        read(Self::NAME, text)
    }

    /// Writes it.
    fn to_json(&self) -> String {
        // Its members are texts, numbers and maps of them: there is nothing that JSON has no form for.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether what is required is there.
    ///
    /// # Errors
    /// [`IrError::Invalid`].
    fn validate(&self) -> Result<(), IrError>;
}

fn required(what: &'static str, members: &[(&str, bool)]) -> Result<(), IrError> {
    match members.iter().find(|(_, there)| !there) {
        Some((name, _)) => Err(IrError::Invalid { what, reason: format!("{name} is missing") }),
        None => Ok(()),
    }
}

fn said(text: &Option<String>) -> bool {
    text.as_ref().is_some_and(|text| !text.trim().is_empty())
}

macro_rules! records {
    ($($type:ident $name:literal |$of:ident| [$($member:literal: $there:expr),* $(,)?]);* $(;)?) => {$(
        impl Record for $type {
            const NAME: &'static str = $name;
            fn validate(&self) -> Result<(), IrError> {
                let $of = self;
                required(Self::NAME, &[$(($member, $there)),*])
            }
        }
    )*};
}

records! {
    Trace "trace" |of| ["id": of.id.is_some()];
    Span "span" |of| ["id": of.id.is_some(), "trace_id": of.trace_id.is_some(), "name": said(&of.name), "started_at": of.started_at.is_some()];
    Artifact "artifact" |of| ["id": of.id.is_some(), "type": said(&of.kind)];
    ArtifactRef "artifact reference" |of| ["artifact_id": of.artifact_id.is_some()];
    ProvenanceEdge "edge" |of| [
        "id": of.id.is_some(), "source_type": said(&of.source_type), "source_id": of.source_id.is_some(),
        "target_type": said(&of.target_type), "target_id": of.target_id.is_some(), "relationship": said(&of.relationship),
    ];
    LineageGraph "lineage graph" |of| ["trace": of.trace.as_ref().is_some_and(|trace| trace.id.is_some())];
}

impl Record for Event {
    const NAME: &'static str = "event";

    fn validate(&self) -> Result<(), IrError> {
        let kind = self.kind.as_deref().unwrap_or_default();
        let is_span = matches!(kind, "span_start" | "span_end");
        let payload = self.payload.as_ref().and_then(Value::as_object);
        required(
            Self::NAME,
            &[
                ("type", EVENT_TYPES.contains(&kind)),
                ("trace_id", self.trace_id.is_some()),
                ("span_id", !is_span || self.span_id.is_some()),
                ("occurred_at", self.occurred_at.is_some()),
                ("source", said(&self.source)),
                ("payload", payload.is_some()),
                ("id", self.id.is_some() || self.source_ref.is_some()),
            ],
        )?;
        let inner = |name: &str| payload.and_then(|payload| payload.get(name)).and_then(Value::as_str);
        let (trace, span) = match kind {
            "trace_start" => (inner("id"), None),
            "span_start" | "span_end" => (inner("trace_id"), inner("id")),
            _ => (inner("trace_id"), inner("span_id")),
        };
        let differs = |inner: Option<&str>, own: Option<Uuid>| {
            inner.zip(own).is_some_and(|(inner, own)| inner.to_lowercase() != own.to_string())
        };
        if differs(trace, self.trace_id) || differs(span, self.span_id) {
            let reason = "its ids are not those of its payload".to_owned();
            return Err(IrError::Invalid { what: Self::NAME, reason });
        }
        Ok(())
    }
}

impl Event {
    /// With the id that a sink derives where there is none.
    #[must_use]
    pub fn identified(mut self) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let at = self.occurred_at.map(|at| at.to_string()).unwrap_or_default();
        let parts = [text(&self.source), text(&self.source_ref), text(&self.kind), at];
        self.id.get_or_insert_with(|| Uuid::derived(&parts.each_ref().map(String::as_str)));
        self
    }
}

/// A run's id on the platform, where Tinker's own are none.
pub fn id_of_run(run_id: &str) -> Uuid {
    Uuid::derived(&[SOURCE, "run", run_id])
}

/// A checkpoint's, by its path.
pub fn id_of_checkpoint(path: &str) -> Uuid {
    Uuid::derived(&[SOURCE, "checkpoint", path])
}

/// A restore's: of its trace, and of its job.
pub fn id_of_restore(restore_id: &str) -> Uuid {
    Uuid::derived(&[SOURCE, "restore", restore_id])
}

/// A restore as lineage: its trace, one span, the checkpoint that it stands on, and what came of that. The same record gives the same
/// ids; told again when more is known of it, its later form replaces the earlier.
pub fn of_restore(record: &RestoreRecord) -> LineageGraph {
    let plan = &record.plan;
    let (trace_id, run_id) = (Some(id_of_restore(&record.id)), Some(id_of_run(&plan.run_id)));
    let span_id = Some(Uuid::derived(&[SOURCE, "span", &record.id]));
    let checkpoint = Some(id_of_checkpoint(&plan.checkpoint.tinker_path));
    let started_at = Some(Stamp::new(record.created_at));
    let finished_at = record.state.is_settled().then(|| Stamp::new(record.updated_at));
    let status = Some(status(record.state).to_owned());
    let root = Some(id_of_run(&plan.root_run_id));
    let trace = Trace {
        id: trace_id,
        root_trace_id: trace_id,
        run_id,
        work_id: trace_id,
        origin: Some(SOURCE.to_owned()),
        origin_ref: Some(record.id.clone()),
        status: status.clone(),
        attributes: members(json!({ "run_id": plan.run_id, "root_run_id": plan.root_run_id, "root": root })),
        started_at,
        finished_at,
        ..Trace::default()
    };
    let span = Span {
        id: span_id,
        trace_id,
        run_id,
        work_id: trace_id,
        name: Some("restore".to_owned()),
        kind: Some("recovery".to_owned()),
        status,
        attributes: members(json!({
            "state": record.state.as_str(),
            "generation": plan.generation,
            "optimizer": plan.optimizer,
            "asked_by": record.asked_by,
            "new_run_id": record.new_run_id,
            "why": plan.why,
        })),
        metrics: members(json!({ "lost_seconds": plan.lost.seconds })),
        error_type: record.error.as_ref().map(|_| "restore_failed".to_owned()),
        error_message: record.error.clone(),
        started_at,
        finished_at,
        ..Span::default()
    };
    let artifact = Artifact {
        id: checkpoint,
        trace_id,
        span_id,
        run_id,
        kind: Some("checkpoint".to_owned()),
        uri: Some(plan.checkpoint.tinker_path.clone()),
        size_bytes: plan.checkpoint.size_bytes,
        metadata: members(json!({ "base_model": plan.base_model, "lora_rank": plan.lora_rank })),
        created_at: Some(Stamp::new(plan.checkpoint.time)),
        ..Artifact::default()
    };
    let made = record.new_run_id.as_deref().map(|new_run_id| ProvenanceEdge {
        id: Some(Uuid::derived(&[SOURCE, "edge", &record.id, new_run_id])),
        trace_id,
        source_type: Some("artifact".to_owned()),
        source_id: checkpoint,
        target_type: Some("run".to_owned()),
        target_id: Some(id_of_run(new_run_id)),
        relationship: Some("derived_from".to_owned()),
        metadata: members(json!({ "run_id": new_run_id, "restored_from": plan.run_id })),
    });
    LineageGraph {
        trace: Some(trace),
        spans: vec![span],
        artifacts: vec![artifact],
        edges: made.into_iter().collect(),
        metadata: members(json!({})),
    }
}

/// The same as a sink is told it: trace, span, artifact, edge, in the order in which they refer to each other; when it is over, the span's
/// end, and the trace once more as it ended.
pub fn events_of_restore(record: &RestoreRecord) -> Vec<Event> {
    let LineageGraph { trace, spans, artifacts, edges, .. } = of_restore(record);
    let Some(trace) = trace else { return Vec::new() };
    let (begun, ended) = (trace.started_at, trace.finished_at);
    let event = |kind: &str, at: Option<Stamp>, span_id: Option<Uuid>, payload: Value| {
        Event {
            kind: Some(kind.to_owned()),
            trace_id: trace.id,
            span_id,
            run_id: trace.run_id,
            work_id: trace.work_id,
            occurred_at: at,
            source: Some(SOURCE.to_owned()),
            source_ref: Some(record.id.clone()),
            payload: Some(payload),
            ..Event::default()
        }
        .identified()
    };
    let running = Some("running".to_owned());
    let open = Trace { status: running.clone(), finished_at: None, ..trace.clone() };
    let mut events = vec![event("trace_start", begun, None, json!(open))];
    for span in &spans {
        let open = Span {
            status: running.clone(),
            finished_at: None,
            error_type: None,
            error_message: None,
            ..span.clone()
        };
        events.push(event("span_start", begun, span.id, json!(open)));
    }
    events
        .extend(artifacts.iter().map(|artifact| event("artifact", begun, artifact.span_id, json!(artifact))));
    if ended.is_some() {
        events.extend(edges.iter().map(|edge| event("edge", ended, None, json!(edge))));
        events.extend(spans.iter().map(|span| event("span_end", ended, span.id, json!(span))));
        events.push(event("trace_start", ended, None, json!(trace)));
    }
    events
}

fn status(state: RestoreState) -> &'static str {
    match state {
        RestoreState::Planned => "pending",
        RestoreState::OpeningSession | RestoreState::Loading | RestoreState::Checking => "running",
        RestoreState::Adopted | RestoreState::HandedOver => "succeeded",
        RestoreState::Failed => "failed",
        RestoreState::Cancelled => "canceled",
    }
}

fn members(value: Value) -> Option<Map<String, Value>> {
    value.as_object().cloned()
}
