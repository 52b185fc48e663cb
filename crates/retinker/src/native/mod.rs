//! The native leaves: the only place where reqwest, tokio and the system's clocks may be used.

mod credentials;
mod runtime;
mod transport;

pub use credentials::{DEFAULT_BASE_URL, resolve};
pub use runtime::NativeRuntime;
pub use transport::NativeTransport;
