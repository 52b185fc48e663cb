//! Sampling from a base model or from saved weights.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_core::Stream;
use futures_core::future::BoxFuture;
use futures_util::future::{Either, select};
use retinker_wire::sampler::{CreateSamplingSessionRequest, GetSamplerResponse};
use retinker_wire::sampling::{
    AsampleRequest, CLONE_BLOCK, SampleFuture, SampleResponse, SamplingParams, TargetTokens, sample_type,
};
use retinker_wire::training::ModelInput;
use serde::Deserialize;
use tracing::Instrument;

use super::api::{Api, asample_call};
use super::error::{Error, ErrorKind};
use super::handle::Handle;
use super::pending::{PendingEvent, Watch, wait_sized};
use super::poller::Poller;
use super::retry::{JITTER, jittered};
use super::session::{Session, Settings};
use super::tokenizer::{Tokenizer, TokenizerId, TokenizerSource};
use super::training::{Held, session_of};
use super::witness::{Note, NoteOf};

/// What a sampling client samples from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SamplingSource {
    /// A base model, by its name.
    BaseModel(String),
    /// A checkpoint for samplers, by its `tinker://` path.
    ModelPath(String),
    /// A checkpoint on another base model than its own that it fits.
    ModelPathOn {
        /// The checkpoint's path.
        model_path: String,
        /// The base model's name.
        base_model: String,
    },
}

/// What holds for all samples of a client.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SamplingOptions {
    /// Have the service record what training by the loss `stable_reinforce` needs of each sample; servers that do not know it
    /// refuse the samples.
    pub record_stability_info: bool,
    /// When a sample is tried again.
    pub retry: SampleRetry,
}

/// When a sample is tried again, as a new request; the defaults are the official SDK's. A server that asks clients not to try
/// again, or not to count as stuck, comes first. How many samples are under way at once is the server's to say.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleRetry {
    /// Whether at all; yes.
    pub enabled: bool,
    /// How long the samples of a client may go without any success before they count as stuck, and fail; two hours. `None` =
    /// for ever.
    pub progress_timeout: Option<Duration>,
    /// The first delay, which doubles each time; 0.5 s.
    pub first_delay: Duration,
    /// The longest delay; 10 s.
    pub max_delay: Duration,
    /// Up to which part of it a delay is shorter by chance; 0.25.
    pub jitter: f64,
}

impl Default for SampleRetry {
    fn default() -> Self {
        Self {
            enabled: true,
            progress_timeout: Some(Duration::from_secs(7200)),
            first_delay: Duration::from_millis(500),
            max_delay: Duration::from_secs(10),
            jitter: JITTER,
        }
    }
}

/// What is asked of a sample beside its prompt.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct SampleOptions {
    /// How many samples, each drawn by itself; 1, and at least 1.
    pub num_samples: u32,
    /// How tokens are chosen, and what ends a sample.
    pub sampling_params: SamplingParams,
    /// Score the prompt's tokens: one log-probability each, in nats; `false`.
    pub include_prompt_logprobs: bool,
    /// So many of the most probable tokens at each prompt position; 0.
    pub topk_prompt_logprobs: u32,
    /// So many of the most probable tokens at each sampled position; 0.
    pub topk_sample_logprobs: u32,
    /// Score these tokens at the prompt's positions after the first: int64, `[length of the prompt - 1, K]`; `None`.
    pub target_prompt_logprobs: Option<TargetTokens>,
    /// Draw so many tokens at each prompt position after the first; 0.
    pub prompt_alt_tokens_k: u32,
    /// Score only so many of the prompt's last tokens, at least 1; needs `include_prompt_logprobs`. `None` = all.
    pub prompt_logprobs_last_n: Option<u32>,
}

impl Default for SampleOptions {
    fn default() -> Self {
        Self {
            num_samples: 1,
            sampling_params: SamplingParams::default(),
            include_prompt_logprobs: false,
            topk_prompt_logprobs: 0,
            topk_sample_logprobs: 0,
            target_prompt_logprobs: None,
            prompt_alt_tokens_k: 0,
            prompt_logprobs_last_n: None,
        }
    }
}

/// Samples. Cheap to clone; clones share their order of numbers and their budgets.
///
/// A sample is tried again, as a new request, while the service cannot be reached, is overloaded or has lost the
/// result; what it refuses or fails for certain is an error at once. Nothing is sent before the future is polled.
/// Dropping it tells the server that nobody waits any more, where the server wants to hear of that.
///
/// # What a sample can give
///
/// [What every call can give](Error#what-every-call-can-give) and what a [`Pending`](super::Pending) can are given for
/// what is certain. What may pass (no connection, no answer, 408, 409, 429, 5xx, a result that is lost) is tried again,
/// without an end but that of [`SampleRetry::progress_timeout`]; where retries are off, by [`SampleRetry::enabled`] or
/// because the server asks for it, it is given too, but for a 429 to the submission, which only slows down.
#[derive(Clone)]
pub struct SamplingClient {
    slot: Arc<Slot>,
    options: Arc<SamplingOptions>,
}

/// Where a client's sampler is. A recovering run puts another in its place when it has lost the first.
pub(crate) struct Slot {
    now: Mutex<Arc<Inner>>,
    keeper: Option<Arc<dyn Keeper>>,
}

/// Who has samplers made anew that were lost with their run.
pub(crate) trait Keeper: Send + Sync {
    /// Resolves when it is known what the error means: to whether there may be another sampler now.
    fn failed(&self, error: &Error) -> BoxFuture<'static, bool>;
}

impl Slot {
    fn now(&self) -> Arc<Inner> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Samples from another sampler from now on.
    pub(crate) async fn replace(&self, api: Api, session: Arc<Session>, sampler_id: String) {
        let inner = Inner::new(api, session, sampler_id, 0).await;
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(inner);
    }
}

/// Makes a sampler in a session; gives its id.
async fn make(api: &Api, session: &Session, source: SamplingSource) -> Result<String, Error> {
    let (base_model, model_path) = match source {
        SamplingSource::BaseModel(name) => (Some(name), None),
        SamplingSource::ModelPath(path) => (None, Some(path)),
        SamplingSource::ModelPathOn { model_path, base_model } => (Some(base_model), Some(model_path)),
    };
    let request = CreateSamplingSessionRequest {
        session_id: session.id.clone(),
        sampling_session_seq_id: session.next_sampler(api).await?,
        base_model,
        model_path,
    };
    Ok(api.create_sampling_session(&request).await?.sampling_session_id)
}

/// Makes a sampler of a checkpoint anew in the session that its run is in by now.
struct OfRun {
    api: Api,
    held: Held,
    source: SamplingSource,
    /// Makes the run anew, if it is lost.
    run: Arc<dyn Keeper>,
    slot: Weak<Slot>,
    /// Held by whoever makes the sampler: all who sample from it at once make one.
    turn: Arc<futures_util::lock::Mutex<()>>,
}

impl Keeper for OfRun {
    fn failed(&self, error: &Error) -> BoxFuture<'static, bool> {
        let known = self.run.failed(error);
        let (api, held, source) = (self.api.clone(), self.held.clone(), self.source.clone());
        let (slot, turn) = (self.slot.clone(), Arc::clone(&self.turn));
        Box::pin(async move {
            if !known.await {
                return false;
            }
            let _turn = turn.lock().await;
            let (Some(session), Some(slot)) = (session_of(&held), slot.upgrade()) else { return false };
            if slot.now().session.id != session.id {
                let Ok(sampler_id) = make(&api, &session, source).await else { return false };
                slot.replace(api, session, sampler_id).await;
            }
            true
        })
    }
}

pub(crate) struct Inner {
    api: Api,
    session: Arc<Session>,
    settings: Arc<Settings>,
    sampler_id: String,
    next_seq_id: AtomicU64,
    /// What waits for the samples, if not each for itself.
    poller: Option<Poller>,
    /// How the service stands to the samples.
    watch: Watch,
    /// When a sample of this client last succeeded.
    progress: Mutex<Duration>,
}

impl fmt::Debug for SamplingClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SamplingClient").field("sampler_id", &self.sampler_id()).finish_non_exhaustive()
    }
}

impl SamplingClient {
    /// The first client of a sampling session.
    pub(crate) async fn new(api: Api, session: Arc<Session>, sampler_id: String) -> Self {
        Self::numbered(api, session, sampler_id, 0, None).await
    }

    /// The same; when the sampler is lost, this one is asked for another.
    pub(crate) async fn kept(
        api: Api,
        session: Arc<Session>,
        sampler_id: String,
        keeper: Arc<dyn Keeper>,
    ) -> Self {
        Self::numbered(api, session, sampler_id, 0, Some(keeper)).await
    }

    /// Where its sampler is, to put another there as long as anybody samples.
    pub(crate) fn slot(&self) -> Weak<Slot> {
        Arc::downgrade(&self.slot)
    }

    fn now(&self) -> Arc<Inner> {
        self.slot.now()
    }

    /// Makes a sampler in a session, and a client of it.
    pub(crate) async fn create(
        api: &Api,
        session: Arc<Session>,
        source: SamplingSource,
    ) -> Result<Self, Error> {
        let sampler_id = make(api, &session, source).await?;
        Ok(Self::new(api.clone(), session, sampler_id).await)
    }

    /// The same of a checkpoint, in the session of a run that recovers: when that is another, so is the sampler.
    pub(crate) async fn of_run(
        api: &Api,
        session: Arc<Session>,
        source: SamplingSource,
        held: Held,
        run: Arc<dyn Keeper>,
    ) -> Result<Self, Error> {
        let sampler_id = make(api, &session, source.clone()).await?;
        let now = Mutex::new(Arc::new(Inner::new(api.clone(), session, sampler_id, 0).await));
        let slot = Arc::new_cyclic(|slot| {
            let (api, slot, turn) = (api.clone(), Weak::clone(slot), Arc::default());
            Slot { now, keeper: Some(Arc::new(OfRun { api, held, source, run, slot, turn })) }
        });
        Ok(Self { slot, options: Arc::default() })
    }

    /// A client that numbers its requests in this block.
    async fn numbered(
        api: Api,
        session: Arc<Session>,
        sampler_id: String,
        block: u64,
        keeper: Option<Arc<dyn Keeper>>,
    ) -> Self {
        let now = Mutex::new(Arc::new(Inner::new(api, session, sampler_id, block).await));
        Self { slot: Arc::new(Slot { now, keeper }), options: Arc::default() }
    }

    /// The same client with other options: it shares its numbers and budgets with this one.
    #[must_use]
    pub fn with_options(self, options: SamplingOptions) -> Self {
        Self { options: Arc::new(options), ..self }
    }

    /// Another client of a sampling session that exists, perhaps made by another program. It is kept alive by whoever
    /// has its session, and by this client from now on. Numbers its requests in a block of its own.
    ///
    /// `session_id` is the session that the sampler belongs to.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a sampler that the server does not know.
    pub async fn join(api: Api, session_id: &str, sampler_id: &str) -> Result<Self, Error> {
        let session = Arc::new(Session::adopted(&api, session_id.to_owned()));
        // As the official SDK does where servers do not number their clients.
        let by_chance = api.runtime().random() % CLONE_BLOCK + 1;
        let block = if session.settings(&api).await.config.sample_join_sampling_session {
            match api.join_sampling_session(sampler_id).await {
                Ok(joined) => joined.client_counter,
                Err(error) if error.is_unsupported() => by_chance,
                Err(error) => return Err(error),
            }
        } else {
            by_chance
        };
        Ok(Self::numbered(api, session, sampler_id.to_owned(), block, None).await)
    }

    /// Another client of a sampler, from a handle of [`get_sampler_handle`](Self::get_sampler_handle), or of the official
    /// SDK. It has credentials of its own: `api`'s.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a text that is no handle; otherwise as of [`join`](Self::join).
    pub async fn from_sampler_handle(api: Api, handle: &str) -> Result<Self, Error> {
        let Handle { session_id, sampling_session_id, record_stability_info } = Handle::decode(handle)?;
        let options = SamplingOptions { record_stability_info, ..SamplingOptions::default() };
        Ok(Self::join(api, &session_id, &sampling_session_id).await?.with_options(options))
    }

    /// The sampler as a text, for other programs. It holds no credentials. The sampler lives as long as its session.
    pub fn get_sampler_handle(&self) -> String {
        let now = self.now();
        let (session_id, sampling_session_id) = (now.session.id.clone(), now.sampler_id.clone());
        let record_stability_info = self.options.record_stability_info;
        Handle { session_id, sampling_session_id, record_stability_info }.encode()
    }

    /// How the service stands to this client's samples, from now on: each change once, e.g. that work is paused for want of
    /// capacity, and that it goes on. The stream ends with the client.
    pub fn events(&self) -> impl Stream<Item = PendingEvent> + Send + 'static + use<> {
        self.now().watch.events()
    }

    /// The sampling session. Of a recovering run's sampler it is another after a recovery.
    pub fn sampler_id(&self) -> String {
        self.now().sampler_id.clone()
    }

    /// The session that the sampler belongs to.
    pub fn session_id(&self) -> String {
        self.now().session.id.clone()
    }

    /// What the server knows of the sampler: its base model, and the checkpoint that it was made from.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 if the server does not know the sampler.
    pub async fn get_sampler(&self) -> Result<GetSamplerResponse, Error> {
        let now = self.now();
        now.api.get_sampler(&now.sampler_id).await
    }

    /// The name of the base model.
    ///
    /// # Errors
    /// As of [`get_sampler`](Self::get_sampler).
    pub async fn get_base_model(&self) -> Result<String, Error> {
        Ok(self.get_sampler().await?.base_model)
    }

    /// The tokenizer of the base model, from such a source as `retinker::native::HubTokenizers` (feature `tokenizers`).
    ///
    /// # Errors
    /// Those of [`get_sampler`](Self::get_sampler) and of [`TokenizerSource::load`].
    pub async fn get_tokenizer(&self, source: &dyn TokenizerSource) -> Result<Arc<dyn Tokenizer>, Error> {
        source.load(TokenizerId::of_model(&self.get_base_model().await?, None)).await
    }

    /// Draws samples that go on from a prompt: `options.num_samples` sequences of tokens, each with one log-probability
    /// (nats) for each of its tokens. The prompt is not repeated in them.
    ///
    /// # Errors
    /// - [`ErrorKind::Config`] for options that contradict each other: no samples, `target_prompt_logprobs` that are not
    ///   int64 or not of two dimensions, `prompt_logprobs_last_n` of 0 or without `include_prompt_logprobs`.
    /// - [`ErrorKind::Refused`] with 400 or 422 for a prompt or settings that the server does not take, 404 if it does
    ///   not know the sampler.
    /// - [`ErrorKind::Failed`] where the service could not sample, e.g. of category `User` for a prompt beyond the
    ///   model's context.
    /// - [`ErrorKind::Undecodable`] for a result without what was asked for: servers ignore options that they do not know.
    /// - [`ErrorKind::TimedOut`] if no sample of this client has succeeded for [`SampleRetry::progress_timeout`], two
    ///   hours.
    pub async fn sample(
        &self,
        prompt: &ModelInput,
        options: &SampleOptions,
    ) -> Result<SampleResponse, Error> {
        let now = self.now();
        let span = tracing::info_span!("sample", sampler_id = now.sampler_id);
        now.api.noted(self.drawn(&now.api, prompt, options).instrument(span).await)
    }

    /// The log-probability of each of the prompt's tokens under the model; `None` for the first, which nothing precedes,
    /// and for those before the `last_n` asked for. As many as the prompt has tokens; in nats.
    ///
    /// # Errors
    /// As of [`sample`](Self::sample); [`ErrorKind::Config`] for a `last_n` of 0.
    pub async fn compute_logprobs(
        &self,
        prompt: &ModelInput,
        last_n: Option<u32>,
    ) -> Result<Vec<Option<f32>>, Error> {
        let options = SampleOptions {
            sampling_params: SamplingParams { max_tokens: Some(1), ..SamplingParams::default() },
            include_prompt_logprobs: true,
            prompt_logprobs_last_n: last_n,
            ..SampleOptions::default()
        };
        let scores = self.sample(prompt, &options).await?.prompt_logprobs.unwrap_or_default();
        Ok(scores.into_iter().map(|score| (!score.is_nan()).then_some(score)).collect())
    }

    /// Submissions, until one has a result.
    async fn drawn(
        &self,
        api: &Api,
        prompt: &ModelInput,
        options: &SampleOptions,
    ) -> Result<SampleResponse, Error> {
        let SampleRetry { enabled, progress_timeout, first_delay, max_delay, jitter } = &self.options.retry;
        let first = self.now();
        let (operation, config) = (format!("sample of sampler {}", first.sampler_id), &first.settings.config);
        check(&operation, options)?;
        // Boxed at once: there may be thousands, and what is moved later keeps its room in this future as well.
        let retried = Box::pin(async {
            let (mut failures, begun) = (0, api.runtime().monotonic());
            loop {
                let inner = self.now();
                let request =
                    |seq_id| inner.request(seq_id, prompt, options, self.options.record_stability_info);
                let error = match inner.attempt(&operation, request, options).await {
                    Ok(response) => return Ok(response),
                    Err(error) => error,
                };
                if let Some(keeper) = &self.slot.keeper
                    && keeper.failed(&error).await
                    && !Arc::ptr_eq(&inner, &self.now())
                {
                    continue;
                }
                let again = *enabled && !config.sample_no_retries && is_worth_another(&error);
                let elapsed = api.runtime().monotonic().saturating_sub(begun);
                let tries = failures + 1;
                api.caller().note(Note { of: NoteOf::Sample, error: &error, again, tries, elapsed });
                if !again {
                    return Err(error);
                }
                let delay = jittered(*first_delay, *max_delay, *jitter, failures, api.runtime().random());
                tracing::debug!(%error, ?delay, "sampling again");
                failures += 1;
                api.runtime().sleep(delay).await;
            }
        });
        let Some(timeout) = progress_timeout.filter(|_| config.sample_enable_stuck_detection) else {
            return retried.await;
        };
        match select(retried, Box::pin(self.stuck(api, timeout))).await {
            Either::Left((result, _)) => result,
            Either::Right(_) => Err(Error::new(&operation, ErrorKind::TimedOut { after: timeout })),
        }
    }

    /// Resolves when no sample of this client has succeeded for too long, counted from now at the earliest.
    async fn stuck(&self, api: &Api, timeout: Duration) {
        let runtime = api.runtime();
        let begin = runtime.monotonic();
        loop {
            let progress = *self.now().progress.lock().unwrap_or_else(PoisonError::into_inner);
            let end = progress.max(begin) + timeout;
            match end.checked_sub(runtime.monotonic()).filter(|left| !left.is_zero()) {
                Some(left) => runtime.sleep(left).await,
                None => return,
            }
        }
    }
}

impl Inner {
    /// A sampler whose requests are numbered in this block.
    async fn new(api: Api, session: Arc<Session>, sampler_id: String, block: u64) -> Self {
        let progress = Mutex::new(api.runtime().monotonic());
        let next_seq_id = AtomicU64::new(block.saturating_mul(CLONE_BLOCK));
        let settings = session.settings(&api).await;
        let together = settings.config.sample_use_retrieve_futures;
        let poller = together.then(|| Poller::start(api.clone(), sampler_id.clone(), block));
        let watch = Watch::default();
        Self { api, session, settings, sampler_id, next_seq_id, poller, watch, progress }
    }

    /// One submission and its result.
    async fn attempt<'a>(
        &self,
        operation: &str,
        request: impl Fn(u64) -> AsampleRequest<&'a ModelInput>,
        options: &SampleOptions,
    ) -> Result<SampleResponse, Error> {
        let runtime = &**self.api.runtime();
        // Those that are waited for together are no burden while they wait.
        let _under_way = match &self.poller {
            None => Some(self.settings.dispatch.under_way().await),
            Some(_) => None,
        };
        let request = request(self.next_seq_id.fetch_add(1, Ordering::Relaxed));
        let bytes = i64::try_from(request.prompt.estimated_sample_bytes()).unwrap_or(i64::MAX);
        let call = asample_call(&request)?;
        let submission = self.poller.as_ref().map(Poller::submitting);
        let accepted: SampleFuture = {
            let _admission = self.settings.dispatch.admit(runtime, bytes).await;
            loop {
                match self.api.json(|| Ok(call.clone())).await {
                    Ok(accepted) => break accepted,
                    Err(error) if error.status() == Some(429) => {
                        self.settings.dispatch.too_much(runtime, bytes);
                        self.settings.dispatch.pause(runtime).await;
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        let mut awaited = Awaited { session: &self.session, request_id: Some(accepted.request_id) };
        let request_id = awaited.request_id.clone().unwrap_or_default();
        let (size, _reading) = match self.poller.as_ref().zip(submission) {
            Some((poller, submission)) => {
                let size = poller.wait_for(submission, &request_id).await?;
                (size, Some(self.settings.dispatch.reading().await))
            }
            None => (None, None),
        };
        let result = wait_sized::<SampleResponse>(&self.api, &request_id, operation, &self.watch, size).await;
        awaited.request_id = None;
        if let Some(poller) = &self.poller
            && result.as_ref().err().is_none_or(|error| matches!(error.kind(), ErrorKind::Failed { .. }))
        {
            poller.mark_retrieved(request_id);
        }
        self.watch.goes_on();
        let mut response = result?;
        complete(operation, &mut response, accepted.sample_sequence_ids, options)?;
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = runtime.monotonic();
        Ok(response)
    }

    fn request<'a>(
        &self,
        seq_id: u64,
        prompt: &'a ModelInput,
        options: &SampleOptions,
        record_stability_info: bool,
    ) -> AsampleRequest<&'a ModelInput> {
        AsampleRequest {
            num_samples: options.num_samples.into(),
            prompt,
            sampling_params: options.sampling_params.clone(),
            base_model: None,
            model_path: None,
            sampling_session_id: Some(self.sampler_id.clone()),
            seq_id: Some(seq_id),
            prompt_logprobs: Some(options.include_prompt_logprobs),
            topk_prompt_logprobs: options.topk_prompt_logprobs.into(),
            topk_sample_logprobs: options.topk_sample_logprobs.into(),
            target_prompt_logprobs: options.target_prompt_logprobs.clone(),
            prompt_alt_tokens_k: options.prompt_alt_tokens_k.into(),
            prompt_logprobs_last_n: options.prompt_logprobs_last_n.map(Into::into),
            record_stability_info: record_stability_info.then_some(true),
            kind: sample_type(),
        }
    }
}

/// A result that is waited for; dropped before it is there, it is abandoned.
struct Awaited<'a> {
    session: &'a Session,
    request_id: Option<String>,
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        if let Some(request_id) = self.request_id.take() {
            self.session.abandon(request_id);
        }
    }
}

/// Refuses what the server would refuse, before it is sent again and again.
fn check(operation: &str, options: &SampleOptions) -> Result<(), Error> {
    let fail = |message: &str| Err(Error::config(operation, message));
    if options.num_samples == 0 {
        return fail("num_samples must be at least 1");
    }
    if options.target_prompt_logprobs.as_ref().is_some_and(|target| target.dtype != "int64") {
        return fail("target_prompt_logprobs must be int64");
    }
    if let Some(target) = &options.target_prompt_logprobs
        && !matches!(target.shape.as_deref(), Some([_, _]))
    {
        return fail("target_prompt_logprobs must have two dimensions: the prompt's length - 1, and K");
    }
    match options.prompt_logprobs_last_n {
        Some(0) => fail("prompt_logprobs_last_n must be at least 1"),
        Some(_) if !options.include_prompt_logprobs => {
            fail("prompt_logprobs_last_n is about prompt logprobs: set include_prompt_logprobs too")
        }
        _ => Ok(()),
    }
}

/// Whether a new submission may succeed.
fn is_worth_another(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::NeverSent { .. }
        | ErrorKind::MayHaveBeenSent { .. }
        | ErrorKind::TimedOut { .. }
        | ErrorKind::Expired { .. } => true,
        ErrorKind::Refused { status, .. } => matches!(status, 408 | 409 | 429 | 500..),
        _ => false,
    }
}

/// Names the samples, and refuses a result that lacks what was asked for: servers ignore options that they do not know.
fn complete(
    operation: &str,
    response: &mut SampleResponse,
    names: Vec<String>,
    options: &SampleOptions,
) -> Result<(), Error> {
    let lacks = |what: String| Err(Error::unreadable(operation, "the result", what));
    if options.prompt_alt_tokens_k > 0 && response.prompt_alt_tokens.is_none() {
        return lacks(
            "it has no prompt_alt_tokens, which were asked for; the server may not know them".into(),
        );
    }
    if let (Some(n), Some(scores)) = (options.prompt_logprobs_last_n, &response.prompt_logprobs) {
        let before = scores.len().saturating_sub(n as usize);
        if scores.iter().take(before).any(|score| !score.is_nan()) {
            return lacks(format!(
                "it scores tokens before the last {n}; the server may not know prompt_logprobs_last_n"
            ));
        }
    }
    // Servers older than the names give none.
    if !names.is_empty() && names.len() != response.sequences.len() {
        return lacks(format!("{} samples were announced, {} came", names.len(), response.sequences.len()));
    }
    for (sequence, name) in response.sequences.iter_mut().zip(names) {
        sequence.sequence_id = Some(name);
    }
    Ok(())
}
