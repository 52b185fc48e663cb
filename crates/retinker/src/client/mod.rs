//! The client: one typed call per endpoint ([`Api`]), and the SDK's client objects above them.

mod api;
mod asked;
mod auth;
mod budget;
pub(crate) mod call;
mod console_url;
mod dispatch;
mod download;
pub(crate) mod encode;
mod error;
mod handle;
mod heartbeat;
mod heeded;
mod pages;
pub(crate) mod pending;
mod poller;
mod rest;
pub mod retry;
pub(crate) mod sampling;
mod secret;
pub(crate) mod service;
pub(crate) mod session;
mod telemetry;
#[cfg(any(test, feature = "test-util"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod tokenizer;
pub(crate) mod training;
pub mod waiting;
mod witness;

pub use api::{Api, ApiConfig, SDK_VERSION};
pub use asked::Asked;
pub use auth::CredentialSource;
pub use download::Download;
pub use encode::{LossConfigValue, LossFnConfig};
pub use error::{Error, ErrorKind};
pub use pending::{FutureResult, Pending, PendingEvent};
pub use rest::RestClient;
pub use sampling::{SampleOptions, SampleRetry, SamplingClient, SamplingOptions, SamplingSource};
pub use secret::Secret;
pub use service::{ServiceClient, SessionOptions, TrainingOptions};
pub use telemetry::Telemetry;
pub use tokenizer::{Tokenizer, TokenizerId, TokenizerSource};
pub use training::{
    CustomLoss, LoadOptions, SaveExternalOptions, SaveForSamplerOptions, SaveOptions, TrainingClient,
};
