//! What the cross-crate programs share: a service process that can be killed, a connection to it, and a training schedule.

pub mod command;
pub mod console;
pub mod dying;
pub mod http;
pub mod process;
pub mod random;
pub mod runs;
pub mod schedule;
pub mod service;
pub mod simulated;
pub mod streams;
pub mod weather;
