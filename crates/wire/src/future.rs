//! Futures: what a submission answers, and what `retrieve_future` says of it.

use serde::{Deserialize, Serialize};

use crate::open_enum::open_enum;

/// The answer of every submission.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UntypedApiFuture {
    /// What to ask `retrieve_future` for.
    pub request_id: String,
    /// The model the request was for, where the server says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_id: Option<String>,
}

/// `POST /api/v1/retrieve_future`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RetrieveFutureRequest {
    /// Which future.
    pub request_id: String,
    /// The server may answer with the payload's size only.
    #[serde(default)]
    pub allow_metadata_only: bool,
}

open_enum! {
    /// Why a request waits.
    QueueState {
        /// It is being worked on.
        Active = "active",
        /// The service is short of machines.
        PausedCapacity = "paused_capacity",
        /// The account is at a limit.
        PausedRateLimit = "paused_rate_limit",
    }
}

open_enum! {
    /// Whose fault a failed request was. Only `server` and `unknown` are worth another try.
    RequestErrorCategory {
        /// The server does not say.
        Unknown = "unknown",
        /// The service failed.
        Server = "server",
        /// The request was bad.
        User = "user",
    }
}

/// "Not yet": either a 200 with `type: "try_again"`, or the body of a 408.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TryAgain {
    /// `try_again` in a 200.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The future asked about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Why it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_state: Option<QueueState>,
    /// A sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_state_reason: Option<String>,
    /// How long to wait before asking again, in milliseconds. Read by tinkex; not known of the hosted service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// A 200 that says that the request failed: a JSON object with a member `error`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RequestFailed {
    /// What went wrong.
    pub error: String,
    /// Whose fault it was.
    #[serde(default = "unknown")]
    pub category: RequestErrorCategory,
}

fn unknown() -> RequestErrorCategory {
    RequestErrorCategory::Unknown
}

/// The request types that `X-Tinker-Request-Type` names on `retrieve_future`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RequestType {
    /// A run was made.
    CreateModel,
    /// A loss that the server computes was made.
    CreateCustomLoss,
    /// A checkpoint was loaded.
    LoadWeights,
    /// A forward pass.
    Forward,
    /// A forward and backward pass.
    ForwardBackward,
    /// A step of the optimizer.
    OptimStep,
    /// A checkpoint was saved.
    SaveWeights,
    /// Weights were saved to sample from.
    SaveWeightsForSampler,
    /// Weights were saved to be used elsewhere.
    SaveWeightsExternal,
    /// Samples, or the scores of a prompt.
    Sample,
}

impl RequestType {
    /// The header's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CreateModel => "CreateModel",
            Self::CreateCustomLoss => "CreateCustomLoss",
            Self::LoadWeights => "LoadWeights",
            Self::Forward => "Forward",
            Self::ForwardBackward => "ForwardBackward",
            Self::OptimStep => "OptimStep",
            Self::SaveWeights => "SaveWeights",
            Self::SaveWeightsForSampler => "SaveWeightsForSampler",
            Self::SaveWeightsExternal => "SaveWeightsExternal",
            Self::Sample => "Sample",
        }
    }

    /// Whether the result is protobuf (forward passes and samples) rather than JSON.
    pub fn is_proto(self) -> bool {
        matches!(self, Self::Forward | Self::ForwardBackward | Self::Sample)
    }
}

/// The media type of protobuf bodies.
pub const PROTOBUF: &str = "application/x-protobuf";
