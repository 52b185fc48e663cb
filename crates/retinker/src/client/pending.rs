//! A result that is not there yet.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_channel::mpsc;
use futures_core::Stream;
use futures_core::future::BoxFuture;
use retinker_wire::future::{
    PROTOBUF, QueueState, RequestErrorCategory, RequestFailed, RequestType, RetrieveFutureRequest, TryAgain,
};
use retinker_wire::sampling::SampleResponse;
use retinker_wire::training::{CreateCustomLossResult, ForwardBackwardOutput, OptimStepResult};
use retinker_wire::{model, weights};

use super::api::Api;
use super::call::{Call, RETRIEVE_TIMEOUT};
use super::error::{Error, ErrorKind, snippet_of};
use super::retry::Decision;
use super::waiting::{Reply, WaitState};
use super::witness::{Note, NoteOf};
use crate::json;

/// The result of a submitted request: awaited, watched, or taken up again by its id.
///
/// Nothing is asked of the server until it is polled. Dropping it only stops the waiting: the request has its
/// place in the run's order, and the server goes on with it.
///
/// # Errors
///
/// Awaited, it gives, beside what [every call can give](Error#what-every-call-can-give),
/// - [`ErrorKind::Failed`]: the request was accepted and then failed. Its category says whose fault that was: of `User`
///   what was asked cannot be done, now or later; of `Server` the service failed; with `Unknown` the server does not say.
/// - [`ErrorKind::Expired`]: the server no longer has the result (410). The request may have taken effect.
/// - [`ErrorKind::Refused`] with 404 for an id that the server does not know, or with 400 four times in a row, which is
///   how some servers say that the request failed.
///
/// The time of a [`RetryPolicy`](super::retry::RetryPolicy) does not count here: a service that gives no sensible answer is
/// asked for half an hour, each time for 45 s, and one where billing is blocked for an hour
/// ([`WaitPolicy`](super::waiting::WaitPolicy)). What is given up so goes on: it can be taken up again by its
/// [`request_id`](Self::request_id).
///
/// What a [`TrainingClient`](super::TrainingClient) returns also gives what kept it from being submitted.
#[must_use = "a pending result does nothing until it is awaited"]
pub struct Pending<T> {
    result: BoxFuture<'static, Result<T, Error>>,
    watch: Arc<Watch>,
}

/// What happens to a request while it waits.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PendingEvent {
    /// The server accepted the request under this id.
    Accepted {
        /// The id that [`Api::retrieve_future`] takes.
        request_id: String,
    },
    /// The server is not done.
    Queued {
        /// Why, where the server says.
        state: Option<QueueState>,
        /// The same for people, where the server says.
        reason: Option<String>,
    },
    /// The run was lost and is being made anew by its [redo log](crate::redo); the result comes afterwards.
    Recovering {
        /// The run that was lost.
        run_id: String,
    },
}

/// Between two warnings of the same pause; as in the official SDK.
const WARNINGS: Duration = Duration::from_secs(60);

/// What is known of a pending request outside the future that waits for it.
#[derive(Default)]
pub(crate) struct Watch {
    state: Mutex<WatchState>,
}

#[derive(Default)]
struct WatchState {
    request_ids: Vec<String>,
    last: Option<PendingEvent>,
    /// When somebody was last warned of a pause.
    warned: Option<Duration>,
    listeners: Vec<mpsc::UnboundedSender<PendingEvent>>,
}

impl Watch {
    pub(crate) fn accepted(&self, request_id: String) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.request_ids.push(request_id.clone());
        state.send(PendingEvent::Accepted { request_id });
    }

    fn queued(&self, again: TryAgain, operation: &str, now: Duration) {
        let paused = again.queue_state.as_ref().is_some_and(|state| *state != QueueState::Active);
        if paused && self.may_warn(now) {
            let reason = again.queue_state_reason.as_deref().unwrap_or("the service does not say why");
            tracing::warn!(operation, state = ?again.queue_state, reason, "the service has paused this");
        }
        self.changed(PendingEvent::Queued { state: again.queue_state, reason: again.queue_state_reason });
    }

    /// The run is being made anew.
    pub(crate) fn recovering(&self, run_id: &str) {
        self.changed(PendingEvent::Recovering { run_id: run_id.to_owned() });
    }

    /// Whether it is long enough ago that somebody was warned; if so, somebody is now.
    fn may_warn(&self, now: Duration) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let may = state.warned.is_none_or(|warned| now.saturating_sub(warned) >= WARNINGS);
        if may {
            state.warned = Some(now);
        }
        may
    }

    /// Tells those who have heard of a pause that it is over: a result is there, which is all a server says of it.
    pub(crate) fn goes_on(&self) {
        let told = self.state.lock().unwrap_or_else(PoisonError::into_inner).last.clone();
        if let Some(PendingEvent::Queued { state: Some(state), .. }) = told
            && state != QueueState::Active
        {
            self.changed(PendingEvent::Queued { state: Some(QueueState::Active), reason: None });
        }
    }

    /// What happens from now on.
    pub(crate) fn events(&self) -> impl Stream<Item = PendingEvent> + Send + 'static + use<> {
        let (sender, receiver) = mpsc::unbounded();
        self.state.lock().unwrap_or_else(PoisonError::into_inner).listeners.push(sender);
        receiver
    }

    fn changed(&self, event: PendingEvent) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Polls repeat what they said before; listeners hear of changes.
        if state.last.as_ref() != Some(&event) {
            state.send(event);
        }
    }
}

impl WatchState {
    fn send(&mut self, event: PendingEvent) {
        self.listeners.retain(|listener| listener.unbounded_send(event.clone()).is_ok());
        self.last = Some(event);
    }
}

impl<T: Send + 'static> Pending<T> {
    pub(crate) fn new(watch: Arc<Watch>, result: BoxFuture<'static, Result<T, Error>>) -> Self {
        Self { result, watch }
    }

    pub(crate) fn failed(error: Error) -> Self {
        Self::new(Arc::default(), Box::pin(std::future::ready(Err(error))))
    }

    /// The id to take the request up again by; `None` until the server has accepted it.
    pub fn request_id(&self) -> Option<String> {
        self.request_ids().into_iter().next()
    }

    /// All ids, in order: a call whose data went out in several chunks has one for each.
    pub fn request_ids(&self) -> Vec<String> {
        self.watch.state.lock().unwrap_or_else(PoisonError::into_inner).request_ids.clone()
    }

    /// What happens to the request from now on, each change once. Events of the queue come while the result is
    /// awaited, so poll both, e.g. with `select`; the stream ends when the pending result is gone.
    pub fn events(&self) -> impl Stream<Item = PendingEvent> + Send + 'static + use<T> {
        self.watch.events()
    }

    /// The same request, with more to be done once its result is there.
    pub(crate) fn then<U, More>(self, with: impl FnOnce(T) -> More + Send + 'static) -> Pending<U>
    where
        U: Send + 'static,
        More: Future<Output = Result<U, Error>> + Send + 'static,
    {
        let Self { result, watch } = self;
        Pending::new(watch, Box::pin(async move { with(result.await?).await }))
    }

    /// The same request, its result turned into something else.
    pub fn map<U: Send + 'static>(self, with: impl FnOnce(T) -> U + Send + 'static) -> Pending<U> {
        let Self { result, watch } = self;
        Pending::new(watch, Box::pin(async move { result.await.map(with) }))
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.result.as_mut().poll(cx)
    }
}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = &self.watch.state.lock().unwrap_or_else(PoisonError::into_inner).request_ids;
        f.debug_struct("Pending").field("request_ids", ids).finish_non_exhaustive()
    }
}

mod sealed {
    pub trait Sealed {}
}

/// What a future can resolve to.
pub trait FutureResult: sealed::Sealed + Sized + Send + 'static {
    /// The request's type, as `retrieve_future` is told it.
    const TYPE: RequestType;
    #[doc(hidden)]
    fn decode(protobuf: bool, body: &[u8]) -> Result<Self, (String, String)>;
}

fn from_json<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, (String, String)> {
    json::read(body).map_err(|error| (format!("{} of its JSON", error.place()), error.what().to_owned()))
}

fn from_protobuf<M: prost::Message + Default, T, E: fmt::Display>(
    body: &[u8],
    read: impl FnOnce(&M) -> Result<T, E>,
) -> Result<T, (String, String)> {
    let unread = |problem: String| ("its protobuf".to_owned(), problem);
    let message = M::decode(body).map_err(|e| unread(e.to_string()))?;
    read(&message).map_err(|e| unread(e.to_string()))
}

macro_rules! json_result {
    ($($type:ty => $name:ident),+ $(,)?) => {$(
        impl sealed::Sealed for $type {}
        impl FutureResult for $type {
            const TYPE: RequestType = RequestType::$name;
            fn decode(protobuf: bool, body: &[u8]) -> Result<Self, (String, String)> {
                if protobuf {
                    return Err(("its content type".to_owned(), "it is protobuf, where JSON belongs".to_owned()));
                }
                from_json(body)
            }
        }
    )+};
}

json_result! {
    model::CreateModelResult => CreateModel,
    model::LoadWeightsResult => LoadWeights,
    CreateCustomLossResult => CreateCustomLoss,
    OptimStepResult => OptimStep,
    weights::SaveWeightsResult => SaveWeights,
    weights::SaveWeightsForSamplerResult => SaveWeightsForSampler,
}

impl sealed::Sealed for ForwardBackwardOutput {}
impl FutureResult for ForwardBackwardOutput {
    const TYPE: RequestType = RequestType::ForwardBackward;

    fn decode(protobuf: bool, body: &[u8]) -> Result<Self, (String, String)> {
        if !protobuf {
            return from_json(body);
        }
        from_protobuf(body, Self::from_proto)
    }
}

impl sealed::Sealed for SampleResponse {}
impl FutureResult for SampleResponse {
    const TYPE: RequestType = RequestType::Sample;

    fn decode(protobuf: bool, body: &[u8]) -> Result<Self, (String, String)> {
        if !protobuf {
            return from_json(body);
        }
        from_protobuf(body, Self::from_proto)
    }
}

/// What a 200 says of a future.
enum Said {
    NotYet(TryAgain),
    Failed(RequestFailed),
    SizeOnly(u64),
    Result,
}

fn what_it_says(protobuf: bool, body: &[u8]) -> Said {
    if protobuf {
        return Said::Result;
    }
    // Large results are not parsed twice: what is looked for here are short objects with these members.
    #[derive(serde::Deserialize)]
    struct Probe {
        #[serde(rename = "type", default)]
        kind: Option<serde_json::Value>,
        #[serde(default)]
        status: Option<serde_json::Value>,
        #[serde(default, deserialize_with = "present")]
        error: Option<serde_json::Value>,
        #[serde(default)]
        category: Option<serde_json::Value>,
        #[serde(default)]
        response_payload_size: Option<serde_json::Value>,
    }
    fn present<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<serde_json::Value>, D::Error> {
        serde::Deserialize::deserialize(d).map(Some)
    }
    let Ok(probe) = json::read::<Probe>(body) else { return Said::Result };
    let is = |value: &Option<serde_json::Value>, text| value.as_ref().and_then(|v| v.as_str()) == Some(text);
    if is(&probe.kind, "try_again") {
        return Said::NotYet(json::read(body).unwrap_or_default());
    }
    if is(&probe.status, "complete_metadata") {
        return Said::SizeOnly(
            probe.response_payload_size.and_then(|size| size.as_u64()).unwrap_or_default(),
        );
    }
    match probe.error {
        Some(error) => Said::Failed(RequestFailed {
            error: error.as_str().map_or_else(|| error.to_string(), str::to_owned),
            category: match probe.category.as_ref().and_then(|c| c.as_str()) {
                Some("user") => RequestErrorCategory::User,
                Some("server") => RequestErrorCategory::Server,
                _ => RequestErrorCategory::Unknown,
            },
        }),
        None => Said::Result,
    }
}

/// The question for a future.
fn retrieve(
    operation: &str,
    request_id: &str,
    kind: RequestType,
    allow_metadata_only: bool,
) -> Result<Call, Error> {
    let body = RetrieveFutureRequest { request_id: request_id.to_owned(), allow_metadata_only };
    let mut call = Call::post(operation, "/api/v1/retrieve_future", &body)?;
    call.timeout = RETRIEVE_TIMEOUT;
    call.retry = false;
    if kind.is_proto() {
        call.accept = PROTOBUF;
    }
    Ok(call)
}

/// A result as the server gave it.
#[derive(Debug, Clone)]
pub(crate) struct Raw {
    pub(crate) protobuf: bool,
    pub(crate) body: Bytes,
}

impl Raw {
    /// What it says.
    pub(crate) fn read<T: FutureResult>(&self, operation: &str) -> Result<T, Error> {
        T::decode(self.protobuf, &self.body)
            .map_err(|problem| undecodable(operation, problem, self.protobuf, &self.body))
    }
}

/// Asks for a future until there is a result or a final no.
pub(crate) async fn wait<T: FutureResult>(
    api: &Api,
    request_id: &str,
    operation: &str,
    watch: &Watch,
) -> Result<T, Error> {
    wait_sized(api, request_id, operation, watch, None).await
}

/// The same for a result whose size is known already, if it is.
pub(crate) async fn wait_sized<T: FutureResult>(
    api: &Api,
    request_id: &str,
    operation: &str,
    watch: &Watch,
    size: Option<u64>,
) -> Result<T, Error> {
    let mut result = None;
    let mut take = |protobuf: bool, body: &Bytes| {
        result = Some(T::decode(protobuf, body)?);
        Ok(())
    };
    ask_until(api, request_id, T::TYPE, operation, watch, size, &mut take).await?;
    result.ok_or_else(|| Error::unreadable(operation, "the result", "there is none"))
}

/// The same for a result that is not read here.
pub(crate) async fn wait_raw(
    api: &Api,
    request_id: &str,
    kind: RequestType,
    operation: &str,
    watch: &Watch,
) -> Result<Raw, Error> {
    let mut result = Raw { protobuf: false, body: Bytes::new() };
    let mut take = |protobuf: bool, body: &Bytes| {
        result = Raw { protobuf, body: body.clone() };
        Ok(())
    };
    ask_until(api, request_id, kind, operation, watch, None, &mut take).await?;
    Ok(result)
}

/// Takes a result; an error says what of it cannot be read: where, and why.
type Take<'a> = &'a mut (dyn FnMut(bool, &Bytes) -> Result<(), (String, String)> + Send);

/// Not generic, so that it is there once and not for each type of result.
async fn ask_until(
    api: &Api,
    request_id: &str,
    kind: RequestType,
    operation: &str,
    watch: &Watch,
    size: Option<u64>,
    take: Take<'_>,
) -> Result<(), Error> {
    let runtime = &api.caller().runtime;
    let policy = api.wait_policy();
    let mut call = retrieve(operation, request_id, kind, size.is_none())?;
    // A large result is announced by its size, and comes when there is room for it.
    let mut room = match size {
        Some(size) => Some(api.caller().heeded.response(size).await),
        None => None,
    };
    let mut state = WaitState::default();
    let (mut iteration, begun) = (0u32, runtime.monotonic());
    loop {
        call.headers = vec![
            ("x-tinker-request-iteration".into(), iteration.to_string()),
            ("x-tinker-request-type".into(), kind.as_str().to_owned()),
        ];
        iteration += 1;
        let asked_at = runtime.monotonic();
        let (reply, error) = match api.caller().once(&call).await {
            Ok(answer) if answer.is_success() => {
                let protobuf = answer.header("content-type").is_some_and(|t| t.contains(PROTOBUF));
                match what_it_says(protobuf, &answer.body) {
                    Said::Result => match take(protobuf, &answer.body) {
                        Ok(()) => return Ok(()),
                        Err(problem) => {
                            (Reply::Final, undecodable(operation, problem, protobuf, &answer.body))
                        }
                    },
                    Said::Failed(failed) => (Reply::Final, failure(operation, request_id, failed)),
                    Said::SizeOnly(bytes) if room.is_none() => {
                        room = Some(api.caller().heeded.response(bytes).await);
                        call = retrieve(operation, request_id, kind, false)?;
                        state = WaitState { paused: state.paused, ..WaitState::default() };
                        continue;
                    }
                    Said::SizeOnly(_) => {
                        let what =
                            "the server sent the result's size a second time, where the result was asked for";
                        let problem = ("its status".into(), what.into());
                        (Reply::Final, undecodable(operation, problem, protobuf, &answer.body))
                    }
                    Said::NotYet(again) => {
                        let error = answer.refusal(operation, Some(request_id.to_owned()));
                        (not_yet(watch, again, operation, runtime.monotonic()), error)
                    }
                }
            }
            Ok(answer) => {
                let error = answer.refusal(operation, Some(request_id.to_owned()));
                let reply = match answer.status {
                    408 => {
                        let again = json::read(&answer.body).unwrap_or_default();
                        not_yet(watch, again, operation, runtime.monotonic())
                    }
                    429 => Reply::Unreachable,
                    400 if answer.body.is_empty() => Reply::Unreachable,
                    400 => Reply::BadRequest,
                    402 => Reply::Billing,
                    500.. => Reply::ServerError,
                    _ => Reply::Final,
                };
                (reply, error)
            }
            Err(error) => {
                let built = !matches!(error.kind(), ErrorKind::Config { .. });
                (if built { Reply::Unreachable } else { Reply::Final }, error)
            }
        };
        let took = runtime.monotonic().saturating_sub(asked_at);
        let decision = policy.decide(&mut state, reply, took, runtime.random());
        // That it is not there yet, or that billing is paused, is no failure.
        if !matches!(reply, Reply::NotYet { .. } | Reply::Billing) || decision == Decision::Stop {
            api.caller().note(Note {
                of: NoteOf::Future(kind),
                error: &error,
                again: decision != Decision::Stop,
                tries: iteration,
                elapsed: runtime.monotonic().saturating_sub(begun),
            });
        }
        match decision {
            Decision::Stop => return Err(error),
            Decision::After(Duration::ZERO) => {}
            Decision::After(delay) => runtime.sleep(delay).await,
        }
    }
}

fn not_yet(watch: &Watch, again: TryAgain, operation: &str, now: Duration) -> Reply {
    let retry_after = again.retry_after_ms.map(Duration::from_millis);
    watch.queued(again, operation, now);
    Reply::NotYet { retry_after }
}

fn failure(operation: &str, request_id: &str, failed: RequestFailed) -> Error {
    Error::new(
        operation,
        ErrorKind::Failed {
            category: failed.category,
            message: failed.error,
            request_id: Some(request_id.to_owned()),
        },
    )
}

fn undecodable(operation: &str, (path, what): (String, String), protobuf: bool, body: &[u8]) -> Error {
    let snippet = if protobuf { String::new() } else { snippet_of(body) };
    Error::new(operation, ErrorKind::Undecodable { path, what, snippet })
}
