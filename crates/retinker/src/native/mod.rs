//! The native leaves: the only place where reqwest, tokio and the system's clocks may be used.

mod runtime;
mod transport;

pub use runtime::NativeRuntime;
pub use transport::NativeTransport;
