//! Losses that the program computes itself, from the log-probabilities of the targets.
//!
//! The server only knows its own losses. So the log-probabilities are asked for, the program says how its loss changes
//! with each of them, and the server is given a loss with that very gradient: cross-entropy, `-sum(weights * logprobs)`,
//! with `weights = -dC/dlogprobs`. As `forward_backward_custom` of the official SDK does it.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use retinker_wire::metrics::Metrics;
use retinker_wire::tensor::TensorData;
use retinker_wire::training::{Datum, ForwardBackwardOutput};

/// The loss that the server's gradient is taken of.
pub(super) const SURROGATE: &str = "cross_entropy";

const TARGETS: &str = "target_tokens";
const WEIGHTS: &str = "weights";
const LOGPROBS: &str = "logprobs";
const LOSS: &str = "loss:sum";
const SURROGATE_LOSS: &str = "surrogate_loss:sum";

/// What a loss function of the program's own says of a batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CustomLoss {
    /// The loss of the whole batch.
    pub loss: f64,
    /// For each datum how the loss changes with each of its log-probabilities, in their order: dC/dlogprobs. As many finite
    /// numbers as the datum's tensor of log-probabilities has.
    pub gradients: Vec<Vec<f32>>,
    /// More to be reported, by names that end in their reduction, such as `kl:mean`.
    pub metrics: Metrics,
}

/// What the log-probabilities are asked for with.
pub(super) fn forward_data(data: &[Datum]) -> Result<Vec<Datum>, String> {
    let only = |(i, datum): (usize, &Datum)| {
        let targets = datum.loss_fn_inputs.get(TARGETS);
        let targets = targets.ok_or_else(|| format!("datum {i} has no {TARGETS}"))?;
        let weights = datum.loss_fn_inputs.get(WEIGHTS).cloned().unwrap_or_else(|| {
            let cells = targets.shape.iter().flatten().product::<u64>();
            let count = targets.shape.as_ref().map_or(targets.len(), |_| cells as usize);
            TensorData { shape: targets.shape.clone(), ..TensorData::float32(vec![0.0; count]) }
        });
        Ok(with_inputs(datum, targets.clone(), weights))
    };
    data.iter().enumerate().map(only).collect()
}

/// The log-probabilities in a result, one tensor for each datum.
pub(super) fn logprobs(data: &[Datum], output: ForwardBackwardOutput) -> Result<Vec<TensorData>, String> {
    let mut outputs = output.loss_fn_outputs;
    if outputs.len() != data.len() {
        return Err(format!("{} datums were sent, results of {} came", data.len(), outputs.len()));
    }
    let logprobs = outputs.iter_mut().enumerate().map(|(i, output)| {
        output.remove(LOGPROBS).ok_or_else(|| format!("the result of datum {i} has no {LOGPROBS}"))
    });
    logprobs.collect()
}

/// What the program's loss function says; an error says why it says nothing. A panic of it is its own: caught here, it ends
/// neither the task that sends the run's operations nor the run's other calls. (A program that aborts on panics, such as one
/// for wasm, still ends.)
pub(super) fn loss<E: fmt::Display>(
    loss_fn: impl FnOnce(&[Datum], &[TensorData]) -> Result<CustomLoss, E>,
    data: &[Datum],
    logprobs: &[TensorData],
) -> Result<CustomLoss, String> {
    // Nothing that it could have left half done is used afterwards.
    let said = catch_unwind(AssertUnwindSafe(|| {
        loss_fn(data, logprobs).map_err(|error| format!("its loss function failed: {error}"))
    }));
    said.unwrap_or_else(|panic| Err(format!("its loss function panicked: {}", message_of(&*panic))))
}

fn message_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it does not say why")
}

/// What the gradient is asked for with.
pub(super) fn backward_data(
    data: &[Datum],
    logprobs: &[TensorData],
    gradients: Vec<Vec<f32>>,
) -> Result<Vec<Datum>, String> {
    if gradients.len() != data.len() {
        return Err(format!(
            "the loss function gave {} gradients for {} datums",
            gradients.len(),
            data.len()
        ));
    }
    let weighted = data.iter().zip(logprobs).zip(gradients).enumerate();
    let weighted = weighted.map(|(i, ((datum, logprobs), gradient))| {
        if gradient.len() != logprobs.len() {
            return Err(format!(
                "the loss function gave {} gradients for the {} log-probabilities of datum {i}",
                gradient.len(),
                logprobs.len()
            ));
        }
        if let Some(odd) = gradient.iter().find(|value| !value.is_finite()) {
            return Err(format!("the loss function gave {odd} as a gradient of datum {i}"));
        }
        let weights = gradient.into_iter().map(|value| -value).collect();
        let shape = Some(logprobs.shape.clone().unwrap_or_else(|| vec![logprobs.len() as u64]));
        let targets = datum.loss_fn_inputs.get(TARGETS).cloned();
        let targets = targets.ok_or_else(|| format!("datum {i} has no {TARGETS}"))?;
        Ok(with_inputs(datum, targets, TensorData { shape, ..TensorData::float32(weights) }))
    });
    weighted.collect()
}

fn with_inputs(datum: &Datum, targets: TensorData, weights: TensorData) -> Datum {
    Datum {
        model_input: datum.model_input.clone(),
        loss_fn_inputs: BTreeMap::from([(TARGETS.to_owned(), targets), (WEIGHTS.to_owned(), weights)]),
        provenance: datum.provenance.clone(),
    }
}

/// The result with the program's loss and metrics, and the server's loss under another name.
pub(super) fn report(
    mut output: ForwardBackwardOutput,
    loss: f64,
    metrics: Metrics,
) -> ForwardBackwardOutput {
    let surrogate = output.metrics.remove(LOSS);
    output.metrics.extend(metrics);
    output.metrics.insert(LOSS.to_owned(), loss);
    output.metrics.extend(surrogate.map(|loss| (SURROGATE_LOSS.to_owned(), loss)));
    output
}
