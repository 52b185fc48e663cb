//! What a recovering client tells of, so that people know what their training loop never saw.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures_channel::mpsc;
use futures_core::Stream;
use serde::Serialize;

/// Something that happened to a run with a redo log.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum RedoEvent {
    /// The run has lost its state.
    Lost {
        /// The run.
        run_id: String,
        /// By what this was seen.
        why: String,
    },
    /// The service is not there, or is in no state to make a run, or the log has no room for what the new run is not gone on with without:
    /// it is tried again.
    Waiting {
        /// What was said.
        why: String,
    },
    /// A checkpoint could not be restored; the one before it is tried.
    SteppedBack {
        /// Its path.
        path: String,
        /// Why.
        why: String,
    },
    /// A new run is there, and what was done since its checkpoint is done again.
    Replaying {
        /// The new run.
        run_id: String,
        /// The checkpoint that it was made from; `None` = from its beginning.
        path: Option<String>,
        /// Steps of the optimizer that are in it.
        step: u64,
        /// Requests to be done again.
        requests: u64,
        /// Steps of the optimizer among them.
        steps: u64,
    },
    /// The new run is where the old one was: training goes on.
    Recovered {
        /// The new run.
        run_id: String,
        /// The one whose place it has taken.
        from: String,
        /// Steps of the optimizer in all.
        step: u64,
        /// How long it took, in seconds.
        seconds: f64,
    },
    /// A checkpoint was saved that the log can stand on.
    Saved {
        /// Its path.
        path: String,
        /// Steps of the optimizer that are in it.
        step: u64,
    },
    /// A checkpoint was to be saved, and was not.
    NotSaved {
        /// Why.
        why: String,
    },
    /// A checkpoint was deleted that the log had saved, and that the policy's rule does not keep.
    Deleted {
        /// Its path.
        path: String,
    },
    /// Such a checkpoint was to be deleted, and was not; it is tried again after the next one is saved.
    NotDeleted {
        /// Its path; `None` = which there are is not known.
        path: Option<String>,
        /// Why.
        why: String,
    },
    /// What an operation came to could not be written down: after a recovery it is not held against anything.
    NotRecorded {
        /// Why.
        why: String,
    },
    /// The run cannot be recovered: every operation fails from now on.
    Stopped {
        /// The run that was lost.
        run_id: String,
        /// Why.
        why: String,
    },
}

impl fmt::Display for RedoEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { run_id, why } => write!(f, "Run {run_id} has lost its state: {why}"),
            Self::Waiting { why } => {
                write!(f, "It is not possible yet, and is tried again: {why}")
            }
            Self::SteppedBack { path, why } => {
                write!(f, "Checkpoint {path} could not be restored, the one before it is tried: {why}")
            }
            Self::Replaying { run_id, path, step, requests, steps } => {
                write!(f, "Run {run_id} was made ")?;
                match path {
                    Some(path) => write!(f, "from {path}, at step {step}")?,
                    None => f.write_str("from the beginning")?,
                }
                write!(f, "; {requests} requests are sent again, {steps} of them optimizer steps.")
            }
            Self::Recovered { run_id, from, step, seconds } => {
                write!(
                    f,
                    "Run {run_id} has taken the place of run {from} at step {step}, after {seconds:.1} s."
                )
            }
            Self::Saved { path, step } => write!(f, "Checkpoint {path} of step {step} was saved."),
            Self::NotSaved { why } => write!(f, "A checkpoint was not saved: {why}"),
            Self::Deleted { path } => write!(f, "Checkpoint {path} was deleted: the rule does not keep it."),
            Self::NotDeleted { path: Some(path), why } => {
                write!(f, "Checkpoint {path} was not deleted, though the rule does not keep it: {why}")
            }
            Self::NotDeleted { path: None, why } => write!(f, "No checkpoint was deleted: {why}"),
            Self::NotRecorded { why } => write!(f, "A result was not recorded: {why}"),
            Self::Stopped { run_id, why } => write!(f, "Run {run_id} cannot be recovered: {why}"),
        }
    }
}

/// Events that wait for the first who listens, at most; the oldest are dropped.
const UNHEARD: usize = 100;

/// Those who listen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hub(Arc<Mutex<Listeners>>);

#[derive(Debug, Default)]
struct Listeners {
    all: Vec<mpsc::UnboundedSender<RedoEvent>>,
    /// What nobody has heard: a run may be lost, and made anew, before its client is in anybody's hands.
    unheard: VecDeque<RedoEvent>,
}

impl Hub {
    pub(crate) fn tell(&self, event: RedoEvent) {
        match &event {
            RedoEvent::Saved { .. } | RedoEvent::Deleted { .. } => tracing::info!("{event}"),
            event => tracing::warn!("{event}"),
        }
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.all.retain(|listener| listener.unbounded_send(event.clone()).is_ok());
        if listeners.all.is_empty() {
            listeners.unheard.push_back(event);
            if listeners.unheard.len() > UNHEARD {
                listeners.unheard.pop_front();
            }
        }
    }

    pub(crate) fn listen(&self) -> impl Stream<Item = RedoEvent> + Send + 'static + use<> {
        let (sender, receiver) = mpsc::unbounded();
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for event in std::mem::take(&mut listeners.unheard) {
            let _ = sender.unbounded_send(event);
        }
        listeners.all.push(sender);
        receiver
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};

    use super::*;

    #[test]
    fn what_nobody_heard_is_told_to_the_first_who_listens() {
        let hub = Hub::default();
        let event = |n: usize| RedoEvent::NotSaved { why: n.to_string() };
        (0..=UNHEARD).for_each(|n| hub.tell(event(n)));
        let mut first = hub.listen();
        let mut second = hub.listen();
        hub.tell(event(1000));
        let mut heard = Vec::new();
        while let Some(Some(event)) = first.next().now_or_never() {
            heard.push(event);
        }
        assert_eq!(heard.len(), UNHEARD + 1);
        assert_eq!(
            (heard.first(), heard.last()),
            (Some(&event(1)), Some(&event(1000))),
            "the oldest was dropped"
        );
        assert_eq!(second.next().now_or_never(), Some(Some(event(1000))), "the second hears what comes");
        assert_eq!(second.next().now_or_never(), None);
    }
}
