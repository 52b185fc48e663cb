//! How good checkpoints are, by what their runs had measured when they were saved.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures_util::{StreamExt, stream};
use retinker::host::checkpoints::CheckpointItem;
use retinker::wire::series::Point;

use crate::host::{Asked, Shared};
use crate::problem::Problem;

/// Runs whose series are read for one question; of more, the measures are not known.
const MOST_RUNS: usize = 200;
/// Points of one request: the most that are given.
const POINTS: u64 = 10_000;
/// Points of one run that are read: as many as are kept of it.
const MOST_POINTS: usize = 100_000;
/// Runs that are asked for at once.
const AT_ONCE: usize = 4;

/// How good checkpoints are, in their order.
#[derive(Debug, Default)]
pub(super) struct Measures {
    pub(super) of: Vec<Option<f64>>,
    /// Of how many it would have to be known, and is not.
    pub(super) unknown: u64,
    /// How many of those are of runs beyond those that are asked for.
    pub(super) unasked: u64,
}

/// The loss of each checkpoint of runs that have more than `best` of a type, for each token where that is told: that of the last
/// step before it was saved. `None` where it is not known: the service offers no series, or none of that time.
///
/// # Errors
/// The service could not be asked.
pub(super) async fn of(host: &Shared, items: &[CheckpointItem], best: usize) -> Result<Measures, Problem> {
    let mut of_type: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for item in items {
        *of_type.entry((&item.run_id, item.checkpoint.checkpoint_type.as_str())).or_default() += 1;
    }
    // Of what has no more than are kept, none has to give way: it need not be known which is better.
    of_type.retain(|_, count| *count > best);
    let runs: BTreeSet<&str> = of_type.keys().map(|(run, _)| *run).collect();
    let asked: BTreeSet<&str> = runs.into_iter().take(MOST_RUNS).collect();
    let each: Vec<_> = asked
        .iter()
        .copied()
        .map(|id| async move { series(host, id).await.map(|points| (id, points)) })
        .collect();
    let mut answers = stream::iter(each).buffered(AT_ONCE);
    let mut known: HashMap<&str, Vec<Point>> = HashMap::new();
    while let Some(answer) = answers.next().await {
        match answer {
            Ok((id, points)) => drop(known.insert(id, points)),
            // What is offered for no run is not asked for every run.
            Err(Asked::Service(error)) if error.is_unsupported() => break,
            Err(Asked::Service(error)) if error.is_not_found() => {}
            Err(asked) => return Err(Problem::from(asked)),
        }
    }
    drop(answers);
    let of: Vec<_> = items
        .iter()
        .map(|item| {
            let points = known.get(item.run_id.as_str())?;
            let before = points.partition_point(|point| point.time <= item.checkpoint.time);
            let last = points.get(before.checked_sub(1)?)?;
            last.loss_per_token.or(last.loss)
        })
        .collect();
    let (mut unknown, mut unasked) = (0, 0);
    for (item, _) in items.iter().zip(&of).filter(|(_, of)| of.is_none()) {
        let run = item.run_id.as_str();
        if of_type.contains_key(&(run, item.checkpoint.checkpoint_type.as_str())) {
            unknown += 1;
            // Where none is known, that so many were not asked is no matter.
            unasked += u64::from(!known.is_empty() && !asked.contains(run));
        }
    }
    Ok(Measures { of, unknown, unasked })
}

/// A run's series, in the order of its steps, which is that of their times.
async fn series(host: &Shared, run_id: &str) -> Result<Vec<Point>, Asked> {
    let mut points = Vec::new();
    let mut after = None;
    loop {
        let stretch = host.ask(host.api.run_series(run_id, after, POINTS)).await?;
        points.extend(stretch.points);
        after = stretch.next_after;
        if after.is_none() || points.len() >= MOST_POINTS {
            return Ok(points);
        }
    }
}
