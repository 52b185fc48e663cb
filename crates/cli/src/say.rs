//! What the commands tell the person in front of them.

use std::io::Write;

/// Prints a line. Who has closed the other end does not want to know; the service goes on.
pub(crate) fn say(line: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
