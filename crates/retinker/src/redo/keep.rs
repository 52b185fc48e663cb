//! Which of the checkpoints that a log has saved by itself are kept.

use std::collections::BTreeMap;

use retinker_wire::UserMetadata;
use retinker_wire::run::{Checkpoint, CheckpointType};
use serde::Serialize;

use super::ledger::Ledger;
use super::policy::CheckpointPolicy;
use crate::client::{Api, Error};
use crate::recovery::journal::Store;
use crate::recovery::retention::{Kept, Needs, Rule, goes, measure, needed};

/// Label of a checkpoint that a redo log has saved by itself: the log's own name.
const LABEL_LOG: &str = "retinker.redo_log";
/// Label of such a checkpoint: the steps of the optimizer that are in it.
const LABEL_STEP: &str = "retinker.step";

/// Label of such a checkpoint: how many the log had called before it.
const LABEL_SAVE: &str = "retinker.save";

/// A checkpoint that a log has saved by itself, and whether the policy's rule keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fate {
    /// Its path.
    pub path: String,
    /// Its bytes, where the service says so.
    pub bytes: Option<u64>,
    /// Whether it goes.
    pub goes: bool,
    /// What needs it, as a sentence for people, where it stays whatever the rule says.
    pub needed: Option<String>,
}

/// The labels of a checkpoint that a log saves by itself: whose it is, of which step, which of its saves, and the metrics by their names.
pub(crate) fn labels(log: &str, (step, save): (u64, u64), metrics: &BTreeMap<String, f64>) -> UserMetadata {
    let measured = metrics.iter().filter(|(_, value)| value.is_finite());
    // As JSON has a number: the standard library's way of printing one is a large part of what a browser loads.
    let measured = measured.map(|(name, value)| (name.clone(), serde_json::Value::from(*value).to_string()));
    let own = [(LABEL_LOG, log.to_owned()), (LABEL_STEP, step.to_string()), (LABEL_SAVE, save.to_string())];
    measured.chain(own.map(|(name, value)| (name.to_owned(), value))).collect()
}

/// What the policy's rule keeps of those that the log has saved by itself, in all of its runs. Without a rule all stay.
pub(crate) async fn fates(
    api: &Api,
    journal: Option<&dyn Store>,
    ledger: &Ledger,
    policy: &CheckpointPolicy,
) -> Result<Vec<Fate>, Error> {
    let mut checkpoints = Vec::new();
    for run_id in &ledger.head.runs {
        match api.run_checkpoints(run_id).await {
            Ok(listed) => checkpoints.extend(listed.checkpoints),
            // A service may forget a run with all that it had.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    let restores = match journal {
        Some(journal) => journal.list().await.map_err(|error| {
            Error::config("the recovery journal", format!("which checkpoints it needs is not known: {error}"))
        })?,
        None => Vec::new(),
    };
    let needs = Needs { restores: restores.iter().collect(), ..Needs::default() };
    let mut because = needed(&needs, &checkpoints, api.runtime().now());
    for path in ledger.stands_on() {
        because.insert(path, "The redo log stands on it.".to_owned());
    }
    checkpoints.retain(|checkpoint| is_own(checkpoint, &ledger.head.log));
    // What was saved after what is stood on now will be stood on.
    let newest = ledger.head.bases.last().map_or(0, |base| base.step);
    let is_newer = |checkpoint: &Checkpoint| number(checkpoint, LABEL_STEP).is_none_or(|step| step > newest);
    for checkpoint in checkpoints.iter().filter(|checkpoint| is_newer(checkpoint)) {
        let path = checkpoint.tinker_path.clone();
        because.entry(path).or_insert_with(|| "The redo log does not stand on a newer one yet.".to_owned());
    }
    let weighed: Vec<Kept<'_>> = checkpoints
        .iter()
        .map(|checkpoint| Kept {
            // Its runs are one to a rule: each goes on where the one before it was.
            run_id: &ledger.head.log,
            kind: &checkpoint.checkpoint_type,
            saved: (checkpoint.time, &checkpoint.tinker_path),
            measure: policy.by().and_then(|by| measure(checkpoint, by)),
            needed: because.contains_key(&checkpoint.tinker_path),
        })
        .collect();
    // One of every so many is counted by the saves, not by those that are left: a rule that is gone by again and again would thin them out.
    let every = policy.keep.every.map(u64::from).filter(|every| *every > 0);
    let rule = Rule { every: None, ..policy.keep.clone() };
    let mut gone = match every {
        Some(_) if rule == Rule::default() => weighed.iter().map(|one| !one.needed).collect(),
        _ => goes(&rule, &weighed),
    };
    for (checkpoint, goes) in checkpoints.iter().zip(&mut gone) {
        let is_one = |every| number(checkpoint, LABEL_SAVE).is_none_or(|save| save.is_multiple_of(every));
        *goes &= !every.is_some_and(is_one);
    }
    let fate = |(checkpoint, goes): (&Checkpoint, bool)| Fate {
        path: checkpoint.tinker_path.clone(),
        bytes: checkpoint.size_bytes,
        goes,
        needed: because.get(&checkpoint.tinker_path).cloned(),
    };
    Ok(checkpoints.iter().zip(gone).map(fate).collect())
}

/// Whether the log of this name has saved it by itself.
fn is_own(checkpoint: &Checkpoint, log: &str) -> bool {
    checkpoint.checkpoint_type == CheckpointType::Training && label(checkpoint, LABEL_LOG) == Some(log)
}

fn label<'a>(checkpoint: &'a Checkpoint, name: &str) -> Option<&'a str> {
    checkpoint.user_metadata.as_ref()?.get(name).map(String::as_str)
}

fn number(checkpoint: &Checkpoint, name: &str) -> Option<u64> {
    label(checkpoint, name)?.parse().ok()
}
