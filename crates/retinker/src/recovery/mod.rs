//! Recovery: health, plan, restore, lineage.
//!
//! The way of one restore: [`planner`] gathers the facts and makes a [`plan`]; a person or a program confirms it;
//! [`executor`] writes it to the [`journal`], acts, and writes down each step before and after it; [`ownership`]
//! keeps the new run's session alive until somebody takes the run over. Where nobody is there to confirm, [`policy`]
//! says whether a run may be restored by itself; [`incidents`] tells which runs failed together.

pub mod acts;
pub mod checkup;
pub mod control;
pub mod driver;
pub mod drives;
pub mod events;
pub mod evidence;
pub mod executor;
pub mod findings;
pub mod health;
pub mod incidents;
pub mod journal;
pub mod listing;
pub mod monitor;
pub mod ownership;
pub mod plan;
pub mod planner;
pub mod policy;
pub mod probe;
pub mod protect;
pub mod reports;
pub mod restore;
pub mod retention;
pub mod sentence;
pub mod sessions;
pub mod survey;
pub mod telling;
pub mod verify;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod simulation;
