//! The client: one typed call per endpoint ([`Api`]), and the SDK's client objects above them.

mod api;
mod budget;
mod call;
mod dispatch;
mod encode;
mod error;
mod heartbeat;
mod pending;
mod rest;
pub mod retry;
mod sampling;
mod secret;
mod service;
mod session;
#[cfg(any(test, feature = "test-util"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod training;
pub mod waiting;

pub use api::{Api, ApiConfig, SDK_VERSION};
pub use encode::{LossConfigValue, LossFnConfig};
pub use error::{Error, ErrorKind};
pub use pending::{FutureResult, Pending, PendingEvent};
pub use rest::RestClient;
pub use sampling::{SampleOptions, SamplingClient, SamplingSource};
pub use secret::Secret;
pub use service::{ServiceClient, SessionOptions, TrainingOptions};
pub use training::{CustomLoss, SaveExternalOptions, SaveForSamplerOptions, SaveOptions, TrainingClient};
