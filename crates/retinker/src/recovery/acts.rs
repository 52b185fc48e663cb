//! What people and programs did with a service's things beside restores: published, deleted or copied checkpoints, finished
//! sessions, paused the monitors. Each act is in the journal before it is begun and again when it is over, so that one which
//! was cut off is told as well.

use std::sync::Arc;
use std::time::Duration;

use retinker_wire::time::Time;
use serde::{Deserialize, Serialize};

use super::journal::shelf::Shelf;
use super::journal::{Store, StoreError};
use crate::runtime::Runtime;

const ACTS: Shelf<Act> = Shelf::new("act");
/// What is done piece by piece has less than this between two of them.
const PIECES: Duration = Duration::from_secs(60);

/// Something that was done, or was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    /// When it was begun.
    pub at: Time,
    /// On whose behalf, e.g. `the console of ada@box`.
    pub by: String,
    /// What was to be done, as an order: `Delete checkpoints`.
    pub what: String,
    /// What it was done to: paths of checkpoints, ids of sessions.
    pub subjects: Vec<String>,
    /// How many those are; more than `subjects` names where only some of them are told.
    pub count: u64,
    /// When it was over; `None`: it is being done, or whoever did it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// What was not done of it, and why, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// An act that is being done. One that is dropped stays in the journal as begun.
#[derive(Debug)]
pub struct Begun {
    key: String,
    act: Act,
    store: Arc<dyn Store>,
    runtime: Arc<dyn Runtime>,
}

/// Writes down that something is about to be done. Where that fails, it should not be done.
pub async fn begin(
    store: &Arc<dyn Store>,
    runtime: &Arc<dyn Runtime>,
    by: &str,
    what: String,
    subjects: Vec<String>,
) -> Result<Begun, StoreError> {
    let at = runtime.now();
    let count = subjects.len() as u64;
    let act = Act { at, by: by.to_owned(), what, subjects, count, ended_at: None, problem: None };
    let mut number = runtime.random();
    loop {
        // In the order of time.
        let key = format!("{:016}-{number:016x}", at.as_millis().max(0));
        if ACTS.update(&**store, &key, |known| known.is_none().then(|| act.clone())).await?.is_ok() {
            return Ok(Begun { key, act, store: Arc::clone(store), runtime: Arc::clone(runtime) });
        }
        number = number.wrapping_add(1);
    }
}

impl Begun {
    /// Writes down how it ended.
    pub async fn end(mut self, problem: Option<String>) -> Result<(), StoreError> {
        self.act.ended_at = Some(self.runtime.now());
        self.act.problem = problem;
        ACTS.update(&*self.store, &self.key, |_| Some(self.act.clone())).await.map(drop)
    }
}

/// All of them, newest first.
pub async fn acts(store: &dyn Store) -> Result<Vec<Act>, StoreError> {
    Ok(ACTS.all(store).await?.into_values().rev().collect())
}

/// The same with what was done piece by piece as one: the same thing on the same behalf, with less than a minute between.
pub fn folded(acts: Vec<Act>) -> Vec<Act> {
    let mut told: Vec<Act> = Vec::new();
    // Newest first: what is told already came later.
    for act in acts {
        let goes_on = |later: &&mut Act| {
            let between = later.at.as_millis().saturating_sub(act.at.as_millis());
            (&later.by, &later.what) == (&act.by, &act.what) && between < PIECES.as_millis() as i64
        };
        match told.last_mut().filter(goes_on) {
            Some(later) => {
                later.at = act.at;
                later.subjects.splice(..0, act.subjects);
                later.count += act.count;
                later.ended_at = act.ended_at.and(later.ended_at);
                later.problem = act.problem.or_else(|| later.problem.take());
            }
            None => told.push(act),
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::super::journal::MemoryStore;
    use super::*;
    use crate::client::testing::{ManualRuntime, test};

    #[test]
    fn what_was_begun_is_told_and_how_it_ended() {
        let manual = ManualRuntime::new();
        let runtime: Arc<dyn Runtime> = Arc::new(manual.clone());
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::clone(&runtime)));
        manual.block_on(async {
            let first = runtime.now();
            let cut_off =
                begin(&store, &runtime, "the console", "Publish checkpoints".into(), vec!["a".into()]);
            drop(cut_off.await.unwrap());
            runtime.sleep(Duration::from_secs(1)).await;
            let second = runtime.now();
            let begun = begin(&store, &runtime, "the console", "Delete checkpoints".into(), vec!["b".into()]);
            let begun = begun.await.unwrap();
            runtime.sleep(Duration::from_secs(2)).await;
            begun.end(Some("1 was refused.".into())).await.unwrap();
            let ended = runtime.now();
            // Two of the same moment are both kept.
            for _ in 0..2 {
                begin(&store, &runtime, "b", "Pause".into(), Vec::new())
                    .await
                    .unwrap()
                    .end(None)
                    .await
                    .unwrap();
            }
            let told = acts(&*store).await.unwrap();
            let told: Vec<_> =
                told.iter().map(|a| (a.at, &*a.what, a.ended_at, a.problem.as_deref())).collect();
            assert_eq!(
                told,
                [
                    (ended, "Pause", Some(ended), None),
                    (ended, "Pause", Some(ended), None),
                    (second, "Delete checkpoints", Some(ended), Some("1 was refused.")),
                    (first, "Publish checkpoints", None, None),
                ]
            );
        });
    }

    #[test]
    fn pieces_of_one_thing_are_told_as_one() {
        let at = Time::from_millis;
        let act = |millis, what: &str, subject: &str, problem: Option<&str>| Act {
            at: at(millis),
            by: "the console".into(),
            what: what.into(),
            subjects: vec![subject.into()],
            count: 1,
            ended_at: Some(at(millis + 1)),
            problem: problem.map(str::to_owned),
        };
        let minute = 60_000;
        let acts = vec![
            act(9 * minute, "Delete", "e", None),
            act(3 * minute, "Delete", "d", None),
            act(2 * minute + 1, "Delete", "c", Some("It is needed.")),
            act(2 * minute, "Delete", "b", None),
            act(2 * minute - 1, "Publish", "a", None),
        ];
        let mut whole = folded(acts.clone());
        let told: Vec<_> = whole.iter().map(|a| (a.at, &*a.what, a.subjects.concat(), a.count)).collect();
        assert_eq!(
            told,
            [
                (at(9 * minute), "Delete", "e".to_owned(), 1),
                (at(2 * minute), "Delete", "bcd".to_owned(), 3),
                (at(2 * minute - 1), "Publish", "a".to_owned(), 1),
            ]
        );
        assert_eq!(whole.remove(1).problem.as_deref(), Some("It is needed."));
        // What was cut off is not told as over because the rest went on.
        let mut cut_off = acts;
        cut_off.iter_mut().filter(|act| act.subjects == ["c"]).for_each(|act| act.ended_at = None);
        assert_eq!(folded(cut_off).remove(1).ended_at, None);
        assert_eq!(folded(Vec::new()), []);
    }
}
