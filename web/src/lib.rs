//! What the console decides without a browser: how things are worded, and what the address bar holds.

pub mod activity;
pub mod address;
pub mod bulk;
pub mod checkpoints;
pub mod columns;
pub mod compare;
pub mod connections;
pub mod curves;
pub mod format;
pub mod held;
pub mod kept;
pub mod lineage;
pub mod order;
pub mod pace;
pub mod palette;
pub mod progress;
pub mod scroll;
pub mod selection;
pub mod sessions;
pub mod timeline;
pub mod tokens;
pub mod views;
pub mod words;
