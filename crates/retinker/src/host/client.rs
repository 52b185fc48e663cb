//! The caller's side of the host API.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use futures_core::future::BoxFuture;
use futures_util::future::{Either, select};
use futures_util::lock::Mutex;
use futures_util::{StreamExt, stream};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::api::{
    Activity, ApiProblem, CONNECTION_HEADER, Connections, GettingStarted, HandOver, HostEvent, HostStatus,
    Incidents, MonitorState, PlanAnswer, PlanBatch, PlannedBatch, Restores, RunDetail, RunIds, RunWindow,
    RunsQuery, SetMonitor, StartRestore, StartedRestore, TOKEN_HEADER,
};
use super::completion::{CompletionQuery, Completions};
use super::encode::{percent, segment};
use super::sse::Parser;
use crate::client::Secret;
use crate::json::{self, Misread};
use crate::recovery::plan::{PlanRequest, RestorePlan};
use crate::recovery::policy::Gate;
use crate::recovery::restore::RestoreRecord;
use crate::runtime::Runtime;
use crate::transport::{
    BodyStream, Method, Request, Response, Transport, TransportError, TransportErrorKind,
};

/// How long the host may take to answer. Planning asks the service about checkpoints, so it is generous.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How long the event stream may be silent; the host sends a keep-alive every 15 s.
const SILENCE: Duration = Duration::from_secs(45);

/// The longest answer that is read.
const MAX_ANSWER: usize = 64 << 20;

/// Why a call to the host failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostError {
    /// What happened and what to do.
    pub problem: ApiProblem,
    /// The host's status; `None` when it did not answer.
    pub status: Option<u16>,
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.message)?;
        if self.problem.hint.is_empty() { Ok(()) } else { write!(f, " {}", self.problem.hint) }
    }
}

impl std::error::Error for HostError {}

impl HostError {
    fn new(status: Option<u16>, code: &str, message: impl Into<String>, hint: &str) -> Self {
        let problem = ApiProblem { code: code.to_owned(), message: message.into(), hint: hint.to_owned() };
        Self { problem, status }
    }

    fn transport(error: &TransportError) -> Self {
        match error.kind {
            TransportErrorKind::Body => Self::new(
                None,
                "host_answer_cut_off",
                "The host's answer broke off before its end.",
                "Try again; if it happens again, look at the host's log.",
            ),
            TransportErrorKind::Build => Self::new(None, "bad_request", error.message.clone(), ""),
            TransportErrorKind::Connect | TransportErrorKind::Request => Self::new(
                None,
                "host_unreachable",
                "The host does not answer.",
                "Is `retinker up` (or `retinker console`) still running? Start it again and open the address that \
                 it prints.",
            ),
        }
    }

    fn timed_out() -> Self {
        Self::new(
            None,
            "host_timeout",
            format!("The host did not answer within {} s.", TIMEOUT.as_secs()),
            "Try again; if it happens again, look at the host's log.",
        )
    }

    fn of_answer(status: u16, body: &[u8]) -> Self {
        if let Ok(problem) = json::read::<ApiProblem>(body) {
            return Self { problem, status: Some(status) };
        }
        Self::new(
            Some(status),
            "not_a_host",
            format!("What answers at this address (status {status}) is not a retinker host."),
            "Open the address that `retinker up` prints.",
        )
    }

    fn unreadable(status: u16, error: &Misread) -> Self {
        if error.is_cut_off() {
            return Self::new(
                Some(status),
                "host_answer_cut_off",
                "The host's answer ends in the middle.",
                "Try again; if it happens again, look at the host's log.",
            );
        }
        Self::new(
            Some(status),
            "not_a_host",
            format!("The host's answer cannot be understood: {error}."),
            "Are console and host of the same version? Reload the page; else open the address that `retinker up` \
             prints.",
        )
    }
}

/// Calls a host. Cheap to clone; dropping a call's future aborts the call.
#[derive(Clone)]
pub struct HostClient {
    transport: Arc<dyn Transport>,
    runtime: Arc<dyn Runtime>,
    base_url: Arc<str>,
    token: Secret,
    connection: Option<Arc<str>>,
    /// Held by the call that is under way, where there is to be one at a time.
    turn: Option<Arc<Mutex<()>>>,
}

impl fmt::Debug for HostClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostClient").field("base_url", &self.base_url).finish_non_exhaustive()
    }
}

impl HostClient {
    /// A client of the host at this address, e.g. `http://127.0.0.1:8787`, with the token that it printed at its
    /// start.
    pub fn new(
        transport: Arc<dyn Transport>,
        runtime: Arc<dyn Runtime>,
        base_url: impl AsRef<str>,
        token: impl Into<Secret>,
    ) -> Self {
        let base_url = base_url.as_ref().trim_end_matches('/').into();
        Self { transport, runtime, base_url, token: token.into(), connection: None, turn: None }
    }

    /// The same host, asked about its connection of this name instead of its first.
    pub fn with_connection(mut self, name: &str) -> Self {
        // What is no connection's name is none when it is encoded, either.
        self.connection = Some(percent(name, "").into());
        self
    }

    /// The same, with one call at a time under way, but for the stream of events: a browser has six connections to an origin, for all of its tabs
    /// together. How long a call may take counts from when its turn comes.
    #[must_use]
    pub fn in_turn(mut self) -> Self {
        self.turn = Some(Arc::default());
        self
    }

    /// The services that the host can stand before.
    pub fn connections(&self) -> Call<'_, Connections> {
        Call::of(self.get("/connections"))
    }

    /// What gets a newcomer to a first run.
    pub fn start(&self) -> Call<'_, GettingStarted> {
        Call::of(self.get("/start"))
    }

    /// Begins the demonstration, on an embedded service that has no runs.
    pub fn begin_demo(&self) -> Call<'_, GettingStarted> {
        Call::of(self.post("/demo", &serde_json::Map::new()))
    }

    /// How the host and its service are.
    pub fn status(&self) -> Call<'_, HostStatus> {
        Call::of(self.get("/status"))
    }

    /// A window of the list of runs.
    pub fn runs(&self, query: &RunsQuery) -> Call<'_, RunWindow> {
        Call::of(self.get(&format!("/runs?{}", query_string(query))))
    }

    /// The ids of all runs that a query matches, without its window.
    pub fn run_ids(&self, query: &RunsQuery) -> Call<'_, RunIds> {
        Call::of(self.get(&format!("/run-ids?{}", query_string(query))))
    }

    /// How the text of a filter can go on.
    pub fn completions(&self, query: &CompletionQuery) -> Call<'_, Completions> {
        let CompletionQuery { of, q } = query;
        Call::of(self.get(&format!("/completions?of={}&q={}", of.as_str(), percent(q, ""))))
    }

    /// Everything about one run.
    pub fn run(&self, run_id: &str) -> Call<'_, RunDetail> {
        Call::of(self.get(&format!("/runs/{}", segment(run_id))))
    }

    /// What a restore would do, or why there can be none.
    pub fn plan(&self, request: &PlanRequest) -> Call<'_, PlanAnswer> {
        Call::of(self.post("/plans", request))
    }

    /// What restores of these runs would do, at most [`MAX_PLANS`](super::api::MAX_PLANS) of them.
    pub fn plans(&self, batch: &PlanBatch) -> Call<'_, PlannedBatch> {
        Call::of(self.post("/plan-batches", batch))
    }

    /// Starts a restore exactly as planned. Asking again is harmless: the answer is the restore that is under way.
    pub fn start_restore(&self, plan: &RestorePlan) -> Call<'_, StartedRestore> {
        Call::of(self.post("/restores", &StartRestore { plan: plan.clone() }))
    }

    /// All restores, newest first.
    pub fn restores(&self) -> Call<'_, Restores> {
        Call::of(self.get("/restores"))
    }

    /// One restore.
    pub fn restore(&self, restore_id: &str) -> Call<'_, RestoreRecord> {
        Call::of(self.get(&format!("/restores/{}", segment(restore_id))))
    }

    /// Stops a restore that is not done yet, whoever carries it out.
    pub fn cancel_restore(&self, restore_id: &str) -> Call<'_, RestoreRecord> {
        Call::of(self.post(&format!("/restores/{}/cancel", segment(restore_id)), &serde_json::Map::new()))
    }

    /// Takes a restored run over: the host keeps its session alive for a while longer, then no more.
    pub fn hand_over(&self, restore_id: &str) -> Call<'_, HandOver> {
        Call::of(self.post(&format!("/restores/{}/hand-over", segment(restore_id)), &serde_json::Map::new()))
    }

    /// Which runs failed together, newest incident first.
    pub fn incidents(&self) -> Call<'_, Incidents> {
        Call::of(self.get("/incidents"))
    }

    /// Of each incident the runs that still wait to be restored, where there are several.
    pub fn open_incidents(&self) -> Call<'_, Incidents> {
        Call::of(self.get("/incidents?open=true"))
    }

    /// What was done about lost runs and with the service's things: the newest of it, so many of each kind.
    pub fn activity(&self, newest: u64) -> Call<'_, Activity> {
        Call::of(self.get(&format!("/activity?newest={newest}")))
    }

    /// All of it, as the JSON that the host sends, to be kept.
    pub async fn activity_text(&self) -> Result<String, HostError> {
        let (_, body) = self.get("/activity?whole=true").await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// Whether restores begin by themselves.
    pub fn monitor(&self) -> Call<'_, MonitorState> {
        Call::of(self.get("/monitor"))
    }

    /// Pauses or resumes restores that begin by themselves, for all monitors of the journal.
    pub fn set_monitor(&self, gate: Gate) -> Call<'_, MonitorState> {
        Call::of(self.post("/monitor", &SetMonitor { gate }))
    }

    /// What changes, as it happens. The stream ends with an error when the connection does; what happened in
    /// between is then found by reading the window again. Dropping it closes the connection.
    pub async fn events(
        &self,
    ) -> Result<impl Stream<Item = Result<HostEvent, HostError>> + Send + use<>, HostError> {
        let mut request = self.request(Method::Get, "/events", Bytes::new());
        request.headers.push(("accept".into(), "text/event-stream".to_owned()));
        let response = self
            .within(TIMEOUT, self.transport.send(request))
            .await?
            .map_err(|e| HostError::transport(&e))?;
        if response.status != 200 {
            let status = response.status;
            let body = self.within(TIMEOUT, whole(response)).await??;
            return Err(HostError::of_answer(status, &body));
        }
        if !response.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")) {
            return Err(HostError::of_answer(response.status, b""));
        }
        Ok(events_of(Arc::clone(&self.runtime), response.body))
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Request {
        let mut headers = vec![(TOKEN_HEADER.into(), self.token.expose().to_owned())];
        headers.extend(self.connection.as_deref().map(|name| (CONNECTION_HEADER.into(), name.to_owned())));
        Request { method, url: format!("{}/retinker/v1{path}", self.base_url), headers, body }
    }

    pub(super) fn get(&self, path: &str) -> Answer<'_> {
        let mut request = self.request(Method::Get, path, Bytes::new());
        request.headers.push(("accept".into(), "application/json".to_owned()));
        self.exchange(request)
    }

    pub(super) fn post(&self, path: &str, body: &impl Serialize) -> Answer<'_> {
        self.posted(path, serde_json::to_vec(body).ok())
    }

    /// Apart from [`post`](Self::post), which is there once for each type of body.
    fn posted(&self, path: &str, body: Option<Vec<u8>>) -> Answer<'_> {
        let Some(body) = body else {
            let refused =
                HostError::new(None, "bad_request", "The request cannot be written.".to_owned(), "");
            return Box::pin(std::future::ready(Err(refused)));
        };
        let mut request = self.request(Method::Post, path, body.into());
        request.headers.push(("accept".into(), "application/json".to_owned()));
        request.headers.push(("content-type".into(), "application/json".to_owned()));
        self.exchange(request)
    }

    /// An answer of success, unread. Apart from [`read`], and boxed, because code that is generic over what
    /// is read is there once for each type, and a browser would load every copy.
    fn exchange(&self, request: Request) -> Answer<'_> {
        let sent = self.transport.send(request);
        let answer = async move {
            let response = sent.await.map_err(|e| HostError::transport(&e))?;
            let status = response.status;
            whole(response).await.map(|body| (status, body))
        };
        Box::pin(async move {
            let _turn = match &self.turn {
                Some(turn) => Some(turn.lock().await),
                None => None,
            };
            let (status, body) = self.within(TIMEOUT, answer).await??;
            if (200..300).contains(&status) {
                Ok((status, body))
            } else {
                Err(HostError::of_answer(status, &body))
            }
        })
    }

    async fn within<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Result<T, HostError> {
        match select(std::pin::pin!(work), self.runtime.sleep(limit)).await {
            Either::Left((outcome, _)) => Ok(outcome),
            Either::Right(_) => Err(HostError::timed_out()),
        }
    }
}

/// A call under way: the status and body of an answer of success.
pub(super) type Answer<'a> = BoxFuture<'a, Result<(u16, Vec<u8>), HostError>>;

/// A call under way: a future of what the host answers. Dropping it aborts the call.
///
/// Not an `async fn` for each call, since every one of those would be there once more in what a browser loads.
#[must_use = "a call is made when it is awaited"]
pub struct Call<'a, T> {
    answer: Answer<'a>,
    of: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for Call<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").finish_non_exhaustive()
    }
}

impl<'a, T> Call<'a, T> {
    pub(super) fn of(answer: Answer<'a>) -> Self {
        Self { answer, of: PhantomData }
    }
}

impl<'a, T> Call<'a, T> {
    /// The answer as the JSON text that it is, of whatever type.
    pub fn text(self) -> BoxFuture<'a, Result<String, HostError>> {
        text(self.answer)
    }
}

fn text(answer: Answer<'_>) -> BoxFuture<'_, Result<String, HostError>> {
    Box::pin(async move {
        let (status, body) = answer.await?;
        tree(Ok((status, body.clone())))?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    })
}

impl<T: DeserializeOwned> Future for Call<'_, T> {
    type Output = Result<T, HostError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.answer.as_mut().poll(cx).map(read)
    }
}

/// What is there once for each type is no more than to take it out of the tree.
fn read<T: DeserializeOwned>(answer: Result<(u16, Vec<u8>), HostError>) -> Result<T, HostError> {
    let (status, tree) = tree(answer)?;
    json::of(&tree).map_err(|error| HostError::unreadable(status, &error))
}

#[inline(never)]
fn tree(answer: Result<(u16, Vec<u8>), HostError>) -> Result<(u16, serde_json::Value), HostError> {
    let (status, body) = answer?;
    match json::tree(&body) {
        Ok(tree) => Ok((status, tree)),
        Err(error) => Err(HostError::unreadable(status, &error)),
    }
}

async fn whole(mut response: Response) -> Result<Vec<u8>, HostError> {
    let mut body = Vec::new();
    while let Some(piece) = response.body.next().await {
        let piece = piece
            .map_err(|e| HostError::transport(&TransportError { kind: TransportErrorKind::Body, ..e }))?;
        if body.len() + piece.len() > MAX_ANSWER {
            return Err(HostError::new(
                Some(response.status),
                "not_a_host",
                "The host's answer is far too long.",
                "",
            ));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

struct Events {
    runtime: Arc<dyn Runtime>,
    body: Option<BodyStream>,
    parser: Parser,
    ready: std::collections::VecDeque<Vec<u8>>,
}

impl Events {
    async fn next(&mut self) -> Option<Result<HostEvent, HostError>> {
        loop {
            if let Some(data) = self.ready.pop_front() {
                match json::read(&data) {
                    Ok(event) => return Some(Ok(event)),
                    // A kind of event that a newer host sends: not for us.
                    Err(error) if error.is_of_other_type() => continue,
                    Err(error) => {
                        self.body = None;
                        self.ready.clear();
                        return Some(Err(HostError::unreadable(200, &error)));
                    }
                }
            }
            let body = self.body.as_mut()?;
            let lost = match select(body.next(), self.runtime.sleep(SILENCE)).await {
                Either::Left((Some(Ok(piece)), _)) => match self.parser.feed(&piece) {
                    Ok(events) => {
                        self.ready.extend(events);
                        continue;
                    }
                    Err(_) => {
                        HostError::new(Some(200), "not_a_host", "The host's event stream is not one.", "")
                    }
                },
                Either::Left(_) => HostError::new(
                    None,
                    "event_stream_lost",
                    "The connection to the host was lost.",
                    "It is tried again; is `retinker up` still running?",
                ),
                Either::Right(_) => HostError::new(
                    None,
                    "event_stream_lost",
                    format!("Nothing was heard of the host for {} s.", SILENCE.as_secs()),
                    "It is tried again; is `retinker up` still running?",
                ),
            };
            self.body = None;
            return Some(Err(lost));
        }
    }
}

fn events_of(
    runtime: Arc<dyn Runtime>,
    body: BodyStream,
) -> impl Stream<Item = Result<HostEvent, HostError>> + Send + use<> {
    let state = Events { runtime, body: Some(body), parser: Parser::default(), ready: Default::default() };
    Box::pin(stream::unfold(state, |mut state| async move { state.next().await.map(|item| (item, state)) }))
}

fn query_string(query: &RunsQuery) -> String {
    let mut pairs = Vec::new();
    if let Some(health) = query.health {
        pairs.push(format!("health={}", health.as_str()));
    }
    if let Some(q) = &query.q {
        pairs.push(format!("q={}", percent(q, "")));
    }
    pairs.push(format!("sort={}", query.sort.as_str()));
    if query.reverse {
        pairs.push("reverse=true".to_owned());
    }
    pairs.push(format!("offset={}", query.offset));
    let numbers = [("limit", query.limit), ("since", query.since)];
    pairs.extend(numbers.iter().filter_map(|(name, number)| number.map(|number| format!("{name}={number}"))));
    let texts = [("order", &query.order), ("anchor", &query.anchor)];
    pairs.extend(
        texts
            .iter()
            .filter_map(|(name, text)| text.as_ref().map(|text| format!("{name}={}", percent(text, "")))),
    );
    pairs.join("&")
}

#[cfg(test)]
mod tests;
