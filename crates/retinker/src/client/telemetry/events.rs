//! What happens to a program, as events: their names, members and severities are the official SDK's.

use std::error::Error as StdError;

use retinker_wire::future::RequestErrorCategory;
use retinker_wire::telemetry::{Happening, Severity};
use serde_json::{Map, Value, json};

use super::redact::without_the_servers_words;
use crate::client::error::{Error, ErrorKind};
use crate::client::witness::{Note, NoteOf};

/// An event without a form of its own.
pub(super) fn generic(event_name: &str, event_data: Map<String, Value>) -> Happening {
    Happening::GenericEvent { event_name: event_name.to_owned(), event_data }
}

/// An error, by whose fault it is.
pub(super) fn exception(exception: &(dyn StdError + 'static), severity: Severity) -> (Severity, Happening) {
    let (error_type, error_message) = (error_type(exception), without_the_servers_words(exception));
    if let Some(error) = user_error(exception) {
        let mut data = object(json!({ "error_type": error_type, "message": error_message }));
        if let Some(status) = error.status() {
            data.insert("status_code".to_owned(), status.into());
        }
        return (Severity::Warning, generic("user_error", data));
    }
    let causes: Vec<_> = chain(exception).skip(1).map(without_the_servers_words).collect();
    let traceback = (!causes.is_empty()).then(|| format!("caused by: {}", causes.join("\ncaused by: ")));
    (severity, Happening::UnhandledException { error_type, error_message, traceback })
}

/// What the client itself tells of a failure; `None` for what is told as an exception.
pub(super) fn of_note(note: &Note<'_>) -> Option<(Severity, Happening)> {
    let error = note.error;
    let by_user = user_error(error).is_some();
    let (name, count, again) = match &note.of {
        NoteOf::Attempt => {
            ("InternalClientHolder.execute_with_retries.exception", "attempt_count", "is_retryable")
        }
        NoteOf::Sample => ("RetryHandler.execute.exception", "attempt_count", "should_retry"),
        NoteOf::Future(_) => (future_event(error), "iteration", "should_retry"),
        NoteOf::Outcome => return None,
    };
    let mut data = object(json!({
        "exception": without_the_servers_words(error),
        "exception_type": error_type(error),
        "status_code": error.status(),
        again: note.again,
        "is_user_error": by_user,
        count: note.tries,
        "elapsed_time": note.elapsed.as_secs_f64(),
    }));
    match &note.of {
        NoteOf::Future(kind) => {
            data.insert("request_id".to_owned(), error.request_id().into());
            data.insert("request_type".to_owned(), kind.as_str().into());
        }
        _ => {
            data.insert("func".to_owned(), error.operation().into());
        }
    }
    let severity = if note.again || by_user { Severity::Warning } else { Severity::Error };
    Some((severity, generic(name, data)))
}

fn future_event(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::Failed { .. } => "APIFuture.result_async.application_error",
        ErrorKind::Undecodable { .. } => "APIFuture.result_async.validation_error",
        ErrorKind::Refused { .. } | ErrorKind::Expired { .. } => "APIFuture.result_async.api_status_error",
        _ => "APIFuture.result_async.connection_error",
    }
}

/// The error of a chain that says that the user is at fault.
fn user_error<'a>(exception: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    chain(exception).filter_map(|error| error.downcast_ref::<Error>()).find(|error| {
        matches!(error.kind(), ErrorKind::Failed { category: RequestErrorCategory::User, .. })
            || error.status().is_some_and(|status| (400..500).contains(&status) && status != 408)
    })
}

/// An error and what caused it.
pub(super) fn chain<'a>(
    exception: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(exception), |&error| error.source())
}

/// Of the client's own errors the kind; the types of others are not known any more.
fn error_type(exception: &(dyn StdError + 'static)) -> String {
    exception.downcast_ref::<Error>().map_or("error", |error| error.kind().name()).to_owned()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// As Python writes a `timedelta`: `1 day, 0:01:05.250000`. A clock that went back makes no time.
pub(super) fn duration(millis: i64) -> String {
    let millis = millis.max(0);
    let (days, seconds) = (millis / 86_400_000, millis / 1000 % 86_400);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut text = match days {
        0 => String::new(),
        1 => "1 day, ".to_owned(),
        _ => format!("{days} days, "),
    };
    text.push_str(&format!("{hours}:{minutes:02}:{seconds:02}"));
    if millis % 1000 != 0 {
        text.push_str(&format!(".{:03}000", millis % 1000));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::test;

    #[test]
    fn durations_are_written_as_python_does() {
        for (millis, text) in [
            (-5, "0:00:00"),
            (0, "0:00:00"),
            (65_250, "0:01:05.250000"),
            (36_000_001, "10:00:00.001000"),
            (86_400_000, "1 day, 0:00:00"),
            (180_000_007, "2 days, 2:00:00.007000"),
        ] {
            assert_eq!(duration(millis), text);
        }
    }
}
