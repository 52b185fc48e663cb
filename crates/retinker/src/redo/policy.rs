//! When a recovering client saves a checkpoint by itself.

use std::time::Duration;

use retinker_wire::metrics::Metrics;

use crate::recovery::plan::MetricMode;

/// When checkpoints are saved, beside those that the program saves. Each rule counts by itself; none is there by default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CheckpointPolicy {
    /// After so many steps of the optimizer; at least 1.
    pub every_steps: Option<u64>,
    /// After the first step of the optimizer for which so much time has passed.
    pub every: Option<Duration>,
    /// After a step whose metric is better than that of every one before: a metric of the passes since the step before, such
    /// as `loss:mean`.
    pub on_improvement: Option<(String, MetricMode)>,
}

/// What the rules go by.
#[derive(Debug, Clone, Default)]
pub(crate) struct Due {
    /// Since the last checkpoint, or the beginning.
    pub(crate) steps: u64,
    pub(crate) since: Duration,
    /// The metrics of the last pass.
    last: Metrics,
    best: Option<f64>,
    improved: bool,
}

impl Due {
    pub(crate) fn since(since: Duration) -> Self {
        Self { since, ..Self::default() }
    }

    /// Takes what a pass came to.
    pub(crate) fn passed(&mut self, metrics: &Metrics, policy: &CheckpointPolicy) {
        self.last.clone_from(metrics);
        let Some((name, mode)) = &policy.on_improvement else { return };
        let Some(value) = metrics.get(name).copied().filter(|value| value.is_finite()) else { return };
        let better = self.best.is_none_or(|best| match mode {
            MetricMode::Min => value < best,
            MetricMode::Max => value > best,
        });
        if better {
            self.best = Some(value);
            self.improved = true;
        }
    }

    /// Takes a step; tells whether a checkpoint is due after it.
    pub(crate) fn stepped(&mut self, now: Duration, policy: &CheckpointPolicy) -> bool {
        self.steps += 1;
        let steps = policy.every_steps.is_some_and(|every| self.steps >= every.max(1));
        let time = policy.every.is_some_and(|every| now.saturating_sub(self.since) >= every);
        steps || time || std::mem::take(&mut self.improved)
    }

    /// A checkpoint is being saved.
    pub(crate) fn saved(&mut self, now: Duration) {
        self.steps = 0;
        self.since = now;
    }
}
