//! Which run was restored from which, by the journal and, where it does not know, by the runs' own labels.

use std::collections::{BTreeMap, BTreeSet};

use retinker::host::api::{LineageEntry, RunRow};
use retinker::recovery::health::Succession;
use retinker::recovery::plan::{LABEL_RESTORE_ID, LABEL_RESTORED_FROM};
use retinker::recovery::planner::origin_of;
use retinker::recovery::restore::{RestoreRecord, RestoreState};
use retinker::wire::run::TrainingRun;

use super::{Index, differing};

/// Most runs of a family that are told.
const MAX_FAMILY: usize = 200;

/// What a run tells of its restore. Labels cannot be changed after the run was made.
#[derive(Debug)]
pub(super) struct Labels {
    from: String,
    /// None where the run took nobody's place: it is as the other one was after a step.
    restore_id: Option<String>,
}

impl Labels {
    /// None where the run was not restored from another one.
    pub(super) fn of(run: &TrainingRun) -> Option<Self> {
        let labels = run.user_metadata.as_ref()?;
        let from = labels.get(LABEL_RESTORED_FROM)?.clone();
        Some(Self { from, restore_id: labels.get(LABEL_RESTORE_ID).cloned() })
    }
}

/// The places of runs among restored ones, by run.
#[derive(Debug, Default)]
pub(super) struct Lineage(BTreeMap<String, Place>);

#[derive(Debug, Default, PartialEq)]
struct Place {
    parent: Option<Parent>,
    successor: Option<Succession>,
    left_behind: Option<LeftBehind>,
}

/// That a restore made the run, and then ended without it.
#[derive(Debug, PartialEq)]
pub(super) struct LeftBehind {
    restore_id: String,
    old_run: String,
    state: RestoreState,
}

impl LeftBehind {
    /// The same as a sentence.
    pub(super) fn reason(&self) -> String {
        let Self { restore_id, old_run, state } = self;
        let how = if *state == RestoreState::Cancelled { "was cancelled" } else { "failed" };
        format!("Nobody trains it: it was left behind by restore {restore_id} of run {old_run}, which {how}.")
    }
}

/// What a run was restored from.
#[derive(Debug, PartialEq)]
pub(super) struct Parent {
    pub(super) run_id: String,
    restore_id: Option<String>,
    /// The checkpoint's path, where the journal tells it.
    checkpoint: Option<String>,
}

impl Lineage {
    pub(super) fn of(restores: &BTreeMap<String, RestoreRecord>, labels: &BTreeMap<String, Labels>) -> Self {
        let mut places: BTreeMap<String, Place> = BTreeMap::new();
        for (record, succession) in
            restores.values().filter_map(|record| Some((record, record.succession()?)))
        {
            if let Some(new_run) = &succession.new_run_id {
                places.entry(new_run.clone()).or_default().parent = Some(Parent {
                    run_id: record.plan.run_id.clone(),
                    restore_id: Some(record.id.clone()),
                    checkpoint: Some(record.plan.checkpoint.tinker_path.clone()),
                });
            }
            places.entry(record.plan.run_id.clone()).or_default().successor = Some(succession);
        }
        // Where the journal does not know a restore (another host's, or a lost journal), the labels do.
        for (new_run, Labels { from, restore_id }) in labels {
            if let Some(record) = restore_id.as_ref().and_then(|id| restores.get(id)) {
                if !record.state.holds_the_run() {
                    places.entry(new_run.clone()).or_default().left_behind = Some(LeftBehind {
                        restore_id: record.id.clone(),
                        old_run: record.plan.run_id.clone(),
                        state: record.state,
                    });
                }
                continue;
            }
            places.entry(new_run.clone()).or_default().parent.get_or_insert_with(|| Parent {
                run_id: from.clone(),
                restore_id: restore_id.clone(),
                checkpoint: None,
            });
            let Some(restore_id) = restore_id else { continue };
            places.entry(from.clone()).or_default().successor.get_or_insert_with(|| Succession {
                restore_id: restore_id.clone(),
                new_run_id: Some(new_run.clone()),
            });
        }
        Self(places)
    }

    /// The runs whose place is another one there.
    pub(super) fn differing(&self, other: &Self) -> BTreeSet<String> {
        differing(&self.0, &other.0)
    }

    pub(super) fn parent(&self, run_id: &str) -> Option<&Parent> {
        self.0.get(run_id)?.parent.as_ref()
    }

    /// The run whose place it has taken.
    pub(super) fn replaced(&self, run_id: &str) -> Option<&str> {
        let parent = self.parent(run_id)?;
        parent.restore_id.is_some().then_some(parent.run_id.as_str())
    }

    pub(super) fn left_behind(&self, run_id: &str) -> Option<&LeftBehind> {
        self.0.get(run_id)?.left_behind.as_ref()
    }

    /// The restore that holds the run.
    pub(super) fn successor(&self, run_id: &str) -> Option<&Succession> {
        self.0.get(run_id)?.successor.as_ref()
    }

    /// The path of the checkpoint that it was restored from.
    pub(super) fn origin_of(&self, run: &TrainingRun) -> Option<String> {
        let told = self.parent(&run.training_run_id).and_then(|parent| parent.checkpoint.clone());
        told.or_else(|| origin_of(run, None))
    }

    fn children(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut children: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (child, place) in &self.0 {
            if let Some(parent) = &place.parent {
                children.entry(&parent.run_id).or_default().push(child);
            }
        }
        children
    }
}

impl Index {
    /// All runs that descend from the first of this one's lineage, parents before their children; it itself as told here.
    pub(crate) fn family(&self, row: &RunRow) -> Vec<LineageEntry> {
        let run_id = row.run.training_run_id.as_str();
        let mut ancestors = vec![run_id];
        while let Some(parent) = ancestors.last().and_then(|id| self.lineage.parent(id)) {
            if ancestors.contains(&parent.run_id.as_str()) {
                break;
            }
            ancestors.push(&parent.run_id);
        }
        let children = self.lineage.children();
        let mut family: Vec<LineageEntry> = Vec::new();
        let mut next = vec![(ancestors.last().copied().unwrap_or(run_id), 0)];
        while let Some((id, generation)) = next.pop() {
            if family.len() >= MAX_FAMILY || family.iter().any(|known| known.run_id == id) {
                continue;
            }
            let known = if id == run_id { Some(row) } else { self.row(id) };
            family.push(self.lineage_entry(id, known, generation));
            let mut born = children.get(id).cloned().unwrap_or_default();
            // Taken from the end.
            born.sort_unstable_by(|a, b| b.cmp(a));
            next.extend(born.into_iter().map(|child| (child, generation + 1)));
        }
        family
    }

    fn lineage_entry(&self, run_id: &str, row: Option<&RunRow>, generation: u32) -> LineageEntry {
        let parent = self.lineage.parent(run_id).filter(|_| generation > 0);
        let labelled = || origin_of(&row?.run, None);
        LineageEntry {
            restore_id: parent.and_then(|parent| parent.restore_id.clone()),
            checkpoint: parent.and_then(|parent| parent.checkpoint.clone().or_else(labelled)),
            name: row.map_or_else(|| run_id.to_owned(), |row| row.name.clone()),
            health: row.map(|row| row.verdict.health),
            run_id: run_id.to_owned(),
            generation,
            parent: parent.map(|parent| parent.run_id.clone()),
        }
    }
}
