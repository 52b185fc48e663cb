//! How a restore's record is written in a database: as JSON text.

use retinker::recovery::journal::StoreError;
use retinker::recovery::plan::SCHEMA_VERSION;
use retinker::recovery::restore::RestoreRecord;

pub(crate) fn to_text(record: &RestoreRecord) -> Result<String, StoreError> {
    serde_json::to_string(record).map_err(|error| damaged(&record.id, &error))
}

pub(crate) fn from_text(id: &str, text: &str) -> Result<RestoreRecord, StoreError> {
    // The schema first: a newer record may well not parse.
    let value: serde_json::Value = serde_json::from_str(text).map_err(|e| damaged(id, &e))?;
    let schema = value.pointer("/plan/schema").and_then(serde_json::Value::as_u64).unwrap_or(0);
    if schema > u64::from(SCHEMA_VERSION) {
        let found = u32::try_from(schema).unwrap_or(u32::MAX);
        return Err(StoreError::Newer { found, known: SCHEMA_VERSION });
    }
    serde_json::from_value(value).map_err(|e| damaged(id, &e))
}

pub(crate) fn damaged(id: &str, error: &serde_json::Error) -> StoreError {
    StoreError::Damaged { id: id.to_owned(), reason: error.to_string() }
}
