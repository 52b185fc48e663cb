//! One task that takes a client's operations: writes each down, sends it, writes down what it came to, and makes the run anew when it
//! is lost.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_channel::{mpsc, oneshot};
use futures_core::future::BoxFuture;
use futures_util::future::{AbortHandle, Abortable, Either, select};
use futures_util::{StreamExt, select_biased};
use retinker_wire::UserMetadata;
use retinker_wire::future::RequestErrorCategory;
use retinker_wire::sampler::sampler_id_of;
use retinker_wire::weights::SaveWeightsForSamplerResult;

use super::entry::{Base, Creation, Entry, Form, Identity, RequestEntry};
use super::error::{Mismatch, RedoError};
use super::event::{Hub, RedoEvent};
use super::ledger::{Ledger, Op};
use super::log::{LogError, RedoLog};
use super::outcome::{Matching, Outcome, result_type};
use super::point::effective;
use super::policy::Due;
use super::replay::{Again, Done, Halt, Replay};
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

/// How long results that a lost run may still give are waited for.
const GRACE: Duration = Duration::from_secs(10);
/// How often a run is made anew in a row, each time to be lost before it is where the last one was.
const ATTEMPTS: u32 = 8;
/// Between two questions to a service that is not there: the first pause, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How often a run may be lost while the same request is carried out: beyond, the request is what it is lost by.
const STRIKES: u32 = 2;
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
    /// Whether a checkpoint is being saved that makes room in the log.
    saving: bool,
    /// Bytes of the log when the last checkpoint was there.
    size_then: u64,
    pinned: Weak<Pinned>,
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> Self {
        let now = parts.service.api().runtime().monotonic();
        let size_then = parts.log.size();
        Self {
            parts,
            waiters: BTreeMap::new(),
            results: mpsc::unbounded(),
            half: None,
            waits: BTreeMap::new(),
            samplers: Vec::new(),
            due: Due::since(now),
            saving: false,
            size_then,
            pinned: Weak::new(),
        }
    }

    fn api(&self) -> &Api {
        self.parts.service.api()
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
                let lost = self.is_lost(&error).await;
                if lost {
                    self.recover(&error, None).await;
                }
                // By now there may be another one, whoever has seen the loss first.
                let _ = answer.send(true);
            }
            Control::Rebuild { answer } => {
                let made = self.made_anew("it was left within a step, or lost, when its program ended").await;
                let _ = answer.send(made);
            }
            Control::Ledger { answer } => {
                let pinned = match self.pinned.upgrade() {
                    Some(pinned) if pinned.ledger.head.next_op == self.parts.ledger.head.next_op => pinned,
                    _ => Arc::new(Pinned { ledger: self.parts.ledger.clone() }),
                };
                self.pinned = Arc::downgrade(&pinned);
                let _ = answer.send(pinned);
            }
        }
    }

    // -- operations ---------------------------------------------------------------------------------------------

    async fn carry_out(&mut self, operation: Operation) {
        let Operation { name, epoch, cut, then, watch, done, .. } = operation;
        if let Err(error) = self.parts.order.may_go(&name, epoch) {
            let _ = done.send(Submitted { result: Err(error), _delivered: None });
            return;
        }
        self.parts.line.settle().await;
        let parts = cut(&self.parts.line.settings.config);
        let custom = then.is_some();
        let waiter =
            Waiter { name, watch, then, done: Some(done), accepted: Vec::new(), results: Vec::new() };
        let Some(op) = self.operate(parts, waiter, false).await else { return };
        if custom {
            // What was called later comes behind the second half.
            while self.half.is_none() && self.waiters.contains_key(&op) {
                let came = self.results.1.select_next_some().await;
                self.came(came).await;
            }
            if let Some((waiter, accepted)) = self.half.take() {
                self.second_half(waiter, accepted).await;
            }
        }
        self.save_if_due(op).await;
    }

    /// Writes an operation down and sends it.
    async fn operate(&mut self, parts: Vec<operation::Part>, waiter: Waiter, own: bool) -> Option<u64> {
        match self.reserve(parts, own).await {
            Ok((op, requests)) => {
                self.waiters.insert(op, waiter);
                self.submit(op, requests).await;
                Some(op)
            }
            Err(error) => {
                self.refuse(waiter, error);
                None
            }
        }
    }

    /// Tells that an operation is not carried out, for certain.
    fn refuse(&self, waiter: Waiter, error: Error) {
        let (error, _delivered) = self.parts.order.stopped(Stop::Refused(error));
        if let Some(done) = waiter.done {
            let _ = done.send(Submitted { result: Err(error), _delivered });
        }
    }

    /// Writes an operation's requests down: all of them, or none.
    async fn reserve(
        &mut self,
        parts: Vec<operation::Part>,
        own: bool,
    ) -> Result<(u64, Vec<operation::Part>), Error> {
        let number = self.parts.ledger.head.next_op;
        let reserved = self.write_down(number, parts, own).await;
        if reserved.is_err() && self.parts.ledger.head.next_op != number {
            // Whoever reads the log finds the next operation in its place.
            let nowhere = super::log::Place { segment: 0, offset: 0 };
            self.parts.ledger.take(nowhere, Entry::Discarded { from: number });
        }
        Ok((number, reserved?))
    }

    async fn write_down(
        &mut self,
        number: u64,
        parts: Vec<operation::Part>,
        own: bool,
    ) -> Result<Vec<operation::Part>, Error> {
        let at = self.api().runtime().now();
        let count = parts.len();
        let mut requests = Vec::with_capacity(count);
        for (part, operation::Part { write, bytes, datums, tokens, makes_a_sampler, of_session }) in
            parts.into_iter().enumerate()
        {
            let operation = format!("a request of run {}", self.parts.line.model_id);
            if let Some(reason) = of_session {
                return Err(Error::config(operation, reason));
            }
            let request = write()?;
            let (form, body) = Form::of(&request).map_err(|reason| Error::config(&operation, reason))?;
            let cursor = match form {
                Form::OptimStep { .. } => {
                    self.parts.cursor.lock().unwrap_or_else(PoisonError::into_inner).take()
                }
                _ => None,
            };
            if part == 0 && matches!(form, Form::SaveState { .. }) {
                self.begin_segment(number)
                    .await
                    .map_err(|error| Error::config(&operation, error.to_string()))?;
            }
            let body = cursor.clone().unwrap_or_else(|| Bytes::copy_from_slice(body));
            let cursor = cursor.is_some();
            let entry =
                RequestEntry { op: number, part, parts: count, datums, bytes, tokens, at, own, cursor, form };
            put(&*self.parts.log, &mut self.parts.ledger, Entry::Request(entry), body).await.map_err(
                |error| {
                    Error::config(
                        &operation,
                        format!("it was not sent, since it could not be written down first: {error}"),
                    )
                },
            )?;
            let write: operation::Write = Box::new(|| Ok(request));
            requests.push(operation::Part { write, bytes, datums, tokens, makes_a_sampler, of_session });
        }
        Ok(requests)
    }

    /// Has what follows begin in a segment of its own, if a checkpoint saved now would need nothing before it.
    async fn begin_segment(&mut self, op: u64) -> Result<(), LogError> {
        let Parts { log, ledger, .. } = &mut self.parts;
        if ledger.again_from(op) < op || ledger.ops.is_empty() {
            return Ok(());
        }
        log.begin_segment().await?;
        let head = ledger.next_head();
        put(&**log, ledger, Entry::Head(Box::new(head)), Bytes::new()).await
    }

    async fn submit(&mut self, op: u64, requests: Vec<operation::Part>) {
        let seq_id = self.parts.order.lock().next_seq_id;
        // Without this entry a program that begins again takes the request for one that was never sent.
        if let Err(error) = self.put(Entry::Submitted { op, seq_id }).await {
            if let Some(waiter) = self.waiters.remove(&op) {
                self.void(op).await;
                self.refuse(waiter, Error::config("the redo log", error.to_string()));
            }
            return;
        }
        let watch = self.waiters.get(&op).map(|waiter| waiter.watch.clone()).unwrap_or_default();
        match self.parts.line.send(requests, &watch).await {
            Ok(accepted) => {
                let request_ids = accepted.iter().map(|accepted| accepted.request_id.clone()).collect();
                self.note(Entry::Accepted { op, request_ids }).await;
                self.await_results(op, accepted);
            }
            Err(Stop::Refused(error)) if !self.is_lost(&error).await => {
                self.void(op).await;
                if let Some(waiter) = self.waiters.remove(&op) {
                    self.refuse(waiter, error);
                }
            }
            Err(Stop::Refused(error) | Stop::Lost(error)) => self.recover(&error, None).await,
        }
    }

    /// Has the results of an operation come, each as it is there.
    fn await_results(&mut self, op: u64, accepted: Vec<Accepted>) {
        let Some(waiter) = self.waiters.get_mut(&op) else { return };
        waiter.results.resize_with(accepted.len(), || None);
        waiter.accepted = accepted;
        for part in 0..waiter.accepted.len() {
            self.await_result(op, part);
        }
    }

    fn await_result(&mut self, op: u64, part: usize) {
        let Some(kind) = self.parts.ledger.ops.get(&op).map(|op| result_type(&op.form)) else { return };
        let Some(waiter) = self.waiters.get(&op) else { return };
        let Some(request_id) = waiter.accepted.get(part).map(|accepted| accepted.request_id.clone()) else {
            return;
        };
        let (tell, generation) = (self.results.0.clone(), self.parts.ledger.head.generation);
        let (api, watch, name) = (self.parts.line.api.clone(), waiter.watch.clone(), waiter.name.clone());
        let (abort, registration) = AbortHandle::new_pair();
        let waiting = async move {
            let result = wait_raw(&api, &request_id, kind, &name, &watch).await;
            // Nobody listens once the run is gone.
            let _ = tell.unbounded_send(Came { generation, op, part, result });
        };
        let waiting = Abortable::new(waiting, registration);
        self.waits.insert((op, part), abort);
        self.api().runtime().spawn(Box::pin(async move {
            let _ = waiting.await;
        }));
    }

    async fn came(&mut self, came: Came) {
        let Came { generation, op, part, result } = came;
        if generation != self.parts.ledger.head.generation {
            return;
        }
        self.waits.remove(&(op, part));
        if let Err(error) = &result {
            let error = error.clone();
            if self.is_lost(&error).await {
                self.recover(&error, Some((op, part))).await;
                return;
            }
            if error.is_outage() {
                // Nobody knows yet what it came to.
                self.parts.hub.tell(RedoEvent::Waiting { why: error.to_string() });
                self.await_result(op, part);
                return;
            }
        }
        self.take(op, part, result).await;
    }

    /// Takes what one request of an operation came to.
    async fn take(&mut self, number: u64, part: usize, result: Result<Raw, Error>) {
        let Some(op) = self.parts.ledger.ops.get(&number) else { return };
        let outcome = match &result {
            // One that cannot be read took place all the same.
            Ok(raw) => Outcome::of(&op.form, op.form.name(), raw).unwrap_or_default(),
            Err(error) if matches!(error.kind(), ErrorKind::Undecodable { .. }) => Outcome::default(),
            Err(_) => Outcome::void(),
        };
        if matches!(op.form, Form::ForwardBackward) {
            self.due.passed(&outcome.metrics, &self.parts.options.checkpoints);
        }
        self.note(Entry::Resolved { op: number, part, outcome }).await;
        if let Some(waiter) = self.waiters.get_mut(&number)
            && let Some(place) = waiter.results.get_mut(part)
        {
            *place = Some(result);
        }
        if self.parts.ledger.ops.get(&number).is_some_and(Op::is_resolved) {
            self.conclude(number).await;
        }
    }

    /// Gives an operation's results to who waits for them.
    async fn conclude(&mut self, number: u64) {
        self.stand_on(number).await;
        let Some(mut waiter) = self.waiters.remove(&number) else { return };
        let results_of = std::mem::take(&mut waiter.results);
        let mut accepted = std::mem::take(&mut waiter.accepted);
        for (accepted, result) in accepted.iter_mut().zip(results_of) {
            match result {
                Some(Ok(raw)) => accepted.result = Some(raw),
                Some(Err(error)) => return self.fail(waiter, error),
                None => {}
            }
        }
        if waiter.then.is_some() {
            self.half = Some((waiter, accepted));
            return;
        }
        let sampler = self.sampler_of(number, &accepted).await;
        let session = self.parts.line.session();
        if let Some(done) = waiter.done {
            let sent = Sent { accepted, session, sampler };
            let _ = done.send(Submitted { result: Ok(sent), _delivered: None });
        }
    }

    /// Tells that an operation failed by itself. What was called behind the first half of two is not sent.
    fn fail(&self, waiter: Waiter, error: Error) {
        if waiter.then.is_some() {
            return self.refuse(waiter, error);
        }
        if let Some(done) = waiter.done {
            let _ = done.send(Submitted { result: Err(error), _delivered: None });
        }
    }

    /// Sends what follows from the results of an operation's first half.
    async fn second_half(&mut self, mut waiter: Waiter, accepted: Vec<Accepted>) {
        let Some(then) = waiter.then.take() else { return };
        let outputs = results(self.api(), &accepted, &waiter.name, &waiter.watch).await;
        let parts = outputs.and_then(|outputs| then(outputs, &self.parts.line.settings.config));
        match parts {
            Ok(parts) => {
                self.operate(parts, waiter, false).await;
            }
            Err(error) => self.refuse(waiter, error),
        }
    }

    /// A client of the sampler that an operation has made.
    async fn sampler_of(&mut self, number: u64, accepted: &[Accepted]) -> Option<SamplingClient> {
        let op = self.parts.ledger.ops.get(&number).filter(|op| op.form.makes_a_sampler())?;
        let accepted = accepted.first()?;
        let session = self.parts.line.session()?;
        let sampler_id = sampler_id(op, accepted, &session.id)?;
        let keeper = Arc::new(Kept { controls: self.parts.controls.clone() });
        let client = SamplingClient::kept(self.api().clone(), session, sampler_id, keeper).await;
        self.samplers.retain(|(_, slot)| slot.strong_count() > 0);
        self.samplers.push((number, client.slot()));
        Some(client)
    }

    // -- checkpoints --------------------------------------------------------------------------------------------

    /// Saves a checkpoint if one is due after this operation, and waits for it where the log is full.
    async fn save_if_due(&mut self, op: u64) {
        let stepped = self.parts.ledger.ops.get(&op).is_some_and(|op| op.step.is_some());
        let now = self.api().runtime().monotonic();
        let by_policy = stepped && self.due.stepped(now, &self.parts.options.checkpoints);
        let (size, bound) = (self.parts.log.size(), self.parts.options.bound);
        let by_size = size.saturating_sub(self.size_then) >= bound / 3;
        if (by_policy || by_size) && !self.saving && self.parts.order.lock().poisoned.is_none() {
            self.save().await;
        }
        while self.saving && self.parts.log.size() >= bound && self.parts.order.lock().poisoned.is_none() {
            let came = self.results.1.select_next_some().await;
            self.came(came).await;
        }
    }

    async fn save(&mut self) {
        self.saving = true;
        self.due.saved(self.api().runtime().monotonic());
        let name = format!("redo-{:06}", self.parts.ledger.head.steps);
        let request = TrainingRequest::SaveState { name, options: SaveOptions::default() };
        let part = operation::Part {
            write: Box::new(|| Ok(request)),
            bytes: 0,
            datums: 0,
            tokens: 0,
            makes_a_sampler: false,
            of_session: None,
        };
        let waiter = Waiter {
            name: format!("save_state of run {}", self.parts.line.model_id),
            watch: Arc::default(),
            then: None,
            done: None,
            accepted: Vec::new(),
            results: Vec::new(),
        };
        Box::pin(self.operate(vec![part], waiter, true)).await;
    }

    /// Stands on a checkpoint that was saved just now, if it can be restored from and has no end.
    async fn stand_on(&mut self, number: u64) {
        let Some(op) = self.parts.ledger.ops.get(&number) else { return };
        let Form::SaveState { ttl_seconds, .. } = &op.form else { return };
        let (own, lasts) = (op.own, ttl_seconds.is_none());
        let path =
            op.parts.first().and_then(|part| part.outcome.as_ref()).and_then(|outcome| outcome.path.clone());
        if own {
            self.saving = false;
        }
        let checked = match &path {
            Some(path) if lasts => self.check(path).await,
            Some(_) => return,
            None => Err("the service did not save it".to_owned()),
        };
        let (Some(path), Ok(())) = (path, &checked) else {
            if let Err(why) = checked {
                self.parts.hub.tell(RedoEvent::NotSaved { why });
            }
            return;
        };
        self.note(Entry::Base { op: number, path: path.clone() }).await;
        let step = self.parts.ledger.head.bases.last().map_or(0, |base| base.step);
        self.parts.hub.tell(RedoEvent::Saved { path, step });
        self.size_then = self.parts.log.size();
        self.let_go().await;
    }

    /// Whether the service knows the checkpoint.
    async fn check(&mut self, path: &str) -> Result<(), String> {
        match self.api().weights_info(path).await {
            Ok(_) => Ok(()),
            // It cannot be asked: that the save succeeded has to do.
            Err(error) if error.is_unsupported() => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Drops what nothing stands on any more.
    async fn let_go(&mut self) {
        if self.pinned.strong_count() > 0 {
            return;
        }
        let keep = if self.parts.log.size() >= self.parts.options.bound { 1 } else { KEPT };
        if let Some(segment) = self.parts.ledger.let_go(keep)
            && let Err(error) = self.parts.log.drop_before(segment).await
        {
            tracing::warn!(%error, "old segments of a redo log were not dropped");
        }
    }

    // -- recovery -----------------------------------------------------------------------------------------------

    /// Whether an error tells that the run has lost its state.
    async fn is_lost(&mut self, error: &Error) -> bool {
        if Symptom::of(error).is_some() {
            return true;
        }
        let users = error.category() == RequestErrorCategory::User && !error.is_not_found();
        if users || matches!(error.kind(), ErrorKind::Cancelled { .. } | ErrorKind::Undecodable { .. }) {
            return false;
        }
        if self.parts.line.session().is_some_and(|session| session.is_over()) {
            return true;
        }
        match self.api().training_run(&self.parts.line.model_id).await {
            Ok(run) => run.corrupted == Some(true),
            Err(error) => error.is_not_found(),
        }
    }

    /// Makes the run anew; if that cannot be done, every operation fails from now on. `failed` is the request whose result has told
    /// that the run is lost.
    async fn recover(&mut self, cause: &Error, failed: Option<(u64, usize)>) {
        let why = cause.to_string();
        self.settle_what_is_there(failed.into_iter().collect()).await;
        let struck = self.waiters.iter().find(|(_, waiter)| !waiter.accepted.is_empty()).map(|(op, _)| *op);
        if let Some(op) = struck {
            self.note(Entry::Struck { op }).await;
        }
        let _ = self.made_anew(&why).await;
    }

    /// Takes the results that a lost run still gives: they are the true ones.
    async fn settle_what_is_there(&mut self, mut failed: BTreeSet<(u64, usize)>) {
        let generation = self.parts.ledger.head.generation;
        let mut grace = self.api().runtime().sleep(GRACE);
        loop {
            let outstanding = self.waiters.iter().flat_map(|(op, waiter)| {
                waiter
                    .results
                    .iter()
                    .enumerate()
                    .filter(|(_, r)| r.is_none())
                    .map(move |(part, _)| (*op, part))
            });
            if outstanding.filter(|of| !failed.contains(of)).count() == 0 {
                return;
            }
            let came = match select(self.results.1.next(), grace).await {
                Either::Left((Some(came), rest)) => {
                    grace = rest;
                    came
                }
                _ => return,
            };
            if came.generation != generation {
                continue;
            }
            let by_itself = came.result.as_ref().err().is_none_or(|error| {
                error.category() == RequestErrorCategory::User
                    && matches!(error.kind(), ErrorKind::Failed { .. })
            });
            if by_itself {
                Box::pin(self.take(came.op, came.part, came.result)).await;
            } else {
                failed.insert((came.op, came.part));
            }
        }
    }

    async fn made_anew(&mut self, why: &str) -> Result<(), RedoError> {
        let lost = self.parts.line.model_id.clone();
        self.parts.hub.tell(RedoEvent::Lost { run_id: lost.clone(), why: why.to_owned() });
        let begun = self.api().runtime().monotonic();
        let mut attempts = 0;
        loop {
            attempts += 1;
            std::mem::take(&mut self.waits).values().for_each(AbortHandle::abort);
            let pill = self.parts.ledger.strikes.iter().find(|(_, times)| **times >= STRIKES);
            if let Some((op, times)) = pill {
                let error =
                    RedoError::PoisonPill { operation: describe(&self.parts.ledger, *op), times: *times };
                return self.give_up(&lost, error);
            }
            match Box::pin(self.rebuild(&lost)).await {
                Ok(()) => break,
                Err(Halt::Stop(error)) => return self.give_up(&lost, error),
                Err(Halt::Lost(error)) if attempts >= ATTEMPTS => {
                    return self.give_up(&lost, RedoError::Service(error));
                }
                Err(Halt::Lost(error)) => {
                    let run_id = self.parts.line.model_id.clone();
                    self.parts.hub.tell(RedoEvent::Lost { run_id, why: error.to_string() });
                }
            }
        }
        let seconds = self.api().runtime().monotonic().saturating_sub(begun).as_secs_f64();
        let (run_id, step) = (self.parts.line.model_id.clone(), self.parts.ledger.head.steps);
        self.parts.hub.tell(RedoEvent::Recovered { run_id, from: lost, step, seconds });
        Ok(())
    }

    fn give_up(&mut self, lost: &str, error: RedoError) -> Result<(), RedoError> {
        let why = error.to_string();
        self.parts.hub.tell(RedoEvent::Stopped { run_id: lost.to_owned(), why: why.clone() });
        let cause = |name: &str| {
            Error::new(name, ErrorKind::Unrecovered { run_id: lost.to_owned(), reason: why.clone() })
        };
        self.parts.order.lock().poisoned = Some(cause("recovery"));
        for (_, waiter) in std::mem::take(&mut self.waiters) {
            let error = cause(&waiter.name);
            if let Some(done) = waiter.done {
                let _ = done.send(Submitted { result: Err(error), _delivered: None });
            }
        }
        Err(error)
    }

    /// Makes a run from the newest checkpoint that can be restored, and does again what was done since.
    async fn rebuild(&mut self, lost: &str) -> Result<(), Halt> {
        let mut last = "there is none".to_owned();
        for start in self.parts.ledger.starts() {
            match self.make(start.as_ref(), lost).await? {
                Ok(made) => return self.replay(start.as_ref(), made).await,
                Err(error) => last = error.to_string(),
            }
            if let Some(base) = start {
                self.parts.hub.tell(RedoEvent::SteppedBack { path: base.path.clone(), why: last.clone() });
                self.note(Entry::Useless { path: base.path }).await;
            }
        }
        Err(Halt::Stop(RedoError::NoStart { last }))
    }

    /// Makes a run; waits for a service that is not there. The inner error is the checkpoint's.
    async fn make(
        &mut self,
        start: Option<&Base>,
        lost: &str,
    ) -> Result<Result<TrainingClient, Error>, Halt> {
        let begun = self.api().runtime().monotonic();
        let mut pause = PAUSES.0;
        loop {
            let error = match self.try_make(start, lost).await? {
                Ok(made) => return Ok(Ok(made)),
                Err(error) => error,
            };
            let waited = self.api().runtime().monotonic().saturating_sub(begun);
            let patient = waited < self.parts.options.patience;
            if !(error.is_outage() || error.is_retryable() && error.status().is_some()) || !patient {
                let checkpoints = start.is_some() && !error.is_outage();
                return if checkpoints { Ok(Err(error)) } else { Err(Halt::Stop(RedoError::Service(error))) };
            }
            self.parts.hub.tell(RedoEvent::Waiting { why: error.to_string() });
            let asked = error.retry_after().unwrap_or(pause);
            self.api().runtime().sleep(asked.max(pause)).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    async fn try_make(
        &mut self,
        start: Option<&Base>,
        lost: &str,
    ) -> Result<Result<TrainingClient, Error>, Halt> {
        let path = start.map(|base| base.path.clone());
        let chosen = self.parts.ledger.identity.take().filter(|identity| identity.path == path);
        let again = chosen.is_some();
        let place = match chosen {
            Some(identity) => self.parts.service.place_of(&identity.session_id, identity.model_seq_id),
            None => match self.parts.service.place().await {
                Ok(place) => place,
                Err(error) => return Ok(Err(error)),
            },
        };
        let identity =
            Identity { session_id: place.session_id().to_owned(), model_seq_id: place.number(), path };
        self.put(Entry::Identity(identity)).await?;
        let mut labels = labels(&self.parts.ledger, start);
        labels.insert(LABEL_RESTORED_FROM.to_owned(), lost.to_owned());
        let made = make_from(&place, start, self.parts.ledger.creation(), labels).await;
        match made {
            Ok(made) => Ok(Ok(made)),
            Err(error) => {
                if !error.is_outage() {
                    self.parts.ledger.identity = None;
                }
                // The session of the program before this one may be over.
                if again && error.status().is_some_and(|status| matches!(status, 404 | 410)) {
                    return Box::pin(self.try_make(start, lost)).await;
                }
                Ok(Err(error))
            }
        }
    }

    /// Does again with a new run what was done since its checkpoint, and has it take the place of the one that was lost.
    async fn replay(&mut self, start: Option<&Base>, made: TrainingClient) -> Result<(), Halt> {
        self.put(Entry::Replaying).await?;
        let attachment = made.attachment();
        let Some(session) = made.session() else { return Err(Halt::Stop(RedoError::Gone)) };
        let (api, model_id) = (self.api().clone(), attachment.model_id.clone());
        {
            let mut state = self.parts.order.lock();
            state.model_id.clone_from(&model_id);
            state.session_id.clone_from(&attachment.session_id);
            state.next_seq_id = attachment.next_seq_id;
            state.checkpoint = start.map(|base| base.path.clone());
        }
        self.parts.line = Line::new(api, model_id.clone(), self.parts.order.clone(), &session);
        self.parts.line.settle().await;
        {
            let mut held = self.parts.held.lock().unwrap_or_else(PoisonError::into_inner);
            // Given away meanwhile, it stays so.
            if held.is_some() {
                *held = Some(session);
            }
        }
        let generation = self.parts.ledger.head.generation + 1;
        let queue = self.queue_again(Ledger::from(start));
        let steps = queue.iter().filter(|again| again.op.step.is_some()).count() as u64;
        let requests = queue.iter().map(|again| again.parts.len() as u64).sum();
        let (path, step) = (start.map(|base| base.path.clone()), start.map_or(0, |base| base.step));
        self.parts.hub.tell(RedoEvent::Replaying { run_id: model_id, path, step, requests, steps });
        let mut seen = Vec::new();
        let mut replay = Replay::new(self.parts.log.clone(), queue);
        while let Some(done) = replay.next(&self.parts.line).await? {
            self.done_again(done, &mut seen).await?;
        }
        let run = self.parts.order.lock().next_seq_id;
        let attachment = crate::recovery::restore::Attachment { next_seq_id: run, ..attachment };
        self.put(Entry::Run { generation, attachment }).await?;
        Ok(())
    }

    /// What has to be done again with a new run: what changes it, what somebody waits for, and samplers that somebody has.
    fn queue_again(&mut self, from: u64) -> VecDeque<Again> {
        self.samplers.retain(|(_, slot)| slot.strong_count() > 0);
        let mut queue = VecDeque::new();
        for (number, op) in self.parts.ledger.ops.range(from..) {
            let waiter = self.waiters.get(number);
            let sampled = self.samplers.iter().any(|(of, _)| of == number);
            let wanted = op.changes_the_run() || (waiter.is_some() && !op.is_resolved()) || sampled;
            if !wanted || op.is_void() {
                continue;
            }
            let parts = effective(op);
            let watch = waiter.map(|waiter| waiter.watch.clone()).unwrap_or_default();
            queue.push_back(Again { number: *number, op: op.clone(), parts, watch });
        }
        queue
    }

    /// Takes what a request came to that was done again.
    async fn done_again(&mut self, done: Done, seen: &mut Vec<(f64, f64)>) -> Result<(), Halt> {
        let Done { op: number, part, accepted, result } = done;
        if let Err(error) = &result
            && self.is_lost(error).await
        {
            self.note(Entry::Struck { op: number }).await;
            return Err(Halt::Lost(error.clone()));
        }
        if let Err(error) = &result
            && error.is_outage()
        {
            return Err(Halt::Lost(error.clone()));
        }
        let Some(op) = self.parts.ledger.ops.get(&number).cloned() else { return Ok(()) };
        let recorded = op.parts.get(part).and_then(|part| part.outcome.clone());
        match (recorded, result) {
            (Some(_), Ok(raw)) => {
                let outcome = Outcome::of(&op.form, op.form.name(), &raw).unwrap_or_default();
                let matching = self.parts.options.matching;
                hold_against(&self.parts.ledger, number, part, &outcome, matching, seen)
                    .map_err(Halt::Stop)?;
                self.remap(number, &op, &Accepted { result: Some(raw), ..accepted }).await;
                Ok(())
            }
            // It was done before, and cannot be now.
            (Some(_), Err(error)) => Err(Halt::Stop(RedoError::Service(error))),
            (None, result) => {
                if let Some(waiter) = self.waiters.get_mut(&number) {
                    waiter.results.resize_with(op.parts.len(), || None);
                    waiter.accepted.resize_with(op.parts.len(), Accepted::nothing);
                    if let Some(place) = waiter.accepted.get_mut(part) {
                        *place = accepted;
                    }
                }
                Box::pin(self.take(number, part, result)).await;
                Ok(())
            }
        }
    }

    /// Has clients of a sampler that was made anew sample from that one.
    async fn remap(&mut self, number: u64, op: &Op, accepted: &Accepted) {
        let slots: Vec<_> = self
            .samplers
            .iter()
            .filter(|(of, _)| *of == number)
            .filter_map(|(_, slot)| slot.upgrade())
            .collect();
        let Some(session) = self.parts.line.session() else { return };
        let Some(sampler_id) = sampler_id(op, accepted, &session.id) else { return };
        for slot in slots {
            slot.replace(self.api().clone(), session.clone(), sampler_id.clone()).await;
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
            self.parts.ledger.take(super::log::Place { segment: 0, offset: 0 }, entry);
        }
    }

    async fn void(&mut self, op: u64) {
        let parts = self.parts.ledger.ops.get(&op).map_or(0, |op| op.parts.len());
        for part in 0..parts {
            self.note(Entry::Resolved { op, part, outcome: Outcome::void() }).await;
        }
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

/// Asks the driver about a sampler that failed.
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

/// The labels of a run that goes on from there.
pub(crate) fn labels(ledger: &Ledger, start: Option<&Base>) -> UserMetadata {
    let generation = ledger.head.generation + 1;
    let mut labels = ledger.creation().user_metadata.clone();
    let mut put = |name: &str, value: String| labels.insert(name.to_owned(), value);
    put(LABEL_RESTORE_ID, format!("redo-{}-{generation}", ledger.head.log));
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
