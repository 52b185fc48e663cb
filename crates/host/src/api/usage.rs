//! What is stored and what is used: summed up here, since services tell it hour by hour.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use retinker::client::RestClient;
use retinker::host::sessions::ProjectRow;
use retinker::host::usage::{StorageRow, Usage, UsageQuery, UsedRow};
use retinker::wire::account::{BillingEventInfo, BillingUsageEvent, CheckpointStorageUsage};
use retinker::wire::time::Time;

use super::Host;
use super::sessions::{all_sessions, counted};
use crate::host::{Asked, Shared};
use crate::problem::Problem;

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
/// The longest time that services tell usage of.
const MAX_DAYS: u64 = 14;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/usage", get(usage))
}

/// What usage is summed up by.
#[derive(Debug, Clone, Copy, PartialEq)]
enum By {
    Model,
    Session,
    Project,
    Day,
}

async fn usage(
    State(host): Host,
    query: Result<Query<UsageQuery>, QueryRejection>,
) -> Result<Json<Usage>, Problem> {
    let Query(query) = query?;
    let by = match query.by.as_deref() {
        None | Some("" | "model") => By::Model,
        Some("session") => By::Session,
        Some("project") => By::Project,
        Some("day") => By::Day,
        Some(_) => {
            return Err(Problem::bad_request("Usage is summed up by model, session, project or day."));
        }
    };
    let days = i64::try_from(query.days.unwrap_or(7).clamp(1, MAX_DAYS)).unwrap_or(7);
    let now = host.runtime.now().as_millis();
    let until = now - now.rem_euclid(HOUR);
    let since = Time::from_millis(until - days * DAY);
    let rest = RestClient::new(host.api.clone());
    let (storage, billing, identity) = tokio::join!(
        host.ask(rest.get_current_checkpoint_storage_usage(None)),
        host.ask(rest.get_billing_usage(since, Time::from_millis(until))),
        host.ask(rest.whoami()),
    );
    let mut usage = Usage { since: Some(since), ..Usage::default() };
    match storage {
        Ok(told) => {
            usage.storage = stored(told.data);
            usage.storage_offered = true;
        }
        // Sessions that can be searched tell it too, but not what it costs.
        Err(asked) if is_not_offered(&asked) => match host.ask_all(all_sessions(&host.api)).await {
            Ok((sessions, more)) => {
                usage.storage = counted(sessions).into_iter().map(of_project).collect();
                usage.storage.sort_by_key(|row| std::cmp::Reverse(row.bytes));
                (usage.storage_offered, usage.storage_from_sessions, usage.storage_is_part) =
                    (true, true, more);
            }
            Err(asked) if is_not_offered(&asked) => {}
            Err(asked) => usage.storage_problem = Some(asked.problem()),
        },
        Err(asked) => usage.storage_problem = Some(asked.problem()),
    }
    match billing {
        Ok(told) => {
            usage.used = used(&told.data, by);
            usage.cost_data_through = told.cost_data_through;
            usage.billing_offered = true;
        }
        Err(asked) if is_not_offered(&asked) => {}
        Err(asked) => usage.billing_problem = Some(asked.problem()),
    }
    // Who asks is told where it can be; services that give no tokens cannot.
    if let Ok(identity) = identity {
        usage.user = Some(identity.email.unwrap_or(identity.user_urn));
        usage.organization = Some(identity.org_urn);
    }
    Ok(Json(usage))
}

fn of_project(project: ProjectRow) -> StorageRow {
    StorageRow {
        project_id: Some(project.project_id).filter(|id| !id.is_empty()),
        owner: None,
        checkpoints: project.checkpoints,
        bytes: project.storage_bytes,
        monthly_micros: None,
    }
}

fn is_not_offered(asked: &Asked) -> bool {
    matches!(asked, Asked::Service(error) if error.is_unsupported() || error.status() == Some(501))
}

fn stored(rows: Vec<CheckpointStorageUsage>) -> Vec<StorageRow> {
    let mut rows: Vec<StorageRow> = rows
        .into_iter()
        .map(|row| StorageRow {
            project_id: row.project_id.filter(|project| !project.is_empty()),
            owner: row.user_name.or(row.user_email).or(row.org_user_urn),
            checkpoints: row.checkpoint_count,
            bytes: row.size_bytes,
            monthly_micros: row.estimated_monthly_cost_usd.map(micros),
        })
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.bytes));
    rows
}

fn used(events: &[BillingUsageEvent], by: By) -> Vec<UsedRow> {
    let mut rows: BTreeMap<String, UsedRow> = BTreeMap::new();
    for event in events {
        let what = match by {
            By::Model => event.base_model.clone(),
            By::Session => event.session_id.clone(),
            By::Project => event.project_id.clone(),
            By::Day => event.bucket_start.to_string().split_once('T').map(|(day, _)| day.to_owned()),
        };
        let row = rows.entry(what.unwrap_or_default()).or_default();
        match &event.event_info {
            BillingEventInfo::Training { token_count } => row.training_tokens += token_count,
            BillingEventInfo::SamplingPrefill { token_count, .. } => row.prompt_tokens += token_count,
            BillingEventInfo::SamplingSample { token_count } => row.sampled_tokens += token_count,
            _ => {}
        }
        if let Some(cost) = event.estimated_cost_usd {
            row.cost_micros = Some(row.cost_micros.unwrap_or_default().saturating_add(micros(cost)));
        }
    }
    let mut rows: Vec<UsedRow> = rows.into_iter().map(|(what, row)| UsedRow { what, ..row }).collect();
    match by {
        By::Day => rows.sort_by(|a, b| b.what.cmp(&a.what)),
        _ => rows.sort_by_key(|row| std::cmp::Reverse((row.cost_micros, row.training_tokens))),
    }
    rows
}

/// US dollars in millionths. What is negative or no number counts as nothing.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // A cast from a float is held to the range.
fn micros(dollars: f64) -> u64 {
    (dollars * 1e6).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(hour: i64, model: &str, cost: Option<f64>, event_info: BillingEventInfo) -> BillingUsageEvent {
        BillingUsageEvent {
            bucket_start: Time::from_millis(hour * HOUR),
            bucket_end: Time::from_millis((hour + 1) * HOUR),
            base_model: Some(model.to_owned()),
            user_id: None,
            user_name: None,
            session_id: None,
            project_id: None,
            estimated_cost_usd: cost,
            effective_rate_usd_per_million_tokens: None,
            effective_rate_usd_per_gigabyte_month: None,
            event_info,
        }
    }

    #[test]
    fn hours_are_summed_up() {
        let events = [
            event(1, "a", Some(0.25), BillingEventInfo::Training { token_count: 5 }),
            event(2, "a", None, BillingEventInfo::SamplingSample { token_count: 7 }),
            event(25, "b", Some(1.5), BillingEventInfo::SamplingPrefill { cached: true, token_count: 9 }),
        ];
        let by_model = used(&events, By::Model);
        assert_eq!(by_model.iter().map(|row| row.what.as_str()).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(
            by_model[1],
            UsedRow {
                what: "a".into(),
                training_tokens: 5,
                sampled_tokens: 7,
                cost_micros: Some(250_000),
                ..UsedRow::default()
            }
        );
        let by_day: Vec<_> = used(&events, By::Day).into_iter().map(|row| row.what).collect();
        assert_eq!(by_day, ["1970-01-02", "1970-01-01"]);
        // What the service does not say is one row of its own.
        assert_eq!(used(&events, By::Session).len(), 1);
        assert_eq!(micros(-1.0), 0);
        assert_eq!(micros(f64::NAN), 0);
    }
}
