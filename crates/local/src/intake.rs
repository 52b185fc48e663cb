//! What is being received and read, and when that is too much: a small frame can unpack to a large body, and many large
//! ones can come at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many bytes of bodies are held until they are understood.
#[derive(Debug)]
pub(crate) struct Intake {
    limit: u64,
    bytes: AtomicU64,
}

/// A body's part; given back when dropped.
#[derive(Debug)]
pub(crate) struct Held {
    intake: Arc<Intake>,
    bytes: u64,
}

impl Intake {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, bytes: AtomicU64::new(0) }
    }

    /// A body of which nothing has come yet.
    pub(crate) fn open(self: &Arc<Self>) -> Held {
        Held { intake: Arc::clone(self), bytes: 0 }
    }
}

impl Held {
    /// Notes that so many bytes more are held, or says why they may not be. A body that is alone may be as large as it is.
    pub(crate) fn grow(&mut self, more: usize) -> Result<(), String> {
        let (more, own) = (more as u64, self.bytes);
        let grown = self.intake.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            let sum = held.saturating_add(more);
            (sum <= self.intake.limit || held == own).then_some(sum)
        });
        match grown {
            Ok(_) => {
                self.bytes += more;
                Ok(())
            }
            Err(held) => Err(format!(
                "the service is full: it is reading {:.1} MiB of other requests, and at most {:.1} MiB may be; send this \
                 one again",
                held.saturating_sub(own) as f64 / f64::from(1 << 20),
                self.intake.limit as f64 / f64::from(1 << 20),
            )),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.intake.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_bounded_unless_it_is_alone() {
        let intake = Arc::new(Intake::new(100));
        let (mut first, mut second) = (intake.open(), intake.open());
        first.grow(60).unwrap();
        first.grow(200).unwrap();
        let full = second.grow(1).unwrap_err();
        assert!(full.starts_with("the service is full"), "{full}");
        drop(first);
        second.grow(90).unwrap();
        assert!(intake.open().grow(20).is_err());
        drop(second);
        assert_eq!(intake.bytes.load(Ordering::Relaxed), 0);
    }
}
