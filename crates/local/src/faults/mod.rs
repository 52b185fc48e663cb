//! Failures on purpose, and for real.

mod checkpoints;
mod line;
mod rules;

use std::sync::Arc;

use retinker_wire::path::TinkerPath;

pub use checkpoints::{Damage, Damaged};
pub(crate) use line::{Line, Lines};
pub(crate) use rules::{API_PREFIX, Rules};
pub use rules::{ActiveFaults, DropWhen, OperationRule, Pause, RequestFault, RequestRule};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::core::Core;
use crate::db::DbError;
use crate::futures::Outcome;
use crate::trainer::{Command, RollBack};

/// Makes a service fail, so that recovery can be tried out.
///
/// Rules for what is still to come need a service that was started with faults (`LocalConfig::faults`); what is done at
/// once can be done to any.
#[derive(Debug, Clone)]
pub struct Faults {
    core: Arc<Core>,
}

/// What became of the runs of a trainer that lost its memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoppedTrainer {
    /// Runs that lost unsaved work and are now `corrupted`.
    pub corrupted: Vec<String>,
    /// Runs that had nothing unsaved; they are reloaded when next asked for.
    pub unharmed: Vec<String>,
}

/// Why a failure could not be brought about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// The service was started without faults.
    #[error("faults are off: start the service with --faults")]
    Off,
    /// What was asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// There is no such run.
    #[error("training run {0} does not exist")]
    UnknownRun(String),
    /// The run has not been asked to do anything since the service started, so no trainer holds it.
    #[error("no trainer holds training run {0}: it was not asked for anything since the service started")]
    NotHeld(String),
    /// The run is corrupted already.
    #[error("training run {run_id} is corrupted already: {reason}")]
    Corrupted {
        /// The run.
        run_id: String,
        /// Why.
        reason: String,
    },
    /// There is no such checkpoint.
    #[error("checkpoint {0} does not exist")]
    UnknownCheckpoint(TinkerPath),
    /// The disk or the database did not do what it should.
    #[error("{0}")]
    Storage(String),
    /// The service is stopping.
    #[error("the service is stopping")]
    Stopping,
}

impl From<DbError> for FaultError {
    fn from(error: DbError) -> Self {
        Self::Storage(error.to_string())
    }
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

    /// Corrupts a run for this reason. What it had in memory is gone, and the requests that wait fail.
    pub async fn poison(&self, run_id: &str, reason: &str) -> Result<(), FaultError> {
        let ticket = {
            let mut index = self.core.index();
            let run = index.run_mut(run_id).ok_or_else(|| FaultError::UnknownRun(run_id.to_owned()))?;
            if let Some(reason) = &run.corrupted {
                return Err(FaultError::Corrupted { run_id: run_id.to_owned(), reason: reason.clone() });
            }
            let ticket = self.core.mark_corrupted(run, reason.to_owned());
            let (id, trainer) = (Arc::clone(&run.new.run_id), run.trainer);
            let outcome = index.run(run_id).and_then(|run| Core::unusable(&index, run));
            if let Some(inbox) = trainer.and_then(|trainer| self.core.inbox(trainer)) {
                inbox.push(Command::Unload(id, outcome.unwrap_or_else(|| Outcome::server(reason))));
            }
            ticket
        };
        tracing::warn!(run = run_id, "corrupted on purpose: {reason}");
        Ok(ticket.done().await?)
    }

    /// Puts a checkpoint of a run in the place of what is in its memory, after the request that is being carried out. Nothing
    /// tells of it: the run goes on as if it had not trained since, as TuFT's do after a restart.
    pub async fn roll_back(&self, path: &TinkerPath) -> Result<(), FaultError> {
        self.checkpoint(path)?;
        let run_id = &path.training_run_id;
        let (run_id, trainer) = {
            let index = self.core.index();
            let run = index.run(run_id).ok_or_else(|| FaultError::UnknownRun(run_id.clone()))?;
            if let Some(reason) = &run.corrupted {
                return Err(FaultError::Corrupted { run_id: run_id.clone(), reason: reason.clone() });
            }
            let trainer = run.trainer.ok_or_else(|| FaultError::NotHeld(run_id.clone()))?;
            (Arc::clone(&run.new.run_id), trainer)
        };
        let inbox = self.core.inbox(trainer).ok_or_else(|| FaultError::NotHeld(run_id.to_string()))?;
        let (done, told) = oneshot::channel();
        let asked = RollBack { run_id, path: path.clone(), done };
        inbox.push(Command::RollBack(Box::new(asked)));
        told.await.map_err(|_| FaultError::Stopping)?.map_err(FaultError::Invalid)
    }

    /// Makes something happen to the next requests of an endpoint.
    pub fn add_request_rule(&self, rule: RequestRule) -> Result<(), FaultError> {
        self.core.faults.add_request_rule(rule)
    }

    /// Makes the next operations fail when their turn comes, with nothing done.
    pub fn add_operation_rule(&self, rule: OperationRule) -> Result<(), FaultError> {
        self.core.faults.add_operation_rule(rule)
    }

    /// Lets all work rest. What was accepted waits, and clients are told why; what is being carried out is finished.
    pub fn pause(&self, pause: Pause) -> Result<(), FaultError> {
        self.core.faults.pause(pause)?;
        self.wake_trainers();
        Ok(())
    }

    /// Lets work go on.
    pub fn resume(&self) {
        self.core.faults.resume();
        self.wake_trainers();
    }

    /// Lets the next loads that are to bring the optimizer's state leave it behind, and say nothing of it.
    pub fn add_cold_loads(&self, times: u32) -> Result<(), FaultError> {
        self.core.faults.add_cold_loads(times)
    }

    /// Lets each number that a pass gives be off by up to this part of itself, 0 to 1, as on a service whose arithmetic depends on
    /// what else it does. The weights are not touched.
    pub fn set_noise(&self, relative: f64) -> Result<(), FaultError> {
        self.core.faults.set_noise(relative)
    }

    /// The rules that still stand.
    pub fn active(&self) -> ActiveFaults {
        self.core.faults.active()
    }

    /// Drops all rules, and lets work go on.
    pub fn clear(&self) {
        self.core.faults.clear();
        self.wake_trainers();
    }

    fn wake_trainers(&self) {
        for inbox in &self.core.inboxes {
            inbox.wake();
        }
    }
}
