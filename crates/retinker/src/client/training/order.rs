//! The run's order, as its callers and what sends for them share it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::operation::{Stop, after_refusal};
use crate::client::error::{Error, ErrorKind};

/// The run's order, shared by the callers and what sends.
#[derive(Debug)]
pub(crate) struct Order {
    state: Mutex<OrderState>,
}

#[derive(Debug, Default)]
pub(crate) struct OrderState {
    /// The run, and the session that it belongs to.
    pub(crate) model_id: String,
    pub(crate) session_id: String,
    pub(crate) next_seq_id: u64,
    /// Counts refusals: a job of an earlier epoch was called before the refusal was known.
    pub(crate) epoch: u64,
    /// A refusal that its caller has not been told of yet.
    pub(crate) undelivered: Option<Error>,
    /// The last refusal, which jobs of earlier epochs name.
    refusal: Option<Error>,
    pub(crate) poisoned: Option<Error>,
    /// The last checkpoint that was saved or loaded.
    pub(crate) checkpoint: Option<String>,
    pub(crate) closed: bool,
}

impl OrderState {
    /// The error of an operation that cannot be sent because the order is lost, if it is.
    pub(crate) fn refuses(&self, operation: &str) -> Option<Error> {
        let (run_id, checkpoint) = (self.model_id.clone(), self.checkpoint.clone());
        let poisoned = |cause| ErrorKind::Poisoned { run_id, checkpoint, cause };
        self.poisoned.clone().map(|cause| Error::new(operation, poisoned(cause)))
    }
}

impl Order {
    pub(crate) fn new(model_id: String, session_id: String, next_seq_id: u64) -> Arc<Self> {
        let state = OrderState { model_id, session_id, next_seq_id, ..OrderState::default() };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Notes where the run could be restored from.
    pub(crate) fn remember(&self, checkpoint: &str) {
        self.lock().checkpoint = Some(checkpoint.to_owned());
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, OrderState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an operation of this epoch can be sent now.
    pub(crate) fn may_go(&self, name: &str, epoch: u64) -> Result<(), Error> {
        let state = self.lock();
        if let Some(error) = state.refuses(name) {
            return Err(error);
        }
        match &state.refusal {
            Some(refusal) if epoch != state.epoch => Err(after_refusal(name.to_owned(), refusal)),
            _ => Ok(()),
        }
    }

    /// Notes why an operation did not go through, and gives its error.
    pub(crate) fn stopped(self: &Arc<Self>, stop: Stop) -> (Error, Option<Delivered>) {
        let mut state = self.lock();
        match stop {
            Stop::Lost(error) => {
                let (model_id, seq_id) = (&state.model_id, state.next_seq_id);
                tracing::warn!(model_id, seq_id, %error, "the order of the run's operations is lost");
                state.poisoned = Some(error.clone());
                (error, None)
            }
            Stop::Refused { error, .. } => {
                state.epoch += 1;
                state.undelivered = Some(error.clone());
                state.refusal = Some(error.clone());
                let delivered = Delivered { order: self.clone(), epoch: state.epoch };
                (error, Some(delivered))
            }
        }
    }
}

/// Ends the time in which later calls count as made in ignorance of a refusal: when the refusal is delivered, or
/// when nobody is left to deliver it to.
pub(crate) struct Delivered {
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
