//! Which checkpoints something still needs, as far as the runs and the journal tell.

use std::collections::BTreeMap;

use retinker::recovery::health::Health;
use retinker::recovery::plan::LABEL_OPT_OUT;
use retinker::recovery::retention::{Needs, needed};
use retinker::wire::run::{Checkpoint, TrainingRun};
use retinker::wire::time::Time;

use super::{Index, name_of};
use crate::going_back::StoodOn;

impl Index {
    /// The checkpoints that must not be deleted by a slip, by path, and why. `fresh` are runs that were read by themselves,
    /// after the list. What a redo log stands on is told by the log, where there is one here.
    pub(crate) fn needed(
        &self,
        checkpoints: &[Checkpoint],
        fresh: &[TrainingRun],
        stood_on: &StoodOn,
        now: Time,
    ) -> BTreeMap<String, String> {
        // One that is taken for unrecoverable may have a checkpoint that its verdict does not know of.
        let is_lost = |health: Health| matches!(health, Health::Poisoned | Health::Unrecoverable);
        let listed = self.rows.iter().map(|entry| &entry.row).filter(|row| is_lost(row.verdict.health));
        let judged = |run: &&TrainingRun| is_lost(self.row_for(run, None, now).verdict.health);
        let poisoned = listed.map(|row| &row.run).chain(fresh.iter().filter(judged));
        let poisoned: Vec<_> = poisoned.map(|run| (run, name_of(run), self.lineage.origin_of(run))).collect();
        let has_a_log = |run: &&TrainingRun| {
            let labels = run.user_metadata.as_ref();
            labels.and_then(|labels| labels.get(LABEL_OPT_OUT)).is_some_and(|by| by == "redo_log")
        };
        let all = self.rows.iter().map(|entry| &entry.row.run).chain(fresh);
        let logged: Vec<&str> = all
            .filter(|run| has_a_log(run) && !stood_on.tells_of(run))
            .map(|run| run.training_run_id.as_str())
            .collect();
        let needs = Needs {
            logged,
            stood_on: stood_on.paths.iter().map(|(path, log)| (path.as_str(), log.as_str())).collect(),
            poisoned: poisoned
                .iter()
                .map(|(run, name, origin)| (*run, name.as_str(), origin.clone()))
                .collect(),
            restores: self.restores.values().collect(),
        };
        needed(&needs, checkpoints, now)
    }
}
