//! A file that says that the demonstration was begun and not ended, so that a first start that was cut off does not
//! leave a newcomer with its ruins.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The file.
#[derive(Debug)]
pub(crate) struct Marker(PathBuf);

impl Marker {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self(data_dir.join("demonstration-unfinished"))
    }

    pub(crate) fn is_there(&self) -> bool {
        self.0.exists()
    }

    pub(crate) fn put(&self) -> Result<()> {
        std::fs::write(&self.0, "").with_context(|| format!("{} cannot be written", self.0.display()))
    }

    pub(crate) fn remove(&self) -> Result<()> {
        std::fs::remove_file(&self.0).with_context(|| format!("{} cannot be removed", self.0.display()))
    }
}
