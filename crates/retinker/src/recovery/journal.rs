//! The recovery journal: what every restore writes before it acts.
//!
//! A store makes four promises. **One restore holds a run:** of all that begin at once, one is written and the
//! others are given it. **One driver at a time:** a restore is written to only under a lease whose time the store
//! measures with its own clock, and whose fence grows with each new holder, so that one who was thought dead is
//! refused. **Written means kept:** a call that has answered survives a crash (in memory: as long as the process).
//! **One service:** what is in a journal is driven against the service that the journal was first bound to.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_core::future::BoxFuture;
use serde_json::Value;

use self::machine::Machine;
use super::plan::SCHEMA_VERSION;
use super::restore::RestoreRecord;
use crate::runtime::Runtime;

/// Why the journal could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It cannot be read or written.
    #[error("the recovery journal cannot be used: {0}")]
    Unavailable(String),
    /// There is no such restore.
    #[error("the recovery journal knows no restore {0}")]
    NotFound(String),
    /// Somebody else drives this restore now.
    #[error("somebody else has taken over restore {0}")]
    LeaseLost(String),
    /// It was written by a newer version.
    #[error(
        "the recovery journal holds schema {found}, and this version knows {known}: use the newer retinker that wrote it"
    )]
    Newer {
        /// What was found.
        found: u32,
        /// The newest that is known here.
        known: u32,
    },
    /// Its restores belong to another service.
    #[error("the recovery journal belongs to the service {bound}, not to {asked}")]
    OtherService {
        /// The service that it was first used with.
        bound: String,
        /// The one that it should be used with now.
        asked: String,
    },
    /// An entry cannot be read.
    #[error("the recovery journal's entry {id} cannot be read: {reason}")]
    Damaged {
        /// Which.
        id: String,
        /// Why.
        reason: String,
    },
}

/// The right to write to one restore for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The restore.
    pub restore_id: String,
    /// Who holds it.
    pub owner: String,
    /// Grows with each new holder.
    pub fence: u64,
}

/// What came of beginning a restore.
#[derive(Debug, Clone, PartialEq)]
pub enum Begun {
    /// It is written.
    New(RestoreRecord),
    /// This one holds the run already; nothing was written.
    Existing(RestoreRecord),
}

/// Something that the journal keeps beside restores: a run that is left alone, the lifetime that a checkpoint had before it
/// was protected.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// What kind of thing, e.g. `opt_out`.
    pub kind: String,
    /// Which of them.
    pub key: String,
    /// How often it was written; 0 = it is not there yet.
    pub version: u64,
    /// What is known of it.
    pub body: Value,
}

/// What came of writing a document.
#[derive(Debug, Clone, PartialEq)]
pub enum Put {
    /// It is written, with its new version.
    Written(Document),
    /// It is there in another version than the writer knew, this one; nothing was written.
    Changed(Document),
}

/// The journal's home. See the module for what it promises.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Binds the journal to this service, for ever. Refused when it is bound to another.
    fn bind(&self, service: &str) -> BoxFuture<'static, Result<(), StoreError>>;
    /// Writes a new restore, unless one holds the same old run (see [`holds_the_run`](super::restore::RestoreState::holds_the_run)).
    fn begin(&self, record: RestoreRecord) -> BoxFuture<'static, Result<Begun, StoreError>>;
    /// Takes the lease for this long, or extends it where this owner has it. `None`: somebody else has it.
    fn acquire_lease(
        &self,
        restore_id: &str,
        owner: &str,
        ttl: Duration,
    ) -> BoxFuture<'static, Result<Option<Lease>, StoreError>>;
    /// Gives the lease back; one that is already lost is left alone.
    fn release(&self, lease: &Lease) -> BoxFuture<'static, Result<(), StoreError>>;
    /// Replaces the restore's record. Refused when the lease is lost or over.
    fn append(&self, lease: &Lease, record: RestoreRecord) -> BoxFuture<'static, Result<(), StoreError>>;
    /// One restore.
    fn get(&self, restore_id: &str) -> BoxFuture<'static, Result<Option<RestoreRecord>, StoreError>>;
    /// All restores, newest first.
    fn list(&self) -> BoxFuture<'static, Result<Vec<RestoreRecord>, StoreError>>;
    /// The restores of this run, newest first.
    fn by_old_run(&self, run_id: &str) -> BoxFuture<'static, Result<Vec<RestoreRecord>, StoreError>>;
    /// The restore that made this run.
    fn by_new_run(&self, run_id: &str) -> BoxFuture<'static, Result<Option<RestoreRecord>, StoreError>>;
    /// The restores that are not settled, oldest first.
    fn unfinished(&self) -> BoxFuture<'static, Result<Vec<RestoreRecord>, StoreError>>;
    /// Grows with each restore and document that is written, by whomever. Who has read the journal at this revision need not
    /// read it again.
    fn revision(&self) -> BoxFuture<'static, Result<u64, StoreError>>;
    /// Writes a document whose `version` is the one that the writer has read, 0 for a new one. Of several writers that have
    /// read the same, one writes.
    fn put(&self, document: Document) -> BoxFuture<'static, Result<Put, StoreError>>;
    /// One document.
    fn document(&self, kind: &str, key: &str) -> BoxFuture<'static, Result<Option<Document>, StoreError>>;
    /// All documents of a kind, by key.
    fn documents(&self, kind: &str) -> BoxFuture<'static, Result<Vec<Document>, StoreError>>;
}

/// Refuses a journal that is bound to another service than this one.
pub fn check_service(bound: &str, asked: &str) -> Result<(), StoreError> {
    if bound != asked {
        return Err(StoreError::OtherService { bound: bound.to_owned(), asked: asked.to_owned() });
    }
    Ok(())
}

/// Refuses a record that a newer version wrote.
pub fn check_schema(record: &RestoreRecord) -> Result<(), StoreError> {
    if record.plan.schema > SCHEMA_VERSION {
        return Err(StoreError::Newer { found: record.plan.schema, known: SCHEMA_VERSION });
    }
    Ok(())
}

/// A journal that lives as long as the process. Its clock is the runtime's monotonic one.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    runtime: Arc<dyn Runtime>,
    restores: Arc<Mutex<Machine>>,
    /// By kind and key.
    documents: Arc<Mutex<BTreeMap<(String, String), Document>>>,
    revision: Arc<AtomicU64>,
    service: Arc<OnceLock<String>>,
}

impl MemoryStore {
    /// An empty journal.
    pub fn new(runtime: Arc<dyn Runtime>) -> Self {
        Self {
            runtime,
            restores: Arc::default(),
            documents: Arc::default(),
            revision: Arc::default(),
            service: Arc::default(),
        }
    }

    fn shelf(&self) -> MutexGuard<'_, BTreeMap<(String, String), Document>> {
        self.documents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn written(&self) {
        self.revision.fetch_add(1, Ordering::Relaxed);
    }

    fn restores(&self) -> MutexGuard<'_, Machine> {
        // A panic elsewhere leaves the restores whole: every change to them is one assignment.
        self.restores.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn select(&self, keep: &dyn Fn(&RestoreRecord) -> bool) -> Vec<RestoreRecord> {
        self.restores().select(keep)
    }

    fn put_now(&self, mut document: Document) -> Put {
        let mut documents = self.shelf();
        let place = (document.kind.clone(), document.key.clone());
        match documents.get(&place) {
            Some(found) if found.version != document.version => return Put::Changed(found.clone()),
            None if document.version != 0 => {
                return Put::Changed(Document { version: 0, body: Value::Null, ..document });
            }
            _ => {}
        }
        document.version += 1;
        documents.insert(place, document.clone());
        self.written();
        Put::Written(document)
    }
}

fn ready<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    Box::pin(std::future::ready(value))
}

impl Store for MemoryStore {
    fn bind(&self, service: &str) -> BoxFuture<'static, Result<(), StoreError>> {
        ready(check_service(self.service.get_or_init(|| service.to_owned()), service))
    }

    fn begin(&self, record: RestoreRecord) -> BoxFuture<'static, Result<Begun, StoreError>> {
        let mut restores = self.restores();
        let begun = restores.begin(record);
        if matches!(begun, Ok(Begun::New(_))) {
            self.written();
        }
        ready(begun)
    }

    fn acquire_lease(
        &self,
        restore_id: &str,
        owner: &str,
        ttl: Duration,
    ) -> BoxFuture<'static, Result<Option<Lease>, StoreError>> {
        ready(self.restores().acquire(self.runtime.monotonic(), restore_id, owner, ttl))
    }

    fn release(&self, lease: &Lease) -> BoxFuture<'static, Result<(), StoreError>> {
        self.restores().release(lease);
        ready(Ok(()))
    }

    fn append(&self, lease: &Lease, record: RestoreRecord) -> BoxFuture<'static, Result<(), StoreError>> {
        let mut restores = self.restores();
        let appended = restores.append(self.runtime.monotonic(), lease, record);
        if appended.is_ok() {
            self.written();
        }
        ready(appended)
    }

    fn get(&self, restore_id: &str) -> BoxFuture<'static, Result<Option<RestoreRecord>, StoreError>> {
        ready(Ok(self.restores().get(restore_id).cloned()))
    }

    fn list(&self) -> BoxFuture<'static, Result<Vec<RestoreRecord>, StoreError>> {
        ready(Ok(self.select(&|_| true)))
    }

    fn by_old_run(&self, run_id: &str) -> BoxFuture<'static, Result<Vec<RestoreRecord>, StoreError>> {
        ready(Ok(self.select(&|record| record.plan.run_id == run_id)))
    }

    fn by_new_run(&self, run_id: &str) -> BoxFuture<'static, Result<Option<RestoreRecord>, StoreError>> {
        let found = self.select(&|record| record.new_run_id.as_deref() == Some(run_id));
        // A run is made by one restore; should two name it, the one that adopted it counts.
        ready(Ok(found.into_iter().min_by_key(|record| !record.state.holds_the_run())))
    }

    fn unfinished(&self) -> BoxFuture<'static, Result<Vec<RestoreRecord>, StoreError>> {
        let mut found = self.select(&|record| !record.state.is_settled());
        found.reverse();
        ready(Ok(found))
    }

    fn revision(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        ready(Ok(self.revision.load(Ordering::Relaxed)))
    }

    fn put(&self, document: Document) -> BoxFuture<'static, Result<Put, StoreError>> {
        ready(Ok(self.put_now(document)))
    }

    fn document(&self, kind: &str, key: &str) -> BoxFuture<'static, Result<Option<Document>, StoreError>> {
        ready(Ok(self.shelf().get(&(kind.to_owned(), key.to_owned())).cloned()))
    }

    fn documents(&self, kind: &str) -> BoxFuture<'static, Result<Vec<Document>, StoreError>> {
        let documents = self.shelf();
        ready(Ok(documents.values().filter(|document| document.kind == kind).cloned().collect()))
    }
}

#[cfg(any(test, feature = "test-util"))]
pub mod conformance;
pub mod machine;
pub(crate) mod shelf;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::{ManualRuntime, test};

    #[test]
    fn the_one_in_memory_keeps_every_promise() {
        let runtime = ManualRuntime::new();
        let fresh = async || Arc::new(MemoryStore::new(Arc::new(runtime.clone()))) as Arc<dyn Store>;
        runtime.block_on(conformance::all(fresh));
    }
}
