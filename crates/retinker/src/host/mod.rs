//! The host API, `/retinker/v1`: what console, command line and npm package ask of a host.

pub mod api;
pub mod client;
mod encode;
pub mod query;
pub mod run;
mod sse;

pub use client::{HostClient, HostError};
