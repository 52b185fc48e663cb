//! Restores and their leases as a pure state machine: what it is told, and the time with it. It has no clock, no lock
//! and no disk, so that a model checker can try every order of events on the very code that
//! [`MemoryStore`](super::MemoryStore) runs; see `tests/model`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Begun, Lease, StoreError, check_schema};
use crate::recovery::restore::RestoreRecord;

/// The restores of one journal. Times are the journal's own, from an arbitrary origin.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    entries: BTreeMap<String, Entry>,
}

/// A restore, and who may write to it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// In which order the restores began.
    number: u64,
    /// What was written last; shared, so that a copy of the machine is cheap.
    pub record: Arc<RestoreRecord>,
    /// Who took the lease last, and until when it holds; `None` once it is given back.
    pub holder: Option<(String, Duration)>,
    /// How often the lease was taken by a new holder.
    pub fence: u64,
}

impl Machine {
    /// Writes a new restore, unless one holds the same old run.
    pub fn begin(&mut self, record: RestoreRecord) -> Result<Begun, StoreError> {
        check_schema(&record)?;
        let mut held = self.entries.values().map(|entry| &entry.record);
        if let Some(found) = held.find(|r| r.plan.run_id == record.plan.run_id && r.state.holds_the_run()) {
            return Ok(Begun::Existing(RestoreRecord::clone(found)));
        }
        if self.entries.contains_key(&record.id) {
            return Err(StoreError::Unavailable(format!("restore {} exists already", record.id)));
        }
        let number = self.entries.values().map(|entry| entry.number).max().map_or(0, |n| n + 1);
        let entry = Entry { number, record: Arc::new(record.clone()), holder: None, fence: 0 };
        self.entries.insert(record.id.clone(), entry);
        Ok(Begun::New(record))
    }

    /// Takes the lease until `now + ttl`, or extends it where this owner has it. `None`: somebody else has it.
    pub fn acquire(
        &mut self,
        now: Duration,
        restore_id: &str,
        owner: &str,
        ttl: Duration,
    ) -> Result<Option<Lease>, StoreError> {
        let entry = self.entry(restore_id)?;
        match &entry.holder {
            Some((holder, until)) if *until > now && holder != owner => return Ok(None),
            Some((_, until)) if *until > now => {}
            _ => entry.fence += 1,
        }
        entry.holder = Some((owner.to_owned(), now.saturating_add(ttl)));
        Ok(Some(Lease { restore_id: restore_id.to_owned(), owner: owner.to_owned(), fence: entry.fence }))
    }

    /// Gives the lease back; one that is already lost is left alone.
    pub fn release(&mut self, lease: &Lease) {
        if let Some(entry) = self.entries.get_mut(&lease.restore_id)
            && entry.fence == lease.fence
        {
            entry.holder = None;
        }
    }

    /// Replaces the restore's record. Refused when the lease is lost or over.
    pub fn append(&mut self, now: Duration, lease: &Lease, record: RestoreRecord) -> Result<(), StoreError> {
        check_schema(&record)?;
        let entry = self.entry(&lease.restore_id)?;
        let held = entry.fence == lease.fence
            && entry.holder.as_ref().is_some_and(|(owner, until)| *owner == lease.owner && *until > now);
        if !held || record.id != lease.restore_id {
            return Err(StoreError::LeaseLost(lease.restore_id.clone()));
        }
        entry.record = Arc::new(record);
        Ok(())
    }

    /// One restore.
    pub fn get(&self, restore_id: &str) -> Option<&RestoreRecord> {
        self.entries.get(restore_id).map(|entry| &*entry.record)
    }

    /// The restores that are wanted, newest first.
    pub fn select(&self, keep: &dyn Fn(&RestoreRecord) -> bool) -> Vec<RestoreRecord> {
        let mut found: Vec<&Entry> = self.entries.values().filter(|entry| keep(&entry.record)).collect();
        found.sort_by_key(|entry| std::cmp::Reverse(entry.number));
        found.into_iter().map(|entry| RestoreRecord::clone(&entry.record)).collect()
    }

    /// All restores with their leases, by id.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    fn entry(&mut self, restore_id: &str) -> Result<&mut Entry, StoreError> {
        self.entries.get_mut(restore_id).ok_or_else(|| StoreError::NotFound(restore_id.to_owned()))
    }
}
