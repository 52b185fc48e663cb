//! The states of a trainer's runs: in memory as far as its share allows, those longest unused put aside.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::aside::Aside;
use super::run_state::RunState;
use crate::core::Core;
use crate::futures::Outcome;

/// How long nothing is put aside after that has failed: a full disk does not empty itself from one request to the next.
const PAUSE: Duration = Duration::from_secs(5);

/// The states of a trainer's runs. A run that is in neither map is as it was saved last, and is read from there.
pub(super) struct States {
    /// How many bytes may be in memory, beside the state that is being worked on.
    share: u64,
    directory: PathBuf,
    loaded: HashMap<Arc<str>, Loaded>,
    aside: HashMap<Arc<str>, Aside>,
    /// Those in memory by their last use, the oldest first.
    by_use: BTreeMap<u64, Arc<str>>,
    bytes: u64,
    uses: u64,
    /// Nothing is written before this.
    not_before: Option<Instant>,
}

struct Loaded {
    state: RunState,
    last_use: u64,
}

impl States {
    /// No states yet, with room for so many bytes.
    pub(super) fn new(share: u64, directory: PathBuf) -> Self {
        Self {
            share,
            directory,
            loaded: HashMap::new(),
            aside: HashMap::new(),
            by_use: BTreeMap::new(),
            bytes: 0,
            uses: 0,
            not_before: None,
        }
    }

    /// A run's state, brought into memory if need be. A run whose state cannot be brought back is corrupted.
    pub(super) fn get(&mut self, core: &Core, run_id: &Arc<str>) -> Result<&mut RunState, Outcome> {
        let state = if let Some(loaded) = self.unload(run_id) {
            loaded
        } else if let Some(aside) = self.aside.remove(run_id) {
            self.make_room(aside.bytes());
            core.take_back(run_id, aside)?
        } else {
            self.make_room(core.state_bytes(run_id));
            core.load_run(run_id)?
        };
        Ok(self.load(run_id, state))
    }

    /// Takes in the state of a new run.
    pub(super) fn insert(&mut self, run_id: &Arc<str>, state: RunState) {
        self.make_room(state.bytes());
        self.load(run_id, state);
    }

    /// Lets go of a run's state, wherever it is.
    pub(super) fn forget(&mut self, run_id: &str) {
        self.unload(run_id);
        self.aside.remove(run_id);
    }

    fn load(&mut self, run_id: &Arc<str>, state: RunState) -> &mut RunState {
        self.uses += 1;
        self.bytes += state.bytes();
        self.by_use.insert(self.uses, Arc::clone(run_id));
        let loaded = Loaded { state, last_use: self.uses };
        &mut self.loaded.entry(Arc::clone(run_id)).insert_entry(loaded).into_mut().state
    }

    fn unload(&mut self, run_id: &str) -> Option<RunState> {
        let Loaded { state, last_use } = self.loaded.remove(run_id)?;
        self.by_use.remove(&last_use);
        self.bytes -= state.bytes();
        Some(state)
    }

    /// Makes room for a state of so many bytes, as far as that can be done.
    fn make_room(&mut self, bytes: u64) {
        let mut tried = 0;
        while self.bytes.saturating_add(bytes) > self.share
            && let Some((&last_use, run_id)) = self.by_use.range(tried + 1..).next()
        {
            tried = last_use;
            self.put_aside(&Arc::clone(run_id));
        }
    }

    /// Frees the memory of a run. One with unsaved work that cannot be written stays.
    fn put_aside(&mut self, run_id: &Arc<str>) {
        let Some(Loaded { state, .. }) = self.loaded.get(run_id) else { return };
        if state.modified {
            let now = Instant::now();
            if self.not_before.is_some_and(|time| now < time) {
                return;
            }
            match Aside::write(&self.directory, run_id, state) {
                Ok(aside) => {
                    self.not_before = None;
                    self.aside.insert(Arc::clone(run_id), aside);
                }
                Err(error) => {
                    tracing::warn!(run = %run_id, directory = %self.directory.display(), %error,
                        "the run cannot be put aside and stays in memory, beyond the limit");
                    self.not_before = Some(now + PAUSE);
                    return;
                }
            }
        }
        self.unload(run_id);
    }
}
