//! What fuzzing reaches that nobody else does. No part of the crate's interface.

use crate::checkpoint::Verified;
use crate::models::Models;

/// Reads a checkpoint's files as if each matched its checksum, which only whoever can write the database can give them.
/// Without an optimizer's state (`optimizer` is empty) it only has weights.
///
/// # Errors
/// What is wrong with them.
pub fn checkpoint(manifest: &[u8], adapter: &[u8], optimizer: &[u8]) -> Result<(), String> {
    let files = Verified::unchecked(manifest, adapter, optimizer).map_err(|e| e.to_string())?;
    let models = Models::builtin();
    let adapter = files.adapter(models.config(&files.origin.base_model)?).map_err(|e| e.to_string())?;
    files.optimizer(&adapter).map(drop).map_err(|e| e.to_string())
}
