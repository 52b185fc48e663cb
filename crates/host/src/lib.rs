//! What serves the console: its files, the guarded forward to the service, and the host API `/retinker/v1`.
//!
//! For each service that it is started with it keeps the recovery journal, carries restores out, keeps restored
//! runs' sessions alive, and holds an index of all runs. Whoever reaches it spends the service's key, so it listens
//! on loopback only and stands behind a guard (see `guard`).

mod acts;
mod api;
mod asker;
mod assets;
mod checkpoints;
mod config;
mod connections;
mod downloads;
mod forward;
mod going_back;
mod guard;
pub mod hooks;
mod host;
mod index;
mod keeper;
mod problem;
mod samplers;
mod server;
mod snippets;
mod trial;
mod watch;

pub use asker::asker;
pub use assets::UI_EMBEDDED;
pub use config::{Connection, Demo, HostConfig, ServiceTarget, StartError, Watching};
pub use going_back::RedoLogs;
pub use keeper::Keeper;
pub use retinker_store::Location;
pub use server::{Host, RunningHost};
pub use snippets::attach as attach_snippets;
pub use snippets::from_checkpoint as checkpoint_snippets;
