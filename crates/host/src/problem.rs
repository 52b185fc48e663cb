//! Refusals and failures as the host API tells them.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use retinker::client::{Error, ErrorKind};
use retinker::host::api::ApiProblem;
use retinker::recovery::executor::RestoreError;
use retinker::recovery::journal::StoreError;

/// A refused call.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) problem: ApiProblem,
}

impl Problem {
    pub(crate) fn new(
        status: StatusCode,
        code: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        let problem = ApiProblem { code: code.to_owned(), message: message.into(), hint: hint.into() };
        Self { status, problem }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message, "")
    }

    /// Something went wrong in the host itself.
    pub(crate) fn internal(message: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message, "Look at the log.")
    }

    pub(crate) fn run_not_found(run_id: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "run_not_found",
            format!("The service has no run {run_id}."),
            "Check the id; the list shows every run of this account.",
        )
    }

    pub(crate) fn session_not_found(session_id: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "session_not_found",
            format!("The service has no session {session_id}."),
            "Check the id; it may belong to another account.",
        )
    }

    /// The service has no such endpoint.
    pub(crate) fn not_offered(message: &str, hint: &str) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "not_offered", message, hint)
    }

    pub(crate) fn restore_not_found(id: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "restore_not_found",
            format!("The recovery journal knows no restore {id}."),
            "",
        )
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(self.problem)).into_response()
    }
}

/// What a failed call to the service means to a person at the console.
pub(crate) fn of_service(error: &Error) -> ApiProblem {
    let (code, hint) = match error.kind() {
        ErrorKind::NeverSent { .. } => {
            ("service_unreachable", "Is it running, and is its address right? It is asked again by itself.")
        }
        ErrorKind::MayHaveBeenSent { .. } => ("service_unreachable", "It is asked again by itself."),
        ErrorKind::TimedOut { .. } => ("service_slow", "It is asked again by itself."),
        ErrorKind::Undecodable { .. } => {
            ("service_unreadable", "Check the address: is it that of a Tinker-compatible service?")
        }
        ErrorKind::Refused { status: 401 | 403, .. } => (
            "service_unauthorized",
            "Check the API key: it is read from the environment when retinker starts.",
        ),
        ErrorKind::Refused { status: 402, .. } => (
            "service_unpaid",
            "Put the account's billing in order where the service is paid for; it is asked again by itself.",
        ),
        ErrorKind::Refused { status: 408 | 425 | 429, .. } => (
            "service_busy",
            "Too much is asked of it, by whomever. It is asked again by itself, when it wants to be.",
        ),
        ErrorKind::Refused { status: 500..=599, .. } => ("service_failing", "It is asked again by itself."),
        ErrorKind::Refused { status: 300..=399, .. } => (
            "service_refused",
            "It redirects, and redirects are not followed, so that the key stays with the address it was given for: use the \
             address it redirects to.",
        ),
        ErrorKind::Refused { status: 404, .. } if !error.is_unsupported() => {
            ("service_refused", "Check the id or path: what was asked for may be gone.")
        }
        _ => ("service_refused", ""),
    };
    let (code, message) = match error.kind() {
        _ if error.is_unsupported() => ("not_offered", "The service does not offer this.".to_owned()),
        // What it said instead is for the log: it may be of any kind and length.
        ErrorKind::Undecodable { snippet, .. } => {
            tracing::debug!(%error, "an answer that is none of the protocol's");
            let html = if snippet.contains("HTML, not JSON") { ": it is HTML, not JSON" } else { "" };
            (code, format!("What the service answered cannot be read{html}."))
        }
        _ => (code, sentence(error)),
    };
    ApiProblem { code: code.to_owned(), message, hint: hint.to_owned() }
}

/// What happened, for somebody who has not written the request: without the method's name, which is for the log.
fn sentence(error: &Error) -> String {
    tracing::debug!(%error, "the service failed");
    let text = match error.kind() {
        ErrorKind::NeverSent { message } => ended("The service cannot be reached", cause(message)),
        ErrorKind::MayHaveBeenSent { message } => {
            format!(
                "{} It may have got the request.",
                ended("The service broke the connection off", cause(message))
            )
        }
        ErrorKind::TimedOut { after } => {
            format!("The service did not answer within {} s.", after.as_secs_f64().round())
        }
        ErrorKind::Refused { status, detail, .. } => {
            ended(&format!("The service answered with status {status}"), detail)
        }
        _ => error.to_string(),
    };
    text.replace(char::is_control, " ")
}

/// What happened, and why where that is told, as a sentence.
fn ended(what: &str, why: &str) -> String {
    let colon = if why.is_empty() { "" } else { ": " };
    capitalised(&format!("{what}{colon}{why}"))
}

/// A transport's words without the system's number.
fn cause(message: &str) -> &str {
    message.split(" (os error").next().unwrap_or(message)
}

/// What stands for a service that has not answered within this time.
pub(crate) fn slow_service(seconds: u64) -> ApiProblem {
    ApiProblem {
        code: "service_slow".to_owned(),
        message: format!("The service did not answer within {seconds} s."),
        hint: "It is asked again by itself.".to_owned(),
    }
}

/// The service wants a key, and there is none.
pub(crate) fn without_key(base_url: &str, key_from: &str) -> ApiProblem {
    ApiProblem {
        code: "service_key_missing".to_owned(),
        message: format!(
            "The service at {base_url} wants a key, and retinker was started without one for it."
        ),
        hint: format!("Put the key into the variable {key_from}, and start retinker again."),
    }
}

/// The service does not take the key that there is.
pub(crate) fn wrong_key(problem: ApiProblem, key_from: &str) -> ApiProblem {
    let hint =
        format!("The key was read from {key_from}: put the right one there, and start retinker again.");
    ApiProblem { hint, ..problem }
}

/// What stands for a service that has no list of runs.
pub(crate) fn foreign_service(base_url: &str) -> ApiProblem {
    ApiProblem {
        code: "service_foreign".to_owned(),
        message: format!(
            "What answers at {base_url} offers no list of training runs: it is another kind of server, or a Tinker \
             service without what the console needs."
        ),
        hint: "Is the address right? It is the one that training programs have in TINKER_BASE_URL, without /api/v1."
            .to_owned(),
    }
}

/// What stands for a list that cannot be whole.
pub(crate) fn contradicting_service(total: u64) -> ApiProblem {
    ApiProblem {
        code: "service_contradicts_itself".to_owned(),
        message: format!("The service says that it has {total} runs, but lists none."),
        hint: "It is asked again by itself.".to_owned(),
    }
}

impl From<&Error> for Problem {
    fn from(error: &Error) -> Self {
        let status = if matches!(error.kind(), ErrorKind::TimedOut { .. }) {
            StatusCode::GATEWAY_TIMEOUT
        } else {
            StatusCode::BAD_GATEWAY
        };
        Self { status, problem: of_service(error) }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound(id) => Self::restore_not_found(&id),
            error => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "journal_failed",
                capitalised(&error.to_string()),
                "Is the disk full, or the journal's place gone or out of reach? Nothing was done that the journal does not hold.",
            ),
        }
    }
}

impl From<RestoreError> for Problem {
    fn from(error: RestoreError) -> Self {
        let message = capitalised(&error.to_string());
        match error {
            RestoreError::NotThePlan => Self::new(
                StatusCode::BAD_REQUEST,
                "plan_altered",
                message,
                "Ask for a plan and send it back unchanged.",
            ),
            RestoreError::PlanChanged(_) => Self::new(
                StatusCode::CONFLICT,
                "plan_changed",
                message,
                "Make a new plan and look at it again.",
            ),
            RestoreError::Service(error) => Self::from(&error),
            RestoreError::Journal(error) => Self::from(error),
            RestoreError::DrivenElsewhere(_) => {
                Self::new(StatusCode::CONFLICT, "restore_busy", message, "Wait for it, then try again.")
            }
            RestoreError::NothingToCancel { .. } => Self::new(
                StatusCode::CONFLICT,
                "nothing_to_cancel",
                message,
                "Look at it again to see what it came to.",
            ),
            RestoreError::NothingToHandOver { .. } => Self::new(
                StatusCode::CONFLICT,
                "nothing_to_hand_over",
                message,
                "A run can be taken over once its restore has adopted it.",
            ),
        }
    }
}

/// An error's words as a sentence.
pub(crate) fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    let Some(first) = chars.next() else { return String::new() };
    let mut out: String = first.to_uppercase().chain(chars).collect();
    if !out.ends_with(['.', '!', '?']) {
        out.push('.');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_a_sentence_with_its_cause() {
        let told = |why: &str| ended("It cannot be reached", cause(why));
        assert_eq!(told("Connection refused (os error 111)"), "It cannot be reached: Connection refused.");
        assert_eq!(told("no token: try again."), "It cannot be reached: no token: try again.");
        assert_eq!(told(""), "It cannot be reached.");
    }
}
