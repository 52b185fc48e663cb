//! What the console decides without a browser: how things are worded, and what the address bar holds.

pub mod activity;
pub mod address;
pub mod format;
pub mod progress;
pub mod words;
