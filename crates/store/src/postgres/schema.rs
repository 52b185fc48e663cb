//! The tables, and their versions.

use retinker::recovery::journal::StoreError;
use retinker::recovery::plan::SCHEMA_VERSION;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::failure::Failure;

/// Whoever makes or changes tables holds this advisory lock: "retinker" in ASCII.
const LOCK: i64 = 0x7265_7469_6e6b_6572;

/// Each brings the tables from the version before to the next one; so a new version without its step does not compile. Whatever
/// a later one changes, `retinker.journal.version` stays: by it, older programs know that they are.
const STEPS: [&str; SCHEMA_VERSION as usize] = [FIRST];

/// The one row of `journal` is written by every change: see `write`. Texts are compared byte by byte, as everywhere else.
const FIRST: &str = r#"
CREATE TABLE retinker.journal (
    single   boolean PRIMARY KEY DEFAULT true CHECK (single),
    version  integer NOT NULL,
    revision bigint NOT NULL,
    service  text
);
INSERT INTO retinker.journal (version, revision) VALUES (0, 0);
CREATE TABLE retinker.restores (
    number   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id       text COLLATE "C" NOT NULL UNIQUE,
    old_run  text COLLATE "C" NOT NULL,
    new_run  text COLLATE "C",
    settled  boolean NOT NULL,
    holds    boolean NOT NULL,
    record   text NOT NULL,
    owner    text COLLATE "C",
    until_at timestamptz NOT NULL DEFAULT '-infinity',
    fence    bigint NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX one_restore_holds_a_run ON retinker.restores (old_run) WHERE holds;
CREATE INDEX restores_by_old_run ON retinker.restores (old_run);
CREATE INDEX restores_by_new_run ON retinker.restores (new_run) WHERE new_run IS NOT NULL;
CREATE INDEX restores_unfinished ON retinker.restores (number) WHERE NOT settled;
CREATE TABLE retinker.documents (
    kind    text COLLATE "C" NOT NULL,
    key     text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    body    text NOT NULL,
    PRIMARY KEY (kind, key)
);
"#;

/// Makes the tables, or brings them up to date; leaves those of a newer version alone. Of several processes that come at once,
/// one does it and the others wait.
pub(super) async fn prepare(client: &mut Client) -> Result<(), Failure> {
    let change = client.transaction().await?;
    change.query_typed("SELECT pg_advisory_xact_lock($1)", &[(&LOCK, Type::INT8)]).await?;
    let there = "SELECT to_regnamespace('retinker') IS NOT NULL, to_regclass('retinker.journal') IS NOT NULL";
    let there = change.query_typed_one(there, &[]).await?;
    // An administrator may have made it, for a user who may not.
    if !there.try_get::<_, bool>(0)? {
        change.batch_execute("CREATE SCHEMA retinker").await?;
    }
    let mut version = 0;
    if there.try_get(1)? {
        version = change.query_typed_one("SELECT version FROM retinker.journal", &[]).await?.try_get(0)?;
    }
    check(version)?;
    let known = usize::try_from(version).unwrap_or(0);
    if known == STEPS.len() {
        return Ok(());
    }
    for step in STEPS.iter().skip(known) {
        change.batch_execute(step).await?;
    }
    let version = i32::try_from(SCHEMA_VERSION).unwrap_or(i32::MAX);
    change.execute_typed("UPDATE retinker.journal SET version = $1", &[(&version, Type::INT4)]).await?;
    change.commit().await.map_err(Failure::Commit)
}

/// Refuses tables that a newer version made.
pub(super) fn check(version: i32) -> Result<(), StoreError> {
    match u32::try_from(version) {
        Ok(found) if found > SCHEMA_VERSION => Err(StoreError::Newer { found, known: SCHEMA_VERSION }),
        _ => Ok(()),
    }
}
