//! What the address bar holds: which runs are shown, and which run.

use std::fmt::Write as _;

use retinker::host::api::{RunSort, RunsQuery};
use retinker::recovery::health::Health;

/// Rows on one page of the list.
pub const PAGE: u64 = 100;

/// What the list of runs shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Only runs of this health.
    pub health: Option<Health>,
    /// Only runs that hold this text; empty = all.
    pub q: String,
    /// The order.
    pub sort: RunSort,
    /// The page, from 0.
    pub page: u64,
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
                "page" => view.page = value.parse::<u64>().unwrap_or(1).saturating_sub(1),
                _ => {}
            }
        }
        view
    }

    /// The address that shows this view; what is as usual is left out.
    pub fn to_address(&self) -> String {
        let mut members = Vec::new();
        if let Some(health) = self.health {
            members.push(format!("health={}", health.as_str()));
        }
        if !self.q.is_empty() {
            members.push(format!("q={}", encode(&self.q)));
        }
        if self.sort != RunSort::default() {
            members.push(format!("sort={}", sort_name(self.sort)));
        }
        if self.page > 0 {
            members.push(format!("page={}", self.page.saturating_add(1)));
        }
        if members.is_empty() { "/".to_owned() } else { format!("/?{}", members.join("&")) }
    }

    /// What to ask the host for.
    pub fn to_query(&self) -> RunsQuery {
        RunsQuery {
            health: self.health,
            q: (!self.q.is_empty()).then(|| self.q.clone()),
            sort: self.sort,
            offset: self.page.saturating_mul(PAGE),
            limit: Some(PAGE),
        }
    }

    /// The same view of another health, from its first page.
    pub fn with_health(&self, health: Option<Health>) -> Self {
        Self { health, page: 0, ..self.clone() }
    }

    /// The same view with another text, from its first page.
    pub fn with_text(&self, q: &str) -> Self {
        Self { q: q.trim().to_owned(), page: 0, ..self.clone() }
    }

    /// The same view in another order, from its first page.
    pub fn with_sort(&self, sort: RunSort) -> Self {
        Self { sort, page: 0, ..self.clone() }
    }

    /// Another page of the same view.
    pub fn with_page(&self, page: u64) -> Self {
        Self { page, ..self.clone() }
    }

    /// Whether every run is let through.
    pub fn is_whole(&self) -> bool {
        self.health.is_none() && self.q.is_empty()
    }
}

/// An order's name in the address.
pub fn sort_name(sort: RunSort) -> &'static str {
    match sort {
        RunSort::Health => "health",
        RunSort::Activity => "activity",
        RunSort::Name => "name",
    }
}

/// The order of this name.
pub fn read_sort(name: &str) -> Option<RunSort> {
    [RunSort::Health, RunSort::Activity, RunSort::Name].into_iter().find(|sort| sort_name(*sort) == name)
}

/// The address of a run's page.
pub fn run_address(run_id: &str) -> String {
    format!("/runs/{}", encode(run_id))
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
fn encode(text: &str) -> String {
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
fn decode(text: &str) -> String {
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
        let query = view.to_query();
        assert_eq!((query.health, query.q, query.offset, query.limit), (None, None, 0, Some(PAGE)));
    }

    #[test]
    fn every_view_survives_the_address_bar() {
        let view = View { health: Some(Health::AtRisk), q: "rank 8&x".into(), sort: RunSort::Name, page: 2 };
        assert_eq!(view.to_address(), "/?health=at_risk&q=rank%208%26x&sort=name&page=3");
        assert_eq!(View::read("?health=at_risk&q=rank%208%26x&sort=name&page=3"), view);
        assert_eq!(view.to_query().offset, 2 * PAGE);
    }

    #[test]
    fn nonsense_in_the_address_is_passed_over() {
        let view = View::read("?health=purple&q=++&sort=colour&page=-1&x&=&&");
        assert_eq!(view, View::default());
        assert_eq!(View::read("page=0").page, 0);
        assert_eq!(View::read("q=50%25+%zz%e4%").q, "50% %zz\u{fffd}%");
        assert_eq!(View::read("page=18446744073709551615").to_query().offset, u64::MAX);
    }

    #[test]
    fn another_filter_starts_at_the_first_page() {
        let view = View { page: 4, ..View::default() };
        assert_eq!(view.with_health(Some(Health::Poisoned)).page, 0);
        assert_eq!(view.with_text(" a ").q, "a");
        assert_eq!(view.with_text("a").page, 0);
        assert_eq!(view.with_sort(RunSort::Activity).page, 0);
        assert_eq!(view.with_page(1).page, 1);
    }

    #[test]
    fn run_ids_are_encoded() {
        assert_eq!(run_address("3f2a:train:0"), "/runs/3f2a%3Atrain%3A0");
        assert_eq!(run_address("a/b?c#d é"), "/runs/a%2Fb%3Fc%23d%20%C3%A9");
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
