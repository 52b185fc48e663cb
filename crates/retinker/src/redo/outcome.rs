//! What a request came to, as it is remembered, and whether another is the same.

use std::collections::BTreeMap;

use retinker_wire::metrics::Metrics;
use retinker_wire::model::LoadWeightsResult;
use retinker_wire::tensor::TensorValues;
use retinker_wire::training::{ForwardBackwardOutput, OptimStepResult};
use retinker_wire::weights::{SaveWeightsForSamplerResult, SaveWeightsResult};
use serde::{Deserialize, Serialize};

use super::entry::{Form, bits};
use crate::client::Error;
use crate::client::pending::{FutureResult, Raw};
use retinker_wire::future::RequestType;

/// How a replayed result is held against the one that was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Matching {
    /// Bit for bit, as the embedded service computes. The default: of a service that is not deterministic it stops the first
    /// recovery, rather than to go on with something else.
    #[default]
    Exact,
    /// Each sum of a result within this part of the sum of its absolute values, e.g. 1e-4. How much a service varies by itself
    /// [`calibrate`](super::calibrate()) finds out.
    Tolerance(f64),
}

/// What a request came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Outcome {
    /// It failed by itself, through nobody's loss of state: it had no effect, and is not done again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) void: bool,
    /// It was carried out and failed: it may have had an effect, and fails again when it is done again. Of steps of the optimizer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) failed: bool,
    #[serde(with = "bits", skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) metrics: Metrics,
    /// Of all values of the outputs, in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<u64>,
    /// For each output, by its datum's number and its name: the sum of its values, and of their absolute ones.
    #[serde(with = "bits", skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) sums: BTreeMap<String, f64>,
    /// Of a save.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
}

/// The sum of an output's absolute values, beside the sum.
const ABSOLUTE: &str = "|";

impl Outcome {
    pub(crate) fn void() -> Self {
        Self { void: true, ..Self::default() }
    }

    pub(crate) fn failed() -> Self {
        Self { failed: true, ..Self::default() }
    }

    /// What a result says. One that cannot be read took place all the same, and has nothing to be compared.
    pub(crate) fn of(form: &Form, operation: &str, raw: &Raw) -> Result<Self, Error> {
        Ok(match form {
            Form::Forward | Form::ForwardBackward => Self::of_pass(&raw.read(operation)?),
            Form::OptimStep { .. } => {
                let OptimStepResult { metrics } = raw.read(operation)?;
                Self { metrics: metrics.unwrap_or_default(), ..Self::default() }
            }
            Form::SaveState { .. } | Form::SaveExternal { .. } => {
                let SaveWeightsResult { path } = raw.read(operation)?;
                Self { path: Some(path), ..Self::default() }
            }
            Form::SaveForSampler { .. } => {
                let SaveWeightsForSamplerResult { path, .. } = raw.read(operation)?;
                Self { path, ..Self::default() }
            }
            Form::Load { .. } => Self::default(),
        })
    }

    pub(super) fn of_pass(output: &ForwardBackwardOutput) -> Self {
        let mut digest = Digest::new();
        let mut sums = BTreeMap::new();
        for (datum, fields) in output.loss_fn_outputs.iter().enumerate() {
            for (name, tensor) in fields {
                digest.bytes(name.as_bytes());
                let (mut sum, mut absolute) = (0.0, 0.0);
                match &tensor.values {
                    TensorValues::Float32(values) => values.iter().for_each(|value| {
                        digest.word(u64::from(value.to_bits()));
                        sum += f64::from(*value);
                        absolute += f64::from(value.abs());
                    }),
                    TensorValues::Int64(values) => values.iter().for_each(|value| {
                        digest.word(value.cast_unsigned());
                        sum += *value as f64;
                        absolute += value.abs() as f64;
                    }),
                }
                sums.insert(format!("{datum} {name}"), sum);
                sums.insert(format!("{ABSOLUTE}{datum} {name}"), absolute);
            }
        }
        Self { metrics: output.metrics.clone(), digest: Some(digest.0), sums, ..Self::default() }
    }

    /// The first thing that differs from what was recorded, if anything does: its name, then, and now.
    pub(crate) fn differs(&self, recorded: &Self, matching: Matching) -> Option<(String, f64, f64)> {
        let metric =
            self.metrics_beside(recorded).find(|(_, then, now)| !matching.same(*then, *now, then.abs()));
        if let Some((name, then, now)) = metric {
            return Some((name.clone(), then, now));
        }
        if recorded.digest.is_none() || self.is_the_same(recorded) {
            return None;
        }
        let mut pairs = self.sums_beside(recorded);
        let differs = match matching {
            Matching::Exact => {
                pairs.find(|(_, then, now, _)| then != now).or_else(|| self.sums_beside(recorded).next())
            }
            Matching::Tolerance(_) => pairs.find(|(_, then, now, scale)| !matching.same(*then, *now, *scale)),
        };
        differs.map(|(name, then, now, _)| (format!("datum {name}"), then, now))
    }

    /// How far the two are apart at most, as a part of what is compared; `None` = they are the same, bit for bit.
    pub(super) fn apart(&self, recorded: &Self) -> Option<f64> {
        let metrics = self.metrics_beside(recorded).map(|(_, then, now)| (then, now, then.abs()));
        let sums = self.sums_beside(recorded).map(|(_, then, now, scale)| (then, now, scale));
        let parts = metrics.chain(sums).filter(|(then, now, _)| then.to_bits() != now.to_bits());
        let parts = parts.map(|(then, now, scale)| (then - now).abs() / scale.max(f64::MIN_POSITIVE));
        // What is no number is apart from every number.
        let parts = parts.map(|part| if part.is_nan() { f64::INFINITY } else { part });
        let largest = parts.max_by(f64::total_cmp);
        largest.or_else(|| (recorded.digest.is_some() && !self.is_the_same(recorded)).then_some(0.0))
    }

    fn is_the_same(&self, recorded: &Self) -> bool {
        self.digest == recorded.digest && self.digest.is_some()
    }

    /// Metrics that are compared: the name, then, and now.
    fn metrics_beside<'a>(&'a self, recorded: &'a Self) -> impl Iterator<Item = (&'a String, f64, f64)> {
        // Counters and clocks are never the same again.
        let compared = |name: &&String| !name.rsplit(':').next().is_some_and(|by| by.starts_with("unique"));
        let of = |of: &Self, name: &str| of.metrics.get(name).copied().unwrap_or(f64::NAN);
        let names = recorded.metrics.keys().filter(compared);
        names.map(move |name| (name, of(recorded, name), of(self, name)))
    }

    /// Sums that are compared: the name, then, now, and the sum of absolute values then.
    fn sums_beside<'a>(&'a self, recorded: &'a Self) -> impl Iterator<Item = (&'a String, f64, f64, f64)> {
        let sums = recorded.sums.iter().filter(|(name, _)| !name.starts_with(ABSOLUTE));
        sums.map(move |(name, then)| {
            let scale = recorded.sums.get(&format!("{ABSOLUTE}{name}")).copied().unwrap_or_default();
            (name, *then, self.sums.get(name).copied().unwrap_or(f64::NAN), scale)
        })
    }
}

impl Matching {
    fn same(self, then: f64, now: f64, scale: f64) -> bool {
        match self {
            Self::Exact => then.to_bits() == now.to_bits(),
            Self::Tolerance(part) => {
                then.to_bits() == now.to_bits() || (then - now).abs() <= part * scale.max(f64::MIN_POSITIVE)
            }
        }
    }
}

/// FNV-1a over words of 64 bits: what it has to find is chance, not malice.
struct Digest(u64);

impl Digest {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.word(u64::from(*byte)));
    }
}

/// What `retrieve_future` is told of a request of this form.
pub(crate) fn result_type(form: &Form) -> RequestType {
    match form {
        Form::Forward | Form::ForwardBackward => ForwardBackwardOutput::TYPE,
        Form::OptimStep { .. } => OptimStepResult::TYPE,
        Form::SaveState { .. } | Form::SaveExternal { .. } => SaveWeightsResult::TYPE,
        Form::SaveForSampler { .. } => SaveWeightsForSamplerResult::TYPE,
        Form::Load { .. } => LoadWeightsResult::TYPE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::test;

    fn outcome(metrics: &[(&str, f64)], sums: &[(&str, f64)], digest: u64) -> Outcome {
        let map =
            |pairs: &[(&str, f64)]| pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        Outcome { metrics: map(metrics), sums: map(sums), digest: Some(digest), ..Outcome::default() }
    }

    #[test]
    fn counters_of_a_service_are_not_compared_and_losses_are() {
        let then = outcome(&[("clock_cycle:unique", 17.0), ("loss:sum", 2.0)], &[], 1);
        let counted = outcome(&[("clock_cycle:unique", 99.0), ("loss:sum", 2.0)], &[], 1);
        assert_eq!(counted.differs(&then, Matching::Exact), None);
        let off = outcome(&[("clock_cycle:unique", 17.0), ("loss:sum", 2.001)], &[], 1);
        assert_eq!(off.differs(&then, Matching::Exact), Some(("loss:sum".to_owned(), 2.0, 2.001)));
        assert_eq!(off.differs(&then, Matching::Tolerance(1e-2)), None);
        let diverged = outcome(&[("loss:sum", f64::NAN)], &[], 1);
        assert_eq!(
            diverged.differs(&diverged.clone(), Matching::Exact),
            None,
            "what is no number is the same again"
        );
        assert!(diverged.differs(&then, Matching::Tolerance(1.0)).is_some());
    }

    #[test]
    fn sums_are_compared_by_how_much_they_are_sums_of() {
        let then = outcome(&[], &[("0 logprobs", 0.001), ("|0 logprobs", 100.0)], 1);
        let now = outcome(&[], &[("0 logprobs", 0.002), ("|0 logprobs", 100.0)], 2);
        assert_eq!(now.differs(&then, Matching::Tolerance(1e-4)), None, "they nearly cancel each other out");
        assert_eq!(now.differs(&then, Matching::Exact), Some(("datum 0 logprobs".to_owned(), 0.001, 0.002)));
        assert!(now.differs(&then, Matching::Tolerance(1e-6)).is_some());
    }
}
