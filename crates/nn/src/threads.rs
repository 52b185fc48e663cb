//! Several threads for the stacks of examples of one pass, with the same results for any number of threads.
//!
//! Every stack's gradients are worked out by themselves and added to the sum in the stacks' order, so nothing hangs on
//! which thread took which stack, nor on how many threads there were.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::error::NnError;
use super::math::vectorized;
use super::workspace::StackBuffers;

/// How many threads compute at a time: shared by all trainers, so that passes side by side take one core each, and a
/// pass by itself takes all.
#[derive(Debug)]
pub struct Threads {
    limit: usize,
    busy: AtomicUsize,
}

impl Threads {
    /// At most so many threads, as far as that leaves every pass its own.
    pub fn new(limit: usize) -> Self {
        Self { limit, busy: AtomicUsize::new(0) }
    }

    /// Takes the calling thread and as many more as are free, `wanted` in all at most.
    pub(crate) fn take(&self, wanted: usize) -> Taken<'_> {
        let mut count = 1;
        let take = |busy: usize| {
            count = self.limit.saturating_sub(busy).clamp(1, wanted.max(1));
            Some(busy + count)
        };
        // The closure always gives a number, so this cannot fail.
        let _ = self.busy.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        Taken { threads: self, count }
    }
}

/// Threads that a pass has; dropped, they are free again.
#[derive(Debug)]
pub(crate) struct Taken<'a> {
    threads: &'a Threads,
    /// How many.
    pub(super) count: usize,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.threads.busy.fetch_sub(self.count, Ordering::Relaxed);
    }
}

/// What the threads of a pass share.
struct Progress<'a, T> {
    /// How many stacks there are.
    count: usize,
    /// How many stacks may be under way or wait for their turn: bounds the memory for their gradients.
    window: usize,
    state: Mutex<State<'a, T>>,
    moved: Condvar,
}

struct State<'a, T> {
    /// The next stack to be taken.
    next: usize,
    /// What came of the stacks whose gradients are added.
    done: Vec<T>,
    /// Stacks that are ready before their turn.
    early: BTreeMap<usize, (T, Vec<f32>)>,
    sum: &'a mut [f32],
    spare: &'a mut Vec<Vec<f32>>,
    /// The first stack that failed.
    failed: Option<(usize, NnError)>,
    /// A thread panicked; nobody may wait for its stack.
    abandoned: bool,
}

/// Does `work` for the stacks `0..count`, each thread with buffers of its own. It gets the stack's index, the buffers,
/// and room for the stack's gradients, as long as `sum`, all of which it has to overwrite. They are added to `sum` in the
/// stacks' order, up to the first that fails.
pub(crate) fn in_order<T: Send>(
    buffers: (&mut StackBuffers, &mut [StackBuffers]),
    spare: &mut Vec<Vec<f32>>,
    count: usize,
    sum: &mut [f32],
    work: impl Fn(usize, &mut StackBuffers, &mut [f32]) -> Result<T, NnError> + Sync,
) -> Result<Vec<T>, NnError> {
    let (own, others) = buffers;
    let window = 2 * (1 + others.len());
    let done = Vec::with_capacity(count);
    let state = State { next: 0, done, early: BTreeMap::new(), sum, spare, failed: None, abandoned: false };
    let progress = Progress { count, window, state: Mutex::new(state), moved: Condvar::new() };
    std::thread::scope(|scope| {
        for buffers in others {
            scope.spawn(|| progress.serve(buffers, &work));
        }
        progress.serve(own, &work);
    });
    let state = progress.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    match state.failed {
        Some((_, error)) => Err(error),
        None => Ok(state.done),
    }
}

impl<T: Send> Progress<'_, T> {
    /// Works on one stack after the other until none is left.
    fn serve(
        &self,
        buffers: &mut StackBuffers,
        work: &impl Fn(usize, &mut StackBuffers, &mut [f32]) -> Result<T, NnError>,
    ) {
        let _watch = Watch(self);
        while let Some((index, mut gradients)) = self.take() {
            match work(index, buffers, &mut gradients) {
                Ok(output) => self.add(index, output, gradients),
                Err(error) => self.fail(index, error),
            }
        }
    }

    /// The next stack, and room for its gradients.
    fn take(&self) -> Option<(usize, Vec<f32>)> {
        let mut state = lock(&self.state);
        loop {
            if state.next == self.count || state.failed.is_some() || state.abandoned {
                return None;
            }
            if state.next < state.done.len() + self.window {
                break;
            }
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let index = state.next;
        state.next += 1;
        let (spare, len) = (state.spare.pop(), state.sum.len());
        drop(state);
        let mut gradients = spare.unwrap_or_default();
        gradients.resize(len, 0.0);
        Some((index, gradients))
    }

    /// Adds a stack's gradients, and those that waited for it.
    fn add(&self, index: usize, output: T, gradients: Vec<f32>) {
        let mut state = lock(&self.state);
        state.early.insert(index, (output, gradients));
        let turn = state.done.len();
        while let Some((output, gradients)) = {
            let turn = state.done.len();
            state.early.remove(&turn)
        } {
            vectorized(|| {
                for (sum, value) in state.sum.iter_mut().zip(&gradients) {
                    *sum += value;
                }
            });
            state.done.push(output);
            state.spare.push(gradients);
        }
        if state.done.len() > turn {
            self.moved.notify_all();
        }
    }

    fn fail(&self, index: usize, error: NnError) {
        let mut state = lock(&self.state);
        if state.failed.as_ref().is_none_or(|(first, _)| index < *first) {
            state.failed = Some((index, error));
        }
        self.moved.notify_all();
    }
}

/// Tells the other threads when its own panics.
struct Watch<'a, 'b, T>(&'a Progress<'b, T>);

impl<T> Drop for Watch<'_, '_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            lock(&self.0.state).abandoned = true;
            self.0.moved.notify_all();
        }
    }
}

/// Whoever panicked with the lock held left the data as it stood between two assignments, which are consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums rows whose order shows in the rounding, the later ones ready first.
    fn sum(threads: usize, count: usize, fails: &[usize]) -> (Result<Vec<usize>, NnError>, Vec<f32>) {
        let mut sum = vec![1.0; 3];
        let mut others = Vec::new();
        others.resize_with(threads - 1, StackBuffers::default);
        let result = in_order(
            (&mut StackBuffers::default(), &mut others),
            &mut Vec::new(),
            count,
            &mut sum,
            |i, _, row| {
                if i % 3 == 0 {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                if fails.contains(&i) {
                    return Err(NnError::InvalidLoss { index: i, reason: String::new() });
                }
                row.fill(1.0 / (i as f32 * 3.7 + 0.1));
                Ok(i)
            },
        );
        (result, sum)
    }

    #[test]
    fn the_sum_is_in_order_whatever_the_number_of_threads() {
        let alone = sum(1, 40, &[]);
        assert_eq!(alone.0, Ok((0..40).collect()));
        for threads in [2, 3, 7] {
            assert_eq!(sum(threads, 40, &[]), alone);
        }
    }

    #[test]
    fn the_first_failure_ends_it_and_what_is_before_counts() {
        let before = sum(1, 21, &[]).1;
        for threads in [1, 2, 5] {
            let (result, sum) = sum(threads, 40, &[23, 21, 22]);
            assert!(matches!(result, Err(NnError::InvalidLoss { index: 21, .. })), "{result:?}");
            assert_eq!(sum, before);
        }
    }

    #[test]
    #[should_panic]
    fn a_panic_ends_the_pass() {
        let mut others = [StackBuffers::default()];
        let buffers = (&mut StackBuffers::default(), &mut others[..]);
        let _ = in_order(buffers, &mut Vec::new(), 9, &mut [0.0], |i, _, _| {
            if i == 0 {
                panic!("on purpose");
            }
            Ok(())
        });
    }

    #[test]
    fn a_pass_by_itself_takes_all_threads_and_two_take_one_each() {
        let threads = Threads::new(2);
        let first = threads.take(8);
        let second = threads.take(8);
        assert_eq!((first.count, second.count), (2, 1));
        drop(first);
        assert_eq!(threads.take(8).count, 1);
        drop(second);
        assert_eq!(threads.take(1).count, 1);
        assert_eq!(threads.take(8).count, 2);
    }
}
