//! Copies of checkpoints: a run of their own that only holds them.

use std::sync::Arc;

use retinker_wire::model::model_id_of;
use retinker_wire::path::TinkerPath;
use retinker_wire::session::{CreateSessionRequest, FinishReason, FinishReasonBody, FinishSessionRequest};
use retinker_wire::weights::CopyWeightsRequest;

use super::runs::{check_number, checkpoint_path, unknown_run};
use crate::checkpoint::{self, Written};
use crate::core::Core;
use crate::db::{CheckpointRow, CheckpointState, NewCheckpoint, NewRun, RunRow, sql};
use crate::http::ApiError;
use crate::time::now_millis;
use crate::trainer::expiry;

const RETIRED: &str = "it only holds a copy of a checkpoint; make a run from that to train on";

impl Core {
    /// Copies a checkpoint. Asked for again, by the same place in a session or with the same `key`, the copy is found.
    pub(crate) async fn copy_weights(
        self: &Arc<Self>,
        request: CopyWeightsRequest,
        key: Option<String>,
    ) -> Result<TinkerPath, ApiError> {
        let path = checkpoint_path(&request.source_path)?;
        let source = self.listed_checkpoint(&path)?;
        let (session_id, model_seq_id, own) = match (request.session_id, request.model_seq_id) {
            (Some(session_id), Some(model_seq_id)) => {
                check_number("model_seq_id", model_seq_id)?;
                (session_id, model_seq_id, false)
            }
            (None, None) => {
                (self.session_of_copy(&path, request.destination_project_id, key).await?, 0, true)
            }
            _ => {
                return Err(ApiError::unprocessable(
                    "give both session_id and model_seq_id, or destination_project_id alone".to_owned(),
                ));
            }
        };
        let run_id = model_id_of(&session_id, model_seq_id);
        let copy = TinkerPath {
            training_run_id: run_id.clone(),
            checkpoint_type: path.checkpoint_type.clone(),
            name: path.name.clone(),
        };
        let found =
            self.index().run(&run_id).map(|run| run.new.origin_path.as_deref() == Some(&*path.to_string()));
        match found {
            Some(true) => return Ok(copy),
            Some(false) => {
                return Err(ApiError::bad_request(format!(
                    "training run {run_id} exists already: choose another model_seq_id"
                )));
            }
            None => {}
        }
        if !own {
            Self::check_session(&self.index(), &session_id)?;
        }
        let run = self.run_of_copy(&path, run_id, session_id.clone(), model_seq_id)?;
        let core = Arc::clone(self);
        let expires_at = request.ttl_seconds.map(|seconds| expiry(now_millis(), seconds));
        tokio::task::spawn_blocking(move || core.write_copy(&source, Arc::new(run), expires_at))
            .await
            .unwrap_or_else(|_| Err("copying failed inside the service; its log says why".to_owned()))
            .map_err(|reason| ApiError::internal(format!("{path} could not be copied: {reason}")))?;
        if own {
            let finish = FinishSessionRequest {
                reason: FinishReasonBody { kind: FinishReason::Success },
                detail: None,
            };
            self.finish_session(&session_id, &finish).await?;
        }
        Ok(copy)
    }

    /// A session for a copy that goes to a project.
    async fn session_of_copy(
        &self,
        path: &TinkerPath,
        project_id: Option<String>,
        key: Option<String>,
    ) -> Result<String, ApiError> {
        if project_id.as_ref().is_none_or(String::is_empty) {
            return Err(ApiError::unprocessable(
                "say where the copy goes: destination_project_id, or session_id and model_seq_id".to_owned(),
            ));
        }
        let request = CreateSessionRequest {
            project_id,
            display_name: Some(format!("copy of {path}")),
            ..Default::default()
        };
        self.create_session(request, key.map(|key| format!("copy_weights {key}"))).await
    }

    fn run_of_copy(
        &self,
        path: &TinkerPath,
        run_id: String,
        session_id: String,
        model_seq_id: u64,
    ) -> Result<NewRun, ApiError> {
        let index = self.index();
        let original = index.run(&path.training_run_id);
        let original = &original.ok_or_else(|| unknown_run(&path.training_run_id))?.new;
        Ok(NewRun {
            run_id: run_id.into(),
            session_id: session_id.into(),
            model_seq_id,
            origin_path: Some(path.to_string()),
            created_at: now_millis(),
            ..NewRun::clone(original)
        })
    }

    /// Blocks.
    fn write_copy(
        &self,
        source: &CheckpointRow,
        run: Arc<NewRun>,
        expires_at: Option<i64>,
    ) -> Result<(), String> {
        self.read_checkpoint(source)?;
        let files = self.files_of(source)?;
        let new =
            NewCheckpoint { run_id: run.run_id.clone(), saved_at: run.created_at, ..source.new.clone() };
        let (ordinal, directory) = self.insert_pending(&new)?;
        checkpoint::copy(&files.directory, &directory, &self.layout.unfinished()).map_err(|e| {
            self.discard_files(ordinal, &directory);
            e.to_string()
        })?;
        let state = CheckpointState::Live;
        let row = CheckpointRow { ordinal, new, state, public: false, expires_at, ..source.clone() };
        let stored = Arc::clone(&run);
        let written = Written { size_bytes: row.size_bytes, manifest_sha256: files.manifest_sha256 };
        let ticket = self.db.write(move |c| {
            let run = sql::insert_run(c, &stored, None)?;
            sql::finish_checkpoint(c, ordinal, &written, expires_at)?;
            sql::set_retired(c, &stored.run_id, RETIRED)?;
            Ok(run)
        });
        let ordinal = ticket.wait().map_err(|e| {
            self.discard(&row);
            e.to_string()
        })?;
        let mut index = self.index();
        index.insert_run(RunRow {
            ordinal,
            last_request_at: run.created_at,
            new: run,
            dirty_since: None,
            unsaved: 0,
            accepted_seq: 0,
            corrupted_reason: None,
            retired: Some(RETIRED.to_owned()),
            standing: None,
        });
        index.insert_checkpoint(Arc::new(row));
        Ok(())
    }
}
