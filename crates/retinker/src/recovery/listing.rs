//! All runs of a service, a page at a time.

use retinker_wire::run::TrainingRun;

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

/// Whether a service that has just said that something is not there tells of anything: one that says so of everything says
/// nothing of that thing.
///
/// # Errors
/// Why not even its list of runs can be read.
pub async fn is_itself(api: &Api) -> Result<(), Error> {
    match api.training_runs(1, 0).await {
        // It has no list.
        Err(error) if error.is_unsupported() => Ok(()),
        answer => answer.map(drop),
    }
}
