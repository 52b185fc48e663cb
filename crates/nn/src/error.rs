//! What can be wrong with what a caller hands in.

use std::fmt;

/// Why a model, an adapter or an example was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NnError {
    /// The model's sizes do not fit together.
    InvalidModel(String),
    /// The LoRA settings cannot make an adapter.
    InvalidLora(String),
    /// The optimizer cannot step with such settings.
    InvalidOptimizer(String),
    /// A step would leave weights or an optimizer state that are not finite.
    StepNotFinite,
    /// An example cannot be trained on or scored.
    InvalidExample {
        /// The example's place in the batch, from 0.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The gradients of a batch, added to those before, are not finite.
    GradientsNotFinite,
    /// The adapter, gradients or optimizer state belong to another model or LoRA configuration.
    LayoutMismatch,
    /// A tensor that the layout requires was not given.
    MissingTensor(String),
    /// A tensor was given that the layout does not know, or was given twice.
    UnexpectedTensor(String),
    /// A tensor has another shape, or another number of values, than the layout requires.
    WrongShape {
        /// The tensor's name.
        name: String,
        /// The shape required: rows, columns.
        expected: [usize; 2],
        /// The shape given: rows, columns.
        found: [usize; 2],
        /// How many values were given.
        values: usize,
    },
    /// A loss answered with a wrong number of derivatives, or with something that is not finite.
    InvalidLoss {
        /// The example's place in the batch, from 0.
        index: usize,
        /// What is wrong with the answer.
        reason: String,
    },
}

impl fmt::Display for NnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidModel(reason) => write!(f, "invalid model configuration: {reason}"),
            Self::InvalidLora(reason) => write!(f, "invalid LoRA configuration: {reason}"),
            Self::InvalidOptimizer(reason) => write!(f, "invalid optimizer settings: {reason}"),
            Self::StepNotFinite => {
                write!(f, "the step would leave weights or an optimizer state that are not finite")
            }
            Self::InvalidExample { index, reason } => write!(f, "example {index}: {reason}"),
            Self::GradientsNotFinite => write!(f, "the gradients would not be finite"),
            Self::LayoutMismatch => {
                write!(
                    f,
                    "the adapter, gradients or optimizer state belong to another model or LoRA configuration"
                )
            }
            Self::MissingTensor(name) => write!(f, "tensor {name} is missing"),
            Self::UnexpectedTensor(name) => write!(f, "tensor {name} is unknown or given twice"),
            Self::WrongShape { name, expected, found, values } => write!(
                f,
                "tensor {name} has shape {found:?} and {values} values; shape {expected:?} is required"
            ),
            Self::InvalidLoss { index, reason } => write!(f, "loss of example {index}: {reason}"),
        }
    }
}

impl std::error::Error for NnError {}
