//! Projections with their low-rank additions.
#![allow(clippy::indexing_slicing)] // Offsets come from the layout that sized the buffers.

use super::base::BaseModel;
use super::layout::Group;
use super::lora::Adapter;
use super::matmul::{View, ViewMut, matmul};

/// Writes the effective weights `W + scale * B A` of every projection.
///
/// One product per weight and call, where keeping the addition apart would cost two per weight and sequence.
pub(crate) fn merge(base: &BaseModel, adapter: &Adapter, merged: &mut [f32]) {
    merged.copy_from_slice(&base.weights);
    let (rank, scale) = (adapter.layout.lora.rank, adapter.layout.lora.scale());
    for group in adapter.layout.groups.iter() {
        let Some((mut a, mut b)) = group.lora else { continue };
        let mut weight = group.weight;
        for module in &group.modules {
            let out = ViewMut::new(&mut merged[weight..], module.output, group.input);
            let a_factor = View::new(&adapter.data[a..], rank, group.input);
            let b_factor = View::new(&adapter.data[b..], module.output, rank);
            matmul(out, b_factor, a_factor, scale, true);
            weight += module.output * group.input;
            a += rank * group.input;
            b += module.output * rank;
        }
    }
}

/// How few rows a product has at least. `gemm` sums in another order where a result is very small; with these rows, of
/// which only the first may mean anything, the bits of a row do not depend on how many there are.
pub(crate) const ROWS: usize = 16;

/// `out = x W^T`, or `out += x W^T` when `accumulate`, of `len` rows; both have room for [`ROWS`] at least.
pub(crate) fn project(
    group: &Group,
    merged: &[f32],
    len: usize,
    x: &[f32],
    out: &mut [f32],
    accumulate: bool,
) {
    let weight = View::new(&merged[group.weight..], group.output, group.input);
    let rows = len.max(ROWS);
    let x = View::new(x, rows, group.input);
    matmul(ViewMut::new(out, rows, group.output), x, weight.t(), 1.0, accumulate);
}

/// `dx = dy W`: the gradient by the input, of `len` rows; both have room for [`ROWS`] at least.
pub(crate) fn project_backward(group: &Group, merged: &[f32], len: usize, dy: &[f32], dx: &mut [f32]) {
    let weight = View::new(&merged[group.weight..], group.output, group.input);
    let rows = len.max(ROWS);
    matmul(ViewMut::new(dx, rows, group.input), View::new(dy, rows, group.output), weight, 1.0, false);
}

/// Writes the gradients by the group's factors: `dB = scale * dy^T (x A^T)` and `dA = scale * (dy B)^T x`.
///
/// `narrow` is scratch for `len x modules x rank` values, twice.
pub(crate) fn lora_gradients(
    group: &Group,
    adapter: &Adapter,
    len: usize,
    (x, dy): (&[f32], &[f32]),
    gradients: &mut [f32],
    narrow: &mut [f32],
) {
    let Some((a, b)) = group.lora else { return };
    let (rank, scale) = (adapter.layout.lora.rank, adapter.layout.lora.scale());
    let width = group.modules.len() * rank;
    let (xa, dxa) = narrow.split_at_mut(len * width);
    let x = View::new(x, len, group.input);
    let factors = View::new(&adapter.data[a..], width, group.input);
    matmul(ViewMut::new(xa, len, width), x, factors.t(), 1.0, false);
    let (mut column, mut factor) = (0, b);
    for (i, module) in group.modules.iter().enumerate() {
        let dy = View::strided(&dy[column..], len, module.output, group.output);
        let b_factor = View::new(&adapter.data[factor..], module.output, rank);
        matmul(ViewMut::strided(&mut dxa[i * rank..], len, rank, width), dy, b_factor, scale, false);
        let d_factor = ViewMut::new(&mut gradients[factor..], module.output, rank);
        matmul(d_factor, dy.t(), View::strided(&xa[i * rank..], len, rank, width), scale, false);
        column += module.output;
        factor += module.output * rank;
    }
    let d_factors = ViewMut::new(&mut gradients[a..], width, group.input);
    matmul(d_factors, View::new(dxa, len, width).t(), x, 1.0, false);
}
