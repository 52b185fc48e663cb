//! The recovery journal in a PostgreSQL database.

mod address;
mod failure;
mod link;
mod schema;

use std::sync::Arc;
use std::time::Duration;

use futures_core::future::BoxFuture;
use retinker::client::Secret;
use retinker::recovery::journal::{
    Begun, Document, Lease, Put, Store, StoreError, check_schema, check_service,
};
use retinker::recovery::restore::RestoreRecord;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row, Transaction};

use crate::entry::{damaged, from_text, to_text};
pub(crate) use address::Address;
use failure::Failure;
use link::Link;

/// A journal in a PostgreSQL database, in its schema `retinker`: one that processes on several machines share.
///
/// A database holds one journal, and so belongs to one service. Lease times are the server's clock. A lease of a process that
/// has died ends by its time: unlike SQLite's, this store cannot know that it is opened alone. A lost connection is made anew.
/// Where it was lost while a change was made lasting, the answer is an error, and asking again is right: a record is replaced
/// by itself, a restore that was begun is given back as the existing one, a document as the changed one. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    link: Arc<Link>,
}

impl PostgresStore {
    /// Connects to the database of this URL, `postgres://user:password@host:port/database`, and makes the tables where they
    /// are missing. The URL's settings are libpq's, except that `sslmode` is `disable` (the default on this machine) or
    /// `require` (the default elsewhere), which checks the server's certificate: by the system's roots, or those in the file
    /// `sslrootcert`. Call it within a tokio runtime, in which the connection lives.
    ///
    /// # Errors
    /// The URL makes no sense, the database cannot be reached or written to, or a newer version wrote the journal. No error
    /// tells the password.
    pub async fn open(url: &Secret) -> Result<Self, StoreError> {
        let link = Arc::new(Link::new(Address::parse(url)?));
        link.run(|_| Box::pin(async { Ok(()) })).await?;
        Ok(Self { link })
    }

    fn records(
        &self,
        sql: &'static str,
        argument: Option<String>,
    ) -> BoxFuture<'static, Result<Vec<RestoreRecord>, StoreError>> {
        self.link.run(move |client| {
            let argument = argument.clone();
            Box::pin(async move {
                let arguments: Vec<Argument<'_>> = argument.iter().map(text).collect();
                client.query_typed(sql, &arguments).await?.iter().map(read).collect()
            })
        })
    }
}

type Argument<'a> = (&'a (dyn ToSql + Sync), Type);

fn text(value: &String) -> Argument<'_> {
    (value, Type::TEXT)
}

/// Reads columns `id` and `record`.
fn read(row: &Row) -> Result<RestoreRecord, Failure> {
    Ok(from_text(row.try_get(0)?, row.try_get(1)?)?)
}

/// Reads columns `kind`, `key`, `version` and `body`.
fn read_document(row: &Row) -> Result<Document, Failure> {
    let (kind, key): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let body = serde_json::from_str(row.try_get(3)?).map_err(|e| damaged(&format!("{kind} {key}"), &e))?;
    Ok(Document { kind, key, version: row.try_get::<_, i64>(2)?.unsigned_abs(), body })
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Begins a change of records or documents, by counting the revision up.
///
/// The row that holds it is thereby locked until the change is made lasting, and the next writer waits: so changes are made
/// one after the other, and who sees a revision sees all that was written up to it. A sequence would not do: its numbers are
/// drawn before the commit, so a lower one can appear after a higher one was seen. A change that is refused is not committed,
/// and counts nothing.
async fn write(client: &mut Client) -> Result<Transaction<'_>, Failure> {
    let change = client.transaction().await?;
    let count = "UPDATE retinker.journal SET revision = revision + 1 RETURNING version";
    // A newer program may have come while this one was running.
    schema::check(change.query_typed_one(count, &[]).await?.try_get(0)?)?;
    Ok(change)
}

async fn bind(client: &Client, service: String) -> Result<(), Failure> {
    let sql = "UPDATE retinker.journal SET service = coalesce(service, $1) RETURNING service";
    let bound = client.query_typed_one(sql, &[text(&service)]).await?;
    Ok(check_service(bound.try_get(0)?, &service)?)
}

async fn begin(client: &mut Client, record: RestoreRecord) -> Result<Begun, Failure> {
    check_schema(&record)?;
    let json = to_text(&record)?;
    let change = write(client).await?;
    let holder = "SELECT id, record FROM retinker.restores WHERE old_run = $1 AND holds";
    if let Some(row) = change.query_typed_opt(holder, &[text(&record.plan.run_id)]).await? {
        return Ok(Begun::Existing(read(&row)?));
    }
    let insert = "INSERT INTO retinker.restores (id, old_run, new_run, settled, holds, record)
                  VALUES ($1, $2, $3, $4, $5, $6)";
    let arguments = [
        text(&record.id),
        text(&record.plan.run_id),
        (&record.new_run_id, Type::TEXT),
        (&record.state.is_settled(), Type::BOOL),
        (&record.state.holds_the_run(), Type::BOOL),
        text(&json),
    ];
    change.execute_typed(insert, &arguments).await?;
    change.commit().await.map_err(Failure::Commit)?;
    Ok(Begun::New(record))
}

async fn acquire(
    client: &Client,
    restore_id: String,
    owner: String,
    ttl: Duration,
) -> Result<Option<Lease>, Failure> {
    // Free or over: a new holder, a higher fence. Held by the same: extended. Held by another: no row. Whoever comes while
    // another's change of the row is under way waits, and then looks again.
    let sql = "UPDATE retinker.restores SET
                   fence = fence + CASE WHEN owner = $2 AND until_at > clock_timestamp() THEN 0 ELSE 1 END,
                   owner = $2,
                   until_at = clock_timestamp() + make_interval(secs => $3)
               WHERE id = $1 AND (owner IS NULL OR owner = $2 OR until_at <= clock_timestamp())
               RETURNING fence";
    let seconds = ttl.min(LONGEST).as_secs_f64();
    let arguments = [text(&restore_id), text(&owner), (&seconds, Type::FLOAT8)];
    if let Some(row) = client.query_typed_opt(sql, &arguments).await? {
        return Ok(Some(Lease { restore_id, owner, fence: row.try_get::<_, i64>(0)?.unsigned_abs() }));
    }
    let known = "SELECT FROM retinker.restores WHERE id = $1";
    match client.query_typed_opt(known, &[text(&restore_id)]).await? {
        Some(_) => Ok(None),
        None => Err(StoreError::NotFound(restore_id).into()),
    }
}

/// The longest lease; PostgreSQL's times have an end.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

async fn release(client: &Client, lease: Lease) -> Result<(), Failure> {
    let sql = "UPDATE retinker.restores SET owner = NULL, until_at = '-infinity'
               WHERE id = $1 AND owner = $2 AND fence = $3";
    let arguments = [text(&lease.restore_id), text(&lease.owner), (&signed(lease.fence), Type::INT8)];
    client.execute_typed(sql, &arguments).await?;
    Ok(())
}

async fn append(client: &mut Client, lease: Lease, record: RestoreRecord) -> Result<(), Failure> {
    check_schema(&record)?;
    let json = to_text(&record)?;
    let change = write(client).await?;
    // Nobody takes the lease between this look at the clock and the commit: that would change the same row.
    let sql = "UPDATE retinker.restores SET record = $4, new_run = $5, settled = $6, holds = $7
               WHERE id = $1 AND id = $8 AND owner = $2 AND fence = $3 AND until_at > clock_timestamp()";
    let arguments = [
        text(&lease.restore_id),
        text(&lease.owner),
        (&signed(lease.fence), Type::INT8),
        text(&json),
        (&record.new_run_id, Type::TEXT),
        (&record.state.is_settled(), Type::BOOL),
        (&record.state.holds_the_run(), Type::BOOL),
        text(&record.id),
    ];
    if change.execute_typed(sql, &arguments).await? == 0 {
        return Err(StoreError::LeaseLost(lease.restore_id).into());
    }
    change.commit().await.map_err(Failure::Commit)
}

async fn put(client: &mut Client, mut document: Document) -> Result<Put, Failure> {
    let change = write(client).await?;
    let found = find(change.client(), &document.kind, &document.key).await?;
    if found.as_ref().map_or(0, |found| found.version) != document.version {
        let missing = || Document { version: 0, body: serde_json::Value::Null, ..document.clone() };
        return Ok(Put::Changed(found.unwrap_or_else(missing)));
    }
    document.version += 1;
    let sql = "INSERT INTO retinker.documents (kind, key, version, body) VALUES ($1, $2, $3, $4)
               ON CONFLICT (kind, key) DO UPDATE SET version = $3, body = $4";
    let (version, body) = (signed(document.version), document.body.to_string());
    let arguments = [text(&document.kind), text(&document.key), (&version, Type::INT8), text(&body)];
    change.execute_typed(sql, &arguments).await?;
    change.commit().await.map_err(Failure::Commit)?;
    Ok(Put::Written(document))
}

async fn find(client: &Client, kind: &String, key: &String) -> Result<Option<Document>, Failure> {
    let sql = "SELECT kind, key, version, body FROM retinker.documents WHERE kind = $1 AND key = $2";
    let row = client.query_typed_opt(sql, &[text(kind), text(key)]).await?;
    row.as_ref().map(read_document).transpose()
}

impl Store for PostgresStore {
    fn bind(&self, service: &str) -> BoxFuture<'static, Result<(), StoreError>> {
        let service = service.to_owned();
        self.link.run(move |client| Box::pin(bind(client, service.clone())))
    }

    fn begin(&self, record: RestoreRecord) -> BoxFuture<'static, Result<Begun, StoreError>> {
        self.link.run(move |client| Box::pin(begin(client, record.clone())))
    }

    fn acquire_lease(
        &self,
        restore_id: &str,
        owner: &str,
        ttl: Duration,
    ) -> BoxFuture<'static, Result<Option<Lease>, StoreError>> {
        let (restore_id, owner) = (restore_id.to_owned(), owner.to_owned());
        self.link.run(move |client| Box::pin(acquire(client, restore_id.clone(), owner.clone(), ttl)))
    }

    fn release(&self, lease: &Lease) -> BoxFuture<'static, Result<(), StoreError>> {
        let lease = lease.clone();
        self.link.run(move |client| Box::pin(release(client, lease.clone())))
    }

    fn append(&self, lease: &Lease, record: RestoreRecord) -> BoxFuture<'static, Result<(), StoreError>> {
        let lease = lease.clone();
        self.link.run(move |client| Box::pin(append(client, lease.clone(), record.clone())))
    }

    fn get(&self, restore_id: &str) -> BoxFuture<'static, Result<Option<RestoreRecord>, StoreError>> {
        let found = self
            .records("SELECT id, record FROM retinker.restores WHERE id = $1", Some(restore_id.to_owned()));
        Box::pin(async move { Ok(found.await?.into_iter().next()) })
    }

    fn list(&self) -> BoxFuture<'static, Result<Vec<RestoreRecord>, StoreError>> {
        self.records("SELECT id, record FROM retinker.restores ORDER BY number DESC", None)
    }

    fn by_old_run(&self, run_id: &str) -> BoxFuture<'static, Result<Vec<RestoreRecord>, StoreError>> {
        self.records(
            "SELECT id, record FROM retinker.restores WHERE old_run = $1 ORDER BY number DESC",
            Some(run_id.to_owned()),
        )
    }

    fn by_new_run(&self, run_id: &str) -> BoxFuture<'static, Result<Option<RestoreRecord>, StoreError>> {
        let found = self.records(
            "SELECT id, record FROM retinker.restores WHERE new_run = $1 ORDER BY holds DESC, number DESC LIMIT 1",
            Some(run_id.to_owned()),
        );
        Box::pin(async move { Ok(found.await?.into_iter().next()) })
    }

    fn unfinished(&self) -> BoxFuture<'static, Result<Vec<RestoreRecord>, StoreError>> {
        self.records("SELECT id, record FROM retinker.restores WHERE NOT settled ORDER BY number", None)
    }

    fn revision(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        self.link.run(|client| {
            Box::pin(async {
                let row = client.query_typed_one("SELECT revision FROM retinker.journal", &[]).await?;
                Ok(row.try_get::<_, i64>(0)?.unsigned_abs())
            })
        })
    }

    fn put(&self, document: Document) -> BoxFuture<'static, Result<Put, StoreError>> {
        self.link.run(move |client| Box::pin(put(client, document.clone())))
    }

    fn document(&self, kind: &str, key: &str) -> BoxFuture<'static, Result<Option<Document>, StoreError>> {
        let (kind, key) = (kind.to_owned(), key.to_owned());
        self.link.run(move |client| {
            let (kind, key) = (kind.clone(), key.clone());
            Box::pin(async move { find(client, &kind, &key).await })
        })
    }

    fn documents(&self, kind: &str) -> BoxFuture<'static, Result<Vec<Document>, StoreError>> {
        let kind = kind.to_owned();
        self.link.run(move |client| {
            let kind = kind.clone();
            Box::pin(async move {
                let sql =
                    "SELECT kind, key, version, body FROM retinker.documents WHERE kind = $1 ORDER BY key";
                client.query_typed(sql, &[text(&kind)]).await?.iter().map(read_document).collect()
            })
        })
    }
}

#[cfg(test)]
mod tests;
