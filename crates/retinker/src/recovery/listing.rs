//! All runs of a service, a page at a time; how the session of one stands.

use retinker_wire::run::TrainingRun;
use retinker_wire::session::{SessionSearchRequest, SessionStatus};

use super::health::session_of_run;
use crate::client::{Api, Error};

/// Runs in one page: the most that services give.
pub const PAGE: u64 = 100;

/// Why the list could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ListingError {
    /// The service could not be asked.
    #[error("{0}")]
    Service(#[from] Error),
    /// The service counts this many runs, and lists none.
    #[error("the service counts {0} training runs and lists none")]
    Contradicts(u64),
}

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

/// A reading of the list from its beginning.
///
/// Runs that are made meanwhile shift the pages: an id may then come twice. One that is moved to the front meanwhile, by
/// a service that lists by last use, may be passed over; the next reading finds it.
#[derive(Debug, Default)]
pub struct Listing {
    offset: u64,
    over: bool,
    requests: u64,
}

impl Listing {
    /// From the first run on.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next page; `None` at the end.
    pub async fn next(&mut self, api: &Api) -> Result<Option<Vec<TrainingRun>>, ListingError> {
        if self.over {
            return Ok(None);
        }
        self.requests += 1;
        let page = api.training_runs(PAGE, self.offset).await?;
        let count = page.training_runs.len() as u64;
        self.offset += count;
        // Some services count 0 runs in all past the end.
        let total = page.cursor.total_count;
        if self.offset == 0 && total > 0 {
            return Err(ListingError::Contradicts(total));
        }
        self.over = count == 0 || (total > 0 && self.offset >= total) || (total == 0 && count < PAGE);
        Ok(Some(page.training_runs))
    }

    /// How many pages were asked for.
    pub fn requests(&self) -> u64 {
        self.requests
    }
}
