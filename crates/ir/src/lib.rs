//! Retinker on the wider platform of North-Shore-AI (nsai_work, crucible_ir, lineage_ir): the documents that its programs exchange, and
//! what of retinker stands in them.
//!
//! | Module | Documents | Where they are from |
//! |---|---|---|
//! | [`training`] | `CheckpointPolicy`, `RetryPolicy` | the sketch in tinkex's documentation (2025-12-04), in both spellings that it has |
//! | [`lineage`] | traces, spans, artifacts, edges, events | lineage_ir 0.1.0, exactly |
//! | [`work`] | jobs | nsai_work 0.1.0, which has no JSON: by its siblings' conventions |
//! | [`backend`] | prompts, options, completions, capabilities | crucible_ir 0.3.0; the trait is ours |
//!
//! House conventions of all: keys in snake_case, every key written, nothing as `null`, unknown keys passed over, times in UTC.

pub mod backend;
pub mod id;
pub mod lineage;
pub mod stamp;
pub mod training;
pub mod work;

/// Why a document cannot be read, or says what makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IrError {
    /// It is no JSON of this form.
    #[error("this is no {what}: {reason}")]
    Form {
        /// What it was to be.
        what: &'static str,
        /// What is wrong, and where.
        reason: String,
    },
    /// It can be read, and says what its rules forbid.
    #[error("this {what} is not valid: {reason}")]
    Invalid {
        /// What it is.
        what: &'static str,
        /// Which rule.
        reason: String,
    },
}

/// Reads a document.
pub(crate) fn read<T: serde::de::DeserializeOwned>(what: &'static str, text: &str) -> Result<T, IrError> {
    serde_json::from_str(text).map_err(|error| IrError::Form { what, reason: error.to_string() })
}
