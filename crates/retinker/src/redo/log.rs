//! Where a redo log is kept: frames in segments, appended and never changed.
//!
//! A log promises that what [`RedoLog::append`] has answered is there when the program is started again (in memory: as long as the
//! program runs), in order, and whole: what is damaged is an error and never something else. It belongs to one program at a time.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_core::future::BoxFuture;
use futures_core::stream::BoxStream;

use super::entry::Frame;

/// Why a redo log could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// It cannot be read or written.
    #[error("the redo log {log} cannot be used: {reason}")]
    Unavailable {
        /// Which log.
        log: String,
        /// Why.
        reason: String,
    },
    /// Another program writes it.
    #[error(
        "the redo log {log} is in use by another program: stop that one, or give this one a log of its own"
    )]
    InUse {
        /// Which log.
        log: String,
    },
    /// What is in it is not what was written.
    #[error("the redo log {log} is damaged at {place}: {reason}")]
    Damaged {
        /// Which log.
        log: String,
        /// The segment, and the byte in it.
        place: Place,
        /// What is wrong there.
        reason: String,
    },
    /// A newer version has written it.
    #[error(
        "the redo log {log} holds schema {found}, and this version knows {known}: use the newer retinker that wrote it"
    )]
    Newer {
        /// Which log.
        log: String,
        /// What was found.
        found: u32,
        /// The newest that is known here.
        known: u32,
    },
}

/// Where a frame begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The segment's number.
    pub segment: u64,
    /// The first byte of the frame in it.
    pub offset: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {}, byte {}", self.segment, self.offset)
    }
}

/// The frames of a redo log. See the module for what it promises.
pub trait RedoLog: fmt::Debug + Send + Sync + 'static {
    /// What people know it by: a directory, or that it is in memory.
    fn name(&self) -> String;
    /// Appends a frame to the newest segment; tells where it is.
    fn append(&self, frame: Frame) -> BoxFuture<'static, Result<Place, LogError>>;
    /// Begins a new segment; tells its number.
    fn begin_segment(&self) -> BoxFuture<'static, Result<u64, LogError>>;
    /// All frames, in the order in which they were appended. A last one that was cut off while it was written is not there.
    fn frames(&self) -> BoxStream<'static, Result<(Place, Frame), LogError>>;
    /// The frame that begins there.
    fn read(&self, place: Place) -> BoxFuture<'static, Result<Frame, LogError>>;
    /// Drops the segments before this one.
    fn drop_before(&self, segment: u64) -> BoxFuture<'static, Result<(), LogError>>;
    /// Bytes that it takes.
    fn size(&self) -> u64;
}

/// For who chooses the kind at run time.
impl RedoLog for Arc<dyn RedoLog> {
    fn name(&self) -> String {
        (**self).name()
    }

    fn append(&self, frame: Frame) -> BoxFuture<'static, Result<Place, LogError>> {
        (**self).append(frame)
    }

    fn begin_segment(&self) -> BoxFuture<'static, Result<u64, LogError>> {
        (**self).begin_segment()
    }

    fn frames(&self) -> BoxStream<'static, Result<(Place, Frame), LogError>> {
        (**self).frames()
    }

    fn read(&self, place: Place) -> BoxFuture<'static, Result<Frame, LogError>> {
        (**self).read(place)
    }

    fn drop_before(&self, segment: u64) -> BoxFuture<'static, Result<(), LogError>> {
        (**self).drop_before(segment)
    }

    fn size(&self) -> u64 {
        (**self).size()
    }
}

/// A log that lives as long as the program.
#[derive(Clone, Default)]
pub struct MemoryLog(Arc<Mutex<Segments>>);

#[derive(Default)]
struct Segments {
    /// The number of the oldest one.
    first: u64,
    kept: VecDeque<Vec<Frame>>,
    size: u64,
}

impl fmt::Debug for MemoryLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryLog").field("size", &self.size()).finish_non_exhaustive()
    }
}

impl MemoryLog {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Segments> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ready<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    Box::pin(std::future::ready(value))
}

fn bytes_of(frames: &[Frame]) -> u64 {
    frames.iter().map(Frame::size).sum()
}

impl RedoLog for MemoryLog {
    fn name(&self) -> String {
        "in memory".to_owned()
    }

    fn append(&self, frame: Frame) -> BoxFuture<'static, Result<Place, LogError>> {
        let segments = &mut *self.lock();
        if segments.kept.is_empty() {
            segments.kept.push_back(Vec::new());
        }
        segments.size += frame.size();
        let segment = segments.first + segments.kept.len() as u64 - 1;
        let newest = segments.kept.back_mut();
        let offset = newest.map_or(0, |frames| {
            frames.push(frame);
            frames.len() as u64 - 1
        });
        ready(Ok(Place { segment, offset }))
    }

    fn begin_segment(&self) -> BoxFuture<'static, Result<u64, LogError>> {
        let mut segments = self.lock();
        segments.kept.push_back(Vec::new());
        ready(Ok(segments.first + segments.kept.len() as u64 - 1))
    }

    fn frames(&self) -> BoxStream<'static, Result<(Place, Frame), LogError>> {
        let segments = self.lock();
        let frames: Vec<_> = (segments.first..)
            .zip(&segments.kept)
            .flat_map(|(segment, frames)| {
                (0..).zip(frames).map(move |(offset, frame)| Ok((Place { segment, offset }, frame.clone())))
            })
            .collect();
        Box::pin(futures_util::stream::iter(frames))
    }

    fn read(&self, place: Place) -> BoxFuture<'static, Result<Frame, LogError>> {
        let segments = self.lock();
        let index = place.segment.checked_sub(segments.first).and_then(|index| usize::try_from(index).ok());
        let frames = index.and_then(|index| segments.kept.get(index));
        let offset = usize::try_from(place.offset).ok();
        let frame = frames.zip(offset).and_then(|(frames, offset)| frames.get(offset)).cloned();
        let nothing =
            || LogError::Damaged { log: self.name(), place, reason: "there is nothing any more".to_owned() };
        ready(frame.ok_or_else(nothing))
    }

    fn drop_before(&self, segment: u64) -> BoxFuture<'static, Result<(), LogError>> {
        let segments = &mut *self.lock();
        while segments.first < segment && segments.kept.len() > 1 {
            if let Some(dropped) = segments.kept.pop_front() {
                segments.size -= bytes_of(&dropped);
                segments.first += 1;
            }
        }
        ready(Ok(()))
    }

    fn size(&self) -> u64 {
        self.lock().size
    }
}
