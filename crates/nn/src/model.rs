//! The forward and backward passes over a batch of sequences, several short ones at a time.
#![allow(clippy::indexing_slicing)] // Buffers are sized for the sequence, and tokens validated, before use.

use std::ops::Range;

use super::attention::{attention, attention_backward};
use super::base::BaseModel;
use super::error::NnError;
use super::linear::{ROWS, lora_gradients, merge, project, project_backward};
use super::lora::{Adapter, Gradients, same_layout};
use super::loss::{Example, LossTerms, check_tokens, cross_entropy};
use super::math;
use super::ops::{rms_norm, rms_norm_backward, rope, softmax, swiglu, swiglu_backward};
use super::threads::in_order;
use super::workspace::{StackBuffers, Workspace};

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
    each(workspace, examples, &mut [], |stack, merged, buffers, _| {
        let logprobs = stack_forward(base, merged, stack, None, buffers);
        Ok(score(stack, logprobs, &loss)?.0)
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
    let outputs = each(workspace, examples, gradients, |stack, merged, buffers, gradients| {
        let logprobs = stack_forward(base, merged, stack, Some(rank), buffers);
        let (outputs, d_logprobs) = score(stack, logprobs, &loss)?;
        stack_backward(base, adapter, merged, stack, &d_logprobs, buffers, gradients);
        Ok(outputs)
    })?;
    if !gradients.iter().all(|g| g.is_finite()) {
        return Err(NnError::GradientsNotFinite);
    }
    Ok(outputs)
}

/// Up to how many tokens of several examples are computed together: products of a few rows cost nearly as much as those
/// of twice as many, for the weights have to come from memory. More would leave threads without work.
const STACK: usize = 128;

/// Consecutive examples that are computed together.
#[derive(Clone, Copy)]
struct Stack<'a> {
    /// The index of the first.
    first: usize,
    examples: &'a [Example],
}

impl<'a> Stack<'a> {
    /// All examples in stacks. They follow from the request alone, never from the number of threads.
    fn all(examples: &'a [Example]) -> Vec<Self> {
        let (mut stacks, mut first, mut tokens) = (Vec::new(), 0, 0);
        for (index, example) in examples.iter().enumerate() {
            tokens += example.tokens.len();
            if index > first && tokens > STACK {
                stacks.push(Self { first, examples: &examples[first..index] });
                (first, tokens) = (index, example.tokens.len());
            }
        }
        if first < examples.len() {
            stacks.push(Self { first, examples: &examples[first..] });
        }
        stacks
    }

    fn sequences(&self) -> Vec<&'a [u32]> {
        self.examples.iter().map(|example| example.tokens.as_slice()).collect()
    }
}

/// Does `work` for each stack of examples on as many threads as are free: it gets the stack, the merged weights,
/// buffers, and room for the stack's gradients, which are added to `sum` in the stacks' order.
fn each(
    workspace: &mut Workspace,
    examples: &[Example],
    sum: &mut [f32],
    work: impl Fn(Stack<'_>, &[f32], &mut StackBuffers, &mut [f32]) -> Result<Vec<ExampleOutput>, NnError> + Sync,
) -> Result<Vec<ExampleOutput>, NnError> {
    let stacks = Stack::all(examples);
    let Workspace { threads, merged, stack, others, spare, .. } = workspace;
    let taken = threads.take(stacks.len());
    others.resize_with(others.len().max(taken.count - 1), StackBuffers::default);
    let buffers = (stack, &mut others[..taken.count - 1]);
    let outputs = in_order(buffers, spare, stacks.len(), sum, |index, buffers, gradients| {
        work(stacks[index], merged, buffers, gradients)
    })?;
    Ok(outputs.into_iter().flatten().collect())
}

/// What is said of each example, and the derivatives of the loss by its log-probabilities.
fn score(
    stack: Stack<'_>,
    logprobs: Vec<Vec<f32>>,
    loss: &impl Fn(usize, &[f32]) -> LossTerms,
) -> Result<(Vec<ExampleOutput>, Vec<Vec<f32>>), NnError> {
    let examples = stack.examples.iter().zip(logprobs).enumerate().map(|(at, (example, logprobs))| {
        let index = stack.first + at;
        let terms = loss(index, &logprobs);
        check_terms(&terms, index, example)?;
        Ok((ExampleOutput { logprobs, loss_sum: terms.loss_sum }, terms.d_logprobs))
    });
    examples.collect()
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
    let Workspace { merged, stack, .. } = workspace;
    let len = tokens.len();
    stack.size(&base.config, &[tokens], None);
    layers_forward(base, merged, &[tokens], stack);
    let vocab = base.config.vocab_size;
    project(&base.groups.head, merged, len, &stack.normed, &mut stack.logits, false);
    Ok(stack.logits[(len - 1) * vocab..len * vocab].to_vec())
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

/// The rows of each of so many sequences in a stack.
fn ranges(lengths: impl Iterator<Item = usize>) -> impl Iterator<Item = Range<usize>> {
    lengths.scan(0, |end, len| {
        let start = *end;
        *end += len;
        Some(start..*end)
    })
}

/// Rotates the queries and keys of a sequence; backwards when `inverse`.
fn rotate(base: &BaseModel, len: usize, qkv: &mut [f32], inverse: bool) {
    let config = &base.config;
    let half = config.head_width() / 2;
    let angles = (&base.rope_cos[..len * half], &base.rope_sin[..len * half]);
    rope(qkv, config.qkv_width(), config.n_heads + config.n_kv_heads, half, angles, inverse);
}

/// Runs the layers and the final norm; the activations stay in `s`.
///
/// The rows of all sequences lie one after the other, and rows of zeros where they are very few; only attention and its
/// rotations tell them apart.
pub(crate) fn layers_forward(base: &BaseModel, merged: &[f32], sequences: &[&[u32]], s: &mut StackBuffers) {
    let config = &base.config;
    let filled: usize = sequences.iter().map(|tokens| tokens.len()).sum();
    let len = filled.max(ROWS);
    let (d, qkv_width) = (config.d_model, config.qkv_width());
    let (narrow, ff_len) = (len * d, len * config.d_ff);
    s.x[filled * d..narrow].fill(0.0);
    for (token, row) in sequences.iter().copied().flatten().zip(s.x.chunks_exact_mut(d)) {
        row.copy_from_slice(&base.embedding[*token as usize * d..][..d]);
    }
    for (i, groups) in base.groups.layers.iter().enumerate() {
        let c = &mut s.layers[i];
        std::mem::swap(&mut c.x, &mut s.x);
        let eps = config.norm_eps;
        rms_norm(&c.x[..narrow], base.norm(2 * i), eps, &mut c.normed, &mut c.rstd);
        project(&groups.qkv, merged, len, &c.normed, &mut c.qkv, false);
        for rows in ranges(sequences.iter().map(|tokens| tokens.len())) {
            let qkv = &mut c.qkv[rows.start * qkv_width..rows.end * qkv_width];
            rotate(base, rows.len(), qkv, false);
            attention(config, rows.len(), qkv, &mut c.heads[rows.start * d..], &mut s.scores);
        }
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

/// Runs the model on a stack. Gives the log-probabilities of each example's targets and leaves all probabilities in
/// `s.logits`. With a `rank`, room for the backward pass is made too.
fn stack_forward(
    base: &BaseModel,
    merged: &[f32],
    stack: Stack<'_>,
    rank: Option<usize>,
    s: &mut StackBuffers,
) -> Vec<Vec<f32>> {
    let (sequences, vocab) = (stack.sequences(), base.config.vocab_size);
    s.size(&base.config, &sequences, rank);
    layers_forward(base, merged, &sequences, s);
    let len = sequences.iter().map(|tokens| tokens.len()).sum();
    project(&base.groups.head, merged, len, &s.normed, &mut s.logits, false);
    let mut rows = s.logits.chunks_exact_mut(vocab);
    let mut of_example = |example: &Example| {
        let mut logprobs = Vec::with_capacity(example.targets.len());
        for (targets, row) in example.targets.chunks_exact(example.width()).zip(&mut rows) {
            let start = logprobs.len();
            logprobs.extend(targets.iter().map(|target| row[*target as usize]));
            let (max, sum) = softmax(row, vocab);
            let log_sum = math::ln(f64::from(sum)) as f32;
            for logprob in &mut logprobs[start..] {
                *logprob = *logprob - max - log_sum;
            }
        }
        logprobs
    };
    stack.examples.iter().map(&mut of_example).collect()
}

/// Writes all gradients of a stack, whose forward pass has just run in `s`.
fn stack_backward(
    base: &BaseModel,
    adapter: &Adapter,
    merged: &[f32],
    stack: Stack<'_>,
    d_logprobs: &[Vec<f32>],
    s: &mut StackBuffers,
    gradients: &mut [f32],
) {
    let config = &base.config;
    let (groups, lora) = (&adapter.layout.groups, &adapter.layout.lora);
    let lengths = || stack.examples.iter().map(|example| example.tokens.len());
    let (len, vocab) = (lengths().sum(), config.vocab_size);
    let (d, qkv_width) = (config.d_model, config.qkv_width());
    let (narrow, ff_len) = (len * d, len * config.d_ff);

    // d logp(target) / d logits = onehot(target) - probabilities.
    let targets = stack.examples.iter().zip(d_logprobs).flat_map(|(example, d_logprobs)| {
        let width = example.width();
        example.targets.chunks_exact(width).zip(d_logprobs.chunks_exact(width))
    });
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
        for rows in ranges(lengths()) {
            let span = rows.start * qkv_width..rows.end * qkv_width;
            let (qkv, d_qkv) = (&c.qkv[span.clone()], &mut s.d_wide[span]);
            let scratch = (&mut s.scores[..], &mut s.d_scores[..]);
            attention_backward(config, rows.len(), qkv, &s.d_narrow[rows.start * d..], d_qkv, scratch);
            rotate(base, rows.len(), d_qkv, true);
        }
        lora_gradients(&g.qkv, adapter, len, (&c.normed, &s.d_wide), gradients, &mut s.low_rank);
        if i == 0 {
            // Nothing below the first layer is trained.
            return;
        }
        project_backward(&g.qkv, merged, len, &s.d_wide, &mut s.d_narrow);
        rms_norm_backward(&c.x[..narrow], base.norm(2 * i), &c.rstd, &s.d_narrow, &mut s.dx);
    }
}
