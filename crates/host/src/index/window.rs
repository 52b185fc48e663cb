//! Windows on the index: rows filtered, counted and cut.

use retinker::host::api::{HealthCounts, MAX_IDS, RunIds, RunWindow, RunsQuery};
use retinker::host::query::{Query, QueryError, no_field};
use retinker::wire::time::Time;
use sha2::{Digest, Sha256};

use super::{Entry, Index};

/// Rows in a window when the query does not say.
const DEFAULT_LIMIT: u64 = 100;
/// Most rows in a window.
const MAX_LIMIT: u64 = 1000;

impl Index {
    /// Goes over all rows that the text of a query matches, in its order.
    fn visit<'a>(
        &'a self,
        query: &RunsQuery,
        now: Time,
        mut take: impl FnMut(&'a Entry),
    ) -> Result<(), QueryError> {
        let wanted = Query::parse(query.q.as_deref().unwrap_or_default())?;
        let rows = self.orders.of(query.sort, &self.rows);
        let matches = |entry: &&Entry| wanted.matches(&entry.row, &entry.text, now);
        match query.reverse {
            true => rows.rev().filter(matches).for_each(&mut take),
            false => rows.filter(matches).for_each(&mut take),
        }
        Ok(())
    }

    /// The window that a query asks for.
    ///
    /// # Errors
    /// Its text makes no sense.
    pub(crate) fn window(&self, query: &RunsQuery, now: Time) -> Result<RunWindow, QueryError> {
        let limit = query.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT);
        let mut counts = HealthCounts::default();
        let mut matching = 0u64;
        let mut shown = Vec::new();
        self.visit(query, now, |entry| {
            counts.add(entry.row.verdict.health);
            if query.health.is_some_and(|health| health != entry.row.verdict.health) {
                return;
            }
            if matching >= query.offset && (shown.len() as u64) < limit {
                shown.push(entry);
            }
            matching += 1;
        })?;
        let since = query.since.filter(|since| (self.began..=self.revision).contains(since));
        let order = digest(shown.iter().map(|entry| entry.row.run.training_run_id.as_str()));
        let ids = (since.is_some() && query.order.as_ref() != Some(&order))
            .then(|| shown.iter().map(|entry| entry.row.run.training_run_id.clone()).collect());
        let is_new = |entry: &&&Entry| since.is_none_or(|since| entry.changed > since);
        Ok(RunWindow {
            rows: shown.iter().filter(is_new).map(|entry| entry.row.clone()).collect(),
            matching,
            total: self.rows.len() as u64,
            counts,
            revision: self.revision,
            order,
            partial: since.is_some(),
            ids,
            no_field: query.q.as_deref().filter(|_| matching == 0).and_then(no_field),
            as_of: self.as_of,
            problem: self.problem.clone(),
        })
    }

    /// The ids of the runs that a query matches, or of a range of them.
    ///
    /// # Errors
    /// Its text makes no sense.
    pub(crate) fn ids(&self, query: &RunsQuery, now: Time) -> Result<RunIds, QueryError> {
        let mut found = Vec::new();
        self.visit(query, now, |entry| {
            if query.health.is_none_or(|health| health == entry.row.verdict.health) {
                found.push(entry.row.run.training_run_id.as_str());
            }
        })?;
        let range = query.anchor.as_deref().map(|anchor| range(&found, anchor, query.offset));
        let (found, backwards) = range.unwrap_or((&found, false));
        let ids: Vec<_> = match backwards {
            true => found.iter().rev().take(MAX_IDS).collect(),
            false => found.iter().take(MAX_IDS).collect(),
        };
        Ok(RunIds { ids: ids.into_iter().map(|id| (*id).to_owned()).collect(), matching: found.len() as u64 })
    }
}

/// Those between the anchor and this place, both included, and whether the anchor is the last of them.
fn range<'a>(all: &'a [&'a str], anchor: &str, to: u64) -> (&'a [&'a str], bool) {
    let to = usize::try_from(to).unwrap_or(usize::MAX);
    let from = all.iter().position(|id| *id == anchor).unwrap_or(to);
    let (first, last) = (from.min(to), from.max(to).min(all.len().saturating_sub(1)));
    (all.get(first..=last).unwrap_or_default(), from > to)
}

/// A digest of ids in their order.
fn digest<'a>(ids: impl Iterator<Item = &'a str>) -> String {
    let mut hasher = Sha256::new();
    for id in ids {
        hasher.update(id.as_bytes());
        hasher.update([0]);
    }
    hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
