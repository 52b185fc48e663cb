//! Failures as the facade makes errors of them.

use std::borrow::Cow;

use js_sys::{Object, Reflect};
use retinker::client::{Error, ErrorKind};
use retinker::host::HostError;
use retinker::json::Misread;
use retinker::recovery::executor::RestoreError;
use retinker::recovery::listing::ListingError;
use retinker::recovery::plan::{NoPlan, RejectedReason};
use serde::Serialize;
use wasm_bindgen::JsValue;

/// Why a call did not do what was asked, as it is thrown.
#[derive(Debug)]
pub(crate) struct Failure(JsValue);

/// What the facade is told.
#[derive(Default, Serialize)]
struct Told {
    /// Which class of errors: `service`, `recovery` or `host`.
    of: &'static str,
    code: Cow<'static, str>,
    message: String,
    status: Option<u16>,
    category: String,
    retryable: bool,
    may_have_been_seen: bool,
    unsupported: bool,
    request_id: Option<String>,
    operation: Option<String>,
    detail: Option<String>,
    hint: Option<String>,
    retry_after_seconds: Option<f64>,
    run_id: Option<String>,
    checkpoint: Option<String>,
    restore_id: Option<String>,
    rejected: Vec<RejectedReason>,
    cause: Option<Box<Told>>,
}

impl Failure {
    /// A call that makes no sense as it was given.
    pub(crate) fn config(message: impl Into<String>) -> Self {
        Told::new("service", "config", message.into()).into()
    }

    /// What kept a recovery from being done.
    #[cfg(feature = "training")]
    pub(crate) fn recovery(code: &'static str, message: String) -> Self {
        Told::new("recovery", code, message).into()
    }

    /// What somebody else has thrown.
    pub(crate) fn of(thrown: JsValue) -> Self {
        Self(thrown)
    }
}

/// What a call throws at once.
pub(crate) fn thrown(failure: impl Into<Failure>) -> JsValue {
    failure.into().0
}

impl Told {
    /// What another try cannot mend.
    fn new(of: &'static str, code: impl Into<Cow<'static, str>>, message: String) -> Self {
        Self { of, code: code.into(), message, category: "user".to_owned(), ..Self::default() }
    }
}

impl From<Told> for Failure {
    fn from(told: Told) -> Self {
        let thrown = Object::new();
        let text = serde_json::to_string(&told).unwrap_or_default();
        // A plain object of our own takes every member.
        let _ = Reflect::set(&thrown, &JsValue::from_str("retinkerFailure"), &JsValue::from_str(&text));
        Self(thrown.into())
    }
}

impl From<Misread> for Failure {
    fn from(error: Misread) -> Self {
        Self::config(error.to_string())
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::config(error.to_string())
    }
}

impl From<Error> for Told {
    fn from(error: Error) -> Self {
        let mut told = Self {
            of: "service",
            code: error.kind().name().into(),
            message: error.to_string(),
            status: error.status(),
            category: error.category().as_str().to_owned(),
            retryable: error.is_retryable(),
            may_have_been_seen: error.may_have_been_seen(),
            unsupported: error.is_unsupported(),
            request_id: error.request_id().map(str::to_owned),
            operation: Some(error.operation().to_owned()),
            detail: error.detail().map(str::to_owned),
            retry_after_seconds: error.retry_after().map(|after| after.as_secs_f64()),
            ..Self::default()
        };
        if let ErrorKind::Unrecovered { run_id, .. } = error.kind() {
            told.run_id = Some(run_id.clone());
        }
        if let ErrorKind::Poisoned { run_id, checkpoint, cause } = error.kind() {
            told.run_id = Some(run_id.clone());
            told.checkpoint.clone_from(checkpoint);
            told.cause = Some(Box::new(cause.clone().into()));
        }
        told
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Told::from(error).into()
    }
}

impl From<ListingError> for Failure {
    fn from(error: ListingError) -> Self {
        match error {
            ListingError::Service(error) => error.into(),
            ListingError::Contradicts(_) => Told::new("service", "undecodable", error.to_string()).into(),
        }
    }
}

impl From<NoPlan> for Failure {
    fn from(none: NoPlan) -> Self {
        let message = none.message().to_owned();
        let told = match none {
            NoPlan::NoCheckpoint { .. } => Told::new("recovery", "no_checkpoint", message),
            NoPlan::NoUsableCheckpoint { rejected, .. } => {
                Told { rejected, ..Told::new("recovery", "no_usable_checkpoint", message) }
            }
            NoPlan::NotPoisoned { .. } => Told::new("recovery", "not_poisoned", message),
            NoPlan::AlreadyRestored { restore_id, .. } => {
                Told { restore_id: Some(restore_id), ..Told::new("recovery", "already_restored", message) }
            }
        };
        told.into()
    }
}

impl From<RestoreError> for Failure {
    fn from(error: RestoreError) -> Self {
        let code = match &error {
            RestoreError::Service(error) => return error.clone().into(),
            RestoreError::NotThePlan => "not_the_plan",
            RestoreError::PlanChanged(_) => "plan_changed",
            RestoreError::Journal(_) => "journal",
            RestoreError::DrivenElsewhere(_) => "driven_elsewhere",
            RestoreError::NothingToCancel { .. } => "nothing_to_cancel",
            RestoreError::NothingToHandOver { .. } => "nothing_to_hand_over",
        };
        Told::new("recovery", code, error.to_string()).into()
    }
}

impl From<HostError> for Failure {
    fn from(error: HostError) -> Self {
        let HostError { problem, status } = error;
        let retryable = status.is_none_or(|status| status == 429 || status >= 500);
        let told = Told {
            of: "host",
            code: problem.code.into(),
            message: problem.message,
            hint: Some(problem.hint),
            status,
            category: "unknown".to_owned(),
            retryable,
            ..Told::default()
        };
        told.into()
    }
}
