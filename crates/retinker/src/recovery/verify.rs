//! Looks into a checkpoint by loading it into throw-away copies: whether its weights are those that were saved, and whether
//! it brings its optimizer's state back.
//!
//! A cold optimizer gives the same first loss; only after a step the weights differ. So copies are made, one with the
//! optimizer's state and two without, and all take one and the same step. If the one is like the others afterwards, the state
//! was not there, or was not loaded; how far the two others differ is what chance does on this service. Their session is
//! finished when that is known.

use std::fmt;

use futures_util::future::try_join3;
use retinker_wire::UserMetadata;
use retinker_wire::run::Checkpoint;
use retinker_wire::session::FinishReason;
use retinker_wire::training::AdamParams;
use serde::{Deserialize, Serialize};

use super::plan::LABEL_OPT_OUT;
use super::probe::{self, LOSS, Probe, ProbeError, TOLERANCE, Verification};
use super::sentence::four_places;
use crate::client::{
    Api, Error, LossFnConfig, ServiceClient, SessionOptions, TrainingClient, TrainingOptions,
};

/// The text that the step is taken on, where the checkpoint has no probe: tokens that every vocabulary has.
const TEXT: [i32; 9] = [1, 2, 3, 5, 8, 13, 21, 34, 55];

/// The step's size: large, so that a warm optimizer cannot be taken for noise. Only copies take it.
const STEP: f64 = 1e-2;

/// A difference is more than chance if it is more than so many times what chance does.
const NOISES: f32 = 3.0;

/// Whether a load brings the optimizer's state back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case", try_from = "FlatOptimizerState")]
pub enum OptimizerState {
    /// It does: after one step the copies with and without it differ.
    Warm {
        /// By so much in a log-probability, in nats, at most.
        difference: f32,
        /// By so much two copies differ that are without it.
        noise: f32,
    },
    /// It does not: after one step the copies are alike. So it is as well where no step had been taken before the save.
    Cold {
        /// By so much they differ, which may be chance.
        difference: f32,
        /// By so much two copies differ that are without it.
        noise: f32,
    },
    /// It is not known.
    NotVerified {
        /// Why, as a sentence for people.
        reason: String,
    },
}

/// An [`OptimizerState`] as it is read: see [`FlatEvent`](crate::host::api) for why.
#[derive(Deserialize)]
struct FlatOptimizerState {
    verdict: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    difference: f32,
    #[serde(default)]
    noise: f32,
}

impl TryFrom<FlatOptimizerState> for OptimizerState {
    type Error = String;

    fn try_from(flat: FlatOptimizerState) -> Result<Self, String> {
        let FlatOptimizerState { verdict, reason, difference, noise } = flat;
        match verdict.as_str() {
            "warm" => Ok(Self::Warm { difference, noise }),
            "cold" => Ok(Self::Cold { difference, noise }),
            "not_verified" => Ok(Self::NotVerified { reason }),
            other => Err(format!("a verdict '{other}' that this version does not know")),
        }
    }
}

impl OptimizerState {
    /// It is not known, for this reason.
    pub fn not(reason: impl Into<String>) -> Self {
        Self::NotVerified { reason: reason.into() }
    }

    /// What the differences say: between copies with and without the state, and between two without.
    fn of(difference: f32, noise: f32) -> Self {
        if !difference.is_finite() || !noise.is_finite() {
            return Self::not("A copy gave no number after one step.");
        }
        if difference > NOISES * noise && difference > TOLERANCE {
            Self::Warm { difference, noise }
        } else if noise > TOLERANCE {
            Self::not(format!(
                "By chance alone two copies differ by {} after one step, too much to tell anything from {}.",
                four_places(noise),
                four_places(difference)
            ))
        } else {
            Self::Cold { difference, noise }
        }
    }
}

impl fmt::Display for OptimizerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Warm { difference, noise } => write!(
                f,
                "The optimizer's state is restored: after one step it makes a difference of {}, and chance one of {}.",
                four_places(*difference),
                four_places(*noise)
            ),
            Self::Cold { difference, noise } => write!(
                f,
                "The optimizer is cold: after one step it makes no difference whether its state is restored \
                 ({}; chance makes one of {}).",
                four_places(*difference),
                four_places(*noise)
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

/// Looks into a checkpoint. Makes three runs from it, in a session of their own, which is finished at the end.
///
/// # Errors
/// The checkpoint cannot be loaded, or the service cannot be asked.
pub async fn checkpoint(api: &Api, checkpoint: &Checkpoint) -> Result<Findings, Error> {
    apart(api, checkpoint, UserMetadata::new(), async |copies| {
        let warm = copies.warm().await?;
        let weights = match &copies.probe {
            Ok(Some(probe)) => match probe.check(&warm).await {
                Ok(verification) => verification,
                Err(error) => Verification::not(format!("{error}.")),
            },
            Ok(None) => Verification::not("No probe was saved with the checkpoint to compare with."),
            Err(error) => Verification::not(format!("{error}.")),
        };
        Ok(Findings { weights, optimizer: copies.optimizer(warm).await })
    })
    .await
}

/// Whether a checkpoint brings its optimizer's state back; the same by itself. `labels` are those of the copies' session.
///
/// # Errors
/// The checkpoint cannot be loaded, or the service cannot be asked.
pub async fn optimizer(
    api: &Api,
    checkpoint: &Checkpoint,
    labels: UserMetadata,
) -> Result<OptimizerState, Error> {
    apart(api, checkpoint, labels, async |copies| {
        let warm = copies.warm().await?;
        Ok(copies.optimizer(warm).await)
    })
    .await
}

/// Does something with copies in a session of their own.
async fn apart<T>(
    api: &Api,
    checkpoint: &Checkpoint,
    labels: UserMetadata,
    look: impl AsyncFnOnce(&Copies<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let session = SessionOptions {
        display_name: Some(format!("retinker verify {}", checkpoint.tinker_path)),
        user_metadata: labels,
        ..SessionOptions::default()
    };
    let service = ServiceClient::with_options(api.clone(), session);
    let path = &checkpoint.tinker_path;
    let found = look(&Copies { service: &service, path, probe: Probe::of_checkpoint(checkpoint) }).await;
    if let Err(error) = service.finish(FinishReason::Success, None).await {
        tracing::debug!(%error, "the session of the copies is left to end by itself");
    }
    found
}

/// Where copies of a checkpoint are made.
struct Copies<'a> {
    service: &'a ServiceClient,
    path: &'a str,
    probe: Result<Option<Probe>, ProbeError>,
}

impl Copies<'_> {
    /// Copies are not to be restored, whatever comes over them.
    fn options() -> TrainingOptions {
        TrainingOptions::from(UserMetadata::from([(LABEL_OPT_OUT.to_owned(), "true".to_owned())]))
    }

    async fn warm(&self) -> Result<TrainingClient, Error> {
        self.service.create_training_client_from_state_with_optimizer(self.path, Self::options()).await
    }

    async fn cold(&self) -> Result<TrainingClient, Error> {
        self.service.create_training_client_from_state(self.path, Self::options()).await
    }

    /// Whether a copy that was made with the optimizer's state has it.
    async fn optimizer(&self, warm: TrainingClient) -> OptimizerState {
        let text = match &self.probe {
            Ok(Some(probe)) => probe.tokens(),
            _ => &TEXT,
        };
        let compared = async {
            let (cold, other) = (self.cold().await?, self.cold().await?);
            let (warm, cold, other) =
                try_join3(stepped(&warm, text), stepped(&cold, text), stepped(&other, text)).await?;
            Ok::<_, ProbeError>(OptimizerState::of(warm.distance(&cold), cold.distance(&other)))
        };
        compared.await.unwrap_or_else(|error| OptimizerState::not(format!("{error}.")))
    }
}

/// How likely a copy finds the text after a step on it.
async fn stepped(client: &TrainingClient, text: &[i32]) -> Result<Probe, ProbeError> {
    let passed = client.forward_backward(vec![probe::batch(text)?], LOSS, &LossFnConfig::new());
    let stepped = client.optim_step(AdamParams { learning_rate: STEP, ..AdamParams::default() });
    passed.await?;
    stepped.await?;
    Probe::record(client, text).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::test;

    #[test]
    fn what_chance_can_do_proves_nothing() {
        for (difference, noise, verdict) in [
            (0.5, 0.0, "warm"),
            (0.0, 0.0, "cold"),
            (TOLERANCE, 0.0, "cold"),
            (0.015, 0.01, "cold"),
            (0.05, 0.01, "warm"),
            (0.2, 0.1, "not_verified"),
            (0.5, 0.1, "warm"),
            (f32::NAN, 0.0, "not_verified"),
        ] {
            let state = OptimizerState::of(difference, noise);
            let text = serde_json::to_value(&state).unwrap();
            assert_eq!(text["verdict"], verdict, "{difference} {noise}");
            assert_eq!(serde_json::from_value::<OptimizerState>(text).unwrap(), state);
        }
    }
}
