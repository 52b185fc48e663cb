//! The language in which runs are looked for: `health:poisoned model:qwen rank>=16 age<2d meta.team=x`.
//!
//! Words are separated by blanks, and all of them must hold. A word with a known field and an operator is compared with that
//! field; any other is looked for in the run's id, name, base model and labels, in any case. `-` before a word turns it round;
//! quotation marks keep blanks together: `"my run"`, `meta.note:"two words"`. A comparison without a value, as while it is being
//! written, compares nothing yet.
//!
//! | Field | Operators | |
//! |---|---|---|
//! | `health` | `:` `=` | one of [`Health`]'s names, or how it begins, or several with commas |
//! | `model`, `name`, `id`, `owner` | `:` holds, `=` is | in any case |
//! | `rank` | `:` `=` `>` `>=` `<` `<=` | a number |
//! | `age` | `>` `>=` `<` `<=` | time since the last request: `90s`, `30m`, `2h`, `3d`, `1w` |
//! | `expires` | the same | time until the last checkpoint expires; one that never does is never less |
//! | `has` | `:` | `checkpoint`, `successor`, `origin`, `restore` |
//! | `meta.KEY` | `:` holds, `=` is | the run's label of this name |

use retinker_wire::time::Time;

use super::api::RunRow;
use super::completion::{Asked, Completions, DURATIONS, Value, Vocabulary, plain};
pub use super::language::QueryError;
use super::language::{Comparison, Match, Order, Written, split};
use crate::recovery::health::Health;

/// What is looked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Query {
    words: Vec<Word>,
}

#[derive(Debug, Clone, PartialEq)]
struct Word {
    negated: bool,
    test: Test,
}

#[derive(Debug, Clone, PartialEq)]
enum Test {
    /// In lower case.
    Text(String),
    Health(Vec<Health>),
    Model(Match),
    Name(Match),
    Id(Match),
    Owner(Match),
    Label(String, Match),
    Rank(Order, u32),
    /// In milliseconds.
    Age(Order, i64),
    Expires(Order, i64),
    Has(Thing),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thing {
    Checkpoint,
    Successor,
    Origin,
    Restore,
}

/// What `has:` takes.
const THINGS: [(&str, Thing); 4] = [
    ("checkpoint", Thing::Checkpoint),
    ("successor", Thing::Successor),
    ("origin", Thing::Origin),
    ("restore", Thing::Restore),
];

/// A field by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Health,
    Model,
    Name,
    Id,
    Owner,
    Rank,
    Age,
    Expires,
    Has,
    Meta,
}

impl Field {
    /// With its name, and for a completion the operator that is usual and what it means.
    const ALL: [(&'static str, Self, &'static str, &'static str); 10] = [
        ("health", Self::Health, ":", "poisoned, unrecoverable, stalled, at_risk, recovered or healthy"),
        ("model", Self::Model, ":", "the base model's name holds this"),
        ("name", Self::Name, ":", "the run's name holds this"),
        ("id", Self::Id, ":", "the run's id holds this"),
        ("owner", Self::Owner, ":", "the owner's name holds this"),
        ("rank", Self::Rank, ">=", "the adapter's rank, a number"),
        ("age", Self::Age, "<", "time since the last request: 30m, 2h, 3d"),
        ("expires", Self::Expires, "<", "time until the last checkpoint expires: 12h, 7d"),
        ("has", Self::Has, ":", "checkpoint, successor, origin or restore"),
        ("meta", Self::Meta, ".", "a label: meta.team=x"),
    ];
}

impl Query {
    /// Reads a query. One without words matches every run.
    ///
    /// # Errors
    /// A word begins with a known field and an operator, and the rest makes no sense.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        let words = split(text).into_iter().filter_map(|word| Word::parse(&word).transpose());
        Ok(Self { words: words.collect::<Result<_, _>>()? })
    }

    /// Whether it matches every run.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Whether a run matches. `text` is what plain words are looked for in, in lower case ([`text_of`]).
    pub fn matches(&self, row: &RunRow, text: &str, now: Time) -> bool {
        self.words.iter().all(|word| word.test.holds(row, text, now) != word.negated)
    }
}

/// The first word that seems to compare a field of which there is none: it is looked for as it is.
pub fn no_field(text: &str) -> Option<String> {
    let words = split(text);
    let mut seeming = words.iter().filter_map(|word| word.seeming_field());
    seeming
        .find(|name| !Field::ALL.iter().any(|(field, ..)| field.eq_ignore_ascii_case(name)))
        .map(str::to_owned)
}

/// What plain words are looked for in: the run's id, name, base model and labels, in lower case.
pub fn text_of(row: &RunRow) -> String {
    let mut text = format!("{}\n{}\n{}", row.run.training_run_id, row.name, row.run.base_model);
    for (key, value) in row.run.user_metadata.iter().flatten() {
        text.push('\n');
        text.push_str(key);
        text.push('=');
        text.push_str(value);
    }
    text.to_lowercase()
}

/// How the text of a query can go on. `known` tells the values that runs have of a field whose values are their own: `model`,
/// `owner`, `rank`, a label of `meta`, and without a label the names of labels.
pub fn completions(text: &str, known: &dyn Fn(&Asked<'_>) -> Vec<Value>) -> Completions {
    let values = |asked: &Asked<'_>| match (asked.field, asked.is_equal) {
        ("health", true) => plain(&Health::ALL.map(Health::as_str)),
        ("has", true) => plain(&THINGS.map(|(name, _)| name)),
        ("age" | "expires", false) => plain(&DURATIONS),
        ("rank", _) | ("model" | "owner" | "meta", true) => known(asked),
        _ => Vec::new(),
    };
    let fields = Field::ALL.map(|(name, _, operator, means)| (name, operator, means));
    Vocabulary { fields: &fields, several: &["health"], values: &values }.complete(text)
}

impl Word {
    fn parse(written: &Written) -> Result<Option<Self>, QueryError> {
        let (negated, word) = written.sign();
        let test = match written.comparison(&Field::ALL.map(|(name, ..)| name)) {
            Some(is) if is.is_unfinished() => return Ok(None),
            Some(is) => {
                let field =
                    Field::ALL.iter().find(|(name, ..)| *name == is.field).map(|(_, field, ..)| *field);
                field.map(|field| Test::of(field, &is)).transpose()?
            }
            None => None,
        };
        Ok(Some(Self { negated, test: test.unwrap_or_else(|| Test::Text(word.to_lowercase())) }))
    }
}

impl Test {
    fn of(field: Field, is: &Comparison<'_>) -> Result<Self, QueryError> {
        Ok(match field {
            Field::Model => Self::Model(is.text()?),
            Field::Name => Self::Name(is.text()?),
            Field::Id => Self::Id(is.text()?),
            Field::Owner => Self::Owner(is.text()?),
            Field::Meta if is.label.is_empty() => return Err(QueryError::NoLabel(is.word.to_owned())),
            Field::Meta => Self::Label(is.label.to_owned(), is.text()?),
            Field::Rank => Self::Rank(is.order, is.value.parse().map_err(|_| is.wrong("a number"))?),
            Field::Age => is.duration().map(|(order, ms)| Self::Age(order, ms))?,
            Field::Expires => is.duration().map(|(order, ms)| Self::Expires(order, ms))?,
            Field::Health | Field::Has if is.order != Order::Equal => return Err(is.wrong_operator(":")),
            Field::Health => {
                let takes = "poisoned, unrecoverable, stalled, at_risk, recovered or healthy";
                let named = |name: &str| {
                    let name = name.to_ascii_lowercase().replace('-', "_");
                    Health::ALL.into_iter().filter(|health| health.as_str().starts_with(&name)).collect()
                };
                // What follows the last comma may be still to be written.
                let names = is.value.trim_end_matches(',').split(',');
                let healths: Vec<Vec<_>> = names.map(named).collect();
                if healths.iter().any(Vec::is_empty) {
                    return Err(is.wrong(takes));
                }
                Self::Health(healths.concat())
            }
            Field::Has => {
                let begins = is.value.to_ascii_lowercase();
                let thing = THINGS.iter().find(|(name, _)| name.starts_with(&begins));
                Self::Has(thing.ok_or_else(|| is.wrong("checkpoint, successor, origin or restore"))?.1)
            }
        })
    }

    fn holds(&self, row: &RunRow, text: &str, now: Time) -> bool {
        let run = &row.run;
        match self {
            Self::Text(wanted) => text.contains(wanted),
            Self::Health(healths) => healths.contains(&row.verdict.health),
            Self::Model(wanted) => wanted.fits(&run.base_model),
            Self::Name(wanted) => wanted.fits(&row.name),
            Self::Id(wanted) => wanted.fits(&run.training_run_id),
            Self::Owner(wanted) => wanted.fits(&run.model_owner),
            Self::Label(key, wanted) => run
                .user_metadata
                .as_ref()
                .and_then(|labels| labels.get(key))
                .is_some_and(|value| wanted.fits(value)),
            Self::Rank(order, rank) => run.lora_rank.is_some_and(|found| order.holds(found, *rank)),
            Self::Age(order, ms) => {
                order.holds(now.as_millis().saturating_sub(run.last_request_time.as_millis()), *ms)
            }
            Self::Expires(order, ms) => {
                let Some(last) = &run.last_checkpoint else { return false };
                let left =
                    last.expires_at.map_or(i64::MAX, |at| at.as_millis().saturating_sub(now.as_millis()));
                order.holds(left, *ms)
            }
            Self::Has(Thing::Checkpoint) => run.last_checkpoint.is_some(),
            Self::Has(Thing::Successor) => row.restored_to.is_some(),
            Self::Has(Thing::Origin) => row.restored_from.is_some(),
            Self::Has(Thing::Restore) => row.restore_id.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::test;
    use crate::recovery::health::Verdict;

    const NOW: i64 = 1_000_000_000_000;
    const HOUR: i64 = 3_600_000;

    fn row() -> RunRow {
        let json = serde_json::json!({
            "name": "Nightly Run",
            "verdict": Verdict { health: Health::Poisoned, reason: "x".into(), category: None, since: None },
            "restored_from": "before:train:0",
            "run": {
                "training_run_id": "5f0c:train:0",
                "base_model": "Qwen/Qwen3-8B",
                "model_owner": "ann",
                "lora_rank": 16,
                "last_request_time": Time::from_millis(NOW - 3 * HOUR),
                "user_metadata": {"team": "Blue Sky", "name": "Nightly Run"},
                "last_checkpoint": {
                    "checkpoint_id": "weights/a", "checkpoint_type": "training", "time": Time::from_millis(0),
                    "tinker_path": "tinker://5f0c:train:0/weights/a", "expires_at": Time::from_millis(NOW + 2 * HOUR),
                },
            },
        });
        serde_json::from_value(json).unwrap()
    }

    fn matches(query: &str) -> bool {
        let row = row();
        let query = Query::parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
        query.matches(&row, &text_of(&row), Time::from_millis(NOW))
    }

    #[test]
    fn what_holds_and_what_does_not() {
        for query in [
            "",
            "  ",
            "nightly",
            "NIGHTLY run",
            "\"nightly run\"",
            "5f0c:train",
            "blue",
            "health:poisoned",
            "health=stalled,poisoned",
            "health:POISONED",
            "-health:healthy",
            "model:qwen3",
            "model=qwen/qwen3-8b",
            "rank:16",
            "rank>=16 rank<=16",
            "rank>8",
            "rank<17",
            "age>2h",
            "age<1d",
            "age<0.5w",
            "age>=180m",
            "expires<3h",
            "expires>7000s",
            "has:checkpoint",
            "has:origin",
            "-has:successor",
            "meta.team=\"blue sky\"",
            "-\"health:x y\"",
            "-\"model:\" blue",
            "meta.team:sky",
            "-meta.team:red",
            "owner=ann",
            "name:night",
            "id:5f0c",
            "-absent",
            "health:poisoned model:qwen rank>=16 age<2d meta.team:blue",
            "--absent -\"absent\"",
            "-tinker://",
        ] {
            assert!(matches(query), "{query}");
        }
        for query in [
            "nightly absent",
            "health:healthy",
            "-nightly",
            "rank>16",
            "rank:8",
            "age<1h",
            "expires<1h",
            "has:successor",
            "meta.team=blue",
            "meta.other:x",
            "model=qwen",
            "\"run nightly\"",
            "unknown:field",
        ] {
            assert!(!matches(query), "{query}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        for (query, said) in [
            ("rank>=many", "'rank>=many' makes no sense: rank takes a number"),
            ("health:ill", "'health:ill' makes no sense: health takes poisoned, unrecoverable"),
            ("health>poisoned", "'health>poisoned' makes no sense: health is compared by :"),
            ("age:2d", "'age:2d' makes no sense: age is compared by <, <=, > and >="),
            ("age<2", "'age<2' makes no sense: age takes a time such as 30m"),
            ("age<-2d", "age takes a time"),
            ("model>x", "model is compared by : (holds) and = (is)"),
            ("meta.=x", "names no label"),
            ("meta:x", "names no label"),
            ("has:wings", "has takes checkpoint, successor, origin or restore"),
        ] {
            let error = Query::parse(query).unwrap_err().to_string();
            assert!(error.contains(said), "{query}: {error}");
        }
    }

    #[test]
    fn a_field_that_there_is_not_is_noticed() {
        for (text, field) in [
            ("health:poisoned bogus:1", Some("bogus")),
            ("-Team=x", Some("Team")),
            ("meta.team=x rank>=8 RANK>1", None),
            ("tinker://a/weights/b 12ab-3:train:0 lr=", None),
            ("\"bogus:1\" words", None),
            ("", None),
        ] {
            assert_eq!(no_field(text).as_deref(), field, "{text}");
        }
    }

    #[test]
    fn what_is_still_being_written_compares_nothing_yet() {
        for written in ["rank>=", "health:", "age<", "has:", "meta.team=", "-name:", "model= expires>"] {
            assert!(Query::parse(written).unwrap().is_empty(), "{written}");
        }
        let shows = |query: &str| {
            Query::parse(query).unwrap().matches(&row(), &text_of(&row()), Time::from_millis(NOW))
        };
        assert!(shows("health:poi") && shows("health:healthy,poi") && shows("health:poisoned,"));
        assert!(!shows("health:h") && !shows("-health:p"));
    }

    #[test]
    fn odd_texts_are_no_trouble() {
        for query in [
            "\"",
            "\"open",
            "-",
            "- -",
            ":",
            "=",
            ">=",
            "\"\"",
            "é:ü",
            "meta.é=ü",
            "age<9e999d",
            "rank>=é",
            "\u{202e}",
        ] {
            let _ = Query::parse(query).map(|query| query.matches(&row(), "", Time::from_millis(NOW)));
            let _ = completions(query, &|_| plain(&["\u{202e}", "a \"b", "é"]));
        }
        assert!(Query::parse("\"\" - \"\"").unwrap().is_empty());
    }

    #[test]
    fn completions_fit_what_is_being_written() {
        let known = |asked: &Asked<'_>| match (asked.field, asked.label) {
            ("model", "") => plain(&["Qwen/Qwen3-8B", "meta-llama/Llama-3.1-8B"]),
            ("owner", "") => plain(&["Ann Lee", "a \"quoted\" one"]),
            ("rank", "") => plain(&["8", "16"]),
            ("meta", "") => plain(&["team", "two words", "topic"]),
            ("meta", "team") => plain(&["Blue Sky", "red"]),
            _ => Vec::new(),
        };
        let of = |text: &str| {
            completions(text, &known).offered.into_iter().map(|offered| offered.text).collect::<Vec<_>>()
        };
        assert_eq!(of("he"), ["health:"]);
        assert_eq!(of("x -ra"), ["x -rank>="]);
        assert_eq!(of("health:p"), ["health:poisoned"]);
        assert_eq!(of("health:poisoned,st"), ["health:poisoned,stalled"]);
        assert_eq!(of("has:su"), ["has:successor"]);
        assert_eq!(of("a MODEL:qw"), ["a MODEL:Qwen/Qwen3-8B"]);
        assert_eq!(of("rank>=1"), ["rank>=16"]);
        assert_eq!(of("owner=an"), ["owner=\"Ann Lee\""]);
        assert_eq!(of("meta."), ["meta.team=", "meta.topic="]);
        assert_eq!(of("-meta.te"), ["-meta.team="]);
        assert_eq!(of("meta.team="), ["meta.team=\"Blue Sky\"", "meta.team=red"]);
        assert_eq!(of("x meta.team=\"blue s"), ["x meta.team=\"Blue Sky\""]);
        assert_eq!(of("").len(), Field::ALL.len());
        assert_eq!(of("health:poisoned ")[1], "health:poisoned model:");
        assert!(of("health:poisoned").is_empty() && of("nightly").is_empty() && of("bogus:x").is_empty());
        assert_eq!(of("meta.team=x,r"), Vec::<String>::new(), "a comma is part of a label's value");
        // What is offered can be read.
        for (field, ..) in Field::ALL {
            for operator in [":", "=", "<", "<=", ">", ">="] {
                for offered in of(&format!("{field}{operator}")) {
                    assert!(Query::parse(&offered).is_ok(), "{offered}");
                }
            }
        }
    }
}
