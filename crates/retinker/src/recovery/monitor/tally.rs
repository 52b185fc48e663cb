//! How many runs of each health there are, kept true by readings of a part.

use std::collections::HashMap;

use crate::host::api::HealthCounts;
use crate::recovery::health::Health;

/// The counts, and what they were made of as far as it can change between two whole readings.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) runs: u64,
    pub(super) health: HealthCounts,
    counted: HashMap<String, Health>,
}

impl Tally {
    /// Counts a run, anew if it was counted before. `may_change`: it may come with a reading of a part. Answers whether it is
    /// known what it was counted as before.
    pub(super) fn count(&mut self, run_id: &str, health: Health, may_change: bool) -> bool {
        let before = self.counted.get(run_id).copied();
        match before {
            Some(before) => self.health.remove(before),
            None => self.runs += 1,
        }
        self.health.add(health);
        if may_change {
            self.counted.insert(run_id.to_owned(), health);
        }
        before.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::test;

    #[test]
    fn what_changes_is_counted_once() {
        let mut tally = Tally::default();
        tally.count("a", Health::Healthy, true);
        tally.count("b", Health::Healthy, false);
        assert!(tally.count("a", Health::Poisoned, true));
        tally.count("c", Health::AtRisk, true);
        let expected = HealthCounts { healthy: 1, poisoned: 1, at_risk: 1, ..HealthCounts::default() };
        assert_eq!((tally.runs, tally.health), (3, expected));
    }
}
