//! The frozen weights, made from a seed.
#![allow(clippy::indexing_slicing)] // Offsets come from the layout that sized the buffers.

use super::config::ModelConfig;
use super::error::NnError;
use super::layout::{Group, Groups};
use super::math;
use super::rng::Rng;

/// Share of a common direction in every embedding, relative to the part that tells tokens apart.
///
/// It gives the query and key projections something constant to read, in place of the biases Llama lacks.
const COMMON: f32 = 1.0;
/// Attention score of a key at a head's preferred distance; one position off scores about 3 less (head width 32).
const PEAK_SCORE: f32 = 75.0;
/// Gain of the attention output.
const ATTENTION_GAIN: f32 = 1.0;
/// Gain of the gate and up projections: enough for the SwiGLU to leave its linear range.
const MLP_IN_GAIN: f32 = 1.5;
/// Gain of the down projection.
const MLP_OUT_GAIN: f32 = 0.3;
/// Weight of the last norm. A trained model's is above 1 too; here it lets an adapter of the unembedding, whose first
/// steps are as long as the learning rate whatever the gradient, reach useful logits within tens of steps at the
/// learning rates usual for LoRA (found by trial on English text, as the gains were).
const FINAL_NORM: f32 = 24.0;
/// Share of the random projection in queries and keys, so that content matters to attention.
const CONTENT: f32 = 0.25;
/// Standard deviation of the base logits: small, so that an untrained model is nearly uniform.
const LOGIT_STD: f32 = 0.1;

/// A base model: weights that training never changes.
///
/// The weights are random, but not structureless: the heads of every layer attend to the tokens at distances 1, 2, 3,
/// and so on, as heads of trained models do, so the hidden state at a position is a random mixture of the last few
/// tokens. An adapter can learn from such features within tens of steps.
#[derive(Debug, Clone)]
pub struct BaseModel {
    pub(super) config: ModelConfig,
    pub(super) groups: Groups,
    /// `vocab_size x d_model`.
    pub(super) embedding: Vec<f32>,
    /// All projections; see [`Groups`].
    pub(super) weights: Vec<f32>,
    /// `n_layers x 2 x d_model` (before attention, before the MLP), then the final `d_model`.
    pub(super) norms: Vec<f32>,
    /// Cosine of the rotation of pair `i` at position `t`: `max_context x head_width / 2`.
    pub(super) rope_cos: Vec<f32>,
    /// Sine of the same.
    pub(super) rope_sin: Vec<f32>,
}

impl BaseModel {
    /// Makes the weights that `config` determines.
    pub fn generate(config: &ModelConfig) -> Result<Self, NnError> {
        config.validate()?;
        let groups = Groups::new(config, None);
        let d = config.d_model;

        let mut common = vec![0.0; d];
        Rng::for_label(config.seed, "common").fill_normal(&mut common, COMMON);
        let mut embedding = vec![0.0; config.vocab_size * d];
        Rng::for_label(config.seed, "embedding").fill_normal(&mut embedding, 1.0);
        for row in embedding.chunks_exact_mut(d) {
            for (value, shared) in row.iter_mut().zip(&common) {
                *value += shared;
            }
        }

        let mut weights = vec![0.0; groups.weight_len];
        let per_input = |width: usize, gain: f32| gain / (width as f32).sqrt();
        for (i, layer) in groups.layers.iter().enumerate() {
            for (group, gain) in [
                (&layer.qkv, 1.0),
                (&layer.o, ATTENTION_GAIN),
                (&layer.gate_up, MLP_IN_GAIN),
                (&layer.down, MLP_OUT_GAIN),
            ] {
                fill(config.seed, &mut weights, group, per_input(group.input, gain));
            }
            position_heads(config, i, &common, &mut weights[layer.qkv.weight..]);
        }
        fill(config.seed, &mut weights, &groups.head, per_input(d, LOGIT_STD / FINAL_NORM));

        let mut norms = vec![1.0; 2 * config.n_layers * d];
        norms.resize((2 * config.n_layers + 1) * d, FINAL_NORM);
        let half = config.head_width() / 2;
        let mut rope_cos = Vec::with_capacity(config.max_context * half);
        let mut rope_sin = Vec::with_capacity(config.max_context * half);
        for position in 0..config.max_context {
            for pair in 0..half {
                let (sin, cos) = math::sin_cos(position as f64 * frequency(config, pair));
                rope_cos.push(cos as f32);
                rope_sin.push(sin as f32);
            }
        }
        Ok(Self { config: config.clone(), groups, embedding, weights, norms, rope_cos, rope_sin })
    }

    /// The sizes and the seed it was made from.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// How many parameters it has.
    pub fn parameter_count(&self) -> usize {
        self.embedding.len() + self.weights.len() + self.norms.len()
    }

    /// Weights of the norm before attention (`2 * layer`), before the MLP (`2 * layer + 1`), or the last.
    pub(crate) fn norm(&self, index: usize) -> &[f32] {
        let d = self.config.d_model;
        &self.norms[index * d..(index + 1) * d]
    }
}

/// Angle per position of a rotary pair, in radians.
fn frequency(config: &ModelConfig, pair: usize) -> f64 {
    math::inverse_power(f64::from(config.rope_theta), 2.0 * pair as f64 / config.head_width() as f64)
}

/// Fills the projections of a group, each from numbers of its own.
fn fill(seed: u64, weights: &mut [f32], group: &Group, std: f32) {
    let mut start = group.weight;
    for module in &group.modules {
        let end = start + module.output * group.input;
        Rng::for_label(seed, &module.name).fill_normal(&mut weights[start..end], std);
        start = end;
    }
}

/// Replaces the query and key projections by ones that read the common direction, so that head `h` scores a key by how
/// near it is to `h + 1` positions back, plus a share of the random projections.
fn position_heads(config: &ModelConfig, layer: usize, common: &[f32], qkv: &mut [f32]) {
    let (d, width) = (config.d_model, config.head_width());
    let half = width / 2;
    let norm = common.iter().map(|x| x * x).sum::<f32>();
    // What the norm divides an embedding by, about.
    let root = (COMMON * COMMON + 1.0).sqrt();
    let mut rng = Rng::for_label(config.seed, &format!("phases.{layer}"));
    let phases: Vec<f64> = (0..half).map(|_| rng.uniform() * std::f64::consts::TAU).collect();
    // `half` pairs of this amplitude squared, divided by the root of the width, make the peak score.
    let amplitude = (2.0 * PEAK_SCORE / (width as f32).sqrt()).sqrt();
    for head in 0..config.n_heads + config.n_kv_heads {
        let distance = if head < config.n_heads { (head + 1) as f64 } else { 0.0 };
        for (pair, phase) in phases.iter().enumerate() {
            let (sin, cos) =
                math::sin_cos(phase + std::f64::consts::TAU - distance * frequency(config, pair));
            for (row, value) in [(pair, cos), (pair + half, sin)] {
                let target = amplitude * value as f32 * root / norm;
                let start = (head * width + row) * d;
                for (weight, direction) in qkv[start..start + d].iter_mut().zip(common) {
                    *weight = CONTENT * *weight + target * direction;
                }
            }
        }
    }
}
