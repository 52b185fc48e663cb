//! What can be done with sessions, runs and checkpoints, apart from the arithmetic.

mod checkpoints;
mod runs;
mod samplers;
mod sessions;
mod upkeep;

pub(crate) use runs::{training_path, unknown_run};
pub(crate) use samplers::SamplingSessions;
pub(crate) use upkeep::keep_up;
