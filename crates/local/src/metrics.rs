//! Each run's metric series: one point for each optimizer step.
//!
//! Points are gathered in memory and written once a second, and with every checkpoint that holds their steps. A kill takes
//! the points of the last second, never those of saved steps; what a run loses, its series loses too.

use retinker_wire::metrics::Metrics;
pub(crate) use retinker_wire::series::{Point, Series};
use retinker_wire::tensor::TensorData;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::core::Core;
use crate::http::ApiError;
use crate::index::Run;
use crate::ops::unknown_run;
use crate::time::time;
use crate::trainer::ForwardBackward;

/// How many points of a run are kept: the newest.
const KEPT: u64 = 100_000;

/// The tables, beside those of [`crate::db`]; made where they are missing.
pub(crate) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS metrics (
    run INTEGER NOT NULL REFERENCES runs (ordinal),
    step INTEGER NOT NULL,      -- the optimizer's, so a restored run goes on where its checkpoint was
    seq INTEGER NOT NULL,       -- the request that took the step
    at INTEGER NOT NULL,
    loss REAL,                  -- null where it was not finite, or no pass came before the step
    loss_per_token REAL,
    tokens INTEGER NOT NULL,
    grad_norm REAL,
    learning_rate REAL NOT NULL,
    PRIMARY KEY (run, step)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS corruptions (
    run INTEGER PRIMARY KEY REFERENCES runs (ordinal),
    at INTEGER NOT NULL         -- when it was found
) STRICT;
CREATE TABLE IF NOT EXISTS lost_steps (
    run INTEGER PRIMARY KEY REFERENCES runs (ordinal),
    before INTEGER NOT NULL,    -- the optimizer's step that the run began with
    last INTEGER NOT NULL       -- the last one that is known to have been taken
) STRICT;
";

/// What the passes since the last step add up to.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    passes: u64,
    loss: f64,
    tokens: u64,
    /// Tokens that count for the loss.
    counted: u64,
}

impl Tally {
    /// Adds a pass whose gradients were added up, and what it measured.
    pub(crate) fn add(&mut self, pass: &ForwardBackward, metrics: &Metrics) {
        self.passes += 1;
        self.loss += metrics.get("loss:sum").copied().unwrap_or_default();
        for datum in &pass.data {
            let tokens = datum.model_input.length().unwrap_or_default();
            self.tokens += tokens as u64;
            // What a weight of zero leaves out would make the mean look better than it is.
            let counted = datum.loss_fn_inputs.get("weights").map(TensorData::to_f32);
            let counted = counted.map_or(tokens, |weights| weights.iter().filter(|w| **w != 0.0).count());
            self.counted += counted as u64;
        }
    }

    /// The point of the step that these passes led to.
    pub(crate) fn point(
        &self,
        (step, seq): (u64, u64),
        at: i64,
        learning_rate: f64,
        metrics: &Metrics,
    ) -> Point {
        let finite = |number: f64| Some(number).filter(|number| number.is_finite());
        let loss = (self.passes > 0).then_some(self.loss).and_then(finite);
        Point {
            step,
            seq,
            time: time(at),
            loss,
            loss_per_token: loss.and_then(|loss| finite(loss / self.counted as f64)),
            tokens: self.tokens,
            grad_norm: metrics.get("unclipped_grad_l2:mean").copied().and_then(finite),
            learning_rate,
        }
    }
}

/// What is stored of a run beside its rows.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(crate) last: Option<Point>,
    pub(crate) corrupted_at: Option<i64>,
    /// The last step before the run was corrupted.
    pub(crate) lost_step: Option<u64>,
    /// The optimizer's step that the run began with, where it has taken one.
    pub(crate) first_step: Option<u64>,
    /// For each request that was asked about, the last step that it or an earlier one took.
    pub(crate) steps_at: Vec<Option<u64>>,
}

impl Run {
    /// Takes the points that are not written yet.
    pub(crate) fn take_points(&mut self) -> Vec<Point> {
        std::mem::take(&mut self.unwritten)
    }
}

impl Core {
    /// Notes a step of a run.
    pub(crate) fn note_step(&self, run_id: &str, point: Point) {
        let mut index = self.index();
        // A run can be given up while its last step is being carried out.
        if let Some(run) = index.run_mut(run_id).filter(|run| run.corrupted.is_none()) {
            run.last_point = Some(Box::new(point.clone()));
            run.unwritten.push(point);
        }
    }

    /// The points of a run after a step, at most so many.
    pub(crate) async fn series(
        &self,
        run_id: &str,
        after: Option<i64>,
        limit: usize,
    ) -> Result<Series, ApiError> {
        let ask = move |c: &Connection, run: u64| page(c, run, after.unwrap_or(-1), limit.saturating_add(1));
        let mut points = self.ask_stored(run_id, ask).await?;
        let more = points.len() > limit;
        points.truncate(limit);
        let next_after = points.last().filter(|_| more).map(|point| point.step);
        Ok(Series { run_id: run_id.to_owned(), points, next_after })
    }

    /// What is stored of a run beside its rows; how far it was at each of these requests, which rise.
    pub(crate) async fn stored(&self, run_id: &str, seqs: Vec<u64>) -> Result<Stored, ApiError> {
        self.ask_stored(run_id, move |c, run| {
            let (before, lost_step) = lost_steps(c, run)?.unzip();
            Ok(Stored {
                last: last(c, run)?,
                corrupted_at: corrupted_at(c, run)?,
                lost_step,
                first_step: before.or(began_with(c, run)?),
                steps_at: steps_at(c, run, &seqs)?,
            })
        })
        .await
    }

    /// Reads in the order of the writes, after all that has happened so far.
    async fn ask_stored<T: Send + 'static>(
        &self,
        run_id: &str,
        ask: impl FnOnce(&Connection, u64) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ApiError> {
        let ticket = {
            let mut index = self.index();
            let run = index.run_mut(run_id).ok_or_else(|| unknown_run(run_id))?;
            let (ordinal, points) = (run.ordinal, run.take_points());
            self.db.write(move |c| {
                append(c, ordinal, &points)?;
                ask(c, ordinal)
            })
        };
        Ok(ticket.done().await?)
    }
}

/// Writes points of a run.
pub(crate) fn append(c: &Connection, run: u64, points: &[Point]) -> rusqlite::Result<()> {
    let Some(newest) = points.last() else { return Ok(()) };
    let mut insert = c.prepare_cached(
        "INSERT OR REPLACE INTO metrics (run, step, seq, at, loss, loss_per_token, tokens, grad_norm, learning_rate)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    for point in points {
        insert.execute(params![
            run,
            point.step,
            point.seq,
            point.time.as_millis(),
            point.loss,
            point.loss_per_token,
            point.tokens,
            point.grad_norm,
            point.learning_rate
        ])?;
    }
    if let Some(last_dropped) = newest.step.checked_sub(KEPT) {
        c.prepare_cached("DELETE FROM metrics WHERE run = ?1 AND step <= ?2")?
            .execute(params![run, last_dropped])?;
    }
    Ok(())
}

/// Drops the points of steps that requests after this one took: the run stands on what was before.
pub(crate) fn truncate(c: &Connection, run: u64, after_seq: u64) -> rusqlite::Result<()> {
    c.prepare_cached("DELETE FROM metrics WHERE run = ?1 AND seq > ?2")?.execute(params![run, after_seq])?;
    Ok(())
}

/// Notes since when a run is corrupted, and how far it was, before what it has lost leaves its series.
pub(crate) fn note_corrupted(c: &Connection, run: u64, at: i64) -> rusqlite::Result<()> {
    c.prepare_cached("INSERT OR IGNORE INTO corruptions (run, at) VALUES (?1, ?2)")?
        .execute(params![run, at])?;
    c.prepare_cached(
        "INSERT OR IGNORE INTO lost_steps (run, before, last)
         SELECT run, MIN(step) - 1, MAX(step) FROM metrics WHERE run = ?1 GROUP BY run",
    )?
    .execute(params![run])?;
    Ok(())
}

/// The step that a corrupted run began with, and the last one that it took.
fn lost_steps(c: &Connection, run: u64) -> rusqlite::Result<Option<(u64, u64)>> {
    c.prepare_cached("SELECT before, last FROM lost_steps WHERE run = ?1")?
        .query_row(params![run], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
}

/// The step that a run began with, if it has taken one.
fn began_with(c: &Connection, run: u64) -> rusqlite::Result<Option<u64>> {
    c.prepare_cached("SELECT MIN(step) - 1 FROM metrics WHERE run = ?1")?
        .query_row(params![run], |row| row.get(0))
}

/// For each of these requests, which rise, the last step that it or an earlier one took.
fn steps_at(c: &Connection, run: u64, seqs: &[u64]) -> rusqlite::Result<Vec<Option<u64>>> {
    let mut query = c.prepare_cached("SELECT step, seq FROM metrics WHERE run = ?1 ORDER BY step")?;
    let mut taken =
        query.query_map(params![run], |row| Ok((row.get::<_, u64>(0)?, row.get::<_, u64>(1)?)))?.peekable();
    let mut reached = None;
    let mut found = Vec::with_capacity(seqs.len());
    for seq in seqs {
        while let Some(next) = taken.next_if(|next| next.as_ref().map_or(true, |(_, by)| by <= seq)) {
            reached = Some(next?.0);
        }
        found.push(reached);
    }
    Ok(found)
}

const SELECT: &str =
    "SELECT step, seq, at, loss, loss_per_token, tokens, grad_norm, learning_rate FROM metrics";

fn point(row: &Row<'_>) -> rusqlite::Result<Point> {
    Ok(Point {
        step: row.get(0)?,
        seq: row.get(1)?,
        time: time(row.get(2)?),
        loss: row.get(3)?,
        loss_per_token: row.get(4)?,
        tokens: row.get(5)?,
        grad_norm: row.get(6)?,
        learning_rate: row.get(7)?,
    })
}

fn page(c: &Connection, run: u64, after: i64, limit: usize) -> rusqlite::Result<Vec<Point>> {
    let query = format!("{SELECT} WHERE run = ?1 AND step > ?2 ORDER BY step LIMIT ?3");
    c.prepare_cached(&query)?.query_map(params![run, after, limit], point)?.collect()
}

fn last(c: &Connection, run: u64) -> rusqlite::Result<Option<Point>> {
    let query = format!("{SELECT} WHERE run = ?1 ORDER BY step DESC LIMIT 1");
    c.prepare_cached(&query)?.query_row(params![run], point).optional()
}

fn corrupted_at(c: &Connection, run: u64) -> rusqlite::Result<Option<i64>> {
    c.prepare_cached("SELECT at FROM corruptions WHERE run = ?1")?
        .query_row(params![run], |row| row.get(0))
        .optional()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(c: &Connection) -> Vec<u64> {
        page(c, 1, -1, 1_000_000).unwrap().iter().map(|point| point.step).collect()
    }

    fn at_step(step: u64) -> Point {
        Tally::default().point((step, step * 2), 5, 0.1, &Metrics::new())
    }

    fn tables() -> Connection {
        let c = Connection::open_in_memory().unwrap();
        c.pragma_update(None, "foreign_keys", "OFF").unwrap();
        c.execute_batch(TABLES).unwrap();
        c.execute_batch(TABLES).unwrap();
        c
    }

    #[test]
    fn a_series_is_cut_where_its_run_was_and_read_in_pages() {
        let c = tables();
        append(&c, 1, &(1..=9).map(at_step).collect::<Vec<_>>()).unwrap();
        append(&c, 2, &[at_step(1)]).unwrap();
        truncate(&c, 1, 10).unwrap();
        assert_eq!(steps(&c), [1, 2, 3, 4, 5]);
        assert_eq!(page(&c, 1, 2, 2).unwrap(), [at_step(3), at_step(4)]);
        assert_eq!(last(&c, 1).unwrap(), Some(at_step(5)));
        assert_eq!(last(&c, 2).unwrap(), Some(at_step(1)));
        assert_eq!(last(&c, 3).unwrap(), None);
    }

    #[test]
    fn how_far_a_run_was_is_known_when_its_series_is_cut() {
        let c = tables();
        append(&c, 1, &(5..=9).map(at_step).collect::<Vec<_>>()).unwrap();
        assert_eq!(began_with(&c, 1).unwrap(), Some(4));
        assert_eq!(
            steps_at(&c, 1, &[3, 10, 11, 14, 99]).unwrap(),
            [None, Some(5), Some(5), Some(7), Some(9)]
        );
        note_corrupted(&c, 1, 7).unwrap();
        truncate(&c, 1, 0).unwrap();
        // Who is told again of the corruption knows less.
        note_corrupted(&c, 1, 8).unwrap();
        assert_eq!(lost_steps(&c, 1).unwrap(), Some((4, 9)));
        assert_eq!((began_with(&c, 1).unwrap(), steps_at(&c, 1, &[99]).unwrap()), (None, vec![None]));
        note_corrupted(&c, 2, 7).unwrap();
        assert_eq!(lost_steps(&c, 2).unwrap(), None);
    }

    #[test]
    fn only_the_newest_points_are_kept() {
        let c = tables();
        append(&c, 1, &(1..=KEPT).map(at_step).collect::<Vec<_>>()).unwrap();
        assert_eq!(steps(&c).len() as u64, KEPT);
        append(&c, 1, &[at_step(KEPT + 1), at_step(KEPT + 2)]).unwrap();
        let steps = steps(&c);
        assert_eq!((steps.len() as u64, steps[0], steps.last()), (KEPT, 3, Some(&(KEPT + 2))));
    }

    #[test]
    fn numbers_that_are_none_are_left_out() {
        let pass = ForwardBackward {
            data: vec![retinker_wire::training::Datum::cross_entropy(
                vec![1, 2, 3],
                vec![2, 3, 4],
                vec![0.0, 1.0, 2.0],
            )],
            loss_fn: "cross_entropy".into(),
            settings: Default::default(),
            forward_only: false,
        };
        let mut tally = Tally::default();
        tally.add(&pass, &Metrics::from([("loss:sum".into(), 3.0)]));
        tally.add(&pass, &Metrics::from([("loss:sum".into(), 5.0)]));
        let norm = |norm| Metrics::from([("unclipped_grad_l2:mean".into(), norm)]);
        let good = tally.point((1, 2), 5, 0.1, &norm(4.0));
        assert_eq!(
            (good.loss, good.loss_per_token, good.tokens, good.grad_norm),
            (Some(8.0), Some(2.0), 6, Some(4.0))
        );
        tally.add(&pass, &Metrics::from([("loss:sum".into(), f64::NAN)]));
        let bad = tally.point((1, 2), 5, 0.1, &norm(f64::INFINITY));
        assert_eq!((bad.loss, bad.loss_per_token, bad.tokens, bad.grad_norm), (None, None, 9, None));
        assert_eq!(at_step(1).loss, None);
    }
}
