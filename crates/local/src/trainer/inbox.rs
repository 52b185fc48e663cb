//! Where a trainer's commands arrive.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use retinker_wire::path::TinkerPath;
use tokio::sync::oneshot;

use super::job::{CreateFrom, Job};
use crate::futures::Outcome;
use crate::sync::lock;

/// What a trainer is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// Carry out a request in its turn.
    Job(Box<Job>),
    /// Make a run from a checkpoint.
    Create(Box<CreateFrom>),
    /// Forget a run; what waits for it fails like this.
    Unload(Arc<str>, Outcome),
    /// Put an earlier checkpoint of a run in the place of what is in memory, and say nothing of it.
    RollBack(Box<RollBack>),
    /// Look again whether a run still has to wait for a missing request.
    Recheck(Arc<str>),
}

/// A silent rollback.
#[derive(Debug)]
pub(crate) struct RollBack {
    pub(crate) run_id: Arc<str>,
    pub(crate) path: TinkerPath,
    /// Told what came of it.
    pub(crate) done: oneshot::Sender<Result<(), String>>,
}

/// Why a trainer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The service stops.
    Stopped,
    /// It was told to lose its memory.
    MemoryLost,
}

/// What became of the runs that a trainer held when it lost its memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) corrupted: Vec<String>,
    pub(crate) unharmed: Vec<String>,
}

/// Where a trainer's commands arrive. It outlives the trainer's thread.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct State {
    commands: VecDeque<Command>,
    stop: bool,
    /// Whether the trainer is to look around although nothing came.
    woken: bool,
    /// Who asked the trainer to lose its memory.
    lose: Vec<oneshot::Sender<Lost>>,
}

impl Inbox {
    /// Puts a command last.
    pub(crate) fn push(&self, command: Command) {
        lock(&self.state).commands.push_back(command);
        self.arrived.notify_one();
    }

    /// Makes the trainer look around.
    pub(crate) fn wake(&self) {
        lock(&self.state).woken = true;
        self.arrived.notify_one();
    }

    /// Tells the trainer to end after what it is doing.
    pub(crate) fn stop(&self) {
        lock(&self.state).stop = true;
        self.arrived.notify_one();
    }

    /// Tells the trainer to lose its memory after what it is doing, before anything that waits.
    pub(crate) fn lose_memory(&self) -> oneshot::Receiver<Lost> {
        let (sender, receiver) = oneshot::channel();
        lock(&self.state).lose.push(sender);
        self.arrived.notify_one();
        receiver
    }

    /// Answers those who asked for the loss.
    pub(crate) fn answer_loss(&self, lost: &Lost) {
        for asker in lock(&self.state).lose.drain(..) {
            // Whoever asked may have stopped waiting.
            let _ = asker.send(lost.clone());
        }
    }

    /// All commands, waiting up to `patience` (`None` = as long as it takes) for the first.
    pub(super) fn take(&self, patience: Option<Duration>) -> Result<VecDeque<Command>, Exit> {
        let mut state = lock(&self.state);
        loop {
            if state.stop {
                return Err(Exit::Stopped);
            }
            if !state.lose.is_empty() {
                return Err(Exit::MemoryLost);
            }
            if !state.commands.is_empty() || std::mem::take(&mut state.woken) {
                return Ok(std::mem::take(&mut state.commands));
            }
            state = match patience {
                None => self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(patience) => {
                    let (state, waited) =
                        self.arrived.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner);
                    let nothing = state.commands.is_empty() && !state.woken;
                    if waited.timed_out() && nothing && !state.stop && state.lose.is_empty() {
                        return Ok(VecDeque::new());
                    }
                    state
                }
            };
        }
    }
}
