//! One task that takes a client's operations: writes each down, sends it, writes down what it came to, and makes the run anew when it
//! is lost.

mod checkpoints;
mod operations;
mod recovery;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_channel::{mpsc, oneshot};
use futures_core::future::BoxFuture;
use futures_util::future::AbortHandle;
use futures_util::{StreamExt, select_biased};
use retinker_wire::UserMetadata;
use retinker_wire::future::RequestErrorCategory;
use retinker_wire::metrics::combine;
use retinker_wire::sampler::sampler_id_of;
use retinker_wire::weights::SaveWeightsForSamplerResult;

use super::entry::{Base, Creation, Entry, Form, Head, Identity, RequestEntry};
use super::error::{Mismatch, RedoError};
use super::event::{Hub, RedoEvent};
use super::ledger::{Ledger, Op, Part};
use super::log::{LogError, RedoLog};
use super::outcome::{Matching, Outcome, result_type};
use super::point::effective;
use super::policy::Due;
use super::replay::{Again, Done, Halt, Replay, again_from_log};
use super::run::{RedoOptions, put};
use crate::client::pending::{Raw, Watch, wait_raw};
use crate::client::sampling::{Keeper, SamplingClient, Slot};
use crate::client::service::Place;
use crate::client::training::Held;
use crate::client::training::line::Line;
use crate::client::training::operation::{
    self, Accepted, Job, Operation, Sent, Stop, Submitted, Then, results,
};
use crate::client::training::order::Order;
use crate::client::training::request::TrainingRequest;
use crate::client::{Api, Error, ErrorKind, SaveOptions, ServiceClient, TrainingClient, TrainingOptions};
use crate::recovery::evidence::Symptom;
use crate::recovery::plan::{
    LABEL_CHECKPOINT, LABEL_GENERATION, LABEL_RESTORE_ID, LABEL_RESTORED_FROM, LABEL_ROOT,
};
use crate::runtime::Runtime;

/// How long results that a lost run may still give are waited for.
const GRACE: Duration = Duration::from_secs(10);
/// How often a run is made anew in a row, each time to be lost before it is where the last one was.
const ATTEMPTS: u32 = 8;
/// Between two questions to a service that is not there: the first pause, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How often a run may be lost while the same request is carried out: beyond, the request is what it is lost by.
pub(crate) const STRIKES: u32 = 2;
/// Checkpoints that are kept with what was done since: the newest, and one to step back to.
const KEPT: usize = 2;

/// What is asked of a driver beside operations.
pub(crate) enum Control {
    /// Whether a sampler that failed so may be another now.
    Sampler { error: Error, answer: oneshot::Sender<bool> },
    /// The run is to be made anew.
    Rebuild { answer: oneshot::Sender<Result<(), RedoError>> },
    /// What is known. As long as that is held, no segment of the log is dropped.
    Ledger { answer: oneshot::Sender<Arc<Pinned>> },
}

/// What is known of a log whose segments are there as long as this is held.
pub(crate) struct Pinned {
    pub(crate) ledger: Ledger,
}

/// Who waits for an operation.
struct Waiter {
    name: String,
    watch: Arc<Watch>,
    then: Option<Then>,
    /// `None` for what the policy asks for.
    done: Option<oneshot::Sender<Submitted>>,
    accepted: Vec<Accepted>,
    results: Vec<Option<Result<Raw, Error>>>,
}

impl Waiter {
    /// Nobody, for an operation that is called so.
    fn nobody(name: &str) -> Self {
        let (name, watch) = (name.to_owned(), Arc::default());
        Self { name, watch, then: None, done: None, accepted: Vec::new(), results: Vec::new() }
    }
}

/// A result that came.
struct Came {
    generation: u32,
    op: u64,
    part: usize,
    result: Result<Raw, Error>,
}

/// What a driver is made of.
pub(crate) struct Parts {
    pub(crate) service: ServiceClient,
    pub(crate) order: Arc<Order>,
    pub(crate) held: Held,
    pub(crate) line: Line,
    pub(crate) log: Arc<dyn RedoLog>,
    pub(crate) ledger: Ledger,
    pub(crate) options: RedoOptions,
    pub(crate) hub: Hub,
    pub(crate) cursor: Arc<Mutex<Option<Bytes>>>,
    pub(crate) controls: mpsc::UnboundedSender<Control>,
}

pub(crate) struct Driver {
    parts: Parts,
    waiters: BTreeMap<u64, Waiter>,
    results: (mpsc::UnboundedSender<Came>, mpsc::UnboundedReceiver<Came>),
    /// An operation whose first half is done.
    half: Option<(Waiter, Vec<Accepted>)>,
    /// Ends the waiting for results of the run of now, by operation and request.
    waits: BTreeMap<(u64, usize), AbortHandle>,
    /// Live samplers, by the operation that made them.
    samplers: Vec<(u64, Weak<Slot>)>,
    due: Due,
    /// The same as it was when the checkpoint was called that is being saved.
    due_then: Due,
    /// Whether a checkpoint is being saved that makes room in the log.
    saving: bool,
    /// Checkpoints that are there, by their operations, and not stood on yet.
    saved: BTreeMap<u64, String>,
    /// Bytes of the log when the last checkpoint was there.
    size_then: u64,
    pinned: Vec<Weak<Pinned>>,
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> Self {
        let now = parts.service.api().runtime().monotonic();
        let head = &parts.ledger.head;
        let steps = head.steps.saturating_sub(head.bases.last().map_or(0, |base| base.step));
        // Of what an earlier program has written nothing is known but how long the log is.
        let size_then = if head.bases.is_empty() { 0 } else { parts.log.size() };
        Self {
            parts,
            waiters: BTreeMap::new(),
            results: mpsc::unbounded(),
            half: None,
            waits: BTreeMap::new(),
            samplers: Vec::new(),
            due: Due::since(now, steps),
            due_then: Due::default(),
            saving: false,
            saved: BTreeMap::new(),
            size_then,
            pinned: Vec::new(),
        }
    }

    fn api(&self) -> &Api {
        self.parts.service.api()
    }

    /// Whether somebody holds what was known before, and may be making a run of it.
    fn is_pinned(&mut self) -> bool {
        self.pinned.retain(|pinned| pinned.strong_count() > 0);
        !self.pinned.is_empty()
    }

    /// Takes what is called, until nobody can call and nobody waits any more.
    pub(crate) async fn run(
        mut self,
        mut queue: mpsc::UnboundedReceiver<Job>,
        mut controls: mpsc::UnboundedReceiver<Control>,
    ) {
        loop {
            select_biased! {
                came = self.results.1.select_next_some() => self.came(came).await,
                control = controls.select_next_some() => self.control(control).await,
                job = queue.next() => match job {
                    Some(Job::Barrier(done)) => { let _ = done.send(()); }
                    Some(Job::Operation(operation)) => self.carry_out(operation).await,
                    None => break,
                },
            }
        }
        while !self.waiters.is_empty() {
            let came = self.results.1.select_next_some().await;
            self.came(came).await;
        }
    }

    async fn control(&mut self, control: Control) {
        match control {
            Control::Sampler { error, answer } => {
                // What a sampler says is no sign of the run: only what the service says of that.
                let stopped = self.parts.order.lock().poisoned.is_some();
                if !stopped && self.is_gone(false).await {
                    self.recover(&error, None, None).await;
                }
                // By now there may be another one, whoever has seen the loss first.
                let _ = answer.send(true);
            }
            Control::Rebuild { answer } => {
                let made = self.made_anew("it was left within a step, or lost, when its program ended").await;
                let _ = answer.send(made);
            }
            Control::Ledger { answer } => {
                let pinned = Arc::new(Pinned { ledger: self.parts.ledger.clone() });
                self.pinned.push(Arc::downgrade(&pinned));
                let _ = answer.send(pinned);
            }
        }
    }

    // -- the log ------------------------------------------------------------------------------------------------

    async fn put(&mut self, entry: Entry) -> Result<(), LogError> {
        put(&*self.parts.log, &mut self.parts.ledger, entry, Bytes::new()).await
    }

    /// Writes an entry down without which nothing is lost but comparisons.
    async fn note(&mut self, entry: Entry) {
        if let Err(error) = self.put(entry.clone()).await {
            self.parts.hub.tell(RedoEvent::NotRecorded { why: error.to_string() });
            // It holds for this program all the same.
            self.parts.ledger.take(NOWHERE, entry);
        }
    }
}

/// The place of what could not be written down.
const NOWHERE: super::log::Place = super::log::Place { segment: 0, offset: 0 };

/// Whether no connection was made at all.
fn is_nobody_there(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NeverSent { .. })
}

/// Waits for a service that is not there, or for room in the log, with growing pauses.
struct Patience {
    begun: Duration,
    longest: Duration,
    pause: Duration,
}

impl Patience {
    fn new(runtime: &dyn Runtime, longest: Duration) -> Self {
        Self { begun: runtime.monotonic(), longest, pause: PAUSES.0 }
    }

    /// Waits a while, and tells why; `false` once it has waited for long enough.
    async fn wait(
        &mut self,
        runtime: &dyn Runtime,
        hub: &Hub,
        why: &(dyn std::error::Error + Sync),
        at_least: Option<Duration>,
    ) -> bool {
        if runtime.monotonic().saturating_sub(self.begun) >= self.longest {
            return false;
        }
        hub.tell(RedoEvent::Waiting { why: why.to_string() });
        runtime.sleep(at_least.unwrap_or(self.pause).max(self.pause)).await;
        self.pause = (self.pause * 2).min(PAUSES.1);
        true
    }
}

/// The sampler that an operation has made.
fn sampler_id(op: &Op, accepted: &Accepted, session_id: &str) -> Option<String> {
    if !op.form.makes_a_sampler() {
        return None;
    }
    let saved: SaveWeightsForSamplerResult = accepted.result.as_ref()?.read(op.form.name()).ok()?;
    // Servers that name no sampler use the only name there can be.
    let name = || sampler_id_of(session_id, accepted.sampler.unwrap_or_default());
    Some(saved.sampling_session_id.unwrap_or_else(name))
}

/// Who asks the driver about a sampler that failed.
pub(crate) fn keeper(controls: mpsc::UnboundedSender<Control>) -> Arc<dyn Keeper> {
    Arc::new(Kept { controls })
}

struct Kept {
    controls: mpsc::UnboundedSender<Control>,
}

impl Keeper for Kept {
    fn failed(&self, error: &Error) -> BoxFuture<'static, bool> {
        // What may pass by itself, or is the request's fault, tells nothing of the run.
        if error.is_outage() || matches!(error.kind(), ErrorKind::Config { .. }) {
            return Box::pin(std::future::ready(false));
        }
        let (answer, answered) = oneshot::channel();
        let asked = self.controls.unbounded_send(Control::Sampler { error: error.clone(), answer });
        Box::pin(async move { asked.is_ok() && answered.await.unwrap_or(false) })
    }
}

/// Makes a run at this place.
pub(crate) async fn make_from(
    place: &Place,
    start: Option<&Base>,
    creation: &Creation,
    labels: UserMetadata,
) -> Result<TrainingClient, Error> {
    match start {
        Some(base) => place.make_from(&base.path, labels).await,
        None => {
            let Creation { base_model, lora_config, optimizer_config, .. } = creation.clone();
            let options = TrainingOptions {
                user_metadata: Some(labels),
                optimizer_config,
                ..TrainingOptions::default()
            };
            place.make(&base_model, lora_config, &options).await
        }
    }
}

/// What the ids of a log's recoveries begin with.
pub(crate) fn restore_ids(log: &str) -> String {
    format!("redo-{log}-")
}

/// The labels of a run that goes on from there.
pub(crate) fn labels(ledger: &Ledger, start: Option<&Base>) -> UserMetadata {
    let generation = ledger.head.generation + 1;
    let mut labels = ledger.creation().user_metadata.clone();
    let mut put = |name: &str, value: String| labels.insert(name.to_owned(), value);
    put(LABEL_RESTORE_ID, format!("{}{generation}", restore_ids(&ledger.head.log)));
    put(LABEL_GENERATION, generation.to_string());
    if let Some(run) = &ledger.head.run {
        put(LABEL_RESTORED_FROM, run.model_id.clone());
    }
    if let Some(root) = &ledger.head.root {
        put(LABEL_ROOT, root.clone());
    }
    if let Some(base) = start {
        put(LABEL_CHECKPOINT, base.path.clone());
    }
    labels
}

/// The metric that people look at.
const LOSS: &str = "loss:sum";

/// Holds a replayed result against the recorded one. `seen` has the losses of the passes before it, both ways.
pub(crate) fn hold_against(
    ledger: &Ledger,
    number: u64,
    part: usize,
    replayed: &Outcome,
    matching: Matching,
    seen: &mut Vec<(f64, f64)>,
) -> Result<(), RedoError> {
    let recorded = ledger.ops.get(&number).and_then(|op| op.parts.get(part)?.outcome.as_ref());
    let Some(recorded) = recorded else { return Ok(()) };
    let losses = (recorded.metrics.get(LOSS), replayed.metrics.get(LOSS));
    if let (Some(then), Some(now)) = losses {
        seen.push((*then, *now));
    }
    if recorded.failed {
        return Err(RedoError::FailsNoMore { operation: describe(ledger, number) });
    }
    let Some((what, then, now)) = replayed.differs(recorded, matching) else { return Ok(()) };
    let (recorded_losses, replayed_losses) = seen.iter().copied().unzip();
    Err(RedoError::Mismatch(Box::new(Mismatch {
        operation: describe(ledger, number),
        what,
        recorded: then,
        replayed: now,
        recorded_losses,
        replayed_losses,
    })))
}

/// An operation as people know it.
fn describe(ledger: &Ledger, number: u64) -> String {
    let Some(op) = ledger.ops.get(&number) else { return format!("operation {number}") };
    let before = ledger.ops.range(..=number).rev().find_map(|(_, op)| op.step);
    let step = before.unwrap_or(ledger.window().start().to_owned());
    match op.step {
        Some(step) => format!("the optim_step that is step {step}"),
        None => format!("the {} after step {step}", op.form.name()),
    }
}
