//! What the address bar holds: which runs are shown and how, which run, and of which connection.

use std::fmt::Write as _;
use std::sync::OnceLock;

use retinker::host::api::{RunSort, RunsQuery};
use retinker::recovery::health::Health;

use crate::columns::Columns;

/// What the list of runs shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Only runs of this health.
    pub health: Option<Health>,
    /// Only runs that hold this text; empty = all.
    pub q: String,
    /// The order.
    pub sort: RunSort,
    /// The order is turned round.
    pub reverse: bool,
    /// The columns; `None` = those that this browser usually shows.
    pub columns: Option<Columns>,
}

impl View {
    /// Reads a query string, with or without its `?`. Values that mean nothing are passed over.
    pub fn read(query: &str) -> Self {
        let mut view = Self::default();
        for member in query.trim_start_matches('?').split('&') {
            let (name, value) = member.split_once('=').unwrap_or((member, ""));
            let value = decode(value);
            match name {
                "health" => view.health = Health::ALL.into_iter().find(|health| health.as_str() == value),
                "q" => view.q = value.trim().to_owned(),
                "sort" => view.sort = read_sort(&value).unwrap_or_default(),
                "reverse" => view.reverse = value == "true",
                "columns" => view.columns = Columns::read(&value),
                _ => {}
            }
        }
        view
    }

    /// The address that shows this view; what is as usual is left out.
    pub fn to_address(&self) -> String {
        let columns = self.columns.as_ref().map(Columns::to_text).unwrap_or_default();
        let sort = if self.sort == RunSort::default() { "" } else { self.sort.as_str() };
        asking(
            "/",
            &[
                ("health", self.health.map_or("", Health::as_str)),
                ("q", &self.q),
                ("sort", sort),
                ("reverse", if self.reverse { "true" } else { "" }),
                ("columns", &columns),
            ],
        )
    }

    /// What to ask the host for: so many runs from this place.
    pub fn to_query(&self, from: u64, many: u64) -> RunsQuery {
        RunsQuery {
            health: self.health,
            q: (!self.q.is_empty()).then(|| self.q.clone()),
            sort: self.sort,
            reverse: self.reverse,
            offset: from,
            limit: Some(many),
            ..RunsQuery::default()
        }
    }

    /// The same view of another health.
    pub fn with_health(&self, health: Option<Health>) -> Self {
        Self { health, ..self.clone() }
    }

    /// The same view with another text.
    pub fn with_text(&self, q: &str) -> Self {
        Self { q: q.trim().to_owned(), ..self.clone() }
    }

    /// The same view in another order; in the one that it has already, turned round.
    pub fn with_sort(&self, sort: RunSort) -> Self {
        Self { sort, reverse: self.sort == sort && !self.reverse, ..self.clone() }
    }

    /// The same view with other columns.
    pub fn with_columns(&self, columns: Columns) -> Self {
        Self { columns: Some(columns), ..self.clone() }
    }

    /// Whether every run is let through.
    pub fn is_whole(&self) -> bool {
        self.health.is_none() && self.q.is_empty()
    }

    /// Whether another view shows the same runs in the same order.
    pub fn is_same_list(&self, other: &Self) -> bool {
        (self.health, self.sort, self.reverse, &self.q) == (other.health, other.sort, other.reverse, &other.q)
    }
}

/// The order of this name.
pub fn read_sort(name: &str) -> Option<RunSort> {
    RunSort::ALL.into_iter().find(|sort| sort.as_str() == name)
}

/// The connection that this page shows, where its address names one. It is the same for as long as the page is loaded:
/// another connection is another page, so nothing of one is left beside the other.
static SHOWN: OnceLock<String> = OnceLock::new();

/// Says which connection this page shows. The first word counts.
pub fn show_connection(name: &str) {
    let _ = SHOWN.set(name.to_owned());
}

/// The connection that this page shows, where its address names one.
pub fn connection_shown() -> Option<&'static str> {
    SHOWN.get().map(String::as_str)
}

/// The connection that a query string names.
pub fn connection_in(query: &str) -> Option<String> {
    let members = query.trim_start_matches('?').split('&');
    members.filter_map(|member| member.strip_prefix("on=")).map(decode).find(|name| !name.is_empty())
}

/// An address of this console, of the connection that is shown. Every link within the console is made by this: one that
/// was not would lead to the first connection.
pub fn at(address: &str) -> String {
    match connection_shown() {
        Some(name) => on(address, name),
        None => without_connection(address),
    }
}

/// An address of this console, of this connection, whichever it was of before.
pub fn on(address: &str, connection: &str) -> String {
    let place = without_connection(address);
    let between = if place.contains('?') { '&' } else { '?' };
    format!("{place}{between}on={}", encode(connection))
}

/// An address of this console, of no connection: what is kept to be shown for any.
pub fn without_connection(address: &str) -> String {
    let (path, query) = address.split_once('?').unwrap_or((address, ""));
    let kept: Vec<&str> =
        query.split('&').filter(|member| !member.is_empty() && !member.starts_with("on=")).collect();
    if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) }
}

/// The pages of the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// All runs, or how to have the first.
    Home,
    /// One run.
    Run,
    /// How to have a first run.
    Welcome,
    /// Checkpoints of all runs.
    Checkpoints,
    /// What was done.
    Activity,
    /// Several runs side by side.
    Compare,
    /// All sessions.
    Sessions,
    /// One session.
    Session,
    /// Samplers of the newest sessions.
    Samplers,
    /// What sessions belong to.
    Projects,
    /// Sampling by hand.
    Trial,
    /// What is kept and what it costs.
    Usage,
    /// No such page.
    None,
}

/// The page at a path, and what it is of: the id of a run or a session, else nothing.
pub fn page(path: &str) -> (Page, String) {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    // In a path, a plus is a plus.
    let (name, of) = (parts.next(), parts.next().map(|part| decode(&part.replace('+', "%2B"))));
    let is_longer = parts.next().is_some();
    let page = match (name, of.is_some()) {
        _ if is_longer => Page::None,
        (None, _) => Page::Home,
        (Some("runs"), true) => Page::Run,
        (Some("sessions"), true) => Page::Session,
        (Some("welcome"), false) => Page::Welcome,
        (Some("checkpoints"), false) => Page::Checkpoints,
        (Some("activity"), false) => Page::Activity,
        (Some("compare"), false) => Page::Compare,
        (Some("sessions"), false) => Page::Sessions,
        (Some("samplers"), false) => Page::Samplers,
        (Some("projects"), false) => Page::Projects,
        (Some("try"), false) => Page::Trial,
        (Some("usage"), false) => Page::Usage,
        _ => Page::None,
    };
    (page, of.unwrap_or_default())
}

/// The address of a run's page.
pub fn run_address(run_id: &str) -> String {
    at(&format!("/runs/{}", encode(run_id)))
}

/// The address of a session's page.
pub fn session_address(session_id: &str) -> String {
    at(&format!("/sessions/{}", encode(session_id)))
}

/// The address of a run's checkpoints among those of all runs.
pub fn checkpoints_address(run_id: &str) -> String {
    asking("/checkpoints", &[("q", &format!("run:{run_id}"))])
}

/// The address where a sampler checkpoint is tried.
pub fn try_address(path: &str) -> String {
    trial_address(path, "")
}

/// The address at which models are tried, one or two of them.
pub fn trial_address(path: &str, with: &str) -> String {
    asking("/try", &[("path", path), ("with", with)])
}

/// What a query string, with or without its `?`, says under a name; the last word counts.
pub fn member(query: &str, name: &str) -> Option<String> {
    let mut members = query.trim_start_matches('?').rsplit('&').filter_map(|member| member.split_once('='));
    members.find(|(known, _)| *known == name).map(|(_, value)| decode(value))
}

/// The address of this path that asks for these; what is empty is not asked for.
pub fn asking(path: &str, members: &[(&str, &str)]) -> String {
    let asked = members.iter().filter(|(_, value)| !value.is_empty());
    let asked: Vec<String> = asked.map(|(name, value)| format!("{name}={}", encode(value))).collect();
    at(&format!("{path}?{}", asked.join("&")))
}

/// The token in an address' fragment, if it holds one: `#token=…`.
pub fn token_in(fragment: &str) -> Option<&str> {
    fragment
        .trim_start_matches('#')
        .split('&')
        .find_map(|member| member.strip_prefix("token="))
        .filter(|token| !token.is_empty())
}

/// Percent-encodes everything but letters, digits and `-_.~`.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Undoes [`encode`]; `+` is a space. What is not a valid escape stays as it is.
pub(crate) fn decode(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let escaped = || {
            let mut ahead = bytes.clone();
            let high = char::from(ahead.next()?).to_digit(16)?;
            let low = char::from(ahead.next()?).to_digit(16)?;
            Some((u8::try_from(high * 16 + low).ok()?, ahead))
        };
        match byte {
            b'+' => decoded.push(b' '),
            b'%' => match escaped() {
                Some((value, rest)) => {
                    decoded.push(value);
                    bytes = rest;
                }
                None => decoded.push(byte),
            },
            _ => decoded.push(byte),
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_address_shows_everything_by_health() {
        let view = View::read("");
        assert_eq!(view, View::default());
        assert!(view.is_whole());
        assert_eq!(view.to_address(), "/");
        let query = view.to_query(0, 50);
        assert_eq!((query.health, query.q, query.offset, query.limit), (None, None, 0, Some(50)));
    }

    #[test]
    fn every_view_survives_the_address_bar() {
        let view = View {
            health: Some(Health::AtRisk),
            q: "rank 8&x".into(),
            sort: RunSort::Name,
            reverse: true,
            columns: Columns::read("health,name~300"),
        };
        let address = "/?health=at_risk&q=rank%208%26x&sort=name&reverse=true&columns=health%2Cname~300";
        assert_eq!(view.to_address(), address);
        assert_eq!(View::read(address.trim_start_matches('/')), view);
        assert_eq!(view.to_query(200, 40).offset, 200);
        for sort in RunSort::ALL {
            assert_eq!(View::read(&format!("sort={}", sort.as_str())).sort, sort);
        }
    }

    #[test]
    fn nonsense_in_the_address_is_passed_over() {
        let view = View::read("?health=purple&q=++&sort=colour&reverse=1&columns=x&y&=&&");
        assert_eq!(view, View::default());
        assert_eq!(View::read("q=50%25+%zz%e4%").q, "50% %zz\u{fffd}%");
    }

    #[test]
    fn the_same_order_again_is_turned_round() {
        let view = View::default().with_sort(RunSort::Name);
        assert_eq!((view.sort, view.reverse), (RunSort::Name, false));
        assert!(view.with_sort(RunSort::Name).reverse);
        assert!(!view.with_sort(RunSort::Name).with_sort(RunSort::Name).reverse);
        assert!(!view.with_sort(RunSort::Name).with_sort(RunSort::Rank).reverse);
        assert!(view.is_same_list(&view.with_columns(Columns::default())));
        assert!(!view.is_same_list(&view.with_text("a")));
        assert_eq!(view.with_text(" a ").q, "a");
    }

    #[test]
    fn a_connection_stays_in_the_address() {
        assert_eq!(on("/", "lab"), "/?on=lab");
        assert_eq!(on("/?q=x", "a b&c"), "/?q=x&on=a%20b%26c");
        assert_eq!(on("/?on=other&q=x&on=third", "lab"), "/?q=x&on=lab");
        assert_eq!(without_connection("/?q=x&on=other"), "/?q=x");
        assert_eq!(without_connection("/activity?on=other"), "/activity");
        assert_eq!(connection_in("?q=on=x&on=a%20b%26c"), Some("a b&c".to_owned()));
        assert_eq!(connection_in("?on=&on=lab"), Some("lab".to_owned()));
        assert_eq!((connection_in(""), connection_in("?only=x&on=")), (None, None));
        assert_eq!(at("/activity"), "/activity", "the first needs no name");
    }

    #[test]
    fn pages_are_found_by_their_path() {
        assert_eq!(page("/"), (Page::Home, String::new()));
        assert_eq!(page("/usage/"), (Page::Usage, String::new()));
        for id in ["run-1", "a:train:0", "a/b +%"] {
            let address = run_address(id);
            let path = address.split('?').next().unwrap_or_default();
            assert_eq!(page(path), (Page::Run, id.to_owned()));
        }
        assert_eq!(page("/sessions").0, Page::Sessions);
        assert_eq!(page("/sessions/s+1"), (Page::Session, "s+1".to_owned()));
        for unknown in ["/runs", "/runs/a/b", "/nowhere", "/usage/x"] {
            assert_eq!(page(unknown).0, Page::None, "{unknown}");
        }
    }

    #[test]
    fn run_ids_are_encoded() {
        assert_eq!(run_address("3f2a:train:0"), "/runs/3f2a%3Atrain%3A0");
        assert_eq!(run_address("a/b?c#d é"), "/runs/a%2Fb%3Fc%23d%20%C3%A9");
        assert_eq!(checkpoints_address("3f2a:train:0"), "/checkpoints?q=run%3A3f2a%3Atrain%3A0");
        assert_eq!(try_address("tinker://a/b"), "/try?path=tinker%3A%2F%2Fa%2Fb");
        assert_eq!(session_address("3f2a"), "/sessions/3f2a");
    }

    #[test]
    fn the_token_is_found_in_the_fragment_only_by_name() {
        assert_eq!(token_in("#token=abc123"), Some("abc123"));
        assert_eq!(token_in("#x=1&token=abc"), Some("abc"));
        assert_eq!(token_in("#token="), None);
        assert_eq!(token_in("#mytoken=abc"), None);
        assert_eq!(token_in(""), None);
    }
}
