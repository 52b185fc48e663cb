//! What people tell all monitors of a journal: to pause, and to leave a run alone.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::journal::shelf::Shelf;
use super::journal::{Store, StoreError};
use super::plan::{LABEL_RESTORED_FROM, LABEL_ROOT};
use super::policy::Gate;
use super::restore::{RestoreRecord, maker_of};
use retinker_wire::run::TrainingRun;

const GATES: Shelf<Gate> = Shelf::new("gate");
/// There is one gate.
const GATE: &str = "restores";
const OPT_OUTS: Shelf<OptOut> = Shelf::new("opt_out");

/// Whether a run is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct OptOut {
    opted_out: bool,
}

/// Whether restores may begin by themselves.
pub async fn gate(store: &dyn Store) -> Result<Gate, StoreError> {
    Ok(GATES.get(store, GATE).await?.map_or_else(Gate::default, |kept| kept.value))
}

/// Pauses or resumes restores, for all monitors of this journal. Those under way go on. [`Gate::Draining`] makes every
/// monitor finish what is under way and begin nothing, until it is opened again.
pub async fn set_gate(store: &dyn Store, gate: Gate) -> Result<(), StoreError> {
    GATES.update(store, GATE, |_| Some(gate)).await.map(drop)
}

/// Leaves a run and its successors alone, or no longer. Restores that people ask for are not affected.
pub async fn opt_out(store: &dyn Store, run_id: &str, opted_out: bool) -> Result<(), StoreError> {
    OPT_OUTS.update(store, run_id, |_| Some(OptOut { opted_out })).await.map(drop)
}

/// The runs that are left alone.
pub async fn opt_outs(store: &dyn Store) -> Result<BTreeSet<String>, StoreError> {
    let all = OPT_OUTS.all(store).await?;
    Ok(all.into_iter().filter(|(_, value)| value.opted_out).map(|(run_id, _)| run_id).collect())
}

/// Whether this run, or one that it came from by restores, is among those that are left alone: by the journal, and by the
/// run's labels where another program restored it.
pub fn is_opted_out(opt_outs: &BTreeSet<String>, records: &[RestoreRecord], run: &TrainingRun) -> bool {
    let named = |id: &str| opt_outs.contains(id);
    let labels = run.user_metadata.iter();
    let told = labels.flat_map(|labels| [LABEL_ROOT, LABEL_RESTORED_FROM].map(|label| labels.get(label)));
    if named(&run.training_run_id) || told.flatten().any(|id| named(id)) {
        return true;
    }
    let mut run_id = run.training_run_id.as_str();
    // A damaged journal could lead round in a circle.
    for _ in 0..=records.len() {
        let Some(maker) = maker_of(records, run_id) else { return false };
        run_id = &maker.plan.run_id;
        if named(run_id) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::journal::MemoryStore;
    use super::super::samples;
    use super::*;
    use crate::client::testing::{ManualRuntime, test};

    #[test]
    fn the_last_word_counts() {
        let runtime = ManualRuntime::new();
        let store = MemoryStore::new(Arc::new(runtime.clone()));
        runtime.block_on(async {
            assert_eq!(gate(&store).await.unwrap(), Gate::Open);
            for word in [Gate::Paused, Gate::Draining, Gate::Open] {
                set_gate(&store, word).await.unwrap();
                assert_eq!(gate(&store).await.unwrap(), word);
            }
            opt_out(&store, "a", true).await.unwrap();
            opt_out(&store, "b", true).await.unwrap();
            opt_out(&store, "a", false).await.unwrap();
            assert_eq!(opt_outs(&store).await.unwrap(), ["b".to_owned()].into());
        });
    }

    #[test]
    fn successors_are_left_alone_as_well() {
        let mut run = samples::run("b2", None);
        let opted = BTreeSet::from(["b".to_owned()]);
        assert!(!is_opted_out(&opted, &[], &run));
        for label in [LABEL_ROOT, LABEL_RESTORED_FROM] {
            run.user_metadata = Some([(label.to_owned(), "b".to_owned())].into());
            assert!(is_opted_out(&opted, &[], &run), "{label}");
        }
        // By the journal alone, two generations on, as on a service that keeps no labels.
        run.user_metadata = None;
        let made = |id: &str, old: &str, new: &str| {
            let mut record = samples::record(id, old);
            record.new_run_id = Some(new.to_owned());
            record
        };
        let records = [made("1", "a", "b"), made("2", "b", "b1"), made("3", "b1", "b2")];
        assert!(is_opted_out(&opted, &records, &run));
        assert!(!is_opted_out(&["c".to_owned()].into(), &records, &run));
    }
}
