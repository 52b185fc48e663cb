//! Generation: a prompt in one pass, then token by token with a cache of keys and values.
//!
//! A decoding step takes the newest tokens of many sequences at once. What it says of a sequence is the same bit for
//! bit whatever other sequences are in the step, so the products here are not those of `gemm`, whose order of summation
//! may change with the number of rows.
#![allow(clippy::indexing_slicing)] // Buffers are sized for the step, and tokens and positions checked, before use.

use std::sync::Arc;

use super::base::BaseModel;
use super::config::ModelConfig;
use super::error::NnError;
use super::layout::Group;
use super::linear::{ROWS, merge, project};
use super::lora::Adapter;
use super::loss::check_tokens;
use super::math::sum_by;
use super::model::layers_forward;
use super::ops::{rms_norm, rope, softmax, swiglu};
use super::workspace::Workspace;

/// A base model with an adapter worked into its weights, to generate with.
#[derive(Debug)]
pub struct MergedModel {
    base: Arc<BaseModel>,
    /// `None` without an adapter: the base model's own weights serve.
    merged: Option<Vec<f32>>,
}

/// Keys and values of consecutive tokens.
#[derive(Debug, Clone)]
struct Cache {
    /// For each layer, token by token: rotated keys, then values.
    layers: Vec<Vec<f32>>,
    /// How many tokens.
    len: usize,
}

/// A prompt that was read.
#[derive(Debug, Clone)]
pub struct Prompt {
    cache: Arc<Cache>,
    next: Vec<f32>,
    scores: Vec<f32>,
}

/// A sequence that grows. Those that go on from one prompt share its keys and values.
#[derive(Debug, Clone)]
pub struct Sequence {
    prompt: Arc<Cache>,
    own: Cache,
}

/// Scratch memory of decoding steps. It carries nothing from one step to the next but its allocations.
#[derive(Debug, Default)]
pub struct DecodeScratch {
    x: Vec<f32>,
    normed: Vec<f32>,
    rstd: Vec<f32>,
    qkv: Vec<f32>,
    heads: Vec<f32>,
    gate_up: Vec<f32>,
    active: Vec<f32>,
    scores: Vec<f32>,
    logits: Vec<f32>,
}

impl MergedModel {
    /// The model `base` as `adapter` changes it.
    pub fn new(base: Arc<BaseModel>, adapter: Option<&Adapter>) -> Result<Self, NnError> {
        let merged = match adapter {
            Some(adapter) if adapter.layout.model != base.config => return Err(NnError::LayoutMismatch),
            Some(adapter) => {
                let mut merged = vec![0.0; base.weights.len()];
                merge(&base, adapter, &mut merged);
                Some(merged)
            }
            None => None,
        };
        Ok(Self { base, merged })
    }

    /// The model's sizes.
    pub fn config(&self) -> &ModelConfig {
        &self.base.config
    }

    /// How much memory it takes beside the base model.
    pub fn bytes(&self) -> usize {
        self.merged.as_ref().map_or(0, |merged| merged.len() * size_of::<f32>())
    }

    /// How much memory the keys and values of so many tokens take.
    pub fn cache_bytes(&self, tokens: usize) -> usize {
        let config = &self.base.config;
        config.n_layers * tokens * 2 * config.kv_width() * size_of::<f32>()
    }

    fn weights(&self) -> &[f32] {
        self.merged.as_ref().unwrap_or(&self.base.weights)
    }

    fn cache(&self, room: usize) -> Cache {
        let config = &self.base.config;
        let layer = || Vec::with_capacity(room * 2 * config.kv_width());
        Cache { layers: (0..config.n_layers).map(|_| layer()).collect(), len: 0 }
    }

    /// Reads a prompt. With `scored` the logits of every position are kept, not only those of the last.
    pub fn read(&self, tokens: &[u32], scored: bool, workspace: &mut Workspace) -> Result<Prompt, NnError> {
        let config = &self.base.config;
        check_tokens(config, 0, "token", tokens)?;
        let (len, d, kv, vocab) = (tokens.len(), config.d_model, config.kv_width(), config.vocab_size);
        let s = &mut workspace.stack;
        s.size(config, &[tokens], None);
        layers_forward(&self.base, self.weights(), &[tokens], s);
        let mut cache = self.cache(len);
        for (layer, activations) in cache.layers.iter_mut().zip(&s.layers) {
            for row in activations.qkv.chunks_exact(config.qkv_width()).take(len) {
                layer.extend_from_slice(&row[d..d + 2 * kv]);
            }
        }
        cache.len = len;
        let head = &self.base.groups.head;
        let mut scores = Vec::new();
        if scored {
            scores.resize(len.max(ROWS) * vocab, 0.0);
            project(head, self.weights(), len, &s.normed, &mut scores, false);
            scores.truncate(len * vocab);
        }
        let mut next = vec![0.0; vocab];
        project_rows(head, self.weights(), &s.normed[(len - 1) * d..len * d], &mut next, false);
        Ok(Prompt { cache: Arc::new(cache), next, scores })
    }

    /// Lets each sequence go on by a token. Gives the logits of what follows, `vocab_size` for each sequence in order.
    pub fn decode<'a>(
        &self,
        steps: &mut [(&mut Sequence, u32)],
        scratch: &'a mut DecodeScratch,
    ) -> Result<&'a [f32], NnError> {
        let (base, weights, config) = (&self.base, self.weights(), &self.base.config);
        for (index, (sequence, token)) in steps.iter().enumerate() {
            check_tokens(config, index, "token", &[*token])?;
            if sequence.len() >= config.max_context {
                let reason = format!("it fills the model's context of {} already", config.max_context);
                return Err(NnError::InvalidExample { index, reason });
            }
            if !sequence.prompt.fits(config) || !sequence.own.fits(config) {
                return Err(NnError::LayoutMismatch);
            }
        }
        let (rows, d, half) = (steps.len(), config.d_model, config.head_width() / 2);
        let s = scratch;
        s.size(config, rows, steps.iter().map(|(sequence, _)| sequence.len() + 1).max().unwrap_or(0));
        for ((_, token), x) in steps.iter().zip(s.x.chunks_exact_mut(d)) {
            x.copy_from_slice(&base.embedding[*token as usize * d..][..d]);
        }
        let rotated = config.n_heads + config.n_kv_heads;
        for (i, groups) in base.groups.layers.iter().enumerate() {
            rms_norm(&s.x, base.norm(2 * i), config.norm_eps, &mut s.normed, &mut s.rstd);
            project_rows(&groups.qkv, weights, &s.normed, &mut s.qkv, false);
            let lines =
                s.qkv.chunks_exact_mut(config.qkv_width()).zip(s.heads.chunks_exact_mut(d)).zip(&mut *steps);
            for ((qkv, heads), (sequence, _)) in lines {
                let angles = sequence.len() * half..(sequence.len() + 1) * half;
                let angles = (&base.rope_cos[angles.clone()], &base.rope_sin[angles]);
                rope(qkv, config.qkv_width(), rotated, half, angles, false);
                sequence.own.layers[i].extend_from_slice(&qkv[d..]);
                attend(config, &qkv[..d], [&sequence.prompt.layers[i], &sequence.own.layers[i]], heads, {
                    &mut s.scores[..sequence.len() + 1]
                });
            }
            project_rows(&groups.o, weights, &s.heads, &mut s.x, true);
            rms_norm(&s.x, base.norm(2 * i + 1), config.norm_eps, &mut s.normed, &mut s.rstd);
            project_rows(&groups.gate_up, weights, &s.normed, &mut s.gate_up, false);
            swiglu(&s.gate_up, config.d_ff, &mut s.active);
            project_rows(&groups.down, weights, &s.active, &mut s.x, true);
        }
        for (sequence, _) in steps {
            sequence.own.len += 1;
        }
        rms_norm(&s.x, base.norm(2 * config.n_layers), config.norm_eps, &mut s.normed, &mut s.rstd);
        project_rows(&base.groups.head, weights, &s.normed, &mut s.logits, false);
        Ok(&s.logits)
    }
}

impl Cache {
    /// Whether it holds what it says for a model of these sizes.
    fn fits(&self, config: &ModelConfig) -> bool {
        let values = self.len * 2 * config.kv_width();
        self.layers.len() == config.n_layers && self.layers.iter().all(|layer| layer.len() == values)
    }
}

impl Prompt {
    /// How many tokens it has; never none.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.cache.len
    }

    /// A sequence that goes on from here, with memory for so many tokens more.
    pub fn sequence(&self, room: usize) -> Sequence {
        let layer = |shared: &Vec<f32>| Vec::with_capacity(shared.len() / self.cache.len * room);
        let own = Cache { layers: self.cache.layers.iter().map(layer).collect(), len: 0 };
        Sequence { prompt: Arc::clone(&self.cache), own }
    }

    /// The logits of what follows.
    pub fn next_logits(&self) -> &[f32] {
        &self.next
    }

    /// Logits by position, of what follows it: as many as the prompt has tokens if they were asked for, else none.
    pub fn scores(&self) -> impl Iterator<Item = &[f32]> {
        self.scores.chunks_exact(self.next.len())
    }
}

impl Sequence {
    /// How many tokens it has, with those of its prompt; never none.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.prompt.len + self.own.len
    }
}

impl DecodeScratch {
    /// Makes room for exactly so many rows, the longest of `len` tokens.
    fn size(&mut self, config: &ModelConfig, rows: usize, len: usize) {
        let narrow = rows * config.d_model;
        self.x.resize(narrow, 0.0);
        self.normed.resize(narrow, 0.0);
        self.rstd.resize(rows, 0.0);
        self.qkv.resize(rows * config.qkv_width(), 0.0);
        self.heads.resize(narrow, 0.0);
        self.gate_up.resize(rows * 2 * config.d_ff, 0.0);
        self.active.resize(rows * config.d_ff, 0.0);
        self.scores.resize(len, 0.0);
        self.logits.resize(rows * config.vocab_size, 0.0);
    }
}

/// Attention of one query over keys and values that lie in two parts, one after the other.
fn attend(config: &ModelConfig, query: &[f32], parts: [&[f32]; 2], out: &mut [f32], scores: &mut [f32]) {
    let (width, kv) = (config.head_width(), config.kv_width());
    let scale = 1.0 / (width as f32).sqrt();
    let sharing = config.n_heads / config.n_kv_heads;
    let rows = || parts.into_iter().flat_map(|part| part.chunks_exact(2 * kv));
    let heads = query.chunks_exact(width).zip(out.chunks_exact_mut(width));
    for (head, (query, out)) in heads.enumerate() {
        let at = head / sharing * width;
        for (score, row) in scores.iter_mut().zip(rows()) {
            let key = &row[at..at + width];
            *score = scale * sum_by(width, |i| query[i] * key[i]);
        }
        softmax(scores, scores.len());
        out.fill(0.0);
        for (p, row) in scores.iter().zip(rows()) {
            for (out, value) in out.iter_mut().zip(&row[kv + at..kv + at + width]) {
                *out += p * value;
            }
        }
    }
}

/// `out = x W^T`, or `out += x W^T` when `accumulate`, for as many rows as `x` has. A row of the result depends on that
/// row of `x` only, and on no machine's way of multiplying matrices.
fn project_rows(group: &Group, merged: &[f32], x: &[f32], out: &mut [f32], accumulate: bool) {
    /// Rows that share the reading of a weight.
    const TOGETHER: usize = 4;
    let weights = &merged[group.weight..group.weight + group.output * group.input];
    let mut put = |row: usize, column: usize, value: f32| {
        let cell = &mut out[row * group.output + column];
        *cell = if accumulate { *cell + value } else { value };
    };
    let rows = x.len() / group.input;
    let row = |i: usize| &x[i * group.input..(i + 1) * group.input];
    for (column, weight) in weights.chunks_exact(group.input).enumerate() {
        let mut first = 0;
        while first + TOGETHER <= rows {
            let values = dot::<TOGETHER>(weight, std::array::from_fn(|i| row(first + i)));
            for (i, value) in values.into_iter().enumerate() {
                put(first + i, column, value);
            }
            first += TOGETHER;
        }
        for i in first..rows {
            let [value] = dot(weight, [row(i)]);
            put(i, column, value);
        }
    }
}

/// Inner products of one vector with several of the same length, each summed in the order of [`sum_by`].
#[inline(always)]
fn dot<const N: usize>(weight: &[f32], rows: [&[f32]; N]) -> [f32; N] {
    let (weights, rest) = weight.as_chunks::<8>();
    let mut lanes = [[0.0_f32; 8]; N];
    let parts = rows.map(|row| row.as_chunks::<8>());
    for (chunk, weights) in weights.iter().enumerate() {
        for (lanes, (row, _)) in lanes.iter_mut().zip(&parts) {
            for ((lane, weight), x) in lanes.iter_mut().zip(weights).zip(&row[chunk]) {
                *lane += weight * x;
            }
        }
    }
    for (lanes, (_, row)) in lanes.iter_mut().zip(&parts) {
        for ((lane, weight), x) in lanes.iter_mut().zip(rest).zip(*row) {
            *lane += weight * x;
        }
    }
    lanes.map(|[a, b, c, d, e, f, g, h]| ((a + e) + (c + g)) + ((b + f) + (d + h)))
}

#[cfg(test)]
mod tests;
