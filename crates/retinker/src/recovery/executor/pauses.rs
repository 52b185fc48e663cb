//! Whether the service has paused what restores wait for.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use futures_util::future::{Either, select};
use retinker_wire::future::QueueState;

use crate::client::{Error, Pending, PendingEvent};

/// How many requests of restores the service has paused, for want of capacity or because of a limit. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Pauses(Arc<AtomicUsize>);

/// A pause that lasts until this is dropped.
struct Pause(Pauses);

impl Drop for Pause {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pauses {
    pub(super) fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    fn begin(&self) -> Pause {
        self.0.fetch_add(1, Ordering::Relaxed);
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
