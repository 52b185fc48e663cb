//! The ways in which a filter can go on, from what there is.

use std::collections::HashMap;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use retinker::host::completion::{Asked, CompletionQuery, Completions, FilterOf, MAX_COMPLETIONS, Value};
use retinker::host::{checkpoint_query, query};
use retinker::recovery::plan::LINEAGE_PREFIX;
use retinker::recovery::retention::run_of;
use retinker::wire::UserMetadata;

use super::Host;
use crate::problem::Problem;

/// Most letters of a value that is offered: a longer one is no help to somebody who writes.
const MOST_LETTERS: usize = 120;

pub(super) async fn completions(
    State(host): Host,
    asked: Result<Query<CompletionQuery>, QueryRejection>,
) -> Result<Json<Completions>, Problem> {
    let Query(CompletionQuery { of, q }) = asked?;
    Ok(Json(match of {
        FilterOf::Runs => {
            let index = host.index();
            query::completions(&q, &|asked| {
                let runs = index.rows().map(|row| &row.run);
                match asked.field {
                    "model" => frequent(asked, runs.map(|run| run.base_model.as_str()), "run", "runs"),
                    "owner" => frequent(asked, runs.map(|run| run.model_owner.as_str()), "run", "runs"),
                    "rank" => {
                        let ranks: Vec<_> =
                            runs.filter_map(|run| run.lora_rank).map(|rank| rank.to_string()).collect();
                        frequent(asked, ranks.iter().map(String::as_str), "run", "runs")
                    }
                    "meta" => {
                        let labels = runs.filter_map(|run| run.user_metadata.as_ref());
                        frequent(asked, of_labels(labels, asked.label), "run", "runs")
                    }
                    _ => Vec::new(),
                }
            })
        }
        FilterOf::Checkpoints => {
            let (index, kept) = (host.index(), host.checkpoints.kept());
            checkpoint_query::completions(&q, &|asked| match asked.field {
                "run" => {
                    let runs = kept.list.iter().filter_map(|one| run_of(&one.tinker_path));
                    let names = runs.map(|id| index.name(id).unwrap_or(id));
                    frequent(asked, names, "checkpoint", "checkpoints")
                }
                "meta" => {
                    let labels = kept.list.iter().filter_map(|one| one.user_metadata.as_ref());
                    frequent(asked, of_labels(labels, asked.label), "checkpoint", "checkpoints")
                }
                _ => Vec::new(),
            })
        }
    }))
}

/// The values of a label, or the names of labels; those of a restored run's lineage are nobody's words.
fn of_labels<'a>(
    labels: impl Iterator<Item = &'a UserMetadata>,
    label: &str,
) -> impl Iterator<Item = &'a str> {
    labels.flatten().filter_map(move |(name, value)| match label {
        "" => (!name.starts_with(LINEAGE_PREFIX)).then_some(name.as_str()),
        _ => (name == label).then_some(value.as_str()),
    })
}

/// Each value once that goes on with what has been written, with how often it is found; the most frequent first, equally
/// frequent ones by name.
fn frequent<'a>(
    asked: &Asked<'_>,
    values: impl Iterator<Item = &'a str>,
    one: &str,
    several: &str,
) -> Vec<Value> {
    let mut counts: HashMap<&str, u64> = HashMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    let fits = |value: &str| {
        !value.is_empty()
            && asked.fits(value)
            && value.chars().take(MOST_LETTERS + 1).count() <= MOST_LETTERS
            && !value.contains(char::is_control)
    };
    let mut counts: Vec<_> = counts.into_iter().filter(|(value, _)| fits(value)).collect();
    counts.sort_unstable_by(|(a, many), (b, more)| more.cmp(many).then(a.cmp(b)));
    let said = |count: u64| format!("{count} {}", if count == 1 { one } else { several });
    let best = counts.into_iter().take(MAX_COMPLETIONS);
    best.map(|(value, count)| (value.to_owned(), said(count))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_come_first_and_what_is_no_help_not_at_all() {
        let long = "x".repeat(200);
        let values = ["b", "a", "c", "c", "", "new\nline", &long];
        let told = |written: &str| {
            let asked = Asked { field: "model", label: "", is_equal: true, written };
            frequent(&asked, values.into_iter(), "run", "runs")
        };
        let expected = [("c", "2 runs"), ("a", "1 run"), ("b", "1 run")];
        assert_eq!(told(""), expected.map(|(value, said)| (value.to_owned(), said.to_owned())));
        assert_eq!(told("A").len(), 1);
    }
}
