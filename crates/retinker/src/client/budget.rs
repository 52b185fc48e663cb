//! How much may be under way at once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_channel::oneshot;

/// A number that callers take parts of, in the order in which they come. Whoever's turn it is while anything is left is
/// admitted, also if that takes more than there is: so nothing is ever too large to pass.
#[derive(Debug)]
pub(crate) struct Budget {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    size: i64,
    left: i64,
    waiting: VecDeque<oneshot::Sender<()>>,
}

/// A part of a budget; given back when dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    budget: Arc<Budget>,
    cost: i64,
}

/// Somebody who waits. Dropped, whether admitted or given up, it passes its turn on.
struct Turn<'a>(&'a Budget);

impl Budget {
    pub(crate) fn new(size: i64) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { size, left: size, waiting: VecDeque::new() }) })
    }

    /// Waits for its turn and takes a part.
    pub(crate) async fn take(self: &Arc<Self>, cost: i64) -> Taken {
        let _turn = Turn(self);
        let mut woken = false;
        loop {
            let admitted = {
                let mut state = self.lock();
                if state.left > 0 && (woken || state.waiting.is_empty()) {
                    state.left = state.left.saturating_sub(cost);
                    return Taken { budget: self.clone(), cost };
                }
                let (wake, admitted) = oneshot::channel();
                if woken {
                    state.waiting.push_front(wake);
                } else {
                    state.waiting.push_back(wake);
                }
                admitted
            };
            // The sender lies in this budget, which is borrowed: it is never dropped unsent.
            let _ = admitted.await;
            woken = true;
        }
    }

    /// Makes it as large as this; what is taken stays taken.
    pub(crate) fn resize(&self, size: i64) {
        let mut state = self.lock();
        state.left = state.left.saturating_add(size.saturating_sub(state.size));
        state.size = size;
        drop(state);
        self.wake();
    }

    fn wake(&self) {
        let mut state = self.lock();
        while state.left > 0
            && let Some(next) = state.waiting.pop_front()
        {
            if next.send(()).is_ok() {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.wake();
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.budget.lock().left += self.cost;
        self.budget.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::{ManualRuntime, test};
    use crate::runtime::Runtime;
    use futures_util::future::{join_all, select};
    use std::time::Duration;

    #[test]
    fn what_is_taken_comes_back_in_order_and_nothing_is_too_large() {
        let runtime = ManualRuntime::new();
        let budget = Budget::new(2);
        let passed = Arc::new(Mutex::new(Vec::new()));
        let pass = |name: u32, cost: i64| {
            let (budget, passed, runtime) = (budget.clone(), passed.clone(), runtime.clone());
            async move {
                let taken = budget.take(cost).await;
                passed.lock().unwrap().push((name, runtime.monotonic().as_secs()));
                runtime.sleep(Duration::from_secs(1)).await;
                drop(taken);
            }
        };
        runtime.block_on(join_all([pass(0, 1), pass(1, 100), pass(2, 1), pass(3, 1), pass(4, 1)]));
        // The second takes all and more; the others wait for it, two at a time.
        assert_eq!(*passed.lock().unwrap(), [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2)]);
    }

    #[test]
    fn who_stops_waiting_keeps_nobody_else_waiting() {
        let runtime = ManualRuntime::new();
        let budget = Budget::new(1);
        let sleep = |seconds| runtime.sleep(Duration::from_secs(seconds));
        runtime.block_on(async {
            let first = budget.take(1).await;
            let impatient = async {
                select(Box::pin(budget.take(1)), sleep(1)).await;
            };
            let patient = async {
                budget.take(1).await;
                runtime.monotonic().as_secs()
            };
            let holder = async {
                sleep(2).await;
                drop(first);
            };
            let (_, at, _) = futures_util::join!(impatient, patient, holder);
            assert_eq!(at, 2);
            assert_eq!(budget.lock().left, 1);
        });
    }
}
