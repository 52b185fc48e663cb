//! Training one run. Operations are numbered and sent by one sender task, in the order in which they were called.

mod chunks;
mod custom;
pub(crate) mod line;
pub(crate) mod operation;
pub(crate) mod order;
pub(crate) mod request;
mod sender;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures_channel::{mpsc, oneshot};
use retinker_wire::UserMetadata;
use retinker_wire::model::{GetInfoResponse, LoadWeightsResult};
use retinker_wire::sampler::sampler_id_of;
use retinker_wire::tensor::TensorData;
use retinker_wire::training::{Datum, ForwardBackwardOutput, OptimParams, OptimStepResult};
use retinker_wire::weights::{SamplerKind, SaveWeightsForSamplerResult, SaveWeightsResult};
use tracing::Instrument;

use super::api::Api;
use super::console_url;
use super::encode::LossFnConfig;
use super::error::Error;
use super::pending::{FutureResult, Pending, Watch};
use super::sampling::{Keeper, SamplingClient, SamplingSource};
use super::secret::Secret;
use super::session::Session;
use super::tokenizer::{Tokenizer, TokenizerId, TokenizerSource};
use crate::recovery::restore::Attachment;

use chunks::{Pass, merge};
pub use custom::CustomLoss;
use line::Line;
use operation::{Cut, Job, Operation, Part, Sent, Then, after_refusal, cancelled, results};
use order::Order;
use request::TrainingRequest;
use sender::Sender;

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
///   fails with [`ErrorKind::Poisoned`](super::ErrorKind::Poisoned), which has the cause.
///
/// A result that fails after its operation was accepted fails that call and no other.
///
/// # What every operation can give
///
/// Operations return at once; what is returned gives, when it is awaited, beside what every [`Pending`] can give:
/// - [`ErrorKind::Poisoned`](super::ErrorKind::Poisoned): the order was lost before this operation. The one that lost it
///   gives its own error.
/// - [`ErrorKind::Cancelled`](super::ErrorKind::Cancelled): an operation before it was refused, the run was handed over,
///   or the runtime has ended.
/// - [`ErrorKind::Refused`](super::ErrorKind::Refused) with 404 if the server does not know the run, with 409 if it has
///   had the number already, from somebody else who trains the run; [`ErrorKind::Expired`](super::ErrorKind::Expired) if
///   the session is over.
///
/// What gives [`ErrorKind::Config`](super::ErrorKind::Config) was not sent, and takes no number.
#[derive(Clone)]
pub struct TrainingClient {
    inner: Arc<Inner>,
}

struct Inner {
    api: Api,
    jobs: mpsc::UnboundedSender<Job>,
    order: Arc<Order>,
    session: Held,
    /// Who makes the run anew when it is lost.
    keeper: Option<Arc<dyn Keeper>>,
}

/// The session of a run, kept alive by its clients; `None` once the run is given away.
pub(crate) type Held = Arc<Mutex<Option<Arc<Session>>>>;

/// The session that is held now.
pub(crate) fn session_of(held: &Held) -> Option<Arc<Session>> {
    held.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// How a checkpoint is saved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SaveOptions {
    /// Seconds until the server deletes it; `None` = never.
    pub ttl_seconds: Option<u64>,
    /// Whether to replace a checkpoint of the same name; `false`.
    pub overwrite: bool,
    /// The checkpoint's labels.
    pub user_metadata: Option<UserMetadata>,
}

/// How a checkpoint is loaded.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Whether to load the optimizer's state too; `false`.
    pub optimizer: bool,
    /// Leave to load another account's checkpoint.
    pub weights_access_token: Option<Secret>,
}

/// How weights to be used elsewhere are saved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SaveExternalOptions {
    /// Seconds until the server deletes them; `None` = never.
    pub ttl_seconds: Option<u64>,
    /// Who can read the files, as recipients of `age` (filippo.io/age), at most 10; `None` = they are not encrypted.
    pub age_encryption_recipients: Option<Vec<String>>,
}

/// How weights to sample from are saved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SaveForSamplerOptions {
    /// Seconds until the server deletes them; `None` = never.
    pub ttl_seconds: Option<u64>,
    /// The checkpoint's labels.
    pub user_metadata: Option<UserMetadata>,
}

impl fmt::Debug for TrainingClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Attachment { session_id, model_id, next_seq_id } = self.attachment();
        f.debug_struct("TrainingClient")
            .field("session_id", &session_id)
            .field("model_id", &model_id)
            .field("next_seq_id", &next_seq_id)
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
        let order = Order::new(model_id.clone(), session.id.clone(), next_seq_id);
        let line = Line::new(api.clone(), model_id, order.clone(), &session);
        api.runtime().spawn(Box::pin(Sender::new(line, order.clone()).run(queue)));
        Self::driven(api, jobs, order, Arc::new(Mutex::new(Some(session))), None)
    }

    /// A client whose operations somebody takes from the other end of `jobs`; `keeper`: who makes its run anew.
    pub(crate) fn driven(
        api: Api,
        jobs: mpsc::UnboundedSender<Job>,
        order: Arc<Order>,
        session: Held,
        keeper: Option<Arc<dyn Keeper>>,
    ) -> Self {
        Self { inner: Arc::new(Inner { api, jobs, order, session, keeper }) }
    }

    /// The run, which is also the id that the console and REST calls know it by. Of a recovering client it is another after a
    /// recovery.
    pub fn model_id(&self) -> String {
        self.inner.order.lock().model_id.clone()
    }

    /// The session that the run belongs to.
    pub fn session_id(&self) -> String {
        self.inner.order.lock().session_id.clone()
    }

    /// How somebody else could go on with the run now: its number is the first that has not been accepted yet. To
    /// give the run away use [`hand_over`](Self::hand_over), which waits and stops this client.
    pub fn attachment(&self) -> Attachment {
        let state = self.inner.order.lock();
        Attachment {
            session_id: state.session_id.clone(),
            model_id: state.model_id.clone(),
            next_seq_id: state.next_seq_id,
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
    ///
    /// The batch is written request by request as it is sent. Given by value (a `Vec`) it is let go meanwhile; a slice is
    /// copied first.
    ///
    /// The result has for each datum, in order, tensors by name: `logprobs` (nats) and others of the loss, float32, each
    /// of the shape of its targets; and metrics of the whole batch, such as `loss:sum`. What losses read and give is in
    /// `docs/losses.md`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](super::ErrorKind::Config) for an empty batch, a datum that cannot be written (an input of a
    /// kind that the protocol has no place for, a malformed tensor), or a number beyond 2147483647, the last of a run.
    /// [`ErrorKind::Refused`](super::ErrorKind::Refused) with 400 or 422, or
    /// [`ErrorKind::Failed`](super::ErrorKind::Failed) of category `User`, for a loss that the server does not know, or
    /// data that the loss or the model cannot take. [`ErrorKind::Undecodable`](super::ErrorKind::Undecodable) if the
    /// metrics of several requests do not fit together.
    pub fn forward_backward(
        &self,
        data: impl Into<Vec<Datum>>,
        loss_fn: &str,
        loss_fn_config: &LossFnConfig,
    ) -> Pending<ForwardBackwardOutput> {
        self.pass("forward_backward", data.into(), loss_fn, loss_fn_config, false)
    }

    /// A forward pass without a gradient. Otherwise as [`forward_backward`](Self::forward_backward).
    pub fn forward(
        &self,
        data: impl Into<Vec<Datum>>,
        loss_fn: &str,
        loss_fn_config: &LossFnConfig,
    ) -> Pending<ForwardBackwardOutput> {
        self.pass("forward", data.into(), loss_fn, loss_fn_config, true)
    }

    /// One step of the optimizer over the gradients added up: [`AdamParams`](retinker_wire::training::AdamParams), or those
    /// of the optimizer that the run was made with. The result has metrics where the server measures any.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`](super::ErrorKind::Refused) with 422, or [`ErrorKind::Failed`](super::ErrorKind::Failed) of
    /// category `User`, for settings out of their range or of another optimizer.
    pub fn optim_step(&self, params: impl Into<OptimParams>) -> Pending<OptimStepResult> {
        self.one("optim_step", TrainingRequest::OptimStep(params.into()))
    }

    /// Saves weights and optimizer state under a name; the result has the checkpoint's `tinker://` path.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`](super::ErrorKind::Refused) with 409, or [`ErrorKind::Failed`](super::ErrorKind::Failed) of
    /// category `User`, for a name that is taken and not to be overwritten; with 400 or 422 for one that cannot be a
    /// name. After an attempt that broke off a 409 may tell of that one's own checkpoint: it is undecided, and poisons
    /// the client.
    pub fn save_state(&self, name: &str, options: SaveOptions) -> Pending<SaveWeightsResult> {
        let request = TrainingRequest::SaveState { name: name.to_owned(), options };
        let saved: Pending<SaveWeightsResult> = self.one("save_state", request);
        let order = self.inner.order.clone();
        saved.map(move |saved| {
            order.remember(&saved.path);
            saved
        })
    }

    /// Saves weights to sample from under a name; the result has the checkpoint's `tinker://` path.
    ///
    /// # Errors
    /// As of [`save_state`](Self::save_state); nothing is ever overwritten.
    pub fn save_weights_for_sampler(
        &self,
        name: &str,
        options: SaveForSamplerOptions,
    ) -> Pending<SaveWeightsForSamplerResult> {
        let (name, kind) = (Some(name.to_owned()), SamplerKind::Snapshot);
        self.one("save_weights_for_sampler", TrainingRequest::SaveForSampler { name, kind, options })
    }

    /// Saves weights under a name in the layout that `peft` loads; where their files can be had is told by
    /// [`get_external_weights_urls`](super::RestClient::get_external_weights_urls). The result has the checkpoint's
    /// `tinker://` path.
    ///
    /// # Errors
    /// As of [`save_state`](Self::save_state); with 404 or 405 where the server has no such weights, with 400 or 422 for
    /// recipients that are none.
    pub fn save_weights_external(
        &self,
        name: &str,
        options: SaveExternalOptions,
    ) -> Pending<SaveWeightsResult> {
        self.one("save_weights_external", TrainingRequest::SaveExternal { name: name.to_owned(), options })
    }

    /// Saves the weights as they are now for a sampler, and gives a client of it. There is no checkpoint to find again:
    /// the weights are gone with the session.
    ///
    /// # Errors
    /// Also what keeps the number of the new sampler from being known: that of a session which another process has opened
    /// is asked for first. It refuses the operation, and the client goes on.
    pub fn save_weights_and_get_sampling_client(&self) -> Pending<SamplingClient> {
        self.sampler(SamplerKind::Snapshot)
    }

    /// The same with weights that follow the run: every later call of this method gives them to the samplers made before,
    /// too. A sample may then be drawn from several versions of the weights.
    ///
    /// # Errors
    /// The same; [`ErrorKind::Refused`](super::ErrorKind::Refused) with 400 or 422 from servers that do not know such
    /// weights.
    pub fn save_weights_and_get_inflight_sampling_client(&self) -> Pending<SamplingClient> {
        self.sampler(SamplerKind::Inflight)
    }

    fn sampler(&self, kind: SamplerKind) -> Pending<SamplingClient> {
        let name = "save_weights_and_get_sampling_client";
        if self.session().is_none() {
            return Pending::failed(cancelled(self.describe(name), "the run was given away".to_owned()));
        }
        let options = SaveForSamplerOptions::default();
        let request = TrainingRequest::SaveForSampler { name: None, kind, options };
        let saved = self.enqueue(name, single(request), None, |sent: Sent, results| {
            Ok((sent, first::<SaveWeightsForSamplerResult>(name, results)?))
        });
        let (api, operation) = (self.inner.api.clone(), self.describe(name));
        saved.then(move |(sent, saved)| async move {
            if let Some(client) = sent.sampler {
                return Ok(client);
            }
            let session = sent.session;
            let session = session.ok_or_else(|| cancelled(operation, "the run was given away".to_owned()))?;
            // Servers that name no sampler use the only name there can be.
            let number = sent.accepted.first().and_then(|accepted| accepted.sampler).unwrap_or_default();
            let sampler_id = saved.sampling_session_id.unwrap_or_else(|| sampler_id_of(&session.id, number));
            Ok(SamplingClient::new(api, session, sampler_id).await)
        })
    }

    /// A sampler of weights that were saved for one, in the run's session.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`](super::ErrorKind::Cancelled) once the run was handed over; otherwise as of
    /// [`ServiceClient::create_sampling_client`](super::ServiceClient::create_sampling_client).
    pub async fn create_sampling_client(&self, model_path: &str) -> Result<SamplingClient, Error> {
        let Some(session) = self.session() else {
            return Err(cancelled(
                self.describe("create_sampling_client"),
                "the run was given away".to_owned(),
            ));
        };
        let source = SamplingSource::ModelPath(model_path.to_owned());
        let Inner { api, session: held, keeper, .. } = &*self.inner;
        match keeper {
            Some(run) => {
                SamplingClient::of_run(api, session, source, Arc::clone(held), Arc::clone(run)).await
            }
            None => SamplingClient::create(api, session, source).await,
        }
    }

    /// The run's page in the console of the hosted service.
    pub fn get_console_url(&self) -> String {
        console_url::of_training_run(&self.model_id())
    }

    /// The run's session, unless the run was given away.
    pub(crate) fn session(&self) -> Option<Arc<Session>> {
        session_of(&self.inner.session)
    }

    /// Loads a checkpoint's weights, with a cold optimizer. Many servers take this only as a run's first request. `path`
    /// is a training checkpoint's, `tinker://<run>/weights/<name>`.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`](super::ErrorKind::Refused) with 400 for a path of another form, or a run that was trained
    /// already; with 404 for a checkpoint that there is not, 403 or 404 for one of somebody else without leave, 425 while
    /// it is being saved. [`ErrorKind::Failed`](super::ErrorKind::Failed) for one that does not fit the run.
    pub fn load_state(&self, path: &str) -> Pending<LoadWeightsResult> {
        self.load("load_state", path, LoadOptions::default())
    }

    /// Loads a checkpoint's weights and optimizer state. Many servers take this only as a run's first request.
    ///
    /// # Errors
    /// As of [`load_state`](Self::load_state).
    pub fn load_state_with_optimizer(&self, path: &str) -> Pending<LoadWeightsResult> {
        self.load(
            "load_state_with_optimizer",
            path,
            LoadOptions { optimizer: true, ..LoadOptions::default() },
        )
    }

    /// The same with all that there is to say of it.
    ///
    /// # Errors
    /// As of [`load_state`](Self::load_state).
    pub fn load_state_with(&self, path: &str, options: LoadOptions) -> Pending<LoadWeightsResult> {
        self.load("load_state", path, options)
    }

    /// What the run is made of. Has no place in the order.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`](super::ErrorKind::Refused) with 404 if the server does not know the run.
    pub async fn get_info(&self) -> Result<GetInfoResponse, Error> {
        self.inner.api.get_info(&self.model_id()).await
    }

    /// The tokenizer of the run's model, from such a source as `retinker::native::HubTokenizers` (feature `tokenizers`).
    ///
    /// # Errors
    /// Those of [`get_info`](Self::get_info) and of [`TokenizerSource::load`].
    pub async fn get_tokenizer(&self, source: &dyn TokenizerSource) -> Result<Arc<dyn Tokenizer>, Error> {
        let info = self.get_info().await?;
        let model = info.model_data.model_name.or(info.model_name).unwrap_or_default();
        source.load(TokenizerId::of_model(&model, info.model_data.tokenizer_id.as_deref())).await
    }

    /// Gives the run away: waits until every operation called so far was accepted, stops the heartbeat, and
    /// resolves to what somebody else needs to go on. This client, and its clones, take no operation afterwards.
    ///
    /// # Errors
    /// [`ErrorKind::Poisoned`](super::ErrorKind::Poisoned) if the order is lost: there is nothing to go on with.
    /// [`ErrorKind::Cancelled`](super::ErrorKind::Cancelled) if the runtime has ended.
    pub async fn hand_over(&self) -> Result<Attachment, Error> {
        let operation = self.describe("hand_over");
        self.inner.order.lock().closed = true;
        let (done, passed) = oneshot::channel();
        if self.inner.jobs.unbounded_send(Job::Barrier(done)).is_err() || passed.await.is_err() {
            return Err(cancelled(operation, "the runtime it was running in has ended.".to_owned()));
        }
        if let Some(error) = self.inner.order.lock().refuses(&operation) {
            return Err(error);
        }
        self.inner.session.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(self.attachment())
    }

    #[cfg(test)]
    pub(crate) async fn test_sleep(&self, duration: std::time::Duration) {
        self.inner.api.runtime().sleep(duration).await;
    }

    fn load(&self, name: &str, path: &str, options: LoadOptions) -> Pending<LoadWeightsResult> {
        let request = TrainingRequest::Load { path: path.to_owned(), options };
        let loaded: Pending<LoadWeightsResult> = self.one(name, request);
        let (order, path) = (self.inner.order.clone(), path.to_owned());
        loaded.map(move |loaded| {
            order.remember(&path);
            loaded
        })
    }

    /// Notes where the run could be restored from.
    pub(crate) fn remember(&self, checkpoint: &str) {
        self.inner.order.remember(checkpoint);
    }

    /// A forward and backward pass under a loss of the program's own, which is given each datum's log-probabilities of its
    /// targets (nats, float32, of the targets' shape), and says how the loss changes with them. Only `target_tokens` and
    /// `weights` of the data are sent.
    ///
    /// The server does a forward pass, then, when the loss is computed, a backward pass. Operations called after this one
    /// are sent after both; if the loss fails or panics they are not sent at all, and say so. The loss is computed where the client's
    /// tasks run: one that takes long should be moved elsewhere by the program.
    ///
    /// The result's `loss:sum` is the program's, `surrogate_loss:sum` the server's.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](super::ErrorKind::Config) if a datum has no `target_tokens`, if the loss fails or panics, if
    /// its gradients are not one for each log-probability, or not finite, or if the server's results are not those of the
    /// data; but for the first of these the forward pass was made then, and keeps its number. Otherwise as of
    /// [`forward_backward`](Self::forward_backward), of either pass. The gradient is as it was unless the backward pass
    /// was sent.
    pub fn forward_backward_custom<E: fmt::Display>(
        &self,
        data: Vec<Datum>,
        loss_fn: impl FnOnce(&[Datum], &[TensorData]) -> Result<CustomLoss, E> + Send + 'static,
    ) -> Pending<ForwardBackwardOutput> {
        let operation = self.describe("forward_backward_custom");
        let pass = {
            let operation = operation.clone();
            move |data: Vec<Datum>, forward_only: bool| {
                let (loss_fn, config) = (custom::SURROGATE.to_owned(), LossFnConfig::new());
                Pass { operation, data, loss_fn, config, forward_only }.checked()
            }
        };
        let forward = custom::forward_data(&data).map_err(|e| Error::config(&operation, e));
        let forward = match forward.and_then(|data| pass.clone()(data, true)) {
            Ok(forward) => forward,
            Err(error) => return Pending::failed(error),
        };
        let computed = Arc::new(Mutex::new(None));
        let (name, result) = (operation.clone(), computed.clone());
        let then: Then = Box::new(move |outputs, bounds| {
            let fail = |reason: String| Error::config(&name, reason);
            let logprobs = custom::logprobs(&data, merge(&name, outputs)?).map_err(fail)?;
            let CustomLoss { loss, gradients, metrics } =
                custom::loss(loss_fn, &data, &logprobs).map_err(fail)?;
            let data = custom::backward_data(&data, &logprobs, gradients).map_err(fail)?;
            *result.lock().unwrap_or_else(PoisonError::into_inner) = Some((loss, metrics));
            Ok(pass(data, false)?.cut(bounds))
        });
        let cut: Cut = Box::new(move |bounds| forward.cut(bounds));
        self.enqueue("forward_backward_custom", cut, Some(then), move |_, outputs| {
            let (loss, metrics) =
                computed.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
            Ok(custom::report(merge(&operation, outputs)?, loss, metrics))
        })
    }

    fn pass(
        &self,
        name: &str,
        data: Vec<Datum>,
        loss_fn: &str,
        config: &LossFnConfig,
        forward_only: bool,
    ) -> Pending<ForwardBackwardOutput> {
        let operation = self.describe(name);
        let pass = Pass {
            operation: operation.clone(),
            data,
            loss_fn: loss_fn.to_owned(),
            config: config.clone(),
            forward_only,
        };
        let pass = match pass.checked() {
            Ok(pass) => pass,
            Err(error) => return Pending::failed(error),
        };
        let cut: Cut = Box::new(move |bounds| pass.cut(bounds));
        self.enqueue(name, cut, None, move |_, outputs| merge(&operation, outputs))
    }

    fn one<T: FutureResult>(&self, name: &str, request: TrainingRequest) -> Pending<T> {
        let operation = self.describe(name);
        self.enqueue(name, single(request), None, move |_, results| first(&operation, results))
    }

    fn describe(&self, name: &str) -> String {
        format!("{name} of run {}", self.model_id())
    }

    /// Gives an operation its place in the order. What comes back waits for its result.
    fn enqueue<T: FutureResult, U: Send + 'static>(
        &self,
        name: &str,
        cut: Cut,
        then: Option<Then>,
        finish: impl FnOnce(Sent, Vec<(T, usize)>) -> Result<U, Error> + Send + 'static,
    ) -> Pending<U> {
        let operation = self.describe(name);
        let watch = Arc::new(Watch::default());
        let span =
            tracing::info_span!("training", otel.name = name, operation = name, model_id = self.model_id());
        let (done, submitted) = oneshot::channel();
        {
            // The place in the queue is taken under the lock, so that it agrees with the epoch.
            let state = self.inner.order.lock();
            if let Some(error) = state.refuses(&operation) {
                return Pending::failed(error);
            }
            if state.closed {
                return Pending::failed(cancelled(operation, "the run was handed over.".to_owned()));
            }
            if let Some(refusal) = &state.undelivered {
                return Pending::failed(after_refusal(operation, refusal));
            }
            let (name, watch) = (operation.clone(), watch.clone());
            let span = span.clone();
            let job = Operation { name, epoch: state.epoch, cut, then, watch, span, done };
            if self.inner.jobs.unbounded_send(Job::Operation(job)).is_err() {
                return Pending::failed(cancelled(
                    operation,
                    "the runtime it was running in has ended.".to_owned(),
                ));
            }
        }
        let (api, held) = (self.inner.api.clone(), watch.clone());
        let noting = api.clone();
        let waiting = async move {
            let submitted = match submitted.await {
                Ok(submitted) => submitted,
                Err(_) => {
                    return Err(cancelled(operation, "the runtime it was running in has ended.".to_owned()));
                }
            };
            let sent = submitted.result?;
            let results = results(&api, &sent.accepted, &operation, &held).await?;
            finish(sent, results)
        };
        let noted = async move { noting.noted(waiting.await) };
        Pending::new(watch, Box::pin(noted.instrument(span)))
    }
}

/// An operation of this one request.
fn single(request: TrainingRequest) -> Cut {
    let makes_a_sampler = matches!(request, TrainingRequest::SaveForSampler { name: None, .. });
    Box::new(move |_| {
        vec![Part {
            write: Box::new(|| Ok(request)),
            bytes: 0,
            datums: 0,
            tokens: 0,
            makes_a_sampler,
            of_session: None,
        }]
    })
}

/// Its result.
fn first<T>(operation: &str, results: Vec<(T, usize)>) -> Result<T, Error> {
    let nothing = || cancelled(operation.to_owned(), "it came to no request.".to_owned());
    results.into_iter().next().map(|(result, _)| result).ok_or_else(nothing)
}
