//! What logits say: probabilities, and tokens drawn by them. The same logits give the same on every machine.
#![allow(clippy::indexing_slicing)] // Tokens are checked against the number of logits.

use std::cmp::Ordering;

use super::math::{exp, ln, sum_by};
use super::rng::Rng;

/// How a token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// What logits are divided by; 0 takes the most probable token.
    pub temperature: f64,
    /// Only so many of the most probable tokens; `None` = all.
    pub top_k: Option<usize>,
    /// Then only the most probable tokens that together have at least this share; 1 = all.
    pub top_p: f64,
}

/// The logits of one position, read as a distribution.
#[derive(Debug, Clone, Copy)]
pub struct Distribution<'a> {
    logits: &'a [f32],
    max: f32,
    ln_sum: f32,
}

impl<'a> Distribution<'a> {
    /// Reads logits; `None` when they are not all finite, as those of weights that are not.
    pub fn new(logits: &'a [f32]) -> Option<Self> {
        if logits.is_empty() || !logits.iter().all(|x| x.is_finite()) {
            return None;
        }
        let max = logits.iter().fold(f32::NEG_INFINITY, |max, x| if *x > max { *x } else { max });
        let sum = sum_by(logits.len(), |i| exp(logits[i] - max));
        Some(Self { logits, max, ln_sum: ln(f64::from(sum)) as f32 })
    }

    /// Natural logarithm of a token's probability, whatever the choice; `None` for a token that there is not.
    pub fn logprob(&self, token: u32) -> Option<f32> {
        self.logits.get(token as usize).map(|logit| logit - self.max - self.ln_sum)
    }

    /// The most probable tokens with their log-probabilities, at most `k`, the most probable first. Of equals the
    /// smaller token is first.
    pub fn top(&self, k: usize) -> Vec<(u32, f32)> {
        let mut tokens = self.ranked();
        tokens.truncate(k);
        tokens
            .into_iter()
            .map(|token| (token, self.logits[token as usize] - self.max - self.ln_sum))
            .collect()
    }

    /// Draws a token.
    pub fn draw(&self, choice: &Choice, rng: &mut Rng) -> u32 {
        if choice.temperature == 0.0 {
            return self.ranked_first();
        }
        let filtered = choice.top_k.is_some() || choice.top_p < 1.0;
        let mut tokens = if filtered { self.ranked() } else { (0..self.logits.len() as u32).collect() };
        if let Some(k) = choice.top_k {
            tokens.truncate(k.max(1));
        }
        let weight = |token: &u32| {
            let above = f64::from(self.logits[*token as usize] - self.max) / choice.temperature;
            f64::from(exp(above as f32))
        };
        let mut weights: Vec<f64> = tokens.iter().map(weight).collect();
        if choice.top_p < 1.0 {
            let enough = choice.top_p * weights.iter().sum::<f64>();
            let mut sum = 0.0;
            let last = weights.iter().position(|weight| {
                sum += weight;
                sum >= enough
            });
            weights.truncate(last.map_or(weights.len(), |last| last + 1));
        }
        let mut left = rng.uniform() * weights.iter().sum::<f64>();
        let drawn = weights.iter().position(|weight| {
            left -= weight;
            left < 0.0
        });
        // Rounding may leave a little at the end.
        tokens[drawn.unwrap_or(weights.len() - 1)]
    }

    fn ranked_first(&self) -> u32 {
        self.logits.iter().position(|logit| *logit == self.max).unwrap_or(0) as u32
    }

    fn ranked(&self) -> Vec<u32> {
        let mut tokens: Vec<u32> = (0..self.logits.len() as u32).collect();
        let logit = |token: &u32| self.logits[*token as usize];
        // Stable, so that equals stay in order; all are finite.
        tokens.sort_by(|a, b| logit(b).partial_cmp(&logit(a)).unwrap_or(Ordering::Equal));
        tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 6] = [0.5, 2.0, -1.0, 2.0, 1.0, -0.0];
    const PLAIN: Choice = Choice { temperature: 1.0, top_k: None, top_p: 1.0 };

    fn drawn(choice: Choice) -> Vec<u32> {
        let distribution = Distribution::new(&LOGITS).unwrap();
        let mut rng = Rng::new(1);
        let mut tokens: Vec<u32> = (0..2000).map(|_| distribution.draw(&choice, &mut rng)).collect();
        tokens.sort_unstable();
        tokens.dedup();
        tokens
    }

    #[test]
    fn log_probabilities_are_those_of_all_tokens_at_temperature_one() {
        let distribution = Distribution::new(&LOGITS).unwrap();
        let total: f64 = (0..6).map(|t| f64::from(distribution.logprob(t).unwrap()).exp()).sum();
        assert!((total - 1.0).abs() < 1e-6, "{total}");
        let sum: f64 = LOGITS.iter().map(|x| f64::from(*x).exp()).sum();
        assert!((f64::from(distribution.logprob(4).unwrap()) - (1.0 - sum.ln())).abs() < 1e-6);
        assert_eq!(distribution.logprob(6), None);
        let top = distribution.top(3);
        assert_eq!(top.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [1, 3, 4]);
        assert_eq!(top[2].1, distribution.logprob(4).unwrap());
        assert_eq!(distribution.top(9).len(), 6);
    }

    #[test]
    fn only_tokens_that_the_choice_leaves_are_drawn() {
        assert_eq!(drawn(PLAIN), [0, 1, 2, 3, 4, 5]);
        assert_eq!(drawn(Choice { temperature: 0.0, ..PLAIN }), [1]);
        assert_eq!(drawn(Choice { top_k: Some(1), ..PLAIN }), [1]);
        assert_eq!(drawn(Choice { top_k: Some(3), ..PLAIN }), [1, 3, 4]);
        assert_eq!(drawn(Choice { top_k: Some(99), ..PLAIN }), [0, 1, 2, 3, 4, 5]);
        // The shares: 0.360 twice, 0.133, 0.080, 0.049, 0.018.
        assert_eq!(drawn(Choice { top_p: 1e-9, ..PLAIN }), [1]);
        assert_eq!(drawn(Choice { top_p: 0.5, ..PLAIN }), [1, 3]);
        assert_eq!(drawn(Choice { top_p: 0.75, ..PLAIN }), [1, 3, 4]);
        // Of the three that top_k leaves, the first two have 0.84.
        assert_eq!(drawn(Choice { top_k: Some(3), top_p: 0.8, ..PLAIN }), [1, 3]);
        // Heat evens the shares out before they are counted: all but the last come to 0.90.
        assert_eq!(drawn(Choice { temperature: 4.0, top_p: 0.85, ..PLAIN }), [0, 1, 3, 4, 5]);
        assert_eq!(drawn(Choice { temperature: 1e-300, ..PLAIN }), [1, 3]);
    }

    #[test]
    fn tokens_are_drawn_as_often_as_they_are_probable() {
        let distribution = Distribution::new(&LOGITS).unwrap();
        let mut rng = Rng::new(2);
        let mut counts = [0_u32; 6];
        for _ in 0..20_000 {
            counts[distribution.draw(&PLAIN, &mut rng) as usize] += 1;
        }
        for (token, count) in counts.iter().enumerate() {
            let share = f64::from(distribution.logprob(token as u32).unwrap()).exp();
            assert!((f64::from(*count) / 20_000.0 - share).abs() < 0.015, "{token}: {count}, {share}");
        }
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let distribution = Distribution::new(&LOGITS).unwrap();
        let draw = |seed| {
            let mut rng = Rng::new(seed);
            (0..50).map(|_| distribution.draw(&PLAIN, &mut rng)).collect::<Vec<_>>()
        };
        assert_eq!(draw(5), draw(5));
        assert_ne!(draw(5), draw(6));
    }

    #[test]
    fn logits_that_are_not_finite_are_no_distribution() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(Distribution::new(&[0.0, bad]).is_none());
        }
        assert!(Distribution::new(&[]).is_none());
    }
}
