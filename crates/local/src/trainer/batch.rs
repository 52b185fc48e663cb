//! A batch of the protocol as the model takes it.

use std::collections::BTreeMap;

use retinker_wire::metrics::Metrics;
use retinker_wire::tensor::TensorData;
use retinker_wire::training::{Datum, ForwardBackwardOutput, LossFnOutput};

use super::job::ForwardBackward;
use retinker_nn::{self as nn, Clip, Example, ExampleOutput, LossTerms, PolicyLoss, RatioStats, Rollout};

/// The losses that can be trained with.
const LOSSES: &str = "cross_entropy, importance_sampling, ppo, cispo, dro";
/// The bounds of the ratio in Tinker's documentation.
const PPO_CLIP: Clip = Clip { low: 0.8, high: 1.2 };
/// The bounds of the ratio in Tinker's cookbook.
const CISPO_CLIP: Clip = Clip { low: 0.0, high: 4.0 };
/// Ours: the example in Tinker's documentation, which names no default.
const DRO_BETA: f64 = 0.05;

const TARGETS: &str = "target_tokens";
const WEIGHTS: &str = "weights";
const LOGPROBS: &str = "logprobs";
const ADVANTAGES: &str = "advantages";
/// The name of a setting and, per position, of an input.
const CLIP_LOW: &str = "clip_low_threshold";
/// The name of a setting and, per position, of an input.
const CLIP_HIGH: &str = "clip_high_threshold";
const BETA: &str = "beta";

/// The examples of a batch and their loss.
pub(super) struct Batch {
    pub(super) examples: Vec<Example>,
    loss: Loss,
}

enum Loss {
    CrossEntropy,
    Policy {
        loss: PolicyLoss,
        /// One for each example.
        rollouts: Vec<Rollout>,
    },
}

impl Batch {
    /// Reads and checks everything but what only the model knows. An error is the caller's fault.
    pub(super) fn new(pass: &ForwardBackward) -> Result<Self, String> {
        let policy = policy(pass)?;
        if pass.data.is_empty() {
            return Err("the batch has no data".to_owned());
        }
        let mut examples = Vec::with_capacity(pass.data.len());
        let mut rollouts = Vec::new();
        for (i, datum) in pass.data.iter().enumerate() {
            let inputs = Inputs { loss: &pass.loss_fn, tensors: &datum.loss_fn_inputs };
            let named = |reason: String| format!("datum {i}: {reason}");
            let example = example(datum, &inputs, policy.as_ref()).map_err(named)?;
            if let Some(policy) = &policy {
                rollouts.push(rollout(&inputs, policy, &example).map_err(named)?);
            }
            examples.push(example);
        }
        let loss = policy.map_or(Loss::CrossEntropy, |loss| Loss::Policy { loss, rollouts });
        Ok(Self { examples, loss })
    }

    /// The loss of an example whose targets have these log-probabilities.
    pub(super) fn loss(&self, index: usize, logprobs: &[f32]) -> LossTerms {
        let terms = match &self.loss {
            Loss::CrossEntropy => {
                self.examples.get(index).map(|example| nn::cross_entropy(example, logprobs))
            }
            Loss::Policy { loss, rollouts } => {
                rollouts.get(index).map(|rollout| loss.terms(rollout, logprobs))
            }
        };
        // An index beyond the batch has no derivatives, which the model refuses.
        terms.unwrap_or(LossTerms { loss_sum: 0.0, d_logprobs: Vec::new() })
    }

    /// What the client is told of a pass.
    pub(super) fn output(&self, outputs: Vec<ExampleOutput>) -> ForwardBackwardOutput {
        let loss: f64 = outputs.iter().map(|output| output.loss_sum).sum();
        let tokens: usize = self.examples.iter().map(|example| example.tokens.len()).sum();
        let mut metrics =
            Metrics::from([("loss:sum".to_owned(), loss), ("tokens:sum".to_owned(), tokens as f64)]);
        let kind = match &self.loss {
            Loss::CrossEntropy => "CrossEntropyLossReturn",
            Loss::Policy { loss, rollouts } => {
                let stats: Vec<RatioStats> = rollouts
                    .iter()
                    .zip(&outputs)
                    .map(|(rollout, output)| RatioStats::new(loss, rollout, &output.logprobs))
                    .collect();
                metrics.extend(ratio_metrics(loss, &stats));
                output_type(loss)
            }
        };
        let loss_fn_outputs = outputs.into_iter().zip(&self.examples);
        ForwardBackwardOutput {
            loss_fn_output_type: kind.to_owned(),
            loss_fn_outputs: loss_fn_outputs.map(|(output, example)| self.datum(output, example)).collect(),
            metrics,
        }
    }

    fn datum(&self, output: ExampleOutput, example: &Example) -> LossFnOutput {
        let mut shape = vec![example.tokens.len() as u64];
        if example.width() > 1 {
            shape.push(example.width() as u64);
        }
        let tensor = |values| TensorData { shape: Some(shape.clone()), ..TensorData::float32(values) };
        let mut outputs = LossFnOutput::new();
        if let Loss::CrossEntropy = self.loss {
            let losses = nn::cross_entropy_terms(example, &output.logprobs).map(|loss| loss as f32).collect();
            outputs.insert("elementwise_loss".to_owned(), tensor(losses));
        }
        outputs.insert("logprobs".to_owned(), tensor(output.logprobs));
        outputs
    }
}

/// The loss that a pass asks for with its settings; `None` is cross entropy.
fn policy(pass: &ForwardBackward) -> Result<Option<PolicyLoss>, String> {
    let name = pass.loss_fn.as_str();
    let (policy, known): (_, &[&str]) = match name {
        "cross_entropy" => (None, &[]),
        "importance_sampling" => (Some(PolicyLoss::ImportanceSampling), &[]),
        "ppo" => (Some(PolicyLoss::Ppo(clip(pass, PPO_CLIP)?)), &[CLIP_LOW, CLIP_HIGH]),
        "cispo" => (Some(PolicyLoss::Cispo(clip(pass, CISPO_CLIP)?)), &[CLIP_LOW, CLIP_HIGH]),
        "dro" => {
            let beta = setting(pass, BETA)?.unwrap_or(DRO_BETA);
            if beta < 0.0 {
                return Err(format!("loss function dro: beta must not be negative, and {beta} is"));
            }
            (Some(PolicyLoss::Dro { beta }), &[BETA])
        }
        other => return Err(format!("loss function '{other}' is not offered here; offered: {LOSSES}")),
    };
    match pass.settings.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) if known.is_empty() => Err(format!("loss function {name} has no setting '{key}'")),
        Some(key) => {
            Err(format!("loss function {name} has no setting '{key}'; it has: {}", known.join(", ")))
        }
        None => Ok(policy),
    }
}

fn clip(pass: &ForwardBackward, default: Clip) -> Result<Clip, String> {
    let low = setting(pass, CLIP_LOW)?.unwrap_or(default.low);
    let high = setting(pass, CLIP_HIGH)?.unwrap_or(default.high);
    if low > high {
        return Err(format!(
            "loss function {}: {CLIP_LOW} {low} is above {CLIP_HIGH} {high}; they are bounds of the ratio itself",
            pass.loss_fn
        ));
    }
    Ok(Clip { low, high })
}

/// A setting, which must be a number that a 32-bit float can hold.
fn setting(pass: &ForwardBackward, key: &str) -> Result<Option<f64>, String> {
    let Some(value) = pass.settings.get(key) else { return Ok(None) };
    match value.as_f64() {
        Some(number) if (number as f32).is_finite() => Ok(Some(number)),
        // A number that JSON cannot hold, such as NaN, has become null.
        _ => Err(format!("loss function {}: {key} must be a finite number, not {value}", pass.loss_fn)),
    }
}

/// The protocol's name of what a loss answers, made after that of cross entropy.
fn output_type(loss: &PolicyLoss) -> &'static str {
    match loss {
        PolicyLoss::ImportanceSampling => "ImportanceSamplingLossReturn",
        PolicyLoss::Ppo(_) => "PPOLossReturn",
        PolicyLoss::Cispo(_) => "CISPOLossReturn",
        PolicyLoss::Dro { .. } => "DROLossReturn",
    }
}

/// Clients weight the means of a call's chunks by their numbers of datums, as the means are made here.
fn ratio_metrics(loss: &PolicyLoss, examples: &[RatioStats]) -> Metrics {
    let Some(stats) = RatioStats::of_batch(examples) else { return Metrics::new() };
    let mut metrics = vec![
        ("ratio:mean", stats.mean),
        ("ratio:min", stats.min),
        ("ratio:max", stats.max),
        ("kl:mean", stats.kl),
    ];
    if matches!(loss, PolicyLoss::Ppo(_) | PolicyLoss::Cispo(_)) {
        metrics.push(("clipped_fraction:mean", stats.clipped));
    }
    metrics.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The inputs of a loss, read with errors that name them.
struct Inputs<'a> {
    loss: &'a str,
    tensors: &'a BTreeMap<String, TensorData>,
}

impl<'a> Inputs<'a> {
    fn required(&self, name: &str) -> Result<&'a TensorData, String> {
        self.tensors.get(name).ok_or_else(|| format!("{} needs {name}, which are missing", self.loss))
    }

    /// Refuses inputs that the loss would pass over.
    fn only(&self, known: &[&str]) -> Result<(), String> {
        match self.tensors.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => {
                let known = match known {
                    [first @ .., last] => format!("{} and {last}", first.join(", ")),
                    [] => String::new(),
                };
                Err(format!("{} takes {known}, not '{name}'", self.loss))
            }
            None => Ok(()),
        }
    }

    /// One finite number for each target; `None` when absent.
    fn numbers(&self, name: &str, shape: &[u64]) -> Result<Option<Vec<f32>>, String> {
        let Some(tensor) = self.tensors.get(name) else { return Ok(None) };
        let values = tensor.to_f32();
        let found = shape_of(name, tensor)?;
        if found != shape {
            return Err(match (&*found, shape) {
                ([found], [expected]) => {
                    format!("{found} {name} for {expected} {TARGETS}; the numbers must be equal")
                }
                _ => format!("{name} have shape {found:?} and {TARGETS} {shape:?}; they must be equal"),
            });
        }
        match values.iter().position(|value| !value.is_finite()) {
            Some(at) => Err(format!("{name}: the value at index {at} is not finite")),
            None => Ok(Some(values)),
        }
    }
}

/// A tensor's shape: one dimension when it states none. It has to hold the values there are.
fn shape_of(name: &str, tensor: &TensorData) -> Result<Vec<u64>, String> {
    let len = tensor.len() as u64;
    let Some(shape) = &tensor.shape else { return Ok(vec![len]) };
    let product = shape.iter().try_fold(1u64, |product, dimension| product.checked_mul(*dimension));
    if product != Some(len) {
        return Err(format!("{name} state shape {shape:?} and hold {len} values"));
    }
    Ok(shape.clone())
}

/// The part of a datum that the model reads, and the weights.
fn example(datum: &Datum, inputs: &Inputs<'_>, policy: Option<&PolicyLoss>) -> Result<Example, String> {
    inputs.only(match policy {
        None => &[TARGETS, WEIGHTS],
        Some(PolicyLoss::ImportanceSampling | PolicyLoss::Dro { .. }) => {
            &[TARGETS, LOGPROBS, ADVANTAGES, WEIGHTS]
        }
        Some(PolicyLoss::Ppo(_) | PolicyLoss::Cispo(_)) => {
            &[TARGETS, LOGPROBS, ADVANTAGES, WEIGHTS, CLIP_LOW, CLIP_HIGH]
        }
    })?;
    let tokens = datum.model_input.to_ints().map_err(|e| format!("{e}, which alone is trained on here"))?;
    let tokens = tokens
        .into_iter()
        .map(|token| u32::try_from(token).map_err(|_| format!("token {token} is negative")))
        .collect::<Result<Vec<_>, _>>()?;
    let tensor = inputs.required(TARGETS)?;
    let shape = shape_of(TARGETS, tensor)?;
    match (&*shape, policy) {
        ([_], _) => {}
        ([_, width], None) if *width > 0 => {}
        (_, None) => return Err(format!("{TARGETS} have shape {shape:?}; (N) or (N, K) is required")),
        (_, Some(_)) => {
            return Err(format!("{TARGETS} have shape {shape:?}; {} takes one dimension", inputs.loss));
        }
    }
    let rows = shape.first().copied().unwrap_or_default();
    if rows != tokens.len() as u64 && !tokens.is_empty() {
        return Err(format!("{} tokens and {rows} targets; the numbers must be equal", tokens.len()));
    }
    let targets = tensor
        .as_i64()
        .ok_or_else(|| format!("{TARGETS} are float32; int64 is required"))?
        .iter()
        .map(|&token| u32::try_from(token).map_err(|_| format!("target {token} is not a token")))
        .collect::<Result<Vec<_>, _>>()?;
    let weights = inputs.numbers(WEIGHTS, &shape)?.unwrap_or_else(|| vec![1.0; targets.len()]);
    Ok(Example { tokens, targets, weights })
}

/// What a policy's loss reads besides.
fn rollout(inputs: &Inputs<'_>, policy: &PolicyLoss, example: &Example) -> Result<Rollout, String> {
    let shape = [example.targets.len() as u64];
    let required = |name: &str| {
        inputs.required(name)?;
        Ok::<_, String>(inputs.numbers(name, &shape)?.unwrap_or_default())
    };
    let rollout = Rollout {
        logprobs: required(LOGPROBS)?,
        advantages: required(ADVANTAGES)?,
        weights: example.weights.clone(),
        clip_low: inputs.numbers(CLIP_LOW, &shape)?,
        clip_high: inputs.numbers(CLIP_HIGH, &shape)?,
    };
    match policy.crossed_bounds(&rollout) {
        Some(at) => Err(format!("{CLIP_LOW} is above {CLIP_HIGH} at position {at}")),
        None => Ok(rollout),
    }
}
