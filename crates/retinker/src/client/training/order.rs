//! The run's order: one task sends what was called, each operation after the one before it was accepted.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures_channel::{mpsc, oneshot};
use futures_core::future::BoxFuture;
use futures_util::StreamExt;
use futures_util::future::{OptionFuture, join_all, try_join_all};
use retinker_wire::capabilities::ClientConfig;
use retinker_wire::training::ForwardBackwardOutput;
use tracing::{Instrument, Span};

use crate::client::api::Api;
use crate::client::call::Call;
use crate::client::error::{Error, ErrorKind};
use crate::client::pending::{FutureResult, Watch, wait};
use crate::client::session::{Session, Settings};

/// The run's order, shared by the callers and the sender.
#[derive(Debug)]
pub(super) struct Order {
    state: Mutex<OrderState>,
}

#[derive(Debug, Default)]
pub(super) struct OrderState {
    pub(super) next_seq_id: u64,
    /// Counts refusals: a job of an earlier epoch was called before the refusal was known.
    pub(super) epoch: u64,
    /// A refusal that its caller has not been told of yet.
    pub(super) undelivered: Option<Error>,
    /// The last refusal, which jobs of earlier epochs name.
    refusal: Option<Error>,
    pub(super) poisoned: Option<Error>,
    /// The last checkpoint that was saved or loaded.
    pub(super) checkpoint: Option<String>,
    pub(super) closed: bool,
}

impl OrderState {
    /// The error of an operation that cannot be sent because the order is lost, if it is.
    pub(super) fn refuses(&self, operation: &str, model_id: &str) -> Option<Error> {
        let (run_id, checkpoint) = (model_id.to_owned(), self.checkpoint.clone());
        let poisoned = |cause| ErrorKind::Poisoned { run_id, checkpoint, cause };
        self.poisoned.clone().map(|cause| Error::new(operation, poisoned(cause)))
    }
}

impl Order {
    pub(super) fn new(next_seq_id: u64) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(OrderState { next_seq_id, ..OrderState::default() }) })
    }

    /// Notes where the run could be restored from.
    pub(super) fn remember(&self, checkpoint: &str) {
        self.lock().checkpoint = Some(checkpoint.to_owned());
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, OrderState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the time in which later calls count as made in ignorance of a refusal: when the refusal is delivered, or
/// when nobody is left to deliver it to.
pub(super) struct Delivered {
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

pub(super) enum Job {
    Operation(Operation),
    /// Answered when everything before it was accepted or refused.
    Barrier(oneshot::Sender<()>),
}

pub(super) struct Operation {
    pub(super) name: String,
    pub(super) epoch: u64,
    /// What has to be known before there is a request.
    pub(super) before: Option<Before>,
    pub(super) cut: Cut,
    /// What follows from the results of the parts, and is sent before anything that was called later.
    pub(super) then: Option<Then>,
    pub(super) watch: Arc<Watch>,
    /// The caller's, which what is sent for it belongs to.
    pub(super) span: Span,
    pub(super) done: oneshot::Sender<Submitted>,
}

/// One request, which lacks only its number.
pub(super) struct Part {
    pub(super) call: Box<dyn FnOnce(u64) -> Result<Call, Error> + Send>,
    /// As estimated, for the budget of what is under way.
    pub(super) bytes: usize,
    /// How many are in it.
    pub(super) datums: usize,
}

/// Finds out what has to be known; an error is a refusal.
pub(super) type Before = BoxFuture<'static, Result<(), Error>>;

/// Makes an operation's requests within the server's bounds.
pub(super) type Cut = Box<dyn FnOnce(&ClientConfig) -> Vec<Part> + Send>;

/// Makes the requests of an operation's second half from the results of its first, each with its number of datums.
pub(super) type Then =
    Box<dyn FnOnce(Vec<(ForwardBackwardOutput, usize)>, &ClientConfig) -> Result<Vec<Part>, Error> + Send>;

/// A request that the server has accepted.
pub(super) struct Accepted {
    pub(super) request_id: String,
    pub(super) datums: usize,
}

pub(super) struct Submitted {
    /// Where the results will be: those of the second half, if there is one.
    pub(super) result: Result<Vec<Accepted>, Error>,
    pub(super) _delivered: Option<Delivered>,
}

/// What sends. Dies with the last client of the run.
pub(super) struct Sender {
    api: Api,
    model_id: String,
    order: Arc<Order>,
    session: Weak<Session>,
    /// How the server wants to be talked to, as far as it has said.
    settings: Arc<Settings>,
}

impl Sender {
    pub(super) fn new(api: Api, model_id: String, order: Arc<Order>, session: &Arc<Session>) -> Self {
        Self { api, model_id, order, session: Arc::downgrade(session), settings: Settings::careful() }
    }

    /// Sends what was called, in order, until nobody can call any more.
    pub(super) async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Job>) {
        while let Some(job) = queue.next().await {
            match job {
                Job::Barrier(done) => {
                    let _ = done.send(());
                }
                Job::Operation(operation) => {
                    let span = operation.span.clone();
                    self.carry_out(operation).instrument(span).await;
                }
            }
        }
    }

    async fn carry_out(&mut self, operation: Operation) {
        let Operation { name, epoch, before, cut, then, watch, done, .. } = operation;
        let submitted = match self.may_go(&name, epoch) {
            Ok(()) => {
                if let Some(session) = self.session.upgrade() {
                    self.settings = session.settings(&self.api).await;
                }
                match OptionFuture::from(before).await {
                    Some(Err(error)) => self.conclude(Err(Stop::Refused(error))),
                    _ => self.submit(&name, cut(&self.settings.config), then, &watch).await,
                }
            }
            Err(error) => Submitted { result: Err(error), _delivered: None },
        };
        // Nobody may be waiting any more; the request keeps its place all the same.
        let _ = done.send(submitted);
    }

    fn may_go(&self, name: &str, epoch: u64) -> Result<(), Error> {
        let state = self.order.lock();
        if let Some(error) = state.refuses(name, &self.model_id) {
            return Err(error);
        }
        match &state.refusal {
            Some(refusal) if epoch != state.epoch => Err(after_refusal(name.to_owned(), refusal)),
            _ => Ok(()),
        }
    }

    async fn submit(&self, name: &str, parts: Vec<Part>, then: Option<Then>, watch: &Watch) -> Submitted {
        let first = self.send(parts, watch).await;
        let (Ok(accepted), Some(then)) = (&first, then) else { return self.conclude(first) };
        let second = match results(&self.api, accepted, name, watch).await {
            Ok(results) => match then(results, &self.settings.config) {
                Ok(parts) => self.send(parts, watch).await,
                Err(error) => Err(Stop::Refused(error)),
            },
            Err(error) => Err(Stop::Refused(error)),
        };
        self.conclude(second)
    }

    /// Notes in the order what came of an operation.
    fn conclude(&self, sent: Result<Vec<Accepted>, Stop>) -> Submitted {
        let mut state = self.order.lock();
        match sent {
            Ok(accepted) => Submitted { result: Ok(accepted), _delivered: None },
            Err(Stop::Lost(error)) => {
                let (model_id, seq_id) = (&self.model_id, state.next_seq_id);
                tracing::warn!(model_id, seq_id, %error, "the order of the run's operations is lost");
                state.poisoned = Some(error.clone());
                Submitted { result: Err(error), _delivered: None }
            }
            Err(Stop::Refused(error)) => {
                state.epoch += 1;
                state.undelivered = Some(error.clone());
                state.refusal = Some(error.clone());
                let delivered = Delivered { order: self.order.clone(), epoch: state.epoch };
                Submitted { result: Err(error), _delivered: Some(delivered) }
            }
        }
    }

    /// Sends the parts under the next numbers. Together, if the server takes that: all but the first, then the first, for
    /// which the server waits with the others; so they are there when it begins.
    async fn send(&self, parts: Vec<Part>, watch: &Watch) -> Result<Vec<Accepted>, Stop> {
        let start = self.order.lock().next_seq_id;
        let together = parts.len() > 1 && self.settings.config.parallel_fwdbwd_chunks;
        let datums: Vec<_> = parts.iter().map(|part| part.datums).collect();
        let mut sendings: Vec<_> =
            parts.into_iter().zip(start..).map(|(part, seq_id)| self.send_one(part, seq_id)).collect();
        let mut outcomes = Vec::with_capacity(sendings.len());
        if together {
            let rest = sendings.split_off(1);
            let rest = join_all(rest).await;
            // With one of the others missing, the first would only be carried out in vain.
            if rest.iter().all(Result::is_ok) {
                outcomes.extend(join_all(sendings).await.into_iter().map(Some));
            } else {
                outcomes.push(None);
            }
            outcomes.extend(rest.into_iter().map(Some));
        } else {
            for sending in sendings {
                let outcome = sending.await;
                let failed = outcome.is_err();
                outcomes.push(Some(outcome));
                if failed {
                    break;
                }
            }
        }
        let request_ids = self.settle(outcomes, watch)?;
        let accepted = request_ids.into_iter().zip(datums);
        Ok(accepted.map(|(request_id, datums)| Accepted { request_id, datums }).collect())
    }

    async fn send_one(&self, part: Part, seq_id: u64) -> Result<String, Error> {
        // Only batches count, and are worth compressing.
        if part.bytes == 0 {
            return self.api.accept(&(part.call)(seq_id)?).await;
        }
        // Written only now: what waits for its turn takes no more memory than the batch itself.
        let _taken = self.settings.dispatch.pass(part.bytes).await;
        let call = (part.call)(seq_id)?;
        let call = if self.settings.config.proto_compress_fwdbwd { call.compressed() } else { call };
        self.api.accept(&call).await
    }

    /// Takes the numbers that were accepted. `None` was not sent.
    ///
    /// A refusal leaves the order whole if nothing behind it was accepted: its number goes to the next operation.
    fn settle(
        &self,
        outcomes: Vec<Option<Result<String, Error>>>,
        watch: &Watch,
    ) -> Result<Vec<String>, Stop> {
        let mut request_ids = Vec::with_capacity(outcomes.len());
        let (mut gap, mut behind_a_gap) = (false, false);
        let (mut refused, mut undecided) = (None, None);
        for outcome in outcomes {
            match outcome {
                Some(Ok(request_id)) if gap => {
                    behind_a_gap = true;
                    watch.accepted(request_id);
                }
                Some(Ok(request_id)) => {
                    watch.accepted(request_id.clone());
                    request_ids.push(request_id);
                }
                Some(Err(error)) => {
                    gap = true;
                    let first = if error.is_definite_refusal() { &mut refused } else { &mut undecided };
                    first.get_or_insert(error);
                }
                None => gap = true,
            }
        }
        self.order.lock().next_seq_id += request_ids.len() as u64;
        match (undecided, refused) {
            (Some(error), _) => Err(Stop::Lost(error)),
            (None, Some(error)) if behind_a_gap => Err(Stop::Lost(error)),
            (None, Some(error)) => Err(Stop::Refused(error)),
            (None, None) => Ok(request_ids),
        }
    }
}

/// The results of an operation's requests, in their order, each with its number of datums. All are waited for at once; the
/// first that fails is the operation's failure.
pub(super) async fn results<T: FutureResult>(
    api: &Api,
    accepted: &[Accepted],
    name: &str,
    watch: &Watch,
) -> Result<Vec<(T, usize)>, Error> {
    let waits = accepted.iter().map(|Accepted { request_id, datums }| async move {
        Ok((wait::<T>(api, request_id, name, watch).await?, *datums))
    });
    try_join_all(waits).await
}

/// Why an operation did not go through.
enum Stop {
    /// For certain: what follows can go on from here.
    Refused(Error),
    /// The server may have it, or has what was to follow it: nobody knows which number is next.
    Lost(Error),
}

pub(super) fn cancelled(operation: String, reason: String) -> Error {
    Error::new(operation, ErrorKind::Cancelled { reason })
}

pub(super) fn after_refusal(operation: String, refusal: &Error) -> Error {
    cancelled(operation, format!("it was to follow a request that did not go through: {refusal}"))
}
