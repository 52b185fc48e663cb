//! The language in which checkpoints are looked for: `type:training age>7d size>1GB -public:yes`.
//!
//! Words and signs are as in the one for [runs](super::query). Words without a field are looked for in the path, the run's
//! name and the labels, in any case.
//!
//! | Field | Operators | |
//! |---|---|---|
//! | `type` | `:` `=` | `training`, `sampler`, `external`, or several with commas |
//! | `name`, `run` | `:` holds, `=` is | the checkpoint's name; the run's id or name |
//! | `age` | `>` `>=` `<` `<=` | time since the save: `90s`, `30m`, `2h`, `3d`, `1w` |
//! | `expires` | the same, and `:never` | time until it expires; one that never does is never less |
//! | `size` | the same | `500MB`, `1.5GB`; unknown sizes match nothing |
//! | `public` | `:` `=` | `yes` or `no` |
//! | `needed` | `:` `=` | `yes` or `no`: whether something needs it, so that it is not deleted by a slip |
//! | `meta.KEY` | `:` holds, `=` is | the checkpoint's label of this name |

use retinker_wire::run::CheckpointType;
use retinker_wire::time::Time;

use super::checkpoints::CheckpointItem;
use super::completion::{Asked, Completions, DURATIONS, Value, Vocabulary, plain};
pub use super::language::QueryError;
use super::language::{Comparison, Match, Order, Written, split};

/// What is looked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CheckpointFilter {
    words: Vec<(bool, Test)>,
}

#[derive(Debug, Clone, PartialEq)]
enum Test {
    /// In lower case.
    Text(String),
    Type(Vec<CheckpointType>),
    Name(Match),
    Run(Match),
    /// In milliseconds.
    Age(Order, i64),
    Expires(Order, i64),
    Never,
    Size(Order, u64),
    Public(bool),
    Needed(bool),
    Label(String, Match),
}

/// The fields by name, and for a completion the operator that is usual and what each means.
const FIELDS: [(&str, &str, &str); 9] = [
    ("type", ":", "training, sampler or external"),
    ("name", ":", "the checkpoint's name holds this"),
    ("run", ":", "the run's name or id holds this"),
    ("age", ">", "time since the save: 30m, 2h, 3d"),
    ("expires", "<", "time until it expires: 12h, 7d"),
    ("size", ">", "500MB, 1.5GB"),
    ("public", ":", "yes or no"),
    ("needed", ":", "yes or no: whether something needs it"),
    ("meta", ".", "a label: meta.team=x"),
];

/// How the text of a filter can go on. `known` tells the values that checkpoints have of a field whose values are their own: `run`,
/// a label of `meta`, and without a label the names of labels.
pub fn completions(text: &str, known: &dyn Fn(&Asked<'_>) -> Vec<Value>) -> Completions {
    let values = |asked: &Asked<'_>| match (asked.field, asked.is_equal) {
        ("type", true) => plain(&TYPES.each_ref().map(CheckpointType::as_str)),
        ("age" | "expires", false) => plain(&DURATIONS),
        ("expires", true) => plain(&["never"]),
        ("size", false) => plain(&["1MB", "100MB", "1GB", "10GB"]),
        ("public" | "needed", true) => plain(&["yes", "no"]),
        ("run" | "meta", true) => known(asked),
        _ => Vec::new(),
    };
    Vocabulary { fields: &FIELDS, several: &["type"], values: &values }.complete(text)
}

/// What `type:` takes.
const TYPES: [CheckpointType; 3] =
    [CheckpointType::Training, CheckpointType::Sampler, CheckpointType::External];

impl CheckpointFilter {
    /// Reads a query. One without words matches everything.
    ///
    /// # Errors
    /// A word begins with a known field and an operator, and the rest makes no sense.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        let words =
            split(text).iter().filter_map(|word| Test::parse(word).transpose()).collect::<Result<_, _>>();
        Ok(Self { words: words? })
    }

    /// Whether a checkpoint matches.
    pub fn matches(&self, item: &CheckpointItem, now: Time) -> bool {
        self.words.iter().all(|(negated, test)| test.holds(item, now) != *negated)
    }
}

impl Test {
    fn parse(written: &Written) -> Result<Option<(bool, Self)>, QueryError> {
        let (negated, word) = written.sign();
        let test = match written.comparison(&FIELDS.map(|(name, ..)| name)) {
            Some(is) if is.is_unfinished() => return Ok(None),
            Some(is) => Self::of(&is)?,
            None => Self::Text(word.to_lowercase()),
        };
        Ok(Some((negated, test)))
    }

    fn of(is: &Comparison<'_>) -> Result<Self, QueryError> {
        let either = || match (is.order, is.value.to_ascii_lowercase().as_str()) {
            (Order::Equal, "yes") => Ok(true),
            (Order::Equal, "no") => Ok(false),
            (Order::Equal, _) => Err(is.wrong("yes or no")),
            _ => Err(is.wrong_operator(":")),
        };
        Ok(match is.field {
            "type" if is.order != Order::Equal => return Err(is.wrong_operator(":")),
            "type" => {
                let named =
                    |name: &str| TYPES.iter().find(|kind| kind.as_str().eq_ignore_ascii_case(name)).cloned();
                let kinds: Option<Vec<_>> = is.value.split(',').map(named).collect();
                Self::Type(kinds.ok_or_else(|| is.wrong("training, sampler or external"))?)
            }
            "name" => Self::Name(is.text()?),
            "run" => Self::Run(is.text()?),
            "age" => is.duration().map(|(order, ms)| Self::Age(order, ms))?,
            "expires" if is.order == Order::Equal && is.value.eq_ignore_ascii_case("never") => Self::Never,
            "expires" => is.duration().map(|(order, ms)| Self::Expires(order, ms))?,
            "size" => is.size().map(|(order, bytes)| Self::Size(order, bytes))?,
            "public" => Self::Public(either()?),
            "needed" => Self::Needed(either()?),
            _ if is.label.is_empty() => return Err(QueryError::NoLabel(is.word.to_owned())),
            _ => Self::Label(is.label.to_owned(), is.text()?),
        })
    }

    fn holds(&self, item: &CheckpointItem, now: Time) -> bool {
        let checkpoint = &item.checkpoint;
        let since = |from: Time, to: Time| to.as_millis().saturating_sub(from.as_millis());
        match self {
            Self::Text(wanted) => {
                let holds = |text: &str| text.to_lowercase().contains(wanted);
                holds(&checkpoint.tinker_path)
                    || holds(&item.run_name)
                    || checkpoint
                        .user_metadata
                        .iter()
                        .flatten()
                        .any(|(key, value)| holds(&format!("{key}={value}")))
            }
            Self::Type(kinds) => kinds.contains(&checkpoint.checkpoint_type),
            Self::Name(wanted) => wanted.fits(name_of(&checkpoint.checkpoint_id)),
            Self::Run(wanted) => wanted.fits(&item.run_id) || wanted.fits(&item.run_name),
            Self::Age(order, ms) => order.holds(since(checkpoint.time, now), *ms),
            Self::Expires(order, ms) => {
                order.holds(checkpoint.expires_at.map_or(i64::MAX, |at| since(now, at)), *ms)
            }
            Self::Never => checkpoint.expires_at.is_none(),
            Self::Size(order, bytes) => checkpoint.size_bytes.is_some_and(|size| order.holds(size, *bytes)),
            Self::Public(wanted) => checkpoint.public == *wanted,
            Self::Needed(wanted) => item.needed_because.is_some() == *wanted,
            Self::Label(key, wanted) => checkpoint
                .user_metadata
                .as_ref()
                .and_then(|labels| labels.get(key))
                .is_some_and(|value| wanted.fits(value)),
        }
    }
}

/// A checkpoint's name without the segment that says its kind.
pub fn name_of(checkpoint_id: &str) -> &str {
    checkpoint_id.rsplit_once('/').map_or(checkpoint_id, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::test;

    const NOW: i64 = 1_000_000_000_000;
    const HOUR: i64 = 3_600_000;

    fn item() -> CheckpointItem {
        let json = serde_json::json!({
            "run_id": "5f0c:train:0", "run_name": "Nightly Run", "needed_because": "x",
            "checkpoint": {
                "checkpoint_id": "weights/0040", "checkpoint_type": "training",
                "tinker_path": "tinker://5f0c:train:0/weights/0040", "size_bytes": 2_000_000,
                "time": Time::from_millis(NOW - 3 * HOUR), "expires_at": Time::from_millis(NOW + 2 * HOUR),
                "user_metadata": {"team": "Blue Sky"},
            },
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn what_holds_and_what_does_not() {
        let (mut item, now) = (item(), Time::from_millis(NOW));
        let holds = |item: &CheckpointItem, query: &str| {
            CheckpointFilter::parse(query).unwrap_or_else(|e| panic!("{e}")).matches(item, now)
        };
        for query in [
            "",
            "nightly 0040",
            "BLUE",
            "\"blue sky\" tinker://",
            "type:training",
            "type=SAMPLER,training",
            "name=0040",
            "name:04",
            "run:nightly",
            "run=5f0c:train:0",
            "age>2h age<4h",
            "expires<3h",
            "-expires:never",
            "size>1MB size<=2mb",
            "public:no",
            "needed:yes",
            "meta.team=\"blue sky\"",
            "-meta.team:red -type:external",
        ] {
            assert!(holds(&item, query), "{query}");
        }
        for query in [
            "absent",
            "type:sampler",
            "name=40",
            "run:other",
            "age>1d",
            "expires<1h",
            "expires:never",
            "size>1GB",
            "public:yes",
            "-needed:yes",
            "meta.x:y",
        ] {
            assert!(!holds(&item, query), "{query}");
        }
        (item.checkpoint.expires_at, item.checkpoint.size_bytes) = (None, None);
        assert!(holds(&item, "expires:never expires>9w -expires<9w"));
        assert!(!holds(&item, "size<1TB") && !holds(&item, "size>0"), "a size that is not told");
    }

    #[test]
    fn completions_fit_what_is_being_written() {
        let known = |asked: &Asked<'_>| match (asked.field, asked.label) {
            ("run", "") => plain(&["Nightly Run"]),
            ("meta", "") => plain(&["team"]),
            _ => Vec::new(),
        };
        let of = |text: &str| {
            completions(text, &known).offered.into_iter().map(|offered| offered.text).collect::<Vec<_>>()
        };
        assert_eq!(of("ty"), ["type:"]);
        assert_eq!(of("type:training,s"), ["type:training,sampler"]);
        assert_eq!(of("-public:"), ["-public:yes", "-public:no"]);
        assert_eq!(of("run:ni"), ["run:\"Nightly Run\""]);
        assert_eq!(of("size>1 meta."), ["size>1 meta.team="]);
        assert_eq!(of("expires:n"), ["expires:never"]);
        // What is offered can be read.
        for (field, ..) in FIELDS {
            for operator in [":", "=", "<", "<=", ">", ">="] {
                for offered in of(&format!("{field}{operator}")) {
                    assert!(CheckpointFilter::parse(&offered).is_ok(), "{offered}");
                }
            }
        }
        assert_eq!(of("").len(), FIELDS.len());
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        for (query, said) in [
            ("type:big", "type takes training, sampler or external"),
            ("type>training", "type is compared by :"),
            ("age:2d", "age is compared by <, <=, > and >="),
            ("expires:soon", "expires is compared by"),
            ("size>big", "size takes a size such as 500MB"),
            ("size:1GB", "size is compared by"),
            ("public:maybe", "public takes yes or no"),
            ("public>yes", "public is compared by :"),
            ("meta:x", "names no label"),
        ] {
            let error = CheckpointFilter::parse(query).unwrap_err().to_string();
            assert!(error.contains(said), "{query}: {error}");
        }
    }
}
