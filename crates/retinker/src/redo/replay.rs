//! Operations of the log done again with a new run, in their order.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_core::future::BoxFuture;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use retinker_wire::future::RequestErrorCategory;

use super::RedoError;
use super::entry::{Entry, Frame};
use super::ledger::{Ledger, Op};
use super::log::{LogError, RedoLog};
use super::outcome::result_type;
use crate::client::Error;
use crate::client::pending::{Raw, Watch, wait_raw};
use crate::client::training::line::Line;
use crate::client::training::operation::{self, Accepted, Stop};
use crate::recovery::evidence::Symptom;

/// Operations under way at once.
const AT_ONCE: usize = 32;

/// An operation to be done again: its number, and which of its requests.
pub(crate) struct Again {
    pub(crate) number: u64,
    pub(crate) op: Op,
    pub(crate) parts: Vec<usize>,
    /// What whoever waits for it watches.
    pub(crate) watch: Arc<Watch>,
}

/// A request that was done again.
pub(crate) struct Done {
    pub(crate) op: u64,
    pub(crate) part: usize,
    pub(crate) accepted: Accepted,
    pub(crate) result: Result<Raw, Error>,
}

/// Why a replay ended before its end.
pub(crate) enum Halt {
    /// The new run does not take what is sent to it.
    Lost {
        /// What it says.
        error: Error,
        /// The operation that was being carried out, or sent, if that is known.
        op: Option<u64>,
    },
    /// It cannot be done.
    Stop(RedoError),
}

impl From<LogError> for Halt {
    fn from(error: LogError) -> Self {
        Self::Stop(error.into())
    }
}

/// Whether what was refused was refused for what it asks for.
fn is_the_requests_fault(error: &Error) -> bool {
    let users = error.category() == RequestErrorCategory::User;
    users && Symptom::of(error).is_none() && !error.is_not_found()
}

/// Does operations again, as fast as they can be sent.
pub(crate) struct Replay {
    log: Arc<dyn RedoLog>,
    queue: VecDeque<Again>,
    waiting: FuturesOrdered<BoxFuture<'static, Done>>,
    /// Why no more can be sent, from which operation on.
    refused: Option<(Error, u64)>,
}

impl Replay {
    pub(crate) fn new(log: Arc<dyn RedoLog>, queue: VecDeque<Again>) -> Self {
        Self { log, queue, waiting: FuturesOrdered::new(), refused: None }
    }

    /// The next request that is done, in order; `None` at the end. What was sent when the run stopped to take more is told
    /// before that is.
    pub(crate) async fn next(&mut self, line: &Line) -> Result<Option<Done>, Halt> {
        while self.waiting.len() < AT_ONCE && self.refused.is_none() {
            let Some(again) = self.queue.pop_front() else { break };
            self.send(line, again).await?;
        }
        match (self.waiting.next().await, self.refused.take()) {
            (None, Some((error, op))) => Err(Halt::Lost { error, op: Some(op) }),
            (done, refused) => {
                self.refused = refused;
                Ok(done)
            }
        }
    }

    async fn send(&mut self, line: &Line, again: Again) -> Result<(), Halt> {
        let Again { number, op, parts, watch } = again;
        let requests = requests(&*self.log, &op, &parts).await?;
        match line.send(requests, &watch).await {
            Ok(accepted) => self.await_results(line, number, &op, (parts, accepted), &watch),
            // It was never accepted before either, and says now what is wrong with it.
            Err(Stop::Refused { error, taken }) if is_the_requests_fault(&error) => {
                let rest = parts.get(taken.len()..).unwrap_or_default().to_vec();
                self.await_results(line, number, &op, (parts, taken), &watch);
                for part in rest {
                    let accepted = Accepted::nothing();
                    let done = Done { op: number, part, accepted, result: Err(error.clone()) };
                    self.waiting.push_back(Box::pin(std::future::ready(done)));
                }
            }
            Err(Stop::Refused { error, .. } | Stop::Lost(error)) => self.refused = Some((error, number)),
        }
        Ok(())
    }

    fn await_results(
        &mut self,
        line: &Line,
        number: u64,
        op: &Op,
        (parts, accepted): (Vec<usize>, Vec<Accepted>),
        watch: &Arc<Watch>,
    ) {
        for (part, accepted) in parts.into_iter().zip(accepted) {
            let (api, watch, kind) = (line.api.clone(), watch.clone(), result_type(&op.form));
            let name = format!("{} of run {}", op.form.name(), line.model_id);
            self.waiting.push_back(Box::pin(async move {
                let result = wait_raw(&api, &accepted.request_id, kind, &name, &watch).await;
                Done { op: number, part, accepted, result }
            }));
        }
    }
}

/// The requests of an operation, as they were written down.
pub(crate) async fn again_from_log(
    log: &Arc<dyn RedoLog>,
    ledger: &Ledger,
    number: u64,
) -> Result<Vec<operation::Part>, LogError> {
    match ledger.ops.get(&number) {
        Some(op) => requests(&**log, op, &(0..op.parts.len()).collect::<Vec<_>>()).await,
        None => Ok(Vec::new()),
    }
}

async fn requests(log: &dyn RedoLog, op: &Op, parts: &[usize]) -> Result<Vec<operation::Part>, LogError> {
    let mut requests = Vec::with_capacity(parts.len());
    for part in parts.iter().filter_map(|part| op.parts.get(*part)) {
        let Frame { entry: Entry::Request(entry), body } = log.read(part.place).await? else {
            let reason = "no request is there".to_owned();
            return Err(LogError::Damaged { log: log.name(), place: part.place, reason });
        };
        let makes_a_sampler = entry.form.makes_a_sampler();
        let request = entry.form.request(&body);
        requests.push(operation::Part {
            write: Box::new(move || Ok(request)),
            bytes: part.bytes,
            datums: part.datums,
            tokens: part.tokens,
            makes_a_sampler,
            of_session: None,
        });
    }
    Ok(requests)
}
