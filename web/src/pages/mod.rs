//! The pages.

pub(crate) mod activity;
pub(crate) mod locked;
pub(crate) mod run;
pub(crate) mod runs;
