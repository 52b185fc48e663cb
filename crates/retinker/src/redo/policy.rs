//! When a recovering client saves a checkpoint by itself.

use std::time::Duration;

use retinker_wire::metrics::Metrics;

use crate::recovery::plan::MetricMode;
use crate::recovery::retention::Rule;

/// When checkpoints are saved, beside those that the program saves. Each rule counts by itself; none is there by default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CheckpointPolicy {
    /// After so many steps of the optimizer; at least 1.
    pub every_steps: Option<u64>,
    /// After the first step of the optimizer for which so much time has passed.
    pub every: Option<Duration>,
    /// After a step of whose passes one had a better metric, such as `loss:mean`, than every pass before; where steps are called
    /// ahead of results, after the first that is called once that is known. Who goes on with a log begins to compare anew.
    pub on_improvement: Option<(String, MetricMode)>,
    /// When the training ends, which is told by [`Redo::finish`](super::Redo::finish).
    pub at_end: bool,
    /// Which of the checkpoints that were saved by these rules are kept, in all runs of the log together; all. The others are deleted once
    /// the log stands on a newer one. The best are those by `keep_by`, as their labels say. What the log stands on stays, what a restore in
    /// the journal needs, and what the program or anybody else has saved; [`Redo::plan_retention`](super::Redo::plan_retention) tells what would go.
    pub keep: Rule,
    /// By which metric the best are told; that of `on_improvement` where nothing is said.
    pub keep_by: Option<(String, MetricMode)>,
}

impl CheckpointPolicy {
    /// By which metric the best are told.
    pub(crate) fn by(&self) -> Option<&(String, MetricMode)> {
        self.keep_by.as_ref().or(self.on_improvement.as_ref())
    }

    /// Whether it can be gone by; an error says why not.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self.keep.best {
            Some(best) if best > 0 && self.by().is_none() => {
                Err("the best checkpoints are to be kept, and there is no metric by which they are"
                    .to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// What the rules go by.
#[derive(Debug, Clone, Default)]
pub(crate) struct Due {
    /// Since the last checkpoint, or the beginning.
    pub(crate) steps: u64,
    pub(crate) since: Duration,
    best: Option<f64>,
    improved: bool,
    /// What the newest pass came to.
    newest: Metrics,
    /// The best value of the policy's metric since the last checkpoint, and its name.
    best_since: Option<(String, f64)>,
}

impl Due {
    /// From now on, with so many steps since the last checkpoint.
    pub(crate) fn since(since: Duration, steps: u64) -> Self {
        Self { steps, since, ..Self::default() }
    }

    /// Takes what a pass came to, all chunks of it together.
    pub(crate) fn passed(&mut self, metrics: Metrics, policy: &CheckpointPolicy) {
        self.newest = metrics;
        let Some((name, mode)) = &policy.on_improvement else { return };
        let Some(value) = self.newest.get(name).copied().filter(|value| value.is_finite()) else { return };
        let is_better = |than: f64| match mode {
            MetricMode::Min => value < than,
            MetricMode::Max => value > than,
        };
        if self.best.is_none_or(is_better) {
            self.best = Some(value);
            self.improved = true;
        }
        if self.best_since.as_ref().is_none_or(|(_, best)| is_better(*best)) {
            self.best_since = Some((name.clone(), value));
        }
    }

    /// What a checkpoint is called by that is saved now: the metrics of the newest pass, and of the policy's own the best value since the last
    /// checkpoint, by which it may be saved.
    pub(crate) fn metrics(&self) -> Metrics {
        let mut metrics = self.newest.clone();
        metrics.extend(self.best_since.clone());
        metrics
    }

    /// Takes a step; tells whether a checkpoint is due after it.
    pub(crate) fn stepped(&mut self, now: Duration, policy: &CheckpointPolicy) -> bool {
        self.steps += 1;
        let steps = policy.every_steps.is_some_and(|every| self.steps >= every.max(1));
        let time = policy.every.is_some_and(|every| now.saturating_sub(self.since) >= every);
        steps || time || self.improved
    }

    /// The checkpoint that was called when it was `then` due was not saved.
    pub(crate) fn not_saved(&mut self, then: &Self) {
        self.steps += then.steps;
        self.since = then.since;
        self.improved |= then.improved;
    }

    /// A checkpoint is being saved.
    pub(crate) fn saved(&mut self, now: Duration) {
        self.steps = 0;
        self.since = now;
        self.improved = false;
        self.best_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn loss(value: f64) -> Metrics {
        Metrics::from([("loss:mean".to_owned(), value)])
    }

    #[test]
    fn steps_and_time_are_counted_from_the_last_checkpoint() {
        let policy = CheckpointPolicy {
            every_steps: Some(3),
            every: Some(10 * SECOND),
            ..CheckpointPolicy::default()
        };
        let mut due = Due::since(SECOND, 0);
        let mut saved = Vec::new();
        for step in 1..=9_u32 {
            // The fourth step takes its time.
            let now = if step < 4 { step * SECOND } else { step * SECOND + 8 * SECOND };
            if due.stepped(now, &policy) {
                due.saved(now);
                saved.push(step);
            }
        }
        assert_eq!(saved, [3, 5, 8], "the fifth for the time, the others for the steps");
        let mut due = Due::since(SECOND, 0);
        let every = CheckpointPolicy { every: Some(10 * SECOND), ..CheckpointPolicy::default() };
        assert!(!due.stepped(10 * SECOND, &every));
        assert!(due.stepped(11 * SECOND, &every));
        due.saved(11 * SECOND);
        assert!(!due.stepped(20 * SECOND, &every));
        assert!(due.stepped(21 * SECOND, &every));
        assert!(
            !Due::default().stepped(1000 * SECOND, &CheckpointPolicy::default()),
            "no rule, no checkpoint"
        );
    }

    #[test]
    fn an_improvement_is_due_once_whatever_else_is() {
        let policy = CheckpointPolicy {
            every_steps: Some(2),
            on_improvement: Some(("loss:mean".to_owned(), MetricMode::Min)),
            ..CheckpointPolicy::default()
        };
        let mut due = Due::default();
        let mut saved = Vec::new();
        for (step, value) in [(1, 3.0), (2, 4.0), (3, 2.0), (4, f64::NAN), (5, 2.0), (6, 1.0), (7, 5.0)] {
            due.passed(loss(value), &policy);
            if due.stepped(SECOND, &policy) {
                due.saved(SECOND);
                saved.push(step);
            }
        }
        assert_eq!(saved, [1, 3, 5, 6], "1, 3 and 6 are better than all before; 5 is the second after 3");
        let higher = CheckpointPolicy {
            on_improvement: Some(("reward".to_owned(), MetricMode::Max)),
            ..CheckpointPolicy::default()
        };
        let mut due = Due::default();
        due.passed(loss(1.0), &higher);
        assert!(!due.stepped(SECOND, &higher), "another metric");
        due.passed(Metrics::from([("reward".to_owned(), -1.0)]), &higher);
        assert!(due.stepped(SECOND, &higher) && due.stepped(SECOND, &higher), "until it is saved");
    }
}
