//! A chart of one metric of several runs, as places and paths.

use super::axis::{Scale, Tick, extent};
use super::line::{path, smooth, thin};
use super::series::{Metric, Series};

/// Room beside the plot, in pixels.
pub const LEFT: f64 = 56.0;
/// Room right of the plot.
pub const RIGHT: f64 = 8.0;
/// Room above the plot.
pub const ABOVE: f64 = 8.0;
/// Room below the plot.
pub const BELOW: f64 = 22.0;

/// How a chart is looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Look {
    /// The steps that are shown; `None` = all.
    pub part: Option<(f64, f64)>,
    /// How strongly the lines are smoothed, from 0.
    pub smoothing: f64,
    /// Whether the numbers are shown by their logarithm.
    pub log: bool,
    /// The chart's width and height in pixels.
    pub size: (f64, f64),
}

/// A chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawing {
    /// Steps, and places from the chart's left edge.
    pub x: Scale,
    /// Numbers, and places from its upper edge.
    pub y: Scale,
    /// What the horizontal axis marks.
    pub x_ticks: Vec<Tick>,
    /// What the vertical axis marks.
    pub y_ticks: Vec<Tick>,
    /// For each run its line as a path from the plot's upper left corner, and the smoothed line, empty without smoothing.
    pub lines: Vec<(String, String)>,
    /// Where runs took over from others: the place, and which run.
    pub marks: Vec<(f64, String)>,
}

/// The first and the last step of all runs.
pub fn whole(all: &[Series]) -> Option<(f64, f64)> {
    let ends = all.iter().filter_map(Series::range);
    extent(ends.flat_map(|(first, last)| [first as f64, last as f64]), false)
}

/// Draws; `None`: there is nothing to draw.
pub fn draw(all: &[Series], metric: Metric, look: &Look) -> Option<Drawing> {
    let shown = look.part.or_else(|| whole(all))?;
    let (width, height) = look.size;
    let x = Scale::new(shown, (LEFT, (width - RIGHT).max(LEFT + 1.0)), false);
    let parts: Vec<_> = all.iter().map(|series| Part::of(series, metric, look, (x.low, x.high))).collect();
    let (low, high) = extent(parts.iter().flat_map(|part| part.values.iter().copied()), look.log)?;
    // A little air above and below.
    let air = if look.log { ((high / low).ln() * 0.04).exp().max(1.000_001) } else { (high - low) * 0.04 };
    let ends = if look.log { (low / air, high * air) } else { (low - air, high + air) };
    let y = Scale::new(ends, ((height - BELOW).max(ABOVE + 1.0), ABOVE), look.log);
    let lines = parts.iter().map(|part| (part.line(&x, &y, part.values), part.line(&x, &y, &part.smoothed)));
    let mut x_ticks = x.ticks(((width / 90.0) as usize).clamp(2, 12));
    x_ticks.retain(|tick| tick.value.fract().abs() < 1e-9);
    let restores = all.iter().flat_map(|series| &series.restores);
    Some(Drawing {
        x_ticks,
        y_ticks: y.ticks(((height / 30.0) as usize).clamp(2, 8)),
        lines: lines.collect(),
        marks: restores
            .map(|(step, run_id)| (x.place(*step as f64), run_id.clone()))
            .filter(|(place, _)| *place >= x.from && *place <= x.to)
            .collect(),
        x,
        y,
    })
}

/// What of a run is within the shown steps, and one step on each side, so that lines leave the picture.
struct Part<'a> {
    steps: &'a [u64],
    values: &'a [f64],
    smoothed: Vec<f64>,
}

impl<'a> Part<'a> {
    fn of(series: &'a Series, metric: Metric, look: &Look, (low, high): (f64, f64)) -> Self {
        let (steps, values) = (series.steps.as_slice(), series.column(metric));
        let from = steps.partition_point(|step| (*step as f64) < low).saturating_sub(1);
        let to = (steps.partition_point(|step| *step as f64 <= high) + 1).min(steps.len());
        // Smoothed from its first step on: what is shown of a line does not change it.
        let smoothed = if look.smoothing > 0.0 { smooth(values, look.smoothing) } else { Vec::new() };
        Self {
            steps: steps.get(from..to).unwrap_or_default(),
            values: values.get(from..to).unwrap_or_default(),
            smoothed: smoothed.get(from..to).unwrap_or_default().to_vec(),
        }
    }

    fn line(&self, x: &Scale, y: &Scale, values: &[f64]) -> String {
        let places = self.steps.iter().zip(values);
        path(&thin(places.map(|(step, value)| (x.place(*step as f64) - LEFT, y.place(*value) - ABOVE))))
    }
}

#[cfg(test)]
mod tests {
    use retinker::host::run::RunMetrics;

    use super::*;

    fn series(values: &[f64]) -> Series {
        let mut series = Series::new("a".into());
        let steps: Vec<u64> = (1..=values.len() as u64).collect();
        series.add(&RunMetrics {
            offered: true,
            times: vec![0; steps.len()],
            steps,
            loss: values.iter().copied().map(Some).collect(),
            ..RunMetrics::default()
        });
        series
    }

    fn look() -> Look {
        Look { part: None, smoothing: 0.0, log: false, size: (LEFT + RIGHT + 100.0, ABOVE + BELOW + 50.0) }
    }

    #[test]
    fn a_line_goes_through_its_points() {
        let all = [series(&[0.0, 100.0, 50.0])];
        let drawing = draw(&all, Metric::Loss, &look()).unwrap();
        // From -4 to 104 over 50 pixels.
        assert_eq!(drawing.lines[0].0, "M0 481L500 19L1000 250");
        assert_eq!(drawing.lines[0].1, "");
        assert_eq!(drawing.x_ticks.iter().map(|t| t.label.as_str()).collect::<Vec<_>>(), ["1", "2", "3"]);
        assert_eq!(drawing.y.place(-4.0), ABOVE + 50.0);
    }

    #[test]
    fn a_part_is_drawn_with_a_step_on_each_side() {
        let all = [series(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])];
        let drawing = draw(&all, Metric::Loss, &Look { part: Some((3.0, 4.0)), ..look() }).unwrap();
        assert!(drawing.lines[0].0.starts_with("M-1000 "), "{:?}", drawing.lines);
        assert_eq!(drawing.lines[0].0.matches('L').count(), 3);
    }

    #[test]
    fn smoothing_adds_a_line_and_a_logarithm_leaves_out_what_it_does_not_have() {
        let all = [series(&[0.0, 1.0, 100.0])];
        let drawing = draw(&all, Metric::Loss, &Look { smoothing: 0.5, log: true, ..look() }).unwrap();
        assert!(drawing.lines[0].0.starts_with("M500 ") && !drawing.lines[0].1.is_empty());
        assert!((drawing.y.low..=drawing.y.high).contains(&1.0));
        assert!(draw(&[series(&[-1.0])], Metric::Loss, &Look { log: true, ..look() }).is_none());
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert!(draw(&[], Metric::Loss, &look()).is_none());
        assert!(draw(&[series(&[])], Metric::Loss, &look()).is_none());
        assert!(draw(&[series(&[1.0])], Metric::GradNorm, &look()).is_none(), "no number in the column");
        assert!(draw(&[series(&[1.0])], Metric::Loss, &Look { size: (0.0, 0.0), ..look() }).is_some());
    }

    #[test]
    fn restores_are_marked_where_they_are_seen() {
        let mut one = series(&[1.0, 2.0, 3.0, 4.0]);
        one.restores = vec![(3, "b".into())];
        let drawing = draw(&[one.clone()], Metric::Loss, &look()).unwrap();
        assert_eq!(drawing.marks.len(), 1);
        assert!((drawing.marks[0].0 - (LEFT + 200.0 / 3.0)).abs() < 1e-9);
        assert!(
            draw(&[one], Metric::Loss, &Look { part: Some((1.0, 2.0)), ..look() }).unwrap().marks.is_empty()
        );
    }
}
