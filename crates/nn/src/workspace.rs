//! Buffers that outlive a call.

use std::sync::Arc;

use super::base::BaseModel;
use super::config::ModelConfig;
use super::linear::ROWS;
use super::threads::Threads;

/// Scratch memory of one trainer. It carries nothing from one call to the next but its allocations, may be used with
/// any model and adapter, and grows to the longest sequence seen.
#[derive(Debug)]
pub struct Workspace {
    /// How many threads a pass may take.
    pub(super) threads: Arc<Threads>,
    /// Effective weights; see [`super::linear::merge`].
    pub(super) merged: Vec<f32>,
    /// The gradients before a pass, should it fail.
    pub(super) before: Vec<f32>,
    /// Of the calling thread.
    pub(super) stack: StackBuffers,
    /// Of the other threads of a pass.
    pub(super) others: Vec<StackBuffers>,
    /// Gradients of single stacks.
    pub(super) spare: Vec<Vec<f32>>,
}

impl Default for Workspace {
    fn default() -> Self {
        Self::new()
    }
}

/// What the forward pass of one layer keeps for the backward pass.
#[derive(Debug, Default)]
pub(crate) struct LayerCache {
    /// Input of the layer: `T x d_model`.
    pub(super) x: Vec<f32>,
    /// Its RMSNorm: `T x d_model`, and the reciprocal root mean squares: `T`.
    pub(super) normed: Vec<f32>,
    pub(super) rstd: Vec<f32>,
    /// Rotated queries and keys, and values: `T x qkv_width`.
    pub(super) qkv: Vec<f32>,
    /// Output of the heads: `T x d_model`.
    pub(super) heads: Vec<f32>,
    /// The stream after attention: `T x d_model`.
    pub(super) middle: Vec<f32>,
    /// Its RMSNorm: `T x d_model`, and the reciprocal root mean squares: `T`.
    pub(super) middle_normed: Vec<f32>,
    pub(super) middle_rstd: Vec<f32>,
    /// Gate and up: `T x 2 d_ff`.
    pub(super) gate_up: Vec<f32>,
    /// Input of the down projection: `T x d_ff`.
    pub(super) active: Vec<f32>,
}

/// Buffers for sequences of `T` tokens in all; longer ones may lie in them from before, so lengths are not to be relied on.
#[derive(Debug, Default)]
pub(crate) struct StackBuffers {
    pub(super) layers: Vec<LayerCache>,
    /// Output of the last layer: `T x d_model`, its RMSNorm and reciprocal root mean squares.
    pub(super) x: Vec<f32>,
    pub(super) normed: Vec<f32>,
    pub(super) rstd: Vec<f32>,
    /// Logits, then probabilities, then gradients by the logits: `T x vocab_size`.
    pub(super) logits: Vec<f32>,
    /// Scratch of attention.
    pub(super) scores: Vec<f32>,
    pub(super) d_scores: Vec<f32>,
    /// Gradient by the stream: `T x d_model`.
    pub(super) dx: Vec<f32>,
    /// Gradient by something `d_model` wide beside the stream.
    pub(super) d_narrow: Vec<f32>,
    /// Gradient by queries, keys and values, or by gate and up.
    pub(super) d_wide: Vec<f32>,
    /// Gradient by the input of the down projection: `T x d_ff`.
    pub(super) d_active: Vec<f32>,
    /// Scratch of the low-rank gradients.
    pub(super) low_rank: Vec<f32>,
}

/// Makes a buffer at least `len` long.
fn grow(buffer: &mut Vec<f32>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
}

impl Workspace {
    /// An empty one, for work on the calling thread.
    pub fn new() -> Self {
        Self::with_threads(Arc::new(Threads::new(1)))
    }

    /// An empty one, for work on several threads.
    pub fn with_threads(threads: Arc<Threads>) -> Self {
        Self {
            threads,
            merged: Vec::new(),
            before: Vec::new(),
            stack: StackBuffers::default(),
            others: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// Makes room for the weights of `base`.
    pub(crate) fn size_weights(&mut self, base: &BaseModel) {
        self.merged.resize(base.weights.len(), 0.0);
    }
}

impl StackBuffers {
    /// Makes room for a stack of sequences; for the backward pass too if it has a `rank`.
    pub(crate) fn size(&mut self, config: &ModelConfig, sequences: &[&[u32]], rank: Option<usize>) {
        let len = sequences.iter().map(|tokens| tokens.len()).sum::<usize>().max(ROWS);
        let longest = sequences.iter().map(|tokens| tokens.len()).max().unwrap_or(0);
        let (narrow, qkv, ff) = (len * config.d_model, len * config.qkv_width(), len * config.d_ff);
        if self.layers.len() < config.n_layers {
            self.layers.resize_with(config.n_layers, LayerCache::default);
        }
        for layer in self.layers.iter_mut().take(config.n_layers) {
            grow(&mut layer.x, narrow);
            grow(&mut layer.normed, narrow);
            grow(&mut layer.rstd, len);
            grow(&mut layer.qkv, qkv);
            grow(&mut layer.heads, narrow);
            grow(&mut layer.middle, narrow);
            grow(&mut layer.middle_normed, narrow);
            grow(&mut layer.middle_rstd, len);
            grow(&mut layer.gate_up, 2 * ff);
            grow(&mut layer.active, ff);
        }
        grow(&mut self.x, narrow);
        grow(&mut self.normed, narrow);
        grow(&mut self.rstd, len);
        grow(&mut self.logits, len * config.vocab_size);
        grow(&mut self.scores, super::attention::score_len(longest));
        if let Some(rank) = rank {
            grow(&mut self.d_scores, super::attention::score_len(longest));
            grow(&mut self.dx, narrow);
            grow(&mut self.d_narrow, narrow);
            grow(&mut self.d_wide, qkv.max(2 * ff));
            grow(&mut self.d_active, ff);
            // The widest group, queries with keys and values, has three projections.
            grow(&mut self.low_rank, 2 * 3 * rank * len);
        }
    }
}
