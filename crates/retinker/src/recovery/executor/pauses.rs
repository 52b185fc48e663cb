//! Whether the service has paused what restores wait for, or asked for patience.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{Either, select};
use retinker_wire::future::QueueState;
use retinker_wire::time::Time;

use crate::client::{Error, Pending, PendingEvent};

/// How long no other restore begins while the service has paused one; then it is looked again.
const PAUSED: Duration = Duration::from_secs(10);
/// How long none begins after the service was not there for one, where it does not say how long.
pub(in crate::recovery) const LEFT_ALONE: Duration = Duration::from_secs(60);
/// The longest that a service can ask for.
pub(in crate::recovery) const LONGEST_ALONE: Duration = Duration::from_secs(3600);

/// What the service asks of the restores of a process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Pauses(Arc<Mutex<Asked>>);

#[derive(Debug, Default)]
struct Asked {
    /// How many requests it has paused, for want of capacity or because of a limit.
    paused: usize,
    /// Until when it wants to be left alone.
    until: Option<Time>,
}

/// A pause that lasts until this is dropped.
struct Pause(Pauses);

impl Drop for Pause {
    fn drop(&mut self) {
        self.0.asked().paused -= 1;
    }
}

/// How long a service that answered so is left alone.
pub(in crate::recovery) fn patience(error: &Error) -> Duration {
    error.retry_after().unwrap_or(LEFT_ALONE).min(LONGEST_ALONE)
}

impl Pauses {
    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until when no other restore should begin.
    pub(super) fn until(&self, now: Time) -> Option<Time> {
        let asked = self.asked();
        let paused = (asked.paused > 0).then(|| now.later(PAUSED));
        asked.until.filter(|until| *until > now).max(paused)
    }

    /// Notes that the service was not there, or asked for patience.
    pub(super) fn hold(&self, now: Time, error: &Error) {
        let mut asked = self.asked();
        asked.until = asked.until.max(Some(now.later(patience(error))));
    }

    fn begin(&self) -> Pause {
        self.asked().paused += 1;
        Pause(self.clone())
    }

    /// Waits for a result, and counts while the service says that it is paused.
    pub(super) async fn result_of<T: Send + 'static>(&self, pending: Pending<T>) -> Result<T, Error> {
        let mut events = pending.events();
        let mut pending = pin!(pending);
        let mut pause = None;
        loop {
            match select(pending.as_mut(), events.next()).await {
                Either::Left((outcome, _)) => return outcome,
                Either::Right((Some(PendingEvent::Queued { state, .. }), _)) => {
                    let is_paused = state.is_some_and(|state| state != QueueState::Active);
                    pause = is_paused.then(|| pause.take().unwrap_or_else(|| self.begin()));
                }
                Either::Right((Some(_), _)) => {}
                Either::Right((None, _)) => return pending.await,
            }
        }
    }
}
