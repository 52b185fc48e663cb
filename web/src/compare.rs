//! Several runs side by side: which, and in what they differ.

use retinker::host::api::RunDetail;

use crate::address::{at, decode, encode};
use crate::order::sorted;
use crate::words;

/// Most runs that are compared at once: more lines cannot be told apart.
pub const MOST: usize = 8;

/// The runs that an address names, each once, and whether it named more than are compared.
pub fn read(query: &str) -> (Vec<String>, bool) {
    let mut runs: Vec<String> = Vec::new();
    for member in query.trim_start_matches('?').split('&') {
        let named = member.strip_prefix("run=").map(decode);
        if let Some(run) = named.filter(|run| !run.is_empty() && !runs.contains(run)) {
            runs.push(run);
        }
    }
    let more = runs.len() > MOST;
    runs.truncate(MOST);
    (runs, more)
}

/// The address that compares these runs.
pub fn address<'a>(runs: impl IntoIterator<Item = &'a str>) -> String {
    let members: Vec<_> = runs.into_iter().map(|run| format!("run={}", encode(run))).collect();
    at(&format!("/compare?{}", members.join("&")))
}

/// In what runs differ: the field, and its value of each run; an empty one where it has none. And how many fields are
/// the same in all.
pub fn differences(runs: &[&RunDetail]) -> (Vec<(String, Vec<String>)>, usize) {
    let facts: Vec<_> = runs.iter().map(|run| facts_of(run)).collect();
    let labels = runs.iter().flat_map(|run| run.own_metadata.keys()).collect();
    let mut labels: Vec<&String> = sorted(labels, |a, b| a.cmp(b));
    labels.dedup();
    let fixed = FIELDS.iter().enumerate().map(|(index, field)| {
        let values = facts.iter().map(|facts| facts.get(index).cloned().unwrap_or_default()).collect();
        ((*field).to_owned(), values)
    });
    let labelled = labels.into_iter().map(|label| {
        let values =
            runs.iter().map(|run| run.own_metadata.get(label).cloned().unwrap_or_default()).collect();
        (label.clone(), values)
    });
    let (same, different): (Vec<_>, Vec<_>) =
        fixed.chain(labelled).partition(|(_, values): &(String, Vec<String>)| {
            values.windows(2).all(|pair| pair.first() == pair.last())
        });
    (different, same.len())
}

const FIELDS: [&str; 5] = ["Health", "Base model", "Adapter", "Owner", "Checkpoints"];

fn facts_of(detail: &RunDetail) -> [String; 5] {
    let run = &detail.row.run;
    let kind = if run.is_lora { "LoRA" } else { "full weights" };
    [
        words::health(detail.row.verdict.health).to_owned(),
        run.base_model.clone(),
        run.lora_rank.map_or_else(|| kind.to_owned(), |rank| format!("{kind}, rank {rank}")),
        run.model_owner.clone(),
        if detail.checkpoints_problem.is_some() {
            "not read".to_owned()
        } else {
            detail.checkpoints.len().to_string()
        },
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(rank: u32, labels: serde_json::Value) -> RunDetail {
        serde_json::from_value(json!({
            "row": {
                "run": {"training_run_id": "a", "base_model": "m", "model_owner": "me", "lora_rank": rank,
                    "last_request_time": "1970-01-01T00:05:00Z"},
                "name": "a", "verdict": {"health": "healthy", "reason": "r"},
            },
            "checkpoints": [], "lineage": [], "own_metadata": labels, "snippets": [],
        }))
        .unwrap()
    }

    #[test]
    fn runs_survive_the_address_bar() {
        let address = address(["a:train:0", "b&c"]);
        assert_eq!(address, "/compare?run=a%3Atrain%3A0&run=b%26c");
        let query = address.split_once('?').unwrap().1;
        assert_eq!(read(query), (vec!["a:train:0".to_owned(), "b&c".to_owned()], false));
        assert_eq!(read("?run=a&run=a&run=&x=b").0, ["a"]);
        let many: String = (0..9).map(|k| format!("run={k}&")).collect();
        assert_eq!((read(&many).0.len(), read(&many).1), (MOST, true));
        assert_eq!(read(""), (vec![], false));
    }

    #[test]
    fn only_what_differs_is_listed() {
        let (one, other) = (run(8, json!({"lr": "1e-4", "seed": "1"})), run(16, json!({"lr": "1e-4"})));
        let (different, same) = differences(&[&one, &other]);
        assert_eq!(
            different,
            [
                ("Adapter".to_owned(), vec!["LoRA, rank 8".to_owned(), "LoRA, rank 16".to_owned()]),
                ("seed".to_owned(), vec!["1".to_owned(), String::new()]),
            ]
        );
        assert_eq!(same, 5);
        assert_eq!(differences(&[&one, &one]).0, []);
        assert_eq!(differences(&[]).0, []);
    }
}
