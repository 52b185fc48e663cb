//! The clock.

use retinker_wire::time::Time;

/// Now, in milliseconds since 1970.
pub(crate) fn now_millis() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// A point in time for the wire.
pub(crate) fn time(millis: i64) -> Time {
    Time::from_millis(millis)
}
