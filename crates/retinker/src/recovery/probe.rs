//! Is this run the one that was saved? A fixed small batch's log-probabilities, written down when a checkpoint is
//! saved, and compared when it has been loaded.
//!
//! A probe travels with its checkpoint, in the label [`LABEL_PROBE`]. Only who owns a run can compare it: the forward
//! pass takes one of the run's numbers. A restore does it before the hand-over; a driver can do it at any time, and
//! finds a *silent rollback* by it: a service that went on from older weights without saying so.

use std::fmt;

use retinker_wire::UserMetadata;
use retinker_wire::run::Checkpoint;
use retinker_wire::tensor::TensorValues;
use retinker_wire::training::{Datum, ForwardBackwardOutput};
use retinker_wire::weights::SaveWeightsResult;
use serde::{Deserialize, Serialize};

use super::sentence::four_places;
use crate::client::{Error, LossFnConfig, SaveOptions, TrainingClient};
use crate::json::{self, Misread};

/// Label of a checkpoint: its probe, as JSON.
pub const LABEL_PROBE: &str = "retinker.probe";

/// How far two log-probabilities of the same token under the same weights may lie apart, in nats. Ours: services
/// compute in bfloat16 and batch differently from call to call; the embedded one differs by 0.
pub const TOLERANCE: f32 = 0.02;

/// The longest probe, in tokens: labels are small.
pub const MOST_TOKENS: usize = 64;

/// The loss whose outputs are the log-probabilities of its targets: what a probe is measured by.
pub(super) const LOSS: &str = "cross_entropy";
const VERSION: u32 = 1;

/// A fixed text and how likely the run found it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// The form that it is written in; 1.
    version: u32,
    /// The text. Each token but the first is a target.
    tokens: Vec<i32>,
    /// The log-probability of each target, in nats.
    logprobs: Vec<f32>,
    /// How far they may lie apart, in nats.
    tolerance: f32,
}

/// What a comparison came to. There is no silent pass: what could not be compared is `not_verified`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case", try_from = "FlatVerification")]
pub enum Verification {
    /// It is the state that was saved.
    Verified {
        /// The largest difference, in nats.
        difference: f32,
    },
    /// It could not be compared.
    NotVerified {
        /// Why, as a sentence for people.
        reason: String,
    },
    /// It is another state than the one that was saved.
    Different {
        /// The largest difference, in nats; infinite where one is not a number.
        difference: f32,
        /// What was allowed.
        tolerance: f32,
    },
}

/// A [`Verification`] as it is read: see [`FlatEvent`](crate::host::api) for why.
#[derive(Deserialize)]
struct FlatVerification {
    verdict: String,
    #[serde(default)]
    reason: String,
    /// JSON writes an infinite number as null.
    #[serde(default)]
    difference: Option<f32>,
    #[serde(default)]
    tolerance: f32,
}

impl TryFrom<FlatVerification> for Verification {
    type Error = String;

    fn try_from(flat: FlatVerification) -> Result<Self, String> {
        let FlatVerification { verdict, reason, difference, tolerance } = flat;
        let difference = difference.unwrap_or(f32::INFINITY);
        match verdict.as_str() {
            "verified" => Ok(Self::Verified { difference }),
            "not_verified" => Ok(Self::NotVerified { reason }),
            "different" => Ok(Self::Different { difference, tolerance }),
            other => Err(format!("a verdict '{other}' that this version does not know")),
        }
    }
}

impl Verification {
    /// It could not be compared, for this reason.
    pub fn not(reason: impl Into<String>) -> Self {
        Self::NotVerified { reason: reason.into() }
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verified { difference } => write!(
                f,
                "Verified: it gives the log-probabilities that were recorded when it was saved (largest difference \
                 {}).",
                four_places(*difference)
            ),
            Self::NotVerified { reason } => write!(f, "Not verified. {reason}"),
            Self::Different { difference, tolerance } => write!(
                f,
                "Different: its log-probabilities are up to {} from those recorded when it was saved, and {} is allowed.",
                four_places(*difference),
                four_places(*tolerance)
            ),
        }
    }
}

/// Why a probe cannot be made or read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProbeError {
    /// Its text is too short or too long.
    #[error("a probe has 2 to {MOST_TOKENS} tokens, not {0}")]
    Length(usize),
    /// The run gave no log-probabilities for it.
    #[error("the run gave no finite log-probability for each of the probe's tokens")]
    NoLogprobs,
    /// The label cannot be read.
    #[error("the label {LABEL_PROBE} cannot be read: {0}")]
    Unreadable(String),
    /// A newer version wrote it.
    #[error("the probe has form {0}, which this version does not know")]
    Newer(u32),
    /// The request failed.
    #[error("{0}")]
    Client(#[from] Error),
}

impl Probe {
    /// How likely the run finds this text now. A forward pass: it takes the run's next number and changes nothing.
    pub async fn record(client: &TrainingClient, tokens: &[i32]) -> Result<Self, ProbeError> {
        let output = client.forward(vec![batch(tokens)?], LOSS, &LossFnConfig::new()).await?;
        Self::of(tokens, &output)
    }

    /// From the output of the forward pass of [`batch`].
    pub fn of(tokens: &[i32], output: &ForwardBackwardOutput) -> Result<Self, ProbeError> {
        let logprobs = logprobs_of(output).ok_or(ProbeError::NoLogprobs)?;
        if logprobs.len() + 1 != tokens.len() || logprobs.iter().any(|value| !value.is_finite()) {
            return Err(ProbeError::NoLogprobs);
        }
        Ok(Self { version: VERSION, tokens: tokens.to_vec(), logprobs, tolerance: TOLERANCE })
    }

    /// The same with another tolerance than [`TOLERANCE`], in nats.
    #[must_use]
    pub fn with_tolerance(mut self, tolerance: f32) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// The probe that was saved with a checkpoint; `None` where there is none.
    ///
    /// # Errors
    /// There is one that cannot be read.
    pub fn of_checkpoint(checkpoint: &Checkpoint) -> Result<Option<Self>, ProbeError> {
        let label = checkpoint.user_metadata.as_ref().and_then(|labels| labels.get(LABEL_PROBE));
        label.map(|text| Self::read(text)).transpose()
    }

    fn read(text: &str) -> Result<Self, ProbeError> {
        #[derive(Deserialize)]
        struct Form {
            version: u32,
        }
        let unreadable = |error: Misread| ProbeError::Unreadable(error.to_string());
        let Form { version } = json::read(text.as_bytes()).map_err(unreadable)?;
        if version > VERSION {
            return Err(ProbeError::Newer(version));
        }
        let probe: Self = json::read(text.as_bytes()).map_err(unreadable)?;
        if !(2..=MOST_TOKENS).contains(&probe.tokens.len()) {
            return Err(ProbeError::Length(probe.tokens.len()));
        }
        if probe.logprobs.len() + 1 != probe.tokens.len()
            || !probe.logprobs.iter().chain([&probe.tolerance]).all(|value| value.is_finite())
        {
            return Err(ProbeError::NoLogprobs);
        }
        Ok(probe)
    }

    /// Its text.
    pub fn tokens(&self) -> &[i32] {
        &self.tokens
    }

    /// The label that it travels in.
    pub fn label(&self) -> UserMetadata {
        // Finite numbers and integers: that cannot fail.
        let text = serde_json::to_string(self).unwrap_or_default();
        UserMetadata::from([(LABEL_PROBE.to_owned(), text)])
    }

    /// The batch to compare by.
    pub fn batch(&self) -> Result<Datum, ProbeError> {
        batch(&self.tokens)
    }

    /// Compares with the output of a forward pass of [`batch`](Self::batch).
    pub fn compare(&self, output: &ForwardBackwardOutput) -> Verification {
        let Some(found) = logprobs_of(output) else {
            return Verification::not("The service gave no log-probabilities for the probe.");
        };
        if found.len() != self.logprobs.len() {
            return Verification::not(
                "The service gave another number of log-probabilities than the probe has.",
            );
        }
        let difference = distance(&found, &self.logprobs);
        if difference <= self.tolerance {
            Verification::Verified { difference }
        } else {
            Verification::Different { difference, tolerance: self.tolerance }
        }
    }

    /// The largest difference from another probe of the same text, in nats.
    pub(super) fn distance(&self, other: &Self) -> f32 {
        distance(&self.logprobs, &other.logprobs)
    }

    /// Compares with the run as it is now; for its driver. Between the record and this no step may have been taken, else
    /// it is different of course.
    pub async fn check(&self, client: &TrainingClient) -> Result<Verification, ProbeError> {
        let output = client.forward(vec![self.batch()?], LOSS, &LossFnConfig::new()).await?;
        Ok(self.compare(&output))
    }
}

/// Saves a run's state with a probe: first a forward pass over `tokens` (2 to [`MOST_TOKENS`]), then the save, whose label
/// [`LABEL_PROBE`] holds what the pass gave. Take no step of the same run meanwhile.
pub async fn save_state_with_probe(
    client: &TrainingClient,
    name: &str,
    mut options: SaveOptions,
    tokens: &[i32],
) -> Result<SaveWeightsResult, ProbeError> {
    let probe = Probe::record(client, tokens).await?;
    options.user_metadata.get_or_insert_default().extend(probe.label());
    Ok(client.save_state(name, options).await?)
}

/// The batch of these tokens: each but the first is a target.
pub fn batch(tokens: &[i32]) -> Result<Datum, ProbeError> {
    let length = Err(ProbeError::Length(tokens.len()));
    if tokens.len() > MOST_TOKENS {
        return length;
    }
    let (Some((_, targets)), Some((_, input))) = (tokens.split_first(), tokens.split_last()) else {
        return length;
    };
    if targets.is_empty() {
        return length;
    }
    let targets: Vec<i64> = targets.iter().map(|&token| i64::from(token)).collect();
    let weights = vec![1.0; targets.len()];
    Ok(Datum::cross_entropy(input.to_vec(), targets, weights))
}

/// The largest difference; infinite where one is not a number.
fn distance(some: &[f32], others: &[f32]) -> f32 {
    let distance = |(a, b): (&f32, &f32)| {
        let distance = (a - b).abs();
        if distance.is_nan() { f32::INFINITY } else { distance }
    };
    some.iter().zip(others).map(distance).fold(0.0, f32::max)
}

fn logprobs_of(output: &ForwardBackwardOutput) -> Option<Vec<f32>> {
    let tensor = output.loss_fn_outputs.first()?.get("logprobs")?.to_dense().ok()?;
    match tensor.values {
        TensorValues::Float32(values) => Some(values),
        TensorValues::Int64(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use retinker_wire::tensor::TensorData;

    use super::super::samples::checkpoint;
    use super::*;
    use crate::client::testing::test;

    fn output(logprobs: Vec<f32>) -> ForwardBackwardOutput {
        let outputs = [("logprobs".to_owned(), TensorData::float32(logprobs))].into();
        ForwardBackwardOutput { loss_fn_outputs: vec![outputs], ..ForwardBackwardOutput::default() }
    }

    fn probe() -> Probe {
        Probe::of(&[1, 2, 3], &output(vec![-1.5, -0.25])).unwrap()
    }

    #[test]
    fn travels_in_a_label() {
        let mut checkpoint = checkpoint("r", "a", 0);
        assert_eq!(Probe::of_checkpoint(&checkpoint).unwrap(), None);
        checkpoint.user_metadata = Some(probe().label());
        assert_eq!(Probe::of_checkpoint(&checkpoint).unwrap(), Some(probe()));
        for (text, error) in [
            ("{", "cannot be read"),
            (r#"{"version":2}"#, "form 2"),
            (r#"{"version":1,"tokens":[1],"logprobs":[],"tolerance":0.1}"#, "not 1"),
            (r#"{"version":1,"tokens":[1,2],"logprobs":[],"tolerance":0.1}"#, "finite"),
            (r#"{"version":1,"tokens":[1,2],"logprobs":[1e99],"tolerance":0.1}"#, ""),
        ] {
            checkpoint.user_metadata = Some([(LABEL_PROBE.to_owned(), text.to_owned())].into());
            let found = Probe::of_checkpoint(&checkpoint).unwrap_err().to_string();
            assert!(found.contains(error), "{text}: {found}");
        }
    }

    #[test]
    fn verdicts() {
        let probe = probe().with_tolerance(0.125);
        for (logprobs, expected) in [
            (vec![-1.5, -0.25], Verification::Verified { difference: 0.0 }),
            (vec![-1.5, -0.375], Verification::Verified { difference: 0.125 }),
            (vec![-1.0, -0.25], Verification::Different { difference: 0.5, tolerance: 0.125 }),
            (vec![f32::NAN, -0.25], Verification::Different { difference: f32::INFINITY, tolerance: 0.125 }),
        ] {
            let found = probe.compare(&output(logprobs));
            assert_eq!(found, expected);
            let text = serde_json::to_string(&found).unwrap();
            assert_eq!(serde_json::from_str::<Verification>(&text).unwrap(), expected, "{text}");
        }
        for odd in [output(vec![-1.5]), ForwardBackwardOutput::default()] {
            assert!(matches!(probe.compare(&odd), Verification::NotVerified { .. }), "never a silent pass");
        }
    }

    #[test]
    fn lengths() {
        for length in [0, 1, MOST_TOKENS + 1] {
            assert!(matches!(batch(&vec![1; length]), Err(ProbeError::Length(n)) if n == length));
        }
        let datum = batch(&[1, 2, 3]).unwrap();
        assert_eq!(datum, Datum::cross_entropy(vec![1, 2], vec![2, 3], vec![1.0; 2]));
        let odd = Probe::of(&[1, 2, 3], &output(vec![f32::NAN, 0.0]));
        assert!(matches!(odd, Err(ProbeError::NoLogprobs)), "{odd:?}");
    }
}
