//! Points in time as lineage_ir writes them: UTC, to the microsecond, with as many digits as were read.

use std::fmt;
use std::str::FromStr;

use retinker::wire::time::Time;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time. One without an offset is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    at: Time,
    /// Digits of the second's fraction, 0 to 6.
    digits: u8,
}

impl Stamp {
    /// With six digits, so that what is derived from its text is the same wherever it is written.
    pub fn new(at: Time) -> Self {
        Self { at, digits: 6 }
    }

    /// The time.
    pub fn time(self) -> Time {
        self.at
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.at.to_string();
        let second = whole.split(['.', 'Z']).next().unwrap_or_default();
        f.write_str(second)?;
        if self.digits > 0 {
            let micros = self.at.0.as_microsecond().rem_euclid(1_000_000);
            let fraction = format!("{micros:06}");
            write!(f, ".{}", fraction.get(..usize::from(self.digits)).unwrap_or(&fraction))?;
        }
        f.write_str("Z")
    }
}

impl FromStr for Stamp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no time with an offset from UTC");
        let clock = text.split_once(['T', 't', ' ']).ok_or_else(wrong)?.1;
        if !clock.ends_with(['Z', 'z']) && !clock.contains(['+', '-']) {
            return Err(wrong());
        }
        let at: Time = text.parse().map_err(|_| wrong())?;
        let fraction = clock.split_once('.').map_or("", |(_, fraction)| fraction);
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count().min(6) as u8;
        Ok(Self { at, digits })
    }
}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Stamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn times_keep_their_digits_and_lose_their_offset() {
        for (read, written) in [
            ("2026-11-30T18:00:00Z", "2026-11-30T18:00:00Z"),
            ("2026-11-30T18:00:00.120Z", "2026-11-30T18:00:00.120Z"),
            ("2026-11-30T19:00:00.5+01:00", "2026-11-30T18:00:00.5Z"),
            ("2026-11-30T18:00:00.123456789Z", "2026-11-30T18:00:00.123456Z"),
        ] {
            assert_eq!(read.parse::<Stamp>().unwrap().to_string(), written);
        }
        for naive in ["2026-11-30T18:00:00", "2026-11-30", "soon"] {
            assert!(naive.parse::<Stamp>().is_err(), "{naive}");
        }
        let stamp = Stamp::new(Time::from_millis(1_000_000_000_250));
        assert_eq!(stamp.to_string(), "2001-09-09T01:46:40.250000Z");
    }
}
