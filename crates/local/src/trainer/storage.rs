//! How a trainer's runs come from and go to the disk.

use std::path::PathBuf;
use std::sync::Arc;

use retinker_wire::path::TinkerPath;
use retinker_wire::sampler::sampler_id_of;

use super::aside::Aside;
use super::job::{CreateFrom, Load, Save, SaveForSampler};
use super::queue::Queue;
use super::run_state::RunState;
use crate::checkpoint::{self, Origin, Written};
use crate::core::Core;
use crate::datadir::file_name;
use crate::db::{
    CheckpointKind, CheckpointRow, CheckpointState, NewCheckpoint, NewRun, NewSampler, RunRow, SamplerRow,
    sql,
};
use crate::futures::Outcome;
use crate::index::Unsaved;
use crate::metrics;
use crate::time::now_millis;
use retinker_nn::Layout;

impl Core {
    /// The order of a run's requests, from where it is.
    pub(super) fn queue_of<T>(&self, run_id: &str) -> Result<Queue<T>, Outcome> {
        let index = self.index();
        let run = index.run(run_id).ok_or_else(|| gone(run_id))?;
        if let Some(refusal) = Self::unusable(&index, run) {
            return Err(refusal);
        }
        let saved_seq = run.standing.as_ref().map_or(0, |standing| standing.new.seq);
        Ok(Queue::new(run.executed_seq.max(saved_seq) + 1, run.expendable_seq))
    }

    /// How many bytes a run's state takes in memory; 0 if there is no such run.
    pub(super) fn state_bytes(&self, run_id: &str) -> u64 {
        let Some(new) = self.index().run(run_id).map(|run| run.new.clone()) else { return 0 };
        self.layout_of(&new).map_or(0, |layout| RunState::bytes_of(&layout))
    }

    fn layout_of(&self, new: &NewRun) -> Result<Layout, String> {
        let model = self.models.config(&new.base_model)?;
        Layout::new(model, &new.lora.to_nn()).map_err(|e| e.to_string())
    }

    /// Brings a run into memory: from what it stands on, else from its seed. A run that cannot be brought back to where
    /// it was is corrupted, never silently set back.
    pub(super) fn load_run(&self, run_id: &Arc<str>) -> Result<RunState, Outcome> {
        let (ordinal, last_seq, new, standing) = {
            let index = self.index();
            let run = index.run(run_id).ok_or_else(|| gone(run_id))?;
            if let Some(refusal) = Self::unusable(&index, run) {
                return Err(refusal);
            }
            let saved_seq = run.standing.as_ref().map_or(0, |standing| standing.new.seq);
            let last_seq = run.executed_seq.max(saved_seq);
            (run.ordinal, last_seq, run.new.clone(), run.standing.clone())
        };
        let state = self.models.base(&new.base_model).and_then(|base| match &standing {
            Some(standing) => self.read_checkpoint(standing).and_then(|verified| {
                RunState::restored(base, &verified, true).map_err(|e| damaged(standing, &e))
            }),
            None => RunState::fresh(base, &new.lora).map_err(|e| e.to_string()),
        });
        let state = state.map_err(|reason| {
            self.unreadable(run_id, format!("its saved state could not be read back: {reason}"))
        })?;
        // Nothing comes after what the run is; nobody waits, for reading comes in the same order.
        drop(self.db.write(move |c| metrics::truncate(c, ordinal, last_seq)));
        Ok(state)
    }

    /// Brings a run back into memory that was put aside. One that cannot be brought back is corrupted.
    pub(super) fn take_back(&self, run_id: &Arc<str>, aside: Aside) -> Result<RunState, Outcome> {
        let new = self.index().run(run_id).map(|run| run.new.clone()).ok_or_else(|| gone(run_id))?;
        let state = self.models.base(&new.base_model).and_then(|base| {
            let layout = self.layout_of(&new)?;
            aside.read(base, layout).map_err(|e| e.to_string())
        });
        state.map_err(|reason| {
            let aside = "its unsaved work was put aside on the disk for want of memory";
            self.unreadable(run_id, format!("{aside} and could not be read back: {reason}"))
        })
    }

    /// Corrupts a run that cannot be brought into memory. Gives what its requests are answered.
    fn unreadable(&self, run_id: &Arc<str>, reason: String) -> Outcome {
        if let Err(error) = self.corrupt(&[(Arc::clone(run_id), reason.clone())]) {
            tracing::error!(run = %run_id, %error, "a corrupted run could not be marked");
        }
        let index = self.index();
        let unusable = index.run(run_id).and_then(|run| Self::unusable(&index, run));
        unusable.unwrap_or_else(|| Outcome::server(reason))
    }

    /// Reads a checkpoint's files, all of them checked. The error is a sentence that names checkpoint and file.
    pub(crate) fn read_checkpoint(&self, row: &CheckpointRow) -> Result<checkpoint::Verified, String> {
        let files = self.files_of(row)?;
        checkpoint::read(&files.directory, &files.manifest_sha256).map_err(|e| damaged(row, &e))
    }

    /// Saves a run under a name.
    pub(super) fn save(&self, state: &mut RunState, run_id: &Arc<str>, seq: u64, save: &Save) -> Outcome {
        if !checkpoint::valid_name(&save.name) {
            return Outcome::user(format!(
                "'{}' cannot name a checkpoint: 1 to 255 letters, digits, '.', '_' or '-', not beginning with '.'",
                save.name
            ));
        }
        let now = now_millis();
        if let Some(refusal) = self.not_finite(state, run_id, &format!("'{}'", save.name)) {
            return refusal;
        }
        let existing = {
            let index = self.index();
            let listed = index.checkpoint(run_id, save.kind, &save.name);
            listed.filter(|checkpoint| !checkpoint.expired(now)).cloned()
        };
        match existing {
            // Sent again after a restart.
            Some(existing) if existing.new.seq == seq => {
                return Outcome::Done(serde_json::json!({ "path": existing.path().to_string() }));
            }
            Some(existing) if !save.overwrite => {
                let way_out =
                    if save.kind == CheckpointKind::Training { ", or save with overwrite" } else { "" };
                return Outcome::user(format!(
                    "{} exists already: choose another name{way_out}",
                    existing.path()
                ));
            }
            _ => {}
        }
        let new = NewCheckpoint {
            run_id: Arc::clone(run_id),
            kind: save.kind,
            name: save.name.as_str().into(),
            seq,
            saved_at: now,
            user_metadata: save.user_metadata.clone().map(|labels| Box::new(labels.into())),
        };
        let expires_at = save.ttl_seconds.map(|seconds| expiry(now, seconds));
        let stored = if save.kind.trains() {
            self.store(state, run_id, new, expires_at)
        } else {
            self.store_weights(state, run_id, new, expires_at)
        };
        match stored {
            Ok(row) => {
                let (path, size_bytes) = (row.path().to_string(), row.size_bytes);
                Outcome::Done(serde_json::json!({ "path": path, "size_bytes": size_bytes }))
            }
            Err(reason) => {
                tracing::error!(run = %run_id, name = save.name, %reason, "a checkpoint could not be saved");
                let way_out = if self.db.is_there() {
                    "; nothing saved before is harmed, save again under a new request"
                } else {
                    ""
                };
                Outcome::server(format!(
                    "checkpoint '{}' of {run_id} could not be saved: {reason}{way_out}",
                    save.name
                ))
            }
        }
    }

    /// The refusal to save weights that nobody could use.
    fn not_finite(&self, state: &RunState, run_id: &Arc<str>, what: &str) -> Option<Outcome> {
        if state.is_finite() {
            return None;
        }
        let newest = {
            let index = self.index();
            let run = index.run(run_id);
            run.and_then(|run| run.newest_checkpoint(now_millis())).map(|newest| newest.path())
        };
        let way_out = match newest {
            Some(path) => format!("go back to its newest checkpoint, {path}"),
            None => "it has no checkpoint to go back to".to_owned(),
        };
        Some(Outcome::user(format!(
            "{what} was not saved: the weights of training run {run_id} are not finite; {way_out}"
        )))
    }

    /// Saves a run's weights for a sampler, which this makes. The run does not stand on them.
    pub(super) fn save_for_sampler(
        &self,
        state: &RunState,
        run_id: &Arc<str>,
        seq: u64,
        save: &SaveForSampler,
    ) -> Outcome {
        if let Some(refusal) = self.not_finite(state, run_id, "a sampler's copy") {
            return refusal;
        }
        let Some(run) = self.index().run(run_id).map(|run| run.new.clone()) else {
            return Outcome::server(format!("training run {run_id} does not exist"));
        };
        let sampler_id = sampler_id_of(&run.session_id, save.sampling_session_seq_id);
        let done = Outcome::Done(serde_json::json!({ "path": null, "sampling_session_id": sampler_id }));
        if let Some(sampler) = self.index().sampler(&sampler_id) {
            let of_this_run = sampler.row.new.follows.as_deref() == Some(&**run_id)
                || sampler.checkpoint.as_ref().is_some_and(|weights| {
                    weights.new.kind == CheckpointKind::Session && weights.new.seq == seq
                });
            return if of_this_run {
                done
            } else {
                Outcome::user(format!("{sampler_id} exists already: its number is taken in the session"))
            };
        }
        let new = NewCheckpoint {
            run_id: Arc::clone(run_id),
            kind: CheckpointKind::Session,
            name: save.sampling_session_seq_id.to_string().into(),
            seq,
            saved_at: now_millis(),
            user_metadata: None,
        };
        let failed = |reason: String| {
            tracing::error!(run = %run_id, %reason, "weights could not be saved for a sampler");
            Outcome::server(format!("the weights of {run_id} could not be saved for a sampler: {reason}"))
        };
        let (row, written) = match self.write_pending(state, new, &new_run_origin(&run, seq)) {
            Ok((row, written)) => (Arc::new(row), written),
            Err(reason) => return failed(reason),
        };
        let sampler = NewSampler {
            sampler_id,
            session_id: run.session_id.to_string(),
            base_model: run.base_model.to_string(),
            model_path: None,
            checkpoint: Some(row.ordinal),
            follows: save.follows.then(|| run_id.to_string()),
            created_at: row.new.saved_at,
        };
        let (finished, stored, follows) = (Arc::clone(&row), sampler.clone(), save.follows);
        let ticket = self.db.write(move |c| {
            sql::finish_checkpoint(c, finished.ordinal, &written, None)?;
            if follows {
                sql::set_followers(c, &finished.new.run_id, finished.ordinal)?;
            }
            sql::insert_sampler(c, &stored)
        });
        let ordinal = match ticket.wait() {
            Ok(ordinal) => ordinal,
            Err(error) => {
                self.discard(&row);
                return failed(error.to_string());
            }
        };
        let before = {
            let mut index = self.index();
            let before = if save.follows { index.feed_followers(run_id, &row) } else { None };
            index.insert_sampler(SamplerRow { ordinal, new: sampler, clients: 0 }, Some(row));
            before
        };
        if let Some(before) = before {
            self.discard(&before);
        }
        done
    }

    /// Loads a checkpoint into a fresh run.
    pub(super) fn load_into(
        &self,
        state: &mut RunState,
        run_id: &Arc<str>,
        seq: u64,
        load: &Load,
    ) -> Outcome {
        let Some(new) = self.index().run(run_id).map(|run| run.new.clone()) else {
            return gone(run_id);
        };
        let verified = match self.loadable(&load.path) {
            Ok((_, verified)) => verified,
            Err(outcome) => return outcome,
        };
        let origin = &verified.origin;
        if *origin.base_model != *new.base_model || !origin.lora.fits(&new.lora) {
            return Outcome::user(format!(
                "{} does not fit {run_id}: it is {} of {}, the run is {} of {}",
                load.path, origin.lora, origin.base_model, new.lora, new.base_model
            ));
        }
        let restored = self.models.base(&new.base_model).and_then(|base| {
            RunState::restored(base, &verified, self.brings_optimizer(load))
                .map_err(|e| format!("{}: {e}", load.path))
        });
        match restored {
            Ok(restored) => *state = restored,
            Err(reason) => return Outcome::server(reason),
        }
        let new = self.starting_point(run_id, seq);
        match self.store(state, run_id, new, None) {
            Ok(_) => Outcome::Done(
                serde_json::json!({ "path": load.path.to_string(), "model_id": run_id.to_string() }),
            ),
            Err(reason) => {
                // Loaded, but in memory only: as unsaved as any training.
                state.modified = true;
                Outcome::server(format!("{} could not be kept for {run_id}: {reason}", load.path))
            }
        }
    }

    /// A run's state as it was when this checkpoint was saved, with work that counts as unsaved.
    pub(super) fn earlier(&self, path: &TinkerPath) -> Result<RunState, Outcome> {
        let (_, verified) = self.loadable(path)?;
        let base = self.models.base(&verified.origin.base_model).map_err(Outcome::server)?;
        let mut state =
            RunState::restored(base, &verified, true).map_err(|e| Outcome::server(format!("{path}: {e}")))?;
        state.modified = true;
        Ok(state)
    }

    /// Makes a run from a checkpoint. Resolves the request; gives the run when it worked.
    pub(super) fn create_from(&self, create: CreateFrom, trainer: usize) -> Option<(Arc<str>, RunState)> {
        match self.try_create_from(&create, trainer) {
            Ok((run_id, state)) => {
                let result =
                    serde_json::json!({ "path": create.load.path.to_string(), "model_id": create.run_id });
                create.completer.complete(Outcome::Done(result));
                Some((run_id, state))
            }
            Err(outcome) => {
                create.completer.complete(outcome);
                None
            }
        }
    }

    /// Whether a load brings the optimizer's state: if that is asked for, and no fault keeps it from it.
    fn brings_optimizer(&self, load: &Load) -> bool {
        load.optimizer && !self.faults.of_load()
    }

    fn try_create_from(&self, create: &CreateFrom, trainer: usize) -> Result<(Arc<str>, RunState), Outcome> {
        let (_, verified) = self.loadable(&create.load.path)?;
        let origin = &verified.origin;
        if let Some(expected) = &create.base_model
            && *expected != origin.base_model
        {
            return Err(Outcome::user(format!(
                "{} was trained on {}, not on {expected}",
                create.load.path, origin.base_model
            )));
        }
        let base = self.models.base(&origin.base_model).map_err(Outcome::user)?;
        let mut state = RunState::restored(base, &verified, self.brings_optimizer(&create.load))
            .map_err(|e| Outcome::server(format!("{}: {e}", create.load.path)))?;
        let new_run = Arc::new(create.new_run(origin, now_millis()));
        let server =
            |reason: String| Outcome::server(format!("{} could not be made: {reason}", create.run_id));
        let pending = self.starting_point(&create.run_id, 0);
        let origin = new_run_origin(&new_run, 0);
        let (row, written) = self.write_pending(&state, pending, &origin).map_err(server)?;

        let (run, ordinal) = (Arc::clone(&new_run), row.ordinal);
        let ticket = self.db.write(move |c| {
            let run = sql::insert_run(c, &run, Some(ordinal))?;
            sql::finish_checkpoint(c, ordinal, &written, None)?;
            Ok(run)
        });
        let run_ordinal = ticket.wait().map_err(|e| {
            self.discard(&row);
            server(e.to_string())
        })?;
        state.modified = false;
        let run_id: Arc<str> = create.run_id.as_str().into();
        let mut index = self.index();
        index.insert_run(RunRow {
            ordinal: run_ordinal,
            last_request_at: new_run.created_at,
            new: new_run,
            dirty_since: None,
            unsaved: 0,
            accepted_seq: 0,
            corrupted_reason: None,
            retired: None,
            standing: Some(ordinal),
        });
        if let Some(run) = index.run_mut(&run_id) {
            run.standing = Some(Arc::new(row));
            run.trainer = Some(trainer);
        }
        Ok((run_id, state))
    }

    /// A run's own starting point: never listed, kept until the run stands on something else.
    fn starting_point(&self, run_id: &str, seq: u64) -> NewCheckpoint {
        NewCheckpoint {
            run_id: run_id.into(),
            kind: CheckpointKind::State,
            name: "start".into(),
            seq,
            saved_at: now_millis(),
            user_metadata: None,
        }
    }

    /// Writes a run's state to a directory of its own, whose row says that it is not finished.
    fn write_pending(
        &self,
        state: &RunState,
        new: NewCheckpoint,
        origin: &Origin,
    ) -> Result<(CheckpointRow, Written), String> {
        let (ordinal, directory) = self.insert_pending(&new)?;
        let optimizer = new.kind.trains().then_some(&state.optimizer);
        match checkpoint::write(&directory, &self.layout.unfinished(), origin, &state.adapter, optimizer) {
            Ok(written) => {
                let (state, size_bytes) = (CheckpointState::Live, written.size_bytes);
                let row = CheckpointRow { ordinal, new, state, size_bytes, public: false, expires_at: None };
                Ok((row, written))
            }
            Err(e) => {
                self.discard_files(ordinal, &directory);
                Err(format!("{}: {e}", directory.display()))
            }
        }
    }

    /// Gives a checkpoint a directory of its own and a row that says that it is not finished. Blocks.
    pub(crate) fn insert_pending(&self, new: &NewCheckpoint) -> Result<(u64, PathBuf), String> {
        let (ticket, directory) = {
            let _guard = crate::sync::lock(&self.directories);
            let directory = self.free_directory(&new.run_id, folder(new.kind), &new.name);
            let (pending, place) = (new.clone(), directory.clone());
            (self.db.write(move |c| sql::insert_checkpoint(c, &pending, &place)), directory)
        };
        let ordinal = ticket.wait().map_err(|e| e.to_string())?;
        Ok((ordinal, self.layout.checkpoints().join(directory)))
    }

    /// Saves a run's state and makes the run stand on it.
    fn store(
        &self,
        state: &mut RunState,
        run_id: &Arc<str>,
        new: NewCheckpoint,
        expires_at: Option<i64>,
    ) -> Result<Arc<CheckpointRow>, String> {
        let seq = new.seq;
        let origin = self.index().run(run_id).map(|run| new_run_origin(&run.new, seq));
        let origin = origin.ok_or_else(|| format!("training run {run_id} does not exist"))?;
        let (mut row, written) = self.write_pending(state, new, &origin)?;
        row.expires_at = expires_at;

        let (ticket, replaced, released) = {
            let mut index = self.index();
            let replaced = index.checkpoint(run_id, row.new.kind, &row.new.name).cloned();
            let Some(run) = index.run_mut(run_id) else { return Err("the run is gone".to_owned()) };
            // Work that was accepted after this save, or gradients that it does not hold, would still be lost.
            let clean = !state.gradients_pending && run.unsaved.highest_seq <= seq;
            let released = run.standing.clone().filter(|standing| !standing.is_listed());
            if clean {
                run.unsaved = Unsaved::default();
            }
            let accepted = run.accepted_seq;
            let (run_ordinal, points) = (run.ordinal, run.take_points());
            let (id, ordinal) = (run.new.run_id.clone(), row.ordinal);
            let gone: Vec<u64> = replaced.iter().chain(&released).map(|gone| gone.ordinal).collect();
            let ticket = self.db.write(move |c| {
                for gone in gone {
                    sql::set_checkpoint_state(c, gone, CheckpointState::Removing)?;
                }
                sql::finish_checkpoint(c, ordinal, &written, expires_at)?;
                sql::set_standing(c, &id, Some(ordinal))?;
                metrics::append(c, run_ordinal, &points)?;
                if clean { sql::mark_clean(c, &id, accepted) } else { Ok(()) }
            });
            (ticket, replaced, released)
        };
        if let Err(error) = ticket.wait() {
            // The run was noted as saved; it is not.
            let mut index = self.index();
            if let Some(run) = index.run_mut(run_id) {
                run.unsaved.since.get_or_insert_with(now_millis);
                run.unsaved.durable = false;
            }
            drop(index);
            state.modified = true;
            self.discard(&row);
            return Err(error.to_string());
        }
        state.modified = state.gradients_pending;
        let row = Arc::new(row);
        let mut index = self.index();
        if let Some(replaced) = &replaced {
            index.remove_checkpoint(replaced);
        }
        if row.is_listed() {
            index.insert_checkpoint(Arc::clone(&row));
        }
        if let Some(run) = index.run_mut(run_id) {
            run.standing = Some(Arc::clone(&row));
        }
        drop(index);
        for gone in replaced.iter().chain(&released) {
            self.discard(gone);
        }
        Ok(row)
    }

    /// Saves a run's weights under a name, to sample from or to download. The run does not stand on them: its work is as
    /// unsaved as before.
    fn store_weights(
        &self,
        state: &RunState,
        run_id: &Arc<str>,
        new: NewCheckpoint,
        expires_at: Option<i64>,
    ) -> Result<Arc<CheckpointRow>, String> {
        let origin = self.index().run(run_id).map(|run| new_run_origin(&run.new, new.seq));
        let origin = origin.ok_or_else(|| format!("training run {run_id} does not exist"))?;
        let (mut row, written) = self.write_pending(state, new, &origin)?;
        row.expires_at = expires_at;
        let row = Arc::new(row);
        let replaced = self.index().checkpoint(run_id, row.new.kind, &row.new.name).cloned();
        let (ordinal, gone) = (row.ordinal, replaced.as_ref().map(|gone| gone.ordinal));
        let ticket = self.db.write(move |c| {
            if let Some(gone) = gone {
                sql::set_checkpoint_state(c, gone, CheckpointState::Removing)?;
            }
            sql::finish_checkpoint(c, ordinal, &written, expires_at)
        });
        if let Err(error) = ticket.wait() {
            self.discard(&row);
            return Err(error.to_string());
        }
        {
            let mut index = self.index();
            if let Some(replaced) = &replaced {
                index.remove_checkpoint(replaced);
            }
            index.insert_checkpoint(Arc::clone(&row));
        }
        if let Some(replaced) = replaced {
            self.discard(&replaced);
        }
        Ok(row)
    }

    /// A directory below that of the checkpoints, where nothing lies yet. It usually bears the checkpoint's name; names
    /// can differ in case only, be replaced, or be as long as a file name can be.
    fn free_directory(&self, run_id: &str, kind: &str, name: &str) -> String {
        let parent = PathBuf::from(file_name(run_id)).join(kind);
        let base = match name.get(..200) {
            Some(start) if name.len() > 200 => {
                format!("{start}~{}", checkpoint::sha256(name.as_bytes()).get(..16).unwrap_or_default())
            }
            _ => name.to_owned(),
        };
        let root = self.layout.checkpoints();
        let mut directory = parent.join(&base);
        let mut attempt = 1;
        while root.join(&directory).exists() {
            attempt += 1;
            directory = parent.join(format!("{base}~{attempt}"));
        }
        directory.to_string_lossy().into_owned()
    }
}

fn gone(run_id: &str) -> Outcome {
    Outcome::server(format!("training run {run_id} does not exist"))
}

fn damaged(row: &CheckpointRow, error: &checkpoint::ReadError) -> String {
    let what = match row.new.kind {
        CheckpointKind::State => format!("the starting point of {}", row.new.run_id),
        CheckpointKind::Session => format!("a sampler's copy of {}", row.new.run_id),
        _ => format!("checkpoint {}", row.path()),
    };
    format!("{what} is damaged: {error}")
}

/// Where checkpoints of a kind lie below their run's directory.
pub(crate) fn folder(kind: CheckpointKind) -> &'static str {
    match kind {
        CheckpointKind::Training => "weights",
        CheckpointKind::Sampler => "sampler_weights",
        CheckpointKind::External => "external_weights",
        CheckpointKind::State => "state",
        CheckpointKind::Session => "session",
    }
}

fn new_run_origin(run: &NewRun, last_seq: u64) -> Origin {
    Origin {
        run_id: run.run_id.to_string(),
        base_model: run.base_model.to_string(),
        lora: run.lora.clone(),
        optimizer_config: run.optimizer_config.as_ref().clone(),
        last_seq,
    }
}

/// When something saved now expires. Absurdly long times mean the end of time.
pub(crate) fn expiry(now: i64, ttl_seconds: u64) -> i64 {
    i64::try_from(ttl_seconds)
        .ok()
        .and_then(|s| s.checked_mul(1000))
        .and_then(|ms| now.checked_add(ms))
        .unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LocalConfig;
    use retinker_nn::{Adapter, NamedTensor};
    use retinker_wire::future::RequestErrorCategory;

    #[tokio::test(flavor = "multi_thread")]
    async fn weights_that_are_not_finite_are_not_saved() {
        let dir = tempfile::tempdir().unwrap();
        let service = crate::LocalService::start(LocalConfig::new(dir.path())).await.unwrap();
        let core = service.core();
        let session = core.create_session(Default::default(), None).await.unwrap();
        let request = serde_json::json!({"session_id": session, "base_model": "retinker/nano-llama"});
        core.create_model(serde_json::from_value(request).unwrap()).await.unwrap();
        let run_id: Arc<str> = format!("{session}:train:0").into();
        let saves = Arc::clone(core);
        let (good, refused, untouched) = tokio::task::spawn_blocking(move || {
            let mut state = saves.load_run(&run_id).unwrap();
            let save = |name: &str| Save {
                kind: CheckpointKind::Training,
                name: name.into(),
                overwrite: false,
                ttl_seconds: None,
                user_metadata: None,
            };
            let good = saves.save(&mut state, &run_id, 1, &save("good"));
            let mut tensors: Vec<NamedTensor> = state.adapter.tensors().map(|t| t.to_owned()).collect();
            tensors[0].data[0] = f32::INFINITY;
            let layout = state.adapter.layout();
            state.adapter = Adapter::from_tensors(layout.model(), layout.lora(), tensors).unwrap();
            let refused = saves.save(&mut state, &run_id, 2, &save("bad"));
            let untouched = saves.index().checkpoint(&run_id, CheckpointKind::Training, "bad").is_none();
            (good, refused, untouched)
        })
        .await
        .unwrap();
        assert!(matches!(good, Outcome::Done(_)), "{good:?}");
        assert!(untouched);
        let Outcome::Failed { message, category: RequestErrorCategory::User } = refused else {
            panic!("{refused:?}")
        };
        let newest = format!("tinker://{session}:train:0/weights/good");
        assert!(message.contains("not finite") && message.ends_with(&newest), "{message}");
        service.stop().await;
    }
}
