//! Failures on purpose, and for real.

use std::sync::Arc;

use crate::core::Core;

/// Makes a service fail, so that recovery can be tried out.
#[derive(Debug, Clone)]
pub struct Faults {
    core: Arc<Core>,
}

/// What became of the runs of a trainer that lost its memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoppedTrainer {
    /// Runs that lost unsaved work and are now `corrupted`.
    pub corrupted: Vec<String>,
    /// Runs that had nothing unsaved; they are reloaded when next asked for.
    pub unharmed: Vec<String>,
}

/// Why a failure could not be brought about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// There is no such run.
    #[error("training run {0} does not exist")]
    UnknownRun(String),
    /// The run has not been asked to do anything since the service started, so no trainer holds it.
    #[error("no trainer holds training run {0}: it was not asked for anything since the service started")]
    NotHeld(String),
    /// The service is stopping.
    #[error("the service is stopping")]
    Stopping,
}

impl Faults {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// Ends the very thread that holds this run, after the request that it is carrying out. All that it had in memory is gone:
    /// of all runs that it held, those with unsaved work become corrupted, with a reason. A new trainer takes over.
    pub async fn stop_trainer_of(&self, run_id: &str) -> Result<StoppedTrainer, FaultError> {
        let trainer = {
            let index = self.core.index();
            let run = index.run(run_id).ok_or_else(|| FaultError::UnknownRun(run_id.to_owned()))?;
            run.trainer.ok_or_else(|| FaultError::NotHeld(run_id.to_owned()))?
        };
        let inbox = self.core.inbox(trainer).ok_or_else(|| FaultError::NotHeld(run_id.to_owned()))?;
        let lost = inbox.lose_memory().await.map_err(|_| FaultError::Stopping)?;
        Ok(StoppedTrainer { corrupted: lost.corrupted, unharmed: lost.unharmed })
    }
}
