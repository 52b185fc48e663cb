//! Why a service could not be started.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a service could not be started. Each message says what happened, to which thing, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process has the data directory.
    #[error(
        "data directory {} is in use by another retinker ({}): stop it, or choose another directory with --data-dir",
        path.display(),
        pid.map_or_else(|| "pid unknown".to_owned(), |pid| format!("pid {pid}"))
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who has it, where that could be read.
        pid: Option<u32>,
    },
    /// The data directory cannot be made, read or written.
    #[error(
        "data directory {} cannot be used: {reason}; make it a directory that you can write to, or choose another with --data-dir",
        path.display()
    )]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There are checkpoints, but the database that lists them is missing or empty.
    #[error(
        "data directory {} holds {checkpoints} {} but its database service.sqlite is {}: restore service.sqlite from a backup, or choose another directory with --data-dir",
        path.display(),
        if *checkpoints == 1 { "checkpoint" } else { "checkpoints" },
        if *missing { "gone" } else { "empty" }
    )]
    DatabaseGone {
        /// The directory.
        path: PathBuf,
        /// How many checkpoints lie in it.
        checkpoints: usize,
        /// Whether the file is missing; otherwise it is empty.
        missing: bool,
    },
    /// The disk has no room for what a start writes.
    #[error(
        "the disk is full: free space on the file system of {}, or choose another directory with --data-dir",
        path.display()
    )]
    DiskFull {
        /// The data directory.
        path: PathBuf,
    },
    /// The database could not be opened, read or written, which says nothing of its content.
    #[error(
        "the database {} cannot be used: {reason}; check the disk and that the file can be read and written, then start again",
        path.display()
    )]
    DatabaseAccess {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The data directory was written by a newer version.
    #[error(
        "data directory {} was written by a newer retinker (its format is {found}, this one knows {known}): use that version, or choose another directory with --data-dir",
        path.display()
    )]
    NewerFormat {
        /// The directory.
        path: PathBuf,
        /// The format found.
        found: i64,
        /// The newest format that this version knows.
        known: i64,
    },
    /// The database cannot be opened or read.
    #[error(
        "the database {} cannot be read: {reason}; restore the data directory from a backup, or choose another with --data-dir",
        path.display()
    )]
    Database {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The port is taken.
    #[error(
        "port {} on {} is in use by another program: stop it, or choose another port with {port_option}",
        address.port(),
        address.ip()
    )]
    PortInUse {
        /// Where it was to listen.
        address: SocketAddr,
        /// The option that sets the port.
        port_option: &'static str,
    },
    /// The address cannot be listened on.
    #[error(
        "cannot listen on {address}: {reason}; choose another address, or another port with {port_option}"
    )]
    Listen {
        /// Where it was to listen.
        address: SocketAddr,
        /// What is wrong.
        reason: String,
        /// The option that sets the port.
        port_option: &'static str,
    },
    /// An open address without a key.
    #[error(
        "refusing to listen on {address} without an API key: set one with --api-key, or listen on 127.0.0.1"
    )]
    KeyRequired {
        /// Where it was to listen.
        address: SocketAddr,
    },
    /// What was to be an origin of web pages is none.
    #[error("{0} (--cors-origin)")]
    Origin(String),
    /// The settings make no sense, or a thread could not be started.
    #[error("the local service cannot start: {0}")]
    Other(String),
}
