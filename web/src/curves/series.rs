//! A run's points, page by page, and several runs' as one.

use retinker::host::run::RunMetrics;

/// What is drawn of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// For each token that counts.
    LossPerToken,
    /// Of the whole batch.
    Loss,
    /// The optimizer's.
    LearningRate,
    /// The gradient's length before it was clipped.
    GradNorm,
}

impl Metric {
    /// Every one, in the order in which they are shown.
    pub const ALL: [Self; 4] = [Self::LossPerToken, Self::Loss, Self::LearningRate, Self::GradNorm];

    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::LossPerToken => "Loss per token",
            Self::Loss => "Loss of the batch",
            Self::LearningRate => "Learning rate",
            Self::GradNorm => "Gradient norm",
        }
    }

    /// Its name for programs.
    pub fn key(self) -> &'static str {
        match self {
            Self::LossPerToken => "loss_per_token",
            Self::Loss => "loss",
            Self::LearningRate => "learning_rate",
            Self::GradNorm => "grad_norm",
        }
    }
}

/// A run's points.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Series {
    /// The run.
    pub run_id: String,
    /// The optimizer's number of each step, rising.
    pub steps: Vec<u64>,
    /// When each was taken, in milliseconds.
    pub times: Vec<i64>,
    /// The metrics, in the order of [`Metric::ALL`]; NaN where there is none.
    columns: [Vec<f64>; 4],
    /// The first steps of runs that took over from another, with their run.
    pub restores: Vec<(u64, String)>,
}

impl Series {
    /// One of this run, without a point.
    pub fn new(run_id: String) -> Self {
        Self { run_id, ..Self::default() }
    }

    /// The numbers of a metric, one for each step.
    pub fn column(&self, metric: Metric) -> &[f64] {
        let [per_token, loss, rate, norm] = &self.columns;
        match metric {
            Metric::LossPerToken => per_token,
            Metric::Loss => loss,
            Metric::LearningRate => rate,
            Metric::GradNorm => norm,
        }
    }

    /// The first and the last step.
    pub fn range(&self) -> Option<(u64, u64)> {
        Some((*self.steps.first()?, *self.steps.last()?))
    }

    /// Adds what was read after the last step. What is not after it is passed over, so that a page that is read twice is
    /// there once.
    pub fn add(&mut self, page: &RunMetrics) {
        let last = self.steps.last().copied();
        let fresh = page.steps.iter().take_while(|step| last.is_some_and(|last| **step <= last)).count();
        let number = |value: &Option<f64>| value.unwrap_or(f64::NAN);
        self.steps.extend(page.steps.iter().skip(fresh));
        self.times.extend(page.times.iter().skip(fresh));
        let pages = [&page.loss_per_token, &page.loss, &page.learning_rate, &page.grad_norm];
        for (column, page) in self.columns.iter_mut().zip(pages) {
            column.extend(page.iter().skip(fresh).map(number));
            // A service that leaves a column out leaves no other out of step.
            column.resize(self.steps.len(), f64::NAN);
        }
        self.times.resize(self.steps.len(), 0);
    }

    /// Where the step that is nearest to this one stands.
    pub fn nearest(&self, step: f64) -> Option<usize> {
        let after = self.steps.partition_point(|known| (*known as f64) < step);
        let before = after.checked_sub(1);
        let distance = |at: &usize| self.steps.get(*at).map(|known| (*known as f64 - step).abs());
        let known = [before, Some(after)].into_iter().flatten().filter_map(|at| Some((at, distance(&at)?)));
        known.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(at, _)| at)
    }

    /// Where exactly this step stands.
    pub fn at(&self, step: u64) -> Option<usize> {
        self.steps.binary_search(&step).ok()
    }

    /// The curve of runs that took over one from the other, oldest first, as one: of each what came before the next one's
    /// first step. `None` without any.
    pub fn continued(lineage: &[Self]) -> Option<Self> {
        let (first, rest) = lineage.split_first()?;
        let mut whole = first.clone();
        for next in rest {
            whole.run_id.clone_from(&next.run_id);
            let Some((from, _)) = next.range() else { continue };
            let kept = whole.steps.partition_point(|step| *step < from);
            whole.steps.truncate(kept);
            whole.times.truncate(kept);
            whole.restores.retain(|(step, _)| *step < from);
            whole.steps.extend(&next.steps);
            whole.times.extend(&next.times);
            for (column, more) in whole.columns.iter_mut().zip(&next.columns) {
                column.truncate(kept);
                column.extend(more);
            }
            whole.restores.push((from, next.run_id.clone()));
        }
        Some(whole)
    }
}

/// A part of the steps, nearer or farther: `factor` below 1 is nearer. Stays within the whole, around `centre`, and is at
/// least two steps wide. `None`: that is the whole.
pub fn zoom(part: (f64, f64), whole: (f64, f64), centre: f64, factor: f64) -> Option<(f64, f64)> {
    let width = ((part.1 - part.0) * factor).max(2.0);
    if width >= whole.1 - whole.0 {
        return None;
    }
    let share = ((centre - part.0) / (part.1 - part.0)).clamp(0.0, 1.0);
    let share = if share.is_finite() { share } else { 0.5 };
    // Not by `clamp`, which brings along the code that prints a fraction.
    let low = (centre - width * share).max(whole.0).min(whole.1 - width);
    Some((low, low + width))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(steps: &[u64], value: f64) -> RunMetrics {
        let column = vec![Some(value); steps.len()];
        RunMetrics {
            offered: true,
            steps: steps.to_vec(),
            times: steps.iter().map(|step| *step as i64 * 10).collect(),
            loss: column.clone(),
            loss_per_token: column.clone(),
            grad_norm: vec![None; steps.len()],
            learning_rate: column,
            next_after: None,
        }
    }

    fn series(id: &str, steps: &[u64], value: f64) -> Series {
        let mut series = Series::new(id.to_owned());
        series.add(&page(steps, value));
        series
    }

    #[test]
    fn a_page_that_overlaps_is_there_once() {
        let mut one = series("a", &[1, 2], 1.0);
        one.add(&page(&[2, 3], 5.0));
        assert_eq!(
            (one.steps.as_slice(), one.times.as_slice()),
            ([1, 2, 3].as_slice(), [10, 20, 30].as_slice())
        );
        assert_eq!(one.column(Metric::Loss), [1.0, 1.0, 5.0]);
        assert!(one.column(Metric::GradNorm).iter().all(|value| value.is_nan()));
        assert_eq!(one.range(), Some((1, 3)));
        let mut short = page(&[4, 5], 1.0);
        short.loss.clear();
        one.add(&short);
        assert_eq!(one.column(Metric::Loss).len(), 5);
    }

    #[test]
    fn a_lineage_is_one_curve_and_what_was_lost_is_left_out() {
        let first = series("a", &[1, 2, 3, 4], 1.0);
        let lineage = [first.clone(), series("b", &[3, 4, 5], 2.0), series("c", &[5, 6], 3.0)];
        let whole = Series::continued(&lineage).unwrap();
        assert_eq!(whole.steps, [1, 2, 3, 4, 5, 6]);
        assert_eq!(whole.column(Metric::Loss), [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]);
        assert_eq!(whole.restores, [(3, "b".to_owned()), (5, "c".to_owned())]);
        assert_eq!(whole.run_id, "c");
        let idle = Series::continued(&[first.clone(), series("b", &[], 2.0)]).unwrap();
        assert_eq!((idle.steps.len(), idle.restores.len()), (4, 0), "the new run has taken no step yet");
        assert_eq!(Series::continued(&[]), None);
        // Restored from an older checkpoint than the run before it was.
        let back = Series::continued(&[first, series("b", &[4, 5], 2.0), series("c", &[2, 3], 3.0)]).unwrap();
        assert_eq!((back.steps.as_slice(), back.restores.len()), ([1, 2, 3].as_slice(), 1));
    }

    #[test]
    fn the_nearest_step_is_found() {
        let one = series("a", &[10, 20, 40], 1.0);
        for (step, at) in [(0.0, 0), (14.0, 0), (16.0, 1), (29.0, 1), (31.0, 2), (99.0, 2)] {
            assert_eq!(one.nearest(step), Some(at), "{step}");
        }
        assert_eq!(Series::default().nearest(3.0), None);
        assert_eq!((one.at(20), one.at(21)), (Some(1), None));
    }

    #[test]
    fn zooming_keeps_its_centre_and_stays_within_the_whole() {
        let whole = (0.0, 100.0);
        assert_eq!(zoom(whole, whole, 50.0, 0.5), Some((25.0, 75.0)));
        assert_eq!(zoom(whole, whole, 0.0, 0.5), Some((0.0, 50.0)));
        assert_eq!(zoom((25.0, 75.0), whole, 50.0, 2.0), None, "all of it");
        assert_eq!(zoom((0.0, 40.0), whole, 40.0, 1.5), Some((0.0, 60.0)));
        assert_eq!(zoom((50.0, 52.0), whole, 51.0, 0.5), Some((50.0, 52.0)), "no nearer than two steps");
        assert_eq!(zoom((5.0, 5.0), (5.0, 5.0), 5.0, 0.5), None);
    }
}
