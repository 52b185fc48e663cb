//! Hugging Face's cache of repositories, as its Python library lays it out: `models--<organization>--<name>`, in it
//! `refs/<revision>`, which names a commit, and `snapshots/<commit>/<file>`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::client::Error;

/// A repository in the cache.
#[derive(Debug)]
pub(super) struct Cached {
    root: PathBuf,
}

impl Cached {
    /// `id` must be one: see [`is_plain`].
    pub(super) fn new(cache: &Path, id: &str) -> Self {
        Self { root: cache.join(format!("models--{}", id.replace('/', "--"))) }
    }

    /// Where the files of a revision are, if it was ever downloaded.
    pub(super) fn snapshot(&self, revision: &str) -> Option<PathBuf> {
        let commit = fs::read_to_string(self.root.join("refs").join(revision)).ok();
        let commit = commit.as_deref().map_or(revision, str::trim);
        Some(commit).filter(|commit| is_plain(commit)).map(|commit| self.root.join("snapshots").join(commit))
    }

    /// Keeps a file of a commit. `tag` tells apart who writes at the same time.
    pub(super) fn keep(&self, commit: &str, file: &str, content: &[u8], tag: u64) -> Result<(), Error> {
        write(&self.root.join("snapshots").join(commit), file, content, tag)
    }

    /// Notes which commit a revision is.
    pub(super) fn note(&self, revision: &str, commit: &str, tag: u64) -> Result<(), Error> {
        // A commit names itself.
        if revision == commit {
            return Ok(());
        }
        write(&self.root.join("refs"), revision, commit.as_bytes(), tag)
    }
}

/// Whether it is one part of a path that leads nowhere else.
pub(super) fn is_plain(part: &str) -> bool {
    !part.is_empty()
        && !part.starts_with('.')
        && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// Puts a file there whole or not at all.
fn write(directory: &Path, name: &str, content: &[u8], tag: u64) -> Result<(), Error> {
    let part = directory.join(format!(".{name}.{tag:016x}.part"));
    let put = || -> io::Result<()> {
        fs::create_dir_all(directory)?;
        let mut file = fs::File::create(&part)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&part, directory.join(name))
    };
    put().map_err(|e| {
        let _ = fs::remove_file(&part);
        Error::file(&directory.join(name), &e)
    })
}
