//! Lines: smoothed, thinned to what a screen can show, and as an SVG's path.

/// The heaviest smoothing that is offered.
pub const HEAVIEST: f64 = 0.99;

/// An exponential moving average, without the pull towards zero that its first numbers would have: what a weight of 0.6
/// does here is what it does in TensorBoard. A number that is missing stays missing, and does not count.
pub fn smooth(values: &[f64], weight: f64) -> Vec<f64> {
    let weight = weight.clamp(0.0, HEAVIEST);
    let (mut average, mut left) = (0.0, 1.0);
    let step = |value: &f64| {
        if !value.is_finite() {
            return f64::NAN;
        }
        average = average * weight + (1.0 - weight) * value;
        left *= weight;
        average / (1.0 - left)
    };
    values.iter().map(step).collect()
}

/// A line's points at places, thinned: of the points in one pixel column the first, the lowest, the highest and the last.
/// A picture of them is the picture of all, however many there are. `at` gives a point's place; columns are one wide.
pub fn thin(places: impl IntoIterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let mut thinned = Vec::new();
    let mut column = Column::default();
    for (x, y) in places {
        if !y.is_finite() {
            column.give(&mut thinned);
            // One end is enough.
            if thinned.last().is_some_and(|(_, y)| !y.is_nan()) {
                thinned.push((x, f64::NAN));
            }
            continue;
        }
        if column.count > 0 && x.floor() != column.first.0.floor() {
            column.give(&mut thinned);
        }
        column.take((x, y));
    }
    column.give(&mut thinned);
    thinned
}

/// The points of one pixel column.
#[derive(Default)]
struct Column {
    count: usize,
    first: (f64, f64),
    low: (f64, f64),
    high: (f64, f64),
    last: (f64, f64),
}

impl Column {
    fn take(&mut self, point: (f64, f64)) {
        if self.count == 0 {
            (self.first, self.low, self.high) = (point, point, point);
        }
        if point.1 < self.low.1 {
            self.low = point;
        }
        if point.1 > self.high.1 {
            self.high = point;
        }
        self.last = point;
        self.count += 1;
    }

    fn give(&mut self, thinned: &mut Vec<(f64, f64)>) {
        let (early, late) =
            if self.low.0 <= self.high.0 { (self.low, self.high) } else { (self.high, self.low) };
        for point in [self.first, early, late, self.last].into_iter().take(self.count) {
            if thinned.last() != Some(&point) {
                thinned.push(point);
            }
        }
        self.count = 0;
    }
}

/// An SVG's path through these points, in tenths of a pixel: whole numbers are shorter, and code that prints a float is
/// large. A point alone is a dot, as a line of no length with round ends is.
pub fn path(points: &[(f64, f64)]) -> String {
    let mut path = String::with_capacity(points.len() * 12);
    let mut pen_down = false;
    for (k, (x, y)) in points.iter().enumerate() {
        if !y.is_finite() || !x.is_finite() {
            pen_down = false;
            continue;
        }
        let place = format!("{} {}", tenths(*x), tenths(*y));
        let alone = !pen_down && points.get(k + 1).is_none_or(|(_, next)| !next.is_finite());
        path.push(if pen_down { 'L' } else { 'M' });
        path.push_str(&place);
        if alone {
            path.push('L');
            path.push_str(&place);
        }
        pen_down = true;
    }
    path
}

fn tenths(place: f64) -> i64 {
    (place.clamp(-1e6, 1e6) * 10.0).round() as i64
}

/// A dash pattern for each line of several, so that none is told by its colour alone.
pub const DASHES: [&str; 8] = ["", "7 4", "2 4", "12 4 2 4", "4 2", "12 6", "2 2", "8 3 2 3 2 3"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_is_tensorboards() {
        // By hand: last = 0.6 * last + 0.4 * x, over 1 - 0.6^n.
        let smoothed = smooth(&[1.0, 2.0, 4.0], 0.6);
        let expected = [1.0, (0.4 * 0.6 + 0.8) / 0.64, ((0.4 * 0.6 + 0.8) * 0.6 + 1.6) / (1.0 - 0.216)];
        for (one, other) in smoothed.iter().zip(expected) {
            assert!((one - other).abs() < 1e-12, "{smoothed:?}");
        }
        assert_eq!(smooth(&[3.0, -1.0], 0.0), [3.0, -1.0]);
        assert!(smooth(&[5.0; 100], 0.99).iter().all(|value| (value - 5.0).abs() < 1e-9));
    }

    #[test]
    fn a_missing_number_is_passed_over_by_smoothing() {
        let smoothed = smooth(&[1.0, f64::NAN, 3.0], 0.5);
        assert!(smoothed[1].is_nan());
        assert_eq!([smoothed[0], smoothed[2]].as_slice(), smooth(&[1.0, 3.0], 0.5).as_slice());
    }

    #[test]
    fn a_column_keeps_its_first_lowest_highest_and_last_in_their_order() {
        let column = [(0.1, 5.0), (0.2, 9.0), (0.3, 7.0), (0.4, 1.0), (0.5, 4.0)];
        assert_eq!(thin(column), [(0.1, 5.0), (0.2, 9.0), (0.4, 1.0), (0.5, 4.0)]);
        assert_eq!(thin([(0.1, 5.0), (1.1, 5.0)]), [(0.1, 5.0), (1.1, 5.0)]);
        assert_eq!(thin([]), []);
    }

    #[test]
    fn a_hundred_thousand_points_are_four_for_each_column_and_lose_no_peak() {
        let many = 100_000;
        let wave = |k: usize| (k as f64 / 7.0).sin() + if k == 77_777 { 100.0 } else { 0.0 };
        let thinned = thin((0..many).map(|k| (k as f64 * 800.0 / many as f64, wave(k))));
        assert!(thinned.len() <= 4 * 800, "{}", thinned.len());
        assert!(thinned.iter().any(|(_, y)| *y > 99.0));
        assert!(thinned.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    }

    #[test]
    fn gaps_stay_gaps() {
        let thinned = thin([(0.0, 1.0), (0.5, f64::NAN), (0.6, f64::NAN), (0.7, 2.0)]);
        assert_eq!(path(&thinned), "M0 10L0 10M7 20L7 20");
        assert_eq!(path(&[(0.0, 1.0), (2.04, 3.06)]), "M0 10L20 31");
        assert_eq!(path(&[(f64::NAN, 1.0)]), "");
    }
}
