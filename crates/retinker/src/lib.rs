//! A client and recovery layer for Tinker-compatible training services.
//!
//! Everything stands on three seams that the program injects: a [`Transport`](transport::Transport) that sends
//! requests, a [`Runtime`](runtime::Runtime) that sleeps, tells the time and spawns, and a
//! [`Store`](recovery::journal::Store) that keeps the recovery journal. The same text compiles natively (feature
//! `native`: reqwest and tokio, in `native` only) and to `wasm32-unknown-unknown` (fetch, in `web` only).

#![deny(missing_docs)]

pub mod client;
pub mod direction;
pub mod host;
pub mod json;
#[cfg(all(feature = "native", not(target_arch = "wasm32")))]
pub mod native;
#[cfg(feature = "opentelemetry")]
pub mod propagation;
pub mod recovery;
pub mod redo;
pub mod runtime;
pub mod transport;
#[cfg(target_arch = "wasm32")]
pub mod web;

pub use retinker_wire as wire;
