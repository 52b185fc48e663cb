//! The forward and backward passes over a batch of sequences.
#![allow(clippy::indexing_slicing)] // Buffers are sized for the sequence, and tokens validated, before use.

use super::attention::{attention, attention_backward};
use super::base::BaseModel;
use super::error::NnError;
use super::linear::{lora_gradients, merge, project, project_backward};
use super::lora::{Adapter, Gradients, same_layout};
use super::loss::{Example, LossTerms, check_tokens, cross_entropy};
use super::math;
use super::ops::{rms_norm, rms_norm_backward, rope, softmax, swiglu, swiglu_backward};
use super::threads::in_order;
use super::workspace::{SequenceBuffers, Workspace};

/// What the model says about one example.
#[derive(Debug, Clone, PartialEq)]
pub struct ExampleOutput {
    /// Natural logarithm of the probability of each target, in the order of the example's targets.
    pub logprobs: Vec<f32>,
    /// The loss, summed over the positions; cross entropy unless another loss was given.
    pub loss_sum: f64,
}

/// Scores examples: log-probabilities and cross entropy, without gradients.
pub fn forward(
    base: &BaseModel,
    adapter: &Adapter,
    examples: &[Example],
    workspace: &mut Workspace,
) -> Result<Vec<ExampleOutput>, NnError> {
    forward_with(base, adapter, examples, workspace, |i, logprobs| cross_entropy(&examples[i], logprobs))
}

/// Scores examples with any loss that is a function of the targets' log-probabilities, without gradients.
pub fn forward_with(
    base: &BaseModel,
    adapter: &Adapter,
    examples: &[Example],
    workspace: &mut Workspace,
    loss: impl Fn(usize, &[f32]) -> LossTerms + Sync,
) -> Result<Vec<ExampleOutput>, NnError> {
    prepare(base, adapter, examples, workspace)?;
    each(workspace, examples, &mut [], |index, example, merged, sequence, _| {
        let logprobs = sequence_forward(base, merged, example, None, sequence);
        let terms = loss(index, &logprobs);
        check_terms(&terms, index, example)?;
        Ok(ExampleOutput { logprobs, loss_sum: terms.loss_sum })
    })
}

/// Scores examples and adds the gradients of their cross entropy to `gradients`.
pub fn forward_backward(
    base: &BaseModel,
    adapter: &Adapter,
    examples: &[Example],
    workspace: &mut Workspace,
    gradients: &mut Gradients,
) -> Result<Vec<ExampleOutput>, NnError> {
    forward_backward_with(base, adapter, examples, workspace, gradients, |i, logprobs| {
        // The index is that of an example of this very slice.
        cross_entropy(&examples[i], logprobs)
    })
}

/// Scores examples and adds the gradients of any loss that is a function of the targets' log-probabilities.
///
/// `loss` is called once per example, in any order, with its index and log-probabilities. All examples are validated
/// before anything is computed. Should the loss or the gradients not be finite, the gradients stay as they were.
pub fn forward_backward_with(
    base: &BaseModel,
    adapter: &Adapter,
    examples: &[Example],
    workspace: &mut Workspace,
    gradients: &mut Gradients,
    loss: impl Fn(usize, &[f32]) -> LossTerms + Sync,
) -> Result<Vec<ExampleOutput>, NnError> {
    if !same_layout(&adapter.layout, &gradients.layout) {
        return Err(NnError::LayoutMismatch);
    }
    prepare(base, adapter, examples, workspace)?;
    // A copy costs next to nothing beside the pass, and undoing sums of floats is not exact.
    workspace.before.clone_from(&gradients.data);
    let outputs = add_gradients(base, adapter, examples, workspace, &mut gradients.data, loss);
    if outputs.is_err() {
        gradients.data.copy_from_slice(&workspace.before);
    }
    outputs
}

/// The work of [`forward_backward_with`]; after an error the gradients are undefined.
fn add_gradients(
    base: &BaseModel,
    adapter: &Adapter,
    examples: &[Example],
    workspace: &mut Workspace,
    gradients: &mut [f32],
    loss: impl Fn(usize, &[f32]) -> LossTerms + Sync,
) -> Result<Vec<ExampleOutput>, NnError> {
    let rank = adapter.layout.lora.rank;
    let outputs = each(workspace, examples, gradients, |index, example, merged, sequence, gradients| {
        let logprobs = sequence_forward(base, merged, example, Some(rank), sequence);
        let terms = loss(index, &logprobs);
        check_terms(&terms, index, example)?;
        sequence_backward(base, adapter, merged, example, &terms.d_logprobs, sequence, gradients);
        Ok(ExampleOutput { logprobs, loss_sum: terms.loss_sum })
    })?;
    if !gradients.iter().all(|g| g.is_finite()) {
        return Err(NnError::GradientsNotFinite);
    }
    Ok(outputs)
}

/// Does `work` for each example on as many threads as are free: it gets the index, the example, the merged weights,
/// buffers, and room for the example's gradients, which are added to `sum` in the examples' order.
fn each(
    workspace: &mut Workspace,
    examples: &[Example],
    sum: &mut [f32],
    work: impl Fn(usize, &Example, &[f32], &mut SequenceBuffers, &mut [f32]) -> Result<ExampleOutput, NnError>
    + Sync,
) -> Result<Vec<ExampleOutput>, NnError> {
    let Workspace { threads, merged, sequence, others, spare, .. } = workspace;
    let taken = threads.take(examples.len());
    others.resize_with(others.len().max(taken.count - 1), SequenceBuffers::default);
    let buffers = (sequence, &mut others[..taken.count - 1]);
    in_order(buffers, spare, examples.len(), sum, |index, sequence, gradients| {
        work(index, &examples[index], merged, sequence, gradients)
    })
}

/// The logits of what follows `tokens`: `vocab_size` values.
pub fn next_token_logits(
    base: &BaseModel,
    adapter: &Adapter,
    tokens: &[u32],
    workspace: &mut Workspace,
) -> Result<Vec<f32>, NnError> {
    check_tokens(&base.config, 0, "token", tokens)?;
    prepare(base, adapter, &[], workspace)?;
    let Workspace { merged, sequence, .. } = workspace;
    let len = tokens.len();
    sequence.size(&base.config, len, None);
    layers_forward(base, merged, tokens, sequence);
    let d = base.config.d_model;
    let mut logits = vec![0.0; base.config.vocab_size];
    project(&base.groups.head, merged, 1, &sequence.normed[(len - 1) * d..len * d], &mut logits, false);
    Ok(logits)
}

/// Checks that everything fits together and merges the weights.
fn prepare(
    base: &BaseModel,
    adapter: &Adapter,
    examples: &[Example],
    workspace: &mut Workspace,
) -> Result<(), NnError> {
    if adapter.layout.model != base.config {
        return Err(NnError::LayoutMismatch);
    }
    for (index, example) in examples.iter().enumerate() {
        example.validate(&base.config, index)?;
    }
    workspace.size_weights(base);
    merge(base, adapter, &mut workspace.merged);
    Ok(())
}

/// Checks what a loss answered.
fn check_terms(terms: &LossTerms, index: usize, example: &Example) -> Result<(), NnError> {
    let fail = |reason: String| Err(NnError::InvalidLoss { index, reason });
    if terms.d_logprobs.len() != example.targets.len() {
        return fail(format!("{} derivatives for {} targets", terms.d_logprobs.len(), example.targets.len()));
    }
    if let Some(at) = terms.d_logprobs.iter().position(|d| !d.is_finite()) {
        return fail(format!("the derivative at position {} is not finite", at / example.width()));
    }
    if !terms.loss_sum.is_finite() {
        return fail("its sum is not finite".to_owned());
    }
    Ok(())
}

/// Runs the layers and the final norm; the activations stay in `s`.
pub(crate) fn layers_forward(base: &BaseModel, merged: &[f32], tokens: &[u32], s: &mut SequenceBuffers) {
    let config = &base.config;
    let (len, d, half) = (tokens.len(), config.d_model, config.head_width() / 2);
    let (narrow, qkv_len, ff_len) = (len * d, len * config.qkv_width(), len * config.d_ff);
    let angles = (&base.rope_cos[..len * half], &base.rope_sin[..len * half]);
    for (token, row) in tokens.iter().zip(s.x.chunks_exact_mut(d)) {
        row.copy_from_slice(&base.embedding[*token as usize * d..][..d]);
    }
    for (i, groups) in base.groups.layers.iter().enumerate() {
        let c = &mut s.layers[i];
        std::mem::swap(&mut c.x, &mut s.x);
        let eps = config.norm_eps;
        rms_norm(&c.x[..narrow], base.norm(2 * i), eps, &mut c.normed, &mut c.rstd);
        project(&groups.qkv, merged, len, &c.normed, &mut c.qkv, false);
        let rotated = config.n_heads + config.n_kv_heads;
        rope(&mut c.qkv[..qkv_len], config.qkv_width(), rotated, half, angles, false);
        attention(config, len, &c.qkv, &mut c.heads, &mut s.scores);
        c.middle[..narrow].copy_from_slice(&c.x[..narrow]);
        project(&groups.o, merged, len, &c.heads, &mut c.middle, true);
        rms_norm(&c.middle[..narrow], base.norm(2 * i + 1), eps, &mut c.middle_normed, &mut c.middle_rstd);
        project(&groups.gate_up, merged, len, &c.middle_normed, &mut c.gate_up, false);
        swiglu(&c.gate_up[..2 * ff_len], config.d_ff, &mut c.active);
        s.x[..narrow].copy_from_slice(&c.middle[..narrow]);
        project(&groups.down, merged, len, &c.active, &mut s.x, true);
    }
    let last = base.norm(2 * config.n_layers);
    rms_norm(&s.x[..narrow], last, config.norm_eps, &mut s.normed, &mut s.rstd);
}

/// Runs the model on one example. Gives the log-probabilities of the targets and leaves all probabilities in
/// `s.logits`. With a `rank`, room for the backward pass is made too.
fn sequence_forward(
    base: &BaseModel,
    merged: &[f32],
    example: &Example,
    rank: Option<usize>,
    s: &mut SequenceBuffers,
) -> Vec<f32> {
    let (len, vocab) = (example.tokens.len(), base.config.vocab_size);
    s.size(&base.config, len, rank);
    layers_forward(base, merged, &example.tokens, s);
    project(&base.groups.head, merged, len, &s.normed, &mut s.logits, false);
    let mut logprobs = Vec::with_capacity(example.targets.len());
    let rows = s.logits.chunks_exact_mut(vocab).zip(example.targets.chunks_exact(example.width()));
    for (row, targets) in rows {
        let start = logprobs.len();
        logprobs.extend(targets.iter().map(|target| row[*target as usize]));
        let (max, sum) = softmax(row, vocab);
        let log_sum = math::ln(f64::from(sum)) as f32;
        for logprob in &mut logprobs[start..] {
            *logprob = *logprob - max - log_sum;
        }
    }
    logprobs
}

/// Writes all gradients of one example, whose forward pass has just run in `s`.
fn sequence_backward(
    base: &BaseModel,
    adapter: &Adapter,
    merged: &[f32],
    example: &Example,
    d_logprobs: &[f32],
    s: &mut SequenceBuffers,
    gradients: &mut [f32],
) {
    let config = &base.config;
    let (groups, lora) = (&adapter.layout.groups, &adapter.layout.lora);
    let (len, vocab, half) = (example.tokens.len(), config.vocab_size, config.head_width() / 2);
    let (narrow, qkv_len, ff_len) = (len * config.d_model, len * config.qkv_width(), len * config.d_ff);
    let angles = (&base.rope_cos[..len * half], &base.rope_sin[..len * half]);

    // d logp(target) / d logits = onehot(target) - probabilities.
    let width = example.width();
    let targets = example.targets.chunks_exact(width).zip(d_logprobs.chunks_exact(width));
    for (row, (targets, ds)) in s.logits.chunks_exact_mut(vocab).zip(targets) {
        let total: f32 = ds.iter().sum();
        for p in row.iter_mut() {
            *p *= -total;
        }
        for (target, d) in targets.iter().zip(ds) {
            row[*target as usize] += d;
        }
    }
    lora_gradients(&groups.head, adapter, len, (&s.normed, &s.logits), gradients, &mut s.low_rank);
    if !(lora.train_attn || lora.train_mlp) {
        return;
    }
    project_backward(&groups.head, merged, len, &s.logits, &mut s.d_narrow);
    s.dx[..narrow].fill(0.0);
    let last = base.norm(2 * config.n_layers);
    rms_norm_backward(&s.x[..narrow], last, &s.rstd, &s.d_narrow, &mut s.dx);

    for (i, g) in groups.layers.iter().enumerate().rev() {
        let c = &s.layers[i];
        lora_gradients(&g.down, adapter, len, (&c.active, &s.dx), gradients, &mut s.low_rank);
        project_backward(&g.down, merged, len, &s.dx, &mut s.d_active);
        swiglu_backward(&c.gate_up[..2 * ff_len], config.d_ff, &s.d_active, &mut s.d_wide);
        let (x, dy) = (&c.middle_normed, &s.d_wide);
        lora_gradients(&g.gate_up, adapter, len, (x, dy), gradients, &mut s.low_rank);
        if i == 0 && !lora.train_attn {
            return;
        }
        project_backward(&g.gate_up, merged, len, &s.d_wide, &mut s.d_narrow);
        let norm = base.norm(2 * i + 1);
        rms_norm_backward(&c.middle[..narrow], norm, &c.middle_rstd, &s.d_narrow, &mut s.dx);

        lora_gradients(&g.o, adapter, len, (&c.heads, &s.dx), gradients, &mut s.low_rank);
        project_backward(&g.o, merged, len, &s.dx, &mut s.d_narrow);
        let scratch = (&mut s.scores[..], &mut s.d_scores[..]);
        attention_backward(config, len, &c.qkv, &s.d_narrow, &mut s.d_wide, scratch);
        let rotated = config.n_heads + config.n_kv_heads;
        rope(&mut s.d_wide[..qkv_len], config.qkv_width(), rotated, half, angles, true);
        lora_gradients(&g.qkv, adapter, len, (&c.normed, &s.d_wide), gradients, &mut s.low_rank);
        if i == 0 {
            // Nothing below the first layer is trained.
            return;
        }
        project_backward(&g.qkv, merged, len, &s.d_wide, &mut s.d_narrow);
        rms_norm_backward(&c.x[..narrow], base.norm(2 * i), &c.rstd, &s.d_narrow, &mut s.dx);
    }
}
