//! The calls about what was done, and about the monitors of the journal.

use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use retinker::host::api::{
    Activity, ActivityQuery, HostEvent, Incidents, IncidentsQuery, MonitorState, SetMonitor, TOLD_NEWEST,
    TOLD_RUNS, TOLD_SUBJECTS,
};
use retinker::recovery::acts::{Act, acts, folded};
use retinker::recovery::control;
use retinker::recovery::incidents::{Incident, WITHIN};
use retinker::recovery::journal::{Store, StoreError};
use retinker::recovery::monitor::incidents;
use retinker::recovery::policy::Gate;
use retinker::recovery::protect::{Protection, protections};

use super::Host;
use crate::acts::{noted, wholly};
use crate::host::Shared;
use crate::problem::Problem;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/incidents", get(list_incidents))
        .route("/activity", get(activity))
        .route("/monitor", get(monitor).post(set_monitor))
}

async fn list_incidents(
    State(host): Host,
    query: Result<Query<IncidentsQuery>, QueryRejection>,
) -> Result<Json<Incidents>, Problem> {
    let Query(IncidentsQuery { open }) = query?;
    let service = host.service.base_url.clone();
    let mut found = incidents(&*host.store, &service, WITHIN).await?;
    if open {
        let index = host.index();
        for incident in &mut found {
            incident.run_ids.retain(|id| index.waits(id));
            let count = incident.run_ids.len();
            (incident.recoverable, incident.unrecoverable) = (count, 0);
            incident.category.count = incident.category.count.min(count);
            if let Some(reason) = &mut incident.reason {
                reason.count = reason.count.min(count);
            }
        }
        found.retain(|incident| incident.count() > 0);
        // One that waits alone is nothing to be dealt with together.
        if found.iter().map(Incident::count).sum::<usize>() < 2 {
            found.clear();
        }
    }
    Ok(Json(Incidents { incidents: found }))
}

async fn activity(
    State(host): Host,
    query: Result<Query<ActivityQuery>, QueryRejection>,
) -> Result<Json<Activity>, Problem> {
    let Query(ActivityQuery { whole, newest }) = query?;
    let service = host.service.base_url.clone();
    let mut incidents = incidents(&*host.store, &service, WITHIN).await?;
    let mut restores = host.store.list().await?;
    let mut acts = all_acts(&*host.store).await?;
    if !whole {
        acts = folded(acts);
    }
    let [incidents_total, restores_total, acts_total] =
        [incidents.len(), restores.len(), acts.len()].map(|many| many as u64);
    if !whole {
        let newest = usize::try_from(newest.unwrap_or(TOLD_NEWEST)).unwrap_or(usize::MAX);
        incidents.truncate(newest);
        restores.truncate(newest);
        acts.truncate(newest);
        incidents.iter_mut().for_each(|incident| incident.run_ids.truncate(TOLD_RUNS));
        acts.iter_mut().for_each(|act| act.subjects.truncate(TOLD_SUBJECTS));
    }
    let Json(monitor) = monitor(State(host)).await?;
    let told = Activity { monitor, incidents, incidents_total, restores, restores_total, acts, acts_total };
    Ok(Json(told))
}

/// The acts of people and the monitors' own, newest first.
async fn all_acts(store: &dyn Store) -> Result<Vec<Act>, StoreError> {
    let mut all = acts(store).await?;
    all.extend(protections(store).await?.into_iter().map(protecting));
    all.sort_by_key(|act| std::cmp::Reverse(act.at));
    Ok(all)
}

fn protecting(protection: Protection) -> Act {
    let Protection { tinker_path, run_id, expires_at, at, refused, .. } = protection;
    let taken_back = if expires_at.is_none() { "; its former life was put back since" } else { "" };
    Act {
        at,
        by: "a monitor".to_owned(),
        what: format!("Protect a checkpoint of poisoned run {run_id} from expiring{taken_back}"),
        subjects: vec![tinker_path],
        count: 1,
        ended_at: Some(at),
        problem: refused,
    }
}

async fn monitor(State(host): Host) -> Result<Json<MonitorState>, Problem> {
    Ok(Json(MonitorState { gate: control::gate(&*host.store).await?, policy: host.monitor.policy().into() }))
}

async fn set_monitor(
    State(host): Host,
    request: Result<Json<SetMonitor>, JsonRejection>,
) -> Result<Json<MonitorState>, Problem> {
    let Json(SetMonitor { gate }) = request?;
    let what = match gate {
        Gate::Open => "Resume automatic restores",
        Gate::Paused => "Pause automatic restores",
        Gate::Draining => "End automatic restores",
    };
    let asked = Arc::clone(&host);
    let set = async move { Ok(control::set_gate(&*asked.store, gate).await?) };
    noted(&host, what.to_owned(), Vec::new(), set, wholly).await?;
    host.monitor.want_whole();
    host.refresh.notify_one();
    // No run has changed, but what every open page says of the monitor.
    host.tell(HostEvent::Runs { run_ids: Vec::new() });
    monitor(State(host)).await
}
