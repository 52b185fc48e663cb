//! The tables, and how the file is opened.

use rusqlite::Connection;

/// The format that this version writes; kept in `user_version`.
pub(crate) const VERSION: i64 = 3;

/// Bytes of a page of a new file.
const PAGE_SIZE: u32 = 16384;

const TABLES: &str = "
CREATE TABLE sessions (
    ordinal INTEGER PRIMARY KEY AUTOINCREMENT,
    session_id TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    request TEXT NOT NULL,      -- create_session's body: labels, tags, name, project, client version
    ended_at INTEGER,
    end_reason TEXT
) STRICT;
CREATE TABLE runs (
    ordinal INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL UNIQUE,
    session_id TEXT NOT NULL REFERENCES sessions (session_id),
    model_seq_id INTEGER NOT NULL,
    base_model TEXT NOT NULL,
    lora TEXT NOT NULL,
    optimizer_config TEXT NOT NULL,
    user_metadata TEXT,
    origin_path TEXT,           -- the checkpoint it was made from
    created_at INTEGER NOT NULL,
    last_request_at INTEGER NOT NULL,
    dirty_since INTEGER,        -- set while work is in memory only
    unsaved INTEGER NOT NULL DEFAULT 0,
    accepted_seq INTEGER NOT NULL DEFAULT 0,  -- while nothing is unsaved: the highest number taken in
    corrupted_reason TEXT,
    standing INTEGER REFERENCES checkpoints (ordinal)  -- what it is reloaded from; null = its seed
) STRICT;
CREATE TABLE checkpoints (
    ordinal INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL,
    kind TEXT NOT NULL,         -- 'training', or 'state': a run's own starting point, never listed
    name TEXT NOT NULL,
    directory TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,        -- 'pending', 'live', 'retained' (gone for users, a run stands on it), 'removing'
    seq INTEGER NOT NULL,
    saved_at INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL DEFAULT 0,
    manifest_sha256 TEXT NOT NULL DEFAULT '',
    public INTEGER NOT NULL DEFAULT 0,
    user_metadata TEXT,
    expires_at INTEGER
) STRICT;
CREATE UNIQUE INDEX checkpoints_by_name ON checkpoints (run_id, kind, name) WHERE state = 'live';
PRAGMA user_version = 1;
";

/// What version 2 added: how a session ended in the protocol's words, creation that can be repeated, samplers, and runs
/// that are retired before their session ends. Checkpoints have more kinds since: 'sampler', 'external', and 'session',
/// which is the weights of one sampler.
const SECOND: &str = "
ALTER TABLE sessions ADD COLUMN end_status TEXT;
ALTER TABLE sessions ADD COLUMN idempotency_key TEXT;
CREATE UNIQUE INDEX sessions_by_key ON sessions (idempotency_key);
ALTER TABLE runs ADD COLUMN retired TEXT;
CREATE TABLE samplers (
    ordinal INTEGER PRIMARY KEY AUTOINCREMENT,
    sampler_id TEXT NOT NULL UNIQUE,
    session_id TEXT NOT NULL REFERENCES sessions (session_id),
    base_model TEXT NOT NULL,
    model_path TEXT,
    checkpoint INTEGER,         -- null = the base model; may be gone
    follows TEXT,               -- the run whose newest weights it takes
    created_at INTEGER NOT NULL,
    clients INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX samplers_by_run ON samplers (follows) WHERE follows IS NOT NULL;
PRAGMA user_version = 2;
";

/// What version 3 added: checkpoints name their run by its number too, which is found faster than by its id.
const THIRD: &str = "
ALTER TABLE checkpoints ADD COLUMN run INTEGER REFERENCES runs (ordinal);  -- null while it is being written
UPDATE checkpoints SET run = (SELECT ordinal FROM runs WHERE runs.run_id = checkpoints.run_id);
PRAGMA user_version = 3;
";

/// Sets the file up and gives the format found, which may be newer than [`VERSION`].
pub(super) fn prepare(connection: &Connection) -> rusqlite::Result<i64> {
    // Only a new file takes it. A start reads the whole file: a quarter of the reads, and fewer edges between pages.
    connection.pragma_update(None, "page_size", PAGE_SIZE)?;
    // In WAL mode only FULL makes every commit reach the disk.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let steps = match version {
        0 => [TABLES, SECOND, THIRD].concat(),
        1 => [SECOND, THIRD].concat(),
        2 => THIRD.to_owned(),
        _ => return Ok(version),
    };
    connection.execute_batch(&format!("BEGIN; {steps} COMMIT;"))?;
    Ok(VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::read::read_all;

    #[test]
    fn what_the_first_version_wrote_is_read() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(TABLES).unwrap();
        let rows = "
            INSERT INTO sessions (session_id, created_at, request, ended_at, end_reason)
                VALUES ('s', 5, '{}', 9, 'no heartbeat');
            INSERT INTO runs (run_id, session_id, model_seq_id, base_model, lora, optimizer_config, created_at,
                    last_request_at)
                VALUES ('s:train:0', 's', 0, 'm', '{\"rank\":4,\"alpha\":32.0,\"seed\":1,\"train_attn\":true,
                    \"train_mlp\":true,\"train_unembed\":true}', '{}', 5, 6);
            INSERT INTO checkpoints (run_id, kind, name, directory, state, seq, saved_at)
                VALUES ('s:train:0', 'training', 'a', 'd', 'live', 3, 7);";
        connection.execute_batch(rows).unwrap();
        assert_eq!(prepare(&connection).unwrap(), VERSION);
        let read = read_all(&connection).unwrap();
        let end = read.sessions[0].ended.clone().unwrap();
        assert_eq!(end.reason, "no heartbeat");
        assert_eq!(end.status, retinker_wire::session::SessionStatus::cancelled("no heartbeat"));
        assert_eq!((read.sessions[0].created_at, read.runs.len(), read.listed.len()), (5, 1, 1));
        assert_eq!(read.runs[0].retired, None);
        assert_eq!(&*read.of_runs[0][0].new.name, "a");
        assert!(read.samplers.is_empty());
        // Once is enough.
        assert_eq!(prepare(&connection).unwrap(), VERSION);
    }

    #[test]
    fn a_newer_format_is_left_alone() {
        let connection = Connection::open_in_memory().unwrap();
        connection.pragma_update(None, "user_version", VERSION + 1).unwrap();
        assert_eq!(prepare(&connection).unwrap(), VERSION + 1);
        assert!(read_all(&connection).is_err(), "nothing was made in it");
    }
}
