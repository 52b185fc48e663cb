//! Time, chance and tasks by tokio and the system.

// The one place that reads the system's clocks; everything else is given a `Runtime`.
#![allow(clippy::disallowed_methods)]

use std::cell::RefCell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_core::future::BoxFuture;
use retinker_wire::time::Time;
use tokio::runtime::Handle;

use crate::runtime::Runtime;

/// A runtime on a tokio runtime.
#[derive(Debug, Clone)]
pub struct NativeRuntime {
    handle: Handle,
    origin: Instant,
}

impl NativeRuntime {
    /// On this tokio runtime, which must have its timer enabled.
    pub fn new(handle: Handle) -> Self {
        Self { handle, origin: Instant::now() }
    }

    /// On the tokio runtime that the caller runs in; `None` outside of one.
    pub fn current() -> Option<Self> {
        Handle::try_current().ok().map(Self::new)
    }
}

/// The system's randomness, asked for many numbers at once: each question is a call into the kernel.
fn drawn_ahead() -> Option<u64> {
    thread_local! {
        static AHEAD: RefCell<Vec<[u8; 8]>> = const { RefCell::new(Vec::new()) };
    }
    AHEAD.with_borrow_mut(|ahead| {
        if ahead.is_empty() {
            let mut drawn = [0; 512];
            getrandom::fill(&mut drawn).ok()?;
            ahead.extend(drawn.as_chunks().0);
        }
        ahead.pop().map(u64::from_ne_bytes)
    })
}

impl Runtime for NativeRuntime {
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let handle = self.handle.clone();
        Box::pin(async move {
            let sleep = {
                // The timer belongs to the runtime this was made with, whoever polls it.
                let _entered = handle.enter();
                tokio::time::sleep(duration)
            };
            sleep.await;
        })
    }

    fn now(&self) -> Time {
        let millis = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
        };
        Time::from_millis(millis)
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }

    fn random(&self) -> u64 {
        drawn_ahead().unwrap_or_else(|| {
            // The system has no randomness to give; the hasher's keys and the clock are enough for jitter.
            use std::hash::{BuildHasher, Hasher};
            let mut hasher = std::hash::RandomState::new().build_hasher();
            hasher.write_u128(self.origin.elapsed().as_nanos());
            hasher.finish()
        })
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.handle.spawn(task);
    }
}
