//! Sessions, what is in them, and the projects that they belong to.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::{StreamExt, stream};
use http::StatusCode;
use retinker::client::{Api, Error, ErrorKind};
use retinker::direction::isolated;
use retinker::host::api::{HostEvent, RunRow};
use retinker::host::sessions::{
    AssignProject, FinishSession, ProjectRow, Projects, SamplerRow, SamplerWindow, SamplersQuery,
    SessionDetail, SessionRow, SessionRun, SessionWindow, SessionsQuery,
};
use retinker::recovery::acts::{Act, acts};
use retinker::wire::session::{
    FinishReason, SearchOwner, SessionSearchRequest, SessionStatus, SessionStatusQuery, SessionSummary,
};

use super::Host;
use crate::acts::{noted, wholly};
use crate::host::{Asked, Shared};
use crate::problem::Problem;

/// What the activity says of a session that was finished, before how it ended.
const FINISH: &str = "Finish sessions: ";
/// Sessions in a list when the query does not say.
const DEFAULT_LIMIT: u64 = 50;
/// Most sessions in a list.
const MAX_LIMIT: u64 = 1000;
/// Sessions in one page of a search: the most that services give.
const PAGE: usize = 200;
/// Pages that are read to count what is in projects.
const PAGES: usize = 50;
/// Sessions that are asked about one by one, where there is no search, and samplers of one session.
const EACH: usize = 50;
/// Samplers in a list over several sessions.
const MOST_SAMPLERS: usize = 100;
/// Questions at once.
const AT_ONCE: usize = 8;
/// Runs of a session that a list names.
const NAMED: usize = 20;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/sessions", get(list))
        .route("/sessions/{session_id}", get(one))
        .route("/sessions/{session_id}/finish", post(finish))
        .route("/sessions/{session_id}/project", post(assign))
        .route("/samplers", get(samplers))
        .route("/projects", get(projects))
}

async fn list(
    State(host): Host,
    query: Result<Query<SessionsQuery>, QueryRejection>,
) -> Result<Json<SessionWindow>, Problem> {
    let Query(query) = query?;
    let limit = usize::try_from(query.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT)).unwrap_or(PAGE);
    let request = search_for(&query)?;
    let (rows, more, searchable) = match host.ask(search(&host.api, request, limit, PAGES)).await {
        Ok((found, more)) => (found.into_iter().map(row_of).collect(), more, true),
        Err(Asked::Service(error)) if error.is_unsupported() => {
            let (rows, more) = unsearched(&host, limit).await?;
            (rows, more, false)
        }
        Err(asked) => return Err(asked.into()),
    };
    Ok(Json(SessionWindow { rows: with_runs(&host, rows, NAMED), more, searchable }))
}

/// What to ask a search for.
fn search_for(query: &SessionsQuery) -> Result<SessionSearchRequest, Problem> {
    let (name, user_metadata) = query.wanted();
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let statuses =
        given(&query.status).map(|names| names.split(',').map(status_of).collect::<Result<_, _>>());
    Ok(SessionSearchRequest {
        // Alternatives. What cannot be an id is not sent as one, since a service may check their form.
        session_id: name
            .clone()
            .filter(|name| !name.contains(' ') && name.contains(|c: char| c.is_ascii_digit())),
        display_name: name,
        project_ids: given(&query.project).map(|project| vec![project]),
        user_metadata,
        owner: SearchOwner::Own,
        statuses: statuses.transpose()?,
        ..SessionSearchRequest::default()
    })
}

fn status_of(name: &str) -> Result<SessionStatusQuery, Problem> {
    match name {
        "active" => Ok(SessionStatusQuery::Active),
        "cancelled" => Ok(SessionStatusQuery::Cancelled),
        "failed" => Ok(SessionStatusQuery::Failed),
        "client_finished" => Ok(SessionStatusQuery::ClientFinished { reasons: None }),
        other => Err(Problem::bad_request(format!(
            "There is no status '{}': say active, failed, cancelled or client_finished.",
            other.chars().take(50).collect::<String>()
        ))),
    }
}

/// At most `limit` sessions that fit, and whether there are more.
async fn search(
    api: &Api,
    mut request: SessionSearchRequest,
    limit: usize,
    pages: usize,
) -> Result<(Vec<SessionSummary>, bool), Error> {
    let mut found: Vec<SessionSummary> = Vec::new();
    for _ in 0..pages {
        request.limit = Some(limit.saturating_sub(found.len()).clamp(1, PAGE));
        let page = api.search_sessions(&request).await?;
        found.extend(page.sessions);
        // One that gives the same page again has no more.
        let next = page.next_cursor.filter(|cursor| request.cursor.as_ref() != Some(cursor));
        let more = next.is_some() || found.len() > limit;
        if !more || found.len() >= limit {
            found.truncate(limit);
            return Ok((found, more));
        }
        request.cursor = next;
    }
    Ok((found, true))
}

/// Sessions of a service without a search: from its list, by id and name; where it has none either, from its runs.
async fn unsearched(host: &Shared, limit: usize) -> Result<(Vec<SessionRow>, bool), Problem> {
    let limit = limit.min(EACH);
    let Some(ids) = listed(host, limit).await? else {
        let index = host.index();
        let mut known: Vec<_> = index
            .runs_of(&[])
            .into_iter()
            .filter_map(|(id, runs)| Some((runs.first()?.run.last_request_time, id)))
            .collect();
        known.sort_by(|a, b| b.cmp(a));
        let more = known.len() > limit;
        let row = |(_, session_id)| SessionRow { session_id, ..SessionRow::default() };
        return Ok((known.into_iter().take(limit).map(row).collect(), more));
    };
    let more = ids.len() >= limit;
    let described = stream::iter(ids.into_iter().take(limit)).map(|session_id| async move {
        // A name more or less: a session that cannot be read now is listed by its id.
        let told = host.api.get_session(&session_id).await.unwrap_or_default();
        let (name, labels) = (told.display_name, told.user_metadata.unwrap_or_default());
        SessionRow { session_id, name, labels, ..SessionRow::default() }
    });
    let rows = host.ask(async { Ok(described.buffered(AT_ONCE).collect().await) }).await?;
    Ok((rows, more))
}

fn row_of(summary: SessionSummary) -> SessionRow {
    let mut row = SessionRow {
        session_id: summary.session_id,
        name: summary.display_name.filter(|name| !name.trim().is_empty()),
        owner: Some(summary.owner).filter(|owner| !owner.is_empty()),
        project_id: Some(summary.project_id).filter(|project| !project.is_empty()),
        created_at: Some(summary.created_at),
        checkpoints: Some(summary.checkpoints_count),
        storage_bytes: summary.checkpoint_storage_bytes,
        labels: summary.user_metadata.unwrap_or_default(),
        ..SessionRow::default()
    };
    let status = match summary.status {
        Some(SessionStatus::Active) => "active",
        Some(SessionStatus::Cancelled { detail }) => {
            row.message = detail;
            "cancelled"
        }
        Some(SessionStatus::ClientFinished { reason, detail }) => {
            (row.category, row.message) = (Some(reason.kind.to_string()), detail);
            "client_finished"
        }
        Some(SessionStatus::Failed { category, message, .. }) => {
            (row.category, row.message) = (Some(category.to_string()), Some(message));
            "failed"
        }
        _ => return row,
    };
    row.status = Some(status.to_owned());
    row
}

/// The same rows with the runs that the index knows, at most `named` of each.
fn with_runs(host: &Shared, mut rows: Vec<SessionRow>, named: usize) -> Vec<SessionRow> {
    let ids: Vec<String> = rows.iter().map(|row| row.session_id.clone()).collect();
    if ids.is_empty() {
        return rows;
    }
    let index = host.index();
    let mut all: HashMap<String, Vec<&RunRow>> = index.runs_of(&ids);
    for row in &mut rows {
        let runs = all.remove(&row.session_id).unwrap_or_default();
        row.run_count = runs.len() as u64;
        row.last_request = runs.first().map(|run| run.run.last_request_time);
        row.runs = runs.into_iter().take(named).map(known_run).collect();
    }
    rows
}

fn known_run(row: &RunRow) -> SessionRun {
    SessionRun {
        run_id: row.run.training_run_id.clone(),
        name: row.name.clone(),
        health: Some(row.verdict.health),
    }
}

async fn one(State(host): Host, Path(session_id): Path<String>) -> Result<Json<SessionDetail>, Problem> {
    detail(&host, &session_id).await.map(Json)
}

async fn detail(host: &Shared, session_id: &str) -> Result<SessionDetail, Problem> {
    let told =
        host.ask(host.api.get_session(session_id)).await.map_err(|asked| missing(host, asked, session_id))?;
    let request =
        SessionSearchRequest { session_id: Some(session_id.to_owned()), ..SessionSearchRequest::default() };
    let (found, searchable) = match host.ask(search(&host.api, request, 1, 1)).await {
        // A server may not know the filter.
        Ok((found, _)) => (found.into_iter().find(|summary| summary.session_id == session_id), true),
        Err(Asked::Service(error)) if error.is_unsupported() => (None, false),
        Err(asked) => return Err(asked.into()),
    };
    let mut row = match found {
        Some(summary) => row_of(summary),
        None => {
            let ended = ended_here(host, session_id).await?;
            SessionRow {
                session_id: session_id.to_owned(),
                name: told.display_name,
                labels: told.user_metadata.unwrap_or_default(),
                status: ended.is_some().then(|| "client_finished".to_owned()),
                category: ended,
                ..SessionRow::default()
            }
        }
    };
    let index_of = |run_id: String| match host.index().row(&run_id) {
        Some(known) => (Some(known.run.last_request_time), known_run(known)),
        None => (None, SessionRun { name: run_id.clone(), run_id, health: None }),
    };
    let runs: Vec<_> = told.training_run_ids.into_iter().map(index_of).collect();
    row.run_count = runs.len() as u64;
    row.last_request = runs.iter().filter_map(|(last, _)| *last).max();
    row.runs = runs.into_iter().map(|(_, run)| run).collect();
    let sampler_count = told.sampler_ids.len() as u64;
    let samplers = stream::iter(told.sampler_ids.into_iter().rev().take(EACH))
        .map(|sampler_id| described(host, sampler_id));
    Ok(SessionDetail {
        session: row,
        samplers: samplers.buffered(AT_ONCE).collect().await,
        sampler_count,
        has_projects: searchable,
        unread: false,
    })
}

/// How long somebody who has done something with a session is kept waiting to hear how it stands then.
const STANDS_WITHIN: Duration = Duration::from_secs(10);

/// How a session stands after something was done with it. That it cannot be read, or not soon, does not undo that.
async fn as_it_stands(host: &Shared, session_id: &str) -> SessionDetail {
    let told = tokio::time::timeout(STANDS_WITHIN, detail(host, session_id)).await;
    told.ok()
        .and_then(Result::ok)
        .unwrap_or_else(|| SessionDetail { unread: true, ..SessionDetail::default() })
}

/// What a sampler samples from. One that cannot be read is told as such.
async fn described(host: &Shared, sampler_id: String) -> SamplerRow {
    match crate::samplers::sampler(host, &sampler_id).await {
        Ok(sampler) => SamplerRow::from(sampler),
        Err(asked) => SamplerRow {
            sampler_id,
            session_id: None,
            base_model: None,
            model_path: None,
            problem: Some(asked.problem()),
        },
    }
}

async fn samplers(
    State(host): Host,
    query: Result<Query<SamplersQuery>, QueryRejection>,
) -> Result<Json<SamplerWindow>, Problem> {
    let Query(SamplersQuery { q }) = query?;
    let written = q.unwrap_or_default();
    let wanted = written.to_lowercase();
    let host = &*host;
    let Some(sessions) = newest(host).await? else { return Ok(Json(SamplerWindow::default())) };
    let looked_into = sessions.len() as u64;
    let told = stream::iter(sessions).map(|session_id| async move {
        let told = host.ask(host.api.get_session(&session_id)).await?;
        let of_session = told.sampler_ids.into_iter().rev().map(move |id| (session_id.clone(), id));
        Ok::<_, Problem>(of_session.collect::<Vec<_>>())
    });
    let told: Vec<Result<Vec<_>, Problem>> = told.buffered(AT_ONCE).collect().await;
    let mut all = Vec::new();
    for of_session in told {
        all.extend(of_session?);
    }
    // Those that the words are found in as they are come first: the others have to be asked about.
    let is_named = |(session, id): &(String, String)| {
        [session, id].iter().any(|text| text.to_lowercase().contains(&wanted))
    };
    all.sort_by_key(|one| !is_named(one));
    let unread = all.len().saturating_sub(MOST_SAMPLERS) as u64;
    let rows = stream::iter(all.into_iter().take(MOST_SAMPLERS)).map(|(session_id, id)| async move {
        SamplerRow { session_id: Some(session_id), ..described(host, id).await }
    });
    let mut rows: Vec<SamplerRow> = rows.buffered(AT_ONCE).collect().await;
    rows.retain(|row| {
        let texts = [
            Some(&row.sampler_id),
            row.session_id.as_ref(),
            row.base_model.as_ref(),
            row.model_path.as_ref(),
        ];
        texts.into_iter().flatten().any(|text| text.to_lowercase().contains(&wanted))
    });
    if rows.is_empty()
        && let Some(row) = by_id(host, written.trim()).await?
    {
        return Ok(Json(SamplerWindow { rows: vec![row], sessions: 0, unread: 0, offered: true }));
    }
    Ok(Json(SamplerWindow { rows, sessions: looked_into, unread, offered: true }))
}

/// The sampler whose id is looked for, of whatever session. No other text is asked for as an id, since a service may check their
/// form.
async fn by_id(host: &Shared, wanted: &str) -> Result<Option<SamplerRow>, Problem> {
    if wanted.contains(char::is_whitespace) || !wanted.contains(|c: char| c.is_ascii_digit()) {
        return Ok(None);
    }
    match host.ask(host.api.get_sampler(wanted)).await {
        Ok(sampler) => Ok(Some(SamplerRow::from(sampler))),
        Err(Asked::Service(error))
            if matches!(error.status(), Some(400..=499))
                || matches!(error.kind(), ErrorKind::Config { .. }) =>
        {
            Ok(None)
        }
        Err(asked) => Err(asked.into()),
    }
}

/// The newest sessions; `None` where the service tells of none.
async fn newest(host: &Shared) -> Result<Option<Vec<String>>, Problem> {
    match host.ask(search(&host.api, SessionSearchRequest::default(), EACH, 1)).await {
        Ok((found, _)) => return Ok(Some(found.into_iter().map(|session| session.session_id).collect())),
        Err(Asked::Service(error)) if error.is_unsupported() => {}
        Err(asked) => return Err(asked.into()),
    }
    listed(host, EACH).await
}

/// The ids of a service's list of sessions; `None` where it has none.
async fn listed(host: &Shared, limit: usize) -> Result<Option<Vec<String>>, Problem> {
    match host.ask(host.api.list_sessions(limit as u64, 0)).await {
        Ok(list) => Ok(Some(list.sessions)),
        Err(Asked::Service(error)) if error.is_unsupported() => Ok(None),
        Err(asked) => Err(asked.into()),
    }
}

/// How a session was finished from here, by what the activity knows of it.
async fn ended_here(host: &Shared, session_id: &str) -> Result<Option<String>, Problem> {
    let of_it = |act: &Act| {
        let reason = act.what.strip_prefix(FINISH)?;
        let is_done = act.ended_at.is_some() && act.problem.is_none();
        (is_done && act.subjects.iter().any(|id| id == session_id)).then(|| reason.to_owned())
    };
    // The first end counts.
    Ok(acts(&*host.store).await?.iter().rev().find_map(of_it))
}

fn missing(host: &Shared, asked: Asked, session_id: &str) -> Problem {
    match asked {
        // A service that says "not found" to everything says nothing of this session.
        Asked::Service(error) if error.is_not_found() => match host.index().problem() {
            Some(problem) => Problem { status: StatusCode::BAD_GATEWAY, problem: problem.clone() },
            None => Problem::session_not_found(session_id),
        },
        Asked::Service(error) if error.is_unsupported() => Problem::not_offered(
            "This service tells nothing of single sessions.",
            "Its runs are in the list of runs.",
        ),
        asked => asked.into(),
    }
}

async fn finish(
    State(host): Host,
    Path(session_id): Path<String>,
    request: Result<Json<FinishSession>, JsonRejection>,
) -> Result<Json<SessionDetail>, Problem> {
    let Json(FinishSession { reason }) = request?;
    let reason = match FinishReason::from(reason) {
        FinishReason::Other(_) => {
            return Err(Problem::bad_request(
                "A session ends by one of these reasons: success, errored, interrupted.",
            ));
        }
        known => known,
    };
    let what = format!("{FINISH}{reason}");
    let (asked, id) = (Arc::clone(&host), session_id.clone());
    let finishing = async move {
        let finish = asked.api.finish_session(&id, reason, Some("from retinker's console".to_owned()));
        asked.ask(finish).await.map_err(|error| match error {
            Asked::Service(error) if error.is_unsupported() => Problem::not_offered(
                "This service has no way to finish a session.",
                "A session ends by itself when its client goes silent.",
            ),
            error => missing(&asked, error, &id),
        })
    };
    noted(&host, what, vec![session_id.clone()], finishing, wholly).await?;
    // Its runs are in another state now.
    host.refresh.notify_one();
    Ok(Json(as_it_stands(&host, &session_id).await))
}

async fn assign(
    State(host): Host,
    Path(session_id): Path<String>,
    request: Result<Json<AssignProject>, JsonRejection>,
) -> Result<Json<SessionDetail>, Problem> {
    let Json(AssignProject { project_id }) = request?;
    let project_id = project_id.trim();
    if project_id.is_empty() {
        return Err(Problem::bad_request(
            "Name a project: a session can be moved to another, not out of all.",
        ));
    }
    let (asked, id, project) = (Arc::clone(&host), session_id.clone(), project_id.to_owned());
    let assigning = async move {
        asked.ask(asked.api.set_session_project(&id, &project)).await.map_err(|error| match error {
            Asked::Service(error) if error.is_unsupported() => {
                Problem::not_offered("This service has no projects.", "")
            }
            // A project that there is not is a 404 as well: the service's own words say which it is.
            Asked::Service(error) if matches!(error.status(), Some(400 | 403 | 404 | 422)) => {
                let message = error.detail().filter(|detail| !detail.is_empty()).map(str::to_owned);
                Problem::new(
                    StatusCode::BAD_REQUEST,
                    "project_refused",
                    message.unwrap_or_else(|| error.to_string()),
                    "Is the project's id right, and may this account use it?",
                )
            }
            error => error.into(),
        })
    };
    let what = format!("Move sessions to project {}", isolated(project_id));
    noted(&host, what, vec![session_id.clone()], assigning, wholly).await?;
    // No run has changed, but what every open page says of the session.
    host.tell(HostEvent::Runs { run_ids: Vec::new() });
    Ok(Json(as_it_stands(&host, &session_id).await))
}

async fn projects(State(host): Host) -> Result<Json<Projects>, Problem> {
    let (found, more) = match host.ask_all(all_sessions(&host.api)).await {
        Ok(found) => found,
        Err(Asked::Service(error)) if error.is_unsupported() => return Ok(Json(Projects::default())),
        Err(asked) => return Err(asked.into()),
    };
    Ok(Json(Projects { projects: counted(found), whole: !more, offered: true }))
}

/// As many sessions as are read to count what is in them, and whether there are more.
pub(super) async fn all_sessions(api: &Api) -> Result<(Vec<SessionSummary>, bool), Error> {
    search(api, SessionSearchRequest::default(), PAGE.saturating_mul(PAGES), PAGES).await
}

pub(super) fn counted(sessions: Vec<SessionSummary>) -> Vec<ProjectRow> {
    let mut projects: BTreeMap<String, ProjectRow> = BTreeMap::new();
    for session in sessions {
        let project = projects.entry(session.project_id.clone()).or_default();
        project.project_id = session.project_id;
        project.sessions += 1;
        project.active += u64::from(session.status == Some(SessionStatus::Active));
        project.failed += u64::from(matches!(session.status, Some(SessionStatus::Failed { .. })));
        project.checkpoints += session.checkpoints_count;
        let bytes = session.checkpoint_storage_bytes.unwrap_or_default();
        project.storage_bytes = project.storage_bytes.saturating_add(bytes);
    }
    let mut projects: Vec<ProjectRow> = projects.into_values().collect();
    projects.sort_by_key(|project| std::cmp::Reverse(project.sessions));
    projects
}
