//! Homes of the recovery journal: SQLite, which the processes of one machine share, and PostgreSQL, which several
//! machines do. (The one in memory is the core's.)

mod entry;
mod location;
mod postgres;
mod sqlite;
#[cfg(any(test, feature = "test-util"))]
pub mod testing;
mod worker;

use std::sync::Arc;

use retinker::recovery::journal::{Store, StoreError};

pub use location::Location;
pub use postgres::PostgresStore;
pub use sqlite::SqliteStore;

/// Opens the journal at this location; makes what is missing of it. Call it within a tokio runtime.
///
/// # Errors
/// The place cannot be used, or a newer version wrote the journal.
pub async fn open(location: &Location) -> Result<Arc<dyn Store>, StoreError> {
    match location {
        Location::Directory(path) => {
            let path = path.clone();
            let opened = tokio::task::spawn_blocking(move || SqliteStore::open(&path)).await;
            let failed = |_| Err(StoreError::Unavailable("opening it failed".to_owned()));
            Ok(Arc::new(opened.unwrap_or_else(failed)?))
        }
        Location::Database(url) => Ok(Arc::new(PostgresStore::open(url).await?)),
    }
}
