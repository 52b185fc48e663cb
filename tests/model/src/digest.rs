//! What tells two values of the recovery layer apart, as far as a driver or the service could.

use std::hash::{DefaultHasher, Hash, Hasher};

use retinker::recovery::journal::Lease;
use retinker::recovery::restore::RestoreRecord;

/// A hash that is the same in every run.
pub fn of(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// All of a record that changes. Its story is for people, and its times stand still in the model.
pub fn record(record: &RestoreRecord) -> u64 {
    let attachment = record.attachment.as_ref().map(|a| (&a.session_id, &a.model_id, a.next_seq_id));
    let identity = (&record.id, record.state, &record.session_id, record.model_seq_id, &record.new_run_id);
    of((identity, attachment, record.probe_seq_id, &record.error, format!("{:?}", record.verification)))
}

/// A lease.
pub fn lease(lease: &Lease) -> u64 {
    of((&lease.restore_id, &lease.owner, lease.fence))
}
