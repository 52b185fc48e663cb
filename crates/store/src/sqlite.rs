//! The recovery journal in one SQLite file.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_core::future::BoxFuture;
use retinker::recovery::journal::{
    Begun, Document, Lease, Put, Store, StoreError, check_schema, check_service,
};
use retinker::recovery::plan::SCHEMA_VERSION;
use retinker::recovery::restore::RestoreRecord;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};

use crate::entry::{damaged, from_text, to_text};
use crate::worker::Worker;

/// Name of the journal in its data directory.
const FILE: &str = "journal.db";
/// Name of the file whose lock says that the directory is in use.
const LOCK: &str = "journal.lock";

/// A journal in the file `journal.db` of a data directory.
///
/// Several processes can have it open at once: a host, monitors and the command line share one journal, and its leases keep
/// them apart. Each holds a shared lock on the directory, which the system gives back however the process ends. So who opens
/// it alone knows that all leases are a dead process's, and voids them: what was left unfinished can be gone on with at once,
/// and not only when the leases end. Lease times are SQLite's clock. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    worker: Arc<Worker>,
}

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS schema (version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS restores (
    number   INTEGER PRIMARY KEY AUTOINCREMENT,
    id       TEXT NOT NULL UNIQUE,
    old_run  TEXT NOT NULL,
    new_run  TEXT,
    settled  INTEGER NOT NULL,
    holds    INTEGER NOT NULL,
    record   TEXT NOT NULL,
    owner    TEXT,
    until_ms INTEGER NOT NULL DEFAULT 0,
    fence    INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS one_restore_holds_a_run ON restores (old_run) WHERE holds = 1;
CREATE INDEX IF NOT EXISTS restores_by_old_run ON restores (old_run);
CREATE INDEX IF NOT EXISTS restores_by_new_run ON restores (new_run) WHERE new_run IS NOT NULL;
CREATE INDEX IF NOT EXISTS restores_unfinished ON restores (number) WHERE settled = 0;
CREATE TABLE IF NOT EXISTS documents (
    kind    TEXT NOT NULL,
    key     TEXT NOT NULL,
    version INTEGER NOT NULL,
    body    TEXT NOT NULL,
    PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS revision (number INTEGER NOT NULL) STRICT;
INSERT INTO revision (number) SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM revision);
CREATE TRIGGER IF NOT EXISTS restore_begun AFTER INSERT ON restores
BEGIN UPDATE revision SET number = number + 1; END;
CREATE TRIGGER IF NOT EXISTS restore_written AFTER UPDATE OF record ON restores
BEGIN UPDATE revision SET number = number + 1; END;
CREATE TRIGGER IF NOT EXISTS document_made AFTER INSERT ON documents
BEGIN UPDATE revision SET number = number + 1; END;
CREATE TRIGGER IF NOT EXISTS document_written AFTER UPDATE ON documents
BEGIN UPDATE revision SET number = number + 1; END;
";

const NOW_MS: &str = "CAST(unixepoch('subsec') * 1000 AS INTEGER)";

impl SqliteStore {
    /// Opens the journal in this directory; makes both where they are missing, readable by this user only.
    /// Blocks for the time that takes.
    ///
    /// # Errors
    /// The directory cannot be written, another process uses it, or a newer version wrote the journal.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            StoreError::Unavailable(format!(
                "{what} in the data directory {} failed: {error}. Check that it is a directory and writable, or choose \
                 another with --journal or --data-dir",
                data_dir.display()
            ))
        };
        make_dir(data_dir).map_err(|error| failed("making it or its parents, or writing", &error))?;
        let lock = private_file(&data_dir.join(LOCK)).map_err(|error| failed("writing", &error))?;
        let alone = match lock.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(error)) => return Err(failed("locking", &error)),
        };
        if !alone {
            // Whoever is just opening it alone is done in a moment.
            lock.lock_shared().map_err(|error| failed("locking", &error))?;
        }
        let path = data_dir.join(FILE);
        make_private(&path).map_err(|error| failed("writing", &error))?;
        let mut connection =
            Connection::open(&path).map_err(|error| failed("opening the journal", &error))?;
        prepare(&mut connection, alone).map_err(|error| match error {
            PrepareError::Newer(found) => StoreError::Newer { found, known: SCHEMA_VERSION },
            PrepareError::Sqlite(error) => failed("opening the journal", &error),
        })?;
        if alone {
            // Nobody has taken a lease between the two: that needs the journal open, and this lock shared.
            lock.unlock().and_then(|()| lock.lock_shared()).map_err(|error| failed("locking", &error))?;
        }
        let worker =
            Worker::start(connection, lock).map_err(|error| failed("starting the journal", &error))?;
        Ok(Self { worker: Arc::new(worker) })
    }

    fn records(
        &self,
        sql: &'static str,
        argument: Option<String>,
    ) -> BoxFuture<'static, Result<Vec<RestoreRecord>, StoreError>> {
        self.worker.run(move |connection| {
            let mut statement = connection.prepare_cached(sql).map_err(unavailable)?;
            let mut rows = match &argument {
                Some(argument) => statement.query([argument]),
                None => statement.query([]),
            }
            .map_err(unavailable)?;
            let mut found = Vec::new();
            while let Some(row) = rows.next().map_err(unavailable)? {
                found.push(read(row)?);
            }
            Ok(found)
        })
    }
}

fn make_dir(path: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn private_file(path: &Path) -> std::io::Result<File> {
    private().create(true).truncate(false).open(path)
}

/// Makes the database's file where it is missing. One that is there is not even opened: to close it again would drop the
/// locks that this process's other connections to it hold (POSIX), and another process that takes itself for the last
/// would delete the log that they go on writing to.
fn make_private(path: &Path) -> std::io::Result<()> {
    match private().create_new(true).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop),
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

enum PrepareError {
    Newer(u32),
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for PrepareError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// How long one process waits for another's write.
const BUSY: Duration = Duration::from_secs(30);

fn prepare(connection: &mut Connection, alone: bool) -> Result<(), PrepareError> {
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // The journal is the promise that a restore is not done twice: each write is on the disk before it is answered.
    connection.pragma_update(None, "synchronous", "FULL")?;
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let has_schema: bool =
        change.query_row("SELECT count(*) > 0 FROM sqlite_master WHERE name = 'schema'", [], |row| {
            row.get(0)
        })?;
    if has_schema {
        let found: Option<u32> = change.query_row("SELECT max(version) FROM schema", [], |row| row.get(0))?;
        if let Some(found) = found.filter(|found| *found > SCHEMA_VERSION) {
            return Err(PrepareError::Newer(found));
        }
    }
    change.execute_batch(TABLES)?;
    change.execute(
        "INSERT INTO schema (version) SELECT ?1 WHERE NOT EXISTS (SELECT 1 FROM schema)",
        params![SCHEMA_VERSION],
    )?;
    if alone {
        change.execute("UPDATE restores SET owner = NULL, until_ms = 0", [])?;
    }
    change.commit()?;
    Ok(())
}

fn unavailable(error: rusqlite::Error) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

/// Reads columns `id` and `record`.
fn read(row: &Row<'_>) -> Result<RestoreRecord, StoreError> {
    let id: String = row.get(0).map_err(unavailable)?;
    let text: String = row.get(1).map_err(unavailable)?;
    from_text(&id, &text)
}

fn bind(connection: &mut Connection, service: &str) -> Result<(), StoreError> {
    connection
        .execute("INSERT INTO meta (key, value) VALUES ('service', ?1) ON CONFLICT DO NOTHING", [service])
        .map_err(unavailable)?;
    let bound: String = connection
        .query_row("SELECT value FROM meta WHERE key = 'service'", [], |row| row.get(0))
        .map_err(unavailable)?;
    check_service(&bound, service)
}

fn begin(connection: &mut Connection, record: RestoreRecord) -> Result<Begun, StoreError> {
    check_schema(&record)?;
    let text = to_text(&record)?;
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(unavailable)?;
    let existing = {
        let mut statement = change
            .prepare_cached("SELECT id, record FROM restores WHERE old_run = ?1 AND holds = 1")
            .map_err(unavailable)?;
        let mut rows = statement.query([&record.plan.run_id]).map_err(unavailable)?;
        rows.next().map_err(unavailable)?.map(read).transpose()?
    };
    if let Some(existing) = existing {
        return Ok(Begun::Existing(existing));
    }
    change
        .execute(
            "INSERT INTO restores (id, old_run, new_run, settled, holds, record) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                record.id,
                record.plan.run_id,
                record.new_run_id,
                record.state.is_settled(),
                record.state.holds_the_run(),
                text
            ],
        )
        .map_err(unavailable)?;
    change.commit().map_err(unavailable)?;
    Ok(Begun::New(record))
}

fn put(connection: &mut Connection, mut document: Document) -> Result<Put, StoreError> {
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(unavailable)?;
    let found = find(&change, &document.kind, &document.key)?;
    if found.as_ref().map_or(0, |found| found.version) != document.version {
        let missing = || Document { version: 0, body: serde_json::Value::Null, ..document.clone() };
        return Ok(Put::Changed(found.unwrap_or_else(missing)));
    }
    document.version += 1;
    let version = i64::try_from(document.version).unwrap_or(i64::MAX);
    change
        .execute(
            "INSERT INTO documents (kind, key, version, body) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (kind, key) DO UPDATE SET version = ?3, body = ?4",
            params![document.kind, document.key, version, document.body.to_string()],
        )
        .map_err(unavailable)?;
    change.commit().map_err(unavailable)?;
    Ok(Put::Written(document))
}

fn find(connection: &Connection, kind: &str, key: &str) -> Result<Option<Document>, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT kind, key, version, body FROM documents WHERE kind = ?1 AND key = ?2")
        .map_err(unavailable)?;
    let mut rows = statement.query([kind, key]).map_err(unavailable)?;
    rows.next().map_err(unavailable)?.map(read_document).transpose()
}

/// Reads columns `kind`, `key`, `version` and `body`.
fn read_document(row: &Row<'_>) -> Result<Document, StoreError> {
    let text = |column: usize| row.get::<_, String>(column).map_err(unavailable);
    let (kind, key, body) = (text(0)?, text(1)?, text(3)?);
    let version: i64 = row.get(2).map_err(unavailable)?;
    let body = serde_json::from_str(&body).map_err(|e| damaged(&format!("{kind} {key}"), &e))?;
    Ok(Document { kind, key, version: version.unsigned_abs(), body })
}

fn acquire(
    connection: &mut Connection,
    restore_id: String,
    owner: String,
    ttl: Duration,
) -> Result<Option<Lease>, StoreError> {
    let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX / 2).min(i64::MAX / 2);
    // Free or over: a new holder, a higher fence. Held by the same: extended. Held by another: no row.
    let fence = connection
        .prepare_cached(&format!(
            "UPDATE restores SET
                 fence = fence + (owner IS NULL OR owner <> ?2 OR until_ms <= {NOW_MS}),
                 owner = ?2,
                 until_ms = {NOW_MS} + ?3
             WHERE id = ?1 AND (owner IS NULL OR owner = ?2 OR until_ms <= {NOW_MS})
             RETURNING fence"
        ))
        .and_then(|mut statement| {
            statement.query_row(params![restore_id, owner, ttl_ms], |row| row.get::<_, i64>(0)).optional()
        })
        .map_err(unavailable)?;
    match fence {
        Some(fence) => Ok(Some(Lease { restore_id, owner, fence: fence.unsigned_abs() })),
        None => {
            let known = connection
                .query_row("SELECT 1 FROM restores WHERE id = ?1", [&restore_id], |_| Ok(()))
                .optional()
                .map_err(unavailable)?;
            known.map(|()| None).ok_or(StoreError::NotFound(restore_id))
        }
    }
}

fn append(connection: &mut Connection, lease: Lease, record: RestoreRecord) -> Result<(), StoreError> {
    check_schema(&record)?;
    let text = to_text(&record)?;
    let changed = connection
        .prepare_cached(&format!(
            "UPDATE restores SET record = ?4, new_run = ?5, settled = ?6, holds = ?7
             WHERE id = ?1 AND id = ?8 AND owner = ?2 AND fence = ?3 AND until_ms > {NOW_MS}"
        ))
        .and_then(|mut statement| {
            statement.execute(params![
                lease.restore_id,
                lease.owner,
                i64::try_from(lease.fence).unwrap_or(i64::MAX),
                text,
                record.new_run_id,
                record.state.is_settled(),
                record.state.holds_the_run(),
                record.id
            ])
        })
        .map_err(unavailable)?;
    if changed == 1 { Ok(()) } else { Err(StoreError::LeaseLost(lease.restore_id)) }
}

impl Store for SqliteStore {
    fn bind(&self, service: &str) -> BoxFuture<'static, Result<(), StoreError>> {
        let service = service.to_owned();
        self.worker.run(move |connection| bind(connection, &service))
    }

    fn begin(&self, record: RestoreRecord) -> BoxFuture<'static, Result<Begun, StoreError>> {
        self.worker.run(move |connection| begin(connection, record))
    }

    fn acquire_lease(
        &self,
        restore_id: &str,
        owner: &str,
        ttl: Duration,
    ) -> BoxFuture<'static, Result<Option<Lease>, StoreError>> {
        let (restore_id, owner) = (restore_id.to_owned(), owner.to_owned());
        self.worker.run(move |connection| acquire(connection, restore_id, owner, ttl))
    }

    fn release(&self, lease: &Lease) -> BoxFuture<'static, Result<(), StoreError>> {
        let lease = lease.clone();
        self.worker.run(move |connection| {
            connection
                .execute(
                    "UPDATE restores SET owner = NULL, until_ms = 0 WHERE id = ?1 AND owner = ?2 AND fence = ?3",
                    params![lease.restore_id, lease.owner, i64::try_from(lease.fence).unwrap_or(i64::MAX)],
                )
                .map(drop)
                .map_err(unavailable)
        })
    }

    fn append(&self, lease: &Lease, record: RestoreRecord) -> BoxFuture<'static, Result<(), StoreError>> {
        let lease = lease.clone();
        self.worker.run(move |connection| append(connection, lease, record))
    }

    fn get(&self, restore_id: &str) -> BoxFuture<'static, Result<Option<RestoreRecord>, StoreError>> {
        let found =
            self.records("SELECT id, record FROM restores WHERE id = ?1", Some(restore_id.to_owned()));
        Box::pin(async move { Ok(found.await?.into_iter().next()) })
    }

    fn list(&self) -> BoxFuture<'static, Result<Vec<RestoreRecord>, StoreError>> {
        self.records("SELECT id, record FROM restores ORDER BY number DESC", None)
    }

    fn by_old_run(&self, run_id: &str) -> BoxFuture<'static, Result<Vec<RestoreRecord>, StoreError>> {
        self.records(
            "SELECT id, record FROM restores WHERE old_run = ?1 ORDER BY number DESC",
            Some(run_id.to_owned()),
        )
    }

    fn by_new_run(&self, run_id: &str) -> BoxFuture<'static, Result<Option<RestoreRecord>, StoreError>> {
        let found = self.records(
            "SELECT id, record FROM restores WHERE new_run = ?1 ORDER BY holds DESC, number DESC LIMIT 1",
            Some(run_id.to_owned()),
        );
        Box::pin(async move { Ok(found.await?.into_iter().next()) })
    }

    fn unfinished(&self) -> BoxFuture<'static, Result<Vec<RestoreRecord>, StoreError>> {
        self.records("SELECT id, record FROM restores WHERE settled = 0 ORDER BY number", None)
    }

    fn revision(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        self.worker.run(|connection| {
            let number = connection.query_row("SELECT number FROM revision", [], |row| row.get::<_, i64>(0));
            number.map(i64::unsigned_abs).map_err(unavailable)
        })
    }

    fn put(&self, document: Document) -> BoxFuture<'static, Result<Put, StoreError>> {
        self.worker.run(move |connection| put(connection, document))
    }

    fn document(&self, kind: &str, key: &str) -> BoxFuture<'static, Result<Option<Document>, StoreError>> {
        let (kind, key) = (kind.to_owned(), key.to_owned());
        self.worker.run(move |connection| find(connection, &kind, &key))
    }

    fn documents(&self, kind: &str) -> BoxFuture<'static, Result<Vec<Document>, StoreError>> {
        let kind = kind.to_owned();
        self.worker.run(move |connection| {
            let mut statement = connection
                .prepare_cached("SELECT kind, key, version, body FROM documents WHERE kind = ?1 ORDER BY key")
                .map_err(unavailable)?;
            let mut rows = statement.query([&kind]).map_err(unavailable)?;
            let mut found = Vec::new();
            while let Some(row) = rows.next().map_err(unavailable)? {
                found.push(read_document(row)?);
            }
            Ok(found)
        })
    }
}

#[cfg(test)]
mod tests;
