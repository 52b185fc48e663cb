//! What the npm package `retinker` is made of: the core's clients, as objects that JavaScript can hold. Thin by intent: what is
//! decided is decided in the core, and what is comfortable in JavaScript is in the facade beside it (`npm/src`), which alone
//! uses these objects.

#![cfg(target_arch = "wasm32")]

mod call;
mod client;
mod failure;
mod host;
mod pages;
pub mod panics;
pub mod recovery;
mod rest;

#[cfg(feature = "training")]
mod batch;
#[cfg(feature = "training")]
mod pending;
#[cfg(feature = "training")]
mod redo;
#[cfg(feature = "training")]
mod sampling;
#[cfg(feature = "training")]
mod service;
#[cfg(feature = "training")]
mod training;
