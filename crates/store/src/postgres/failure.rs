//! Why something that was asked of PostgreSQL failed.

use std::error::Error as _;

use retinker::recovery::journal::StoreError;
use tokio_postgres::error::{Severity, SqlState};
use tokio_postgres::{Client, Error};

/// Why an operation failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The journal says no.
    Store(StoreError),
    /// PostgreSQL does, or the way to it. Nothing was written, or only what can be written again.
    Sql(Error),
    /// The same, when a change was to be made lasting.
    Commit(Error),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Sql(error)
    }
}

/// Whether the connection is of no use any more.
pub(super) fn is_broken(client: &Client, error: &Error) -> bool {
    let Some(told) = error.as_db_error() else { return true };
    client.is_closed()
        || matches!(told.parsed_severity(), Some(Severity::Fatal | Severity::Panic))
        // The server has become another one's stand-by.
        || *told.code() == SqlState::READ_ONLY_SQL_TRANSACTION
}

/// The error and what caused it, in one line. What the server adds for details is left out: values stand in it.
pub(super) fn chain(error: &Error) -> String {
    if let Some(told) = error.as_db_error() {
        return told.message().to_owned();
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
