//! Training one run. Operations are numbered and sent by one sender task, in the order in which they were called.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_channel::{mpsc, oneshot};
use futures_util::StreamExt;
use retinker_wire::UserMetadata;
use retinker_wire::metrics;
use retinker_wire::model::{GetInfoResponse, LoadWeightsRequest, LoadWeightsResult, load_weights_type};
use retinker_wire::sampler::sampler_id_of;
use retinker_wire::training::{
    AdamParams, Datum, ForwardBackwardOutput, OptimStepRequest, OptimStepResult, optim_step_type,
};
use retinker_wire::weights::{
    SamplerKind, SaveWeightsForSamplerRequest, SaveWeightsForSamplerResult, SaveWeightsRequest,
    SaveWeightsResult, save_weights_type,
};

use super::api::{
    Api, forward_backward_call, load_weights_call, optim_step_call, save_weights_call,
    save_weights_for_sampler_call,
};
use super::call::Call;
use super::encode::{Batch, LossFnConfig};
use super::error::{Error, ErrorKind};
use super::pending::{FutureResult, Pending, Watch, wait};
use super::sampling::SamplingClient;
use super::session::Session;
use crate::recovery::restore::Attachment;

/// Trains one run. Cheap to clone; clones share the run's order.
///
/// Every operation takes its place in the run's order when it is *called*, and is sent in that order, each after
/// the one before it was accepted. Dropping what a call returned only stops the waiting.
///
/// What happens when an operation is not accepted:
/// - **Refused for certain** (a 4xx, or no connection at all): nothing happened on the server, its number is given
///   to the next operation, and the client goes on. Operations called before the refusal was delivered to its
///   caller were meant to follow the refused one: they are not sent, and say so.
/// - **Undecided** (broken off, timed out, 5xx): the order is lost and the client is *poisoned*. Every later call
///   fails with [`ErrorKind::Poisoned`], which has the cause.
///
/// A result that fails after its operation was accepted fails that call and no other.
#[derive(Clone)]
pub struct TrainingClient {
    inner: Arc<Inner>,
}

struct Inner {
    api: Api,
    session_id: String,
    model_id: String,
    jobs: mpsc::UnboundedSender<Job>,
    order: Arc<Order>,
    max_datums: usize,
    max_bytes: usize,
    /// `None` once the run is given away.
    session: Mutex<Option<Arc<Session>>>,
}

/// How a checkpoint is saved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SaveOptions {
    /// Seconds until the server deletes it; `None` = never.
    pub ttl_seconds: Option<u64>,
    /// Replace a checkpoint of the same name.
    pub overwrite: bool,
    /// The checkpoint's labels.
    pub user_metadata: Option<UserMetadata>,
}

/// How weights to sample from are saved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SaveForSamplerOptions {
    /// Seconds until the server deletes them; `None` = never.
    pub ttl_seconds: Option<u64>,
    /// The checkpoint's labels.
    pub user_metadata: Option<UserMetadata>,
}

/// The run's order, shared by the callers and the sender.
struct Order {
    state: Mutex<OrderState>,
}

struct OrderState {
    next_seq_id: u64,
    /// Counts refusals: a job of an earlier epoch was called before the refusal was known.
    epoch: u64,
    /// A refusal that its caller has not been told of yet.
    undelivered: Option<Error>,
    /// The last refusal, which jobs of earlier epochs name.
    refusal: Option<Error>,
    poisoned: Option<Error>,
    closed: bool,
}

impl Order {
    fn lock(&self) -> MutexGuard<'_, OrderState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the time in which later calls count as made in ignorance of a refusal: when the refusal is delivered, or
/// when nobody is left to deliver it to.
struct Delivered {
    order: Arc<Order>,
    epoch: u64,
}

impl Drop for Delivered {
    fn drop(&mut self) {
        let mut state = self.order.lock();
        if state.epoch == self.epoch {
            state.undelivered = None;
        }
    }
}

enum Job {
    Operation(Operation),
    /// Answered when everything before it was accepted or refused.
    Barrier(oneshot::Sender<()>),
}

struct Operation {
    name: String,
    epoch: u64,
    parts: Vec<Part>,
    watch: Arc<Watch>,
    done: oneshot::Sender<Submitted>,
}

/// One request, which lacks only its number.
type Part = Box<dyn FnOnce(u64) -> Result<Call, Error> + Send>;

struct Submitted {
    result: Result<Vec<String>, Error>,
    _delivered: Option<Delivered>,
}

impl fmt::Debug for TrainingClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrainingClient")
            .field("session_id", &self.inner.session_id)
            .field("model_id", &self.inner.model_id)
            .field("next_seq_id", &self.inner.order.lock().next_seq_id)
            .finish_non_exhaustive()
    }
}

impl TrainingClient {
    /// Goes on with a run that another process, or a restore, has made: the next operation gets the number
    /// `attachment.next_seq_id`, and the run's session is kept alive from now on. Sends nothing at once.
    ///
    /// Nobody else may train the run meanwhile: two programs would take the same numbers.
    pub fn attach(api: Api, attachment: Attachment) -> Self {
        let session = Arc::new(Session::adopted(&api, attachment.session_id));
        Self::new(api, session, attachment.model_id, attachment.next_seq_id)
    }

    pub(crate) fn new(api: Api, session: Arc<Session>, model_id: String, next_seq_id: u64) -> Self {
        let (jobs, queue) = mpsc::unbounded();
        let order = Arc::new(Order {
            state: Mutex::new(OrderState {
                next_seq_id,
                epoch: 0,
                undelivered: None,
                refusal: None,
                poisoned: None,
                closed: false,
            }),
        });
        let sender = send_in_order(api.clone(), model_id.clone(), order.clone(), queue);
        api.runtime().spawn(Box::pin(sender));
        let inner = Inner {
            api,
            session_id: session.id.clone(),
            model_id,
            jobs,
            order,
            max_datums: session.config.fwdbwd_max_chunk_len.max(1),
            max_bytes: session.config.fwdbwd_max_chunk_bytes_count.max(1),
            session: Mutex::new(Some(session)),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The run, which is also the id that the console and REST calls know it by.
    pub fn model_id(&self) -> &str {
        &self.inner.model_id
    }

    /// The session that the run belongs to.
    pub fn session_id(&self) -> &str {
        &self.inner.session_id
    }

    /// How somebody else could go on with the run now: its number is the first that has not been accepted yet. To
    /// give the run away use [`hand_over`](Self::hand_over), which waits and stops this client.
    pub fn attachment(&self) -> Attachment {
        Attachment {
            session_id: self.inner.session_id.clone(),
            model_id: self.inner.model_id.clone(),
            next_seq_id: self.inner.order.lock().next_seq_id,
        }
    }

    /// Why the run's order is lost, if it is.
    pub fn poisoned(&self) -> Option<Error> {
        self.inner.order.lock().poisoned.clone()
    }

    /// Whether the server has said that the session is over (410 to a heartbeat).
    pub fn session_is_over(&self) -> bool {
        self.session().is_some_and(|session| session.is_over())
    }

    /// A forward and backward pass: the gradient adds up until the next [`optim_step`](Self::optim_step). A batch
    /// beyond the server's bounds goes out in several requests, whose results are merged.
    pub fn forward_backward(
        &self,
        data: &[Datum],
        loss_fn: &str,
        loss_fn_config: &LossFnConfig,
    ) -> Pending<ForwardBackwardOutput> {
        self.pass("forward_backward", data, loss_fn, loss_fn_config, false)
    }

    /// A forward pass without a gradient.
    pub fn forward(
        &self,
        data: &[Datum],
        loss_fn: &str,
        loss_fn_config: &LossFnConfig,
    ) -> Pending<ForwardBackwardOutput> {
        self.pass("forward", data, loss_fn, loss_fn_config, true)
    }

    /// One step of the optimizer over the gradients added up.
    pub fn optim_step(&self, adam_params: AdamParams) -> Pending<OptimStepResult> {
        let model_id = self.inner.model_id.clone();
        self.one("optim_step", move |seq_id| {
            optim_step_call(&OptimStepRequest {
                adam_params,
                model_id,
                seq_id: Some(seq_id),
                kind: optim_step_type(),
            })
        })
    }

    /// Saves weights and optimizer state under a name; the result has the checkpoint's `tinker://` path.
    pub fn save_state(&self, name: &str, options: SaveOptions) -> Pending<SaveWeightsResult> {
        let (model_id, path) = (self.inner.model_id.clone(), name.to_owned());
        self.one("save_state", move |seq_id| {
            save_weights_call(&SaveWeightsRequest {
                model_id,
                path,
                seq_id,
                ttl_seconds: options.ttl_seconds,
                overwrite: options.overwrite,
                user_metadata: options.user_metadata,
                kind: save_weights_type(),
            })
        })
    }

    /// Saves weights to sample from under a name; the result has the checkpoint's `tinker://` path.
    pub fn save_weights_for_sampler(
        &self,
        name: &str,
        options: SaveForSamplerOptions,
    ) -> Pending<SaveWeightsForSamplerResult> {
        let path = Some(name.to_owned());
        self.save_for_sampler("save_weights_for_sampler", path, None, SamplerKind::Snapshot, options)
    }

    /// Saves the weights as they are now for a sampler, and gives a client of it. There is no checkpoint to find again:
    /// the weights are gone with the session.
    pub async fn save_weights_and_get_sampling_client(&self) -> Result<SamplingClient, Error> {
        self.sampler(SamplerKind::Snapshot).await
    }

    /// The same with weights that follow the run: every later call of this method gives them to the samplers made before,
    /// too. A sample may then be drawn from several versions of the weights.
    pub async fn save_weights_and_get_inflight_sampling_client(&self) -> Result<SamplingClient, Error> {
        self.sampler(SamplerKind::Inflight).await
    }

    async fn sampler(&self, kind: SamplerKind) -> Result<SamplingClient, Error> {
        let name = "save_weights_and_get_sampling_client";
        let Some(session) = self.session() else {
            return Err(cancelled(self.describe(name), "the run was given away".to_owned()));
        };
        let number = session.next_sampler(&self.inner.api).await?;
        let saved =
            self.save_for_sampler(name, None, Some(number), kind, SaveForSamplerOptions::default()).await?;
        // Servers that name no sampler use the only name there can be.
        let sampler_id = saved.sampling_session_id.unwrap_or_else(|| sampler_id_of(&session.id, number));
        Ok(SamplingClient::new(self.inner.api.clone(), session, sampler_id))
    }

    fn save_for_sampler(
        &self,
        operation: &str,
        path: Option<String>,
        sampling_session_seq_id: Option<u64>,
        kind: SamplerKind,
        options: SaveForSamplerOptions,
    ) -> Pending<SaveWeightsForSamplerResult> {
        let model_id = self.inner.model_id.clone();
        self.one(operation, move |seq_id| {
            save_weights_for_sampler_call(&SaveWeightsForSamplerRequest {
                model_id,
                path,
                sampling_session_seq_id,
                kind,
                seq_id: Some(seq_id),
                ttl_seconds: options.ttl_seconds,
                user_metadata: options.user_metadata,
            })
        })
    }

    fn session(&self) -> Option<Arc<Session>> {
        self.inner.session.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Loads a checkpoint's weights, with a cold optimizer. Many servers take this only as a run's first request.
    pub fn load_state(&self, path: &str) -> Pending<LoadWeightsResult> {
        self.load("load_state", path, false)
    }

    /// Loads a checkpoint's weights and optimizer state. Many servers take this only as a run's first request.
    pub fn load_state_with_optimizer(&self, path: &str) -> Pending<LoadWeightsResult> {
        self.load("load_state_with_optimizer", path, true)
    }

    /// What the run is made of. Has no place in the order.
    pub async fn get_info(&self) -> Result<GetInfoResponse, Error> {
        self.inner.api.get_info(&self.inner.model_id).await
    }

    /// Gives the run away: waits until every operation called so far was accepted, stops the heartbeat, and
    /// resolves to what somebody else needs to go on. This client, and its clones, take no operation afterwards.
    ///
    /// # Errors
    /// [`ErrorKind::Poisoned`] if the order is lost: there is nothing to go on with.
    pub async fn hand_over(&self) -> Result<Attachment, Error> {
        let operation = format!("hand_over of run {}", self.inner.model_id);
        self.inner.order.lock().closed = true;
        let (done, passed) = oneshot::channel();
        if self.inner.jobs.unbounded_send(Job::Barrier(done)).is_err() || passed.await.is_err() {
            return Err(cancelled(operation, "the runtime it was running in has ended.".to_owned()));
        }
        if let Some(cause) = self.poisoned() {
            return Err(poisoned(operation, &self.inner.model_id, &cause));
        }
        self.inner.session.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(self.attachment())
    }

    #[cfg(test)]
    pub(crate) async fn test_sleep(&self, duration: std::time::Duration) {
        self.inner.api.runtime().sleep(duration).await;
    }

    fn load(&self, name: &str, path: &str, optimizer: bool) -> Pending<LoadWeightsResult> {
        let (model_id, path) = (self.inner.model_id.clone(), path.to_owned());
        self.one(name, move |seq_id| {
            load_weights_call(&LoadWeightsRequest {
                model_id: Some(model_id),
                seq_id: Some(seq_id),
                path,
                optimizer,
                kind: load_weights_type(),
                ..LoadWeightsRequest::default()
            })
        })
    }

    fn pass(
        &self,
        name: &str,
        data: &[Datum],
        loss_fn: &str,
        config: &LossFnConfig,
        forward_only: bool,
    ) -> Pending<ForwardBackwardOutput> {
        if data.is_empty() {
            return Pending::failed(Error::config(self.describe(name), "the batch has no datum"));
        }
        let mut sizes = Vec::new();
        let mut parts: Vec<Part> = Vec::new();
        for chunk in chunks(data, self.inner.max_datums, self.inner.max_bytes) {
            sizes.push(chunk.len());
            let model_id = self.inner.model_id.clone();
            let batch = Batch::new(&model_id, chunk, loss_fn, config, forward_only);
            parts.push(Box::new(move |seq_id| forward_backward_call(&model_id, seq_id, batch, forward_only)));
        }
        let operation = self.describe(name);
        self.enqueue(name, parts, move |outputs| merge(&operation, outputs, &sizes))
    }

    fn one<T: FutureResult>(
        &self,
        name: &str,
        part: impl FnOnce(u64) -> Result<Call, Error> + Send + 'static,
    ) -> Pending<T> {
        let operation = self.describe(name);
        self.enqueue(name, vec![Box::new(part)], move |results: Vec<T>| {
            let nothing = || cancelled(operation, "it came to no request.".to_owned());
            results.into_iter().next().ok_or_else(nothing)
        })
    }

    fn describe(&self, name: &str) -> String {
        format!("{name} of run {}", self.inner.model_id)
    }

    /// Gives an operation its place in the order. What comes back waits for its result.
    fn enqueue<T: FutureResult, U: Send + 'static>(
        &self,
        name: &str,
        parts: Vec<Part>,
        finish: impl FnOnce(Vec<T>) -> Result<U, Error> + Send + 'static,
    ) -> Pending<U> {
        let operation = self.describe(name);
        let watch = Arc::new(Watch::default());
        let (done, submitted) = oneshot::channel();
        {
            // The place in the queue is taken under the lock, so that it agrees with the epoch.
            let state = self.inner.order.lock();
            if let Some(cause) = &state.poisoned {
                return Pending::failed(poisoned(operation, &self.inner.model_id, cause));
            }
            if state.closed {
                return Pending::failed(cancelled(operation, "the run was handed over.".to_owned()));
            }
            if let Some(refusal) = &state.undelivered {
                return Pending::failed(after_refusal(operation, refusal));
            }
            let job =
                Operation { name: operation.clone(), epoch: state.epoch, parts, watch: watch.clone(), done };
            if self.inner.jobs.unbounded_send(Job::Operation(job)).is_err() {
                return Pending::failed(cancelled(
                    operation,
                    "the runtime it was running in has ended.".to_owned(),
                ));
            }
        }
        let (api, held) = (self.inner.api.clone(), watch.clone());
        let waiting = async move {
            let submitted = match submitted.await {
                Ok(submitted) => submitted,
                Err(_) => {
                    return Err(cancelled(operation, "the runtime it was running in has ended.".to_owned()));
                }
            };
            let request_ids = submitted.result?;
            let mut results = Vec::with_capacity(request_ids.len());
            for request_id in request_ids {
                results.push(wait::<T>(&api, &request_id, &operation, &held).await?);
            }
            finish(results)
        };
        Pending::new(watch, Box::pin(waiting))
    }
}

/// Sends what was called, in order, until nobody can call any more.
async fn send_in_order(
    api: Api,
    model_id: String,
    order: Arc<Order>,
    mut queue: mpsc::UnboundedReceiver<Job>,
) {
    while let Some(job) = queue.next().await {
        match job {
            Job::Barrier(done) => {
                let _ = done.send(());
            }
            Job::Operation(operation) => {
                let Operation { name, epoch, parts, watch, done } = operation;
                let submitted = match may_go(&order, &model_id, &name, epoch) {
                    Ok(()) => submit(&api, &model_id, &order, parts, &watch).await,
                    Err(error) => Submitted { result: Err(error), _delivered: None },
                };
                // Nobody may be waiting any more; the request keeps its place all the same.
                let _ = done.send(submitted);
            }
        }
    }
}

fn may_go(order: &Order, model_id: &str, name: &str, epoch: u64) -> Result<(), Error> {
    let state = order.lock();
    if let Some(cause) = &state.poisoned {
        return Err(poisoned(name.to_owned(), model_id, cause));
    }
    match &state.refusal {
        Some(refusal) if epoch != state.epoch => Err(after_refusal(name.to_owned(), refusal)),
        _ => Ok(()),
    }
}

async fn submit(api: &Api, model_id: &str, order: &Arc<Order>, parts: Vec<Part>, watch: &Watch) -> Submitted {
    let mut request_ids = Vec::with_capacity(parts.len());
    for part in parts {
        let seq_id = order.lock().next_seq_id;
        let accepted = match part(seq_id) {
            Ok(call) => api.accept(&call).await,
            Err(error) => Err(error),
        };
        match accepted {
            Ok(request_id) => {
                order.lock().next_seq_id += 1;
                watch.accepted(request_id.clone());
                request_ids.push(request_id);
            }
            Err(error) => {
                let mut state = order.lock();
                if !error.is_definite_refusal() {
                    tracing::warn!(model_id, seq_id, %error, "the order of the run's operations is lost");
                    state.poisoned = Some(error.clone());
                    return Submitted { result: Err(error), _delivered: None };
                }
                state.epoch += 1;
                state.undelivered = Some(error.clone());
                state.refusal = Some(error.clone());
                let delivered = Delivered { order: order.clone(), epoch: state.epoch };
                return Submitted { result: Err(error), _delivered: Some(delivered) };
            }
        }
    }
    Submitted { result: Ok(request_ids), _delivered: None }
}

fn poisoned(operation: String, model_id: &str, cause: &Error) -> Error {
    Error::new(operation, ErrorKind::Poisoned { run_id: model_id.to_owned(), cause: cause.clone() })
}

fn cancelled(operation: String, reason: String) -> Error {
    Error::new(operation, ErrorKind::Cancelled { reason })
}

fn after_refusal(operation: String, refusal: &Error) -> Error {
    cancelled(operation, format!("it was to follow a request that did not go through: {refusal}"))
}

/// Greedy, in order, as the official SDK does it: one datum that is too large by itself gets a chunk of its own.
fn chunks(data: &[Datum], max_datums: usize, max_bytes: usize) -> Vec<&[Datum]> {
    let mut chunks = Vec::new();
    let (mut start, mut bytes) = (0, 0usize);
    for (i, datum) in data.iter().enumerate() {
        let size = datum.estimated_bytes();
        if i > start && (bytes + size > max_bytes || i - start == max_datums) {
            chunks.extend(data.get(start..i));
            (start, bytes) = (i, 0);
        }
        bytes += size;
    }
    chunks.extend(data.get(start..));
    chunks
}

fn merge(
    operation: &str,
    outputs: Vec<ForwardBackwardOutput>,
    sizes: &[usize],
) -> Result<ForwardBackwardOutput, Error> {
    let mut outputs = outputs;
    if outputs.len() == 1
        && let Some(only) = outputs.pop()
    {
        return Ok(only);
    }
    let measured: Vec<_> =
        outputs.iter_mut().map(|o| std::mem::take(&mut o.metrics)).zip(sizes.iter().copied()).collect();
    let metrics = metrics::combine(&measured).map_err(|error| {
        Error::new(
            operation,
            ErrorKind::Undecodable {
                path: "its metrics".to_owned(),
                what: error.to_string(),
                snippet: String::new(),
            },
        )
    })?;
    let kind = outputs.first().map(|o| o.loss_fn_output_type.clone()).unwrap_or_default();
    let loss_fn_outputs = outputs.into_iter().flat_map(|o| o.loss_fn_outputs).collect();
    Ok(ForwardBackwardOutput { loss_fn_output_type: kind, loss_fn_outputs, metrics })
}
