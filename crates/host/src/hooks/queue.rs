//! Events on their way to something slow: a bounded queue, and the task that empties it.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{AbortHandle, abortable};
use futures_util::stream;
use retinker::recovery::events::{EventKind, RecoveryEvent};
use retinker::runtime::Runtime;
use tokio::sync::{mpsc, oneshot, watch};

/// Most events that wait, where nobody says otherwise. An event is about 1 kB; an incident of 200 runs is some 2,000 of them
/// within a minute, and a receiver may be away for longer.
pub(super) const CAPACITY: usize = 16_384;

/// What a queue is made with.
#[derive(Debug)]
pub(super) struct Settings {
    /// Whose it is, for people; nothing secret.
    pub(super) name: String,
    /// What is let in; `None` = everything.
    pub(super) events: Option<Vec<EventKind>>,
    /// Most events that wait.
    pub(super) capacity: usize,
    /// Most events that are dealt with at the same time; with 1 their order is kept.
    pub(super) concurrency: usize,
}

/// The queue. Dropped, it still delivers what it holds, as long as the process lives.
pub(super) struct Queue {
    name: String,
    events: Option<Vec<EventKind>>,
    /// `None` once it is being drained.
    sender: Mutex<Option<mpsc::Sender<RecoveryEvent>>>,
    draining: Arc<watch::Sender<bool>>,
    /// Events that wait or are being dealt with.
    pending: Arc<AtomicUsize>,
    lost: Lost,
    task: Mutex<Option<Task>>,
}

struct Task {
    abort: AbortHandle,
    finished: oneshot::Receiver<()>,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("name", &self.name)
            .field("events", &self.events)
            .field("pending", &self.pending)
            .finish_non_exhaustive()
    }
}

impl Queue {
    /// Starts the task that deals with the events. `deal` is also given what tells that the queue is being drained.
    pub(super) fn start<D: Future<Output = ()> + Send + 'static>(
        settings: Settings,
        runtime: &dyn Runtime,
        deal: impl Fn(RecoveryEvent, watch::Receiver<bool>) -> D + Send + 'static,
    ) -> Self {
        let Settings { name, events, capacity, concurrency } = settings;
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        let draining = Arc::new(watch::Sender::new(false));
        let pending = Arc::<AtomicUsize>::default();
        let (told, counted) = (Arc::clone(&draining), Arc::clone(&pending));
        let taken = stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|event| (event, receiver))
        });
        let (work, abort) = abortable(taken.for_each_concurrent(concurrency.max(1), move |event| {
            let (dealt, counted) = (deal(event, told.subscribe()), Arc::clone(&counted));
            async move {
                dealt.await;
                counted.fetch_sub(1, Ordering::Relaxed);
            }
        }));
        let (done, finished) = oneshot::channel();
        runtime.spawn(Box::pin(async move {
            // Aborted or not: what matters is that it is over.
            let _ = work.await;
            drop(done);
        }));
        Self {
            name,
            events,
            sender: Mutex::new(Some(sender)),
            draining,
            pending,
            lost: Lost::default(),
            task: Mutex::new(Some(Task { abort, finished })),
        }
    }

    /// Puts an event in, if it is one of those that are wanted. Never waits.
    pub(super) fn tell(&self, event: &RecoveryEvent) {
        if self.events.as_ref().is_some_and(|wanted| !wanted.contains(&event.event)) {
            return;
        }
        let sender = lock(&self.sender).clone();
        // Counted first: it may be dealt with before this goes on.
        self.pending.fetch_add(1, Ordering::Relaxed);
        if sender.is_some_and(|sender| sender.try_send(event.clone()).is_ok()) {
            self.tell_lost();
            return;
        }
        self.pending.fetch_sub(1, Ordering::Relaxed);
        if self.lost.add() {
            tracing::error!(
                event = event.event.as_str(),
                run_id = %event.run_id,
                "the queue of {} takes no more events: this one is dropped, and so are those that follow until it does",
                self.name
            );
        }
    }

    fn tell_lost(&self) {
        if let Some(lost) = self.lost.take() {
            tracing::error!(
                lost,
                "the queue of {} took no events for a while: {lost} were dropped",
                self.name
            );
        }
    }

    /// Takes no more events and waits until those that it holds are dealt with, at most so long; then those that are
    /// being dealt with are broken off. Answers how many were left, and tells of them.
    pub(super) async fn drain(&self, patience: Duration) -> usize {
        self.draining.send_replace(true);
        drop(lock(&self.sender).take());
        let Some(mut task) = lock(&self.task).take() else { return 0 };
        if tokio::time::timeout(patience, &mut task.finished).await.is_err() {
            task.abort.abort();
            let _ = task.finished.await;
        }
        self.tell_lost();
        let left = self.pending.load(Ordering::Relaxed);
        if left > 0 {
            tracing::error!(
                left,
                "{} was not done with {left} events after {patience:?}: they are lost",
                self.name
            );
        }
        left
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts what is lost, so that each stretch of losses is told twice: that it begins, and how long it was.
#[derive(Debug, Default)]
pub(super) struct Lost(AtomicU64);

impl Lost {
    /// Counts one; answers whether it is the first of a stretch.
    pub(super) fn add(&self) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed) == 0
    }

    /// Ends the stretch, if there is one; answers how many were lost.
    pub(super) fn take(&self) -> Option<u64> {
        Some(self.0.swap(0, Ordering::Relaxed)).filter(|lost| *lost > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Log, event, runtime, until};
    use super::*;
    use tokio::sync::Semaphore;

    fn settings(capacity: usize, concurrency: usize) -> Settings {
        Settings { name: "the test".to_owned(), events: None, capacity, concurrency }
    }

    /// Deals with an event for each permit.
    fn gated(capacity: usize, gate: &Arc<Semaphore>, seen: &Arc<Mutex<Vec<String>>>) -> Queue {
        let (gate, seen) = (Arc::clone(gate), Arc::clone(seen));
        Queue::start(settings(capacity, 1), &runtime(), move |event, _| {
            let (gate, seen) = (Arc::clone(&gate), Arc::clone(&seen));
            async move {
                gate.acquire().await.unwrap().forget();
                lock(&seen).push(event.run_id);
            }
        })
    }

    #[tokio::test]
    async fn what_is_queued_is_dealt_with_in_order_before_a_drain_ends() {
        let (gate, seen) = (Arc::new(Semaphore::new(3)), Arc::default());
        let queue = gated(10, &gate, &seen);
        for run in ["a", "b", "c"] {
            queue.tell(&event(EventKind::Detected, run));
        }
        assert_eq!(queue.drain(Duration::from_secs(60)).await, 0);
        assert_eq!(*lock(&seen), ["a", "b", "c"]);
        assert_eq!(queue.drain(Duration::from_secs(60)).await, 0, "a second time");
    }

    #[tokio::test]
    async fn what_a_full_queue_drops_is_told_with_its_number() {
        let log = Log::start();
        let (gate, seen) = (Arc::new(Semaphore::new(0)), Arc::default());
        let queue = gated(2, &gate, &seen);
        for run in ["a", "b", "c", "d", "e"] {
            queue.tell(&event(EventKind::Detected, run));
        }
        assert_eq!(log.count("takes no more events"), 1, "{}", log.text());
        assert_eq!(log.count("were dropped"), 0);
        gate.add_permits(10);
        until(|| lock(&seen).len() >= 2).await;
        queue.tell(&event(EventKind::Detected, "f"));
        assert_eq!(log.count("3 were dropped"), 1, "{}", log.text());
        assert_eq!(queue.drain(Duration::from_secs(60)).await, 0);
        assert_eq!(*lock(&seen), ["a", "b", "f"]);
        queue.tell(&event(EventKind::Detected, "g"));
        assert_eq!(log.count("takes no more events"), 2, "after the end: {}", log.text());
    }

    #[tokio::test]
    async fn what_is_left_when_patience_ends_is_told() {
        let log = Log::start();
        let (gate, seen) = (Arc::new(Semaphore::new(1)), Arc::default());
        let queue = gated(10, &gate, &seen);
        for run in ["a", "b", "c"] {
            queue.tell(&event(EventKind::Detected, run));
        }
        until(|| !lock(&seen).is_empty()).await;
        assert_eq!(queue.drain(Duration::ZERO).await, 2);
        assert_eq!(log.count("not done with 2 events"), 1, "{}", log.text());
    }

    #[tokio::test]
    async fn what_a_dropped_queue_holds_is_still_dealt_with() {
        let (gate, seen) = (Arc::new(Semaphore::new(0)), Arc::default());
        let queue = gated(10, &gate, &seen);
        for run in ["a", "b"] {
            queue.tell(&event(EventKind::Detected, run));
        }
        drop(queue);
        gate.add_permits(2);
        until(|| lock(&seen).len() == 2).await;
    }

    #[tokio::test]
    async fn only_what_is_wanted_is_let_in() {
        let seen = Arc::<Mutex<Vec<EventKind>>>::default();
        let told = Arc::clone(&seen);
        let wanted = Settings { events: Some(vec![EventKind::Completed]), ..settings(10, 1) };
        let queue = Queue::start(wanted, &runtime(), move |event, _| {
            lock(&told).push(event.event);
            async {}
        });
        for kind in EventKind::ALL {
            queue.tell(&event(kind, "a"));
        }
        queue.drain(Duration::from_secs(60)).await;
        assert_eq!(*lock(&seen), [EventKind::Completed]);
    }

    #[tokio::test]
    async fn no_more_than_so_many_are_dealt_with_at_once() {
        let (now, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (n, m) = (Arc::clone(&now), Arc::clone(&most));
        let queue = Queue::start(settings(100, 4), &runtime(), move |_, _| {
            let (n, m) = (Arc::clone(&n), Arc::clone(&m));
            async move {
                m.fetch_max(n.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                n.fetch_sub(1, Ordering::Relaxed);
            }
        });
        for _ in 0..50 {
            queue.tell(&event(EventKind::Detected, "a"));
        }
        assert_eq!(queue.drain(Duration::from_secs(60)).await, 0);
        assert_eq!((now.load(Ordering::Relaxed), most.load(Ordering::Relaxed)), (0, 4));
    }
}
