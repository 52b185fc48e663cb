//! A run put aside: its whole state in a file, so that it needs no memory.
//!
//! Such a file is as volatile as memory: it is never synced, it goes with the trainer that wrote it, and what a crash
//! leaves is removed at the next start.

use std::fs;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::run_state::RunState;
use crate::datadir::{file_name, make_private, open_private};
use retinker_nn::{BaseModel, Layout};

/// A state in a file, which is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Aside {
    path: PathBuf,
    bytes: u64,
    sha256: [u8; 32],
}

impl Aside {
    /// Puts a state aside in this directory. The state may go once this has worked.
    pub(super) fn write(directory: &Path, run_id: &str, state: &RunState) -> io::Result<Self> {
        make_private(directory)?;
        let path = directory.join(file_name(run_id));
        let file = open_private(&path)?;
        // Made first, so that a half-written file goes as well.
        let mut aside = Self { path, bytes: state.bytes(), sha256: [0; 32] };
        file.set_len(0)?;
        let mut out = Summed::new(BufWriter::new(file));
        state.write(&mut out)?;
        out.flush()?;
        aside.sha256 = out.sum.finalize().into();
        Ok(aside)
    }

    /// How many bytes the state takes in memory.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes the state back, as it was bit for bit.
    pub(super) fn read(self, base: Arc<BaseModel>, layout: Layout) -> io::Result<RunState> {
        let mut input = Summed::new(BufReader::new(fs::File::open(&self.path)?));
        let state = RunState::read(base, layout, &mut input)?;
        if <[u8; 32]>::from(input.sum.finalize()) != self.sha256 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not match its checksum"));
        }
        Ok(state)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "what was put aside could not be removed");
        }
    }
}

/// Sums what passes through.
struct Summed<T> {
    inner: T,
    sum: Sha256,
}

impl<T> Summed<T> {
    fn new(inner: T) -> Self {
        Self { inner, sum: Sha256::new() }
    }
}

impl<T: Write> Write for Summed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.sum.update(bytes.get(..written).unwrap_or(bytes));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Summed<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(bytes)?;
        self.sum.update(bytes.get(..read).unwrap_or_default());
        Ok(read)
    }
}
