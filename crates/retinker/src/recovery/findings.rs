//! Which runs were seen to be lost or stalled, since when, and whether it was given up on them. In the journal, so that each is told
//! once, by whichever monitor saw it first, and a restart forgets nothing.

use std::collections::BTreeMap;

use retinker_wire::time::Time;
use serde::{Deserialize, Serialize};

use super::health::{FailureCategory, Health, Verdict};
use super::incidents::Poisoning;
use super::journal::shelf::Shelf;
use super::journal::{Store, StoreError};

const FINDINGS: Shelf<Finding> = Shelf::new("finding");

/// A run that was seen to be lost or stalled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The run.
    pub run_id: String,
    /// When it was first seen to be lost, by a monitor's clock, or told so by its training program.
    pub since: Time,
    /// When it was noted, by the monitor's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noted: Option<Time>,
    /// Why, as a sentence for people.
    pub reason: String,
    /// What the service says of the cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Whose fault.
    pub category: FailureCategory,
    /// Whether it had a checkpoint to restore from.
    pub recoverable: bool,
    /// Whether no more was seen than that its session is over. What is seen to be lost later is a finding of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stalled: bool,
    /// Why it is not restored any more; a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up: Option<String>,
    /// When that was noted, by the monitor's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up_at: Option<Time>,
    /// Chance for the pause before its restore, drawn once: every monitor waits as long.
    pub random: u64,
}

impl Finding {
    /// What a verdict says, seen now.
    pub fn of(run_id: &str, verdict: &Verdict, cause: Option<&str>, now: Time, random: u64) -> Self {
        Self {
            run_id: run_id.to_owned(),
            since: verdict.since.unwrap_or(now),
            noted: Some(now),
            reason: verdict.reason.clone(),
            cause: cause.map(str::to_owned),
            category: verdict.category.unwrap_or(FailureCategory::Unknown),
            recoverable: verdict.health == Health::Poisoned,
            stalled: verdict.health == Health::Stalled,
            given_up: None,
            given_up_at: None,
            random,
        }
    }

    /// When it was noted; of one that does not tell, since when the run is lost.
    pub fn noted_at(&self) -> Time {
        self.noted.unwrap_or(self.since)
    }

    /// Whether it says more than what has been found already.
    pub fn is_news(&self, found: Option<&Self>) -> bool {
        found.is_none_or(|found| found.stalled && !self.stalled)
    }

    /// As a part of an incident.
    pub fn poisoning(&self, service: &str) -> Poisoning {
        Poisoning {
            run_id: self.run_id.clone(),
            service: service.to_owned(),
            since: self.since,
            reason: self.cause.clone(),
            category: self.category,
            recoverable: self.recoverable,
        }
    }
}

/// Writes a new finding; answers whether this writer was the first.
pub async fn note(store: &dyn Store, finding: &Finding) -> Result<bool, StoreError> {
    let change = |found: Option<&Finding>| finding.is_news(found).then(|| finding.clone());
    Ok(FINDINGS.update(store, &finding.run_id, change).await?.is_ok())
}

/// Notes that a run is given up, or (`None`) no longer; answers whether this writer was the one.
pub async fn give_up(
    store: &dyn Store,
    run_id: &str,
    why: Option<String>,
    now: Time,
) -> Result<bool, StoreError> {
    let change = |found: Option<&Finding>| {
        let found = found.filter(|found| found.given_up.is_some() != why.is_some())?;
        let given_up_at = why.as_ref().map(|_| now);
        Some(Finding { given_up: why.clone(), given_up_at, ..found.clone() })
    };
    Ok(FINDINGS.update(store, run_id, change).await?.is_ok())
}

/// All findings, by run.
pub async fn all(store: &dyn Store) -> Result<BTreeMap<String, Finding>, StoreError> {
    FINDINGS.all(store).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::journal::MemoryStore;
    use super::*;
    use crate::client::testing::{ManualRuntime, test};

    #[test]
    fn one_notes_and_one_gives_up() {
        let runtime = ManualRuntime::new();
        let store = MemoryStore::new(Arc::new(runtime.clone()));
        let verdict = Verdict {
            health: Health::Poisoned,
            reason: "It failed.".into(),
            category: Some(FailureCategory::Server),
            since: None,
        };
        let finding = Finding::of("r", &verdict, Some("out of memory"), Time::from_millis(5), 7);
        runtime.block_on(async {
            let now = Time::from_millis(9);
            assert!(
                !give_up(&store, "r", Some("spent".into()), now).await.unwrap(),
                "nothing is known of it"
            );
            assert!(note(&store, &finding).await.unwrap());
            let later = Finding { since: Time::from_millis(9), ..finding.clone() };
            assert!(!note(&store, &later).await.unwrap());
            assert_eq!(all(&store).await.unwrap()["r"], finding, "the first stays");
            for (why, first) in [(Some("spent"), true), (Some("spent"), false), (None, true), (None, false)] {
                assert_eq!(give_up(&store, "r", why.map(str::to_owned), now).await.unwrap(), first);
            }
        });
    }
}
