//! A large batch, from vectors to the bodies of its requests. The Rust sides are `crates/retinker/examples/encode.rs`.

use std::ffi::OsString;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

/// Sequences of the batch.
pub(crate) const SEQUENCES: usize = 1024;
/// Tokens of each.
pub(crate) const LENGTH: usize = 4096;
/// How often it is encoded in Python; the best counts.
const ROUNDS: usize = 3;

/// What a side took.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Encoded {
    pub(crate) payload_bytes: u64,
    pub(crate) seconds: f64,
    /// Of the SDK.
    #[serde(default)]
    pub(crate) version: Option<String>,
}

/// What it took in memory: what was used at most beyond what there was before, over the payload.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) factor: f64,
}

/// Time, natively.
pub(crate) fn native() -> Result<Command> {
    Ok(Command::new(built("RETINKER_ENCODE")?))
}

/// Memory, natively.
pub(crate) fn memory() -> Result<Command> {
    let mut command = native()?;
    command.arg("memory");
    Ok(command)
}

/// Time, under wasm in Node.
pub(crate) fn wasm() -> Result<Command> {
    let mut command = Command::new("node");
    command.arg(built("RETINKER_ENCODE_WASM")?);
    Ok(command)
}

/// The official SDK's.
pub(crate) fn python() -> Result<Command> {
    let mut command = crate::python("encode")?;
    command.args([SEQUENCES, LENGTH, ROUNDS].map(|number| number.to_string()));
    Ok(command)
}

fn built(variable: &str) -> Result<OsString> {
    std::env::var_os(variable).with_context(|| format!("{variable} is not set: use `cargo xtask`"))
}
