//! The losses of policy gradients: functions of the ratio between what the model now says and what it said when it
//! sampled.

use super::super::math;
use super::LossTerms;

/// A loss over sampled targets. Each is a plain sum over the positions, multiplied by their weights.
///
/// With `p` the log-probability of a target now, `q` when it was sampled, `r = e^(p - q)`, and `A` the advantage:
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PolicyLoss {
    /// `-r A`.
    ImportanceSampling,
    /// `-min(r A, clip(r) A)`.
    Ppo(Clip),
    /// `-clip(r) A p`, where `clip(r)` is taken as a constant.
    Cispo(Clip),
    /// `-(A p - beta / 2 (p - q)^2)`.
    Dro {
        /// How strongly the model is held to what it was.
        beta: f64,
    },
}

/// Bounds of the ratio itself, not distances from 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clip {
    /// The lowest ratio.
    pub low: f64,
    /// The highest.
    pub high: f64,
}

/// How the targets of an example were sampled and what came of it; everything as long as the example.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rollout {
    /// The targets' log-probabilities when they were sampled.
    pub logprobs: Vec<f32>,
    /// How much better than expected each was.
    pub advantages: Vec<f32>,
    /// How much each counts.
    pub weights: Vec<f32>,
    /// Lower bounds of the ratio in place of the loss's own.
    pub clip_low: Option<Vec<f32>>,
    /// Upper bounds of the ratio in place of the loss's own.
    pub clip_high: Option<Vec<f32>>,
}

/// One position of a rollout with the log-probability it has now.
struct Position {
    now: f64,
    then: f64,
    advantage: f64,
    weight: f64,
    clip_low: Option<f64>,
    clip_high: Option<f64>,
}

impl Position {
    fn ratio(&self) -> f64 {
        math::exp_f64(self.now - self.then)
    }

    /// The bounds that hold here.
    fn clip(&self, clip: Clip) -> Clip {
        Clip { low: self.clip_low.unwrap_or(clip.low), high: self.clip_high.unwrap_or(clip.high) }
    }
}

impl Clip {
    fn apply(self, ratio: f64) -> f64 {
        ratio.max(self.low).min(self.high)
    }
}

impl Rollout {
    fn positions<'a>(&'a self, logprobs: &'a [f32]) -> impl Iterator<Item = Position> {
        let given = self.logprobs.iter().zip(&self.advantages).zip(&self.weights);
        logprobs.iter().zip(given).enumerate().map(|(at, (now, ((then, advantage), weight)))| {
            let bound = |bounds: &Option<Vec<f32>>| bounds.as_ref()?.get(at).copied().map(f64::from);
            Position {
                now: f64::from(*now),
                then: f64::from(*then),
                advantage: f64::from(*advantage),
                weight: f64::from(*weight),
                clip_low: bound(&self.clip_low),
                clip_high: bound(&self.clip_high),
            }
        })
    }
}

impl PolicyLoss {
    /// The bounds of the ratio, for losses that have them.
    fn clip(&self) -> Option<Clip> {
        match self {
            Self::Ppo(clip) | Self::Cispo(clip) => Some(*clip),
            Self::ImportanceSampling | Self::Dro { .. } => None,
        }
    }

    /// The first position whose lower bound is above its upper one.
    pub fn crossed_bounds(&self, rollout: &Rollout) -> Option<usize> {
        let clip = self.clip()?;
        rollout.positions(&rollout.logprobs).position(|position| {
            let clip = position.clip(clip);
            clip.low > clip.high
        })
    }

    /// The loss of one example whose targets now have these log-probabilities.
    ///
    /// A ratio may be too large for a number; the derivative is then infinite, which the model refuses.
    pub fn terms(&self, rollout: &Rollout, logprobs: &[f32]) -> LossTerms {
        let mut loss_sum = 0.0;
        let d_logprobs = rollout.positions(logprobs).map(|position| {
            let (loss, derivative) = self.term(&position);
            loss_sum += loss;
            derivative as f32
        });
        let d_logprobs = d_logprobs.collect();
        LossTerms { loss_sum, d_logprobs }
    }

    /// Loss and derivative of one position.
    fn term(&self, position: &Position) -> (f64, f64) {
        let Position { now, then, advantage, weight, .. } = *position;
        let neutral = match self {
            Self::Dro { .. } => weight == 0.0,
            _ => weight == 0.0 || advantage == 0.0,
        };
        if neutral {
            // Also where the ratio is infinite, as it may be where a prompt's logprobs are filled with anything.
            return (0.0, 0.0);
        }
        let (loss, derivative) = match self {
            Self::ImportanceSampling => {
                let gain = position.ratio() * advantage;
                (-gain, -gain)
            }
            Self::Ppo(clip) => {
                let ratio = position.ratio();
                let gain = ratio * advantage;
                let clipped = position.clip(*clip).apply(ratio) * advantage;
                if gain <= clipped { (-gain, -gain) } else { (-clipped, 0.0) }
            }
            Self::Cispo(clip) => {
                let gain = position.clip(*clip).apply(position.ratio()) * advantage;
                (-gain * now, -gain)
            }
            Self::Dro { beta } => {
                let moved = now - then;
                (beta / 2.0 * moved * moved - advantage * now, beta * moved - advantage)
            }
        };
        (weight * loss, weight * derivative)
    }
}

/// How far the model has moved from what it was when it sampled: over the positions of an example whose weight and
/// advantage are not zero, that is those that were sampled and not given.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RatioStats {
    /// Mean ratio.
    pub mean: f64,
    /// Smallest ratio.
    pub min: f64,
    /// Largest ratio.
    pub max: f64,
    /// Share of the ratios outside the bounds; 0 for losses without.
    pub clipped: f64,
    /// Mean of `q - p`: an estimate of the divergence of what was from what is.
    pub kl: f64,
}

impl RatioStats {
    /// An example without such positions says that nothing has moved.
    const NEUTRAL: Self = Self { mean: 1.0, min: 1.0, max: 1.0, clipped: 0.0, kl: 0.0 };

    /// The statistics of one example. Ratios beyond the largest 32-bit float count as that.
    pub fn new(loss: &PolicyLoss, rollout: &Rollout, logprobs: &[f32]) -> Self {
        let (mut count, mut sum) =
            (0.0, Self { mean: 0.0, min: f64::INFINITY, max: 0.0, clipped: 0.0, kl: 0.0 });
        let positions = rollout.positions(logprobs);
        for position in positions.filter(|position| position.weight != 0.0 && position.advantage != 0.0) {
            let ratio = position.ratio().min(f64::from(f32::MAX));
            let clip = loss.clip().map(|clip| position.clip(clip));
            count += 1.0;
            sum.mean += ratio;
            sum.min = sum.min.min(ratio);
            sum.max = sum.max.max(ratio);
            sum.kl += position.then - position.now;
            if clip.is_some_and(|clip| ratio < clip.low || ratio > clip.high) {
                sum.clipped += 1.0;
            }
        }
        if count == 0.0 {
            return Self::NEUTRAL;
        }
        Self { mean: sum.mean / count, clipped: sum.clipped / count, kl: sum.kl / count, ..sum }
    }

    /// The statistics of a batch: means over its examples, each with the same say, so that a batch in pieces adds up to
    /// the batch. `None` without examples.
    pub fn of_batch(examples: &[Self]) -> Option<Self> {
        let count = examples.len() as f64;
        let mean = |of: fn(&Self) -> f64| examples.iter().map(of).sum::<f64>() / count;
        let least = examples.iter().map(|stats| stats.min).reduce(f64::min)?;
        let greatest = examples.iter().map(|stats| stats.max).reduce(f64::max)?;
        Some(Self {
            mean: mean(|stats| stats.mean),
            min: least,
            max: greatest,
            clipped: mean(|stats| stats.clipped),
            kl: mean(|stats| stats.kl),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PPO: PolicyLoss = PolicyLoss::Ppo(Clip { low: 0.8, high: 1.2 });
    const CISPO: PolicyLoss = PolicyLoss::Cispo(Clip { low: 0.5, high: 1.2 });
    const DRO: PolicyLoss = PolicyLoss::Dro { beta: 0.05 };

    fn one(now: f32, then: f32, advantage: f32) -> (Rollout, [f32; 1]) {
        let rollout = Rollout {
            logprobs: vec![then],
            advantages: vec![advantage],
            weights: vec![1.0],
            ..Rollout::default()
        };
        (rollout, [now])
    }

    fn terms(loss: PolicyLoss, now: f32, then: f32, advantage: f32) -> (f64, f32) {
        let (rollout, logprobs) = one(now, then, advantage);
        let terms = loss.terms(&rollout, &logprobs);
        (terms.loss_sum, terms.d_logprobs[0])
    }

    fn assert_close(found: (f64, f32), expected: (f64, f64)) {
        let (loss, derivative) = (found.0, f64::from(found.1));
        assert!((loss - expected.0).abs() < 1e-6, "{found:?} {expected:?}");
        assert!((derivative - expected.1).abs() < 1e-6, "{found:?} {expected:?}");
    }

    #[test]
    fn each_loss_is_what_its_formula_says() {
        // Ratio 1.5, 0.5 and 1.1.
        for (ratio, advantage) in [(1.5_f64, 2.0), (1.5, -2.0), (0.5, 2.0), (0.5, -2.0), (1.1, 3.0)] {
            let (now, then) = (-1.0_f32, (-1.0 - ratio.ln()) as f32);
            let gain = ratio * f64::from(advantage);
            assert_close(terms(PolicyLoss::ImportanceSampling, now, then, advantage), (-gain, -gain));
            let bounded = ratio.clamp(0.8, 1.2) * f64::from(advantage);
            let expected = if gain <= bounded { (-gain, -gain) } else { (-bounded, 0.0) };
            assert_close(terms(PPO, now, then, advantage), expected);
            let bounded = ratio.clamp(0.5, 1.2) * f64::from(advantage);
            assert_close(terms(CISPO, now, then, advantage), (bounded, -bounded));
            let moved = ratio.ln();
            let loss = 0.025 * moved * moved + f64::from(advantage);
            assert_close(terms(DRO, now, then, advantage), (loss, 0.05 * moved - f64::from(advantage)));
        }
    }

    #[test]
    fn bounds_of_a_position_replace_those_of_the_loss() {
        let (mut rollout, logprobs) = one(-1.0, -2.0, 1.0);
        rollout.clip_high = Some(vec![2.0]);
        assert_eq!(PPO.terms(&rollout, &logprobs).loss_sum, -2.0);
        rollout.clip_low = Some(vec![3.0]);
        assert_eq!(PPO.crossed_bounds(&rollout), Some(0));
        assert_eq!(DRO.crossed_bounds(&rollout), None);
        rollout.clip_high = None;
        assert_eq!(PPO.crossed_bounds(&rollout), Some(0));
    }

    #[test]
    fn weights_multiply_and_positions_of_weight_zero_do_not_count() {
        let rollout = Rollout {
            logprobs: vec![-1e30, -1.0, -1e30],
            advantages: vec![0.0, 2.0, 5.0],
            weights: vec![1.0, 0.5, 0.0],
            ..Rollout::default()
        };
        let logprobs = [-3.0, -1.0, -2.0];
        for loss in [PolicyLoss::ImportanceSampling, PPO, CISPO] {
            let terms = loss.terms(&rollout, &logprobs);
            assert_eq!(terms.d_logprobs, [0.0, -1.0, 0.0], "{loss:?}");
            assert!(terms.loss_sum.abs() == 1.0, "{loss:?}");
        }
        // The quadratic term holds at every position whose weight is not zero.
        assert!(DRO.terms(&rollout, &logprobs).d_logprobs[0] > 1e28);
        let stats = RatioStats::new(&PPO, &rollout, &logprobs);
        assert_eq!(stats, RatioStats { mean: 1.0, min: 1.0, max: 1.0, clipped: 0.0, kl: 0.0 });
    }

    #[test]
    fn a_ratio_that_is_no_number_is_seen_where_it_counts() {
        assert_eq!(terms(PolicyLoss::ImportanceSampling, -1.0, -800.0, 1.0).1, f32::NEG_INFINITY);
        assert_eq!(terms(PPO, -1.0, -800.0, -1.0).1, f32::INFINITY);
        // The minimum takes the clipped one.
        assert_eq!(terms(PPO, -1.0, -800.0, 1.0), (-1.2, 0.0));
        assert_eq!(terms(CISPO, -1.0, -800.0, 1.0), (1.2, -1.2));
        let (rollout, logprobs) = one(-1.0, -800.0, 1.0);
        let stats = RatioStats::new(&PPO, &rollout, &logprobs);
        assert_eq!((stats.max, stats.clipped, stats.kl), (f64::from(f32::MAX), 1.0, -799.0));
    }

    #[test]
    fn the_statistics_of_pieces_add_up() {
        let stats = |ratios: &[f64]| {
            let rollout = Rollout {
                logprobs: ratios.iter().map(|r| (-1.0 - r.ln()) as f32).collect(),
                advantages: vec![1.0; ratios.len()],
                weights: vec![1.0; ratios.len()],
                ..Rollout::default()
            };
            RatioStats::new(&PPO, &rollout, &vec![-1.0; ratios.len()])
        };
        let (a, b, c) = (stats(&[1.0, 2.0]), stats(&[0.5]), stats(&[]));
        let whole = RatioStats::of_batch(&[a, b, c]).unwrap();
        let part = RatioStats::of_batch(&[a, b]).unwrap();
        assert!((whole.mean - (2.0 * part.mean + c.mean) / 3.0).abs() < 1e-12);
        assert!((whole.mean - 1.0).abs() < 1e-6 && (whole.clipped - 0.5).abs() < 1e-12, "{whole:?}");
        assert!((whole.min - 0.5).abs() < 1e-6 && (whole.max - 2.0).abs() < 1e-6, "{whole:?}");
        assert_eq!(RatioStats::of_batch(&[]), None);
    }
}
