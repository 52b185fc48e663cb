//! What a client tells the service of how it fares. Servers must keep it as they keep keys: the official SDK's events
//! can hold one.

use serde::{Deserialize, Serialize};

use crate::open_enum::open_enum;
use crate::time::Time;

open_enum! {
    /// How much an event matters.
    Severity {
        /// For whoever looks for a fault.
        Debug = "DEBUG",
        /// As it should be.
        Info = "INFO",
        /// Something failed that is tried again, or that its caller has to mend.
        Warning = "WARNING",
        /// Something failed.
        Error = "ERROR",
        /// Nothing goes on.
        Critical = "CRITICAL",
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TelemetryEvent {
    /// A UUID.
    pub event_id: String,
    /// The event's number in its batch's session, from 0.
    pub event_session_index: u64,
    /// How much it matters.
    pub severity: Severity,
    /// When it happened.
    pub timestamp: Time,
    /// What happened.
    #[serde(flatten)]
    pub what: Happening,
}

/// What happened, tagged by `event`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Happening {
    /// A session was begun.
    SessionStart,
    /// It came to its end.
    SessionEnd {
        /// How long it was, as Python writes a `timedelta`: `0:01:05.250000`.
        duration: String,
    },
    /// An error that was nobody's fault but the program's or the service's.
    UnhandledException {
        /// Its type.
        error_type: String,
        /// Its sentence.
        error_message: String,
        /// Where it came from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        traceback: Option<String>,
    },
    /// Anything else.
    GenericEvent {
        /// What it is called; a name of few.
        event_name: String,
        /// What belongs to it.
        #[serde(default)]
        event_data: serde_json::Map<String, serde_json::Value>,
    },
}

/// `POST /api/v1/telemetry`; answered with `{"status": "accepted"}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TelemetrySendRequest {
    /// In the order in which they happened.
    pub events: Vec<TelemetryEvent>,
    /// The system that the client runs on, as Python's `platform.system()` names it.
    pub platform: String,
    /// The client's version.
    pub sdk_version: String,
    /// The session, or `sessionless-<uuid>`.
    pub session_id: String,
    /// A UUID of the client's process, the same in all its sessions.
    #[serde(default)]
    pub process_uuid: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn events_are_flat() {
        let event = |what| TelemetryEvent {
            event_id: "u".into(),
            event_session_index: 3,
            severity: Severity::Warning,
            timestamp: Time::from_millis(0),
            what,
        };
        let head = json!({
            "event_id": "u", "event_session_index": 3, "severity": "WARNING", "timestamp": "1970-01-01T00:00:00Z",
        });
        for (what, own) in [
            (Happening::SessionStart, json!({"event": "SESSION_START"})),
            (
                Happening::SessionEnd { duration: "d".into() },
                json!({"event": "SESSION_END", "duration": "d"}),
            ),
            (
                Happening::UnhandledException {
                    error_type: "t".into(),
                    error_message: "m".into(),
                    traceback: None,
                },
                json!({"event": "UNHANDLED_EXCEPTION", "error_type": "t", "error_message": "m"}),
            ),
            (
                Happening::GenericEvent { event_name: "n".into(), event_data: serde_json::Map::new() },
                json!({"event": "GENERIC_EVENT", "event_name": "n", "event_data": {}}),
            ),
        ] {
            let mut expected = head.clone();
            expected.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
            let event = event(what);
            assert_eq!(serde_json::to_value(&event).unwrap(), expected);
            assert_eq!(serde_json::from_value::<TelemetryEvent>(expected).unwrap(), event);
        }
    }
}
