//! What the page of one run is told beside the run itself: its curves, and what its verdict rests on.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use futures_util::StreamExt;
use futures_util::stream;
use retinker::client::Error;
use retinker::host::run::{Evidence, MetricsQuery, RunEvidence, RunMetrics, RunSampler, RunSession};
use retinker::recovery::findings::Finding;
use retinker::recovery::health::session_of_run;
use retinker::recovery::reports::Report;
use retinker::wire::run::TrainingRun;
use retinker::wire::series::{RunStory, Series};
use retinker::wire::session::{SessionSearchRequest, SessionStatus, SessionSummary};
use retinker::wire::time::Time;

use super::{Host, read_run};
use crate::host::{Asked, Shared};
use crate::problem::Problem;

/// Most points of a curve at once, and as many as are given when nothing is said: what the service gives at most.
const MOST_POINTS: u64 = 10_000;
/// Samplers of a session that are looked at, and how many at once.
const MOST_SAMPLERS: usize = 10;
const AT_ONCE: usize = 5;

pub(super) async fn metrics(
    State(host): Host,
    Path(run_id): Path<String>,
    query: Result<Query<MetricsQuery>, QueryRejection>,
) -> Result<Json<RunMetrics>, Problem> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(MOST_POINTS).clamp(1, MOST_POINTS);
    let asked = offered(&host, host.api.run_series(&run_id, query.after, limit)).await;
    match asked {
        Ok(Some(series)) => Ok(Json(columns(series))),
        Ok(None) => Ok(Json(RunMetrics::default())),
        Err(Asked::Service(error)) if error.is_not_found() => Err(Problem::run_not_found(&run_id)),
        Err(asked) => Err(Problem::from(asked)),
    }
}

/// The answer to a question that not every service understands; `None`: this one does not.
async fn offered<T>(
    host: &Shared,
    question: impl Future<Output = Result<T, Error>>,
) -> Result<Option<T>, Asked> {
    match host.ask(question).await {
        Ok(answer) => Ok(Some(answer)),
        Err(Asked::Service(error)) if error.is_unsupported() => Ok(None),
        Err(asked) => Err(asked),
    }
}

fn columns(series: Series) -> RunMetrics {
    let mut columns = RunMetrics { offered: true, next_after: series.next_after, ..RunMetrics::default() };
    for point in series.points {
        columns.steps.push(point.step);
        columns.times.push(point.time.as_millis());
        columns.loss.push(point.loss);
        columns.loss_per_token.push(point.loss_per_token);
        columns.grad_norm.push(point.grad_norm);
        columns.learning_rate.push(Some(point.learning_rate));
    }
    columns
}

pub(super) async fn evidence(
    State(host): Host,
    Path(run_id): Path<String>,
) -> Result<Json<RunEvidence>, Problem> {
    let (run, story, session) = tokio::join!(
        read_run(&host, &run_id),
        offered(&host, host.api.run_story(&run_id)),
        session(&host, session_of_run(&run_id)),
    );
    let run = run?;
    let redo_log = host.redo_logs.of(&run).await.is_some();
    let (session, session_problem) = session;
    let (story, story_problem) = match story {
        Ok(story) => (story, None),
        Err(asked) => (None, Some(asked.problem())),
    };
    let known = {
        let index = host.index();
        Known {
            story,
            finding: index.finding(&run_id).cloned(),
            report: index.report(&run_id).cloned(),
            session,
        }
    };
    Ok(Json(RunEvidence {
        entries: known.entries(&run),
        created_at: known.story.as_ref().map(|story| story.created_at),
        session: known.session,
        redo_log,
        problem: session_problem.or(story_problem),
    }))
}

/// What a service tells of a session, as far as it could be read, and why the rest could not.
async fn session(
    host: &Shared,
    session_id: Option<&str>,
) -> (Option<RunSession>, Option<retinker::host::api::ApiProblem>) {
    let Some(session_id) = session_id else { return (None, None) };
    let request =
        SessionSearchRequest { session_id: Some(session_id.to_owned()), ..SessionSearchRequest::default() };
    let (found, members) = tokio::join!(
        offered(host, host.api.search_sessions(&request)),
        offered(host, host.api.get_session(session_id)),
    );
    let mut told = RunSession { session_id: session_id.to_owned(), ..RunSession::default() };
    let mut problem = None;
    match found {
        // A server may not know the filter.
        Ok(Some(found)) => {
            if let Some(summary) = found.sessions.into_iter().find(|found| found.session_id == session_id) {
                summarised(&mut told, summary);
            }
        }
        Ok(None) => {}
        Err(asked) => problem = Some(asked.problem()),
    }
    match members {
        Ok(Some(members)) => {
            told.runs = Some(members.training_run_ids.len() as u64);
            told.samplers = Some(members.sampler_ids.len() as u64);
            // Numbered as they were made.
            let newest = members.sampler_ids.into_iter().rev().take(MOST_SAMPLERS);
            told.newest_samplers =
                stream::iter(newest).map(|id| sampler(host, id)).buffered(AT_ONCE).collect().await;
        }
        // A session that the service does not know any more is no failure.
        Ok(None) => {}
        Err(Asked::Service(error)) if error.is_not_found() => {}
        Err(asked) => problem = Some(asked.problem()),
    }
    (Some(told), problem)
}

/// A sampler; what it samples from is left out where that cannot be read.
async fn sampler(host: &Shared, sampler_id: String) -> RunSampler {
    let told = crate::samplers::sampler(host, &sampler_id).await;
    RunSampler { sampler_id, model_path: told.ok().and_then(|told| told.model_path) }
}

fn summarised(told: &mut RunSession, summary: SessionSummary) {
    told.name = summary.display_name.filter(|name| !name.is_empty());
    told.project_id = Some(summary.project_id).filter(|id| !id.is_empty());
    told.created_at = Some(summary.created_at);
    let (status, category, message) = match summary.status {
        Some(SessionStatus::Active) => ("active", None, None),
        Some(SessionStatus::Cancelled { detail }) => ("cancelled", None, detail),
        Some(SessionStatus::ClientFinished { reason, detail }) => {
            ("client_finished", Some(reason.kind.to_string()), detail)
        }
        Some(SessionStatus::Failed { category, message, .. }) => {
            ("failed", Some(category.to_string()), Some(message))
        }
        _ => ("", None, None),
    };
    (told.status, told.category, told.message) =
        (status.to_owned(), category, message.filter(|message| !message.is_empty()));
}

/// What is known of a run from each side.
struct Known {
    story: Option<RunStory>,
    finding: Option<Finding>,
    report: Option<Report>,
    session: Option<RunSession>,
}

impl Known {
    /// A sentence for each thing, oldest first; those without a time last.
    fn entries(&self, run: &TrainingRun) -> Vec<Evidence> {
        let mut entries = vec![entry(
            "asked",
            "service",
            Some(run.last_request_time),
            "The run was last asked for something.".to_owned(),
        )];
        let origin = self.story.as_ref().and_then(|story| story.origin_path.as_deref());
        if let Some(story) = &self.story {
            let text = match origin {
                Some(origin) => format!("The run was made, from {origin}."),
                None => "The run was made.".to_owned(),
            };
            entries.push(entry("made", "service", Some(story.created_at), text));
            // What a lost run had not saved is not there any more.
            if let Some(unsaved) = story.unsaved.as_ref().filter(|_| run.corrupted != Some(true)) {
                let count = match unsaved.requests {
                    0 => "Work".to_owned(),
                    1 => "The work of 1 request".to_owned(),
                    count => format!("The work of {count} requests"),
                };
                let text = format!("{count} since then is in the service's memory only.");
                entries.push(entry("unsaved", "service", Some(unsaved.since), text));
            }
        }
        if run.corrupted == Some(true) {
            let story = self.story.as_ref().and_then(|story| story.corruption.as_ref());
            let reason = story.map(|story| story.reason.as_str()).or(run.corrupted_reason.as_deref());
            let text = match reason.map(trimmed).filter(|reason| !reason.is_empty()) {
                Some(reason) => format!("The service lost the run's state: {reason}."),
                None => "The service says that a failure corrupted this run, and not which.".to_owned(),
            };
            entries.push(entry("lost", "service", story.and_then(|story| story.since), text));
        }
        if let Some(report) = &self.report {
            let text = format!("The program that trains the run told: {}", report.symptom.sentence());
            entries.push(entry("reported", "program", Some(report.at), text));
        }
        if let Some(finding) = &self.finding {
            let what = if finding.stalled { "to be stalled" } else { "to be lost" };
            let text = format!("The run was first seen {what}.");
            entries.push(entry("found", "monitor", Some(finding.noted.unwrap_or(finding.since)), text));
            if let Some(because) = &finding.given_up {
                let text = format!("It is not restored by itself any more: {because}");
                entries.push(entry("given_up", "monitor", finding.given_up_at, text));
            }
        }
        entries.extend(self.session.as_ref().and_then(session_end));
        entries.sort_by_key(|entry| (entry.at.is_none(), entry.at));
        entries
    }
}

/// How the session ended; `None` if it lasts, or if that is not known. No service tells when.
fn session_end(session: &RunSession) -> Option<Evidence> {
    let said = session.message.as_deref().map(trimmed).filter(|said| !said.is_empty());
    let said = said.map_or_else(String::new, |said| format!(": {said}"));
    let category = session.category.as_deref().unwrap_or_default();
    let text = match session.status.as_str() {
        "cancelled" => format!("The run's session was ended from outside, or its program went silent{said}."),
        "client_finished" => format!("The run's program finished the session ({category}){said}."),
        "failed" if category == "user" => {
            format!("The run's session failed, and the service says that a request was at fault{said}.")
        }
        "failed" if category == "internal" => {
            format!("The run's session failed, and the service says that it was its own fault{said}.")
        }
        "failed" => format!("The run's session failed ({category}){said}."),
        _ => return None,
    };
    Some(entry("session", "service", None, text))
}

fn trimmed(text: &str) -> &str {
    text.trim().trim_end_matches('.')
}

fn entry(kind: &str, by: &str, at: Option<Time>, text: String) -> Evidence {
    Evidence { kind: kind.to_owned(), by: by.to_owned(), at, text }
}

#[cfg(test)]
mod tests {
    use retinker::recovery::evidence::Symptom;
    use retinker::wire::series::{Corruption, UnsavedWork};

    use super::*;

    fn run(corrupted: bool) -> TrainingRun {
        serde_json::from_value(serde_json::json!({
            "training_run_id": "s:train:0", "base_model": "m", "model_owner": "me", "is_lora": true,
            "corrupted": corrupted, "last_request_time": "1970-01-01T00:00:05Z",
        }))
        .unwrap()
    }

    fn nothing() -> Known {
        Known { story: None, finding: None, report: None, session: None }
    }

    fn told(known: &Known, corrupted: bool) -> Vec<(String, Option<i64>, String)> {
        let entries = known.entries(&run(corrupted)).into_iter();
        entries.map(|entry| (entry.kind, entry.at.map(Time::as_millis), entry.text)).collect()
    }

    #[test]
    fn little_is_told_where_little_is_known() {
        let asked = ("asked".to_owned(), Some(5000), "The run was last asked for something.".to_owned());
        assert_eq!(told(&nothing(), false), std::slice::from_ref(&asked));
        let lost = told(&nothing(), true);
        assert_eq!((&lost[0], lost[1].1), (&asked, None));
        assert!(lost[1].2.contains("and not which"), "{lost:?}");
    }

    #[test]
    fn everything_is_told_in_the_order_in_which_it_happened() {
        let mut known = nothing();
        known.story = Some(RunStory {
            created_at: Time::from_millis(1000),
            origin_path: Some("tinker://o/weights/a".into()),
            corruption: Some(Corruption {
                reason: "the trainer died.".into(),
                since: Some(Time::from_millis(6000)),
                step: None,
            }),
            unsaved: Some(UnsavedWork { since: Time::from_millis(4000), requests: 2 }),
            saved_steps: Default::default(),
        });
        known.report = Some(Report {
            run_id: "s:train:0".into(),
            symptom: Symptom::NotLoaded,
            at: Time::from_millis(7000),
        });
        known.session = Some(RunSession {
            status: "failed".into(),
            category: Some("internal".into()),
            message: Some("out of memory.".into()),
            ..RunSession::default()
        });
        let sound = self::told(&known, false);
        assert_eq!(sound[1].2, "The work of 2 requests since then is in the service's memory only.");
        let told = told(&known, true);
        let kinds: Vec<_> = told.iter().map(|(kind, at, _)| (kind.as_str(), at.unwrap_or(-1))).collect();
        let expected = [("made", 1000), ("asked", 5000), ("lost", 6000), ("reported", 7000), ("session", -1)];
        assert_eq!(kinds, expected);
        assert_eq!(told[0].2, "The run was made, from tinker://o/weights/a.");
        assert_eq!(told[2].2, "The service lost the run's state: the trainer died.");
        assert_eq!(
            told[4].2,
            "The run's session failed, and the service says that it was its own fault: out of memory."
        );
    }

    #[test]
    fn a_session_that_lasts_or_is_not_told_of_is_no_evidence() {
        for status in ["active", ""] {
            assert_eq!(session_end(&RunSession { status: status.into(), ..RunSession::default() }), None);
        }
        let finished = RunSession {
            status: "client_finished".into(),
            category: Some("success".into()),
            ..RunSession::default()
        };
        let text = session_end(&finished).unwrap().text;
        assert_eq!(text, "The run's program finished the session (success).");
    }
}
