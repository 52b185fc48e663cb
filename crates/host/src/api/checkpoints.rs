//! The calls about checkpoints across runs.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::{StreamExt, stream};
use http::StatusCode;
use retinker::client::{Error, SDK_VERSION};
use retinker::host::api::ApiProblem;
use retinker::host::checkpoint_query::{CheckpointFilter, QueryError, name_of};
use retinker::host::checkpoints::{
    CheckpointActions, CheckpointDo, CheckpointItem, CheckpointOutcome, CheckpointOutcomes, CheckpointPaths,
    CheckpointSort, CheckpointWindow, CheckpointsQuery, DeletePreview, DownloadState, MAX_ACTIONS, MAX_PATHS,
    RetentionRequest, StartDownload,
};
use retinker::recovery::retention::{Kept as Weighed, goes, run_of};
use retinker::wire::path::TinkerPath;
use retinker::wire::run::{Checkpoint, CheckpointType, TrainingRun};
use retinker::wire::session::{CreateSessionRequest, FinishReason};
use retinker::wire::time::Time;
use retinker::wire::weights::CopyWeightsRequest;

use super::Host;
use crate::acts::{noted, wholly};
use crate::checkpoints::{Kept, current, current_to_act, items};
use crate::going_back::stood_on;
use crate::host::{Asked, PATIENCE, Shared};
use crate::problem::Problem;

/// Rows in a window when the query does not say.
const DEFAULT_LIMIT: u64 = 100;
/// Most rows in a window.
const MAX_LIMIT: u64 = 1000;
/// Most bytes of a list of paths.
const MAX_BODY: usize = 8 << 20;
/// Questions that are put to the service at once.
const AT_ONCE: usize = 4;
/// How long it is waited for the price of storage.
const PRICE_PATIENCE: Duration = Duration::from_secs(3);

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/checkpoints", get(window))
        .route("/checkpoints/paths", get(paths))
        .route("/checkpoints/preview", post(preview))
        .route("/checkpoints/retention", post(retention))
        .route("/checkpoints/actions", post(actions))
        .route("/checkpoints/downloads", post(start_download))
        .route("/checkpoints/downloads/{id}", get(download))
        .route("/checkpoints/downloads/{id}/stop", post(stop_download))
        .layer(DefaultBodyLimit::max(MAX_BODY))
}

type Asking = Result<Query<CheckpointsQuery>, QueryRejection>;

async fn window(State(host): Host, query: Asking) -> Result<Json<CheckpointWindow>, Problem> {
    let Query(query) = query?;
    let (kept, now) = (current(&host).await, host.runtime.now());
    let all = items(&host, &kept.list, &[], now).await;
    let sizes = |items: &[CheckpointItem]| items.iter().filter_map(|item| item.checkpoint.size_bytes).sum();
    let (total, bytes_total) = (all.len() as u64, sizes(&all));
    let (found, counts) = find(&query, all, now)?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT);
    let (matching, bytes_matching) = (found.len() as u64, sizes(&found));
    let passed = usize::try_from(query.offset).unwrap_or(usize::MAX);
    let rows = found.into_iter().skip(passed).take(limit as usize).collect();
    let Kept { as_of, problem, .. } = kept;
    let window =
        CheckpointWindow { rows, matching, total, bytes_matching, bytes_total, counts, as_of, problem };
    Ok(Json(window))
}

async fn paths(State(host): Host, query: Asking) -> Result<Json<CheckpointPaths>, Problem> {
    let Query(query) = query?;
    let (kept, now) = (readable(current(&host).await)?, host.runtime.now());
    let (found, _) = find(&query, items(&host, &kept.list, &[], now).await, now)?;
    let matching = found.len() as u64;
    let paths = found.into_iter().take(MAX_PATHS).map(|item| item.checkpoint.tinker_path).collect();
    Ok(Json(CheckpointPaths { paths, matching }))
}

async fn preview(
    State(host): Host,
    request: Result<Json<CheckpointPaths>, JsonRejection>,
) -> Result<Json<DeletePreview>, Problem> {
    let Json(CheckpointPaths { paths, .. }) = request?;
    if paths.len() > MAX_PATHS {
        return Err(Problem::bad_request(format!(
            "At most {MAX_PATHS} checkpoints can be looked at at once."
        )));
    }
    let (kept, now) = (judgeable(&host).await?, host.runtime.now());
    let wanted: BTreeSet<&str> = paths.iter().map(String::as_str).collect();
    let there: BTreeSet<&str> = kept.list.iter().map(|one| one.tinker_path.as_str()).collect();
    let gone = wanted.iter().filter(|path| !there.contains(*path)).map(|path| (*path).to_owned()).collect();
    let mut all = items(&host, &kept.list, &[], now).await;
    all.retain(|item| wanted.contains(item.checkpoint.tinker_path.as_str()));
    Ok(Json(DeletePreview { gone, ..told(&host, kept.as_of, all).await }))
}

async fn retention(
    State(host): Host,
    request: Result<Json<RetentionRequest>, JsonRejection>,
) -> Result<Json<DeletePreview>, Problem> {
    let Json(RetentionRequest { query, rule }) = request?;
    let (kept, now) = (judgeable(&host).await?, host.runtime.now());
    let (mut found, _) = find(&query, items(&host, &kept.list, &[], now).await, now)?;
    let measures = match rule.best {
        Some(best) => super::measures::of(&host, &found, best as usize).await?,
        None => Default::default(),
    };
    let weighed: Vec<_> = found
        .iter()
        .enumerate()
        .map(|(at, item)| Weighed {
            run_id: &item.run_id,
            kind: &item.checkpoint.checkpoint_type,
            saved: (item.checkpoint.time, &item.checkpoint.tinker_path),
            measure: measures.of.get(at).copied().flatten(),
            needed: item.needed_because.is_some(),
        })
        .collect();
    let go = goes(&rule, &weighed);
    drop(weighed);
    let kept_by_rule =
        found.iter().zip(&go).filter(|(item, go)| !**go && item.needed_because.is_none()).count() as u64;
    // What is needed is told too: that the rule would keep it anyway is nothing to go by.
    let mut go = go.into_iter();
    found.retain(|item| go.next() == Some(true) || item.needed_because.is_some());
    // More than can be deleted in one go are left for the next time, the oldest first.
    found.sort_by_key(|item| (item.needed_because.is_some(), item.checkpoint.time));
    let goes = found.iter().filter(|item| item.needed_because.is_none()).count();
    let more = goes.saturating_sub(MAX_PATHS) as u64;
    found.truncate(MAX_PATHS);
    let told = told(&host, kept.as_of, found).await;
    let (unmeasured, unasked) = (measures.unknown, measures.unasked);
    Ok(Json(DeletePreview { kept: kept_by_rule, unmeasured, unasked, more, ..told }))
}

/// A preview of these.
async fn told(host: &Shared, as_of: Option<Time>, mut all: Vec<CheckpointItem>) -> DeletePreview {
    all.sort_by_key(|item| item.checkpoint.time);
    let (needed, goes): (Vec<_>, Vec<_>) = all.into_iter().partition(|item| item.needed_because.is_some());
    DeletePreview {
        bytes: goes.iter().filter_map(|item| item.checkpoint.size_bytes).sum(),
        usd_per_gigabyte_month: price(host).await,
        goes,
        needed,
        as_of,
        ..DeletePreview::default()
    }
}

/// What a gigabyte costs in a month, where the service says so; that it does not is no failure.
async fn price(host: &Shared) -> Option<f64> {
    let asked = host.api.checkpoint_storage_usage(None);
    let usage = tokio::time::timeout(PRICE_PATIENCE, asked).await.ok()?.ok()?;
    usage.effective_rate_usd_per_gigabyte_month.filter(|rate| rate.is_finite() && *rate > 0.0)
}

/// The list, if there is one; old where it cannot be read again.
fn readable(kept: Kept) -> Result<Kept, Problem> {
    match (&kept.as_of, &kept.problem) {
        (Some(_), _) => Ok(kept),
        (None, Some(problem)) => Err(unreadable(problem.clone())),
        (None, None) => Err(Problem::from(Asked::Slow(PATIENCE))),
    }
}

/// The list, if what needs its checkpoints can be told: nothing is deleted by an old list, or while the runs are unknown.
async fn judgeable(host: &Arc<Shared>) -> Result<Kept, Problem> {
    let kept = readable(current_to_act(host).await)?;
    may_judge(host, &kept)?;
    Ok(kept)
}

/// The same of a list that was read.
fn may_judge(host: &Shared, kept: &Kept) -> Result<(), Problem> {
    if let Some(problem) = &kept.problem {
        return Err(unreadable(problem.clone()));
    }
    if host.index().as_of().is_none() {
        let message =
            "The runs have not been read yet, so it is not known which of them need their checkpoints.";
        return Err(Problem::new(StatusCode::BAD_GATEWAY, "runs_unread", message, "Try again in a moment."));
    }
    Ok(())
}

fn unreadable(problem: ApiProblem) -> Problem {
    Problem { status: StatusCode::BAD_GATEWAY, problem }
}

/// Those that a query asks for, in its order, and how many of each type match its text.
fn find(
    query: &CheckpointsQuery,
    mut all: Vec<CheckpointItem>,
    now: Time,
) -> Result<(Vec<CheckpointItem>, [u64; 4]), Problem> {
    let filter =
        CheckpointFilter::parse(query.q.as_deref().unwrap_or_default()).map_err(|e| bad_query(&e))?;
    all.retain(|item| filter.matches(item, now));
    let mut counts = [0; 4];
    for item in &all {
        let [training, sampler, external, others] = &mut counts;
        *match item.checkpoint.checkpoint_type {
            CheckpointType::Training => training,
            CheckpointType::Sampler => sampler,
            CheckpointType::External => external,
            _ => others,
        } += 1;
    }
    if let Some(kind) = &query.kind {
        all.retain(|item| item.checkpoint.checkpoint_type == *kind);
    }
    let descends = query.desc.unwrap_or(query.sort.is_descending());
    all.sort_by(|a, b| {
        let order = compare(query.sort, a, b);
        let order = if descends { order.reverse() } else { order };
        order.then_with(|| a.checkpoint.tinker_path.cmp(&b.checkpoint.tinker_path))
    });
    Ok((all, counts))
}

fn compare(sort: CheckpointSort, a: &CheckpointItem, b: &CheckpointItem) -> Ordering {
    let (one, other) = (&a.checkpoint, &b.checkpoint);
    let never = |checkpoint: &Checkpoint| checkpoint.expires_at.map_or(i64::MAX, Time::as_millis);
    match sort {
        CheckpointSort::Saved => one.time.cmp(&other.time),
        CheckpointSort::Expires => never(one).cmp(&never(other)),
        CheckpointSort::Size => one.size_bytes.cmp(&other.size_bytes),
        CheckpointSort::Name => name_of(&one.checkpoint_id).cmp(name_of(&other.checkpoint_id)),
        CheckpointSort::Run => (&a.run_name, &a.run_id, one.time).cmp(&(&b.run_name, &b.run_id, other.time)),
    }
}

fn bad_query(error: &QueryError) -> Problem {
    let hint = "Words are looked for as they are; type:sampler, age>7d, size>1GB, expires<2d or public:yes compare a field.";
    Problem::new(StatusCode::BAD_REQUEST, "bad_query", format!("{error}."), hint)
}

async fn actions(
    State(host): Host,
    request: Result<Json<CheckpointActions>, JsonRejection>,
) -> Result<Json<CheckpointOutcomes>, Problem> {
    let Json(actions) = request?;
    let Some(wanted) = Wanted::all(&actions) else {
        return Err(Problem::bad_request(format!(
            "At most {MAX_ACTIONS} checkpoints can be changed at once; a life needs ttl_seconds, and what is put back an \
             expiry for each."
        )));
    };
    let (what, subjects) = (in_words(&actions), actions.paths.clone());
    let asked = Arc::clone(&host);
    let doing = async move { act(&asked, &actions.paths, wanted, actions.force).await };
    let outcomes = noted(&host, what, subjects, doing, |outcomes| left(outcomes)).await?;
    Ok(Json(CheckpointOutcomes { outcomes }))
}

/// What is asked for, as an order.
fn in_words(actions: &CheckpointActions) -> String {
    let life = span(actions.ttl_seconds.unwrap_or_default());
    match actions.action {
        CheckpointDo::Publish => "Publish checkpoints".to_owned(),
        CheckpointDo::Unpublish => "Make checkpoints private".to_owned(),
        CheckpointDo::Live => format!("Let checkpoints live for {life} from now"),
        CheckpointDo::Extend => format!("Let checkpoints live {life} longer"),
        CheckpointDo::Keep => "Keep checkpoints for ever".to_owned(),
        CheckpointDo::PutBack => "Give checkpoints their former life back".to_owned(),
        CheckpointDo::Copy => "Copy checkpoints".to_owned(),
        CheckpointDo::Delete if actions.force => "Delete checkpoints, needed or not".to_owned(),
        CheckpointDo::Delete => "Delete checkpoints".to_owned(),
    }
}

fn span(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7_200 => (seconds / 60, "minute"),
        7_200..172_800 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// What was not done of it.
fn left(outcomes: &[CheckpointOutcome]) -> Option<String> {
    let mut failed = outcomes.iter().filter(|one| !one.done);
    let first = failed.next()?;
    Some(match (failed.count(), outcomes.len()) {
        (0, 1) => first.message.clone(),
        (others, all) => format!("{} of {all} were not: {}", others + 1, first.message),
    })
}

/// What is to become of one checkpoint.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    Public(bool),
    Live(u64),
    Extend(u64),
    Expiry(Option<Time>),
    /// As the run of this number in the session of the copies.
    Copied(u64),
    Deleted,
}

impl Wanted {
    /// What is asked for of each path; `None`: it makes no sense.
    fn all(actions: &CheckpointActions) -> Option<Vec<Self>> {
        let count = actions.paths.len();
        let same = |wanted: Self| Some(vec![wanted; count]);
        let seconds = actions.ttl_seconds.filter(|seconds| *seconds > 0);
        if count > MAX_ACTIONS {
            return None;
        }
        match actions.action {
            CheckpointDo::Publish => same(Self::Public(true)),
            CheckpointDo::Unpublish => same(Self::Public(false)),
            CheckpointDo::Live => same(Self::Live(seconds?)),
            CheckpointDo::Extend => same(Self::Extend(seconds?)),
            CheckpointDo::Keep => same(Self::Expiry(None)),
            CheckpointDo::PutBack if actions.expires_at.len() == count => {
                Some(actions.expires_at.iter().map(|at| Self::Expiry(*at)).collect())
            }
            CheckpointDo::PutBack => None,
            CheckpointDo::Copy => Some((0..count as u64).map(Self::Copied).collect()),
            CheckpointDo::Delete => same(Self::Deleted),
        }
    }
}

async fn act(
    host: &Arc<Shared>,
    paths: &[String],
    wanted: Vec<Wanted>,
    force: bool,
) -> Result<Vec<CheckpointOutcome>, Problem> {
    let now = host.runtime.now();
    let kept = readable(current_to_act(host).await)?;
    // A life that ends sooner is a deletion, only later.
    let takes = |(path, wanted): (&String, &Wanted)| match wanted {
        Wanted::Deleted => true,
        Wanted::Live(seconds) => kept
            .get(path)
            .is_some_and(|one| one.expires_at.is_none_or(|at| at > now.later(Duration::from_secs(*seconds)))),
        _ => false,
    };
    let taken: BTreeSet<&String> =
        paths.iter().zip(&wanted).filter(|one| takes(*one)).map(|(path, _)| path).collect();
    if !taken.is_empty() {
        may_judge(host, &kept)?;
    }
    let needed = if !taken.is_empty() && !force {
        // Whether a run is poisoned, and what such a run has, is asked anew: it may have changed since the lists were read.
        let fresh = read_runs(host, paths).await?;
        let mut list = kept.list.to_vec();
        for run in fresh.iter().filter(|run| run.corrupted == Some(true)) {
            let id = run.training_run_id.as_str();
            let own = host.ask(host.api.run_checkpoints(id)).await?.checkpoints;
            list.retain(|one| run_of(&one.tinker_path) != Some(id));
            list.extend(own);
        }
        let stood_on = stood_on(host, Duration::ZERO).await;
        host.index().needed(&list, &fresh, &stood_on, now)
    } else {
        Default::default()
    };
    let copies = match wanted.first() {
        Some(Wanted::Copied(_)) => Some(session_of_copies(host, paths.len()).await?),
        _ => None,
    };
    let over = std::sync::atomic::AtomicBool::new(false);
    let each = paths.iter().zip(wanted).map(|(path, wanted)| {
        let (kept, needed, taken) = (&kept, &needed, &taken);
        let (over, copies) = (&over, copies.as_deref());
        async move {
            if let Some(because) = needed.get(path).filter(|_| taken.contains(path)) {
                return failed(path, "needed", because.clone());
            }
            // What is told of one that does not answer is told of all.
            if over.load(std::sync::atomic::Ordering::Relaxed) {
                return failed(
                    path,
                    "not_tried",
                    "It was not tried, since the service did not answer.".to_owned(),
                );
            }
            match one(host, path, kept.get(path), wanted, copies, now).await {
                Ok(outcome) => outcome,
                Err(asked) => {
                    let problem = asked.problem();
                    let away = ["service_unreachable", "service_slow", "service_unauthorized"];
                    if away.contains(&problem.code.as_str()) {
                        over.store(true, std::sync::atomic::Ordering::Relaxed);
                    }
                    failed(
                        path,
                        &problem.code,
                        format!("{} {}", problem.message, problem.hint).trim().to_owned(),
                    )
                }
            }
        }
    });
    // Collected first: a stream that is lazy over borrowed closures cannot be sent between threads.
    let each: Vec<_> = each.collect();
    let outcomes: Vec<CheckpointOutcome> = stream::iter(each).buffered(AT_ONCE).collect().await;
    if let Some(session_id) = copies {
        end_of_copies(host, &session_id).await;
    }
    let changed: BTreeSet<&str> =
        outcomes.iter().filter(|one| one.done).filter_map(|one| run_of(&one.path)).collect();
    host.tell_changed(changed.into_iter().map(str::to_owned).collect());
    Ok(outcomes)
}

/// A session for runs that only hold copies.
async fn session_of_copies(host: &Shared, count: usize) -> Result<String, Problem> {
    let name =
        if count == 1 { "copy of a checkpoint".to_owned() } else { format!("copies of {count} checkpoints") };
    let request = CreateSessionRequest {
        sdk_version: SDK_VERSION.to_owned(),
        display_name: Some(name),
        ..CreateSessionRequest::default()
    };
    Ok(host.ask(host.api.create_session(&request)).await?.session_id)
}

/// The copies outlive their session. One that cannot be finished ends by itself.
async fn end_of_copies(host: &Shared, session_id: &str) {
    if let Err(asked) = host.ask(host.api.finish_session(session_id, FinishReason::Success, None)).await {
        tracing::debug!(session = %session_id, "the session of copies ends by itself: {}", asked.problem().message);
    }
    // There are runs that no list has yet, and checkpoints of theirs.
    host.checkpoints.outdate();
    host.refresh.notify_one();
}

fn failed(path: &str, code: &str, message: String) -> CheckpointOutcome {
    CheckpointOutcome {
        path: path.to_owned(),
        done: false,
        changed: false,
        message,
        former_expires_at: None,
        code: code.to_owned(),
    }
}

/// The runs of these checkpoints as they are now. One that is gone needs nothing.
async fn read_runs(host: &Shared, paths: &[String]) -> Result<Vec<TrainingRun>, Problem> {
    let ids: BTreeSet<&str> = paths.iter().filter_map(|path| run_of(path)).collect();
    let each: Vec<_> = ids.into_iter().map(|id| host.ask(host.api.training_run(id))).collect();
    let answers: Vec<Result<TrainingRun, Asked>> = stream::iter(each).buffered(AT_ONCE).collect().await;
    let mut runs = Vec::new();
    for answer in answers {
        match answer {
            Ok(run) => runs.push(run),
            Err(Asked::Service(error)) if error.is_not_found() => {}
            Err(asked) => return Err(Problem::from(asked)),
        }
    }
    Ok(runs)
}

async fn one(
    host: &Shared,
    path: &str,
    known: Option<&Checkpoint>,
    wanted: Wanted,
    copies: Option<&str>,
    now: Time,
) -> Result<CheckpointOutcome, Asked> {
    let Ok(parsed) = path.parse::<TinkerPath>() else {
        return Ok(failed(path, "bad_path", "Its path is not one that checkpoints have.".to_owned()));
    };
    let (run_id, id) = (parsed.training_run_id.as_str(), parsed.checkpoint_id());
    let (_turn, now_known) = match wanted {
        Wanted::Extend(_) => {
            let turn = host.checkpoints.extending.lock().await;
            (Some(turn), host.checkpoints.kept().get(path).cloned())
        }
        _ => (None, None),
    };
    let known = now_known.as_ref().or(known);
    let former = known.and_then(|known| known.expires_at);
    let done = |changed: bool, message: &str| CheckpointOutcome {
        path: path.to_owned(),
        done: true,
        changed,
        message: message.to_owned(),
        former_expires_at: former.filter(|_| changed),
        code: String::new(),
    };
    let edit = |change: &dyn Fn(&mut Checkpoint)| {
        host.checkpoints.edit(|list| list.iter_mut().filter(|one| one.tinker_path == path).for_each(change));
    };
    match wanted {
        Wanted::Public(public) => {
            let already = if public { "It was public already." } else { "It was not public." };
            // The list may be older than what somebody else has done, and not every service says 409 where it was so already.
            if known.is_some_and(|known| known.public == public) {
                let now = host.ask(host.api.run_checkpoints(run_id)).await?;
                if now.checkpoints.iter().any(|one| one.tinker_path == path && one.public == public) {
                    return Ok(done(false, already));
                }
            }
            match host.ask(host.api.set_checkpoint_public(run_id, &id, public)).await {
                Ok(()) => {}
                Err(Asked::Service(error)) if error.status() == Some(409) => return Ok(done(false, already)),
                Err(asked) => return Err(asked),
            }
            edit(&|one| one.public = public);
            Ok(done(true, if public { "It is public now." } else { "It is not public any more." }))
        }
        Wanted::Copied(number) => {
            let request = CopyWeightsRequest {
                source_path: path.to_owned(),
                session_id: copies.map(str::to_owned),
                model_seq_id: Some(number),
                destination_project_id: None,
                ttl_seconds: None,
            };
            let copy = host.ask(host.api.copy_weights(&request, None)).await?.tinker_path;
            Ok(done(true, &format!("Copied to {copy}.")))
        }
        Wanted::Deleted => {
            let gone = match host.ask(host.api.delete_checkpoint(run_id, &id)).await {
                Ok(()) => false,
                Err(Asked::Service(error)) if is_gone(&error) => {
                    host.is_itself().await?;
                    true
                }
                Err(asked) => return Err(asked),
            };
            host.checkpoints.edit(|list| list.retain(|one| one.tinker_path != path));
            Ok(done(!gone, if gone { "It was gone already." } else { "It is deleted." }))
        }
        Wanted::Live(_) | Wanted::Extend(_) | Wanted::Expiry(_) => {
            // Without what it was before, nothing could be taken back.
            if known.is_none() {
                let message = "The service does not list it, or not any more.".to_owned();
                return Ok(failed(path, "not_listed", message));
            }
            let left = |at: Time| u64::try_from(at.as_millis().saturating_sub(now.as_millis()).max(0) / 1000);
            let ttl = match (wanted, former) {
                (Wanted::Extend(_), None) => return Ok(done(false, "It never expires.")),
                (Wanted::Expiry(at), former) if at == former => {
                    return Ok(done(false, "It expired then already."));
                }
                (Wanted::Live(seconds), _) => Some(seconds),
                (Wanted::Extend(seconds), Some(at)) => Some(left(at).unwrap_or(0).saturating_add(seconds)),
                (Wanted::Expiry(Some(at)), _) => match left(at) {
                    Ok(seconds) if seconds > 0 => Some(seconds),
                    _ => {
                        let message = "The time at which it expired before is over; it lives as it does now.";
                        return Ok(failed(path, "time_is_over", message.to_owned()));
                    }
                },
                _ => None,
            };
            host.ask(host.api.set_checkpoint_ttl(run_id, &id, ttl)).await?;
            let until = ttl.map(|seconds| now.later(Duration::from_secs(seconds)));
            edit(&|one| one.expires_at = until);
            Ok(done(true, if ttl.is_some() { "Its expiry is changed." } else { "It never expires now." }))
        }
    }
}

/// A checkpoint that is not there is deleted: by an attempt that broke off, by somebody else, or by time.
fn is_gone(error: &Error) -> bool {
    error.is_not_found() || error.status() == Some(410)
}

async fn start_download(
    State(host): Host,
    request: Result<Json<StartDownload>, JsonRejection>,
) -> Result<Json<DownloadState>, Problem> {
    let Json(StartDownload { path }) = request?;
    let parsed: TinkerPath = path.parse().map_err(|error| Problem::bad_request(format!("{error}.")))?;
    let id = parsed.checkpoint_id();
    let asked = host.api.checkpoint_archive_address(&parsed.training_run_id, &id);
    let address = match host.ask(asked).await {
        Ok(address) => address,
        Err(Asked::Service(error)) if error.is_unsupported() => {
            let message = format!("This service offers no archive of {path}.");
            return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, "not_offered", message, ""));
        }
        Err(asked) => return Err(Problem::from(asked)),
    };
    let about = host.checkpoints.kept().get(&path).and_then(|known| known.size_bytes);
    let (asked, subjects) = (Arc::clone(&host), vec![path.clone()]);
    let preparing = async move { asked.downloads.prepare(asked.api.clone(), path, address, about) };
    noted(&host, "Download checkpoints".to_owned(), subjects, preparing, wholly).await.map(Json)
}

async fn download(State(host): Host, Path(id): Path<String>) -> Result<Json<DownloadState>, Problem> {
    host.downloads.state(&id).map(Json).ok_or_else(no_download)
}

async fn stop_download(State(host): Host, Path(id): Path<String>) -> Result<Json<DownloadState>, Problem> {
    host.downloads.stop(&id).map(Json).ok_or_else(no_download)
}

fn no_download() -> Problem {
    let message = "The host knows no such download, or not any more.";
    Problem::new(StatusCode::NOT_FOUND, "download_not_found", message, "Ask for the checkpoint again.")
}
