//! Errors that say what may have happened.

use std::fmt::{self, Write as _};
use std::time::Duration;

use retinker_wire::future::RequestErrorCategory;

use crate::json;
use crate::transport::{TransportError, TransportErrorKind};

/// Why a call did not do what was asked. One pointer wide; cheap to clone.
///
/// # What every call can give
///
/// What a function says of its errors is what is particular to it. Beside that, whatever asks a server can give these.
/// Where another attempt may help there is one, by the call's [`RetryPolicy`](super::retry::RetryPolicy), for 300 s
/// unless another is set; the last attempt's error is the call's.
///
/// - [`ErrorKind::Config`]: there is nothing to sign the request with: the credential has expired, or its source gave none.
/// - [`ErrorKind::NeverSent`]: no connection. [`ErrorKind::MayHaveBeenSent`]: it broke off, or the answer was longer than
///   1 GiB. [`ErrorKind::TimedOut`]: no answer within 60 s.
/// - [`ErrorKind::Refused`], by its status: 400 or 422, the server can make nothing of the request; 401 or 403, the
///   credential is not valid or not enough; 402, billing is blocked (what trains, saves, loads or samples first waits for
///   an hour); 404 or 405, it does not have the endpoint ([`is_unsupported`](Self::is_unsupported)); 429 or 5xx, it is
///   overloaded or at fault; 3xx, it redirects, which is not followed.
/// - [`ErrorKind::Undecodable`]: a success that is none of the protocol's, such as a proxy's page.
///
/// Whether the server may have acted on the request says [`may_have_been_seen`](Self::may_have_been_seen), whether the
/// same call may go through later [`is_retryable`](Self::is_retryable).
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    /// What was being done, e.g. `optim_step of run s:train:0`.
    operation: String,
    kind: ErrorKind,
    /// An earlier attempt of the same call ended so that the server may have seen it.
    seen_before: bool,
    /// How long the server asked not to be asked again.
    retry_after: Option<Duration>,
}

/// What happened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The call makes no sense as it was given, or cannot be made from here: there is no credential for it, a file cannot
    /// be written. The server has not seen what failed.
    Config {
        /// What is wrong.
        message: String,
    },
    /// No connection was made: the server has not seen the request.
    NeverSent {
        /// What the transport says.
        message: String,
    },
    /// The connection broke off: the server may have seen the request.
    MayHaveBeenSent {
        /// What the transport says.
        message: String,
    },
    /// The server answered with a status that is not a success.
    Refused {
        /// The status.
        status: u16,
        /// The server's reason, at most 200 characters of it.
        detail: String,
        /// The future that was asked about, when it was one.
        request_id: Option<String>,
    },
    /// The request was accepted and then failed. Of submitted requests only; see [`Pending`](super::Pending).
    Failed {
        /// Whose fault the server says it is.
        category: RequestErrorCategory,
        /// The server's reason.
        message: String,
        /// The request.
        request_id: Option<String>,
    },
    /// The server no longer knows the request's result, or the session is over (status 410).
    Expired {
        /// The request.
        request_id: Option<String>,
    },
    /// The answer is a success that cannot be read.
    Undecodable {
        /// Where in the answer, or what kind of answer.
        path: String,
        /// What is wrong there.
        what: String,
        /// How the answer begins, at most 200 characters.
        snippet: String,
    },
    /// The order of the run's operations can no longer be known, so none can be sent. Of a
    /// [`TrainingClient`](super::TrainingClient) only.
    Poisoned {
        /// The run.
        run_id: String,
        /// The last checkpoint that this client has saved or loaded, to restore the run from; `None` if it knows of none. The
        /// run may have others: the plan of a restore finds them.
        checkpoint: Option<String>,
        /// What made it so.
        cause: Error,
    },
    /// The run's state was lost, and could not be made anew from its redo log. Of a recovering client only; see
    /// [`redo`](crate::redo).
    Unrecovered {
        /// The run that was lost.
        run_id: String,
        /// What kept it from being recovered.
        reason: String,
    },
    /// It was not sent, because something before it did not go through or the client was closed.
    Cancelled {
        /// Why.
        reason: String,
    },
    /// No answer in time: the server may have seen the request.
    TimedOut {
        /// How long was waited: for the last attempt, or for any success of a sampling client.
        after: Duration,
    },
}

impl ErrorKind {
    /// Its name in lower case, for logs and traces.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Config { .. } => "config",
            Self::NeverSent { .. } => "never_sent",
            Self::MayHaveBeenSent { .. } => "may_have_been_sent",
            Self::Refused { .. } => "refused",
            Self::Failed { .. } => "failed",
            Self::Expired { .. } => "expired",
            Self::Undecodable { .. } => "undecodable",
            Self::Poisoned { .. } => "poisoned",
            Self::Unrecovered { .. } => "unrecovered",
            Self::Cancelled { .. } => "cancelled",
            Self::TimedOut { .. } => "timed_out",
        }
    }
}

impl Error {
    pub(crate) fn new(operation: impl Into<String>, kind: ErrorKind) -> Self {
        Self(Box::new(Inner { operation: operation.into(), kind, seen_before: false, retry_after: None }))
    }

    pub(crate) fn config(operation: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(operation, ErrorKind::Config { message: message.into() })
    }

    /// An answer that cannot be read, of which nothing is shown: it may be secret, or is no text.
    pub(crate) fn unreadable(
        operation: impl Into<String>,
        path: impl Into<String>,
        what: impl Into<String>,
    ) -> Self {
        let (path, what, snippet) = (path.into(), what.into(), String::new());
        Self::new(operation, ErrorKind::Undecodable { path, what, snippet })
    }

    /// A file of this machine that cannot be made, written or moved.
    #[cfg(all(feature = "native", not(target_arch = "wasm32")))]
    pub(crate) fn file(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::config(path.display().to_string(), format!("it cannot be written: {error}"))
    }

    pub(crate) fn transport(operation: impl Into<String>, error: &TransportError) -> Self {
        let message = error.message.clone();
        Self::new(
            operation,
            match error.kind {
                TransportErrorKind::Connect => ErrorKind::NeverSent { message },
                TransportErrorKind::Build => ErrorKind::Config { message },
                TransportErrorKind::Request | TransportErrorKind::Body => {
                    ErrorKind::MayHaveBeenSent { message }
                }
            },
        )
    }

    /// Marks that an attempt before the one that this error tells of may have been seen.
    pub(crate) fn seen_before(mut self, seen: bool) -> Self {
        self.0.seen_before |= seen;
        self
    }

    /// Notes how long the server asked to be left alone.
    pub(crate) fn after(mut self, retry_after: Option<Duration>) -> Self {
        self.0.retry_after = retry_after;
        self
    }

    /// How long the server asked not to be asked again (`Retry-After`), where it said so.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// What happened.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// What was being done: the endpoint, and the run or path.
    pub fn operation(&self) -> &str {
        &self.0.operation
    }

    /// The status that the server answered with, if it answered with one that is not a success.
    pub fn status(&self) -> Option<u16> {
        match self.kind() {
            ErrorKind::Refused { status, .. } => Some(*status),
            ErrorKind::Expired { .. } => Some(410),
            _ => None,
        }
    }

    /// The server's own words, where it gave any.
    pub fn detail(&self) -> Option<&str> {
        match self.kind() {
            ErrorKind::Refused { detail, .. } => Some(detail),
            ErrorKind::Failed { message, .. } => Some(message),
            _ => None,
        }
    }

    /// What the server said of it, wherever it stands in this error's sentence.
    pub(crate) fn words_of_the_server(&self) -> Vec<&str> {
        match self.kind() {
            ErrorKind::Refused { detail, .. } => vec![detail],
            ErrorKind::Failed { message, .. } => vec![message],
            ErrorKind::Undecodable { what, snippet, .. } => vec![what, snippet],
            ErrorKind::Poisoned { cause, .. } => cause.words_of_the_server(),
            _ => Vec::new(),
        }
    }

    /// The request's id, where the server had given one.
    pub fn request_id(&self) -> Option<&str> {
        match self.kind() {
            ErrorKind::Refused { request_id, .. }
            | ErrorKind::Failed { request_id, .. }
            | ErrorKind::Expired { request_id } => request_id.as_deref(),
            _ => None,
        }
    }

    /// Whose fault it was: `User` for what another try cannot mend, `Server` for what the service did,
    /// `Unknown` where nothing says.
    pub fn category(&self) -> RequestErrorCategory {
        match self.kind() {
            ErrorKind::Failed { category, .. } => category.clone(),
            ErrorKind::Config { .. } => RequestErrorCategory::User,
            ErrorKind::Refused { status, .. } => match status {
                408 | 409 | 425 | 429 => RequestErrorCategory::Unknown,
                400..=499 => RequestErrorCategory::User,
                500..=599 => RequestErrorCategory::Server,
                _ => RequestErrorCategory::Unknown,
            },
            ErrorKind::Poisoned { cause, .. } => cause.category(),
            _ => RequestErrorCategory::Unknown,
        }
    }

    /// Whether the same call, made again later, may go through.
    pub fn is_retryable(&self) -> bool {
        match self.kind() {
            ErrorKind::NeverSent { .. } | ErrorKind::MayHaveBeenSent { .. } | ErrorKind::TimedOut { .. } => {
                true
            }
            ErrorKind::Refused { status, .. } => {
                matches!(status, 402 | 408 | 409 | 425 | 429) || (500..600).contains(status)
            }
            ErrorKind::Failed { category, .. } => *category != RequestErrorCategory::User,
            _ => false,
        }
    }

    /// Whether the service was not there, or asked for patience, so that nothing is known of what it would have answered:
    /// no connection, no answer in time, or a 402, 408, 429, 502, 503 or 504.
    pub fn is_outage(&self) -> bool {
        match self.kind() {
            ErrorKind::NeverSent { .. } | ErrorKind::MayHaveBeenSent { .. } | ErrorKind::TimedOut { .. } => {
                true
            }
            ErrorKind::Refused { status, .. } => matches!(status, 402 | 408 | 429 | 502..=504),
            _ => false,
        }
    }

    /// Whether the server may have acted on the request, as far as can be told from here.
    pub fn may_have_been_seen(&self) -> bool {
        self.0.seen_before
            || !matches!(
                self.kind(),
                ErrorKind::Config { .. }
                    | ErrorKind::NeverSent { .. }
                    | ErrorKind::Cancelled { .. }
                    | ErrorKind::Poisoned { .. }
            )
    }

    /// Whether it is certain that the server did not take the request: never sent, or refused with a 4xx that
    /// decides, and no earlier attempt that broke off. After one that did, a 409 may tell of what that one has done.
    pub fn is_definite_refusal(&self) -> bool {
        !self.0.seen_before
            && match self.kind() {
                ErrorKind::Refused { status, .. } => {
                    (400..500).contains(status) && !matches!(status, 408 | 425) || (300..400).contains(status)
                }
                ErrorKind::Expired { .. } => true,
                ErrorKind::Config { .. } | ErrorKind::NeverSent { .. } | ErrorKind::Cancelled { .. } => true,
                _ => false,
            }
    }

    /// Whether the server does not have this endpoint: status 405, or a 404 in the router's own words, which is
    /// not the 404 of a thing that does not exist.
    pub fn is_unsupported(&self) -> bool {
        match self.kind() {
            ErrorKind::Refused { status: 405, .. } => true,
            ErrorKind::Refused { status: 404, detail, .. } => detail.is_empty() || detail == "Not Found",
            _ => false,
        }
    }

    /// Whether a server that knows the endpoint's older form only may have answered so: it has no such endpoint, or
    /// finds members missing or unknown, and says so. What is refused for what it asks for is no unknown form.
    pub(crate) fn is_unknown_form(&self) -> bool {
        let said = self.detail().unwrap_or_default().to_ascii_lowercase();
        let finds_members =
            matches!(self.status(), Some(400 | 422)) && FORM.iter().any(|words| said.contains(words));
        self.is_unsupported() || finds_members
    }

    /// Whether a heartbeat's answer says that the session is over: a service without heartbeats does not say so.
    pub(crate) fn says_session_is_over(&self) -> bool {
        matches!(self.status(), Some(404 | 410)) && !self.is_unsupported()
    }

    /// Whether the thing asked for does not exist on a server that has the endpoint.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404) && !self.is_unsupported()
    }
}

/// How servers say that a body has not the members that it should have: pydantic 2 and 1, which SkyRL and TuFT answer by,
/// and serde.
const FORM: [&str; 5] = [
    "field required",
    "extra inputs are not permitted",
    "extra fields not permitted",
    "missing field",
    "unknown field",
];

/// What is written through this may reach a terminal, which obeys control characters: they become blanks.
struct Plain<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for Plain<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.split(char::is_control).enumerate().try_for_each(|(i, part)| {
            self.0.write_str(if i > 0 { " " } else { "" })?;
            self.0.write_str(part)
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, f) = (&self.0.operation, &mut Plain(f));
        match &self.0.kind {
            ErrorKind::Config { message } => write!(f, "{what}: {message}"),
            ErrorKind::NeverSent { message } => write!(
                f,
                "{what} was never sent: {message}. Is the service running, and is its address right?"
            ),
            ErrorKind::MayHaveBeenSent { message } => write!(
                f,
                "{what} broke off: {message}. The server may have seen the request; look at the run before you \
                 send it again."
            ),
            ErrorKind::Refused { status, detail, .. } => {
                write!(f, "{what} was refused with status {status}")?;
                if detail.is_empty() {
                    f.write_str(".")?;
                } else {
                    write!(f, ": {detail}{}", if detail.ends_with(['.', '?', '!']) { "" } else { "." })?;
                }
                f.write_str(match status {
                    300..=399 => {
                        " The server redirects, and redirects are not followed, so that the API key stays with \
                         the address it was given for: use the address it redirects to."
                    }
                    401 | 403 => " Check the API key.",
                    402 => " The account's billing blocks it: settle it, then try again.",
                    _ if self.is_unsupported() => " This server does not have that endpoint.",
                    404 => " Check the id or path.",
                    409 => " Something of that name or number is there already.",
                    429 => " The service is busy: try again later.",
                    500..=599 => " The fault is the service's: try again later.",
                    _ => "",
                })
            }
            ErrorKind::Failed { category, message, .. } => {
                write!(f, "{what} failed: {message}{}", if message.ends_with('.') { "" } else { "." })?;
                f.write_str(match category {
                    RequestErrorCategory::User => " The server says that the request is at fault: change it.",
                    RequestErrorCategory::Server => {
                        " The server says that the fault is its own: check whether the run is poisoned, and \
                         restore it from its last checkpoint if it is."
                    }
                    _ => "",
                })
            }
            ErrorKind::Expired { .. } => write!(
                f,
                "{what}: the server no longer has the result (status 410). Look at the run to see whether the \
                 request took effect."
            ),
            ErrorKind::Undecodable { path, what: problem, snippet } => {
                write!(f, "{what}: the answer cannot be read at {path}: {problem}.")?;
                if snippet.is_empty() { Ok(()) } else { write!(f, " It begins: {snippet}") }
            }
            ErrorKind::Poisoned { run_id, checkpoint, cause } => {
                write!(
                    f,
                    "{what} was not sent: the order of the operations of run {run_id} is lost, because {cause} \
                     Restore the run from "
                )?;
                match checkpoint {
                    Some(path) => write!(f, "{path}, the last checkpoint that this client knows of,")?,
                    None => f.write_str("its last checkpoint")?,
                }
                f.write_str(" and go on with the new one.")
            }
            ErrorKind::Unrecovered { run_id, reason } => {
                write!(f, "{what}: run {run_id} has lost its state and could not be made anew: {reason}")
            }
            ErrorKind::Cancelled { reason } => write!(f, "{what} was not sent: {reason}"),
            ErrorKind::TimedOut { after } => write!(
                f,
                "{what} had no answer within {} s. The server may have seen the request.",
                after.as_secs_f64()
            ),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error").field("operation", &self.0.operation).field("kind", &self.0.kind).finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.kind {
            ErrorKind::Poisoned { cause, .. } => Some(cause),
            _ => None,
        }
    }
}

/// How many characters of an answer an error shows.
const SHOWN: usize = 200;

/// What an answer that is not a success says, fit for a sentence: the `detail` of a JSON body, the beginning of a
/// text, or what an HTML page seems to be.
pub(crate) fn detail_of(body: &[u8]) -> String {
    if let Ok(value) = json::read::<retinker_wire::ErrorBody>(body)
        && let Some(text) = value.text()
    {
        return shorten(&text);
    }
    snippet_of(body)
}

/// The beginning of a body, on one line.
pub(crate) fn snippet_of(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body.get(..body.len().min(4 * SHOWN)).unwrap_or_default());
    let text = text.trim_start();
    if looks_like_html(text) {
        return "the answer is HTML, not JSON: is this a Tinker service's address?".to_owned();
    }
    shorten(text)
}

fn looks_like_html(text: &str) -> bool {
    let start: String = text.chars().take(15).collect::<String>().to_ascii_lowercase();
    start.starts_with("<!doctype html") || start.starts_with("<html") || start.starts_with("<head")
}

fn shorten(text: &str) -> String {
    let mut line: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN + 1).collect::<String>();
    if line.chars().count() > SHOWN {
        line = line.chars().take(SHOWN).collect();
        line.push('…');
    }
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, detail: &str) -> Error {
        Error::new(
            "get_session of session s",
            ErrorKind::Refused { status, detail: detail.into(), request_id: None },
        )
    }

    #[test]
    fn terminals_are_not_given_orders() {
        let message = "it names '\u{1b}[2Ja\u{8}'".to_owned();
        let error = Error::new("a\nb", ErrorKind::Config { message });
        assert_eq!(error.to_string(), "a b: it names ' [2Ja '");
    }

    #[test]
    fn is_small() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }

    #[test]
    fn a_missing_endpoint_is_not_a_missing_thing() {
        assert!(refused(404, "Not Found").is_unsupported());
        assert!(refused(405, "Method Not Allowed").is_unsupported());
        let missing = refused(404, "Model x not found");
        assert!(!missing.is_unsupported() && missing.is_not_found());
        assert!(
            missing.to_string().contains("get_session of session s was refused with status 404"),
            "{missing}"
        );
    }

    #[test]
    fn a_refusal_is_definite_only_if_nothing_broke_off_before() {
        assert!(refused(422, "bad").is_definite_refusal());
        assert!(!refused(422, "bad").seen_before(true).is_definite_refusal());
        assert!(refused(409, "taken").is_definite_refusal());
        assert!(!refused(409, "taken").seen_before(true).is_definite_refusal());
        assert!(!refused(503, "").is_definite_refusal());
    }

    #[test]
    fn an_unknown_form_is_told_from_a_refusal_of_what_was_asked() {
        assert!(refused(422, "Field required").is_unknown_form());
        assert!(refused(422, "Extra inputs are not permitted; Field required").is_unknown_form());
        assert!(refused(404, "Not Found").is_unknown_form() && refused(405, "").is_unknown_form());
        assert!(!refused(400, "LoadWeights is not permitted with seq_id 25").is_unknown_form());
        assert!(!refused(400, "Invalid checkpoint tinker path tinker://r/x").is_unknown_form());
        assert!(!refused(422, "the access token is not valid").is_unknown_form());
        assert!(!refused(403, "Field required").is_unknown_form());
    }

    #[test]
    fn html_is_named_and_never_shown() {
        let page = b"\n<!DOCTYPE html><html><body>secret=1</body></html>";
        assert_eq!(detail_of(page), "the answer is HTML, not JSON: is this a Tinker service's address?");
        assert_eq!(detail_of(br#"{"detail":[{"msg":"a"},{"msg":"b"}]}"#), "a; b");
        assert_eq!(detail_of("x".repeat(500).as_bytes()).chars().count(), SHOWN + 1);
    }

    #[test]
    fn categories_and_retries() {
        assert_eq!(refused(400, "").category(), RequestErrorCategory::User);
        assert_eq!(refused(500, "").category(), RequestErrorCategory::Server);
        assert!(refused(503, "").is_retryable() && !refused(404, "x").is_retryable());
    }
}
