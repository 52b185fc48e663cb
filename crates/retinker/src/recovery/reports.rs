//! What training programs tell of their runs: signs of lost state that a monitor cannot see. They are kept in the journal,
//! where every monitor and console of it finds them.

use std::collections::BTreeMap;

use retinker_wire::time::Time;
use serde::{Deserialize, Serialize};

use super::evidence::Symptom;
use super::journal::shelf::Shelf;
use super::journal::{Store, StoreError};

const REPORTS: Shelf<Report> = Shelf::new("report");

/// A report of lost state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The run.
    pub run_id: String,
    /// What its driver has seen.
    pub symptom: Symptom,
    /// When.
    pub at: Time,
}

/// Writes a report. A run's first one stays: it tells since when the run is lost.
pub async fn report(
    store: &dyn Store,
    run_id: &str,
    symptom: Symptom,
    now: Time,
) -> Result<Report, StoreError> {
    let report = Report { run_id: run_id.to_owned(), symptom, at: now };
    let earlier = REPORTS.put(store, run_id, 0, &report).await?.err().flatten();
    Ok(earlier.map_or(report, |earlier| earlier.value))
}

/// The report of one run.
pub async fn of_run(store: &dyn Store, run_id: &str) -> Result<Option<Report>, StoreError> {
    Ok(REPORTS.get(store, run_id).await?.map(|kept| kept.value))
}

/// All reports, by run.
pub async fn all(store: &dyn Store) -> Result<BTreeMap<String, Report>, StoreError> {
    REPORTS.all(store).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::journal::MemoryStore;
    use super::*;
    use crate::client::testing::{ManualRuntime, test};

    #[test]
    fn the_first_report_of_a_run_stays() {
        let runtime = ManualRuntime::new();
        let store = MemoryStore::new(Arc::new(runtime.clone()));
        runtime.block_on(async {
            let first = report(&store, "r", Symptom::NotLoaded, Time::from_millis(1)).await.unwrap();
            let second = report(&store, "r", Symptom::OrderLost, Time::from_millis(2)).await.unwrap();
            assert_eq!(second, first);
            assert_eq!(of_run(&store, "r").await.unwrap(), Some(first.clone()));
            assert_eq!(of_run(&store, "other").await.unwrap(), None);
            assert_eq!(all(&store).await.unwrap(), [("r".to_owned(), first)].into());
        });
    }
}
