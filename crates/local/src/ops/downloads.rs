//! Addresses under which files can be had for a while without a key.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use retinker_wire::path::TinkerPath;

use crate::checkpoint;
use crate::core::Core;
use crate::http::ApiError;
use crate::sync::lock;

/// How long an address is good for.
pub(crate) const VALID: Duration = Duration::from_secs(3600);
/// How many addresses are good at a time; the oldest give way.
const KEPT: usize = 100_000;

/// The files of a checkpoint, by name.
pub(crate) type Files = Vec<(String, PathBuf)>;

/// What can be had under which secret. In memory only: after a restart clients ask for new addresses.
#[derive(Debug, Default)]
pub(crate) struct Downloads {
    open: Mutex<HashMap<String, (Instant, Files)>>,
}

impl Downloads {
    /// Opens files for a while. Gives the secret.
    fn open(&self, files: Files) -> String {
        let now = Instant::now();
        let secret = uuid::Uuid::new_v4().simple().to_string();
        let mut open = lock(&self.open);
        open.retain(|_, (until, _)| *until > now);
        if open.len() >= KEPT
            && let Some(oldest) =
                open.iter().min_by_key(|(_, (until, _))| *until).map(|(secret, _)| secret.clone())
        {
            open.remove(&oldest);
        }
        open.insert(secret.clone(), (now + VALID, files));
        secret
    }

    /// The files under a secret.
    pub(crate) fn files(&self, secret: &str) -> Result<Files, ApiError> {
        let open = lock(&self.open);
        let files =
            open.get(secret).filter(|(until, _)| *until > Instant::now()).map(|(_, files)| files.clone());
        files.ok_or_else(|| {
            ApiError::not_found(
                "this address has expired, or was never given out: ask for a new one".to_owned(),
            )
        })
    }
}

impl Core {
    /// Opens a checkpoint's files for download. Gives the secret and the files' names. Blocks.
    pub(crate) fn open_download(&self, path: &TinkerPath) -> Result<(String, Vec<String>), ApiError> {
        let row = self.listed_checkpoint(path)?;
        self.read_checkpoint(&row).map_err(ApiError::unprocessable)?;
        let place = self.files_of(&row).map_err(ApiError::internal)?;
        let files = checkpoint::downloadable(&place.directory)
            .map_err(|e| ApiError::internal(format!("the files of {path} cannot be listed ({e})")))?;
        let names = files.iter().map(|(name, _)| name.clone()).collect();
        Ok((self.downloads.open(files), names))
    }
}
