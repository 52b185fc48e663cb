//! The model and its arithmetic: no I/O.
//!
//! A Llama-style decoder whose frozen weights come from a seed, LoRA adapters over it, their gradients, and AdamW.
//! Everything is `f32`. Short examples that follow each other in a batch are computed together; which, follows from the
//! batch alone. Each such stack is computed on one thread, and the gradients are added in the stacks' order, so on one
//! machine a batch gives the same results bit for bit however many threads there are, whatever other batches are
//! computed beside it, and however many trainers there are. A batch that is split into several gives the same
//! log-probabilities; the sums of their gradients differ by rounding.
//!
//! Matrices are row-major. A sequence of `T` tokens is a `T x width` matrix, a weight is `out x in`.

mod adamw;
mod attention;
mod base;
mod config;
mod error;
mod export;
mod generate;
mod layout;
mod linear;
mod lora;
mod loss;
mod math;
mod matmul;
mod model;
mod ops;
mod rng;
mod sampling;
mod threads;
mod workspace;

#[cfg(test)]
mod tests;

pub use adamw::{OptimizerState, StepMetrics, optim_step};
pub use base::BaseModel;
pub use config::{BOS_TOKEN, EOS_TOKEN, LoraConfig, ModelConfig, PAD_TOKEN, VOCAB_SIZE};
pub use error::NnError;
pub use export::BaseTensor;
pub use generate::{DecodeScratch, MergedModel, Prompt, Sequence};
pub use layout::{Layout, TensorSpec};
pub use lora::{Adapter, Gradients, NamedTensor, TensorView};
pub use loss::{
    Clip, Example, LossTerms, PolicyLoss, RatioStats, Rollout, cross_entropy, cross_entropy_terms,
};
pub use model::{
    ExampleOutput, forward, forward_backward, forward_backward_with, forward_with, next_token_logits,
};
pub use rng::Rng;
pub use sampling::{Choice, Distribution};
pub use threads::Threads;
pub use workspace::Workspace;
