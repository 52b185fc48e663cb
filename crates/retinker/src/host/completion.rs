//! How a filter that is being written can go on: fields, and the values that there are.

use serde::{Deserialize, Serialize};

/// Which filter, and what has been written of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompletionQuery {
    /// The list that is filtered.
    #[serde(default)]
    pub of: FilterOf,
    /// What has been written; a text that ends with a blank is asked which word can come next.
    #[serde(default)]
    pub q: String,
}

/// What a filter is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FilterOf {
    /// Runs, in the language of [`query`](super::query).
    #[default]
    Runs,
    /// Checkpoints, in the language of [`checkpoint_query`](super::checkpoint_query).
    Checkpoints,
}

impl FilterOf {
    /// Its name in queries.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Runs => "runs",
            Self::Checkpoints => "checkpoints",
        }
    }
}

/// The ways in which a filter can go on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completions {
    /// The best first; at most [`MAX_COMPLETIONS`].
    pub offered: Vec<Completion>,
}

/// One way in which a filter can go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completion {
    /// The whole text, with its last word completed.
    pub text: String,
    /// What that means, or how often it is found.
    pub meaning: String,
}

/// Most [`Completions`] of an answer.
pub const MAX_COMPLETIONS: usize = 40;

/// A value that a field can have, and what to say of it.
pub type Value = (String, String);

/// A language, as far as completing goes.
pub(super) struct Vocabulary<'a> {
    /// The fields: each one's name, the operator that is usual, and what it means.
    pub(super) fields: &'a [(&'static str, &'static str, &'static str)],
    /// Those that take several values with commas.
    pub(super) several: &'a [&'a str],
    /// The values that fit what is asked.
    pub(super) values: &'a dyn Fn(&Asked<'_>) -> Vec<Value>,
}

/// Which values are asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The field, in lower case.
    pub field: &'a str,
    /// Of `meta` which label; without one the names of labels are asked for.
    pub label: &'a str,
    /// Whether it is compared by `:` or `=`, and not by an order.
    pub is_equal: bool,
    /// What has been written of the value.
    pub written: &'a str,
}

impl Asked<'_> {
    /// Whether this value goes on with what has been written.
    pub fn fits(&self, value: &str) -> bool {
        begins(value, self.written)
    }
}

impl Vocabulary<'_> {
    /// How the text can go on.
    pub(super) fn complete(&self, text: &str) -> Completions {
        let (before, last) = text.split_at(last_word(text));
        let (sign, word) = last.strip_prefix('-').map_or(("", last), |rest| ("-", rest));
        let mut offered: Vec<Value> = Vec::new();
        match word.find([':', '=', '<', '>']) {
            // A label's name is completed like a field, as far as it goes.
            None => {
                let label = word.get(..5).filter(|field| field.eq_ignore_ascii_case("meta."));
                match label.and_then(|field| word.get(field.len()..)) {
                    Some(name) => offered.extend(
                        (self.values)(&Asked { field: "meta", label: "", is_equal: true, written: name })
                            .into_iter()
                            .filter(|(label, _)| begins(label, name) && is_plain(label))
                            .map(|(label, said)| (format!("meta.{label}="), said)),
                    ),
                    None => {
                        let fields = self.fields.iter().map(|(name, operator, means)| {
                            (format!("{name}{operator}"), (*means).to_owned())
                        });
                        offered.extend(fields.filter(|(field, _)| begins(field, word)));
                    }
                }
            }
            Some(at) => {
                let (name, rest) = word.split_at(at);
                let value_at = rest.find(|c| !":=<>".contains(c)).unwrap_or(rest.len());
                let (operator, value) = rest.split_at(value_at);
                let (field, label) = name.split_once('.').unwrap_or((name, ""));
                let field = field.to_ascii_lowercase();
                // Of several values with commas the last is being written.
                let (others, value) = match value.rfind(',').filter(|_| self.several.contains(&&*field)) {
                    Some(comma) => value.split_at(comma + 1),
                    None => ("", value),
                };
                let written = value.trim_matches('"');
                let is_equal = matches!(operator, ":" | "=");
                // A label has to be named before it is compared.
                let known = match field == "meta" && label.is_empty() {
                    true => Vec::new(),
                    false => (self.values)(&Asked { field: &field, label, is_equal, written }),
                };
                offered.extend(
                    known
                        .into_iter()
                        .filter(|(value, _)| begins(value, written) && !value.contains('"'))
                        .map(|(value, said)| (format!("{name}{operator}{others}{}", quoted(&value)), said)),
                );
            }
        }
        offered.retain(|(whole, _)| whole != word);
        offered.truncate(MAX_COMPLETIONS);
        let whole = |(word, meaning)| Completion { text: format!("{before}{sign}{word}"), meaning };
        Completions { offered: offered.into_iter().map(whole).collect() }
    }
}

/// Where the last word begins: after the last blank outside quotation marks.
fn last_word(text: &str) -> usize {
    let mut within = false;
    let mut start = 0;
    for (at, letter) in text.char_indices() {
        match letter {
            '"' => within = !within,
            blank if blank.is_whitespace() && !within => start = at + blank.len_utf8(),
            _ => {}
        }
    }
    start
}

/// Whether a word can be meant by what has been written of it, in any case.
fn begins(whole: &str, written: &str) -> bool {
    whole.to_lowercase().starts_with(&written.to_lowercase())
}

/// Whether a label of this name can be compared: there is no way to quote a name.
fn is_plain(label: &str) -> bool {
    !label.is_empty() && !label.contains(|c: char| c.is_whitespace() || ":=<>\"".contains(c))
}

fn quoted(value: &str) -> String {
    match value.contains(char::is_whitespace) {
        true => format!("\"{value}\""),
        false => value.to_owned(),
    }
}

/// Times that are often asked for.
pub(super) const DURATIONS: [&str; 5] = ["1h", "12h", "1d", "7d", "30d"];

/// Values of which nothing has to be said.
pub(super) fn plain(values: &[&str]) -> Vec<Value> {
    values.iter().map(|value| ((*value).to_owned(), String::new())).collect()
}
