//! Causal attention of one sequence, forward and backward.
//!
//! Queries are taken in blocks, so that the scores of a block fit in the cache and keys after the block are skipped.
//! The backward pass works the probabilities out again instead of keeping `heads x T x T` of them.
#![allow(clippy::indexing_slicing)] // Offsets follow from the model's widths, to which the buffers are sized.

use super::config::ModelConfig;
use super::math::sum_by;
use super::matmul::{View, ViewMut, matmul};
use super::ops::softmax;

/// How many queries are taken at a time.
const BLOCK: usize = 64;

/// Where the parts of a head lie within a row of queries, keys and values.
struct Head {
    query: usize,
    key: usize,
    value: usize,
}

/// Widths of a model's attention.
struct Widths {
    /// Of one head.
    head: usize,
    /// Of a row of queries, keys and values.
    qkv: usize,
    /// Of a row of outputs.
    out: usize,
    /// What scores are multiplied by.
    scale: f32,
}

fn widths(config: &ModelConfig) -> Widths {
    let head = config.head_width();
    Widths { head, qkv: config.qkv_width(), out: config.d_model, scale: 1.0 / (head as f32).sqrt() }
}

fn heads(config: &ModelConfig) -> impl Iterator<Item = Head> {
    let (width, group, kv, d) =
        (config.head_width(), config.n_heads / config.n_kv_heads, config.kv_width(), config.d_model);
    (0..config.n_heads).map(move |head| {
        let shared = head / group * width;
        Head { query: head * width, key: d + shared, value: d + kv + shared }
    })
}

/// Blocks of queries: the first, and the first of the next block.
fn blocks(len: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..len).step_by(BLOCK).map(move |start| (start, (start + BLOCK).min(len)))
}

/// How many values the scores of a block take, for a sequence of `len` tokens.
pub(crate) fn score_len(len: usize) -> usize {
    BLOCK.min(len) * len
}

/// Attention probabilities of the queries `start..end` of a head: `(end - start) x end`.
fn probabilities(qkv: &[f32], head: &Head, w: &Widths, (start, end): (usize, usize), scores: &mut [f32]) {
    let queries = View::strided(&qkv[start * w.qkv + head.query..], end - start, w.head, w.qkv);
    let keys = View::strided(&qkv[head.key..], end, w.head, w.qkv);
    matmul(ViewMut::new(scores, end - start, end), queries, keys.t(), w.scale, false);
    for (i, row) in scores.chunks_exact_mut(end).take(end - start).enumerate() {
        softmax(row, start + i + 1);
    }
}

/// Attention of `len` tokens. `qkv` holds rotated queries and keys, and values; `out` gets all heads side by side.
pub(crate) fn attention(config: &ModelConfig, len: usize, qkv: &[f32], out: &mut [f32], scores: &mut [f32]) {
    let w = widths(config);
    for head in heads(config) {
        for (start, end) in blocks(len) {
            probabilities(qkv, &head, &w, (start, end), scores);
            let values = View::strided(&qkv[head.value..], end, w.head, w.qkv);
            let out = ViewMut::strided(&mut out[start * w.out + head.query..], end - start, w.head, w.out);
            matmul(out, View::new(scores, end - start, end), values, 1.0, false);
        }
    }
}

/// The gradient by queries, keys and values (`d_qkv`, overwritten), given that of the output.
///
/// `scores` and `d_scores` are scratch of [`score_len`] values each.
pub(crate) fn attention_backward(
    config: &ModelConfig,
    len: usize,
    qkv: &[f32],
    d_out: &[f32],
    d_qkv: &mut [f32],
    (scores, d_scores): (&mut [f32], &mut [f32]),
) {
    let w = widths(config);
    d_qkv[..len * w.qkv].fill(0.0);
    for head in heads(config) {
        for (start, end) in blocks(len) {
            let rows = end - start;
            probabilities(qkv, &head, &w, (start, end), scores);
            let keys = View::strided(&qkv[head.key..], end, w.head, w.qkv);
            let values = View::strided(&qkv[head.value..], end, w.head, w.qkv);
            let queries = View::strided(&qkv[start * w.qkv + head.query..], rows, w.head, w.qkv);
            let d_block = View::strided(&d_out[start * w.out + head.query..], rows, w.head, w.out);
            let d_values = ViewMut::strided(&mut d_qkv[head.value..], end, w.head, w.qkv);
            matmul(d_values, View::new(scores, rows, end).t(), d_block, 1.0, true);
            matmul(ViewMut::new(d_scores, rows, end), d_block, values.t(), 1.0, false);
            let pairs = scores.chunks_exact(end).zip(d_scores.chunks_exact_mut(end));
            for (p, d) in pairs.take(rows) {
                let mean = sum_by(end, |i| p[i] * d[i]);
                for (d, p) in d.iter_mut().zip(p) {
                    *d = p * (*d - mean);
                }
            }
            let d_queries = ViewMut::strided(&mut d_qkv[start * w.qkv + head.query..], rows, w.head, w.qkv);
            matmul(d_queries, View::new(d_scores, rows, end), keys, w.scale, false);
            let d_keys = ViewMut::strided(&mut d_qkv[head.key..], end, w.head, w.qkv);
            matmul(d_keys, View::new(d_scores, rows, end).t(), queries, w.scale, true);
        }
    }
}
