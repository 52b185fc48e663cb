//! What the client tells of its failures, to whoever wants to hear of them. A seam, so that a program without telemetry
//! holds nothing of it.

use std::fmt;
use std::time::Duration;

use retinker_wire::future::RequestType;

use super::error::Error;

/// Who hears of failures.
pub(crate) trait Witness: fmt::Debug + Send + Sync {
    /// Something failed. Must not block.
    fn note(&self, note: Note<'_>);
}

/// Something failed.
#[derive(Debug, Clone)]
pub(crate) struct Note<'a> {
    pub(crate) of: NoteOf,
    pub(crate) error: &'a Error,
    /// Whether it is tried again.
    pub(crate) again: bool,
    /// How often it was tried so far.
    pub(crate) tries: u32,
    /// Since the first try.
    pub(crate) elapsed: Duration,
}

/// What failed.
#[derive(Debug, Clone)]
pub(crate) enum NoteOf {
    /// An attempt of a request.
    Attempt,
    /// A question for the result of a request of this type, or the request itself.
    Future(RequestType),
    /// A sample.
    Sample,
    /// What the program asked for: it is given the error.
    Outcome,
}
