//! The journal and the executor in every order of events.
//!
//! What is checked is the code itself and no drawing of it. A *driver* is the real [`Executor`] whose seams are in the
//! checker's hands: it runs until it has asked for something, and its state is what it has been answered so far, from
//! which it can be put there again ([`driver`]). The *journal* is the real [`Machine`] that the store in memory runs.
//! Only the *service* is written for this ([`service`]). The [`world`] holds all three and the requests that are on
//! their way; the checker chooses what happens next: any driver's request is answered, or gets lost and arrives later or
//! never; a driver crashes; the journal's clock moves by a lease. A driver to which nothing happens for a while is a
//! suspended one, so that needs no event of its own. What must hold is in [`properties`].
//!
//! [`Executor`]: retinker::recovery::executor::Executor
//! [`Machine`]: retinker::recovery::journal::machine::Machine
// All of this is a test.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

pub mod digest;
pub mod driver;
pub mod properties;
pub mod seams;
pub mod service;
pub mod world;
