//! Where data lives when nobody says otherwise.

use std::path::PathBuf;

use anyhow::{Context, Result};

/// The data directory: what was given, else the platform's place for an application's data.
pub(crate) fn data_dir(given: Option<PathBuf>) -> Result<PathBuf> {
    if let Some(dir) = given {
        return Ok(dir);
    }
    if let Some(dir) = std::env::var_os("XDG_DATA_HOME").filter(|dir| !dir.is_empty()) {
        return Ok(PathBuf::from(dir).join("retinker"));
    }
    let home =
        std::env::var_os("HOME").context("HOME is not set: say where to keep data with --data-dir DIR")?;
    let base = if cfg!(target_os = "macos") { "Library/Application Support" } else { ".local/share" };
    Ok(PathBuf::from(home).join(base).join("retinker"))
}
