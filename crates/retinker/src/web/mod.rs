//! The web leaves: fetch, timers, tasks and storage of whatever JavaScript host this runs in: a window, a worker, or Node.
//!
//! `SendWrapper` stands here and nowhere else. It makes JavaScript's futures `Send`, and panics if one is moved
//! to another thread; wasm has a single one unless it is built with threads, which this is not for.

mod runtime;
mod stored_log;
mod transport;

pub use runtime::WebRuntime;
pub use stored_log::{LogRecords, StoredLog};
pub use transport::WebTransport;
