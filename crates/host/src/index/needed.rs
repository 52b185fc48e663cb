//! Which checkpoints something still needs, as far as the runs and the journal tell.

use std::collections::BTreeMap;

use retinker::recovery::health::Health;
use retinker::recovery::retention::{Needs, needed};
use retinker::wire::run::{Checkpoint, TrainingRun};
use retinker::wire::time::Time;

use super::{Index, name_of};

impl Index {
    /// The checkpoints that must not be deleted by a slip, by path, and why. `fresh` are runs that were read by themselves,
    /// after the list.
    pub(crate) fn needed(
        &self,
        checkpoints: &[Checkpoint],
        fresh: &[TrainingRun],
        now: Time,
    ) -> BTreeMap<String, String> {
        let lineage = self.lineage();
        let listed = self.rows.iter().map(|entry| (&entry.row.run, entry.row.verdict.health));
        let listed = listed.filter(|(_, health)| *health == Health::Poisoned).map(|(run, _)| run);
        let judged = |run: &&TrainingRun| {
            self.row_of(run, self.checkpoints_of(run), &lineage, now).verdict.health == Health::Poisoned
        };
        // Which of a corrupted run's checkpoints can be used is seen from the list; here it is enough that it may need one.
        let poisoned = listed.chain(fresh.iter().filter(judged));
        let poisoned = poisoned.map(|run| (run, name_of(run), lineage.origin_of(run))).collect::<Vec<_>>();
        let needs = Needs {
            poisoned: poisoned
                .iter()
                .map(|(run, name, origin)| (*run, name.as_str(), origin.clone()))
                .collect(),
            restores: self.restores.values().collect(),
        };
        needed(&needs, checkpoints, now)
    }
}
