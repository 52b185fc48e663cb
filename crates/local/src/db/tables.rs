//! Rows, and the statements that change them.

use std::path::PathBuf;
use std::sync::Arc;

use retinker_wire::run::CheckpointType;
use retinker_wire::session::{CreateSessionRequest, SessionStatus};
use serde::Serialize;

use crate::labels::Labels;
use crate::lora::LoraShape;
use crate::metrics::Point;

/// A session.
#[derive(Debug, Clone)]
pub(crate) struct SessionRow {
    pub(crate) ordinal: u64,
    pub(crate) session_id: String,
    pub(crate) created_at: i64,
    pub(crate) request: CreateSessionRequest,
    /// What the client marked the request with, so that it makes one session however often it is sent.
    pub(crate) idempotency_key: Option<String>,
    pub(crate) ended: Option<SessionEnd>,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SessionEnd {
    /// For people.
    pub(crate) reason: String,
    /// As the protocol says it.
    pub(crate) status: SessionStatus,
}

/// A sampling session.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SamplerRow {
    pub(crate) ordinal: u64,
    pub(crate) new: NewSampler,
    /// How many clients were given a number of their own.
    pub(crate) clients: u64,
}

/// What a sampling session samples from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NewSampler {
    pub(crate) sampler_id: String,
    pub(crate) session_id: String,
    pub(crate) base_model: String,
    /// The checkpoint's path; `None` for the base model and for weights that were saved for this sampler alone.
    pub(crate) model_path: Option<String>,
    /// The checkpoint by ordinal; `None` = the base model.
    pub(crate) checkpoint: Option<u64>,
    /// The run whose newest weights it follows; `None` = its weights are fixed.
    pub(crate) follows: Option<String>,
    pub(crate) created_at: i64,
}

/// A run.
#[derive(Debug, Clone)]
pub(crate) struct RunRow {
    pub(crate) ordinal: u64,
    pub(crate) new: Arc<NewRun>,
    pub(crate) last_request_at: i64,
    pub(crate) dirty_since: Option<i64>,
    pub(crate) unsaved: u64,
    pub(crate) accepted_seq: u64,
    pub(crate) corrupted_reason: Option<String>,
    /// Why it takes no more requests although its session lasts.
    pub(crate) retired: Option<String>,
    pub(crate) standing: Option<u64>,
}

/// What a run is made of; never changes.
#[derive(Debug, Clone)]
pub(crate) struct NewRun {
    pub(crate) run_id: Arc<str>,
    pub(crate) session_id: Arc<str>,
    pub(crate) model_seq_id: u64,
    pub(crate) base_model: Arc<str>,
    pub(crate) lora: LoraShape,
    /// Shared: nearly all runs have the same.
    pub(crate) optimizer_config: Arc<serde_json::Value>,
    pub(crate) user_metadata: Option<Labels>,
    pub(crate) origin_path: Option<String>,
    pub(crate) created_at: i64,
}

/// How far a checkpoint has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CheckpointState {
    /// Being written.
    Pending,
    /// Saved.
    Live,
    /// Deleted or expired for users; kept because a run stands on it.
    Retained,
    /// Its files are being removed.
    Removing,
}

impl CheckpointState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Live => "live",
            Self::Retained => "retained",
            Self::Removing => "removing",
        }
    }

    pub(super) fn of(word: &[u8]) -> Self {
        match word {
            b"live" => Self::Live,
            b"retained" => Self::Retained,
            b"pending" => Self::Pending,
            _ => Self::Removing,
        }
    }
}

/// What a checkpoint is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CheckpointKind {
    /// Weights and optimizer, to train on.
    Training,
    /// Weights to sample from.
    Sampler,
    /// Weights to download.
    External,
    /// A run's own starting point; never listed.
    State,
    /// Weights saved for one sampling session; never listed, gone with the session.
    Session,
}

impl CheckpointKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Training => "training",
            Self::Sampler => "sampler",
            Self::External => "external",
            Self::State => "state",
            Self::Session => "session",
        }
    }

    pub(super) fn of(word: &[u8]) -> Self {
        match word {
            b"training" => Self::Training,
            b"sampler" => Self::Sampler,
            b"external" => Self::External,
            b"session" => Self::Session,
            _ => Self::State,
        }
    }

    /// The protocol's word for it; `None` for those that users do not see.
    pub(crate) fn listed_as(self) -> Option<CheckpointType> {
        match self {
            Self::Training => Some(CheckpointType::Training),
            Self::Sampler => Some(CheckpointType::Sampler),
            Self::External => Some(CheckpointType::External),
            Self::State | Self::Session => None,
        }
    }

    /// Which of the listed kinds a word of the protocol means.
    pub(crate) fn of_type(kind: &CheckpointType) -> Option<Self> {
        [Self::Training, Self::Sampler, Self::External]
            .into_iter()
            .find(|known| known.listed_as().as_ref() == Some(kind))
    }

    /// Whether it holds the optimizer too, so that a run can stand on it.
    pub(crate) fn trains(self) -> bool {
        matches!(self, Self::Training | Self::State)
    }
}

/// A checkpoint, as the index holds it: small, for there can be very many. Where its files lie is [`Files`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CheckpointRow {
    pub(crate) ordinal: u64,
    pub(crate) new: NewCheckpoint,
    pub(crate) state: CheckpointState,
    pub(crate) size_bytes: u64,
    pub(crate) public: bool,
    pub(crate) expires_at: Option<i64>,
}

/// Where a checkpoint's files lie and what they must be. Read when they are used.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Files {
    pub(crate) directory: PathBuf,
    /// Of the manifest, which has the other files' checksums.
    pub(crate) manifest_sha256: String,
}

/// What a checkpoint is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NewCheckpoint {
    pub(crate) run_id: Arc<str>,
    pub(crate) kind: CheckpointKind,
    pub(crate) name: Box<str>,
    /// The number of the request that made it.
    pub(crate) seq: u64,
    pub(crate) saved_at: i64,
    pub(crate) user_metadata: Option<Box<Labels>>,
}

/// What of a run's progress is written now and then, for people and for a reload.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    pub(crate) ordinal: u64,
    pub(crate) run_id: Arc<str>,
    pub(crate) last_request_at: i64,
    pub(crate) unsaved: u64,
    pub(crate) points: Vec<Point>,
}

fn json<T: Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))
}

/// The changes.
pub(crate) mod sql {
    use retinker_wire::session::CreateSessionRequest;
    use rusqlite::{Connection, OptionalExtension, params};

    use crate::checkpoint::Written;

    use super::{CheckpointState, Files, NewCheckpoint, NewRun, NewSampler, Progress, SessionEnd, json};
    use crate::metrics;

    type Done = rusqlite::Result<()>;

    fn change(c: &Connection, statement: &str, values: impl rusqlite::Params) -> Done {
        c.prepare_cached(statement)?.execute(values).map(|_| ())
    }

    fn inserted(c: &Connection) -> u64 {
        u64::try_from(c.last_insert_rowid()).unwrap_or_default()
    }

    pub(crate) fn insert_session(
        c: &Connection,
        session_id: &str,
        created_at: i64,
        request: &CreateSessionRequest,
        idempotency_key: Option<&str>,
    ) -> rusqlite::Result<u64> {
        let request = json(request)?;
        change(
            c,
            "INSERT INTO sessions (session_id, created_at, request, idempotency_key) VALUES (?1, ?2, ?3, ?4)",
            params![session_id, created_at, request, idempotency_key],
        )?;
        Ok(inserted(c))
    }

    pub(crate) fn end_session(c: &Connection, session_id: &str, at: i64, end: &SessionEnd) -> Done {
        change(
            c,
            "UPDATE sessions SET ended_at = ?2, end_reason = ?3, end_status = ?4
             WHERE session_id = ?1 AND ended_at IS NULL",
            params![session_id, at, end.reason, json(&end.status)?],
        )
    }

    /// Replaces what a session was created with: its project can change.
    pub(crate) fn set_session(c: &Connection, session_id: &str, request: &CreateSessionRequest) -> Done {
        change(
            c,
            "UPDATE sessions SET request = ?2 WHERE session_id = ?1",
            params![session_id, json(request)?],
        )
    }

    pub(crate) fn insert_sampler(c: &Connection, sampler: &NewSampler) -> rusqlite::Result<u64> {
        change(
            c,
            "INSERT INTO samplers (sampler_id, session_id, base_model, model_path, checkpoint, follows, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                sampler.sampler_id,
                sampler.session_id,
                sampler.base_model,
                sampler.model_path,
                sampler.checkpoint,
                sampler.follows,
                sampler.created_at
            ],
        )?;
        Ok(inserted(c))
    }

    /// Gives the samplers that follow a run its newest weights.
    pub(crate) fn set_followers(c: &Connection, run_id: &str, checkpoint: u64) -> Done {
        change(c, "UPDATE samplers SET checkpoint = ?2 WHERE follows = ?1", params![run_id, checkpoint])
    }

    pub(crate) fn set_sampler_clients(c: &Connection, sampler_id: &str, clients: u64) -> Done {
        change(
            c,
            "UPDATE samplers SET clients = max(clients, ?2) WHERE sampler_id = ?1",
            params![sampler_id, clients],
        )
    }

    /// Takes a run out of training for good.
    pub(crate) fn set_retired(c: &Connection, run_id: &str, reason: &str) -> Done {
        change(
            c,
            "UPDATE runs SET retired = coalesce(retired, ?2) WHERE run_id = ?1",
            params![run_id, reason],
        )
    }

    pub(crate) fn insert_run(c: &Connection, run: &NewRun, standing: Option<u64>) -> rusqlite::Result<u64> {
        change(
            c,
            "INSERT INTO runs (run_id, session_id, model_seq_id, base_model, lora, optimizer_config, user_metadata,
                origin_path, created_at, last_request_at, standing)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9, ?10)",
            params![
                run.run_id,
                run.session_id,
                run.model_seq_id,
                run.base_model,
                json(&run.lora)?,
                json(&*run.optimizer_config)?,
                run.user_metadata.as_ref().map(json).transpose()?,
                run.origin_path,
                run.created_at,
                standing
            ],
        )?;
        Ok(inserted(c))
    }

    pub(crate) fn mark_dirty(c: &Connection, run_id: &str, since: i64) -> Done {
        change(
            c,
            "UPDATE runs SET dirty_since = coalesce(dirty_since, ?2), last_request_at = max(last_request_at, ?2)
             WHERE run_id = ?1",
            params![run_id, since],
        )
    }

    /// Notes that nothing is unsaved; `accepted` is the highest number taken in.
    pub(crate) fn mark_clean(c: &Connection, run_id: &str, accepted: u64) -> Done {
        change(c, "UPDATE runs SET dirty_since = NULL, unsaved = 0 WHERE run_id = ?1", params![run_id])?;
        note_accepted(c, run_id, accepted)
    }

    pub(crate) fn note_accepted(c: &Connection, run_id: &str, seq: u64) -> Done {
        change(
            c,
            "UPDATE runs SET accepted_seq = max(accepted_seq, ?2) WHERE run_id = ?1",
            params![run_id, seq],
        )
    }

    pub(crate) fn set_standing(c: &Connection, run_id: &str, checkpoint: Option<u64>) -> Done {
        change(c, "UPDATE runs SET standing = ?2 WHERE run_id = ?1", params![run_id, checkpoint])
    }

    /// Makes a run stand on nothing if it stood on this.
    pub(crate) fn release(c: &Connection, run_id: &str, checkpoint: u64) -> Done {
        change(
            c,
            "UPDATE runs SET standing = NULL WHERE run_id = ?1 AND standing = ?2",
            params![run_id, checkpoint],
        )
    }

    pub(crate) fn mark_corrupted(c: &Connection, run_id: &str, reason: &str) -> Done {
        change(
            c,
            "UPDATE runs SET corrupted_reason = coalesce(corrupted_reason, ?2) WHERE run_id = ?1",
            params![run_id, reason],
        )
    }

    pub(crate) fn note_progress(c: &Connection, progress: &Progress) -> Done {
        change(
            c,
            "UPDATE runs SET last_request_at = ?2, unsaved = ?3 WHERE run_id = ?1",
            params![progress.run_id, progress.last_request_at, progress.unsaved],
        )?;
        metrics::append(c, progress.ordinal, &progress.points)
    }

    pub(crate) fn insert_checkpoint(
        c: &Connection,
        checkpoint: &NewCheckpoint,
        directory: &str,
    ) -> rusqlite::Result<u64> {
        change(
            c,
            "INSERT INTO checkpoints (run_id, kind, name, directory, state, seq, saved_at, user_metadata)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                checkpoint.run_id,
                checkpoint.kind.as_str(),
                checkpoint.name,
                directory,
                CheckpointState::Pending.as_str(),
                checkpoint.seq,
                checkpoint.saved_at,
                checkpoint.user_metadata.as_ref().map(json).transpose()?
            ],
        )?;
        Ok(inserted(c))
    }

    /// Notes that a checkpoint is saved. Its run must be there, or it is in no run's list after a restart.
    pub(crate) fn finish_checkpoint(
        c: &Connection,
        ordinal: u64,
        written: &Written,
        expires_at: Option<i64>,
    ) -> Done {
        change(
            c,
            "UPDATE checkpoints SET state = 'live', size_bytes = ?2, manifest_sha256 = ?3, expires_at = ?4,
                run = (SELECT ordinal FROM runs WHERE runs.run_id = checkpoints.run_id)
             WHERE ordinal = ?1",
            params![ordinal, written.size_bytes, written.manifest_sha256, expires_at],
        )
    }

    /// A checkpoint's files, the directory below that of all checkpoints; `None` = there is no such row any more.
    pub(crate) fn files_of(c: &Connection, ordinal: u64) -> rusqlite::Result<Option<Files>> {
        let mut statement =
            c.prepare_cached("SELECT directory, manifest_sha256 FROM checkpoints WHERE ordinal = ?1")?;
        let files = |row: &rusqlite::Row<'_>| {
            let directory: String = row.get(0)?;
            Ok(Files { directory: directory.into(), manifest_sha256: row.get(1)? })
        };
        statement.query_row(params![ordinal], files).optional()
    }

    pub(crate) fn set_checkpoint_state(c: &Connection, ordinal: u64, state: CheckpointState) -> Done {
        change(c, "UPDATE checkpoints SET state = ?2 WHERE ordinal = ?1", params![ordinal, state.as_str()])
    }

    pub(crate) fn set_expiry(c: &Connection, ordinal: u64, expires_at: Option<i64>) -> Done {
        change(c, "UPDATE checkpoints SET expires_at = ?2 WHERE ordinal = ?1", params![ordinal, expires_at])
    }

    pub(crate) fn set_public(c: &Connection, ordinal: u64, public: bool) -> Done {
        change(c, "UPDATE checkpoints SET public = ?2 WHERE ordinal = ?1", params![ordinal, public])
    }

    pub(crate) fn delete_checkpoint(c: &Connection, ordinal: u64) -> Done {
        change(c, "DELETE FROM checkpoints WHERE ordinal = ?1", params![ordinal])
    }
}
