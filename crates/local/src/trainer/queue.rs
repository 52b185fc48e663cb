//! The order of one run's requests: what is next, and how long to wait for what is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long a missing request is waited for. A client gives up sending one after 300 s, tells its caller, and goes on
/// with the next number.
const PATIENCE: Duration = Duration::from_secs(330);
/// How long a missing request goes unmentioned: clients send the parts of a call side by side, so that they overtake each
/// other by a little.
const SILENCE: Duration = Duration::from_secs(5);

/// The order of one run's requests.
#[derive(Debug)]
pub(super) struct Queue<T> {
    /// The number whose turn it is.
    next: u64,
    waiting: BTreeMap<u64, T>,
    /// Numbers that were passed over because they did not come: `from..to`.
    passed_over: Vec<(u64, u64)>,
    /// Since when `next` is missing while later ones wait.
    missing_since: Option<Instant>,
    /// Whether it was mentioned that `next` is missing.
    mentioned: bool,
    /// Numbers up to this one are not waited for.
    expendable: u64,
}

/// Why a request cannot take its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    /// Its turn is past, and it was carried out.
    Executed,
    /// Its turn is past, and it was not carried out.
    PassedOver,
}

impl<T> Queue<T> {
    /// A queue that begins with the number `next`. Those up to `expendable` are taken if they come, but not waited for.
    pub(super) fn new(next: u64, expendable: u64) -> Self {
        Self {
            next,
            waiting: BTreeMap::new(),
            passed_over: Vec::new(),
            missing_since: None,
            mentioned: false,
            expendable,
        }
    }

    /// Takes a request in, or gives it back when its turn is past.
    pub(super) fn push(&mut self, seq: u64, request: T) -> Result<(), (Late, T)> {
        if seq < self.next {
            let passed_over = self.passed_over.iter().any(|(from, to)| (*from..*to).contains(&seq));
            let late = if passed_over { Late::PassedOver } else { Late::Executed };
            return Err((late, request));
        }
        self.waiting.insert(seq, request);
        Ok(())
    }

    /// Whether the next request is here. Numbers in `refused` are not waited for.
    pub(super) fn ready(&mut self, refused: &BTreeSet<u64>, now: Instant) -> bool {
        while let Some((&first, _)) = self.waiting.first_key_value()
            && first > self.next
        {
            if self.next <= self.expendable {
                self.pass_over(first.min(self.expendable + 1));
            } else if refused.contains(&self.next) {
                self.pass_over(self.next + 1);
            } else {
                break;
            }
        }
        let ready = self.waiting.contains_key(&self.next);
        if ready || self.waiting.is_empty() {
            self.missing_since = None;
            self.mentioned = false;
        } else {
            self.missing_since.get_or_insert(now);
        }
        ready
    }

    /// The number that later ones wait for.
    pub(super) fn missing(&self) -> Option<u64> {
        self.missing_since.map(|_| self.next)
    }

    /// The number that has been missing for so long that it should be said, once.
    pub(super) fn mention(&mut self, now: Instant) -> Option<u64> {
        if self.mentioned || self.missing_since? + SILENCE > now {
            return None;
        }
        self.mentioned = true;
        self.missing()
    }

    /// The next request, with its number.
    pub(super) fn pop(&mut self) -> Option<(u64, T)> {
        let seq = self.next;
        let request = self.waiting.remove(&seq)?;
        self.next += 1;
        Some((seq, request))
    }

    /// When to do something about a missing request.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.missing_since.map(|since| since + if self.mentioned { PATIENCE } else { SILENCE })
    }

    /// Stops waiting if the time has come. Gives the numbers that did not come.
    pub(super) fn give_up(&mut self, now: Instant) -> Option<(u64, u64)> {
        if self.missing_since? + PATIENCE > now {
            return None;
        }
        let (&first, _) = self.waiting.first_key_value()?;
        let missing = (self.next, first);
        self.pass_over(first);
        self.missing_since = None;
        Some(missing)
    }

    fn pass_over(&mut self, to: u64) {
        match self.passed_over.last_mut() {
            Some(last) if last.1 == self.next => last.1 = to,
            _ => self.passed_over.push((self.next, to)),
        }
        self.next = to;
        self.mentioned = false;
    }

    /// All that waits, emptying the queue.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = T> {
        std::mem::take(&mut self.waiting).into_values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> BTreeSet<u64> {
        BTreeSet::new()
    }

    #[test]
    fn requests_ahead_of_their_turn_wait() {
        let now = Instant::now();
        let mut queue = Queue::new(1, 0);
        queue.push(3, "c").unwrap();
        queue.push(2, "b").unwrap();
        assert!(!queue.ready(&none(), now));
        assert_eq!(queue.pop(), None);
        queue.push(1, "a").unwrap();
        assert!(queue.ready(&none(), now));
        assert_eq!([queue.pop(), queue.pop(), queue.pop()], [Some((1, "a")), Some((2, "b")), Some((3, "c"))]);
        assert_eq!(queue.push(2, "again"), Err((Late::Executed, "again")));
    }

    #[test]
    fn a_refused_number_is_not_waited_for_but_can_still_be_given_back() {
        let now = Instant::now();
        let mut queue = Queue::new(1, 0);
        let refused = BTreeSet::from([1, 2]);
        // Nothing waits yet: the client may send number 1 again.
        assert!(!queue.ready(&refused, now));
        queue.push(1, "given back").unwrap();
        assert_eq!(queue.pop(), Some((1, "given back")));
        queue.push(3, "skipped").unwrap();
        assert!(queue.ready(&refused, now));
        assert_eq!(queue.pop(), Some((3, "skipped")));
        assert_eq!(queue.push(2, "late"), Err((Late::PassedOver, "late")));
    }

    #[test]
    fn patience_ends() {
        let now = Instant::now();
        let mut queue = Queue::new(5, 0);
        assert_eq!(queue.deadline(), None);
        queue.push(8, "x").unwrap();
        assert!(!queue.ready(&none(), now));
        assert_eq!(queue.missing(), Some(5));
        // Mentioned once, not at once.
        assert_eq!(queue.deadline(), Some(now + SILENCE));
        assert_eq!(queue.mention(now), None);
        assert_eq!(queue.mention(now + SILENCE), Some(5));
        assert_eq!(queue.mention(now + SILENCE), None);
        assert_eq!(queue.deadline(), Some(now + PATIENCE));
        assert_eq!(queue.give_up(now), None);
        assert_eq!(queue.give_up(now + PATIENCE), Some((5, 8)));
        assert!(queue.ready(&none(), now));
        assert_eq!(queue.push(6, "late"), Err((Late::PassedOver, "late")));
        assert_eq!(queue.pop(), Some((8, "x")));
    }

    #[test]
    fn what_a_lost_memory_took_in_is_not_waited_for() {
        let now = Instant::now();
        let mut queue = Queue::new(5, 7);
        // Sent again by a client that had no answer: done.
        queue.push(6, "again").unwrap();
        assert!(queue.ready(&none(), now));
        assert_eq!(queue.pop(), Some((6, "again")));
        // Beyond, missing ones are waited for as ever.
        queue.push(9, "ahead").unwrap();
        assert!(!queue.ready(&none(), now));
        queue.push(8, "next").unwrap();
        assert!(queue.ready(&none(), now));
        assert_eq!([queue.pop(), queue.pop()], [Some((8, "next")), Some((9, "ahead"))]);
    }
}
