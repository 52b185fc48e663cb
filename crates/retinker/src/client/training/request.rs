//! What a run is asked for in its order, without the run and without the number: so it can be written down, and asked of
//! another run as well.

use retinker_wire::model::LoadWeightsRequest;
use retinker_wire::model::load_weights_type;
use retinker_wire::training::{OptimParams, OptimStepRequest};
use retinker_wire::weights::{
    SamplerKind, SaveWeightsExternalRequest, SaveWeightsForSamplerRequest, SaveWeightsRequest,
    save_weights_type,
};

use super::{LoadOptions, SaveExternalOptions, SaveForSamplerOptions, SaveOptions};
use crate::client::api::{
    forward_backward_call, load_weights_call, optim_step_call, save_weights_call, save_weights_external_call,
    save_weights_for_sampler_call,
};
use crate::client::call::Call;
use crate::client::encode::Batch;
use crate::client::error::Error;

/// One request of a run.
#[derive(Debug, Clone)]
pub(crate) enum TrainingRequest {
    /// A pass over a batch, or a part of one.
    Pass {
        /// The batch.
        batch: Batch,
        /// Whether there is no gradient.
        forward_only: bool,
    },
    /// A step of the optimizer.
    OptimStep(OptimParams),
    /// A checkpoint with the optimizer's state.
    SaveState {
        /// Its name.
        name: String,
        /// How.
        options: SaveOptions,
    },
    /// Weights to sample from.
    SaveForSampler {
        /// Their name; `None` for a sampler, whose number in the session is told when it is sent.
        name: Option<String>,
        /// Whether they follow the run.
        kind: SamplerKind,
        /// How.
        options: SaveForSamplerOptions,
    },
    /// Weights to use elsewhere.
    SaveExternal {
        /// Their name.
        name: String,
        /// How.
        options: SaveExternalOptions,
    },
    /// A checkpoint loaded.
    Load {
        /// Its path.
        path: String,
        /// How.
        options: LoadOptions,
    },
}

impl TrainingRequest {
    /// The same as it is sent: under this number of this run, and making the sampler of this number, if it makes one.
    pub(crate) fn call(self, model_id: &str, seq_id: u64, sampler: Option<u64>) -> Result<Call, Error> {
        let model_id = model_id.to_owned();
        match self {
            Self::Pass { batch, forward_only } => {
                forward_backward_call(&model_id, seq_id, batch, forward_only)
            }
            Self::OptimStep(params) => optim_step_call(&OptimStepRequest::new(model_id, seq_id, params)),
            Self::SaveState { name, options } => {
                let SaveOptions { ttl_seconds, overwrite, user_metadata } = options;
                let kind = save_weights_type();
                let path = name;
                save_weights_call(&SaveWeightsRequest {
                    model_id,
                    path,
                    seq_id,
                    ttl_seconds,
                    overwrite,
                    user_metadata,
                    kind,
                })
            }
            Self::SaveForSampler { name, kind, options } => {
                let SaveForSamplerOptions { ttl_seconds, user_metadata } = options;
                save_weights_for_sampler_call(&SaveWeightsForSamplerRequest {
                    model_id,
                    path: name,
                    sampling_session_seq_id: sampler,
                    kind,
                    seq_id: Some(seq_id),
                    ttl_seconds,
                    user_metadata,
                })
            }
            Self::SaveExternal { name, options } => {
                let SaveExternalOptions { ttl_seconds, age_encryption_recipients } = options;
                save_weights_external_call(&SaveWeightsExternalRequest {
                    model_id,
                    path: name,
                    seq_id: Some(seq_id),
                    ttl_seconds,
                    age_encryption_recipients,
                })
            }
            Self::Load { path, options } => {
                let LoadOptions { optimizer, weights_access_token } = options;
                load_weights_call(&LoadWeightsRequest {
                    model_id: Some(model_id),
                    seq_id: Some(seq_id),
                    path,
                    optimizer,
                    weights_access_token: weights_access_token.as_ref().map(|t| t.expose().to_owned()),
                    kind: load_weights_type(),
                    ..LoadWeightsRequest::default()
                })
            }
        }
    }
}
