//! Where the database lies, whether it still lies there, and what its failures mean.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use super::DbError;
use crate::datadir::is_full;
use crate::error::StartError;

/// Where the database lies.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    root: PathBuf,
    file: PathBuf,
    identity: Option<Identity>,
}

/// What tells a file from another under the same name.
#[cfg(unix)]
type Identity = (u64, u64);
#[cfg(not(unix))]
type Identity = ();

#[cfg(unix)]
fn identity(file: &Path) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(file).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn identity(file: &Path) -> Option<Identity> {
    std::fs::metadata(file).ok().map(|_| ())
}

/// What a failure of SQLite is about.
#[derive(Debug, PartialEq, Eq)]
enum Cause {
    Room,
    Access,
    Other,
}

impl Place {
    /// The place of an open database.
    pub(super) fn new(root: &Path, file: &Path) -> Self {
        Self { root: root.to_owned(), file: file.to_owned(), identity: identity(file) }
    }

    /// Refuses when the file that is open is no longer the one that a next start would find: what is written then is lost.
    pub(super) fn check(&self) -> Result<(), DbError> {
        match self.is_there() {
            true => Ok(()),
            false => Err(DbError::Gone(self.root.clone())),
        }
    }

    /// Whether the open file is still the one at its path.
    pub(crate) fn is_there(&self) -> bool {
        self.identity.is_some() && identity(&self.file) == self.identity
    }

    /// A failure while the service runs.
    pub(super) fn error(&self, error: &rusqlite::Error) -> DbError {
        match self.cause(error) {
            _ if !self.is_there() => DbError::Gone(self.root.clone()),
            Cause::Room => DbError::Full(self.root.clone()),
            Cause::Access => DbError::Access(error.to_string()),
            Cause::Other => DbError::Other(error.to_string()),
        }
    }

    /// A failure while the service starts.
    pub(super) fn start_error(&self, error: &rusqlite::Error) -> StartError {
        let (path, reason) = (self.file.clone(), error.to_string());
        match self.cause(error) {
            Cause::Room => StartError::DiskFull { path: self.root.clone() },
            Cause::Access => StartError::DatabaseAccess { path, reason },
            Cause::Other => StartError::Database { path, reason },
        }
    }

    fn cause(&self, error: &rusqlite::Error) -> Cause {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Cause::Room,
            Some(
                ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked,
            ) => {
                // Where the shared-memory file has no room, SQLite calls it an I/O error.
                if is_full(&self.root) { Cause::Room } else { Cause::Access }
            }
            _ => Cause::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::ffi;

    #[test]
    fn only_damage_calls_for_a_backup() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path(), &dir.path().join("service.sqlite"));
        let said = |code| {
            let failure = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            place.start_error(&failure).to_string()
        };
        let full = said(ffi::SQLITE_FULL);
        let path = dir.path().display().to_string();
        assert!(full.starts_with("the disk is full: free space on ") && full.contains(&path), "{full}");
        for code in [ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_CANTOPEN, ffi::SQLITE_READONLY] {
            let text = said(code);
            assert!(text.contains("check the disk") && !text.contains("backup"), "{text}");
        }
        for code in [ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB] {
            let text = said(code);
            assert!(text.contains("restore the data directory from a backup"), "{text}");
        }
    }
}
