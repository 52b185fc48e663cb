//! What can be done with sessions, runs and checkpoints, apart from the arithmetic.

mod checkpoints;
mod copies;
mod downloads;
mod runs;
mod samplers;
mod search;
mod sessions;
mod upkeep;

pub(crate) use downloads::{Downloads, VALID as DOWNLOAD_VALID};
pub(crate) use runs::{checkpoint_path, training_path, unknown_run};
pub(crate) use search::labels;
pub(crate) use sessions::unknown_session;
pub(crate) use upkeep::keep_up;
