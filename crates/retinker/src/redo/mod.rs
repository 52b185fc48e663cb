//! The redo log: a training loop that goes on through a poisoning, with no step lost.
//!
//! A run's state is a function of its requests, in their order. So a recovering client writes each request down before it is sent.
//! When the run loses its state, a new one is made from the last checkpoint, what was done since is done again, and each
//! result is held against the one that was there before. Whoever waits for a result is given it; the training loop never sees
//! the failure, and people do, by [`Redo::events`] and `tracing`.
//!
//! ```no_run
//! # async fn example(service: retinker::client::ServiceClient) -> Result<(), Box<dyn std::error::Error>> {
//! use retinker::redo::{CheckpointPolicy, MemoryLog, Redo, RedoOptions};
//!
//! let options = RedoOptions {
//!     checkpoints: CheckpointPolicy { every_steps: Some(25), ..CheckpointPolicy::default() },
//!     ..RedoOptions::default()
//! };
//! let redo = Redo::lora(&service, MemoryLog::new(), "retinker/nano-llama", Default::default(), options).await?;
//! let training = redo.training_client();
//! # Ok(()) }
//! ```
//!
//! With a log on a disk (`native::DiskLog`) a program that died goes on as well: [`Redo::resumed`] says after which step, and with which
//! cursor of its own.
//!
//! # What is promised
//!
//! - On a service whose results depend on nothing but a run's requests, as the embedded one, every loss and the weights are those
//!   of a run to which nothing happened, bit for bit ([`Matching::Exact`]). On others they are as close as the service comes to itself,
//!   and a recovery that does not come as close as [`Matching::Tolerance`] says stops, and tells both.
//! - What failed by itself, through no loss of state, failed: it is told to who waits for it, and not done again.
//! - A request that is being carried out when the run is lost, twice, is taken for the cause: it is named, and not sent a third time.
//! - A checkpoint that a log stands on has no end: those of a limited life are not stood on.
//! - No key and no access token is in a log. It holds training data: its directory is its owner's alone.
//!
//! # What is not
//!
//! - A run with a redo log is nobody else's: it carries the label `retinker.opt_out`, so that no monitor restores it as well.
//! - Samplers of a run's weights ([`save_weights_and_get_sampling_client`](crate::client::TrainingClient::save_weights_and_get_sampling_client))
//!   are made anew if they were made after the checkpoint that is restored; older ones end with their session.
//! - Losses that the server computes of a program's own (`loss_id`), and the provenance of samples, belong to a session: such passes
//!   are refused here.

mod calibrate;
mod driver;
pub(crate) mod entry;
mod error;
mod event;
mod keep;
mod ledger;
mod log;
mod outcome;
mod point;
mod policy;
mod replay;
mod run;
mod told;

pub use calibrate::{Calibration, calibrate};
pub use entry::Frame;
pub use error::{Mismatch, RedoError};
pub use event::RedoEvent;
pub use keep::Fate;
pub use log::{LogError, MemoryLog, Place, RedoLog};
pub use outcome::Matching;
pub use point::{Covered, LogSubject, Recorded, ReplayPlan, SavedStep};
pub use policy::CheckpointPolicy;
pub use run::{Redo, RedoOptions, Resumed};
