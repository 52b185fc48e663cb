//! How samples and batches are sent without overrunning the service: the rules of the official SDK 0.38.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use retinker_wire::capabilities::ClientConfig;

use super::budget::{Budget, Taken};
use crate::runtime::Runtime;

/// Submissions on their way at once.
const SUBMISSIONS: i64 = 400;
/// The same while the service has lately said that it is too much.
const THROTTLED: i64 = 10;
/// Results that are known to be there and are read at once: each takes a connection, and they come without delay. (Ours; the
/// official SDK has no such bound.)
const READINGS: i64 = 64;
/// What a byte counts for meanwhile.
const THROTTLED_COST: i64 = 20;
/// How long that lasts after a pause.
const LATELY: Duration = Duration::from_secs(10);
/// Up to so many estimated bytes a pause is short.
const SMALL: i64 = 128 << 10;
/// Pauses after a 429, for small prompts and for large ones.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// Shared by all clients of a session.
#[derive(Debug)]
pub(crate) struct Dispatch {
    submissions: Arc<Budget>,
    throttled: Arc<Budget>,
    bytes: Arc<Budget>,
    passes: Arc<Budget>,
    under_way: Arc<Budget>,
    readings: Arc<Budget>,
    /// Until when nothing is sent; `None` = nothing was ever refused.
    paused_until: Mutex<Option<Duration>>,
}

/// Leave to submit; kept until the submission is accepted.
#[derive(Debug)]
pub(crate) struct Admission {
    _submission: Taken,
    _few: Option<Taken>,
    _bytes: Taken,
}

impl Dispatch {
    pub(crate) fn new(config: &ClientConfig) -> Self {
        Self {
            submissions: Budget::new(SUBMISSIONS),
            throttled: Budget::new(THROTTLED),
            bytes: Budget::new(config.sample_dispatch_bytes_semaphore_size.max(1)),
            passes: Budget::new(config.fwdbwd_dispatch_bytes_semaphore_size.max(1)),
            under_way: Budget::new(
                i64::try_from(config.sample_max_concurrent_requests).unwrap_or(i64::MAX).max(1),
            ),
            readings: Budget::new(READINGS),
            paused_until: Mutex::new(None),
        }
    }

    /// Waits until a prompt of so many estimated bytes may be submitted.
    pub(crate) async fn admit(&self, runtime: &dyn Runtime, bytes: i64) -> Admission {
        let _submission = self.submissions.take(1).await;
        let throttled = self.paused_until().is_some_and(|until| runtime.monotonic() < until + LATELY);
        let _few = if throttled { Some(self.throttled.take(1).await) } else { None };
        let cost = if throttled { bytes.saturating_mul(THROTTLED_COST) } else { bytes };
        let admission = Admission { _submission, _few, _bytes: self.bytes.take(cost).await };
        self.pause(runtime).await;
        admission
    }

    /// Waits until a batch of so many estimated bytes may be submitted.
    pub(crate) async fn pass(&self, bytes: usize) -> Taken {
        self.passes.take(i64::try_from(bytes).unwrap_or(i64::MAX)).await
    }

    /// Waits until one more sample may be under way; kept until its result is there.
    pub(crate) async fn under_way(&self) -> Taken {
        self.under_way.take(1).await
    }

    /// Waits until one more result may be read that is known to be there.
    pub(crate) async fn reading(&self) -> Taken {
        self.readings.take(1).await
    }

    /// Waits until nothing is paused.
    pub(crate) async fn pause(&self, runtime: &dyn Runtime) {
        while let Some(left) = self
            .paused_until()
            .and_then(|until| until.checked_sub(runtime.monotonic()))
            .filter(|d| !d.is_zero())
        {
            runtime.sleep(left).await;
        }
    }

    /// Notes that the service has had too much: nothing is submitted for a while.
    pub(crate) fn too_much(&self, runtime: &dyn Runtime, bytes: i64) {
        let pause = if bytes <= SMALL { PAUSES.0 } else { PAUSES.1 };
        let until = runtime.monotonic() + pause;
        let mut paused = self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        *paused = Some(paused.map_or(until, |before| before.max(until)));
    }

    fn paused_until(&self) -> Option<Duration> {
        *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
