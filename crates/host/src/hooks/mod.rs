//! Where a monitor's events go: a file of JSON lines, webhooks, programs, and counters for Prometheus.
//!
//! Each is an [`EventSink`](retinker::recovery::events::EventSink). What is slow has a bounded queue of its own, and a
//! `drain` that delivers what is queued before the process ends. An event that cannot be delivered is told as a tracing
//! error; the monitor goes on.

mod exec;
mod jsonl;
mod metrics;
mod queue;
mod serve;
#[cfg(test)]
mod testing;
mod webhook;

use std::path::PathBuf;

pub use exec::{ExecConfig, ExecHook};
pub use jsonl::JsonLines;
pub use metrics::Metrics;
pub use serve::serve;
pub use webhook::{Webhook, WebhookConfig};

/// Why a hook cannot be set up. Says nothing secret: no URL of a webhook, no argument of a program.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The file of JSON lines cannot be opened.
    #[error("events cannot be written to {path}: {reason}. The directory must exist and be writable")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        reason: std::io::Error,
    },
    /// The webhook's address is none.
    #[error("a webhook's URL cannot be used: {0}. It looks like https://example.com/hook")]
    Url(String),
    /// The webhook's secret is none.
    #[error(
        "the secret of the webhook to {host} cannot be used: {reason}. Make one by: echo \"whsec_$(openssl rand -base64 32)\""
    )]
    Secret {
        /// The webhook's host, and port if it has one.
        host: String,
        /// Why not.
        reason: &'static str,
    },
    /// HTTP cannot be set up.
    #[error("webhooks cannot be sent: {0}")]
    Http(String),
    /// The program cannot be run.
    #[error("the hook {program} cannot be run: {reason}")]
    Program {
        /// The program, as it was given.
        program: String,
        /// Why not.
        reason: String,
    },
}
