//! The sampler: a thread of its own that generates, many requests at a time.
//!
//! Requests wait in a bounded queue. The engine takes them in between two tokens of those under way, and lets all
//! sequences that have the same weights go on together.

mod engine;
mod growing;
mod loaded;
mod prompt;
mod queue;
mod spec;

use std::sync::Arc;
use std::thread::JoinHandle;

pub(crate) use queue::{Job, Sampler};
pub(crate) use spec::{MAX_SAMPLES, Spec};

use crate::core::Core;
use crate::db::CheckpointRow;

/// What is sampled from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// A base model, by name.
    Base(String),
    /// A base model with the weights of a checkpoint.
    Checkpoint(Arc<CheckpointRow>),
}

/// Starts the sampler's thread with its supervisor.
pub(crate) fn start(core: &Arc<Core>) -> std::io::Result<JoinHandle<()>> {
    let core = Arc::clone(core);
    std::thread::Builder::new().name("retinker-watch-sampler".to_owned()).spawn(move || supervise(&core))
}

/// Tells the sampler to end and waits until it has. What was under way is lost. Blocks.
pub(crate) fn stop(core: &Core, supervisor: JoinHandle<()>) {
    core.sampler.stop();
    if supervisor.join().is_err() {
        tracing::error!("the sampler's supervisor ended in a panic");
    }
}

fn supervise(core: &Arc<Core>) {
    loop {
        let shared = Arc::clone(core);
        let thread = std::thread::Builder::new()
            .name("retinker-sample".to_owned())
            .spawn(move || engine::run(&shared, &shared.sampler));
        match thread.map(JoinHandle::join) {
            Ok(Ok(())) => return,
            Ok(Err(_)) => {
                tracing::warn!("the sampler failed and is started anew; what it was carrying out is lost");
            }
            Err(error) => {
                tracing::error!(%error, "the sampler's thread cannot be started; what waits for it stays");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
