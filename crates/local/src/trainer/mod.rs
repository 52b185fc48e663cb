//! The trainers: threads that hold runs in their memory and carry out their requests in order.
//!
//! A run belongs to one trainer. What a trainer holds lives on its thread and dies with it; a supervisor then notes
//! which runs lost work, and starts a trainer with an empty memory.

mod aside;
mod batch;
mod inbox;
mod job;
mod queue;
mod run_state;
mod states;
mod storage;
mod worker;

use std::sync::Arc;
use std::thread::JoinHandle;

pub(crate) use inbox::{Command, Exit, Inbox, Lost, RollBack};
pub(crate) use job::{CreateFrom, ForwardBackward, Job, Load, Op, Refusal, Save, SaveForSampler};

pub(crate) use storage::{expiry, folder};

use crate::core::Core;

/// Starts the trainers, each with its supervisor.
pub(crate) fn start(core: &Arc<Core>) -> std::io::Result<Vec<JoinHandle<()>>> {
    (0..core.trainers())
        .map(|trainer| {
            let core = Arc::clone(core);
            std::thread::Builder::new()
                .name(format!("retinker-watch-{trainer}"))
                .spawn(move || supervise(&core, trainer))
        })
        .collect()
}

/// Tells the trainers to end and waits until they have finished what they were doing. Blocks.
pub(crate) fn stop(core: &Core, supervisors: Vec<JoinHandle<()>>) {
    for inbox in &core.inboxes {
        inbox.stop();
    }
    for supervisor in supervisors {
        if supervisor.join().is_err() {
            tracing::error!("a trainer's supervisor ended in a panic");
        }
    }
}

fn supervise(core: &Arc<Core>, trainer: usize) {
    let Some(inbox) = core.inbox(trainer) else { return };
    loop {
        let (shared, mailbox) = (Arc::clone(core), Arc::clone(inbox));
        let thread = std::thread::Builder::new()
            .name(format!("retinker-train-{trainer}"))
            .spawn(move || worker::run(&shared, &mailbox, trainer));
        let exit = match thread {
            Ok(thread) => thread.join(),
            Err(error) => {
                tracing::error!(trainer, %error, "the trainer's thread cannot be started; its runs wait");
                return;
            }
        };
        let reason = match exit {
            Ok(Exit::Stopped) => return,
            Ok(Exit::MemoryLost) => "its trainer lost its memory",
            Err(_) => "its trainer failed and lost its memory",
        };
        // Before the next trainer starts: it must not take a lost run for a clean one.
        let lost = core.trainer_lost(trainer, reason);
        tracing::warn!(
            trainer,
            corrupted = lost.corrupted.len(),
            unharmed = lost.unharmed.len(),
            "a trainer lost its memory and is started anew"
        );
        inbox.answer_loss(&lost);
    }
}
