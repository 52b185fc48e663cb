//! Checkpoints after they were saved: found, checked, kept longer, published, deleted.

use std::path::Path;
use std::sync::Arc;

use retinker_wire::path::TinkerPath;
use retinker_wire::weights::WeightsInfoResponse;

use super::runs::unknown_run;
use crate::checkpoint::{self, Verified};
use crate::core::Core;
use crate::db::{CheckpointKind, CheckpointRow, CheckpointState, DbError, Files, sql};
use crate::futures::Outcome;
use crate::http::ApiError;
use crate::time::{now_millis, time};

/// Why a checkpoint cannot be read.
pub(crate) enum Unreadable {
    /// There is none, or no longer.
    Absent(String),
    /// Its files are damaged.
    Damaged(String),
}

impl Core {
    /// A listed checkpoint that has not expired, or why there is none.
    pub(crate) fn find_checkpoint(&self, path: &TinkerPath) -> Result<Arc<CheckpointRow>, String> {
        let index = self.index();
        if index.run(&path.training_run_id).is_none() {
            return Err(format!(
                "checkpoint {path} does not exist: there is no training run {}",
                path.training_run_id
            ));
        }
        let kind = CheckpointKind::of_type(&path.checkpoint_type);
        let row = kind.and_then(|kind| index.checkpoint(&path.training_run_id, kind, &path.name));
        let row = row.ok_or_else(|| {
            format!("checkpoint {path} does not exist: it was never saved, was deleted, or has expired")
        })?;
        if row.expired(now_millis()) {
            let when = row.expires_at.map_or_else(String::new, |at| format!(" at {}", time(at)));
            return Err(format!("checkpoint {path} expired{when}"));
        }
        Ok(Arc::clone(row))
    }

    /// A checkpoint and its checked files. Blocks.
    pub(crate) fn open_checkpoint(
        &self,
        path: &TinkerPath,
    ) -> Result<(Arc<CheckpointRow>, Verified), Unreadable> {
        let row = self.find_checkpoint(path).map_err(Unreadable::Absent)?;
        let verified = self.read_checkpoint(&row).map_err(Unreadable::Damaged)?;
        Ok((row, verified))
    }

    /// The same for a request that loads it.
    pub(crate) fn loadable(&self, path: &TinkerPath) -> Result<(Arc<CheckpointRow>, Verified), Outcome> {
        self.open_checkpoint(path).map_err(|e| match e {
            Unreadable::Absent(reason) => Outcome::user(reason),
            Unreadable::Damaged(reason) => Outcome::server(reason),
        })
    }

    /// What a checkpoint fits. Reads and checks all its files: an answer means that it can be loaded. Blocks.
    pub(crate) fn weights_info(&self, path: &TinkerPath) -> Result<WeightsInfoResponse, ApiError> {
        let (_, verified) = self.open_checkpoint(path).map_err(|e| match e {
            Unreadable::Absent(reason) => ApiError::not_found(reason),
            Unreadable::Damaged(reason) => ApiError::unprocessable(reason),
        })?;
        let origin = verified.origin;
        Ok(WeightsInfoResponse {
            base_model: origin.base_model,
            is_lora: true,
            lora_rank: Some(origin.lora.rank),
            train_unembed: Some(origin.lora.train_unembed),
            train_mlp: Some(origin.lora.train_mlp),
            train_attn: Some(origin.lora.train_attn),
            optimizer_config: Some(origin.optimizer_config),
        })
    }

    /// The same for a call that names it by its address.
    pub(crate) fn listed_checkpoint(&self, path: &TinkerPath) -> Result<Arc<CheckpointRow>, ApiError> {
        if self.index().run(&path.training_run_id).is_none() {
            return Err(unknown_run(&path.training_run_id));
        }
        self.find_checkpoint(path).map_err(ApiError::not_found)
    }

    /// Deletes a checkpoint. A run that stands on it keeps its files, unseen, until it stands on something else.
    pub(crate) async fn delete_checkpoint(self: &Arc<Self>, path: &TinkerPath) -> Result<(), ApiError> {
        let row = self.listed_checkpoint(path)?;
        Ok(self.take_away(row).await?)
    }

    /// Deletes the checkpoints whose time has come.
    pub(crate) async fn delete_expired(self: &Arc<Self>) {
        let expired = self.index().expired_checkpoints(now_millis());
        for row in expired {
            let path = row.path();
            match self.take_away(row).await {
                Ok(()) => tracing::info!(checkpoint = %path, "an expired checkpoint was deleted"),
                Err(error) => {
                    tracing::error!(checkpoint = %path, %error, "an expired checkpoint could not be deleted")
                }
            }
        }
    }

    async fn take_away(self: &Arc<Self>, row: Arc<CheckpointRow>) -> Result<(), DbError> {
        let (ticket, retained) = {
            let mut index = self.index();
            let stood_on = index.run(&row.new.run_id).is_some_and(|run| {
                let lasts = index.session(&run.new.session_id).is_some_and(|session| session.ended.is_none());
                lasts && run.standing.as_ref().is_some_and(|standing| standing.ordinal == row.ordinal)
            });
            let state = if stood_on { CheckpointState::Retained } else { CheckpointState::Removing };
            if let (true, Some(run)) = (stood_on, index.run_mut(&row.new.run_id)) {
                run.standing = Some(Arc::new(CheckpointRow { state, ..CheckpointRow::clone(&row) }));
            }
            let (ordinal, run_id) = (row.ordinal, row.new.run_id.clone());
            let ticket = self.db.write(move |c| {
                if !stood_on {
                    sql::release(c, &run_id, ordinal)?;
                }
                sql::set_checkpoint_state(c, ordinal, state)
            });
            (ticket, stood_on)
        };
        ticket.done().await?;
        self.index().remove_checkpoint(&row);
        if !retained {
            self.discard_async(row).await;
        }
        Ok(())
    }

    /// Sets when a checkpoint expires, counted from now; `None` = never.
    pub(crate) async fn set_ttl(&self, path: &TinkerPath, ttl_seconds: Option<u64>) -> Result<(), ApiError> {
        let row = self.listed_checkpoint(path)?;
        let expires_at = ttl_seconds.map(|seconds| crate::trainer::expiry(now_millis(), seconds));
        let ordinal = row.ordinal;
        self.db.write(move |c| sql::set_expiry(c, ordinal, expires_at)).done().await?;
        self.change_checkpoint(&row, |row| row.expires_at = expires_at);
        Ok(())
    }

    /// Publishes a checkpoint, or takes that back. Doing it twice is no error: official clients repeat requests.
    pub(crate) async fn set_public(&self, path: &TinkerPath, public: bool) -> Result<(), ApiError> {
        let row = self.listed_checkpoint(path)?;
        let ordinal = row.ordinal;
        self.db.write(move |c| sql::set_public(c, ordinal, public)).done().await?;
        self.change_checkpoint(&row, |row| row.public = public);
        Ok(())
    }

    /// Changes a listed checkpoint as it is now, which may not be as it was found: something else of it may have been changed
    /// since.
    fn change_checkpoint(&self, found: &CheckpointRow, change: impl FnOnce(&mut CheckpointRow)) {
        let mut index = self.index();
        let now = index.checkpoint_by_ordinal(found.ordinal);
        if let Some(now) = now {
            let mut new = CheckpointRow::clone(now);
            change(&mut new);
            index.replace_checkpoint(new);
        }
    }

    /// Where a checkpoint's files lie and what they must be. The error is a sentence. Blocks.
    pub(crate) fn files_of(&self, row: &CheckpointRow) -> Result<Files, String> {
        let files = self.db.read(|c| sql::files_of(c, row.ordinal)).map_err(|e| e.to_string())?;
        let files = files.ok_or_else(|| format!("{} has just been deleted", row.path()))?;
        Ok(Files { directory: self.layout.checkpoints().join(files.directory), ..files })
    }

    /// Removes a checkpoint's files and its row, whose state already says so. What fails is tried again at the next start.
    /// Blocks.
    pub(crate) fn discard(&self, row: &CheckpointRow) {
        match self.files_of(row) {
            Ok(files) => self.discard_files(row.ordinal, &files.directory),
            Err(error) => {
                tracing::warn!(checkpoint = %row.path(), %error, "a deleted checkpoint's files are left until the next start")
            }
        }
    }

    /// The same where it is known where the files lie.
    pub(crate) fn discard_files(&self, ordinal: u64, directory: &Path) {
        let _guard = crate::sync::lock(&self.directories);
        match checkpoint::remove(directory, &self.layout.unfinished()) {
            Ok(()) => {
                drop(self.db.write(move |c| sql::delete_checkpoint(c, ordinal)));
            }
            Err(error) => {
                tracing::warn!(path = %directory.display(), %error, "a deleted checkpoint's files could not be removed");
            }
        }
    }

    /// The same from a task that must not block.
    pub(crate) async fn discard_async(self: &Arc<Self>, row: Arc<CheckpointRow>) {
        let core = Arc::clone(self);
        if tokio::task::spawn_blocking(move || core.discard(&row)).await.is_err() {
            tracing::warn!("a deleted checkpoint's files may be left until the next start");
        }
    }
}
