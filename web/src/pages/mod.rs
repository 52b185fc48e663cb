//! The pages.

pub(crate) mod activity;
pub(crate) mod checkpoints;
pub(crate) mod compare;
pub(crate) mod locked;
pub(crate) mod run;
pub(crate) mod runs;
pub(crate) mod sessions;
pub(crate) mod trial;
pub(crate) mod usage;
pub(crate) mod welcome;
