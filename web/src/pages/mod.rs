//! The pages.

pub(crate) mod locked;
pub(crate) mod run;
pub(crate) mod runs;
