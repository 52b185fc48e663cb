//! The rows in each order that they can be asked for in.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::OnceLock;

use retinker::host::api::{RunRow, RunSort};
use retinker::recovery::health::Health;

use super::Entry;

/// Places of rows, by order. Each is made when it is asked for first, and mended from then on.
#[derive(Debug, Default)]
pub(super) struct Orders([OnceLock<Vec<usize>>; RunSort::ALL.len()]);

impl Orders {
    /// The rows in this order; equal ones by their ids.
    pub(super) fn of<'a>(
        &'a self,
        sort: RunSort,
        rows: &'a [Entry],
    ) -> impl DoubleEndedIterator<Item = &'a Entry> {
        let slot = RunSort::ALL.iter().position(|known| *known == sort).and_then(|at| self.0.get(at));
        let places = slot.map_or(&[][..], |slot| {
            slot.get_or_init(|| {
                let mut places = (0..rows.len()).collect();
                sort_by(sort, &mut places, rows);
                places
            })
        });
        places.iter().filter_map(|at| rows.get(*at))
    }

    /// Puts the rows at these places where they belong now. None may have gone.
    pub(super) fn moved(&mut self, moved: &HashSet<usize>, rows: &[Entry]) {
        for (sort, slot) in RunSort::ALL.into_iter().zip(&mut self.0) {
            let Some(places) = slot.get_mut() else { continue };
            places.retain(|at| !moved.contains(at));
            places.extend(moved);
            // All but the last few are in order, which the sort makes use of.
            sort_by(sort, places, rows);
        }
    }
}

fn sort_by(sort: RunSort, places: &mut Vec<usize>, rows: &[Entry]) {
    let mut sorted: Vec<(usize, &RunRow)> =
        places.iter().filter_map(|at| Some((*at, &rows.get(*at)?.row))).collect();
    sorted.sort_by(|(_, a), (_, b)| {
        compare(sort, a, b).then_with(|| a.run.training_run_id.cmp(&b.run.training_run_id))
    });
    places.clear();
    places.extend(sorted.into_iter().map(|(at, _)| at));
}

fn compare(sort: RunSort, a: &RunRow, b: &RunRow) -> Ordering {
    let worst = |row: &RunRow| Health::ALL.iter().position(|health| *health == row.verdict.health);
    let newest = |a: &RunRow, b: &RunRow| b.run.last_request_time.cmp(&a.run.last_request_time);
    let last = |row: &RunRow| row.run.last_checkpoint.as_ref().map(|last| last.time);
    // Without a time at the end: never.
    let expires = |row: &RunRow| {
        let expires = row.run.last_checkpoint.as_ref().and_then(|last| last.expires_at);
        (expires.is_none(), expires)
    };
    match sort {
        RunSort::Health => worst(a).cmp(&worst(b)).then_with(|| newest(a, b)),
        RunSort::Activity => newest(a, b),
        RunSort::Name => a.name.cmp(&b.name),
        RunSort::Model => a.run.base_model.cmp(&b.run.base_model),
        RunSort::Rank => b.run.lora_rank.cmp(&a.run.lora_rank),
        RunSort::Saved => last(b).cmp(&last(a)),
        RunSort::Expires => expires(a).cmp(&expires(b)),
    }
}
