//! A redo log in a directory: a file for each segment, which is only ever appended to.
//!
//! A frame on the disk is the length of what follows it, its CRC-32, and the length of the frame, whose highest bit says that it
//! is compressed (zstd); 32 bits each, little endian. Then the frame itself.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_core::future::BoxFuture;
use futures_core::stream::BoxStream;
use ruzstd::encoding::CompressionLevel;

use crate::redo::{Frame, LogError, Place, RedoLog};

/// Shorter frames are not worth compressing.
const WORTH_IT: usize = 512;
/// What every compressed frame begins with (RFC 8878, section 3.1.1).
const ZSTD: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
/// The bit of a frame's length that says that it is compressed.
const COMPRESSED: u32 = 1 << 31;
/// What stands before a frame.
const BEFORE: u64 = 12;
/// The file that says that a program writes the log.
const LOCK: &str = "lock";

/// A redo log in a directory, which is made if it is not there, for its owner alone. One program at a time writes it; as many
/// as want to read it.
///
/// What was appended survives the end of the program; with [`durable`](Self::durable) also that of the machine. Without it a machine that
/// stops may have forgotten the last requests: then the service knows more of the run than the log, refuses the next number, and the
/// run is made anew.
#[derive(Debug, Clone)]
pub struct DiskLog {
    directory: PathBuf,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// Held as long as the log is; `None` for who only reads.
    lock: Option<File>,
    durable: bool,
    /// The numbers of the segments and their bytes, oldest first.
    segments: Vec<(u64, u64)>,
    /// The newest one.
    newest: Option<File>,
    /// Those of who only reads, opened at once: the program that writes the log may remove them meanwhile.
    opened: Vec<(u64, Arc<File>)>,
}

impl DiskLog {
    /// The log in this directory, to be written.
    ///
    /// # Errors
    /// [`LogError::InUse`] while another program writes it, [`LogError::Unavailable`] if the directory cannot be made or used.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, LogError> {
        let directory = directory.into();
        let unusable = |error: io::Error| unavailable(&directory, &error);
        make_private(&directory).map_err(unusable)?;
        let lock =
            private(OpenOptions::new().create(true).write(true).truncate(false)).open(directory.join(LOCK));
        let lock = lock.map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(LogError::InUse { log: directory.display().to_string() });
            }
            Err(fs::TryLockError::Error(error)) => return Err(unusable(error)),
        }
        let log = Self::of(directory, Some(lock))?;
        log.cut_off_torn()?;
        Ok(log)
    }

    /// The log in this directory, to be read, whether or not a program writes it meanwhile.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if there is none.
    pub fn read_only(directory: impl Into<PathBuf>) -> Result<Self, LogError> {
        Self::of(directory.into(), None)
    }

    /// The same; what is appended survives the end of the machine as well, which takes a write to the disk each time.
    #[must_use]
    pub fn durable(self) -> Self {
        self.state().durable = true;
        self
    }

    fn of(directory: PathBuf, lock: Option<File>) -> Result<Self, LogError> {
        let mut segments = Vec::new();
        let unusable = |error: io::Error| unavailable(&directory, &error);
        for entry in fs::read_dir(&directory).map_err(unusable)? {
            let entry = entry.map_err(unusable)?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("segment-")?.strip_suffix(".log"));
            if let Some(number) = number.and_then(|number| number.parse().ok()) {
                segments.push((number, entry.metadata().map_err(unusable)?.len()));
            }
        }
        segments.sort_unstable();
        let reads_only = lock.is_none();
        let state = State { lock, durable: false, segments, newest: None, opened: Vec::new() };
        let log = Self { directory, state: Arc::new(Mutex::new(state)) };
        if reads_only && cfg!(unix) {
            let state = &mut *log.state();
            // One that is gone by now was let go of before anything was read.
            state.segments.retain(|(segment, _)| match File::open(log.path(*segment)) {
                Ok(file) => {
                    state.opened.push((*segment, Arc::new(file)));
                    true
                }
                Err(error) => error.kind() != ErrorKind::NotFound,
            });
        }
        Ok(log)
    }

    /// A segment's file, to be read from any place.
    fn segment(&self, segment: u64) -> io::Result<Arc<File>> {
        let opened = self
            .state()
            .opened
            .iter()
            .find(|(number, _)| *number == segment)
            .map(|(_, file)| Arc::clone(file));
        opened.map_or_else(|| File::open(self.path(segment)).map(Arc::new), Ok)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, segment: u64) -> PathBuf {
        self.directory.join(format!("segment-{segment:08}.log"))
    }

    fn unavailable(&self, error: &io::Error) -> LogError {
        unavailable(&self.directory, error)
    }

    /// Cuts off what a program that ended in the middle of writing has left at the end.
    fn cut_off_torn(&self) -> Result<(), LogError> {
        let Some((segment, length)) = self.state().segments.last().copied() else { return Ok(()) };
        let mut offset = 0;
        while offset < length {
            match self.frame_at(Place { segment, offset })? {
                Some((_, next)) => offset = next,
                None => break,
            }
        }
        if offset < length {
            self.ends_there(Place { segment, offset }, length)?;
            let file = OpenOptions::new().write(true).open(self.path(segment));
            let file = file.map_err(|error| self.unavailable(&error))?;
            file.set_len(offset).map_err(|error| self.unavailable(&error))?;
            if let Some(last) = self.state().segments.last_mut() {
                last.1 = offset;
            }
        }
        Ok(())
    }

    /// Whether nothing that was written whole follows: else the frame there is not torn, but its length is damaged.
    fn ends_there(&self, place: Place, length: u64) -> Result<(), LogError> {
        let unusable = |error: io::Error| self.unavailable(&error);
        let file = self.segment(place.segment).map_err(unusable)?;
        let mut rest = vec![0; usize::try_from(length.saturating_sub(place.offset)).unwrap_or(usize::MAX)];
        ReadFrom { file: &file, offset: place.offset }.read_exact(&mut rest).map_err(unusable)?;
        // Each frame is written behind the whole one before it, so that one that is whole cannot follow one that is torn.
        let follows = (1..rest.len()).find(|at| rest.get(*at..).is_some_and(begins_with_a_frame));
        let Some(at) = follows else { return Ok(()) };
        let reason = format!("its length is wrong: a whole record follows {at} bytes after its beginning");
        Err(LogError::Damaged { log: self.name(), place, reason })
    }

    /// The frame that begins there, and where the next one begins; `None` if it was not written whole.
    fn frame_at(&self, place: Place) -> Result<Option<(Bytes, u64)>, LogError> {
        let damaged = |reason: &str| LogError::Damaged { log: self.name(), place, reason: reason.to_owned() };
        let unusable = |error: io::Error| self.unavailable(&error);
        let file = self.segment(place.segment).map_err(unusable)?;
        let length = file.metadata().map_err(unusable)?.len();
        let mut file = ReadFrom { file: &file, offset: place.offset };
        let left = length.saturating_sub(place.offset);
        let mut before = [0; BEFORE as usize];
        if left < BEFORE {
            return Ok(None);
        }
        file.read_exact(&mut before).map_err(unusable)?;
        let [stored, crc, plain] = words(before);
        if stored == 0 {
            // No frame is empty. A machine that stopped may have left room that was never written to.
            let mut rest = Vec::new();
            file.read_to_end(&mut rest).map_err(unusable)?;
            let unwritten = before.iter().chain(&rest).all(|byte| *byte == 0);
            return if unwritten { Ok(None) } else { Err(damaged("it has no length")) };
        }
        let next = place.offset + BEFORE + u64::from(stored);
        if next > length {
            return Ok(None);
        }
        let mut bytes = vec![0; stored as usize];
        file.read_exact(&mut bytes).map_err(unusable)?;
        if crc32fast::hash(&bytes) != crc {
            // At the very end it may be what a machine that stopped has left.
            return if next == length { Ok(None) } else { Err(damaged("its checksum is wrong")) };
        }
        if plain & COMPRESSED == 0 {
            return Ok(Some((bytes.into(), next)));
        }
        let expected = (plain & !COMPRESSED) as usize;
        let mut frame = Vec::with_capacity(expected);
        let reader = ruzstd::decoding::StreamingDecoder::new(&*bytes);
        let read = reader
            .map_err(|error| damaged(&error.to_string()))?
            .take(u64::from(plain))
            .read_to_end(&mut frame);
        read.map_err(unusable)?;
        if frame.len() != expected {
            return Err(damaged("it is not as long as it says"));
        }
        Ok(Some((frame.into(), next)))
    }

    fn append_now(&self, frame: &[u8]) -> Result<Place, LogError> {
        let too_long =
            || io::Error::new(ErrorKind::InvalidInput, "a request beyond 2 GiB cannot be written down");
        let plain = u32::try_from(frame.len()).ok().filter(|length| length & COMPRESSED == 0);
        let plain = plain.ok_or_else(|| self.unavailable(&too_long()))?;
        let compressed = (frame.len() >= WORTH_IT)
            .then(|| ruzstd::encoding::compress_to_vec(frame, CompressionLevel::Fastest))
            .filter(|compressed| compressed.len() < frame.len());
        let (stored, flag) = match &compressed {
            Some(compressed) => (&**compressed, COMPRESSED),
            None => (frame, 0),
        };
        let mut whole = Vec::with_capacity(BEFORE as usize + stored.len());
        whole.extend((stored.len() as u32).to_le_bytes());
        whole.extend(crc32fast::hash(stored).to_le_bytes());
        whole.extend((plain | flag).to_le_bytes());
        whole.extend(stored);
        if self.state().segments.is_empty() {
            self.begin_now()?;
        }
        let state = &mut *self.state();
        self.writable(state)?;
        let Some((segment, length)) = state.segments.last_mut() else {
            return Err(self.unavailable(&io::Error::other("it has no segment")));
        };
        if state.newest.is_none() {
            let file = OpenOptions::new().append(true).open(self.path(*segment));
            state.newest = Some(file.map_err(|error| self.unavailable(&error))?);
        }
        let place = Place { segment: *segment, offset: *length };
        if let Some(file) = &mut state.newest {
            let written = file.write_all(&whole).and_then(|()| match state.durable {
                true => file.sync_data(),
                false => Ok(()),
            });
            if let Err(error) = written {
                // Half a frame would be taken for the end of the log.
                let _ = file.set_len(*length);
                return Err(self.unavailable(&error));
            }
        }
        *length += whole.len() as u64;
        Ok(place)
    }

    fn begin_now(&self) -> Result<u64, LogError> {
        let state = &mut *self.state();
        self.writable(state)?;
        let number = state.segments.last().map_or(0, |(number, _)| number + 1);
        let file = private(OpenOptions::new().create_new(true).append(true)).open(self.path(number));
        state.newest = Some(file.map_err(|error| self.unavailable(&error))?);
        // Elsewhere a directory cannot be written to the disk by itself.
        if cfg!(unix) && state.durable {
            let directory = File::open(&self.directory).and_then(|directory| directory.sync_all());
            directory.map_err(|error| self.unavailable(&error))?;
        }
        state.segments.push((number, 0));
        Ok(number)
    }

    fn drop_now(&self, before: u64) -> Result<(), LogError> {
        let state = &mut *self.state();
        self.writable(state)?;
        while let Some((segment, _)) =
            state.segments.first().copied().filter(|(segment, _)| *segment < before)
        {
            fs::remove_file(self.path(segment)).map_err(|error| self.unavailable(&error))?;
            state.segments.remove(0);
        }
        Ok(())
    }

    fn writable(&self, state: &State) -> Result<(), LogError> {
        let read_only = || io::Error::new(ErrorKind::ReadOnlyFilesystem, "it was opened to be read");
        state.lock.as_ref().map(drop).ok_or_else(|| self.unavailable(&read_only()))
    }

    /// Does it where it holds nobody up.
    fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, LogError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, LogError>> {
        let log = self.clone();
        Box::pin(async move {
            let name = log.name();
            let done = tokio::task::spawn_blocking(move || work(&log)).await;
            let ended = |error: tokio::task::JoinError| LogError::Unavailable {
                log: name,
                reason: error.to_string(),
            };
            done.map_err(ended)?
        })
    }
}

/// A file that is read from a place on, whoever else reads it at the same time.
struct ReadFrom<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for ReadFrom<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        #[cfg(unix)]
        let read = std::os::unix::fs::FileExt::read_at(self.file, buffer, self.offset)?;
        #[cfg(windows)]
        let read = std::os::windows::fs::FileExt::seek_read(self.file, buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

/// Makes a directory that its owner alone can look into.
fn make_private(directory: &Path) -> io::Result<()> {
    let mut made = fs::DirBuilder::new();
    made.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut made, 0o700);
    made.create(directory)?;
    // One that was there already may be open to others.
    #[cfg(unix)]
    fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    Ok(())
}

/// A file that its owner alone can read, if it is made.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

/// Whether a whole frame begins there. What can be told without its checksum is looked at first: the bytes may be any, and many.
fn begins_with_a_frame(bytes: &[u8]) -> bool {
    let Some((before, bytes)) = bytes.split_first_chunk() else { return false };
    let [stored, crc, plain] = words(*before);
    let Some(bytes) = bytes.get(..stored as usize).filter(|bytes| !bytes.is_empty()) else { return false };
    let may_be = match plain & COMPRESSED {
        0 => plain == stored,
        _ => bytes.starts_with(&ZSTD),
    };
    may_be && crc32fast::hash(bytes) == crc
}

fn words(bytes: [u8; BEFORE as usize]) -> [u32; 3] {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
    [[a, b, c, d], [e, f, g, h], [i, j, k, l]].map(u32::from_le_bytes)
}

fn unavailable(directory: &Path, error: &io::Error) -> LogError {
    LogError::Unavailable { log: directory.display().to_string(), reason: error.to_string() }
}

impl RedoLog for DiskLog {
    fn name(&self) -> String {
        self.directory.display().to_string()
    }

    fn append(&self, frame: Frame) -> BoxFuture<'static, Result<Place, LogError>> {
        self.aside(move |log| {
            let unwritable = |reason| LogError::Unavailable { log: log.name(), reason };
            log.append_now(&frame.to_bytes().map_err(unwritable)?)
        })
    }

    fn begin_segment(&self) -> BoxFuture<'static, Result<u64, LogError>> {
        self.aside(Self::begin_now)
    }

    fn frames(&self) -> BoxStream<'static, Result<(Place, Frame), LogError>> {
        let segments: Vec<_> = self.state().segments.iter().map(|(segment, _)| *segment).collect();
        let last = segments.last().copied();
        let start = (self.clone(), segments.into_iter(), None::<Place>);
        Box::pin(futures_util::stream::try_unfold(start, move |(log, mut segments, next)| async move {
            let mut next = next;
            loop {
                let place = match next.or_else(|| segments.next().map(|segment| Place { segment, offset: 0 }))
                {
                    Some(place) => place,
                    None => return Ok(None),
                };
                let is_end = {
                    let state = log.state();
                    state
                        .segments
                        .iter()
                        .find(|(segment, _)| *segment == place.segment)
                        .is_none_or(|(_, length)| place.offset >= *length)
                };
                if is_end {
                    next = None;
                    continue;
                }
                match log.aside(move |log| log.frame_at(place)).await? {
                    Some((frame, offset)) => {
                        let next = Some(Place { offset, ..place });
                        let frame = Frame::stored_at(&frame, log.name(), place)?;
                        return Ok(Some(((place, frame), (log, segments, next))));
                    }
                    // Another program may be writing it.
                    None if Some(place.segment) == last => return Ok(None),
                    None => {
                        let reason = "it ends in the middle".to_owned();
                        return Err(LogError::Damaged { log: log.name(), place, reason });
                    }
                }
            }
        }))
    }

    fn read(&self, place: Place) -> BoxFuture<'static, Result<Frame, LogError>> {
        self.aside(move |log| {
            let whole = log.frame_at(place)?;
            let nothing = || LogError::Damaged {
                log: log.name(),
                place,
                reason: "what was written there is not there".to_owned(),
            };
            Frame::stored_at(&whole.ok_or_else(nothing)?.0, log.name(), place)
        })
    }

    fn drop_before(&self, segment: u64) -> BoxFuture<'static, Result<(), LogError>> {
        self.aside(move |log| log.drop_now(segment))
    }

    fn size(&self) -> u64 {
        self.state().segments.iter().map(|(_, length)| length).sum()
    }
}
