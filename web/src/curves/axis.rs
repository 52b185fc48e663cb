//! Axes: from numbers to places, round numbers to mark, and how numbers are written.
//!
//! Numbers are written here by whole-number arithmetic: the standard library's code that prints a float would be a tenth
//! of what a browser loads for the curves.

/// From numbers to places along a line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    /// The number at `from`.
    pub low: f64,
    /// The number at `to`.
    pub high: f64,
    /// The place of `low`.
    pub from: f64,
    /// The place of `high`.
    pub to: f64,
    /// Whether equal ratios take equal lengths, instead of equal differences.
    pub log: bool,
}

/// A number that an axis marks.
#[derive(Debug, Clone, PartialEq)]
pub struct Tick {
    /// The number.
    pub value: f64,
    /// As it is written.
    pub label: String,
}

impl Scale {
    /// One whose ends are never the same number, so that every number has a place.
    pub fn new((low, high): (f64, f64), (from, to): (f64, f64), log: bool) -> Self {
        if high > low {
            return Self { low, high, from, to, log };
        }
        let (low, high) = match log {
            true => (low / 2.0, low * 2.0),
            false => {
                let half = if low == 0.0 { 1.0 } else { low.abs() / 2.0 };
                (low - half, low + half)
            }
        };
        Self { low, high, from, to, log }
    }

    /// The place of a number. Of one that a logarithm does not have: NaN.
    pub fn place(&self, value: f64) -> f64 {
        let share = if self.log {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + share * (self.to - self.from)
    }

    /// The number at a place of an axis of equal differences.
    pub fn value(&self, place: f64) -> f64 {
        self.low + (place - self.from) / (self.to - self.from) * (self.high - self.low)
    }

    /// Round numbers within the axis, about this many.
    pub fn ticks(&self, wanted: usize) -> Vec<Tick> {
        if self.log && self.high / self.low >= 10.0 {
            log_ticks(self.low, self.high, wanted)
        } else {
            linear_ticks(self.low, self.high, wanted)
        }
    }
}

/// The least and the greatest of these numbers; where `log`, of those above zero. `None`: there are none.
pub fn extent(values: impl IntoIterator<Item = f64>, log: bool) -> Option<(f64, f64)> {
    values.into_iter().filter(|value| value.is_finite() && (!log || *value > 0.0)).fold(
        None,
        |known, value| {
            let (low, high) = known.unwrap_or((value, value));
            Some((low.min(value), high.max(value)))
        },
    )
}

/// Ten to a power.
fn power_of_ten(power: i32) -> f64 {
    let size = (0..power.unsigned_abs()).fold(1.0, |size, _| size * 10.0);
    if power < 0 { 1.0 / size } else { size }
}

/// The power of ten of a number above zero: 2 of 345.
fn magnitude(value: f64) -> i32 {
    let mut power = (value.ln() * std::f64::consts::LOG10_E).floor() as i32;
    // The logarithm may be off by one next to a power of ten.
    while power_of_ten(power + 1) <= value && power < 308 {
        power += 1;
    }
    while power_of_ten(power) > value && power > -307 {
        power -= 1;
    }
    power
}

/// Multiples of 1, 2 or 5 times a power of ten.
fn linear_ticks(low: f64, high: f64, wanted: usize) -> Vec<Tick> {
    let rough = (high - low) / wanted.max(1) as f64;
    if !rough.is_finite() || rough <= 0.0 {
        return Vec::new();
    }
    let mut power = magnitude(rough);
    let mut unit = match rough / power_of_ten(power) {
        share if share <= 1.0 + 1e-9 => 1,
        share if share <= 2.0 + 1e-9 => 2,
        share if share <= 5.0 + 1e-9 => 5,
        _ => 10,
    };
    if unit == 10 {
        (unit, power) = (1, power + 1);
    }
    let step = f64::from(unit) * power_of_ten(power);
    let first = (low / step - 1e-9).ceil();
    let count = ((high / step + 1e-9).floor() - first).clamp(-1.0, 50.0) as i64;
    (0..=count)
        .map(|k| {
            let multiple = first as i64 + k;
            Tick { value: multiple as f64 * step, label: decimal(multiple * i64::from(unit), power) }
        })
        .collect()
}

/// Powers of ten; where these are few, with 2 and 5 times of them.
fn log_ticks(low: f64, high: f64, wanted: usize) -> Vec<Tick> {
    let (first, last) = (magnitude(low), magnitude(high));
    let decades = (last - first).unsigned_abs() as usize + 1;
    let units: &[i64] = if decades * 2 <= wanted { &[1, 2, 5] } else { &[1] };
    let every = decades.div_ceil(wanted.max(1)).max(1);
    (first..=last)
        .step_by(every)
        .flat_map(|power| units.iter().map(move |unit| (*unit, power)))
        .map(|(unit, power)| Tick { value: unit as f64 * power_of_ten(power), label: decimal(unit, power) })
        .filter(|tick| tick.value >= low * (1.0 - 1e-9) && tick.value <= high * (1.0 + 1e-9))
        .collect()
}

/// A whole number times a power of ten: `0.05`, `1200`, `5e-7`.
fn decimal(digits: i64, power: i32) -> String {
    if digits == 0 {
        return "0".to_owned();
    }
    let (mut size, mut power) = (digits.unsigned_abs(), power);
    while size.is_multiple_of(10) {
        (size, power) = (size / 10, power + 1);
    }
    let sign = if digits < 0 { "−" } else { "" };
    let text = size.to_string();
    let exponent = power + text.len() as i32 - 1;
    if !(-4..7).contains(&exponent) {
        let (head, tail) = text.split_at(1);
        let point = if tail.is_empty() { "" } else { "." };
        return format!("{sign}{head}{point}{tail}e{exponent}");
    }
    if power >= 0 {
        return format!("{sign}{text}{}", "0".repeat(power.unsigned_abs() as usize));
    }
    let after = power.unsigned_abs() as usize;
    if after >= text.len() {
        return format!("{sign}0.{}{text}", "0".repeat(after - text.len()));
    }
    let (whole, rest) = text.split_at(text.len() - after);
    format!("{sign}{whole}.{rest}")
}

/// A number to five digits: `2.8613`, `0.0003`, `1.2e-7`. One that is none is a dash.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    if value.abs() < 1e-300 {
        return "0".to_owned();
    }
    let power = magnitude(value.abs()) - 4;
    let scaled = if power < 0 { value * power_of_ten(-power) } else { value / power_of_ten(power) };
    decimal(scaled.round() as i64, power)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64, wanted: usize, log: bool) -> Vec<String> {
        let scale = Scale::new((low, high), (0.0, 100.0), log);
        scale.ticks(wanted).into_iter().map(|tick| tick.label).collect()
    }

    #[test]
    fn ticks_are_round_numbers_within_the_axis() {
        assert_eq!(labels(0.0, 100.0, 5, false), ["0", "20", "40", "60", "80", "100"]);
        assert_eq!(labels(3.0, 17.0, 4, false), ["5", "10", "15"]);
        assert_eq!(labels(-0.3, 0.3, 5, false), ["−0.2", "0", "0.2"]);
        assert_eq!(labels(2.71, 2.79, 4, false), ["2.72", "2.74", "2.76", "2.78"]);
        assert_eq!(labels(0.0, 3e-7, 3, false), ["0", "1e-7", "2e-7", "3e-7"]);
        assert_eq!(labels(0.0, 1e5, 5, false), ["0", "20000", "40000", "60000", "80000", "100000"]);
        assert_eq!(labels(0.0, 3e8, 3, false), ["0", "1e8", "2e8", "3e8"]);
    }

    #[test]
    fn ticks_of_a_logarithm_are_powers_of_ten() {
        assert_eq!(labels(1e-4, 10.0, 6, true), ["0.0001", "0.001", "0.01", "0.1", "1", "10"]);
        assert_eq!(labels(0.3, 4.0, 6, true), ["0.5", "1", "2"]);
        assert_eq!(labels(1e-8, 1.0, 3, true), ["1e-8", "1e-5", "0.01"]);
        assert_eq!(labels(2.0, 3.0, 4, true), ["2", "2.5", "3"], "less than a decade");
    }

    #[test]
    fn no_axis_is_without_length() {
        for value in [0.0, 5.0, -3.0, 1e-300] {
            let scale = Scale::new((value, value), (0.0, 100.0), false);
            assert!((scale.place(value) - 50.0).abs() < 1e-9, "{value}");
            assert!(!scale.ticks(5).is_empty(), "{value}");
        }
        assert!((Scale::new((4.0, 4.0), (0.0, 100.0), true).place(4.0) - 50.0).abs() < 1e-9);
        for (low, high) in [(f64::NAN, f64::NAN), (0.0, f64::INFINITY), (f64::MIN, f64::MAX)] {
            assert!(Scale::new((low, high), (0.0, 1.0), false).ticks(5).len() <= 51);
        }
    }

    #[test]
    fn places_and_numbers_are_each_others_inverse() {
        let scale = Scale::new((10.0, 20.0), (400.0, 0.0), false);
        assert_eq!((scale.place(10.0), scale.place(20.0), scale.place(15.0)), (400.0, 0.0, 200.0));
        assert_eq!(scale.value(100.0), 17.5);
        let log = Scale::new((0.01, 100.0), (0.0, 4.0), true);
        assert!((log.place(1.0) - 2.0).abs() < 1e-9);
        assert!(log.place(-1.0).is_nan());
    }

    #[test]
    fn the_extent_is_of_numbers_that_can_be_drawn() {
        assert_eq!(extent([3.0, f64::NAN, -1.0, f64::INFINITY], false), Some((-1.0, 3.0)));
        assert_eq!(extent([3.0, 0.0, -1.0, 0.5], true), Some((0.5, 3.0)));
        assert_eq!(extent([f64::NAN], false), None);
    }

    #[test]
    fn numbers_have_five_digits_at_most() {
        let cases = [
            (0.0, "0"),
            (2.861_349, "2.8613"),
            (1.0, "1"),
            (-0.5, "−0.5"),
            (0.0003, "0.0003"),
            (1.234e-7, "1.234e-7"),
            (99_999.6, "100000"),
            (1_234_567.0, "1234600"),
            (12_345_678.0, "1.2346e7"),
            (0.1 + 0.2, "0.3"),
            (f64::NAN, "–"),
            (5e-324, "0"),
            (1e-300, "1e-300"),
            (f64::MAX, "1.7977e308"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }
}
