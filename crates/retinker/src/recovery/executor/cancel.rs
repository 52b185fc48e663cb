//! Cancelling a restore: a wish in the journal, which whoever drives the restore carries out.
//!
//! What the driver has asked the service for cannot be called back, and what it is writing to the journal may still arrive. So
//! it drops its work, gives its lease back and takes another: the journal refuses what is written under the old one from then
//! on, and what was written before is read. A restore that was adopted meanwhile stays adopted.

use std::time::Duration;

use retinker_wire::session::FinishReason;
use retinker_wire::time::Time;
use serde::{Deserialize, Serialize};

use super::{Executor, LEASE_TTL, RestoreError};
use crate::recovery::journal::Lease;
use crate::recovery::journal::shelf::Shelf;
use crate::recovery::restore::{RestoreRecord, RestoreState};

const WISHES: Shelf<Wish> = Shelf::new("cancel");

/// How often the driver looks whether the restore is still wanted.
const LOOKS: Duration = Duration::from_secs(1);
/// How often whoever cancels looks whether the driver has done so.
const WAITS: Duration = Duration::from_millis(200);

/// That a restore is to be cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Wish {
    at: Time,
}

impl Executor {
    /// Stops a restore that is not done yet, whoever carries it out: nothing takes the old run's place, the new run's
    /// session is finished, and no monitor begins another restore of the run by itself. A restore that is cancelled already
    /// is answered as it is.
    ///
    /// # Errors
    /// [`RestoreError::NothingToCancel`] if it is done or has failed, maybe a moment ago. [`RestoreError::DrivenElsewhere`]
    /// if the program that carries it out has not let go of it for as long as a lease holds: the wish stands.
    pub async fn cancel(&self, restore_id: &str) -> Result<RestoreRecord, RestoreError> {
        let at = self.runtime.now();
        self.unsettled(restore_id).await?;
        let wished = WISHES.update(&*self.store, restore_id, |known| known.is_none().then_some(Wish { at }));
        wished.await.map(drop)?;
        let mut tries = (LEASE_TTL * 2).as_millis() / WAITS.as_millis();
        loop {
            let Some(_) = self.unsettled(restore_id).await? else { return self.read(restore_id).await };
            match self.lease(restore_id).await {
                Ok(lease) => {
                    let outcome = self.cancel_under(&lease).await;
                    let _ = self.store.release(&lease).await;
                    return outcome;
                }
                Err(RestoreError::DrivenElsewhere(_)) if tries > 0 => {
                    tries -= 1;
                    self.runtime.sleep(WAITS).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The restore, if it can be cancelled; `None` if it is.
    async fn unsettled(&self, restore_id: &str) -> Result<Option<RestoreRecord>, RestoreError> {
        let record = self.read(restore_id).await?;
        match record.state {
            RestoreState::Cancelled => Ok(None),
            state if state.is_settled() => {
                Err(RestoreError::NothingToCancel { id: record.id, state: state.as_str() })
            }
            _ => Ok(Some(record)),
        }
    }

    async fn cancel_under(&self, lease: &Lease) -> Result<RestoreRecord, RestoreError> {
        // Somebody else may have been sooner.
        let Some(mut record) = self.unsettled(&lease.restore_id).await? else {
            return self.read(&lease.restore_id).await;
        };
        let message = "Cancelled. Nothing was changed in the old run.".to_owned();
        self.end(lease, &mut record, RestoreState::Cancelled, message, FinishReason::Interrupted).await?;
        Ok(record)
    }

    /// Is ready once somebody wishes the restore cancelled.
    pub(super) async fn unwanted(&self, restore_id: &str) {
        loop {
            match WISHES.get(&*self.store, restore_id).await {
                Ok(Some(_)) => return,
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(restore = %restore_id, %error, "whether it is still wanted is not known")
                }
            }
            self.runtime.sleep(LOOKS).await;
        }
    }

    /// Cancels the restore that this one has driven until now; tells how it ended.
    pub(super) async fn let_go(&self, lease: &Lease) -> Result<RestoreRecord, RestoreError> {
        let _ = self.store.release(lease).await;
        match self.cancel(&lease.restore_id).await {
            Err(RestoreError::NothingToCancel { .. }) => self.read(&lease.restore_id).await,
            outcome => outcome,
        }
    }
}
