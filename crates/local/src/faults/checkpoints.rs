//! Checkpoints that expire or break on purpose.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use retinker_wire::path::TinkerPath;
use serde::{Deserialize, Serialize};

use super::{FaultError, Faults};
use crate::db::{CheckpointRow, Files, sql};
use crate::time::now_millis;

/// How a file is damaged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Damage {
    /// All bits of the byte in its middle are flipped.
    #[default]
    Flip,
    /// Its second half is cut off.
    Truncate,
}

/// What was damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damaged {
    /// The checkpoint.
    pub path: String,
    /// The file in its directory.
    pub file: String,
    /// How.
    pub damage: Damage,
}

/// The file that is damaged when nobody says which.
const WEIGHTS: &str = "adapter_model.safetensors";

impl Faults {
    /// Lets a checkpoint expire now: it is deleted like any other whose time has come.
    pub async fn expire(&self, path: &TinkerPath) -> Result<(), FaultError> {
        let row = self.checkpoint(path)?;
        let (ordinal, now) = (row.ordinal, now_millis());
        self.core.db.write(move |c| sql::set_expiry(c, ordinal, Some(now))).done().await?;
        let expired = CheckpointRow { expires_at: Some(now), ..CheckpointRow::clone(&row) };
        self.core.index().replace_checkpoint(expired);
        self.core.delete_expired().await;
        Ok(())
    }

    /// Damages one file of a checkpoint: the weights, unless `file` names another. What loads it finds out.
    pub async fn damage(
        &self,
        path: &TinkerPath,
        file: Option<&str>,
        damage: Damage,
    ) -> Result<Damaged, FaultError> {
        let row = self.checkpoint(path)?;
        let file = file.unwrap_or(WEIGHTS).to_owned();
        let damaged = Damaged { path: path.to_string(), file: file.clone(), damage };
        let core = Arc::clone(&self.core);
        let done = tokio::task::spawn_blocking(move || {
            let Files { directory, .. } = core.files_of(&row).map_err(FaultError::Storage)?;
            let files = files_of(&directory).map_err(|e| storage(&directory, &e))?;
            if !files.contains(&file) {
                return Err(FaultError::Invalid(format!(
                    "file must be one of {}, not '{file}'",
                    files.join(", ")
                )));
            }
            let file = directory.join(file);
            spoil(&file, damage).map_err(|e| storage(&file, &e))
        });
        done.await.map_err(|_| FaultError::Stopping)??;
        tracing::warn!(checkpoint = %path, file = damaged.file, "damaged on purpose");
        Ok(damaged)
    }

    pub(super) fn checkpoint(&self, path: &TinkerPath) -> Result<Arc<CheckpointRow>, FaultError> {
        let index = self.core.index();
        let run = index.run(&path.training_run_id);
        let run = run.ok_or_else(|| FaultError::UnknownRun(path.training_run_id.clone()))?;
        let now = now_millis();
        let row = run.newest_first(now).find(|row| row.path() == *path);
        row.cloned().ok_or_else(|| FaultError::UnknownCheckpoint(path.clone()))
    }
}

fn storage(path: &Path, error: &io::Error) -> FaultError {
    FaultError::Storage(format!("{} could not be damaged: {error}", path.display()))
}

fn files_of(directory: &Path) -> io::Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            files.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn spoil(path: &Path, damage: Damage) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let middle = file.metadata()?.len() / 2;
    match damage {
        Damage::Truncate => file.set_len(middle)?,
        Damage::Flip => {
            let mut byte = [0];
            file.seek(SeekFrom::Start(middle))?;
            file.read_exact(&mut byte)?;
            file.seek(SeekFrom::Start(middle))?;
            file.write_all(&byte.map(|byte| !byte))?;
        }
    }
    file.sync_all()
}
