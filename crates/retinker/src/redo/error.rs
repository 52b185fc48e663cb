//! Why a run could not be made anew.

use std::fmt;

use super::log::LogError;
use crate::client::Error;

/// Why a run with a redo log could not be made, or made anew.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RedoError {
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The service did not do it.
    #[error("{0}")]
    Service(Error),
    /// The log is of another run.
    #[error(
        "the redo log {log} is of another run: it has {kept}, where {asked} was asked for. Give each run a log of its own."
    )]
    OtherRun {
        /// Which log.
        log: String,
        /// What is in it.
        kept: String,
        /// What was asked for.
        asked: String,
    },
    /// No checkpoint that the log stands on can be restored.
    #[error("no checkpoint that the redo log stands on can be restored; the last one that was tried: {last}")]
    NoStart {
        /// Why the last one cannot be.
        last: String,
    },
    /// A replayed result is not the one that was recorded.
    #[error("{0}")]
    Mismatch(Box<Mismatch>),
    /// What failed when it was first sent did not when it was replayed.
    #[error(
        "{operation} failed when it was first sent, and did not fail when it was replayed: the run would be another one from there \
         on. Go on from the checkpoint by hand."
    )]
    FailsNoMore {
        /// The operation, and the step of the optimizer before it.
        operation: String,
    },
    /// The run was lost twice while the same request was carried out.
    #[error(
        "{operation} seems to be what the run is lost by: it was being carried out each of the {times} times. It is not sent again. \
         Look at its data, and go on from the checkpoint without it."
    )]
    PoisonPill {
        /// The operation, and the step of the optimizer before it.
        operation: String,
        /// How often.
        times: u32,
    },
    /// Nothing is known of this step any more, or yet.
    #[error("step {step} cannot be gone back to: the redo log covers steps {first} to {last}")]
    NotCovered {
        /// The step that was asked for.
        step: u64,
        /// The first that can be.
        first: u64,
        /// The last.
        last: u64,
    },
    /// The client that the log belonged to is gone.
    #[error("the training client is gone, and its redo log with it")]
    Gone,
}

/// A replayed result that is not the one that was recorded, and those before it.
#[derive(Debug, Clone, PartialEq)]
pub struct Mismatch {
    /// The operation, and the step of the optimizer before it.
    pub operation: String,
    /// The number that differs.
    pub what: String,
    /// What it was.
    pub recorded: f64,
    /// What it is.
    pub replayed: f64,
    /// The losses (`loss:sum`) of the passes since the checkpoint, this one's last, as recorded.
    pub recorded_losses: Vec<f64>,
    /// The same as replayed.
    pub replayed_losses: Vec<f64>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, what, recorded, replayed, recorded_losses, replayed_losses } = self;
        write!(
            f,
            "{what} of {operation} was {recorded}, and is {replayed} after the replay. The losses since the checkpoint were \
             {recorded_losses:?} and are {replayed_losses:?}. The service does not come to the same again: give a tolerance that it \
             keeps, or go on from the checkpoint by hand."
        )
    }
}
