//! One file per command.

pub(crate) mod console;
pub(crate) mod fault;
pub(crate) mod local;
pub(crate) mod up;
