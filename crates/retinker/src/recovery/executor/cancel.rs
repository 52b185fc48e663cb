//! Cancelling a restore: a wish in the journal, which whoever drives the restore carries out.
//!
//! What the driver has asked the service for cannot be called back, and what it is writing to the journal may still arrive. So
//! it drops its work, gives its lease back and takes another: the journal refuses what is written under the old one from then
//! on, and what was written before is read. A restore that was adopted meanwhile stays adopted.

use std::time::Duration;

use retinker_wire::session::FinishReason;
use retinker_wire::time::Time;
use serde::{Deserialize, Serialize};

use super::{Executor, RestoreError};
use crate::recovery::journal::Lease;
use crate::recovery::journal::shelf::Shelf;
use crate::recovery::restore::{RestoreRecord, RestoreState};

const WISHES: Shelf<Wish> = Shelf::new("cancel");

/// How often the driver looks whether the restore is still wanted.
const LOOKS: Duration = Duration::from_secs(1);
/// How often, and after which pause each, whoever cancels looks whether the driver has let go: twice as long as a lease holds.
const TRIES: (u32, Duration) = (150, Duration::from_millis(200));

/// That a restore is to be cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Wish {
    at: Time,
    /// On whose behalf; empty in a wish that does not tell it.
    #[serde(default)]
    by: String,
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
        is_cancelled(&self.read(restore_id).await?)?;
        let at = self.runtime.now();
        let wish = Wish { at, by: self.by.to_string() };
        let wished =
            WISHES.update(&*self.store, restore_id, |known| known.is_none().then(|| wish.clone())).await?;
        // Whoever was first has it cancelled, whoever carries that out.
        let Wish { by, .. } = match wished {
            Ok(first) | Err(Some(first)) => first,
            Err(None) => wish,
        };
        let (mut record, lease) = self.claim(restore_id, TRIES, is_cancelled).await?;
        let Some(lease) = lease else { return Ok(record) };
        let message = format!("Cancelled by {by}. Nothing was changed in the old run.");
        let ended =
            self.end(&lease, &mut record, RestoreState::Cancelled, message, FinishReason::Interrupted).await;
        let _ = self.store.release(&lease).await;
        ended.map(|()| record)
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

/// Whether the restore is cancelled; an error where it cannot be any more.
fn is_cancelled(record: &RestoreRecord) -> Result<bool, RestoreError> {
    match record.state {
        RestoreState::Cancelled => Ok(true),
        state if state.is_settled() => {
            Err(RestoreError::NothingToCancel { id: record.id.clone(), state: state.as_str() })
        }
        _ => Ok(false),
    }
}
