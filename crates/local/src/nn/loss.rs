//! Training examples and the loss over them.

use super::config::ModelConfig;
use super::error::NnError;

/// One sequence to score or to train on. The three parts have equal lengths.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Example {
    /// What the model reads.
    pub tokens: Vec<u32>,
    /// What should follow each token.
    pub targets: Vec<u32>,
    /// How much each target counts in the cross-entropy loss.
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

    /// Checks it against the model; `index` is its place in the batch, for the error.
    pub fn validate(&self, model: &ModelConfig, index: usize) -> Result<(), NnError> {
        let fail = |reason: String| Err(NnError::InvalidExample { index, reason });
        check_tokens(model, index, "token", &self.tokens)?;
        if self.targets.len() != self.tokens.len() || self.weights.len() != self.tokens.len() {
            return fail(format!(
                "{} tokens, {} targets and {} weights; the numbers must be equal",
                self.tokens.len(),
                self.targets.len(),
                self.weights.len()
            ));
        }
        check_tokens(model, index, "target", &self.targets)?;
        match self.weights.iter().position(|weight| !weight.is_finite()) {
            Some(at) => fail(format!("the weight at position {at} is not finite")),
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
    match tokens.iter().enumerate().find(|(_, token)| **token as usize >= model.vocab_size) {
        Some((at, token)) => {
            fail(format!("{what} {token} at position {at} is not in the vocabulary of {}", model.vocab_size))
        }
        None => Ok(()),
    }
}

/// What a loss says about one example.
#[derive(Debug, Clone, PartialEq)]
pub struct LossTerms {
    /// The loss, summed over the positions.
    pub loss_sum: f64,
    /// The derivative of the loss by the log-probability of each position's target.
    pub d_logprobs: Vec<f32>,
}

/// Cross entropy: the sum over the positions of `-weight * ln p(target)`. A plain sum, not a mean.
pub fn cross_entropy(example: &Example, logprobs: &[f32]) -> LossTerms {
    LossTerms {
        loss_sum: cross_entropy_sum(example, logprobs),
        d_logprobs: example.weights.iter().map(|weight| -weight).collect(),
    }
}

/// The value of [`cross_entropy`] alone.
pub(super) fn cross_entropy_sum(example: &Example, logprobs: &[f32]) -> f64 {
    let terms = example.weights.iter().zip(logprobs);
    // A position of weight zero contributes nothing, also when its log-probability is -inf.
    terms.filter(|(w, _)| **w != 0.0).map(|(w, p)| -f64::from(*w) * f64::from(*p)).sum()
}
