//! Homes of the recovery journal: SQLite. (The one in memory is the core's.)

mod sqlite;
mod worker;

pub use sqlite::SqliteStore;
