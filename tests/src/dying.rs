//! A journal at whose chosen instruction the process dies, by SIGKILL: no destructor runs, nothing is flushed.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::BoxFuture;
use retinker::client::Api;
use retinker::native::NativeRuntime;
use retinker::recovery::journal::{Begun, Document, Lease, Put, Store, StoreError};
use retinker::recovery::restore::RestoreRecord;
use retinker::runtime::Runtime;
use retinker_store::Location;

use crate::process;

/// When the process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Death {
    /// At which of the writes, to restores and documents, from 1; 0 for never.
    pub write: u64,
    /// After it was done, or before.
    pub after: bool,
}

/// The journal.
#[derive(Debug, Clone)]
pub struct DyingStore {
    store: Arc<dyn Store>,
    death: Death,
    writes: Arc<AtomicU64>,
    /// Leases that were asked for, by restore and owner.
    leased: Arc<Mutex<BTreeSet<(String, String)>>>,
}

impl DyingStore {
    /// This one, until then.
    pub fn new(store: Arc<dyn Store>, death: Death) -> Self {
        Self { store, death, writes: Arc::default(), leased: Arc::default() }
    }

    /// What a program that is to die is made of, by its arguments: the service, a journal bound to it, and time.
    pub async fn open(
        url: &str,
        journal: &str,
        write: &str,
        when: &str,
    ) -> Result<(Api, Arc<dyn Store>, Arc<dyn Runtime>)> {
        let death = Death { write: write.parse().context("the write is no number")?, after: when == "after" };
        let runtime = Arc::new(NativeRuntime::current().context("there is no runtime")?);
        let journal = Location::from(OsString::from(journal));
        let store: Arc<dyn Store> = Arc::new(Self::new(retinker_store::open(&journal).await?, death));
        let api = crate::service::api(url)?;
        store.bind(api.base_url()).await?;
        Ok((api, store, runtime))
    }

    /// Does a write, if the process lives so long.
    fn write<T: Send + 'static>(
        &self,
        act: impl FnOnce(Arc<dyn Store>) -> BoxFuture<'static, T> + Send + 'static,
    ) -> BoxFuture<'static, T> {
        let this = self.clone();
        Box::pin(async move {
            let now = this.writes.fetch_add(1, Ordering::SeqCst) + 1 == this.death.write;
            if now && !this.death.after {
                process::die();
            }
            // Only now: a store may begin its work when it is called.
            let answer = act(Arc::clone(&this.store)).await;
            if now {
                process::die();
            }
            answer
        })
    }
}

impl Store for DyingStore {
    fn bind(&self, service: &str) -> BoxFuture<'static, Result<(), StoreError>> {
        self.store.bind(service)
    }
    fn begin(&self, record: RestoreRecord) -> BoxFuture<'static, Result<Begun, StoreError>> {
        self.write(move |store| store.begin(record))
    }
    fn acquire_lease(
        &self,
        restore_id: &str,
        owner: &str,
        ttl: Duration,
    ) -> BoxFuture<'static, Result<Option<Lease>, StoreError>> {
        let (id, owner) = (restore_id.to_owned(), owner.to_owned());
        // How often a lease is renewed is a matter of time.
        if !self.leased.lock().unwrap_or_else(PoisonError::into_inner).insert((id.clone(), owner.clone())) {
            return self.store.acquire_lease(&id, &owner, ttl);
        }
        self.write(move |store| store.acquire_lease(&id, &owner, ttl))
    }
    fn release(&self, lease: &Lease) -> BoxFuture<'static, Result<(), StoreError>> {
        let lease = lease.clone();
        self.write(move |store| store.release(&lease))
    }
    fn append(&self, lease: &Lease, record: RestoreRecord) -> BoxFuture<'static, Result<(), StoreError>> {
        let lease = lease.clone();
        self.write(move |store| store.append(&lease, record))
    }
    fn get(&self, restore_id: &str) -> BoxFuture<'static, Result<Option<RestoreRecord>, StoreError>> {
        self.store.get(restore_id)
    }
    fn list(&self) -> BoxFuture<'static, Result<Vec<RestoreRecord>, StoreError>> {
        self.store.list()
    }
    fn by_old_run(&self, run_id: &str) -> BoxFuture<'static, Result<Vec<RestoreRecord>, StoreError>> {
        self.store.by_old_run(run_id)
    }
    fn by_new_run(&self, run_id: &str) -> BoxFuture<'static, Result<Option<RestoreRecord>, StoreError>> {
        self.store.by_new_run(run_id)
    }
    fn unfinished(&self) -> BoxFuture<'static, Result<Vec<RestoreRecord>, StoreError>> {
        self.store.unfinished()
    }
    fn revision(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        self.store.revision()
    }
    fn put(&self, document: Document) -> BoxFuture<'static, Result<Put, StoreError>> {
        self.write(move |store| store.put(document))
    }
    fn document(&self, kind: &str, key: &str) -> BoxFuture<'static, Result<Option<Document>, StoreError>> {
        self.store.document(kind, key)
    }
    fn documents(&self, kind: &str) -> BoxFuture<'static, Result<Vec<Document>, StoreError>> {
        self.store.documents(kind)
    }
}
