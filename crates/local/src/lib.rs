//! An embedded Tinker-compatible service that really trains.
pub mod nn;
