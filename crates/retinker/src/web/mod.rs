//! The web leaves: fetch, timers, tasks and storage of whatever JavaScript host this runs in: a window, a worker, or Node.
//!
//! `SendWrapper` stands here and nowhere else. It makes JavaScript's futures `Send`, and panics if one is moved
//! to another thread; wasm has a single one unless it is built with threads, which this is not for.

mod runtime;
mod stored_log;
mod transport;

use send_wrapper::SendWrapper;

pub use runtime::WebRuntime;
pub use stored_log::{LogRecords, StoredLog};
pub use transport::WebTransport;

/// What JavaScript is called with, for where the core wants something that can be sent: it panics if it is called on another thread than
/// the one it was made on.
pub fn of_this_thread<A, R>(act: impl FnOnce(A) -> R + 'static) -> impl FnOnce(A) -> R + Send + 'static {
    let act = SendWrapper::new(act);
    move |argument| act.take()(argument)
}
