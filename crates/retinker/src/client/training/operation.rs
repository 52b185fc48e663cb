//! What is called of a run, on its way from the caller to what sends it.

use std::sync::Arc;

use futures_channel::oneshot;
use futures_util::future::try_join_all;
use retinker_wire::capabilities::ClientConfig;
use retinker_wire::training::ForwardBackwardOutput;
use tracing::Span;

use super::order::Delivered;
use super::request::TrainingRequest;
use crate::client::api::Api;
use crate::client::error::{Error, ErrorKind};
use crate::client::pending::{FutureResult, Raw, Watch, wait};
use crate::client::sampling::SamplingClient;
use crate::client::session::Session;

pub(crate) enum Job {
    Operation(Operation),
    /// Answered when everything before it was accepted or refused.
    Barrier(oneshot::Sender<()>),
}

pub(crate) struct Operation {
    pub(crate) name: String,
    pub(crate) epoch: u64,
    pub(crate) cut: Cut,
    /// What follows from the results of the parts, and is sent before anything that was called later.
    pub(crate) then: Option<Then>,
    pub(crate) watch: Arc<Watch>,
    /// The caller's, which what is sent for it belongs to.
    pub(crate) span: Span,
    pub(crate) done: oneshot::Sender<Submitted>,
}

/// One request, which lacks only its place.
pub(crate) struct Part {
    pub(crate) write: Write,
    /// As estimated, for the budget of what is under way.
    pub(crate) bytes: usize,
    /// How many are in it, and tokens of theirs.
    pub(crate) datums: usize,
    pub(crate) tokens: usize,
    /// Whether it makes a sampler, which has a number in the session.
    pub(crate) makes_a_sampler: bool,
    /// Why it can be asked for in its session alone, if so.
    pub(crate) of_session: Option<&'static str>,
}

/// Writes a request. Done when it is sent, and no sooner: what waits for its turn takes no more memory than the batch.
pub(crate) type Write = Box<dyn FnOnce() -> Result<TrainingRequest, Error> + Send>;

/// Makes an operation's requests within the server's bounds.
pub(crate) type Cut = Box<dyn FnOnce(&ClientConfig) -> Vec<Part> + Send>;

/// Makes the requests of an operation's second half from the results of its first, each with its number of datums.
pub(crate) type Then =
    Box<dyn FnOnce(Vec<(ForwardBackwardOutput, usize)>, &ClientConfig) -> Result<Vec<Part>, Error> + Send>;

/// A request that the server has accepted.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) request_id: String,
    pub(crate) datums: usize,
    /// The number of the sampler that it makes.
    pub(crate) sampler: Option<u64>,
    /// Its result, if that has been waited for already.
    pub(crate) result: Option<Raw>,
}

impl Accepted {
    /// One that never was.
    pub(crate) fn nothing() -> Self {
        Self { request_id: String::new(), datums: 0, sampler: None, result: None }
    }
}

/// What an operation's requests came to.
pub(crate) struct Sent {
    /// Those of the second half, if there is one.
    pub(crate) accepted: Vec<Accepted>,
    /// The session that they were made in, while anybody holds it.
    pub(crate) session: Option<Arc<Session>>,
    /// The client of the sampler that it makes, if there is one already.
    pub(crate) sampler: Option<SamplingClient>,
}

pub(crate) struct Submitted {
    pub(crate) result: Result<Sent, Error>,
    pub(crate) _delivered: Option<Delivered>,
}

/// The results of an operation's requests, in their order, each with its number of datums. All are waited for at once; the
/// first that fails is the operation's failure.
pub(crate) async fn results<T: FutureResult>(
    api: &Api,
    accepted: &[Accepted],
    name: &str,
    watch: &Watch,
) -> Result<Vec<(T, usize)>, Error> {
    let waits = accepted.iter().map(|Accepted { request_id, datums, result, .. }| async move {
        let result = match result {
            Some(raw) => raw.read::<T>(name)?,
            None => wait::<T>(api, request_id, name, watch).await?,
        };
        Ok((result, *datums))
    });
    try_join_all(waits).await
}

/// Why an operation did not go through.
pub(crate) enum Stop {
    /// For certain: what follows can go on from here.
    Refused {
        /// Why.
        error: Error,
        /// What was accepted before it, of an operation of several requests.
        taken: Vec<Accepted>,
    },
    /// The server may have it, or has what was to follow it: nobody knows which number is next.
    Lost(Error),
}

impl Stop {
    /// Of an operation of which nothing was accepted.
    pub(crate) fn refused(error: Error) -> Self {
        Self::Refused { error, taken: Vec::new() }
    }
}

pub(crate) fn cancelled(operation: String, reason: String) -> Error {
    Error::new(operation, ErrorKind::Cancelled { reason })
}

pub(crate) fn after_refusal(operation: String, refusal: &Error) -> Error {
    cancelled(operation, format!("it was to follow a request that did not go through: {refusal}"))
}
