//! Keeps a session alive for as long as somebody holds it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_channel::oneshot;
use futures_util::future::select;
use retinker_wire::session::HEARTBEAT_INTERVAL;

use super::api::Api;
use super::error::{Error, ErrorKind};

/// How long beats may fail before each failure is a warning.
const SILENCE: Duration = Duration::from_secs(120);

/// Beats until dropped, or until the server says that the session is over.
pub(crate) struct Heartbeat {
    over: Arc<AtomicBool>,
    _stop: oneshot::Sender<()>,
}

impl fmt::Debug for Heartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heartbeat").field("over", &self.is_over()).finish()
    }
}

impl Heartbeat {
    /// The first beat comes after one interval: whatever made or found the session has just been heard.
    pub(crate) fn start(api: &Api, session_id: &str) -> Self {
        let (stop, stopped) = oneshot::channel();
        let over = Arc::new(AtomicBool::new(false));
        let beats = beat(api.clone(), session_id.to_owned(), over.clone());
        api.runtime().spawn(Box::pin(async move {
            select(Box::pin(beats), stopped).await;
        }));
        Self { over, _stop: stop }
    }

    /// Whether the server has said that the session is over.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

async fn beat(api: Api, session_id: String, over: Arc<AtomicBool>) {
    let runtime = api.runtime().clone();
    let mut last_success = runtime.monotonic();
    loop {
        runtime.sleep(HEARTBEAT_INTERVAL).await;
        match api.session_heartbeat(&session_id).await {
            Ok(()) => last_success = runtime.monotonic(),
            Err(error) if matches!(error.kind(), ErrorKind::Expired { .. }) => {
                over.store(true, Ordering::Release);
                tracing::warn!(session_id, "the session is over; its heartbeat stops");
                return;
            }
            Err(error) => complain(&session_id, &error, runtime.monotonic().saturating_sub(last_success)),
        }
    }
}

fn complain(session_id: &str, error: &Error, silent: Duration) {
    if silent > SILENCE {
        tracing::warn!(session_id, %error, seconds = silent.as_secs(), "no heartbeat has got through");
    } else {
        tracing::debug!(session_id, %error, "a heartbeat did not get through");
    }
}
