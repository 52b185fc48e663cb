//! How runs are, read from the service at once, for a program that keeps no index of them.

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use retinker_wire::run::TrainingRun;
use retinker_wire::time::Time;
use serde::Serialize;

use super::health::{Known, Succession, Verdict, assess};
use super::listing::{Listing, ListingError};
use super::plan::{LABEL_RESTORE_ID, LABEL_RESTORED_FROM};
use super::planner::{candidates, origin_of};
use super::sessions::session_status;
use crate::client::{Api, Error};

/// Runs whose checkpoints are asked for at once.
const AT_ONCE: usize = 8;

/// A run, and how it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Checkup {
    /// The run.
    pub run: TrainingRun,
    /// How it is, and why.
    pub verdict: Verdict,
}

/// How one run is: by what the service says of it, its checkpoints, and its session, where the service tells how that stands.
/// `succession` is the restore that holds the run, if one is known.
///
/// # Errors
/// The service could not be asked, or there is no such run.
pub async fn check(api: &Api, run_id: &str, succession: Option<&Succession>) -> Result<Checkup, Error> {
    let run = api.training_run(run_id).await?;
    let session = match session_status(api, run_id).await {
        Err(error) if error.is_unsupported() => None,
        answer => answer?,
    };
    let origin = origin_of(&run, None);
    let checkpoints = candidates(api, &run, origin.as_deref()).await?;
    let known = Known {
        checkpoints: Some(&checkpoints),
        succession,
        origin: origin.as_deref(),
        session: session.as_ref(),
        ..Known::default()
    };
    let verdict = assess(&run, known, now(api));
    Ok(Checkup { run, verdict })
}

/// How all runs of the caller's are, in the service's order. Checkpoints are read of those that have lost their state alone;
/// which was restored is told by the labels of its successor. How sessions stand is not asked.
///
/// # Errors
/// The service could not be asked, or its list contradicts itself.
pub async fn check_all(api: &Api) -> Result<Vec<Checkup>, ListingError> {
    let (mut listing, mut runs, mut places) = (Listing::new(), Vec::new(), BTreeMap::new());
    while let Some(page) = listing.next(api).await? {
        for run in page {
            // A run that comes twice, because the list moved meanwhile, is as it was told last.
            let place = *places.entry(run.training_run_id.clone()).or_insert(runs.len());
            match runs.get_mut(place) {
                Some(known) => *known = run,
                None => runs.push(run),
            }
        }
    }
    let mut successors = BTreeMap::new();
    successors.extend(runs.iter().filter_map(succession_of));
    let checked = runs.into_iter().map(|run| {
        let succession = successors.get(&run.training_run_id);
        async move {
            let origin = origin_of(&run, None);
            let asks = run.corrupted == Some(true) && succession.is_none();
            let checkpoints = if asks { Some(candidates(api, &run, origin.as_deref()).await?) } else { None };
            let known = Known {
                checkpoints: checkpoints.as_deref(),
                succession,
                origin: origin.as_deref(),
                ..Known::default()
            };
            let verdict = assess(&run, known, now(api));
            Ok::<_, Error>(Checkup { run, verdict })
        }
    });
    Ok(stream::iter(checked).buffered(AT_ONCE).try_collect().await?)
}

/// Which run this one was restored from, and how.
fn succession_of(run: &TrainingRun) -> Option<(String, Succession)> {
    let labels = run.user_metadata.as_ref()?;
    let succession = Succession {
        restore_id: labels.get(LABEL_RESTORE_ID)?.clone(),
        new_run_id: Some(run.training_run_id.clone()),
    };
    Some((labels.get(LABEL_RESTORED_FROM)?.clone(), succession))
}

fn now(api: &Api) -> Time {
    api.runtime().now()
}
