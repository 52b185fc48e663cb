//! Folders to write into; in memory, where the system has such a place.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// An empty folder that is gone when this is dropped.
pub(crate) fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("retinker-fuzz-").tempdir_in(parent).unwrap()
}

/// Everything in a folder, but for what lies below another.
pub(crate) fn outside(folder: &Path, except: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path == except {
            continue;
        }
        if path.is_dir() {
            found.extend(outside(&path, except));
        }
        found.push(path);
    }
    found
}
