//! What all parts of a running service share.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;

use crate::backlog::Backlog;
use crate::changes::Changes;
use crate::datadir::Layout;
use crate::db::Db;
use crate::faults::Rules;
use crate::futures::Futures;
use crate::http::Tokens;
use crate::index::Index;
use crate::intake::Intake;
use crate::models::Models;
use crate::ops::Downloads;
use crate::sampler::Sampler;
use crate::trainer::Inbox;
use retinker_nn::Threads;

/// Whose everything is: the service has one user.
pub(crate) const OWNER: &str = "local";

/// What all parts of a running service share.
///
/// Changes go to the database first and into the index when they are durable. Where two changes of one run must not
/// overtake each other, the write is asked for while the index is locked: the database keeps the order of asking.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) db: Db,
    pub(crate) futures: Arc<Futures>,
    /// What is to go wrong.
    pub(crate) faults: Rules,
    /// What happens to runs, for those who watch.
    pub(crate) changes: Arc<Changes>,
    pub(crate) layout: Layout,
    pub(crate) models: Models,
    pub(crate) downloads: Downloads,
    /// Where the tokenizers are, each in a directory of its model's name.
    pub(crate) tokenizers: PathBuf,
    /// What the trainers compute with.
    pub(crate) threads: Arc<Threads>,
    /// One for each trainer.
    pub(crate) inboxes: Vec<Arc<Inbox>>,
    pub(crate) backlog: Arc<Backlog>,
    /// What is being received.
    pub(crate) intake: Arc<Intake>,
    /// How many bytes of run states each trainer may keep in memory.
    pub(crate) memory_share: u64,
    /// What clients get for their key.
    pub(crate) tokens: Arc<Tokens>,
    /// Whether callers need a certain key.
    pub(crate) requires_key: bool,
    pub(crate) sampler: Sampler,
    pub(crate) session_timeout: Duration,
    /// Becomes true when the service stops.
    pub(crate) stopping: watch::Sender<bool>,
    pub(crate) index: Mutex<Index>,
    /// Held while a checkpoint's directory is chosen and its row asked for, or both are removed, so that a row never
    /// names another's directory.
    pub(crate) directories: Mutex<()>,
}

impl Core {
    /// The index. Held briefly: nothing waits with it.
    pub(crate) fn index(&self) -> MutexGuard<'_, Index> {
        crate::sync::lock(&self.index)
    }

    /// How many trainers there are.
    pub(crate) fn trainers(&self) -> usize {
        self.inboxes.len()
    }

    /// The inbox of a trainer.
    pub(crate) fn inbox(&self, trainer: usize) -> Option<&Arc<Inbox>> {
        self.inboxes.get(trainer)
    }
}
