//! The seam to time, chance and tasks. `std::time::Instant::now` and tokio's timers panic on wasm, so nothing
//! outside the leaf modules may call them; tests inject a runtime whose time they move by hand.

use std::fmt;
use std::time::Duration;

use futures_core::future::BoxFuture;
use retinker_wire::time::Time;

/// Time, chance and tasks.
pub trait Runtime: fmt::Debug + Send + Sync + 'static {
    /// Resolves after this long. Dropping the future cancels the timer.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
    /// The wall clock.
    fn now(&self) -> Time;
    /// A clock that never goes back, from an arbitrary origin.
    fn monotonic(&self) -> Duration;
    /// 64 random bits; good enough for jitter and ids.
    fn random(&self) -> u64;
    /// Runs a task to its end, in the background.
    fn spawn(&self, task: BoxFuture<'static, ()>);
}
