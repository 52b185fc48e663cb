//! Which runs failed together: a failure of the service poisons many, and is one thing to look into.

use std::time::Duration;

use retinker_wire::time::Time;
use serde::{Deserialize, Serialize};

use super::health::FailureCategory;

/// How far apart two runs of one incident may have been poisoned, where nobody says otherwise.
pub const WITHIN: Duration = Duration::from_secs(300);

/// A poisoned run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poisoning {
    /// The run.
    pub run_id: String,
    /// The service that it is on. Runs of two services are never one incident.
    pub service: String,
    /// Since when it is poisoned, as far as is known.
    pub since: Time,
    /// What the service says of the cause, without anything that is the run's own; `None` where it says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whose fault.
    pub category: FailureCategory,
    /// Whether there is a checkpoint to restore it from.
    pub recoverable: bool,
}

/// Runs of one service that were poisoned within a short time of each other; also a single one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// The service.
    pub service: String,
    /// When the first run was poisoned.
    pub first: Time,
    /// When the last run was poisoned.
    pub last: Time,
    /// The runs, in the order in which they were poisoned; where not all are told, the first of them.
    pub run_ids: Vec<String>,
    /// The reason that the most of them share; `None` where none is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Shared<String>>,
    /// The category that the most of them share.
    pub category: Shared<FailureCategory>,
    /// How many can be restored.
    pub recoverable: usize,
    /// How many cannot.
    pub unrecoverable: usize,
}

impl Incident {
    /// How many runs, told by name or not.
    pub fn count(&self) -> usize {
        self.recoverable.saturating_add(self.unrecoverable)
    }
}

/// What the most runs of an incident have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared<T> {
    /// What.
    pub value: T,
    /// How many runs have it.
    pub count: usize,
}

/// Groups runs into incidents, newest first. A run belongs to the incident before it if it was poisoned at most this
/// long after that one's last run: a failure that goes on for an hour is one incident.
pub fn group(poisonings: &[Poisoning], within: Duration) -> Vec<Incident> {
    let within = i64::try_from(within.as_millis()).unwrap_or(i64::MAX);
    let together = |a: &&Poisoning, b: &&Poisoning| {
        a.service == b.service && b.since.as_millis().saturating_sub(a.since.as_millis()) <= within
    };
    let mut sorted: Vec<&Poisoning> = poisonings.iter().collect();
    sorted.sort_by_key(|run| (&run.service, run.since, &run.run_id));
    let mut incidents: Vec<Incident> = sorted.chunk_by(together).filter_map(incident).collect();
    incidents.sort_by(|a, b| (b.last, &a.service).cmp(&(a.last, &b.service)));
    incidents
}

/// The incident of these runs, which are sorted by time; `None` for none.
fn incident(runs: &[&Poisoning]) -> Option<Incident> {
    let (first, last) = (runs.first()?, runs.last()?);
    let recoverable = runs.iter().filter(|run| run.recoverable).count();
    Some(Incident {
        service: first.service.clone(),
        first: first.since,
        last: last.since,
        run_ids: runs.iter().map(|run| run.run_id.clone()).collect(),
        reason: most_shared(runs.iter().filter_map(|run| run.reason.clone())),
        category: most_shared(runs.iter().map(|run| run.category))?,
        recoverable,
        unrecoverable: runs.len().saturating_sub(recoverable),
    })
}

/// The value that occurs most often, the first of several.
fn most_shared<T: PartialEq>(values: impl Iterator<Item = T>) -> Option<Shared<T>> {
    // An incident has few different values, so a list of them will do.
    let mut seen: Vec<Shared<T>> = Vec::new();
    for value in values {
        match seen.iter_mut().find(|shared| shared.value == value) {
            Some(shared) => shared.count += 1,
            None => seen.push(Shared { value, count: 1 }),
        }
    }
    seen.into_iter().reduce(|most, next| if next.count > most.count { next } else { most })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::test;

    const MINUTE: i64 = 60_000;

    fn poisoned(run_id: &str, service: &str, since_ms: i64) -> Poisoning {
        Poisoning {
            run_id: run_id.into(),
            service: service.into(),
            since: Time::from_millis(since_ms),
            reason: None,
            category: FailureCategory::Server,
            recoverable: true,
        }
    }

    fn runs(incidents: &[Incident]) -> Vec<Vec<&str>> {
        incidents.iter().map(|incident| incident.run_ids.iter().map(String::as_str).collect()).collect()
    }

    #[test]
    fn runs_that_failed_within_the_time_of_each_other_are_one_incident() {
        for (gap, expected) in
            [(5 * MINUTE, vec![vec!["a", "b", "c"]]), (5 * MINUTE + 1, vec![vec!["b", "c"], vec!["a"]])]
        {
            // Nine minutes and more from the first to the last: each is near its neighbour.
            let found =
                [poisoned("c", "s", gap + 4 * MINUTE), poisoned("a", "s", 0), poisoned("b", "s", gap)];
            assert_eq!(runs(&group(&found, WITHIN)), expected);
        }
        assert_eq!(group(&[], WITHIN), []);
    }

    #[test]
    fn two_services_are_two_incidents_and_the_newest_comes_first() {
        let found = [
            poisoned("a", "s", 0),
            poisoned("x", "t", 1),
            poisoned("b", "s", 2),
            poisoned("y", "t", 60 * MINUTE),
            poisoned("z", "u", 60 * MINUTE),
        ];
        let incidents = group(&found, WITHIN);
        assert_eq!(runs(&incidents), [vec!["y"], vec!["z"], vec!["a", "b"], vec!["x"]]);
        let two = &incidents[2];
        assert_eq!((two.service.as_str(), two.first.as_millis(), two.last.as_millis()), ("s", 0, 2));
        assert_eq!(two.count(), 2);
    }

    #[test]
    fn an_incident_tells_what_most_of_its_runs_share() {
        let reasons = [None, Some("lost its memory"), Some("disk full"), Some("disk full"), None, None];
        let mut found: Vec<_> = (0..6).map(|n| poisoned(&n.to_string(), "s", n)).collect();
        for (run, reason) in found.iter_mut().zip(reasons) {
            run.reason = reason.map(str::to_owned);
        }
        found[0].category = FailureCategory::User;
        found[5].recoverable = false;
        let incidents = group(&found, WITHIN);
        let [incident] = incidents.as_slice() else { panic!("{incidents:?}") };
        assert_eq!(incident.reason, Some(Shared { value: "disk full".into(), count: 2 }));
        assert_eq!(incident.category, Shared { value: FailureCategory::Server, count: 5 });
        assert_eq!((incident.recoverable, incident.unrecoverable), (5, 1));

        // Of those that are equally often, the first in time; none, where none is known.
        let first = group(&found[1..3], WITHIN);
        assert_eq!(first[0].reason, Some(Shared { value: "lost its memory".into(), count: 1 }));
        assert_eq!(group(&found[..1], WITHIN)[0].reason, None);
    }
}
