//! Reads everything, once, at the start.
//!
//! Of runs and checkpoints there can be very many. They are read in parts, each by a thread with a connection of its own,
//! and what a part has of each run is put together there, so that the index takes it as it is.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use retinker_wire::session::SessionStatus;
use rusqlite::types::Type;
use rusqlite::{Connection, OpenFlags, Row};
use serde::de::DeserializeOwned;

use super::tables::{
    CheckpointKind, CheckpointRow, CheckpointState, NewCheckpoint, NewRun, NewSampler, RunRow, SamplerRow,
    SessionEnd, SessionRow,
};

/// Everything there is, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) sessions: Vec<SessionRow>,
    pub(crate) runs: Vec<RunRow>,
    pub(crate) samplers: Vec<SamplerRow>,
    pub(crate) checkpoints: Vec<Part>,
}

/// Checkpoints, oldest first; those of the next part are all newer.
#[derive(Debug, Default)]
pub(crate) struct Part {
    /// Those that users see.
    pub(crate) listed: Vec<Arc<CheckpointRow>>,
    /// The same by run, in the order of [`Rows::runs`].
    pub(crate) of_runs: Vec<Vec<Arc<CheckpointRow>>>,
    /// The others.
    pub(crate) unlisted: Vec<Arc<CheckpointRow>>,
}

/// Where each run stands in [`Rows::runs`], and its id to share.
type Places<'a> = HashMap<&'a str, (usize, &'a Arc<str>)>;

/// Reads everything.
pub(super) fn read_all(connection: &Connection) -> rusqlite::Result<Rows> {
    let sessions = read_sessions(connection)?;
    let samplers = read_samplers(connection)?;
    let runs: Vec<RunRow> = in_parts(connection, "runs", read_runs)?.into_iter().flatten().collect();
    let places: Places<'_> =
        runs.iter().enumerate().map(|(place, run)| (&*run.new.run_id, (place, &run.new.run_id))).collect();
    let checkpoints =
        in_parts(connection, "checkpoints", |connection, part| read_checkpoints(connection, part, &places))?;
    Ok(Rows { sessions, runs, samplers, checkpoints })
}

/// Reads a table in as many parts as there are cores: ranges of ordinals, the lowest first.
fn in_parts<T: Send>(
    connection: &Connection,
    table: &str,
    read: impl Fn(&Connection, RangeInclusive<u64>) -> rusqlite::Result<T> + Sync,
) -> rusqlite::Result<Vec<T>> {
    let query = format!("SELECT coalesce(max(ordinal), 0) FROM {table}");
    let last: u64 = connection.query_row(&query, [], |row| row.get(0))?;
    // One in memory has no path, and no other connection can see it.
    let Some(path) = connection.path().filter(|path| !path.is_empty()) else {
        return Ok(vec![read(connection, 1..=last)?]);
    };
    let parts = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let length = last / parts + 1;
    let read_part = |part: u64| {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        read(&Connection::open_with_flags(path, flags)?, part * length + 1..=(part + 1) * length)
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..parts).map(|part| scope.spawn(move || read_part(part))).collect();
        let joined = readers.into_iter().map(|reader| match reader.join() {
            Ok(rows) => rows,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.collect()
    })
}

fn from_json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    serde_json::from_str(text(row, column)?)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(e)))
}

fn optional_json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    match row.get_ref(column)?.as_str_or_null()? {
        Some(_) => from_json(row, column).map(Some),
        None => Ok(None),
    }
}

fn text<'a>(row: &'a Row<'_>, column: usize) -> rusqlite::Result<&'a str> {
    Ok(row.get_ref(column)?.as_str()?)
}

fn read_sessions(connection: &Connection) -> rusqlite::Result<Vec<SessionRow>> {
    let mut statement = connection.prepare(
        "SELECT ordinal, session_id, created_at, request, idempotency_key, end_reason, end_status
         FROM sessions ORDER BY ordinal",
    )?;
    let rows = statement.query_map([], |row| {
        let reason: Option<String> = row.get(5)?;
        let status = optional_json(row, 6)?;
        Ok(SessionRow {
            ordinal: row.get(0)?,
            session_id: row.get(1)?,
            created_at: row.get(2)?,
            request: from_json(row, 3)?,
            idempotency_key: row.get(4)?,
            ended: reason.map(|reason| SessionEnd {
                status: status.unwrap_or_else(|| SessionStatus::cancelled(reason.clone())),
                reason,
            }),
        })
    })?;
    rows.collect()
}

fn read_runs(connection: &Connection, part: RangeInclusive<u64>) -> rusqlite::Result<Vec<RunRow>> {
    let mut statement = connection.prepare(
        "SELECT ordinal, run_id, session_id, model_seq_id, base_model, lora, optimizer_config, user_metadata,
            origin_path, created_at, last_request_at, dirty_since, unsaved, accepted_seq, corrupted_reason, standing,
            retired
         FROM runs WHERE ordinal BETWEEN ?1 AND ?2 ORDER BY ordinal",
    )?;
    let rows = statement.query_map([part.start(), part.end()], |row| {
        Ok(RunRow {
            ordinal: row.get(0)?,
            new: NewRun {
                run_id: row.get(1)?,
                session_id: row.get(2)?,
                model_seq_id: row.get(3)?,
                base_model: row.get(4)?,
                lora: from_json(row, 5)?,
                optimizer_config: from_json(row, 6)?,
                user_metadata: optional_json(row, 7)?,
                origin_path: row.get(8)?,
                created_at: row.get(9)?,
            },
            last_request_at: row.get(10)?,
            dirty_since: row.get(11)?,
            unsaved: row.get(12)?,
            accepted_seq: row.get(13)?,
            corrupted_reason: row.get(14)?,
            standing: row.get(15)?,
            retired: row.get(16)?,
        })
    })?;
    rows.collect()
}

fn read_checkpoints(
    connection: &Connection,
    part: RangeInclusive<u64>,
    places: &Places<'_>,
) -> rusqlite::Result<Part> {
    let mut statement = connection.prepare(
        "SELECT ordinal, run_id, kind, name, directory, state, seq, saved_at, size_bytes, manifest_sha256, public,
            user_metadata, expires_at
         FROM checkpoints WHERE ordinal BETWEEN ?1 AND ?2",
    )?;
    let mut read = Part { of_runs: vec![Vec::new(); places.len()], ..Part::default() };
    let mut rows = statement.query([part.start(), part.end()])?;
    while let Some(row) = rows.next()? {
        let run_id = text(row, 1)?;
        let place = places.get(run_id);
        let checkpoint = Arc::new(CheckpointRow {
            ordinal: row.get(0)?,
            new: NewCheckpoint {
                run_id: place.map_or_else(|| run_id.into(), |(_, id)| Arc::clone(id)),
                kind: CheckpointKind::of(text(row, 2)?),
                name: row.get(3)?,
                directory: row.get(4)?,
                seq: row.get(6)?,
                saved_at: row.get(7)?,
                user_metadata: optional_json(row, 11)?,
            },
            state: CheckpointState::of(text(row, 5)?),
            size_bytes: row.get(8)?,
            manifest_sha256: row.get(9)?,
            public: row.get(10)?,
            expires_at: row.get(12)?,
        });
        if !checkpoint.is_listed() {
            read.unlisted.push(checkpoint);
            continue;
        }
        if let Some(of_run) = place.and_then(|(place, _)| read.of_runs.get_mut(*place)) {
            of_run.push(Arc::clone(&checkpoint));
        }
        read.listed.push(checkpoint);
    }
    Ok(read)
}

fn read_samplers(connection: &Connection) -> rusqlite::Result<Vec<SamplerRow>> {
    let mut statement = connection.prepare(
        "SELECT ordinal, sampler_id, session_id, base_model, model_path, checkpoint, follows, created_at, clients
         FROM samplers ORDER BY ordinal",
    )?;
    let rows = statement.query_map([], |row| {
        Ok(SamplerRow {
            ordinal: row.get(0)?,
            new: NewSampler {
                sampler_id: row.get(1)?,
                session_id: row.get(2)?,
                base_model: row.get(3)?,
                model_path: row.get(4)?,
                checkpoint: row.get(5)?,
                follows: row.get(6)?,
                created_at: row.get(7)?,
            },
            clients: row.get(8)?,
        })
    })?;
    rows.collect()
}
