//! The host API, `/retinker/v1`: what console, command line and npm package ask of a host.

pub mod api;
pub mod checkpoint_query;
pub mod checkpoints;
pub mod client;
pub mod completion;
mod encode;
mod language;
pub mod query;
pub mod redo;
pub mod run;
pub mod samples;
pub mod sessions;
mod sse;
pub mod usage;

pub use client::{Call, HostClient, HostError};
