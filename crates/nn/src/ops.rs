//! The element-wise parts of a layer, forward and backward.
#![allow(clippy::indexing_slicing)] // Rows come from exact chunks of buffers sized by the model.

use super::math::{exp, sum_by, vectorized};

/// RMSNorm of each row: `out = x * rstd * weight`, with `rstd = 1 / sqrt(mean(x^2) + eps)` kept per row.
pub(crate) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32], rstd: &mut [f32]) {
    vectorized(|| {
        let width = weight.len();
        let rows = x.chunks_exact(width).zip(out.chunks_exact_mut(width));
        for ((x, out), rstd) in rows.zip(rstd) {
            *rstd = 1.0 / (sum_by(width, |i| x[i] * x[i]) / width as f32 + eps).sqrt();
            for ((out, x), w) in out.iter_mut().zip(x).zip(weight) {
                *out = x * *rstd * w;
            }
        }
    })
}

/// Adds to `dx` the gradient that comes through an RMSNorm of `x`, given that of its output.
pub(crate) fn rms_norm_backward(x: &[f32], weight: &[f32], rstd: &[f32], d_out: &[f32], dx: &mut [f32]) {
    vectorized(|| {
        let width = weight.len();
        let rows = x.chunks_exact(width).zip(d_out.chunks_exact(width)).zip(dx.chunks_exact_mut(width));
        for (((x, d_out), dx), rstd) in rows.zip(rstd) {
            let mean = sum_by(width, |i| d_out[i] * weight[i] * x[i]) * rstd / width as f32;
            let along = mean * rstd;
            for i in 0..width {
                dx[i] += rstd * (d_out[i] * weight[i] - x[i] * along);
            }
        }
    })
}

/// Rotates each head's pairs `(i, i + half)` by the position's angles; backwards when `inverse`, which is the gradient.
///
/// `rows` are `row_width` apart; the first `heads` heads of each are rotated. `cos` and `sin` have `half` values per
/// position.
pub(crate) fn rope(
    rows: &mut [f32],
    row_width: usize,
    heads: usize,
    half: usize,
    (cos, sin): (&[f32], &[f32]),
    inverse: bool,
) {
    vectorized(|| {
        let angles = cos.chunks_exact(half).zip(sin.chunks_exact(half));
        let sign = if inverse { -1.0 } else { 1.0 };
        for (row, (cos, sin)) in rows.chunks_exact_mut(row_width).zip(angles) {
            for head in row[..heads * 2 * half].chunks_exact_mut(2 * half) {
                let (low, high) = head.split_at_mut(half);
                for i in 0..half {
                    let (a, b, s) = (low[i], high[i], sign * sin[i]);
                    low[i] = a * cos[i] - b * s;
                    high[i] = b * cos[i] + a * s;
                }
            }
        }
    })
}

/// SwiGLU: `out = silu(gate) * up`, of rows that hold gate and up side by side.
pub(crate) fn swiglu(gate_up: &[f32], width: usize, out: &mut [f32]) {
    vectorized(|| {
        for (row, out) in gate_up.chunks_exact(2 * width).zip(out.chunks_exact_mut(width)) {
            let (gate, up) = row.split_at(width);
            for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                *out = gate / (1.0 + exp(-gate)) * up;
            }
        }
    })
}

/// The gradient of [`swiglu`] by gate and up, given that of its output.
pub(crate) fn swiglu_backward(gate_up: &[f32], width: usize, d_out: &[f32], d_gate_up: &mut [f32]) {
    vectorized(|| {
        let rows = gate_up.chunks_exact(2 * width).zip(d_gate_up.chunks_exact_mut(2 * width));
        for ((row, d_row), d_out) in rows.zip(d_out.chunks_exact(width)) {
            let (gate, up) = row.split_at(width);
            let (d_gate, d_up) = d_row.split_at_mut(width);
            let values = gate.iter().zip(up).zip(d_out);
            for (((gate, up), d), (d_gate, d_up)) in values.zip(d_gate.iter_mut().zip(d_up)) {
                let sigmoid = 1.0 / (1.0 + exp(-gate));
                let silu = gate * sigmoid;
                *d_up = d * silu;
                *d_gate = d * up * (sigmoid + silu * (1.0 - sigmoid));
            }
        }
    })
}

/// Turns the first `valid` scores of a row into probabilities and the others into zeros; gives the largest score
/// and the sum of `e^(score - largest)`.
pub(crate) fn softmax(row: &mut [f32], valid: usize) -> (f32, f32) {
    vectorized(|| {
        let (scores, rest) = row.split_at_mut(valid);
        let max = scores.iter().fold(f32::NEG_INFINITY, |max, x| if *x > max { *x } else { max });
        for score in scores.iter_mut() {
            *score = exp(*score - max);
        }
        let sum = sum_by(valid, |i| scores[i]);
        let inverse = 1.0 / sum;
        for score in scores {
            *score *= inverse;
        }
        rest.fill(0.0);
        (max, sum)
    })
}
