//! One call: attempts, each with its own time limit, until one succeeds or the policy says stop.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, select};
use futures_util::{FutureExt, StreamExt};
use ruzstd::encoding::CompressionLevel;
use tracing::Instrument;
use tracing::field::Empty;

use super::auth::{Auth, EXCHANGE, is_identity};
use super::error::{Error, ErrorKind, detail_of};
use super::heeded::Heeded;
use super::retry::{Decision, Outcome, RetryPolicy, Spent, retry_after};
use super::secret::Secret;
use super::witness::{Note, NoteOf, Witness};
use crate::json;
use crate::runtime::Runtime;
use crate::transport::{Method, Request, Transport, TransportError, TransportErrorKind};

/// How long one attempt may take unless the call says otherwise.
pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one question about a future may take.
pub(crate) const RETRIEVE_TIMEOUT: Duration = Duration::from_secs(45);
/// How long one heartbeat may take.
pub(crate) const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long telling the server how the client fares may take.
pub(crate) const TELEMETRY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long telling the server that nobody waits may take.
pub(crate) const CANCEL_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest answer that is read: a bound on what a broken server can make a client hold.
const MAX_ANSWER: usize = 1 << 30;

const JSON: &str = "application/json";

/// What to send.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// The endpoint and the run or path, for errors.
    pub(crate) operation: String,
    pub(crate) method: Method,
    /// From `/api/v1` on, ids inserted raw.
    pub(crate) path: String,
    pub(crate) body: Bytes,
    pub(crate) content_type: &'static str,
    pub(crate) accept: &'static str,
    pub(crate) headers: Vec<(Cow<'static, str>, String)>,
    pub(crate) timeout: Duration,
    /// Most bytes of an answer that are read.
    pub(crate) longest: usize,
    pub(crate) retry: bool,
    /// Whether the call waits when billing blocks it (402) instead of failing.
    pub(crate) waits_for_billing: bool,
    /// Whether a 429 is for the caller, who slows down all calls of this kind, instead of being tried again.
    pub(crate) yields_when_limited: bool,
}

impl Call {
    fn new(operation: String, method: Method, path: String) -> Self {
        Self {
            operation,
            method,
            path,
            body: Bytes::new(),
            content_type: JSON,
            accept: JSON,
            headers: Vec::new(),
            timeout: DEFAULT_TIMEOUT,
            longest: MAX_ANSWER,
            retry: true,
            waits_for_billing: false,
            yields_when_limited: false,
        }
    }

    pub(crate) fn get(operation: impl Into<String>, path: impl Into<String>) -> Self {
        Self::new(operation.into(), Method::Get, path.into())
    }

    pub(crate) fn delete(operation: impl Into<String>, path: impl Into<String>) -> Self {
        Self::new(operation.into(), Method::Delete, path.into())
    }

    pub(crate) fn with_body(
        operation: impl Into<String>,
        method: Method,
        path: impl Into<String>,
        body: &impl serde::Serialize,
    ) -> Result<Self, Error> {
        let mut call = Self::new(operation.into(), method, path.into());
        match serde_json::to_vec(body) {
            Ok(text) => call.body = text.into(),
            Err(error) => {
                return Err(Error::config(call.operation, format!("it cannot be written as JSON: {error}")));
            }
        }
        Ok(call)
    }

    /// The same with its body as a zstd frame.
    pub(crate) fn compressed(mut self) -> Self {
        self.body = ruzstd::encoding::compress_to_vec(&*self.body, CompressionLevel::Fastest).into();
        self.headers.push(("content-encoding".into(), "zstd".to_owned()));
        self
    }

    pub(crate) fn post(
        operation: impl Into<String>,
        path: impl Into<String>,
        body: &impl serde::Serialize,
    ) -> Result<Self, Error> {
        Self::with_body(operation, Method::Post, path, body)
    }
}

/// A whole answer of any status.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether the server refused the token itself, not what was asked with it (RFC 6750).
    fn refuses_token(&self) -> bool {
        let challenge = self.header("www-authenticate").unwrap_or_default();
        self.status == 401 && challenge.contains("error=\"invalid_token\"")
    }

    /// The error that an answer which is not a success stands for.
    pub(crate) fn refusal(&self, operation: &str, request_id: Option<String>) -> Error {
        let kind = match self.status {
            410 => ErrorKind::Expired { request_id },
            status => ErrorKind::Refused { status, detail: detail_of(&self.body), request_id },
        };
        Error::new(operation, kind)
    }
}

/// What a call needs to be made. Shared by all clones of an [`super::Api`].
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) base_url: String,
    pub(crate) auth: Arc<Auth>,
    pub(crate) headers: Vec<(Cow<'static, str>, String)>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) heeded: Arc<Heeded>,
    /// Told of what fails, if anybody wants to hear of it.
    pub(crate) witness: Option<Arc<dyn Witness>>,
}

impl Caller {
    /// Sends until success, or until the policy says stop; then the last attempt's error is the call's.
    pub(crate) async fn call(&self, call: &Call, policy: &RetryPolicy) -> Result<Answer, Error> {
        self.until(call, policy, Answer::is_success).await
    }

    /// The same where success is to be sent elsewhere.
    pub(crate) async fn redirection(&self, call: &Call, policy: &RetryPolicy) -> Result<Answer, Error> {
        self.until(call, policy, |answer| answer.is_success() || answer.header("location").is_some()).await
    }

    /// The same where this says what answers are wanted.
    pub(crate) async fn until(
        &self,
        call: &Call,
        policy: &RetryPolicy,
        done: impl Fn(&Answer) -> bool,
    ) -> Result<Answer, Error> {
        let billing_pause = self.heeded.billing_pause(policy.billing_pause);
        let policy = RetryPolicy { billing_pause: Some(billing_pause), ..*policy };
        let request = self.request(call);
        let start = self.runtime.monotonic();
        let mut spent = Spent::default();
        let mut seen_before = false;
        loop {
            let attempt = self.attempt(call, &request, spent.retries).await;
            let (outcome, error) = match attempt {
                Ok(answer) if done(&answer) => return Ok(answer),
                Ok(answer) => {
                    let error = answer.refusal(&call.operation, None);
                    (self.outcome(&answer), error.after(self.retry_after(&answer)))
                }
                Err(error) => {
                    let outcome = match error.kind() {
                        ErrorKind::TimedOut { .. } => Outcome::TimedOut,
                        // Of an attempt only the exchange of the credential is refused: then there was nothing to send.
                        kind => Outcome::Transport {
                            built: !matches!(kind, ErrorKind::Config { .. } | ErrorKind::Refused { .. }),
                        },
                    };
                    (outcome, error)
                }
            };
            let status = error.status();
            if status == Some(409) {
                spent.conflicts += 1;
            }
            spent.elapsed = self.runtime.monotonic().saturating_sub(start).saturating_sub(spent.paused);
            let blocked = (status == Some(402) && !call.waits_for_billing)
                || (status == Some(429) && call.yields_when_limited);
            let decision = if call.retry && !blocked {
                policy.decide(&spent, &outcome, self.runtime.random())
            } else {
                Decision::Stop
            };
            let error = error.seen_before(seen_before);
            if call.retry && status != Some(402) {
                let (tries, elapsed) = (spent.retries + 1, spent.elapsed);
                self.note(Note {
                    of: NoteOf::Attempt,
                    error: &error,
                    again: decision != Decision::Stop,
                    tries,
                    elapsed,
                });
            }
            let Decision::After(delay) = decision else { return Err(error) };
            seen_before |= !error.is_definite_refusal() && status != Some(402) && status != Some(429);
            tracing::debug!(operation = %call.operation, retry = spent.retries + 1, ?delay, %error, "trying again");
            if status == Some(402) {
                spent.paused += delay;
            } else {
                spent.retries += 1;
            }
            self.runtime.sleep(delay).await;
        }
    }

    /// Tells who wants to hear of it that something failed.
    pub(crate) fn note(&self, note: Note<'_>) {
        if let Some(witness) = &self.witness {
            witness.note(note);
        }
    }

    /// One attempt, whatever the status.
    pub(crate) async fn once(&self, call: &Call) -> Result<Answer, Error> {
        self.attempt(call, &self.request(call), 0).await
    }

    fn request(&self, call: &Call) -> Request {
        let mut headers: Vec<(Cow<'static, str>, String)> = Vec::with_capacity(6);
        headers.push(("accept".into(), call.accept.to_owned()));
        if call.method != Method::Get {
            headers.push(("content-type".into(), call.content_type.to_owned()));
            // One key for all attempts of this call: that is how a server can tell a retry from a second request.
            let mut key = String::from("retinker-retry-");
            let _ = write!(key, "{:016x}{:016x}", self.runtime.random(), self.runtime.random());
            headers.push(("x-idempotency-key".into(), key));
        }
        headers.extend(self.headers.iter().cloned());
        headers.extend(call.headers.iter().cloned());
        Request {
            method: call.method,
            url: format!("{}{}", self.base_url, call.path),
            headers,
            body: call.body.clone(),
        }
    }

    /// One attempt in a span of its own, whose fields are those of OpenTelemetry's conventions for HTTP clients.
    async fn attempt(&self, call: &Call, request: &Request, resend_count: u32) -> Result<Answer, Error> {
        let span = tracing::debug_span!(
            "request",
            otel.kind = "client",
            operation = %call.operation,
            http.request.method = request.method.as_str(),
            url.path = %call.path,
            http.request.resend_count = resend_count,
            http.response.status_code = Empty,
            "error.type" = Empty,
        );
        let answer = self.signed(call, request).instrument(span.clone()).await;
        match &answer {
            Ok(answer) => span.record("http.response.status_code", answer.status),
            Err(error) => span.record("error.type", error.kind().name()),
        };
        answer
    }

    /// One attempt, signed. A token that the server does not take is replaced once.
    async fn signed(&self, call: &Call, request: &Request) -> Result<Answer, Error> {
        let now = || self.runtime.now().as_millis();
        let ask = |credential| self.exchange(&call.operation, credential).boxed();
        let key = self.auth.key(&call.operation, now(), &ask).await?;
        let answer = self.send(call, request, key.as_ref()).await?;
        let Some(refused) = key.filter(|_| answer.refuses_token()) else { return Ok(answer) };
        match self.auth.replacement(&call.operation, now(), &refused, &ask).await? {
            Some(other) => self.send(call, request, Some(&other)).await,
            None => Ok(answer),
        }
    }

    /// The token that says who asks, exchanged for if there is none.
    pub(crate) async fn identity(&self, operation: &str) -> Result<Secret, Error> {
        let now = self.runtime.now().as_millis();
        let ask = |credential| self.exchange(operation, credential).boxed();
        match self.auth.key(operation, now, &ask).await? {
            // What it was exchanged for is the service's own.
            Some(token) if self.auth.exchanges() || is_identity(&token) => Ok(token),
            Some(credential) => self.exchange(operation, credential).await,
            None => Err(Error::config(operation, "there is no API key to say who asks")),
        }
    }

    /// Asks for a token.
    async fn exchange(&self, operation: &str, credential: Secret) -> Result<Secret, Error> {
        #[derive(serde::Deserialize)]
        struct Exchanged {
            jwt: String,
        }
        let call =
            Call::post(format!("{operation}: exchange of its API key"), EXCHANGE, &serde_json::json!({}))?;
        let answer = self.send(&call, &self.request(&call), Some(&credential)).await?;
        if !answer.is_success() {
            return Err(answer.refusal(&call.operation, None));
        }
        // What it says is secret, whatever it is: errors repeat none of it.
        let exchanged: Exchanged = json::read(&answer.body)
            .map_err(|_| Error::unreadable(&call.operation, "jwt", "the answer holds no token"))?;
        Ok(Secret::new(exchanged.jwt))
    }

    /// Sends once, with a time limit.
    async fn send(&self, call: &Call, request: &Request, key: Option<&Secret>) -> Result<Answer, Error> {
        let mut request = request.clone();
        if let Some(key) = key {
            request.headers.push(("x-api-key".into(), key.expose().to_owned()));
        }
        let answer = Box::pin(read_whole(self.transport.send(request), call.longest));
        let limit = self.runtime.sleep(call.timeout);
        match select(answer, limit).await {
            Either::Left((Ok(answer), _)) => Ok(answer),
            Either::Left((Err(error), _)) => Err(Error::transport(&call.operation, &error)),
            Either::Right(_) => Err(Error::new(&call.operation, ErrorKind::TimedOut { after: call.timeout })),
        }
    }

    /// How long the server asks not to be asked again.
    fn retry_after(&self, answer: &Answer) -> Option<Duration> {
        retry_after(answer.header("retry-after-ms"), answer.header("retry-after"), self.runtime.now())
    }

    fn outcome(&self, answer: &Answer) -> Outcome {
        Outcome::Status {
            status: answer.status,
            retry_after: self.retry_after(answer),
            should_retry: match answer.header("x-should-retry") {
                Some("true") => Some(true),
                Some("false") => Some(false),
                _ => None,
            },
            empty: answer.body.is_empty(),
        }
    }
}

async fn read_whole(
    response: futures_core::future::BoxFuture<'static, Result<crate::transport::Response, TransportError>>,
    longest: usize,
) -> Result<Answer, TransportError> {
    let mut response = response.await?;
    let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
    let mut length = 0usize;
    while let Some(piece) = response.body.next().await {
        let piece = piece?;
        length = length.saturating_add(piece.len());
        if length > longest {
            return Err(TransportError::new(
                TransportErrorKind::Body,
                format!("the answer is longer than {longest} bytes"),
            ));
        }
        // Most answers come in one piece, which is then not copied.
        if first.is_empty() && rest.is_empty() {
            first = piece;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&piece);
        }
    }
    let body = if rest.is_empty() { first } else { rest.freeze() };
    Ok(Answer { status: response.status, headers: response.headers, body })
}
