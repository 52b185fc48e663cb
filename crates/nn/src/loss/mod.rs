//! Training examples and the losses over them.
//!
//! A loss is a function of the log-probabilities of an example's targets alone, so the model needs to know no more of it
//! than its value and its derivatives: [`LossTerms`].

mod policy;

use super::config::ModelConfig;
use super::error::NnError;

pub use policy::{Clip, PolicyLoss, RatioStats, Rollout};

/// One sequence to score or to train on.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Example {
    /// What the model reads.
    pub tokens: Vec<u32>,
    /// What should follow each token. Several targets per token, the same number for each, stand side by side: row-major
    /// `tokens x width`.
    pub targets: Vec<u32>,
    /// How much each target counts in the loss; as many as targets.
    pub weights: Vec<f32>,
}

impl Example {
    /// Next-token prediction over `tokens`, every target with weight 1.
    pub fn next_token(tokens: &[u32]) -> Self {
        let targets: Vec<u32> = tokens.iter().skip(1).copied().collect();
        Self {
            tokens: tokens.iter().take(targets.len()).copied().collect(),
            weights: vec![1.0; targets.len()],
            targets,
        }
    }

    /// How many targets each token has.
    pub fn width(&self) -> usize {
        self.targets.len() / self.tokens.len().max(1)
    }

    /// Checks it against the model; `index` is its place in the batch, for the error.
    pub fn validate(&self, model: &ModelConfig, index: usize) -> Result<(), NnError> {
        let fail = |reason: String| Err(NnError::InvalidExample { index, reason });
        check_tokens(model, index, "token", &self.tokens)?;
        let (tokens, targets, weights) = (self.tokens.len(), self.targets.len(), self.weights.len());
        if targets == 0 || !targets.is_multiple_of(tokens) || weights != targets {
            return fail(format!(
                "{tokens} tokens, {targets} targets and {weights} weights; the numbers must be equal"
            ));
        }
        check_known(model, index, "target", &self.targets)?;
        match self.weights.iter().position(|weight| !weight.is_finite()) {
            Some(at) => fail(format!("the weight at position {} is not finite", at / self.width())),
            None => Ok(()),
        }
    }
}

/// Checks the number of tokens and that the model knows each.
pub(super) fn check_tokens(
    model: &ModelConfig,
    index: usize,
    what: &str,
    tokens: &[u32],
) -> Result<(), NnError> {
    let fail = |reason: String| Err(NnError::InvalidExample { index, reason });
    if tokens.is_empty() {
        return fail("it has no tokens".to_owned());
    }
    if tokens.len() > model.max_context {
        return fail(format!(
            "{} tokens are more than the model's context of {}",
            tokens.len(),
            model.max_context
        ));
    }
    check_known(model, index, what, tokens)
}

/// Checks that the model knows each token.
fn check_known(model: &ModelConfig, index: usize, what: &str, tokens: &[u32]) -> Result<(), NnError> {
    match tokens.iter().enumerate().find(|(_, token)| **token as usize >= model.vocab_size) {
        Some((at, token)) => Err(NnError::InvalidExample {
            index,
            reason: format!(
                "{what} {token} at position {at} is not in the vocabulary of {}",
                model.vocab_size
            ),
        }),
        None => Ok(()),
    }
}

/// What a loss says about one example.
#[derive(Debug, Clone, PartialEq)]
pub struct LossTerms {
    /// The loss, summed over the positions.
    pub loss_sum: f64,
    /// The derivative of the loss by the log-probability of each target.
    pub d_logprobs: Vec<f32>,
}

/// Cross entropy: the sum over the targets of `-weight * ln p(target)`. A plain sum, not a mean.
pub fn cross_entropy(example: &Example, logprobs: &[f32]) -> LossTerms {
    LossTerms {
        loss_sum: cross_entropy_terms(example, logprobs).sum(),
        d_logprobs: example.weights.iter().map(|weight| -weight).collect(),
    }
}

/// The terms whose sum is [`cross_entropy`].
pub fn cross_entropy_terms(example: &Example, logprobs: &[f32]) -> impl Iterator<Item = f64> {
    let terms = example.weights.iter().zip(logprobs);
    // A target of weight zero contributes nothing, and not a negative zero either.
    terms.map(|(w, p)| if *w == 0.0 { 0.0 } else { -f64::from(*w) * f64::from(*p) })
}
