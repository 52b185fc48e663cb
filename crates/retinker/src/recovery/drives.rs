//! Restores as background tasks: they go on when whoever asked is gone.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{AbortHandle, abortable};

use super::executor::{Executor, RestoreError};
use crate::runtime::Runtime;

/// How often unfinished restores that nobody drives are looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// How often it is looked whether all are settled.
const LOOK: Duration = Duration::from_millis(50);

/// The restores that this process carries out. Cheap to clone.
#[derive(Clone)]
pub struct Drives {
    executor: Executor,
    runtime: Arc<dyn Runtime>,
    under_way: Arc<Mutex<UnderWay>>,
}

#[derive(Debug, Default)]
struct UnderWay {
    tasks: BTreeMap<String, AbortHandle>,
    stopped: bool,
}

impl fmt::Debug for Drives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drives").field("under_way", &*self.under_way()).finish_non_exhaustive()
    }
}

impl Drives {
    /// None yet.
    pub fn new(executor: Executor, runtime: Arc<dyn Runtime>) -> Self {
        Self { executor, runtime, under_way: Arc::default() }
    }

    /// What carries them out.
    pub fn executor(&self) -> &Executor {
        &self.executor
    }

    fn under_way(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are under way here.
    pub fn count(&self) -> usize {
        self.under_way().tasks.len()
    }

    /// Carries a restore out in the background, unless that is being done.
    pub fn drive(&self, restore_id: &str) {
        let (drives, id) = (self.clone(), restore_id.to_owned());
        let (task, handle) = abortable(async move {
            match drives.executor.run(&id).await {
                Ok(_) => {}
                Err(RestoreError::DrivenElsewhere(_)) => {
                    tracing::info!(restore = %id, "the restore is being carried out elsewhere");
                }
                // It stays unfinished in the journal, and is gone on with.
                Err(error) => tracing::error!(restore = %id, %error, "the restore was interrupted"),
            }
            drives.under_way().tasks.remove(&id);
        });
        {
            let mut under_way = self.under_way();
            if under_way.stopped || under_way.tasks.contains_key(restore_id) {
                return;
            }
            under_way.tasks.insert(restore_id.to_owned(), handle);
        }
        self.runtime.spawn(Box::pin(async move {
            // Cut off by a stop: what is not done is in the journal.
            let _ = task.await;
        }));
    }

    /// Goes on with what a crash or a stop cut off, here or elsewhere: at once, and whenever something is left undone.
    pub async fn resume(self) {
        loop {
            let now = self.runtime.now();
            let held = self.executor.held_until().is_some_and(|until| until > now);
            match self.executor.unfinished().await {
                // The service wants to be left alone.
                Ok(_) if held => {}
                Ok(records) => records.iter().for_each(|record| self.drive(&record.id)),
                Err(error) => tracing::error!(%error, "unfinished restores cannot be looked for"),
            }
            self.runtime.sleep(LOOK_AGAIN).await;
        }
    }

    /// Cuts off what is under way, and takes nothing more: the journal says where each restore is.
    pub fn stop(&self) {
        let tasks = {
            let mut under_way = self.under_way();
            under_way.stopped = true;
            std::mem::take(&mut under_way.tasks)
        };
        tasks.into_values().for_each(|task| task.abort());
    }

    /// Resolves when nothing is under way here.
    pub async fn settled(&self) {
        while self.count() > 0 {
            self.runtime.sleep(LOOK).await;
        }
    }
}
