//! Which checkpoint a plan takes, which it passes over, and why.

use std::cmp::Ordering;

use retinker_wire::run::{Checkpoint, CheckpointType};

use super::{Facts, WeightsAnswer, unfit};
use crate::recovery::health::unusable_because;
use crate::recovery::plan::{MetricMode, NoPlan, PlanRequest, Rejected, RejectedReason, Strategy};

/// What came of looking through the checkpoints, as far as the facts go.
#[derive(Default)]
pub(super) struct Selection<'a> {
    /// The one to restore from.
    pub(super) chosen: Option<&'a Checkpoint>,
    /// Usable ones that were to be stepped back over, newest first.
    stepped_over: Vec<&'a Checkpoint>,
    /// Those that the strategy would have preferred and that cannot be used, or that it cannot compare.
    rejected: Vec<Rejected>,
}

/// Looks through the checkpoints.
pub(super) fn select<'a>(facts: &'a Facts, request: &PlanRequest) -> Selection<'a> {
    let mut selection = Selection::default();
    let mut left = candidates(facts, &request.strategy).into_iter();
    while selection.stepped_over.len() < request.step_back as usize
        && let Some(checkpoint) = left.next()
    {
        if selection.accepts(facts, checkpoint) {
            selection.stepped_over.push(checkpoint);
        }
    }
    let preferred = match &request.strategy {
        Strategy::LatestValid | Strategy::Specific { .. } => left.collect(),
        Strategy::Best { metric, mode } => selection.ranked(left, metric, *mode),
    };
    selection.chosen = preferred.into_iter().find(|checkpoint| selection.accepts(facts, checkpoint));
    selection
}

/// Those that the strategy chooses from, newest first. Sampler checkpoints are no failed candidates, unless one was
/// asked for by name.
fn candidates<'a>(facts: &'a Facts, strategy: &Strategy) -> Vec<&'a Checkpoint> {
    let is_candidate = |checkpoint: &&Checkpoint| match strategy {
        Strategy::Specific { path } => *path == checkpoint.tinker_path,
        Strategy::LatestValid | Strategy::Best { .. } => {
            checkpoint.checkpoint_type == CheckpointType::Training
        }
    };
    let mut found: Vec<&Checkpoint> = facts.checkpoints.iter().filter(is_candidate).collect();
    found.sort_by(|a, b| (b.time, &b.checkpoint_id).cmp(&(a.time, &a.checkpoint_id)));
    found
}

impl<'a> Selection<'a> {
    /// Those that the selection rests on, in the order in which the service is to be asked about them.
    pub(super) fn rests_on(&self) -> impl Iterator<Item = &'a Checkpoint> {
        self.stepped_over.iter().copied().chain(self.chosen)
    }

    /// All that were passed over, each with its reason.
    pub(super) fn passed_over(self) -> Vec<Rejected> {
        let stepped_over = self.stepped_over.into_iter().map(|checkpoint| Rejected {
            tinker_path: checkpoint.tinker_path.clone(),
            reason: "It can be used, and was to be stepped back over.".to_owned(),
        });
        stepped_over.chain(self.rejected).collect()
    }

    /// Whether nothing known speaks against this one; what does is kept.
    fn accepts(&mut self, facts: &Facts, checkpoint: &Checkpoint) -> bool {
        let objection = objection(facts, checkpoint);
        let accepted = objection.is_none();
        self.rejected
            .extend(objection.map(|reason| Rejected { tinker_path: checkpoint.tinker_path.clone(), reason }));
        accepted
    }

    /// Best first, and of equal ones the newest, as they came. Those that cannot be compared are rejected.
    fn ranked(
        &mut self,
        checkpoints: impl Iterator<Item = &'a Checkpoint>,
        metric: &str,
        mode: MetricMode,
    ) -> Vec<&'a Checkpoint> {
        let mut valued = Vec::new();
        for checkpoint in checkpoints {
            match value_of(checkpoint, metric) {
                Ok(value) => valued.push((value, checkpoint)),
                Err(reason) => {
                    self.rejected.push(Rejected { tinker_path: checkpoint.tinker_path.clone(), reason });
                }
            }
        }
        // The sort is stable, and finite numbers always compare.
        valued.sort_by(|(a, _), (b, _)| {
            let order = a.partial_cmp(b).unwrap_or(Ordering::Equal);
            match mode {
                MetricMode::Min => order,
                MetricMode::Max => order.reverse(),
            }
        });
        valued.into_iter().map(|(_, checkpoint)| checkpoint).collect()
    }

    /// Why this one.
    pub(super) fn why(&self, facts: &Facts, request: &PlanRequest, chosen: &Checkpoint) -> String {
        let is_origin = facts.origin.as_ref() == Some(&chosen.tinker_path);
        match &request.strategy {
            Strategy::Specific { .. } => "It was asked for.".to_owned(),
            Strategy::Best { metric, mode } => self.why_best(chosen, metric, *mode),
            Strategy::LatestValid if is_origin && self.stepped_over.is_empty() => {
                "The run has no checkpoint of its own that can be used; this is the one that it was restored from."
                    .to_owned()
            }
            Strategy::LatestValid => self.why_latest(facts),
        }
    }

    fn why_latest(&self, facts: &Facts) -> String {
        let newest = match (self.stepped_over.len(), self.rejected.len()) {
            (0, 0) if facts.checkpoints.len() == 1 => return "It is the run's only checkpoint.".to_owned(),
            (0, 0) => "It is the newest training checkpoint".to_owned(),
            (0, _) => "It is the newest training checkpoint that can be used".to_owned(),
            (n, _) => format!("It is the newest training checkpoint that can be used{}", beyond(n)),
        };
        match self.rejected.len() {
            0 => format!("{newest}."),
            1 => format!("{newest}; 1 newer one cannot."),
            n => format!("{newest}; {n} newer ones cannot."),
        }
    }

    fn why_best(&self, chosen: &Checkpoint, metric: &str, mode: MetricMode) -> String {
        let value = chosen.user_metadata.as_ref().and_then(|labels| labels.get(metric));
        let extreme = match mode {
            MetricMode::Min => "lowest",
            MetricMode::Max => "highest",
        };
        format!(
            "Its {metric} is {}, the {extreme} that a usable training checkpoint tells{}.",
            value.map_or("", |value| value.trim()),
            beyond(self.stepped_over.len())
        )
    }

    /// Why there is no plan: nothing was chosen.
    pub(super) fn no_candidate(self, run_id: &str, request: &PlanRequest) -> NoPlan {
        let usable = self.stepped_over.len();
        let rejected: Vec<RejectedReason> = self
            .passed_over()
            .into_iter()
            .map(|r| RejectedReason { tinker_path: r.tinker_path, reason: r.reason })
            .collect();
        let message = match (&request.strategy, rejected.as_slice()) {
            (Strategy::Specific { path }, [_, ..]) if usable > 0 => format!(
                "{path} was asked for by name, so there is none to step back to; ask for it without stepping back."
            ),
            (Strategy::Specific { path }, [first, ..]) => {
                format!("{path} cannot be restored from. {}", first.reason)
            }
            (Strategy::Specific { path }, []) => {
                format!("{path} is not among the checkpoints of run {run_id}; it may have been deleted.")
            }
            (_, []) => {
                let message = format!(
                    "Run {run_id} has no training checkpoint, so there is nothing to restore it from."
                );
                return NoPlan::NoCheckpoint { message };
            }
            (_, [_, ..]) if usable > 0 => format!(
                "Stepping back over {} leaves no checkpoint of run {run_id} that can be restored from.",
                newest(request.step_back)
            ),
            (Strategy::LatestValid, [_, ..]) => {
                format!("None of the checkpoints of run {run_id} can be restored from.")
            }
            (Strategy::Best { metric, .. }, [_, ..]) => format!(
                "None of the checkpoints of run {run_id} can be restored from by its label '{metric}'."
            ),
        };
        NoPlan::NoUsableCheckpoint { message, rejected }
    }
}

/// What speaks against a checkpoint, as far as is known.
fn objection(facts: &Facts, checkpoint: &Checkpoint) -> Option<String> {
    unusable_because(checkpoint, facts.now).or_else(|| match facts.weights.get(&checkpoint.tinker_path)? {
        WeightsAnswer::Refused(reason) => Some(reason.clone()),
        WeightsAnswer::Info(info) => unfit(facts, info),
        WeightsAnswer::Unknown => None,
    })
}

/// The metric's value, from the labels that the checkpoint was given when it was saved; or why there is none.
fn value_of(checkpoint: &Checkpoint, metric: &str) -> Result<f64, String> {
    let label = checkpoint.user_metadata.as_ref().and_then(|labels| labels.get(metric));
    let Some(text) = label else {
        return Err(format!("It was saved without a label '{metric}', so it cannot be compared."));
    };
    match text.trim().parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err(format!("Its label '{metric}' is not a finite number, so it cannot be compared.")),
    }
}

fn beyond(stepped_over: usize) -> String {
    match stepped_over {
        0 => String::new(),
        1 => ", after stepping back over the newest one as was asked".to_owned(),
        n => format!(", after stepping back over the {n} newest ones as was asked"),
    }
}

fn newest(n: u32) -> String {
    if n == 1 { "the newest one".to_owned() } else { format!("the {n} newest ones") }
}

#[cfg(test)]
mod tests;
