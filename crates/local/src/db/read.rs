//! Reads everything, once, at the start.
//!
//! Of runs and checkpoints there can be very many. They are read in parts, each by a thread with a connection of its own,
//! and the checkpoints of each run are put together here, so that the index takes them as they are.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
    /// The checkpoints that users see.
    pub(crate) listed: Vec<Arc<CheckpointRow>>,
    /// The same by run, in the order of the runs.
    pub(crate) of_runs: Vec<Vec<Arc<CheckpointRow>>>,
    /// The other checkpoints.
    pub(crate) unlisted: Vec<Arc<CheckpointRow>>,
}

/// A part of the checkpoints, oldest first; those of the next part are all newer.
#[derive(Default)]
struct Part {
    listed: Vec<Arc<CheckpointRow>>,
    /// For each of the listed, where its run stands; `None` = there is no such run.
    owners: Vec<Option<u32>>,
    unlisted: Vec<Arc<CheckpointRow>>,
}

/// For how many checkpoints of a part room is made at once.
const EXPECTED: usize = 1 << 20;

/// The runs by ordinal: what is needed of them lies close together, for it is asked once for every checkpoint.
struct Owners {
    ordinals: Vec<u64>,
    ids: Vec<Arc<str>>,
}

impl Owners {
    fn new(runs: &[RunRow]) -> Self {
        Self {
            ordinals: runs.iter().map(|run| run.ordinal).collect(),
            ids: runs.iter().map(|run| Arc::clone(&run.new.run_id)).collect(),
        }
    }

    /// Where a run stands among them, and its id to share.
    fn find(&self, ordinal: u64) -> Option<(u32, &Arc<str>)> {
        // Runs are never deleted, so nearly always there are no gaps.
        let expected = ordinal.checked_sub(*self.ordinals.first()?)? as usize;
        let place = match self.ordinals.get(expected) {
            Some(found) if *found == ordinal => expected,
            _ => self.ordinals.binary_search(&ordinal).ok()?,
        };
        Some((u32::try_from(place).ok()?, self.ids.get(place)?))
    }
}

/// Reads everything.
pub(super) fn read_all(connection: &Connection) -> rusqlite::Result<Rows> {
    let sessions = read_sessions(connection)?;
    let samplers = read_samplers(connection)?;
    let runs: Vec<RunRow> = in_parts(connection, "runs", read_runs)?.into_iter().flatten().collect();
    let owners = Owners::new(&runs);
    let parts =
        in_parts(connection, "checkpoints", |connection, part| read_checkpoints(connection, part, &owners))?;
    let of_runs = by_run(&parts, runs.len());
    let (mut listed, mut unlisted) = (Vec::new(), Vec::new());
    for mut part in parts {
        listed.append(&mut part.listed);
        unlisted.append(&mut part.unlisted);
    }
    Ok(Rows { sessions, runs, samplers, listed, of_runs, unlisted })
}

/// The listed checkpoints of each run. They are counted first, so that each list is allocated once, and each thread has
/// runs of its own.
fn by_run(parts: &[Part], runs: usize) -> Vec<Vec<Arc<CheckpointRow>>> {
    let mut counts = vec![0; runs];
    for owner in parts.iter().flat_map(|part| &part.owners).flatten() {
        if let Some(count) = counts.get_mut(*owner as usize) {
            *count += 1;
        }
    }
    let mut lists: Vec<Vec<_>> = vec![Vec::new(); runs];
    let length = runs.div_ceil(threads()).max(1);
    std::thread::scope(|scope| {
        for (at, (lists, counts)) in lists.chunks_mut(length).zip(counts.chunks(length)).enumerate() {
            scope.spawn(move || {
                for (list, count) in lists.iter_mut().zip(counts) {
                    list.reserve_exact(*count);
                }
                for (owner, row) in parts.iter().flat_map(|part| part.owners.iter().zip(&part.listed)) {
                    let place = owner.and_then(|owner| (owner as usize).checked_sub(at * length));
                    if let Some(list) = place.and_then(|place| lists.get_mut(place)) {
                        list.push(Arc::clone(row));
                    }
                }
            });
        }
    });
    lists
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A connection that only reads.
pub(super) fn reader(path: impl AsRef<Path>) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
}

/// How many parts there are for each core: what one takes longer for, the others make up for.
const PARTS: usize = 4;

/// Reads a table on all cores, in parts: ranges of ordinals, the lowest first.
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
    let parts = (threads() * PARTS) as u64;
    let length = last / parts + 1;
    let next = AtomicU64::new(0);
    let work = || {
        let connection = reader(path)?;
        let mut done = Vec::new();
        loop {
            let part = next.fetch_add(1, Ordering::Relaxed);
            if part >= parts {
                return Ok(done);
            }
            done.push((part, read(&connection, part * length + 1..=(part + 1) * length)?));
        }
    };
    let done: rusqlite::Result<Vec<Vec<(u64, T)>>> = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..threads()).map(|_| scope.spawn(work)).collect();
        let joined = readers.into_iter().map(|reader| match reader.join() {
            Ok(rows) => rows,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.collect()
    });
    let mut done: Vec<(u64, T)> = done?.into_iter().flatten().collect();
    done.sort_by_key(|(part, _)| *part);
    Ok(done.into_iter().map(|(_, rows)| rows).collect())
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

/// Values that many rows have alike: read once for each text, and shared.
#[derive(Default)]
struct Shared<T>(HashMap<Box<str>, Arc<T>>);

impl<T: DeserializeOwned> Shared<T> {
    fn of(&mut self, row: &Row<'_>, column: usize) -> rusqlite::Result<Arc<T>> {
        let text = text(row, column)?;
        if let Some(known) = self.0.get(text) {
            return Ok(Arc::clone(known));
        }
        let value: Arc<T> = Arc::new(from_json(row, column)?);
        self.0.insert(text.into(), Arc::clone(&value));
        Ok(value)
    }
}

/// Texts that many rows have alike, shared. What the row before had is not looked for.
#[derive(Default)]
struct Texts {
    last: Option<Arc<str>>,
    known: HashSet<Arc<str>>,
}

impl Texts {
    fn of(&mut self, text: &str) -> Arc<str> {
        if let Some(last) = self.last.as_ref().filter(|last| ***last == *text) {
            return Arc::clone(last);
        }
        let known = self.known.get(text).cloned().unwrap_or_else(|| {
            let new: Arc<str> = text.into();
            self.known.insert(Arc::clone(&new));
            new
        });
        self.last = Some(Arc::clone(&known));
        known
    }
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
    let (mut sessions, mut models, mut optimizers) = (Texts::default(), Texts::default(), Shared::default());
    let rows = statement.query_map([part.start(), part.end()], |row| {
        Ok(RunRow {
            ordinal: row.get(0)?,
            new: Arc::new(NewRun {
                run_id: row.get(1)?,
                session_id: sessions.of(text(row, 2)?),
                model_seq_id: row.get(3)?,
                base_model: models.of(text(row, 4)?),
                lora: from_json(row, 5)?,
                optimizer_config: optimizers.of(row, 6)?,
                user_metadata: optional_json(row, 7)?,
                origin_path: row.get(8)?,
                created_at: row.get(9)?,
            }),
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
    owners: &Owners,
) -> rusqlite::Result<Part> {
    let mut statement = connection.prepare(
        "SELECT ordinal, run, kind, name, state, seq, saved_at, size_bytes, public, user_metadata, expires_at,
            run_id
         FROM checkpoints WHERE ordinal BETWEEN ?1 AND ?2",
    )?;
    let expected =
        usize::try_from(part.end().saturating_sub(*part.start())).unwrap_or_default().min(EXPECTED);
    let mut read = Part {
        listed: Vec::with_capacity(expected),
        owners: Vec::with_capacity(expected),
        unlisted: Vec::new(),
    };
    let mut rows = statement.query([part.start(), part.end()])?;
    while let Some(row) = rows.next()? {
        let run: Option<u64> = row.get(1)?;
        let owner = run.and_then(|run| owners.find(run));
        let checkpoint = Arc::new(CheckpointRow {
            ordinal: row.get(0)?,
            new: NewCheckpoint {
                run_id: match owner {
                    Some((_, id)) => Arc::clone(id),
                    None => row.get(11)?,
                },
                kind: CheckpointKind::of(row.get_ref(2)?.as_bytes()?),
                name: text(row, 3)?.into(),
                seq: row.get(5)?,
                saved_at: row.get(6)?,
                user_metadata: optional_json(row, 9)?.map(Box::new),
            },
            state: CheckpointState::of(row.get_ref(4)?.as_bytes()?),
            size_bytes: row.get(7)?,
            public: row.get(8)?,
            expires_at: row.get(10)?,
        });
        if !checkpoint.is_listed() {
            read.unlisted.push(checkpoint);
            continue;
        }
        read.owners.push(owner.map(|(place, _)| place));
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
