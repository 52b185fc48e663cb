//! What must not be told, left out.

use std::error::Error as StdError;

use retinker_wire::telemetry::Happening;
use serde_json::{Map, Value};

use super::events::chain;
use crate::client::call::Caller;
use crate::client::error::Error;

/// What stands where something was left out.
const LEFT_OUT: &str = "***";
/// Words of headers shorter than this are no secrets: `1`, `Bearer`.
const SHORTEST: usize = 8;
/// How credentials of the service begin: keys, and tokens.
const CREDENTIALS: [&str; 2] = ["tml-", "eyJ"];

/// An error's sentence without what the server said, which the server knows and which may repeat what it was sent.
pub(super) fn without_the_servers_words(exception: &(dyn StdError + 'static)) -> String {
    chain(exception)
        .filter_map(|error| error.downcast_ref::<Error>())
        .flat_map(Error::words_of_the_server)
        .filter(|words| !words.is_empty())
        .fold(exception.to_string(), |text, words| text.replace(words, LEFT_OUT))
}

/// The secrets that the client knows.
pub(super) struct Redaction {
    secrets: Vec<String>,
}

impl Redaction {
    pub(super) fn of(caller: &Caller) -> Self {
        let credentials = caller.auth.secrets().map(|secret| secret.expose().to_owned());
        let headers = caller.headers.iter().flat_map(|(_, value)| value.split_whitespace());
        let headers = headers.filter(|word| word.len() >= SHORTEST).map(str::to_owned);
        let mut secrets: Vec<_> = credentials.chain(headers).filter(|secret| !secret.is_empty()).collect();
        // Of two that overlap the longer one goes first, or its rest would stay.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self { secrets }
    }

    /// Leaves out whatever is secret.
    pub(super) fn apply(&self, what: &mut Happening) {
        match what {
            Happening::SessionStart | Happening::SessionEnd { .. } => {}
            Happening::UnhandledException { error_type, error_message, traceback } => {
                for text in [error_type, error_message].into_iter().chain(traceback) {
                    *text = self.text(text);
                }
            }
            Happening::GenericEvent { event_name, event_data } => {
                *event_name = self.text(event_name);
                self.members(event_data);
            }
        }
    }

    fn members(&self, members: &mut Map<String, Value>) {
        let redacted = std::mem::take(members).into_iter().map(|(name, mut value)| {
            self.value(&mut value);
            (self.text(&name), value)
        });
        *members = redacted.collect();
    }

    fn value(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(members) => self.members(members),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn text(&self, text: &str) -> String {
        let known = self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, LEFT_OUT));
        known.split_inclusive(ends_word).map(word).collect()
    }
}

/// Whether a URL ends before it, in a sentence or in JSON.
fn ends_word(c: char) -> bool {
    c.is_whitespace() || "\"'`<>()[]{}\\".contains(c)
}

/// A word, and what ends it, without the credentials in it, and, of a URL, without the user and the query.
fn word(text: &str) -> String {
    let word = text.strip_suffix(ends_word).unwrap_or(text);
    let end = text.get(word.len()..).unwrap_or_default();
    let word = CREDENTIALS.iter().fold(word.to_owned(), |word, begin| without(&word, begin));
    let Some(scheme) = word.find("://") else { return word + end };
    let (scheme, rest) = word.split_at(scheme + 3);
    let (place, query) = rest.split_at(rest.find(['?', '#']).unwrap_or(rest.len()));
    let query = if query.is_empty() { "" } else { LEFT_OUT };
    let (authority, path) = place.split_at(place.find('/').unwrap_or(place.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}{host}{path}{query}{end}")
}

/// A word in which whatever begins so, and in no other word's middle, is left out as far as a credential can reach.
fn without(word: &str, begin: &str) -> String {
    let part = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let (mut text, mut rest) = (String::new(), word);
    while let Some((before, after)) = rest.split_once(begin) {
        text.push_str(before);
        let inside = text.ends_with(|c: char| c.is_ascii_alphanumeric());
        text.push_str(if inside { begin } else { LEFT_OUT });
        rest = if inside { after } else { after.trim_start_matches(part) };
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::test;

    fn text(text: &str) -> String {
        Redaction { secrets: vec!["hush-hush".into(), "hush".into()] }.text(text)
    }

    #[test]
    fn what_is_known_and_what_looks_like_it_is_left_out() {
        for (before, after) in [
            ("nothing to hide", "nothing to hide"),
            ("a hush-hush b hush", "a *** b ***"),
            ("key tml-aB_3.x, refused", "key ***, refused"),
            ("{\"k\":\"tml-1\",\"t\":\"eyJhbGciOi.eyJzdWIi.c2ln-_x\"}", "{\"k\":\"***\",\"t\":\"***\"}"),
            ("x=tml-a&y=tml-b", "x=***&y=***"),
            ("html-page, keyJob, tml-", "html-page, keyJob, ***"),
            ("https://h/p?sig=1,2&x=3 then", "https://h/p*** then"),
            ("'https://h#x'", "'https://h***'"),
            ("(http://u:p@h:1/p)", "(http://h:1/p)"),
            ("tinker://s:train:0/weights/a", "tinker://s:train:0/weights/a"),
        ] {
            assert_eq!(text(before), after);
        }
    }
}
