//! Searching sessions.

use retinker_wire::UserMetadata;
use retinker_wire::session::{
    SearchOwner, SessionFailureCategory, SessionSearchCursor, SessionSearchRequest, SessionSearchResponse,
    SessionStatus, SessionSummary,
};

use crate::core::{Core, OWNER};
use crate::http::ApiError;
use crate::index::{Index, Session};
use crate::time::{now_millis, time};

/// The largest page, as the SDK knows it.
const LIMIT: usize = 200;

impl Core {
    /// One page of the sessions that a search finds, newest first.
    pub(crate) fn search_sessions(
        &self,
        request: &SessionSearchRequest,
    ) -> Result<SessionSearchResponse, ApiError> {
        let limit = request.limit.unwrap_or(50);
        if !(1..=LIMIT).contains(&limit) {
            return Err(ApiError::unprocessable(format!("limit must be from 1 to {LIMIT}, not {limit}")));
        }
        let words: Vec<String> = match &request.display_name {
            Some(name) => name.to_lowercase().split_whitespace().map(str::to_owned).collect(),
            None => Vec::new(),
        };
        if request.display_name.is_some() && words.is_empty() {
            return Err(ApiError::unprocessable("display_name is empty: leave it out".to_owned()));
        }
        let ours = match &request.owner {
            SearchOwner::Own | SearchOwner::Accessible => true,
            SearchOwner::User { owner_urns } => owner_urns.iter().any(|urn| urn == OWNER),
        };
        let index = self.index();
        let now = now_millis();
        let after = request.cursor.as_ref().map(|cursor| (cursor.last_created_at.as_millis(), cursor));
        let mut passed = after.is_none();
        let mut sessions = Vec::new();
        let mut more = false;
        for (id, session) in index.sessions_newest_first().filter(|_| ours) {
            if let (false, Some((at, cursor))) = (passed, after) {
                // The session of the cursor itself, or the first older one should it be gone.
                passed = id == cursor.last_session_id;
                if passed || session.created_at >= at {
                    continue;
                }
                passed = true;
            }
            if !matches(id, session, request, &words) {
                continue;
            }
            let status = status(&index, session);
            if !status.is_among(request.statuses.as_deref().unwrap_or_default()) {
                continue;
            }
            if sessions.len() == limit {
                more = true;
                break;
            }
            sessions.push(summary(&index, id, session, status, now));
        }
        let last = sessions.last().filter(|_| more);
        let next_cursor = last.map(|last| SessionSearchCursor {
            last_created_at: last.created_at,
            last_session_id: last.session_id.clone(),
        });
        Ok(SessionSearchResponse { sessions, next_cursor })
    }
}

fn matches(id: &str, session: &Session, request: &SessionSearchRequest, words: &[String]) -> bool {
    let project = session.project();
    if request.project_ids.as_ref().is_some_and(|projects| projects.iter().all(|id| id != project)) {
        return false;
    }
    if !request.user_metadata.is_empty() {
        let labels = labels(session);
        if request.user_metadata.iter().any(|(key, value)| labels.get(key) != Some(value)) {
            return false;
        }
    }
    let name = session.request.display_name.as_deref().unwrap_or_default().to_lowercase();
    let named = !words.is_empty() && words.iter().all(|word| name.contains(word.as_str()));
    match &request.session_id {
        Some(wanted) => wanted == id || named,
        None => words.is_empty() || named,
    }
}

/// A session's labels as they are listed.
pub(crate) fn labels(session: &Session) -> UserMetadata {
    super::runs::text_labels(session.request.user_metadata.clone())
}

/// How a session stands. One that ended from outside while a run in it was lost has failed.
fn status(index: &Index, session: &Session) -> SessionStatus {
    let Some(end) = &session.ended else { return SessionStatus::Active };
    if let SessionStatus::Cancelled { .. } = end.status {
        let runs = session.runs.iter().filter_map(|id| index.run(id));
        if let Some((run, reason)) = runs.filter_map(|run| Some((run, run.corrupted.as_ref()?))).next() {
            return SessionStatus::Failed {
                category: SessionFailureCategory::Internal,
                message: reason.clone(),
                reason: serde_json::json!({ "type": "training_run", "training_run_id": run.new.run_id }),
            };
        }
    }
    end.status.clone()
}

fn summary(index: &Index, id: &str, session: &Session, status: SessionStatus, now: i64) -> SessionSummary {
    let runs = session.runs.iter().filter_map(|id| index.run(id));
    let (count, bytes) = runs
        .flat_map(|run| run.newest_first(now))
        .fold((0, 0), |(count, bytes), row| (count + 1, bytes + row.size_bytes));
    SessionSummary {
        session_id: id.to_owned(),
        created_at: time(session.created_at),
        owner: OWNER.to_owned(),
        project_id: session.project().to_owned(),
        status: Some(status),
        checkpoints_count: count,
        display_name: session.request.display_name.clone(),
        user_metadata: Some(labels(session)),
        checkpoint_storage_bytes: Some(bytes),
    }
}
