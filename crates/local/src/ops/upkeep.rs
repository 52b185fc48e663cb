//! What is done every second: sessions and checkpoints whose time has come, and progress that is noted.

use std::sync::Arc;
use std::time::Duration;

use crate::core::Core;
use crate::db::sql;

/// How often.
const PERIOD: Duration = Duration::from_secs(1);

/// Does it until the service stops.
pub(crate) async fn keep_up(core: Arc<Core>) {
    let mut stopping = core.stopping.subscribe();
    loop {
        tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
        core.expire_sessions().await;
        core.delete_expired().await;
        core.note_progress().await;
    }
}

impl Core {
    /// Writes when runs were last asked for something, and how far they are. For people and for a quick reload; what must
    /// not be lost is written when it happens.
    pub(crate) async fn note_progress(&self) {
        let written = {
            let mut index = self.index();
            let progress = index.take_progress();
            if progress.is_empty() {
                return;
            }
            self.db.write(move |c| progress.iter().try_for_each(|p| sql::note_progress(c, p)))
        };
        if let Err(error) = written.done().await {
            tracing::warn!(%error, "the runs' progress could not be noted");
        }
    }
}
