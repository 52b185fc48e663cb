//! What waits for the trainers, and when that is too much.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How many bytes of requests wait for the trainers.
#[derive(Debug)]
pub(crate) struct Backlog {
    limit: u64,
    bytes: AtomicU64,
    /// A request was turned away, and not much was carried out since.
    full: AtomicBool,
}

impl Backlog {
    /// Nothing waits yet, and so many bytes may.
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, bytes: AtomicU64::new(0), full: AtomicBool::new(false) }
    }

    /// Takes in a request of so many bytes, or says why it does not. One that `others_wait_for` is always taken in: without
    /// it none of them would ever be carried out. So is one that comes when nothing waits, however large it is.
    pub(crate) fn admit(self: &Arc<Self>, bytes: u64, others_wait_for: bool) -> Result<Waiting, String> {
        let admitted = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
            let sum = waiting.saturating_add(bytes);
            (sum <= self.limit || waiting == 0 || others_wait_for).then_some(sum)
        });
        if admitted.is_err() {
            self.full.store(true, Ordering::Relaxed);
            return Err(self.sentence());
        }
        Ok(Waiting { backlog: Arc::clone(self), bytes })
    }

    /// Why requests are turned away at the moment, if so.
    pub(crate) fn full(&self) -> Option<String> {
        self.full.load(Ordering::Relaxed).then(|| self.sentence())
    }

    fn sentence(&self) -> String {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        format!(
            "the service is full: {:.1} MiB of requests wait for its trainers, and at most {:.1} MiB may",
            mib(self.bytes.load(Ordering::Relaxed)),
            mib(self.limit)
        )
    }

    fn leave(&self, bytes: u64) {
        let before = self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if before.saturating_sub(bytes) <= self.limit / 2 {
            self.full.store(false, Ordering::Relaxed);
        }
    }
}

/// A request that waits; it counts until this is dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    backlog: Arc<Backlog>,
    bytes: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.backlog.leave(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_backlog_takes_only_what_others_wait_for() {
        let backlog = Arc::new(Backlog::new(100));
        let first = backlog.admit(60, false).unwrap();
        assert_eq!(backlog.full(), None);
        let refused = backlog.admit(41, false).unwrap_err();
        assert!(refused.starts_with("the service is full: 0.0 MiB"), "{refused}");
        assert!(backlog.full().is_some());
        let awaited = backlog.admit(500, true).unwrap();
        drop(first);
        assert!(backlog.full().is_some());
        drop(awaited);
        assert_eq!(backlog.full(), None);
        // Too large by itself, but nothing is gained by refusing it for ever.
        let large = backlog.admit(500, false).unwrap();
        assert!(backlog.admit(1, false).is_err());
        drop(large);
        assert_eq!(backlog.bytes.load(Ordering::Relaxed), 0);
    }
}
