//! How the sessions of runs stand: which last, and how those of runs that went quiet ended.
//!
//! A search tells in one request, for each 200, which sessions last. How one ended that does not is asked once: an end
//! does not change. A service without that search is asked for the models of quiet runs instead: one that does not hold a
//! run's model any more has let its session go.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use retinker_wire::run::TrainingRun;
use retinker_wire::session::{SessionSearchRequest, SessionStatus, SessionStatusQuery, SessionSummary};
use retinker_wire::time::Time;

use super::evidence::Symptom;
use super::health::{is_cut_off, session_of_run};
use crate::client::{Api, Error};

/// A run that was asked for nothing for so long may have lost its session.
pub const QUIET: Duration = Duration::from_secs(120);
/// One that was asked for nothing for so long is history: its session is not asked for, and an end is forgotten.
pub const FORGOTTEN: Duration = Duration::from_secs(24 * 3_600);

/// Sessions in one page of a search: the most that services give.
const PAGE: usize = 200;
/// Pages of a search that are read at most.
const MOST_PAGES: u64 = 50;
/// Questions at once.
const AT_ONCE: usize = 8;
/// Runs whose sessions are asked for in one go: the others wait for the next reading.
pub const MOST: usize = 256;

/// How the session of a run stands. `None`: the run's id does not tell which it is, or the service does not know it.
///
/// # Errors
/// The service could not be asked, or has no search for sessions.
pub async fn session_status(api: &Api, run_id: &str) -> Result<Option<SessionStatus>, Error> {
    let Some(session_id) = session_of_run(run_id) else { return Ok(None) };
    let request =
        SessionSearchRequest { session_id: Some(session_id.to_owned()), ..SessionSearchRequest::default() };
    let found = api.search_sessions(&request).await?.sessions;
    // A server may not know the filter.
    Ok(found.into_iter().find(|session| session.session_id == session_id).and_then(|session| session.status))
}

/// The sessions that lasted at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lasting {
    /// Their ids.
    pub ids: BTreeSet<String>,
    /// How many requests it took to learn them.
    pub requests: u64,
}

/// All sessions that are found so, over all pages.
///
/// # Errors
/// The service could not be asked, or has no search for sessions.
pub(super) async fn search(api: &Api, request: SessionSearchRequest) -> Result<Vec<SessionSummary>, Error> {
    Ok(pages(api, request).await?.sessions)
}

/// What a search has found.
struct Found {
    sessions: Vec<SessionSummary>,
    requests: u64,
    /// There are more, on further pages.
    more: bool,
}

async fn pages(api: &Api, mut request: SessionSearchRequest) -> Result<Found, Error> {
    request.limit = Some(PAGE);
    let mut found = Found { sessions: Vec::new(), requests: 0, more: true };
    while found.more && found.requests < MOST_PAGES {
        let page = api.search_sessions(&request).await?;
        found.requests += 1;
        found.sessions.extend(page.sessions);
        // One that gives the same page again has no more.
        let next = page.next_cursor.filter(|cursor| request.cursor.as_ref() != Some(cursor));
        found.more = next.is_some();
        request.cursor = next;
    }
    Ok(found)
}

/// Which of a service's sessions last; `None` where it does not tell, or where there are too many to read.
///
/// # Errors
/// The service could not be asked, or has no search for sessions.
pub async fn lasting(api: &Api) -> Result<Option<Lasting>, Error> {
    let request = SessionSearchRequest {
        statuses: Some(vec![SessionStatusQuery::Active]),
        ..SessionSearchRequest::default()
    };
    let Found { sessions, requests, more } = pages(api, request).await?;
    // A server may not know the filter, but tell.
    if more || sessions.iter().any(|session| session.status.is_none()) {
        return Ok(None);
    }
    let lasts = sessions.into_iter().filter(|session| session.status == Some(SessionStatus::Active));
    Ok(Some(Lasting { ids: lasts.map(|session| session.session_id).collect(), requests }))
}

/// What has been asked about the sessions of quiet runs.
#[derive(Debug, Default)]
pub struct Sessions {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How sessions ended, by run, with the run's last request then.
    ended: HashMap<String, (Time, SessionStatus)>,
    /// When a session was last seen to last by asking for it alone, by run.
    lasted: HashMap<String, Time>,
    /// The service has no search for sessions.
    no_search: bool,
}

impl Sessions {
    /// Nothing has been asked yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the session of a run ended, as far as was asked since the run's last request.
    pub fn end_of(&self, run: &TrainingRun) -> Option<SessionStatus> {
        let state = self.state();
        let (at, status) = state.ended.get(&run.training_run_id)?;
        (*at == run.last_request_time).then(|| status.clone())
    }

    /// Whether the run's session ended otherwise than by its client's wish.
    pub fn cut_off(&self, run: &TrainingRun) -> bool {
        self.end_of(run).is_some_and(|end| is_cut_off(&end))
    }

    /// Which sessions last, where the service tells. That it cannot be asked now is told by what is asked next.
    pub async fn lasting(&self, api: &Api) -> Option<Lasting> {
        if self.state().no_search {
            return None;
        }
        match lasting(api).await {
            Ok(lasting) => lasting,
            Err(error) => {
                self.state().no_search |= error.is_unsupported();
                tracing::debug!(%error, "which sessions last is not known");
                None
            }
        }
    }

    /// Whether it is worth asking for this run's session: how it ended is not known, and it is not among those that last or,
    /// where these are not known, the run went quiet a while ago; not so long ago that nobody cares.
    pub fn is_open(&self, run: &TrainingRun, lasting: Option<&Lasting>, now: Time) -> bool {
        let last = run.last_request_time;
        if run.corrupted == Some(true) || now >= last.later(FORGOTTEN) || self.end_of(run).is_some() {
            return false;
        }
        match (session_of_run(&run.training_run_id), lasting) {
            (Some(session), Some(lasting)) => !lasting.ids.contains(session),
            (None, _) if !self.state().no_search => false,
            _ => now >= last.later(QUIET) && !self.lasted(run, now),
        }
    }

    /// Whether it was asked for this run's session, and nothing was learnt.
    pub fn is_unanswered(&self, run: &TrainingRun) -> bool {
        let lasted = self.state().lasted.contains_key(&run.training_run_id);
        !lasted && self.end_of(run).is_none()
    }

    /// Whether the session was seen to last a moment ago.
    fn lasted(&self, run: &TrainingRun, now: Time) -> bool {
        let state = self.state();
        state.lasted.get(&run.training_run_id).is_some_and(|asked| now < asked.later(QUIET))
    }

    /// Asks for the sessions of these runs, which are [open](Self::is_open); answers whether any has ended.
    pub async fn ask(&self, api: &Api, open: Vec<TrainingRun>, now: Time) -> bool {
        self.forget(now);
        stream::iter(open)
            .map(|run| async move {
                let status = self.ask_for(api, &run.training_run_id).await;
                status.is_some_and(|status| self.learn(&run, status, now))
            })
            .buffer_unordered(AT_ONCE)
            .fold(false, |any, ended| std::future::ready(any | ended))
            .await
    }

    /// Notes how a run's session stands; answers whether it has ended.
    pub fn learn(&self, run: &TrainingRun, status: SessionStatus, now: Time) -> bool {
        let (mut state, run_id) = (self.state(), run.training_run_id.clone());
        if status == SessionStatus::Active {
            state.lasted.insert(run_id, now);
            return false;
        }
        state.lasted.remove(&run_id);
        state.ended.insert(run_id, (run.last_request_time, status));
        true
    }

    /// What is history takes no memory.
    fn forget(&self, now: Time) {
        let mut state = self.state();
        state.ended.retain(|_, (at, _)| now < at.later(FORGOTTEN));
        state.lasted.retain(|_, asked| now < asked.later(FORGOTTEN));
    }

    /// How a run's session stands; `None` where that could not be told now.
    async fn ask_for(&self, api: &Api, run_id: &str) -> Option<SessionStatus> {
        if self.state().no_search {
            return by_model(api, run_id).await;
        }
        match session_status(api, run_id).await {
            Ok(status) => Some(status.unwrap_or(SessionStatus::Unknown)),
            Err(error) => {
                self.state().no_search |= error.is_unsupported();
                tracing::debug!(run = run_id, %error, "its session is not known");
                None
            }
        }
    }
}

/// The same where there is no search for sessions.
async fn by_model(api: &Api, run_id: &str) -> Option<SessionStatus> {
    match api.get_info(run_id).await {
        Ok(_) => Some(SessionStatus::Active),
        Err(error) if Symptom::of(&error) == Some(Symptom::NotLoaded) => {
            Some(SessionStatus::cancelled("the service does not hold the run's model any more"))
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests;
