//! Documents of one kind as values of one type.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Document, Put, Store, StoreError};
use crate::json;

/// The documents of one kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shelf<T> {
    kind: &'static str,
    holds: PhantomData<fn() -> T>,
}

/// A value as it stands in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept<T> {
    /// How often it was written.
    pub(crate) version: u64,
    pub(crate) value: T,
}

impl<T: Serialize + DeserializeOwned> Shelf<T> {
    pub(crate) const fn new(kind: &'static str) -> Self {
        Self { kind, holds: PhantomData }
    }

    /// One value.
    pub(crate) async fn get(&self, store: &dyn Store, key: &str) -> Result<Option<Kept<T>>, StoreError> {
        store.document(self.kind, key).await?.map(|document| self.read(document)).transpose()
    }

    /// All values, by key.
    pub(crate) async fn all(&self, store: &dyn Store) -> Result<BTreeMap<String, T>, StoreError> {
        let documents = store.documents(self.kind).await?;
        documents.into_iter().map(|document| Ok((document.key.clone(), self.read(document)?.value))).collect()
    }

    /// Writes a value over the version that was read, 0 for a new one. `Err(Some)` within: somebody else has written
    /// this one meanwhile; `Err(None)`: there is none of that version.
    pub(crate) async fn put(
        &self,
        store: &dyn Store,
        key: &str,
        version: u64,
        value: &T,
    ) -> Result<Result<(), Option<Kept<T>>>, StoreError> {
        let body = serde_json::to_value(value).map_err(|error| {
            StoreError::Unavailable(format!("{} {key} cannot be written: {error}", self.kind))
        })?;
        let document = Document { kind: self.kind.to_owned(), key: key.to_owned(), version, body };
        Ok(match store.put(document).await? {
            Put::Written(_) => Ok(()),
            Put::Changed(Document { version: 0, body: Value::Null, .. }) => Err(None),
            Put::Changed(other) => Err(Some(self.read(other)?)),
        })
    }

    /// Changes a value, whoever else does at the same time. `change` is given what is there, and answers what is to be there;
    /// `None` leaves it. What is there afterwards: `Ok` within if it was written now, `Err` if it was left.
    pub(crate) async fn update(
        &self,
        store: &dyn Store,
        key: &str,
        change: impl Fn(Option<&T>) -> Option<T>,
    ) -> Result<Result<T, Option<T>>, StoreError> {
        let mut kept = self.get(store, key).await?;
        loop {
            let Some(value) = change(kept.as_ref().map(|kept| &kept.value)) else {
                return Ok(Err(kept.map(|kept| kept.value)));
            };
            let version = kept.map_or(0, |kept| kept.version);
            match self.put(store, key, version, &value).await? {
                Ok(()) => return Ok(Ok(value)),
                Err(other) => kept = other,
            }
        }
    }

    fn read(&self, document: Document) -> Result<Kept<T>, StoreError> {
        let Document { key, version, body, .. } = document;
        let value = json::of(&body).map_err(|error| StoreError::Damaged {
            id: format!("{} {key}", self.kind),
            reason: error.to_string(),
        })?;
        Ok(Kept { version, value })
    }
}
