//! Looks into a checkpoint by loading it into throw-away copies: whether its weights are those that were saved, and whether
//! it brings its optimizer's state back.
//!
//! A cold optimizer gives the same first loss; only after a step the weights differ. So two copies are made, one with the
//! optimizer's state and one without, and both take one and the same step: if they are alike afterwards, the state was not
//! there, or was not loaded. Their session is finished when that is known.

use std::fmt;

use retinker_wire::UserMetadata;
use retinker_wire::run::Checkpoint;
use retinker_wire::session::FinishReason;
use retinker_wire::training::AdamParams;
use serde::{Deserialize, Serialize};

use super::plan::LABEL_OPT_OUT;
use super::probe::{self, LOSS, Probe, ProbeError, Verification};
use crate::client::{
    Api, Error, LossFnConfig, ServiceClient, SessionOptions, TrainingClient, TrainingOptions,
};

/// The text that the step is taken on, where the checkpoint has no probe: tokens that every vocabulary has.
const TEXT: [i32; 9] = [1, 2, 3, 5, 8, 13, 21, 34, 55];

/// The step's size: large, so that a warm optimizer cannot be taken for noise. Only copies take it.
const STEP: f64 = 1e-2;

/// Whether a load brings the optimizer's state back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum OptimizerState {
    /// It does: after one step the copies with and without it differ.
    Warm {
        /// By so much in a log-probability, in nats, at most.
        difference: f32,
    },
    /// It does not: after one step the copies are alike. So it is as well where no step had been taken before the save.
    Cold {
        /// By so much they differ, which may be chance.
        difference: f32,
    },
    /// It is not known.
    NotVerified {
        /// Why, as a sentence for people.
        reason: String,
    },
}

impl fmt::Display for OptimizerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Warm { difference } => write!(
                f,
                "The optimizer's state is restored: it makes a difference of {difference:.4} after one step."
            ),
            Self::Cold { difference } => write!(
                f,
                "The optimizer is cold: after one step it makes no difference ({difference:.4}) whether its state is \
                 restored."
            ),
            Self::NotVerified { reason } => {
                write!(f, "Whether the optimizer's state is restored is not known. {reason}")
            }
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Findings {
    /// Whether the weights are those that were saved.
    pub weights: Verification,
    /// Whether the optimizer's state comes with them.
    pub optimizer: OptimizerState,
}

/// Looks into a checkpoint. Makes two runs from it, in a session of their own, which is finished at the end.
///
/// # Errors
/// The checkpoint cannot be loaded, or the service cannot be asked.
pub async fn checkpoint(api: &Api, checkpoint: &Checkpoint) -> Result<Findings, Error> {
    let labels = UserMetadata::from([(LABEL_OPT_OUT.to_owned(), "true".to_owned())]);
    let session = SessionOptions {
        display_name: Some(format!("retinker verify {}", checkpoint.tinker_path)),
        ..SessionOptions::default()
    };
    let service = ServiceClient::with_options(api.clone(), session);
    let found = look(&service, checkpoint, labels).await;
    if let Err(error) = service.finish(FinishReason::Success, None).await {
        tracing::debug!(%error, "the session of the copies is left to end by itself");
    }
    found
}

async fn look(
    service: &ServiceClient,
    checkpoint: &Checkpoint,
    labels: UserMetadata,
) -> Result<Findings, Error> {
    let path = &checkpoint.tinker_path;
    let options = || TrainingOptions::from(labels.clone());
    let warm = service.create_training_client_from_state_with_optimizer(path, options()).await?;
    let probe = Probe::of_checkpoint(checkpoint);
    let weights = match &probe {
        Ok(Some(probe)) => match probe.check(&warm).await {
            Ok(verification) => verification,
            Err(error) => Verification::not(format!("{error}.")),
        },
        Ok(None) => Verification::not("No probe was saved with the checkpoint to compare with."),
        Err(error) => Verification::not(format!("{error}.")),
    };
    let cold = service.create_training_client_from_state(path, options()).await?;
    let text = match &probe {
        Ok(Some(probe)) => probe.tokens().to_vec(),
        _ => TEXT.to_vec(),
    };
    let optimizer = compare(&warm, &cold, &text)
        .await
        .unwrap_or_else(|error| OptimizerState::NotVerified { reason: format!("{error}.") });
    Ok(Findings { weights, optimizer })
}

/// Both take the same step, and are compared.
async fn compare(
    warm: &TrainingClient,
    cold: &TrainingClient,
    text: &[i32],
) -> Result<OptimizerState, ProbeError> {
    for client in [warm, cold] {
        let passed = client.forward_backward(vec![probe::batch(text)?], LOSS, &LossFnConfig::new());
        let stepped = client.optim_step(AdamParams { learning_rate: STEP, ..AdamParams::default() });
        passed.await?;
        stepped.await?;
    }
    let after = Probe::record(warm, text).await?;
    Ok(match after.check(cold).await? {
        Verification::Verified { difference } => OptimizerState::Cold { difference },
        Verification::Different { difference, .. } => OptimizerState::Warm { difference },
        Verification::NotVerified { reason } => OptimizerState::NotVerified { reason },
    })
}
