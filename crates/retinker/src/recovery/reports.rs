//! What training programs tell of their runs: signs of lost state that a monitor cannot see. They are kept in the journal,
//! where every monitor and console of it finds them.

use std::collections::BTreeMap;

use retinker_wire::time::Time;
use serde::{Deserialize, Serialize};

use super::evidence::Symptom;
use super::journal::shelf::Shelf;
use super::journal::{Store, StoreError};

const REPORTS: Shelf<Entry> = Shelf::new("report");

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

/// A report as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    report: Report,
    /// Whether it was taken back.
    #[serde(default)]
    withdrawn: bool,
}

/// Writes a report. A run's first one stays, unless it was taken back: it tells since when the run is lost.
pub async fn report(
    store: &dyn Store,
    run_id: &str,
    symptom: Symptom,
    now: Time,
) -> Result<Report, StoreError> {
    let entry = Entry { report: Report { run_id: run_id.to_owned(), symptom, at: now }, withdrawn: false };
    let change = |found: Option<&Entry>| found.is_none_or(|found| found.withdrawn).then(|| entry.clone());
    let standing = match REPORTS.update(store, run_id, change).await? {
        Ok(written) => written,
        Err(earlier) => earlier.unwrap_or(entry),
    };
    Ok(standing.report)
}

/// Takes a report back: the run is well after all. Answers whether there was one.
pub async fn withdraw(store: &dyn Store, run_id: &str) -> Result<bool, StoreError> {
    let change = |found: Option<&Entry>| {
        found.filter(|found| !found.withdrawn).map(|found| Entry { withdrawn: true, ..found.clone() })
    };
    Ok(REPORTS.update(store, run_id, change).await?.is_ok())
}

/// The report of one run.
pub async fn of_run(store: &dyn Store, run_id: &str) -> Result<Option<Report>, StoreError> {
    let kept = REPORTS.get(store, run_id).await?.filter(|kept| !kept.value.withdrawn);
    Ok(kept.map(|kept| kept.value.report))
}

/// All reports, by run.
pub async fn all(store: &dyn Store) -> Result<BTreeMap<String, Report>, StoreError> {
    let standing = REPORTS.all(store).await?.into_iter().filter(|(_, entry)| !entry.withdrawn);
    Ok(standing.map(|(run_id, entry)| (run_id, entry.report)).collect())
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
            assert!(withdraw(&store, "r").await.unwrap());
            assert!(!withdraw(&store, "r").await.unwrap() && !withdraw(&store, "other").await.unwrap());
            assert_eq!((of_run(&store, "r").await.unwrap(), all(&store).await.unwrap().len()), (None, 0));
            let again = report(&store, "r", Symptom::OrderLost, Time::from_millis(9)).await.unwrap();
            assert_eq!((again.symptom, again.at.as_millis()), (Symptom::OrderLost, 9));
        });
    }
}
