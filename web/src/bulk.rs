//! How the restore of many runs stands.

use retinker::host::api::PlannedRun;
use retinker::recovery::restore::RestoreRecord;

use crate::format::{count, counted};
use crate::order::sorted_by;
use crate::words;

/// How one of them stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stand {
    /// Its turn has not come.
    Waits,
    /// The host is asked to begin.
    Begins,
    /// The host carries it out: the restore's id.
    UnderWay(String),
    /// A new run has taken its place.
    Restored {
        /// That one's id.
        run_id: String,
        /// What was found when it was verified.
        verdicts: String,
    },
    /// Why not.
    Failed(String),
    /// Somebody has stopped it.
    Cancelled,
    /// Somebody stopped before its turn came.
    NotBegun,
}

impl Stand {
    /// Whether the host has not begun it.
    pub fn is_waiting(&self) -> bool {
        matches!(self, Self::Waits | Self::Begins)
    }

    /// What a restore that is done came to.
    pub fn restored(record: Option<&RestoreRecord>) -> Self {
        let verdicts = record.map(|record| record.verdicts().map(|verdict| verdict.to_string()));
        Self::Restored {
            run_id: record.and_then(|record| record.new_run_id.clone()).unwrap_or_default(),
            verdicts: verdicts.map(|all| all.collect::<Vec<_>>().join(" ")).unwrap_or_default(),
        }
    }

    /// Whether nothing more will happen.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Restored { .. } | Self::Failed(_) | Self::Cancelled | Self::NotBegun)
    }

    /// Its name in the page's attributes.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Waits => "waits",
            Self::Begins => "begins",
            Self::UnderWay(_) => "under_way",
            Self::Restored { .. } => "restored",
            Self::Failed(_) => "failed",
            Self::Cancelled => "cancelled",
            Self::NotBegun => "not_begun",
        }
    }

    /// The same for people.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Waits => "Waits for its turn",
            Self::Begins => "Begins",
            Self::UnderWay(_) => "Under way",
            Self::Restored { .. } => "Restored",
            Self::Failed(_) => "Failed",
            Self::Cancelled => "Cancelled",
            Self::NotBegun => "Not begun",
        }
    }
}

/// Where each is in the list: what failed first, then what is under way, what waits, and what is well.
pub fn order<'a>(stands: impl Iterator<Item = &'a Stand>) -> Vec<usize> {
    let ranked = stands.enumerate().map(|(at, stand)| {
        let rank = match stand {
            Stand::Failed(_) => 0,
            Stand::Begins | Stand::UnderWay(_) => 1,
            Stand::Cancelled | Stand::NotBegun => 2,
            Stand::Waits => 3,
            Stand::Restored { .. } => 4,
        };
        (rank, at)
    });
    sorted_by(ranked.collect(), |(rank, _)| *rank).into_iter().map(|(_, at)| at).collect()
}

/// How far it all is: `Restored 5 of 12, 1 failed`.
pub fn progress<'a>(stands: impl Iterator<Item = &'a Stand>) -> String {
    let (mut all, mut restored, mut failed, mut cancelled, mut left) = (0, 0, 0, 0, 0);
    for stand in stands {
        all += 1;
        match stand {
            Stand::Restored { .. } => restored += 1,
            Stand::Failed(_) => failed += 1,
            Stand::Cancelled => cancelled += 1,
            Stand::NotBegun => left += 1,
            Stand::Waits | Stand::Begins | Stand::UnderWay(_) => {}
        }
    }
    let mut told = format!("Restored {} of {}", count(restored), count(all));
    for (many, word) in [(failed, "failed"), (cancelled, "cancelled"), (left, "not begun")] {
        if many > 0 {
            told.push_str(&format!(", {} {word}", count(many)));
        }
    }
    told
}

/// Why runs cannot be restored: each reason once, with the names of those that it holds for, most first.
pub fn refusals(planned: &[PlannedRun]) -> Vec<(String, Vec<String>)> {
    let mut reasons: Vec<(String, Vec<String>)> = Vec::new();
    for run in planned.iter().filter(|run| run.plan.is_none()) {
        let reason = match (&run.none, &run.problem) {
            (Some(none), _) => words::no_plan(none).0.to_owned(),
            (None, Some(problem)) => words::problem_heading(problem).to_owned(),
            (None, None) => "The host does not say why".to_owned(),
        };
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, names)) => names.push(run.name.clone()),
            None => reasons.push((reason, vec![run.name.clone()])),
        }
    }
    sorted_by(reasons, |(_, names)| -(names.len() as i64))
}

/// What would happen, in a sentence. `broke_off`: no more are being looked at.
pub fn outlook(planned: &[PlannedRun], asked: usize, broke_off: bool) -> String {
    let can = planned.iter().filter(|run| run.plan.is_some()).count();
    if planned.len() < asked {
        let so_far = format!("{} of {}", count(planned.len() as u64), count(asked as u64));
        return match broke_off {
            true => format!("{so_far} runs were looked at."),
            false => format!("Looking at the runs: {so_far}\u{2026}"),
        };
    }
    let unknown = planned.iter().filter(|run| run.problem.is_some()).count();
    let cannot = asked.saturating_sub(can + unknown);
    if cannot + unknown == 0 {
        let all = if can == 1 { "It".to_owned() } else { format!("All {}", count(can as u64)) };
        return format!("{all} can be restored.");
    }
    let mut told =
        format!("{} of {} can be restored", count(can as u64), counted(asked as u64, "run", "runs"));
    for (many, word) in [(cannot, "cannot"), (unknown, "could not be found out about")] {
        if many > 0 {
            told.push_str(&format!("; {} {word}", count(many as u64)));
        }
    }
    told.push('.');
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use retinker::host::api::ApiProblem;
    use retinker::recovery::plan::NoPlan;

    fn refused(name: &str, none: Option<NoPlan>) -> PlannedRun {
        let problem = ApiProblem { code: "x".into(), message: "It is slow.".into(), hint: String::new() };
        let problem = none.is_none().then_some(problem);
        PlannedRun { run_id: name.into(), name: name.into(), plan: None, none, problem }
    }

    #[test]
    fn reasons_are_told_once() {
        let sound = || Some(NoPlan::NotPoisoned { message: "m".into() });
        let planned = [refused("a", None), refused("b", sound()), refused("c", sound())];
        assert_eq!(
            refusals(&planned),
            [
                ("This run needs no restore".to_owned(), vec!["b".to_owned(), "c".to_owned()]),
                ("This did not work".to_owned(), vec!["a".to_owned()])
            ]
        );
        assert_eq!(outlook(&planned, 5, false), "Looking at the runs: 3 of 5\u{2026}");
        assert_eq!(outlook(&planned, 5, true), "3 of 5 runs were looked at.");
        assert_eq!(
            outlook(&planned, 3, false),
            "0 of 3 runs can be restored; 2 cannot; 1 could not be found out about."
        );
        assert_eq!(outlook(&planned[1..], 2, false), "0 of 2 runs can be restored; 2 cannot.");
        assert_eq!(
            outlook(&planned[..1], 1, false),
            "0 of 1 run can be restored; 1 could not be found out about."
        );
    }

    #[test]
    fn progress_counts_what_is_over() {
        let stands =
            [Stand::restored(None), Stand::Failed("no".into()), Stand::UnderWay("r".into()), Stand::NotBegun];
        assert_eq!(progress(stands.iter()), "Restored 1 of 4, 1 failed, 1 not begun");
        assert_eq!(stands.iter().filter(|stand| stand.is_over()).count(), 3);
        assert_eq!(progress([].iter()), "Restored 0 of 0");
        assert_eq!(
            order(stands.iter()).first().and_then(|at| stands.get(*at)).map(Stand::as_str),
            Some("failed")
        );
        assert_eq!(order(stands.iter()).len(), stands.len());
    }
}
