//! Addresses in the console of the hosted service, as `lib/console_urls.py` of the official SDK builds them.

/// Where that console is.
const CONSOLE: &str = "https://tinker.thinkingmachines.ai";

/// The page of a session.
pub(super) fn of_session(session_id: &str) -> String {
    format!("{CONSOLE}/sessions/{session_id}")
}

/// The page of a run.
pub(super) fn of_training_run(run_id: &str) -> String {
    format!("{CONSOLE}/training_runs/{run_id}")
}
