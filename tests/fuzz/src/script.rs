//! A server whose answers are written down, in parts between lines of `--`. The first line of a part is its status, or how it
//! fails, and its headers; what follows is its body:
//!
//! ```text
//! 503; retry-after=1
//! {"detail":"busy"}
//! --
//! connect
//! --
//! 200; content-type=application/x-protobuf; @after=1500; @pieces=3
//! ...
//! ```
//!
//! Failures are `connect`, `request`, `build` and `never`. `@after` is how many milliseconds later it comes, `@pieces` how
//! long the pieces of its body are, `@cut` that the body breaks off.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream;
use retinker::runtime::Runtime;
use retinker::transport::{Request, Response, Transport, TransportError, TransportErrorKind};

/// More requests than this are asked by nobody who waits in between.
const MOST_REQUESTS: u32 = 3000;

/// The parts of an input.
pub(crate) fn parts(data: &[u8]) -> Vec<&[u8]> {
    let (mut parts, mut rest) = (Vec::new(), data);
    while let Some(at) = rest.windows(4).position(|line| line == b"\n--\n") {
        parts.push(&rest[..at]);
        rest = &rest[at + 4..];
    }
    parts.push(rest);
    parts
}

/// A part's first line, and what follows.
pub(crate) fn head_and_body(part: &[u8]) -> (String, &[u8]) {
    let at = part.iter().position(|byte| *byte == b'\n').unwrap_or(part.len());
    (String::from_utf8_lossy(&part[..at]).into_owned(), part.get(at + 1..).unwrap_or_default())
}

/// The `name=value` members of a first line.
pub(crate) fn members(head: &str) -> impl Iterator<Item = (&str, &str)> {
    head.split(';').skip(1).map(|member| {
        let (name, value) = member.split_once('=').unwrap_or((member, ""));
        (name.trim(), value)
    })
}

#[derive(Debug, Clone)]
struct Reply {
    outcome: Outcome,
    after: Duration,
}

#[derive(Debug, Clone)]
enum Outcome {
    Answer { status: u16, headers: Vec<(String, String)>, pieces: Vec<Bytes>, cut: bool },
    Fail(TransportErrorKind),
    Never,
}

impl Reply {
    fn new(part: &[u8]) -> Self {
        let (head, body) = head_and_body(part);
        let number = |name: &str| {
            let value = members(&head).find(|(member, _)| *member == name)?.1;
            value.trim().parse::<u32>().ok()
        };
        let outcome = match head.split(';').next().unwrap_or_default().trim() {
            "connect" => Outcome::Fail(TransportErrorKind::Connect),
            "request" => Outcome::Fail(TransportErrorKind::Request),
            "build" => Outcome::Fail(TransportErrorKind::Build),
            "never" => Outcome::Never,
            status => Outcome::Answer {
                status: status.parse().unwrap_or(200),
                headers: members(&head)
                    .filter(|(name, _)| !name.starts_with('@'))
                    .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                    .collect(),
                pieces: match number("@pieces") {
                    None | Some(0) => vec![Bytes::copy_from_slice(body)],
                    Some(length) => body.chunks(length as usize).map(Bytes::copy_from_slice).collect(),
                },
                cut: members(&head).any(|(name, _)| name == "@cut"),
            },
        };
        Self { outcome, after: Duration::from_millis(number("@after").unwrap_or(0).into()) }
    }

    /// What is answered when everything else was.
    fn last() -> Self {
        Self::new(b"404; content-type=application/json\n{\"detail\":\"the script is at its end\"}")
    }
}

/// Answers requests, whatever they are, one after the other.
#[derive(Clone)]
pub(crate) struct Script {
    runtime: Arc<dyn Runtime>,
    state: Arc<Mutex<State>>,
}

struct State {
    replies: Vec<Reply>,
    next: usize,
    repeats: bool,
    asked: u32,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Script")
    }
}

impl Script {
    /// Answers by these parts. Then it begins anew, or refuses everything with 404.
    pub(crate) fn new(runtime: Arc<dyn Runtime>, parts: &[&[u8]], repeats: bool) -> Self {
        let replies = parts.iter().map(|part| Reply::new(part)).collect();
        Self { runtime, state: Arc::new(Mutex::new(State { replies, next: 0, repeats, asked: 0 })) }
    }

    fn reply(&self) -> Reply {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.asked += 1;
        assert!(state.asked < MOST_REQUESTS, "{MOST_REQUESTS} requests were sent with hardly a pause");
        if state.repeats && state.next == state.replies.len() {
            state.next = 0;
        }
        let reply = state.replies.get(state.next).cloned();
        state.next += usize::from(reply.is_some());
        reply.unwrap_or_else(Reply::last)
    }
}

impl Transport for Script {
    fn send(&self, _request: Request) -> BoxFuture<'static, Result<Response, TransportError>> {
        let (runtime, reply) = (self.runtime.clone(), self.reply());
        async move {
            if !reply.after.is_zero() {
                runtime.sleep(reply.after).await;
            }
            match reply.outcome {
                Outcome::Answer { status, headers, pieces, cut } => {
                    let end = cut.then(|| Err(TransportError::new(TransportErrorKind::Body, "it broke off")));
                    let pieces = pieces.into_iter().map(Ok).chain(end);
                    Ok(Response { status, headers, body: Box::pin(stream::iter(pieces)) })
                }
                Outcome::Fail(kind) => Err(TransportError::new(kind, "the script says so")),
                Outcome::Never => std::future::pending().await,
            }
        }
        .boxed()
    }
}
