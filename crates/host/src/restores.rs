//! Restores as background tasks: they go on when the page that asked is closed.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use retinker::recovery::executor::RestoreError;

use crate::host::Shared;

/// How often unfinished restores that nobody drives are looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// The restores that this host is carrying out now.
#[derive(Debug, Default)]
pub(crate) struct Driving(Mutex<BTreeSet<String>>);

impl Driving {
    fn set(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries a restore out in the background, unless that is being done.
pub(crate) fn drive(shared: &Arc<Shared>, restore_id: &str) {
    if !shared.driving.set().insert(restore_id.to_owned()) {
        return;
    }
    let (shared, restore_id) = (Arc::clone(shared), restore_id.to_owned());
    tokio::spawn(async move {
        let mut stopping = shared.stopping.clone();
        tokio::select! {
            outcome = shared.executor.run(&restore_id) => match outcome {
                Ok(_) => {}
                Err(RestoreError::DrivenElsewhere(_)) => {
                    tracing::info!(restore = %restore_id, "the restore is being carried out elsewhere");
                }
                // It stays unfinished in the journal, and is gone on with below.
                Err(error) => tracing::error!(restore = %restore_id, %error, "the restore was interrupted"),
            },
            // What is not done is in the journal: the next start goes on with it.
            _ = stopping.wait_for(|stop| *stop) => {}
        }
        shared.driving.set().remove(&restore_id);
    });
}

/// Goes on with what a crash or a stop cut off: at the start, and whenever something is left undone.
pub(crate) async fn resume(shared: Arc<Shared>) {
    loop {
        match shared.store.unfinished().await {
            Ok(records) => {
                for record in records {
                    drive(&shared, &record.id);
                }
            }
            Err(error) => tracing::error!(%error, "unfinished restores cannot be looked for"),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
