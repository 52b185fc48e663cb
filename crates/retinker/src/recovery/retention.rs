//! Which checkpoints may go: what something still needs, and what a rule keeps of the others. Pure functions: nothing is
//! deleted here.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use retinker_wire::run::{Checkpoint, CheckpointType, TrainingRun};
use retinker_wire::time::Time;
use serde::{Deserialize, Serialize};

use super::health::newest_usable;
use super::plan::MetricMode;
use super::restore::RestoreRecord;
use crate::direction::isolated;

/// For how long the checkpoint of a restore that is over is needed in any case: its run may turn out not to be what was
/// wanted, and be restored again.
pub const RECENT: Duration = Duration::from_secs(24 * 3_600);

/// What is known of who needs checkpoints.
#[derive(Debug, Clone, Default)]
pub struct Needs<'a> {
    /// The runs that are poisoned and have no successor, each with its name for people and the path of the checkpoint that
    /// it was restored from itself.
    pub poisoned: Vec<(&'a TrainingRun, &'a str, Option<String>)>,
    /// The journal's restores.
    pub restores: Vec<&'a RestoreRecord>,
    /// The ids of runs that a redo log makes anew which cannot be asked: their newest two checkpoints without an end are what it stands on, as
    /// far as can be told without it.
    pub logged: Vec<&'a str>,
    /// The checkpoints that redo logs stand on, by what they say, each with the log's name for people.
    pub stood_on: Vec<(&'a str, &'a str)>,
}

/// The checkpoints that must not be deleted by a slip, by path, and why: sentences for people. `checkpoints` are all that
/// there are.
pub fn needed<'a>(
    needs: &Needs<'_>,
    checkpoints: impl IntoIterator<Item = &'a Checkpoint>,
    now: Time,
) -> BTreeMap<String, String> {
    let mut of_runs: HashMap<&str, Vec<&Checkpoint>> = HashMap::new();
    let mut by_path: HashMap<&str, &Checkpoint> = HashMap::new();
    for checkpoint in checkpoints {
        by_path.insert(&checkpoint.tinker_path, checkpoint);
        if let Some(run_id) = run_of(&checkpoint.tinker_path) {
            of_runs.entry(run_id).or_default().push(checkpoint);
        }
    }
    let newest = |run_id: &str| {
        let own = of_runs.get(run_id).map(Vec::as_slice).unwrap_or_default();
        newest_usable(own.iter().copied(), now)
    };
    let mut needed = BTreeMap::new();
    for (run, name, origin) in &needs.poisoned {
        let origin = || newest_usable(by_path.get(origin.as_deref()?).copied(), now);
        if let Some(last) = newest(&run.training_run_id).or_else(origin) {
            let because =
                format!("Run {} is poisoned, and this is what it would be restored from.", isolated(name));
            needed.insert(last.tinker_path.clone(), because);
        }
    }
    for restore in &needs.restores {
        let over_for = now.as_millis().saturating_sub(restore.updated_at.as_millis());
        let because = if !restore.state.is_settled() {
            format!("The restore {} loads it, and is under way.", restore.id)
        } else if !restore.state.is_done() {
            continue;
        } else if u128::try_from(over_for).is_ok_and(|ms| ms < RECENT.as_millis()) {
            format!("The restore {} was made from it within the last day.", restore.id)
        } else {
            match &restore.new_run_id {
                // What it was restored from is all there is of it, should it fail.
                Some(new_run) if newest(new_run).is_none() => {
                    format!("Run {new_run} was restored from it, and has saved nothing of its own since.")
                }
                _ => continue,
            }
        };
        needed.insert(restore.plan.checkpoint.tinker_path.clone(), because);
    }
    for run_id in &needs.logged {
        let own = of_runs.get(run_id).map(Vec::as_slice).unwrap_or_default();
        let lasts = |checkpoint: &&&Checkpoint| {
            checkpoint.checkpoint_type == CheckpointType::Training && checkpoint.expires_at.is_none()
        };
        let mut newest: Vec<_> = own.iter().filter(lasts).collect();
        newest.sort_by_key(|checkpoint| std::cmp::Reverse(checkpoint.time));
        for checkpoint in newest.into_iter().take(STOOD_ON) {
            let because = format!("Run {run_id} has a redo log, which may stand on it.");
            needed.entry(checkpoint.tinker_path.clone()).or_insert(because);
        }
    }
    for (path, log) in &needs.stood_on {
        needed.entry((*path).to_owned()).or_insert_with(|| format!("The redo log {log} stands on it."));
    }
    needed
}

/// Checkpoints of a run that its redo log stands on.
const STOOD_ON: usize = 2;

/// The run of a checkpoint's path.
pub fn run_of(tinker_path: &str) -> Option<&str> {
    tinker_path.strip_prefix("tinker://")?.split('/').next()
}

/// What is kept. A checkpoint is kept if any part keeps it; the parts look at the checkpoints of each run, those of each
/// type by themselves. A rule without any part keeps everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// The newest so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u32>,
    /// The best so many: those with the smallest measure. One that has no measure is kept, since it could be the best.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<u32>,
    /// One of every so many, counted from the oldest, which is kept. Applied again to what it kept, it keeps fewer still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<u32>,
}

/// A checkpoint as a rule sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept<'a> {
    /// The run that it belongs to.
    pub run_id: &'a str,
    /// Its type.
    pub kind: &'a CheckpointType,
    /// When it was saved, and its path, which decides among those of one time.
    pub saved: (Time, &'a str),
    /// How good it is: the smaller, the better. `None`: not known.
    pub measure: Option<f64>,
    /// Something needs it.
    pub needed: bool,
}

/// How good a checkpoint is by one of its labels: the smaller, the better. `None`: it has none that is a number.
pub fn measure(checkpoint: &Checkpoint, (label, mode): &(String, MetricMode)) -> Option<f64> {
    let value: f64 = checkpoint.user_metadata.as_ref()?.get(label)?.trim().parse().ok()?;
    Some(match mode {
        MetricMode::Min => value,
        MetricMode::Max => -value,
    })
}

/// Whether each of these goes, in their order.
pub fn goes(rule: &Rule, all: &[Kept<'_>]) -> Vec<bool> {
    let part = |part: Option<u32>| part.map(|n| n as usize).filter(|n| *n > 0);
    let (last, best, every) = (part(rule.last), part(rule.best), part(rule.every));
    if (last, best, every) == (None, None, None) {
        return vec![false; all.len()];
    }
    let mut groups: BTreeMap<(&str, &str), Vec<(usize, &Kept<'_>)>> = BTreeMap::new();
    for (index, one) in all.iter().enumerate() {
        groups.entry((one.run_id, one.kind.as_str())).or_default().push((index, one));
    }
    let mut goes = vec![false; all.len()];
    for mut group in groups.into_values() {
        group.sort_by_key(|(_, one)| one.saved);
        let measured = |one: &Kept<'_>| one.measure.filter(|measure| measure.is_finite());
        // The last of the best; the older one of two that are as good.
        let mut ranks: Vec<(f64, (Time, &str))> =
            group.iter().filter_map(|(_, one)| Some((measured(one)?, one.saved))).collect();
        ranks.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let places: HashMap<_, _> =
            ranks.iter().enumerate().map(|(place, (_, saved))| (*saved, place)).collect();
        let count = group.len();
        for (place, (index, one)) in group.iter().enumerate() {
            let is_last = last.is_some_and(|n| place + n >= count);
            let is_best = best.is_some_and(|n| places.get(&one.saved).is_none_or(|place| *place < n));
            let is_one = every.is_some_and(|n| place.is_multiple_of(n));
            if let Some(goes) = goes.get_mut(*index) {
                *goes = !(one.needed || is_last || is_best || is_one);
            }
        }
    }
    goes
}

#[cfg(test)]
mod tests {
    use super::super::restore::RestoreState;
    use super::super::samples;
    use super::*;
    use crate::client::testing::test;

    const NOW: i64 = 1_000_000_000_000;

    fn of<'a>(run_id: &'a str, path: &'a str, saved: i64, measure: Option<f64>) -> Kept<'a> {
        let saved = (Time::from_millis(saved), path);
        Kept { run_id, kind: &CheckpointType::Training, saved, measure, needed: false }
    }

    fn left(rule: &Rule, all: &[Kept<'_>]) -> String {
        let goes = goes(rule, all);
        all.iter().zip(goes).filter(|(_, goes)| !goes).map(|(one, _)| one.saved.1).collect()
    }

    fn rule(last: u32, best: u32, every: u32) -> Rule {
        let some = |n: u32| (n > 0).then_some(n);
        Rule { last: some(last), best: some(best), every: some(every) }
    }

    #[test]
    fn parts_keep_what_they_say_and_their_union_is_kept() {
        // Not in the order of their times.
        let all = [
            of("r", "c", 3, Some(0.5)),
            of("r", "a", 1, Some(4.0)),
            of("r", "b", 2, Some(0.5)),
            of("r", "e", 5, Some(3.0)),
            of("r", "d", 4, Some(2.0)),
        ];
        for (rule, kept) in [
            (rule(0, 0, 0), "cabed"),
            (rule(2, 0, 0), "ed"),
            (rule(9, 0, 0), "cabed"),
            // Of two that are as good, the older one.
            (rule(0, 1, 0), "b"),
            (rule(0, 3, 0), "cbd"),
            (rule(0, 0, 2), "cae"),
            (rule(0, 0, 1), "cabed"),
            (rule(1, 1, 0), "be"),
            (rule(1, 1, 4), "abe"),
        ] {
            assert_eq!(left(&rule, &all), kept, "{rule:?}");
        }
    }

    #[test]
    fn runs_and_types_are_kept_by_themselves() {
        let mut all =
            [of("r", "a", 1, None), of("s", "b", 2, None), of("r", "c", 3, None), of("r", "d", 4, None)];
        all[3].kind = &CheckpointType::Sampler;
        assert_eq!(left(&rule(1, 0, 0), &all), "bcd");
    }

    #[test]
    fn what_cannot_be_measured_could_be_the_best_and_what_is_needed_stays() {
        let mut all =
            [of("r", "a", 1, Some(f64::NAN)), of("r", "b", 2, Some(1.0)), of("r", "c", 3, Some(2.0))];
        assert_eq!(left(&rule(0, 1, 0), &all), "ab");
        all[2].needed = true;
        assert_eq!(left(&rule(0, 1, 0), &all), "abc");
        // Nothing is measured: the other parts do not take what this one keeps.
        assert_eq!(left(&rule(1, 1, 0), &[of("r", "a", 1, None), of("r", "b", 2, None)]), "ab");
    }

    fn reasons(needs: &Needs<'_>, checkpoints: &[Checkpoint]) -> Vec<(String, String)> {
        let short = |because: String| because.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
        let needed = needed(needs, checkpoints, Time::from_millis(NOW));
        needed.into_iter().map(|(path, because)| (path, short(because))).collect()
    }

    #[test]
    fn a_poisoned_run_needs_the_newest_that_it_can_be_restored_from() {
        let run = samples::run("old", Some(true));
        let needs = Needs {
            poisoned: vec![(&run, "mine", Some("tinker://first/weights/o".into()))],
            ..Needs::default()
        };
        let mut sampler = samples::checkpoint("old", "s", 9);
        sampler.checkpoint_type = CheckpointType::Sampler;
        let mut expired = samples::checkpoint("old", "x", 8);
        expired.expires_at = Some(Time::from_millis(NOW - 1));
        let origin = samples::checkpoint("first", "o", 1);
        let mut all = vec![origin, sampler, expired];
        let only = |path: &str| vec![(path.to_owned(), "Run mine is".to_owned())];
        assert_eq!(reasons(&needs, &all), only("tinker://first/weights/o"), "it has nothing of its own");
        all.push(samples::checkpoint("old", "a", 5));
        all.push(samples::checkpoint("old", "b", 6));
        assert_eq!(reasons(&needs, &all), only("tinker://old/weights/b"));
        assert!(reasons(&Needs::default(), &all).is_empty());
    }

    #[test]
    fn restores_need_what_they_stand_on() {
        let mut record = samples::record("r1", "old");
        let path = record.plan.checkpoint.tinker_path.clone();
        let day = i64::try_from(RECENT.as_millis()).unwrap();
        let with = |record: &RestoreRecord, checkpoints: &[Checkpoint]| {
            reasons(&Needs { restores: vec![record], ..Needs::default() }, checkpoints)
        };
        record.updated_at = Time::from_millis(NOW - 30 * day);
        assert_eq!(
            with(&record, &[]),
            [(path.clone(), "The restore r1".to_owned())],
            "however long it takes"
        );
        record.state = RestoreState::Failed;
        assert!(with(&record, &[]).is_empty());
        record.state = RestoreState::HandedOver;
        record.new_run_id = Some("new".into());
        assert_eq!(with(&record, &[]), [(path.clone(), "Run new was".to_owned())]);
        assert!(with(&record, &[samples::checkpoint("new", "a", 9)]).is_empty(), "it stands on its own");
        record.updated_at = Time::from_millis(NOW - day + 1);
        assert_eq!(with(&record, &[samples::checkpoint("new", "a", 9)]).len(), 1, "a day has not passed");
    }
}
