//! The native leaves: the only place where reqwest, tokio and the system's clocks may be used.

mod credentials;
mod disk_log;
mod download;
mod runtime;
#[cfg(feature = "tokenizers")]
mod tokenizers;
mod transport;

pub use credentials::{DEFAULT_BASE_URL, resolve, session_options};
pub use disk_log::DiskLog;
pub use download::{Progress, download_archive, download_external_weights};
pub use runtime::NativeRuntime;
#[cfg(feature = "tokenizers")]
pub use tokenizers::{HfTokenizer, HubConfig, HubTokenizers};
pub use transport::NativeTransport;
