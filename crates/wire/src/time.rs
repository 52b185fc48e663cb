//! Points in time as servers write them.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time. Written as RFC 3339 in UTC; read from RFC 3339 with any offset, and from the zone-less form
/// that SkyRL sends, which is taken as UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub jiff::Timestamp);

impl Time {
    /// The time this many milliseconds after 1970-01-01T00:00:00Z; clamped to what can be represented.
    pub fn from_millis(millis: i64) -> Self {
        Self(jiff::Timestamp::from_millisecond(millis).unwrap_or(if millis < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        }))
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub fn as_millis(self) -> i64 {
        self.0.as_millisecond()
    }

    /// This much later; a time that cannot be told any more stays the last one that can.
    #[must_use]
    pub fn later(self, by: std::time::Duration) -> Self {
        Self::from_millis(self.as_millis().saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }
}

/// RFC 3339 in UTC; with `{:#}` as it stands in a sentence, to the second: `2026-11-29 19:14:05 UTC`.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanosecond();
        let seconds = i64::try_from(nanos.div_euclid(NANOS)).unwrap_or_default();
        let (year, month, day) = civil(seconds.div_euclid(DAY));
        let clock = seconds.rem_euclid(DAY);
        if year < 0 {
            write!(f, "-{:06}", -year)?;
        } else {
            write!(f, "{year:04}")?;
        }
        let between = if f.alternate() { ' ' } else { 'T' };
        let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
        write!(f, "-{month:02}-{day:02}{between}{hour:02}:{minute:02}:{second:02}")?;
        if f.alternate() {
            return f.write_str(" UTC");
        }
        let fraction = nanos.rem_euclid(NANOS);
        if fraction != 0 {
            let digits = format!("{fraction:09}");
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

impl std::str::FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        read(text.as_bytes())
            .and_then(|nanos| jiff::Timestamp::from_nanosecond(nanos).ok())
            .map(Self)
            .ok_or_else(|| format!("'{text}' is not a time in RFC 3339 form"))
    }
}

const DAY: i64 = 86_400;
const NANOS: i128 = 1_000_000_000;

/// Nanoseconds since 1970. Written out rather than left to jiff: its parser and its error texts would be a tenth of
/// what the console makes a browser load.
fn read(text: &[u8]) -> Option<i128> {
    let (date, rest) = text.split_at_checked(10)?;
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1] = date else { return None };
    let year = number(&[*y0, *y1, *y2, *y3])?;
    let (month, day) = (number(&[*m0, *m1])?, number(&[*d0, *d1])?);
    let [b'T' | b't' | b' ', rest @ ..] = rest else { return None };
    let (clock, mut rest) = rest.split_at_checked(8)?;
    let [h0, h1, b':', i0, i1, b':', s0, s1] = clock else { return None };
    let (hour, minute, second) = (number(&[*h0, *h1])?, number(&[*i0, *i1])?, number(&[*s0, *s1])?);
    let mut fraction = 0;
    if let [b'.' | b',', after @ ..] = rest {
        let digits = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (figures, after) = after.split_at_checked(digits)?;
        if !(1..=9).contains(&digits) {
            return None;
        }
        fraction = number(figures)? * 10_i64.pow(9 - u32::try_from(digits).ok()?);
        rest = after;
    }
    let offset = match rest {
        [] | [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), h0, h1, b':', m0, m1] => {
            let (hours, minutes) = (number(&[*h0, *h1])?, number(&[*m0, *m1])?);
            if hours > 25 || minutes > 59 {
                return None;
            }
            (hours * 3600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let days = days(year, month, day);
    // 60 is a leap second, which is folded into the one before it.
    if civil(days) != (year, month, day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days * DAY + hour * 3600 + minute * 60 + second.min(59) - offset;
    Some(i128::from(seconds) * NANOS + i128::from(fraction))
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0')))
}

/// Days from 1970-01-01 to this date (proleptic Gregorian); counted in eras of 400 years that begin in March.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let year = year.rem_euclid(400);
    era * 146_097 + year * 365 + year / 4 - year / 100 + day_of_year - 719_468
}

/// The date of this day: the inverse of [`days`].
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, date)
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_servers_write() {
        let expected = Time::from_millis(1_760_000_000_123);
        for text in
            ["2025-10-09T08:53:20.123Z", "2025-10-09T08:53:20.123+00:00", "2025-10-09T08:53:20.123000"]
        {
            assert_eq!(text.parse::<Time>().unwrap(), expected, "{text}");
        }
        assert_eq!(expected.to_string(), "2025-10-09T08:53:20.123Z");
        assert_eq!(format!("{expected:#}"), "2025-10-09 08:53:20 UTC");
        for (text, expected) in [
            ("2024-02-29T23:59:60Z", "2024-02-29T23:59:59Z"),
            ("1969-12-31t23:59:59.000000001z", "1969-12-31T23:59:59.000000001Z"),
            ("2026-01-01 00:30:00-03:30", "2026-01-01T04:00:00Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ] {
            assert_eq!(text.parse::<Time>().unwrap().to_string(), expected, "{text}");
        }
        for text in [
            "2023-02-29T00:00:00Z",
            "2025-10-09",
            "2025-10-09T08:53",
            "2025-10-09T24:00:00Z",
            "é025-10-09T00:00:00Z",
            "2025-10-09T08:53:20.Z",
            "2025-10-09T08:53:20+1",
            "2025-13-01T00:00:00Z",
            "2025-00-10T00:00:00Z",
            "",
        ] {
            assert!(text.parse::<Time>().is_err(), "{text}");
        }
        assert!("yesterday".parse::<Time>().unwrap_err().contains("yesterday"));
    }

    #[test]
    fn agrees_with_jiff_everywhere() {
        let mut millis = -62_135_596_800_000_i64;
        while millis < 253_402_300_799_999 {
            let time = Time::from_millis(millis);
            assert_eq!(time.to_string(), time.0.to_string());
            assert_eq!(time.to_string().parse::<Time>(), Ok(time));
            millis += 9_876_543_217;
        }
        for extreme in [jiff::Timestamp::MIN, jiff::Timestamp::MAX] {
            assert_eq!(Time(extreme).to_string(), extreme.to_string());
        }
    }
}
