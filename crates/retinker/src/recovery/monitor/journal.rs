//! What the journal says, as a monitor and a host go by it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use retinker_wire::run::TrainingRun;
use retinker_wire::session::SessionStatus;
use retinker_wire::time::Time;

use crate::recovery::findings::{self, Finding};
use crate::recovery::health::{Health, Known, Succession, assess};
use crate::recovery::incidents::{self, Incident};
use crate::recovery::journal::{Store, StoreError};
use crate::recovery::policy::Gate;
use crate::recovery::reports::Report;
use crate::recovery::restore::RestoreRecord;

/// What the journal says. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    /// When it was read: see [`Store::revision`].
    pub revision: u64,
    /// All restores, newest first.
    pub records: Arc<Vec<RestoreRecord>>,
    /// The runs of which a restore is done or under way.
    pub held: Arc<BTreeSet<String>>,
    /// Which runs were seen to be lost, by run.
    pub findings: Arc<BTreeMap<String, Finding>>,
    /// What training programs have told, by run.
    pub reports: Arc<BTreeMap<String, Report>>,
    /// Runs that are left alone.
    pub opt_outs: Arc<BTreeSet<String>>,
    /// Whether restores may begin by themselves.
    pub gate: Gate,
}

impl Journal {
    /// Whether a run has lost its state, whatever has been done about it.
    pub(super) fn is_lost(&self, run: &TrainingRun) -> bool {
        run.corrupted == Some(true) || self.reports.contains_key(&run.training_run_id)
    }

    /// Whether a restore of this run is done or under way.
    pub(super) fn is_held(&self, run_id: &str) -> bool {
        self.held.contains(run_id)
    }

    /// Whether this restore is known here.
    pub(super) fn knows(&self, restore_id: &str) -> bool {
        self.records.iter().any(|record| record.id == restore_id)
    }

    /// The runs that restores of the journal leave to be looked after: those that were lost and are not held, and those of
    /// restores that are not settled.
    pub(super) fn open(&self) -> impl Iterator<Item = &String> {
        let found = self.findings.values().filter(|finding| !finding.stalled).map(|finding| &finding.run_id);
        let unsettled = self.records.iter().filter(|record| !record.state.is_settled());
        found.filter(|run_id| !self.is_held(run_id)).chain(unsettled.map(|record| &record.plan.run_id))
    }

    /// By old run, of restores that hold it.
    pub(super) fn successions(&self) -> HashMap<&str, Succession> {
        self.records
            .iter()
            .filter_map(|record| Some((record.plan.run_id.as_str(), record.succession()?)))
            .collect()
    }

    /// How a run is, as far as the list tells and how its session ended.
    pub(super) fn health_of(
        &self,
        run: &TrainingRun,
        successions: &HashMap<&str, Succession>,
        session: Option<&SessionStatus>,
        now: Time,
    ) -> Health {
        let run_id = run.training_run_id.as_str();
        let known = Known {
            succession: successions.get(run_id),
            reported: self.reports.get(run_id),
            session,
            ..Known::default()
        };
        assess(run, known, now).health
    }
}

/// What an incident list is made of: the runs that were found lost, newest incident first. A session that is over by itself
/// is no incident.
pub async fn incidents(
    store: &dyn Store,
    service: &str,
    within: Duration,
) -> Result<Vec<Incident>, StoreError> {
    let found = findings::all(store).await?;
    let lost = found.values().filter(|finding| !finding.stalled);
    let poisonings: Vec<_> = lost.map(|finding| finding.poisoning(service)).collect();
    Ok(incidents::group(&poisonings, within))
}
