//! One file per command, and what several share: which service and journal (`target`), which services
//! a console stands before (`connections`), what is done about lost runs
//! (`watching`).

pub(crate) mod attach;
pub(crate) mod calibrate;
pub(crate) mod checkpoints;
mod connections;
pub(crate) mod console;
pub(crate) mod fault;
pub(crate) mod incidents;
pub(crate) mod journal;
pub(crate) mod local;
pub(crate) mod monitor;
mod redo_logs;
pub(crate) mod restore;
mod target;
mod to_step;
pub(crate) mod up;
pub(crate) mod verify;
pub(crate) mod watch;
mod watching;
