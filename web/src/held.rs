//! The rows that the page holds of a list that is far longer, and how an answer of the host changes them.

use std::collections::HashMap;

use retinker::host::api::{ApiProblem, HealthCounts, RunRow, RunWindow, RunsQuery};
use retinker::wire::time::Time;

use crate::address::View;

/// Rows that stay beyond each end of the window last read, for whoever scrolls back.
const AROUND: u64 = 200;

/// What the list is as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Whole {
    /// How many runs match.
    pub matching: u64,
    /// How many there are.
    pub total: u64,
    /// By health.
    pub counts: HealthCounts,
    /// A word that seems to name a field of which there is none.
    pub no_field: Option<String>,
    /// When it was read; `None` = never.
    pub as_of: Option<Time>,
    /// Why it could not be read again.
    pub problem: Option<ApiProblem>,
}

/// A row, and how often it has changed while it was looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldRow {
    /// The row.
    pub row: RunRow,
    /// Moves with each change that is worth a mark.
    pub mark: u32,
}

/// What is held.
#[derive(Debug, Clone, Default)]
pub struct Held {
    /// What these are rows of.
    view: View,
    /// With their places in the list, in the order of these.
    rows: Vec<(u64, RunRow)>,
    marks: HashMap<String, u32>,
    whole: Option<Whole>,
    /// The window last read: from, how many, its revision and its order.
    read: Option<(u64, u64, u64, String)>,
    /// The order has changed, and was not taken since somebody points at a row.
    withheld: bool,
}

/// Why the list is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// Somebody looks at another part of it, or asks for it.
    Looked,
    /// Something has changed. Nothing may move under the pointer then, if it points at a row.
    Changed {
        /// Whether it does.
        pointed: bool,
    },
}

impl Held {
    /// What to ask for to have this window of this view.
    pub fn query(&self, view: &View, (from, many): (u64, u64), because: Because) -> RunsQuery {
        let mut query = view.to_query(from, many);
        if because != Because::Looked
            && self.view.is_same_list(view)
            && let Some((at, length, revision, order)) = &self.read
            && (*at, *length) == (from, many)
        {
            (query.since, query.order) = (Some(*revision), Some(order.clone()));
        }
        query
    }

    /// Takes an answer. `false`: it tells too little, since the page does not have what it builds on; the whole window is to
    /// be asked for.
    pub fn take(
        &mut self,
        view: &View,
        (from, many): (u64, u64),
        because: Because,
        window: RunWindow,
    ) -> bool {
        let RunWindow {
            rows,
            matching,
            total,
            counts,
            revision,
            order,
            partial,
            ids,
            no_field,
            as_of,
            problem,
        } = window;
        let whole = Whole { matching, total, counts, no_field, as_of, problem };
        let same_list = self.view.is_same_list(view);
        // Lists of a few screenfuls: looked through, not indexed.
        let known = |id: &str| {
            let row = self.rows.iter().map(|(_, row)| row).find(|row| row.run.training_run_id == id);
            row.filter(|_| same_list)
        };
        let new = |id: &str| rows.iter().find(|row| row.run.training_run_id == id);
        let marked: Vec<String> = rows
            .iter()
            .filter(|_| same_list && because != Because::Looked && self.whole.is_some())
            .filter(|row| known(&row.run.training_run_id).is_none_or(|before| before != *row))
            .map(|row| row.run.training_run_id.clone())
            .collect();
        // The window as it is now; in the order that is known where none is told.
        let now: Option<Vec<RunRow>> = if !partial {
            Some(rows.clone())
        } else if let Some(ids) = &ids {
            ids.iter().map(|id| new(id).or_else(|| known(id)).cloned()).collect()
        } else {
            Some(Vec::new())
        };
        let Some(now) = now else { return false };
        let in_place = partial && ids.is_none();
        let moved = !in_place && {
            let before = self.between(from, from.saturating_add(many)).iter();
            same_list
                && !before
                    .map(|(_, row)| &row.run.training_run_id)
                    .eq(now.iter().map(|row| &row.run.training_run_id))
        };
        if in_place || (moved && because == (Because::Changed { pointed: true })) {
            for (_, row) in &mut self.rows {
                if let Some(new) = new(&row.run.training_run_id) {
                    *row = new.clone();
                }
            }
            self.withheld |= moved;
        } else {
            if !same_list {
                self.rows.clear();
                self.marks.clear();
            }
            self.rows.retain(|(at, _)| {
                *at < from && *at >= from.saturating_sub(AROUND)
                    || *at >= from.saturating_add(many)
                        && *at < from.saturating_add(many).saturating_add(AROUND)
            });
            let at = self.place(from);
            self.rows.splice(at..at, (from..).zip(now));
            self.rows.retain(|(at, _)| *at < whole.matching);
            self.withheld = false;
        }
        if !self.withheld {
            self.read = Some((from, many, revision, order));
        }
        if self.marks.len() > 2_000 {
            self.marks.clear();
        }
        for id in marked {
            *self.marks.entry(id).or_default() += 1;
        }
        self.whole = Some(whole);
        self.view = view.clone();
        true
    }

    /// Whether these are the rows of this view, or of one with the same list.
    pub fn is_of(&self, view: &View) -> bool {
        self.view.is_same_list(view)
    }

    /// What the list is as a whole, once it was read.
    pub fn whole(&self) -> Option<&Whole> {
        self.whole.as_ref()
    }

    /// How many rows the frame is for.
    pub fn matching(&self) -> u64 {
        self.whole.as_ref().map_or(0, |whole| whole.matching)
    }

    /// The row at this place.
    pub fn row(&self, at: u64) -> Option<HeldRow> {
        self.between(at, at.saturating_add(1)).first().map(|(_, row)| HeldRow {
            mark: self.marks.get(&row.run.training_run_id).copied().unwrap_or_default(),
            row: row.clone(),
        })
    }

    /// The id of the run at this place.
    pub fn id(&self, at: u64) -> Option<&str> {
        self.between(at, at.saturating_add(1)).first().map(|(_, row)| row.run.training_run_id.as_str())
    }

    /// The place of the run of this id, if it is held.
    pub fn place_of(&self, id: &str) -> Option<u64> {
        self.rows.iter().find(|(_, row)| row.run.training_run_id == id).map(|(place, _)| *place)
    }

    /// The ids from one place to another, both with it; `None` when not all of them are held.
    pub fn ids(&self, from: u64, to: u64) -> Option<Vec<String>> {
        let (from, to) = (from.min(to), from.max(to));
        let held = self.between(from, to.saturating_add(1)).iter();
        let ids: Vec<String> = held.map(|(_, row)| row.run.training_run_id.clone()).collect();
        (ids.len() as u64 == to - from + 1).then_some(ids)
    }

    /// Whether this holds of every row that is held.
    pub fn all(&self, holds: impl Fn(&str) -> bool) -> bool {
        self.rows.iter().all(|(_, row)| holds(&row.run.training_run_id))
    }

    /// Where the row at this place is held, or would be.
    fn place(&self, at: u64) -> usize {
        self.rows.partition_point(|(place, _)| *place < at)
    }

    /// The rows from one place to before another.
    fn between(&self, from: u64, to: u64) -> &[(u64, RunRow)] {
        self.rows.get(self.place(from)..self.place(to)).unwrap_or_default()
    }

    /// Whether the list's order is another one than is shown.
    pub fn is_withheld(&self) -> bool {
        self.withheld
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, name: &str) -> RunRow {
        serde_json::from_value(serde_json::json!({
            "name": name,
            "verdict": {"health": "healthy", "reason": ""},
            "run": {"training_run_id": id, "base_model": "m", "last_request_time": "2026-01-02T03:04:05Z"},
        }))
        .unwrap()
    }

    fn window(rows: Vec<RunRow>, revision: u64, order: &str) -> RunWindow {
        RunWindow {
            matching: 3,
            total: 3,
            counts: HealthCounts::default(),
            revision,
            order: order.into(),
            partial: false,
            ids: None,
            no_field: None,
            as_of: Some(Time::from_millis(1)),
            problem: None,
            rows,
        }
    }

    fn names(held: &Held) -> Vec<String> {
        (0..5).filter_map(|at| held.row(at)).map(|held| held.row.name).collect()
    }

    const ALL: (u64, u64) = (0, 16);
    const POINTED: Because = Because::Changed { pointed: true };
    const CHANGED: Because = Because::Changed { pointed: false };

    fn first() -> Held {
        let mut held = Held::default();
        let rows = vec![row("a", "A"), row("b", "B"), row("c", "C")];
        assert!(held.take(&View::default(), ALL, Because::Looked, window(rows, 5, "x")));
        held
    }

    #[test]
    fn what_changed_is_asked_for_and_nothing_more() {
        let mut held = first();
        let query = held.query(&View::default(), ALL, CHANGED);
        assert_eq!((query.since, query.order.as_deref()), (Some(5), Some("x")));
        assert_eq!(
            held.query(&View::default(), (16, 16), CHANGED).since,
            None,
            "another window is read whole"
        );
        assert_eq!(held.query(&View::default(), ALL, Because::Looked).since, None);
        let other = View::default().with_text("x");
        assert_eq!(held.query(&other, ALL, CHANGED).since, None, "and another list");

        let changed = RunWindow { partial: true, ..window(vec![row("b", "B2")], 6, "x") };
        assert!(held.take(&View::default(), ALL, CHANGED, changed));
        assert_eq!(names(&held), ["A", "B2", "C"]);
        assert_eq!([0, 1, 2].map(|at| held.row(at).unwrap().mark), [0, 1, 0], "the change is marked");
        assert_eq!(held.query(&View::default(), ALL, CHANGED).since, Some(6));
    }

    #[test]
    fn nothing_moves_under_the_pointer() {
        let mut held = first();
        let moved = RunWindow {
            partial: true,
            ids: Some(vec!["c".into(), "a".into(), "b".into()]),
            ..window(vec![row("c", "C2")], 6, "y")
        };
        assert!(held.take(&View::default(), ALL, POINTED, moved.clone()));
        assert_eq!(names(&held), ["A", "B", "C2"], "the row says what is new, and stays");
        assert!(held.is_withheld());
        let query = held.query(&View::default(), ALL, POINTED);
        assert_eq!(query.since, Some(5), "what was withheld is told again");
        assert!(held.take(&View::default(), ALL, CHANGED, moved));
        assert_eq!(names(&held), ["C2", "A", "B"]);
        assert!(!held.is_withheld());
    }

    #[test]
    fn an_answer_about_rows_that_are_not_held_is_not_enough() {
        let mut held = first();
        let unknown =
            RunWindow { partial: true, ids: Some(vec!["a".into(), "z".into()]), ..window(vec![], 6, "y") };
        assert!(!held.take(&View::default(), ALL, CHANGED, unknown));
        assert_eq!(names(&held), ["A", "B", "C"]);
    }

    #[test]
    fn rows_go_when_the_list_gets_shorter_or_is_another_one() {
        let mut held = first();
        let shorter = RunWindow { matching: 1, ..window(vec![row("b", "B")], 6, "z") };
        assert!(held.take(&View::default(), ALL, CHANGED, shorter));
        assert_eq!(names(&held), ["B"]);
        assert_eq!(held.row(0).unwrap().mark, 0, "it is the same run as before");
        let other = View::default().with_text("q");
        assert!(held.take(&other, ALL, Because::Looked, window(vec![row("c", "C")], 6, "w")));
        assert_eq!(names(&held), ["C"]);
    }

    #[test]
    fn a_range_is_known_only_when_all_of_it_is_held() {
        let held = first();
        assert_eq!(held.ids(2, 1).unwrap(), ["b", "c"]);
        assert_eq!(held.ids(0, 4), None);
        assert_eq!((held.id(0), held.id(9)), (Some("a"), None));
    }
}
