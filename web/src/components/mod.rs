//! The parts that pages are made of.

pub(crate) mod banner;
pub(crate) mod bulk;
pub(crate) mod connections;
pub(crate) mod copy;
pub(crate) mod curves;
pub(crate) mod dialog;
pub(crate) mod figures;
pub(crate) mod handover;
pub(crate) mod heads;
pub(crate) mod icon;
pub(crate) mod incidents;
pub(crate) mod keys;
pub(crate) mod menu;
pub(crate) mod more;
pub(crate) mod page_head;
pub(crate) mod palette;
pub(crate) mod picker;
pub(crate) mod placeholder;
pub(crate) mod progress;
pub(crate) mod reactive;
pub(crate) mod restore;
pub(crate) mod search;
pub(crate) mod snippets;
pub(crate) mod status;
#[cfg(test)]
mod tests;
pub(crate) mod time;
