//! Which runs a round reads: all of them, or, where that takes fewer requests, only those that can have changed.
//!
//! What happens to a run happens while its session lasts. So between two readings of the whole list it is enough to read
//! the runs of the sessions that last, of those that have ended since, and those that are known to be lost: one request
//! for each such session and run, instead of one for each hundred of all runs. Where a service has no search for sessions,
//! or its run ids do not tell their session, or most sessions last, the whole list is read each time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use retinker_wire::run::TrainingRun;

use super::health::session_of_run;
use super::listing::{Listing, ListingError, PAGE};
use super::plan::{LABEL_RESTORE_ID, LABEL_RESTORED_FROM};
use super::sessions::{Lasting, Sessions};
use crate::client::Api;

/// The whole list is read at least so often: what a session's end hides, and runs that were deleted, are seen then.
pub const WHOLE_EVERY: Duration = Duration::from_secs(600);

/// A list of so few pages is read whole each time.
const FEW: u64 = 3;
/// Sessions and runs that are asked for at once.
const AT_ONCE: usize = 8;

/// What is remembered from one reading to the next.
#[derive(Debug, Default)]
pub struct Survey {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the whole list was last read.
    whole_at: Option<Duration>,
    /// How many pages it had.
    pages: u64,
    /// The sessions that lasted at the last reading.
    lasting: BTreeSet<String>,
    /// The restore that a run's successor says it was made by, by the run.
    restored: BTreeMap<String, String>,
}

/// One reading, page by page.
#[derive(Debug)]
pub struct Reading<'a> {
    survey: &'a Survey,
    api: &'a Api,
    begun: Duration,
    way: Way,
    lasting: Option<Lasting>,
    requests: u64,
    restored: BTreeMap<String, String>,
    /// Runs that are read in any case.
    also: BTreeSet<String>,
}

#[derive(Debug)]
enum Way {
    Whole(Listing),
    /// The ids that are left to read, last first.
    Part(Vec<String>),
}

impl Survey {
    /// Nothing has been read yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a reading at this time of the monotonic clock. `also` are runs that are to be read in any case.
    pub async fn begin<'a>(
        &'a self,
        api: &'a Api,
        sessions: &Sessions,
        also: BTreeSet<String>,
        begun: Duration,
    ) -> Reading<'a> {
        let lasting = sessions.lasting(api).await;
        let requests = lasting.as_ref().map_or(0, |lasting| lasting.requests);
        let (way, restored) = (Way::Whole(Listing::new()), BTreeMap::new());
        let mut reading = Reading { survey: self, api, begun, way, lasting, requests, restored, also };
        if let Some(ids) = reading.part().await {
            reading.way = Way::Part(ids);
        }
        reading
    }

    /// Has the next reading be of the whole list.
    pub fn want_whole(&self) {
        self.state().whole_at = None;
    }

    /// The restore by which another run says that it was made from this one.
    pub fn restore_of(&self, run_id: &str) -> Option<String> {
        self.state().restored.get(run_id).cloned()
    }

    /// How many requests the whole list would take, if it need not be read now.
    fn spared(&self, begun: Duration) -> Option<u64> {
        let state = self.state();
        let fresh = begun.saturating_sub(state.whole_at?) < WHOLE_EVERY;
        (fresh && state.pages > FEW).then_some(state.pages)
    }
}

impl Reading<'_> {
    /// Whether this is the whole list.
    pub fn is_whole(&self) -> bool {
        matches!(self.way, Way::Whole(_))
    }

    /// The sessions that lasted as the reading began, where the service tells.
    pub fn lasting(&self) -> Option<&Lasting> {
        self.lasting.as_ref()
    }

    /// Whether this run was to be read in any case.
    pub fn is_asked_for(&self, run_id: &str) -> bool {
        self.also.contains(run_id)
    }

    /// How many requests it has taken so far.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// The next runs, a hundred at most; `None` at the end.
    ///
    /// # Errors
    /// The service could not be asked. Then begin anew.
    pub async fn next(&mut self) -> Result<Option<Vec<TrainingRun>>, ListingError> {
        let page = match &mut self.way {
            Way::Whole(listing) => {
                let before = listing.requests();
                let page = listing.next(self.api).await?;
                self.requests += listing.requests() - before;
                page
            }
            Way::Part(left) => {
                let page = left.split_off(left.len().saturating_sub(PAGE as usize));
                self.requests += page.len() as u64;
                if page.is_empty() { None } else { Some(runs(self.api, page).await?) }
            }
        };
        match &page {
            Some(runs) => self.restored.extend(runs.iter().filter_map(restored_from)),
            None => self.end(),
        }
        Ok(page)
    }

    /// The ids to read instead of the whole list; `None` where that would not be enough, or not cheaper.
    async fn part(&mut self) -> Option<Vec<String>> {
        let mut ids = self.also.clone();
        let spared = self.survey.spared(self.begun)?;
        let lasting = self.lasting.as_ref()?;
        let before = self.survey.state().lasting.clone();
        let sessions: Vec<String> = lasting.ids.union(&before).cloned().collect();
        // Each has a run, as a rule.
        if self.requests + 2 * sessions.len() as u64 >= spared {
            return None;
        }
        self.requests += sessions.len() as u64;
        let (api, lasting) = (self.api, &lasting.ids);
        let found: Vec<Vec<String>> = stream::iter(sessions)
            .map(|session| async move {
                match api.get_session(&session).await {
                    Ok(found) => {
                        let told = |id: &String| session_of_run(id) == Some(&session);
                        found.training_run_ids.iter().all(told).then_some(found.training_run_ids)
                    }
                    // It is gone, and its runs are seen with the whole list.
                    Err(error) if error.is_not_found() && !lasting.contains(&session) => Some(Vec::new()),
                    Err(_) => None,
                }
                .ok_or(())
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
            .ok()?;
        ids.extend(found.into_iter().flatten());
        (self.requests + (ids.len() as u64) < spared).then(|| ids.into_iter().collect())
    }

    /// Remembers what the next reading goes by.
    fn end(&mut self) {
        let mut state = self.survey.state();
        if let Way::Whole(listing) = &self.way {
            state.whole_at = Some(self.begun);
            state.pages = listing.requests();
            state.restored.clear();
        }
        state.restored.append(&mut self.restored);
        if let Some(lasting) = &self.lasting {
            state.lasting.clone_from(&lasting.ids);
        }
    }
}

/// Which run this one says that it was restored from, and by which restore.
fn restored_from(run: &TrainingRun) -> Option<(String, String)> {
    let labels = run.user_metadata.as_ref()?;
    Some((labels.get(LABEL_RESTORED_FROM)?.clone(), labels.get(LABEL_RESTORE_ID)?.clone()))
}

/// Each of these runs, without those that are gone.
async fn runs(api: &Api, ids: Vec<String>) -> Result<Vec<TrainingRun>, ListingError> {
    let found: Vec<Option<TrainingRun>> = stream::iter(ids)
        .map(|id| async move {
            match api.training_run(&id).await {
                Err(error) if error.is_not_found() => Ok(None),
                run => run.map(Some),
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    Ok(found.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests;
