//! Where sampling requests wait for the engine.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};

use super::Source;
use super::spec::Spec;
use crate::futures::{Completer, Outcome};
use crate::sync::lock;

/// How many requests may wait.
const MAX_WAITING: usize = 4096;
/// How much memory they may take.
const MAX_WAITING_BYTES: usize = 64 << 20;

/// A sampling request.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) source: Source,
    pub(crate) spec: Spec,
    pub(crate) completer: Completer,
}

/// The way to the sampler. It outlives the sampler's thread.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Job>,
    bytes: usize,
    /// Requests that nobody wants any more and that are not among those that wait.
    cancelled: Vec<String>,
    stop: bool,
}

impl Sampler {
    /// Puts a request last, or gives its completer back, with a sentence, when too many wait.
    pub(crate) fn submit(&self, job: Job) -> Result<(), (Completer, String)> {
        let bytes = job.spec.bytes();
        {
            let mut state = lock(&self.state);
            let waiting = state.waiting.len();
            if waiting >= MAX_WAITING || (waiting > 0 && state.bytes + bytes > MAX_WAITING_BYTES) {
                let reason =
                    format!("{waiting} sampling requests are waiting already; try again in a moment");
                return Err((job.completer, reason));
            }
            state.bytes += bytes;
            state.waiting.push_back(job);
        }
        self.changed.notify_one();
        Ok(())
    }

    /// Nobody wants this request's result any more. One that is done, or that never was, is left alone.
    pub(crate) fn cancel(&self, request_id: &str) {
        let mut state = lock(&self.state);
        let found = state.waiting.iter().position(|job| job.completer.request_id() == request_id);
        match found.and_then(|at| state.waiting.remove(at)) {
            Some(job) => {
                state.bytes -= job.spec.bytes();
                drop(state);
                job.completer.complete(cancelled(request_id));
            }
            None => {
                state.cancelled.push(request_id.to_owned());
                drop(state);
                self.changed.notify_one();
            }
        }
    }

    /// Tells the engine to end before its next token.
    pub(crate) fn stop(&self) {
        lock(&self.state).stop = true;
        self.changed.notify_one();
    }

    /// What was cancelled since the last call. An engine that is `idle` waits for something to do. `None` when the service
    /// stops.
    pub(super) fn news(&self, idle: bool) -> Option<Vec<String>> {
        let mut state = lock(&self.state);
        loop {
            if state.stop {
                return None;
            }
            if !idle || !state.waiting.is_empty() || !state.cancelled.is_empty() {
                return Some(std::mem::take(&mut state.cancelled));
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The request that waits longest.
    pub(super) fn next(&self) -> Option<Job> {
        let mut state = lock(&self.state);
        let job = state.waiting.pop_front()?;
        state.bytes -= job.spec.bytes();
        Some(job)
    }
}

/// What a cancelled request resolves to.
pub(super) fn cancelled(request_id: &str) -> Outcome {
    Outcome::user(format!("request {request_id} was cancelled by its client"))
}
