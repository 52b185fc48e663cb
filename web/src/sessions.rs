//! Sessions and usage, in words; and what the address bar holds of them.

use retinker::host::sessions::{SessionDetail, SessionRow, SessionsQuery};

use crate::address::{asking, member};
use crate::format;

/// Sessions that are shown at first; each wish for more doubles them.
pub const STEP: u64 = 50;
/// The most sessions that a host lists.
pub const MOST: u64 = 1000;

/// States by which sessions are looked for, with their names.
pub const STATUSES: [(&str, &str); 5] = [
    ("", "Any status"),
    ("active", "Active"),
    ("failed", "Failed"),
    ("cancelled", "Cancelled"),
    ("client_finished", "Finished"),
];

/// How a session can be ended, with what that says.
pub const REASONS: [(&str, &str); 3] = [
    ("interrupted", "Interrupted: it is stopped from outside"),
    ("success", "Success: it did what it was for"),
    ("errored", "Errored: it met an error"),
];

/// Which sessions are shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    /// Words of a name, an id, `meta.KEY=VALUE`.
    pub q: String,
    /// One of [`STATUSES`]; empty = any.
    pub status: String,
    /// Only of this project; empty = all.
    pub project: String,
}

impl Shown {
    /// Reads a query string, with or without its `?`.
    pub fn read(query: &str) -> Self {
        let of = |name: &str| member(query, name).unwrap_or_default();
        let status = of("status");
        let known = STATUSES.iter().any(|(known, _)| *known == status);
        Self {
            q: of("q").trim().to_owned(),
            status: if known { status } else { String::new() },
            project: of("project"),
        }
    }

    /// The address that shows these.
    pub fn to_address(&self) -> String {
        asking("/sessions", &[("q", &self.q), ("status", &self.status), ("project", &self.project)])
    }

    /// What to ask the host for.
    pub fn to_query(&self, limit: u64) -> SessionsQuery {
        let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        SessionsQuery {
            q: given(&self.q),
            status: given(&self.status),
            project: given(&self.project),
            limit: Some(limit),
        }
    }

    /// Whether every session is let through.
    pub fn is_whole(&self) -> bool {
        *self == Self::default()
    }
}

/// Which models an address tries.
pub fn tried(query: &str) -> (String, String) {
    let of = |name: &str| member(query, name).unwrap_or_default();
    (of("path"), of("with"))
}

/// A session's name for people; its id where it has none.
pub fn name(row: &SessionRow) -> String {
    row.name.clone().unwrap_or_else(|| format::short_id(&row.session_id))
}

/// A status as a drawing and a word.
pub fn status(row: &SessionRow) -> (&'static str, &'static str) {
    match row.status.as_deref() {
        Some("active") => ("dot", "Active"),
        Some("failed") => ("problem", "Failed"),
        Some("cancelled") => ("cross", "Cancelled"),
        Some("client_finished") => ("check", "Finished"),
        _ => ("question", "Not told"),
    }
}

/// More of a status: whose fault, how it ended, and what the service says of it.
pub fn status_detail(row: &SessionRow) -> String {
    let category = match (row.status.as_deref(), row.category.as_deref()) {
        (Some("failed"), Some("user")) => "a request was at fault",
        (Some("failed"), Some("internal")) => "the service failed",
        (Some("client_finished"), Some("success")) => "it did what it was for",
        (Some("client_finished"), Some("errored")) => "its program met an error",
        (Some("client_finished"), Some("interrupted")) => "it was stopped from outside",
        (_, Some(other)) => other,
        (_, None) => "",
    };
    match row.message.as_deref() {
        Some(message) if category.is_empty() => message.to_owned(),
        Some(message) => format!("{category}: {message}"),
        None => category.to_owned(),
    }
}

/// How many sessions are shown, of how many: services do not count them.
pub fn shown(rows: u64, more: bool) -> String {
    let sessions = format::counted(rows, "session", "sessions");
    if more { format!("The newest {sessions}; there are more") } else { sessions }
}

/// What ending a session does.
pub fn consequence(detail: &SessionDetail) -> String {
    let runs = match detail.session.run_count {
        0 => "It has no runs.".to_owned(),
        1 => "Its run can no longer be trained: what it has not saved is lost, and its checkpoints stay."
            .to_owned(),
        many => format!(
            "Its {} runs can no longer be trained: what they have not saved is lost, and their checkpoints stay.",
            format::count(many)
        ),
    };
    let samplers = match detail.sampler_count {
        0 => "",
        1 => " Its sampler ends with it.",
        _ => " Its samplers end with it.",
    };
    format!("{runs}{samplers} This cannot be undone.")
}

/// Millionths of a US dollar: `$1.25`.
pub fn money(micros: u64) -> String {
    match (micros + 5_000) / 10_000 {
        0 if micros > 0 => "< $0.01".to_owned(),
        cents => format!("${}.{:02}", format::count(cents / 100), cents % 100),
    }
}

/// What usage is summed up by, and what that is called.
pub const USAGE_BY: [(&str, &str); 4] =
    [("model", "Base model"), ("session", "Session"), ("project", "Project"), ("day", "Day")];

/// How many days back usage is told; the first is usual.
pub const USAGE_DAYS: [u64; 3] = [7, 1, 14];

/// What an address asks for of usage: what it is summed up by, and how many days back.
pub fn usage_asked(query: &str) -> (String, u64) {
    let by = member(query, "by").filter(|by| USAGE_BY.iter().any(|(known, _)| known == by));
    let days = member(query, "days").and_then(|days| days.parse().ok());
    (by.unwrap_or_else(|| "model".to_owned()), days.filter(|days| USAGE_DAYS.contains(days)).unwrap_or(7))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::trial_address;

    #[test]
    fn what_is_shown_survives_the_address_bar() {
        let all = Shown::read("");
        assert!(all.is_whole());
        assert_eq!(all.to_address(), "/sessions");
        let some = Shown { q: "a b&c".into(), status: "failed".into(), project: "p/1".into() };
        assert_eq!(some.to_address(), "/sessions?q=a%20b%26c&status=failed&project=p%2F1");
        assert_eq!(Shown::read("?q=a%20b%26c&status=failed&project=p%2F1"), some);
        assert_eq!(Shown::read("status=purple&x").status, "");
        let query = some.to_query(50);
        assert_eq!((query.q.as_deref(), query.limit), (Some("a b&c"), Some(50)));
        assert_eq!(all.to_query(50).q, None);
    }

    #[test]
    fn the_models_that_are_tried_survive_the_address_bar() {
        let address = trial_address("tinker://s:train:0/sampler_weights/a", "retinker/nano-llama");
        assert_eq!(
            address,
            "/try?path=tinker%3A%2F%2Fs%3Atrain%3A0%2Fsampler_weights%2Fa&with=retinker%2Fnano-llama"
        );
        let query = address.strip_prefix("/try").unwrap();
        assert_eq!(
            tried(query),
            ("tinker://s:train:0/sampler_weights/a".to_owned(), "retinker/nano-llama".to_owned())
        );
        assert_eq!(trial_address("", ""), "/try");
        assert_eq!(tried(""), (String::new(), String::new()));
    }

    #[test]
    fn states_in_words() {
        let row = |status: &str, category: &str, message: Option<&str>| SessionRow {
            status: Some(status.to_owned()),
            category: Some(category.to_owned()).filter(|category| !category.is_empty()),
            message: message.map(str::to_owned),
            ..SessionRow::default()
        };
        for (row, word, detail) in [
            (row("active", "", None), "Active", ""),
            (row("failed", "internal", Some("lost")), "Failed", "the service failed: lost"),
            (row("failed", "user", Some("NaN")), "Failed", "a request was at fault: NaN"),
            (row("cancelled", "", Some("no heartbeat")), "Cancelled", "no heartbeat"),
            (row("client_finished", "errored", None), "Finished", "its program met an error"),
            (row("paused", "", None), "Not told", ""),
            (SessionRow::default(), "Not told", ""),
        ] {
            assert_eq!((status(&row).1, status_detail(&row).as_str()), (word, detail));
        }
    }

    #[test]
    fn ends_say_what_they_cost() {
        let detail = |run_count, sampler_count| SessionDetail {
            session: SessionRow { run_count, ..SessionRow::default() },
            sampler_count,
            ..SessionDetail::default()
        };
        assert_eq!(consequence(&detail(0, 0)), "It has no runs. This cannot be undone.");
        assert!(consequence(&detail(2, 1)).starts_with("Its 2 runs can no longer be trained"));
        assert!(consequence(&detail(1, 2)).contains("Its samplers end with it."));
        assert_eq!(shown(1, false), "1 session");
        assert_eq!(shown(50, true), "The newest 50 sessions; there are more");
    }

    #[test]
    fn money_is_in_cents() {
        assert_eq!(money(0), "$0.00");
        assert_eq!(money(1), "< $0.01");
        assert_eq!(money(1_254_999), "$1.25");
        assert_eq!(money(1_255_000), "$1.26");
        assert_eq!(money(1_234_567_000_000), "$1,234,567.00");
    }

    #[test]
    fn usage_is_asked_for_by_the_address() {
        for (query, by, days) in [
            ("", "model", 7),
            ("by=day&days=14", "day", 14),
            ("days=1&on=hosted", "model", 1),
            ("by=nothing&days=365", "model", 7),
        ] {
            assert_eq!(usage_asked(query), (by.to_owned(), days), "{query}");
        }
    }
}
