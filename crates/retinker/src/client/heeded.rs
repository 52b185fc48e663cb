//! What a server has asked of every call that is made of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use retinker_wire::capabilities::ClientConfig;

use super::budget::{Budget, Taken};

/// Until a server says otherwise: the SDK's defaults.
#[derive(Debug)]
pub(crate) struct Heeded {
    billing_pause_sec: AtomicU64,
    responses: Arc<Budget>,
    /// Whether the server was asked.
    settled: AtomicBool,
}

impl Default for Heeded {
    fn default() -> Self {
        let config = ClientConfig::default();
        Self {
            billing_pause_sec: AtomicU64::new(config.billing_exception_max_pause_duration_sec),
            responses: Budget::new(config.inflight_response_bytes_semaphore_size),
            settled: AtomicBool::new(false),
        }
    }
}

impl Heeded {
    /// Notes what a server asks for.
    pub(crate) fn heed(&self, config: &ClientConfig) {
        self.billing_pause_sec.store(config.billing_exception_max_pause_duration_sec, Ordering::Relaxed);
        self.responses.resize(config.inflight_response_bytes_semaphore_size.max(1));
        self.settle();
    }

    /// Notes that the server has said what it had to say.
    pub(crate) fn settle(&self) {
        self.settled.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Relaxed)
    }

    /// How long billing is waited for in all by a policy of which this is the own pause.
    pub(crate) fn billing_pause(&self, own: Option<Duration>) -> Duration {
        own.unwrap_or_else(|| Duration::from_secs(self.billing_pause_sec.load(Ordering::Relaxed)))
    }

    /// Waits until a result of so many bytes may be on its way.
    pub(crate) async fn response(&self, bytes: u64) -> Taken {
        self.responses.take(i64::try_from(bytes).unwrap_or(i64::MAX)).await
    }
}
