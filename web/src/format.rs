//! How numbers, sizes, times and ids are written.

use retinker::wire::time::Time;

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// How long ago, in one unit: `just now`, `12 s ago`, `3 min ago`, `5 h ago`, `2 d ago`. A time in the future is
/// `just now` for a minute (clocks differ), then `in 3 min`.
pub fn relative(now_ms: i64, then_ms: i64) -> String {
    let ago = now_ms.saturating_sub(then_ms);
    if ago <= -MINUTE {
        format!("in {}", span(ago.saturating_neg()))
    } else if ago < 5 * SECOND {
        "just now".to_owned()
    } else {
        format!("{} ago", span(ago))
    }
}

/// How long until something expires: `in 6 d`, or `expired` once it has.
pub fn until(now_ms: i64, then_ms: i64) -> String {
    if then_ms <= now_ms {
        "expired".to_owned()
    } else {
        format!("in {}", span(then_ms.saturating_sub(now_ms)))
    }
}

/// How long until something expires, in two units, so that it can be seen to run: `in 6 d 4 h`, `in 4 min 9 s`.
pub fn countdown(now_ms: i64, then_ms: i64) -> String {
    let left = then_ms.saturating_sub(now_ms);
    if left <= 0 {
        return "expired".to_owned();
    }
    let units = [(DAY, "d"), (HOUR, "h"), (MINUTE, "min"), (SECOND, "s")];
    let mut rest = left;
    let counted = units.into_iter().map(|(unit, name)| {
        let count = rest / unit;
        rest %= unit;
        (count, name)
    });
    let counted: Vec<_> = counted.skip_while(|(count, _)| *count == 0).take(2).collect();
    let told: Vec<_> = counted
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    if told.is_empty() { "in less than a second".to_owned() } else { format!("in {}", told.join(" ")) }
}

/// A span of milliseconds in its largest whole unit; never negative.
fn span(ms: i64) -> String {
    // Up to two days in hours: "47 h" says more than "1 d".
    let (unit, name) = [(2 * DAY, DAY, "d"), (HOUR, HOUR, "h"), (MINUTE, MINUTE, "min")]
        .into_iter()
        .find(|(from, ..)| ms >= *from)
        .map_or((SECOND, "s"), |(_, unit, name)| (unit, name));
    format!("{} {name}", (ms / unit).max(0))
}

/// A point in time to the second in the viewer's zone, e.g. `2026-11-23 18:27:40 UTC+01:00`. The offset is in
/// minutes east of UTC.
pub fn exact(time: Time, offset_minutes: i32) -> String {
    let (date, clock) = local(time, offset_minutes);
    let zone = match offset_minutes {
        0 => "UTC".to_owned(),
        minutes => {
            let sign = if minutes < 0 { '-' } else { '+' };
            let size = minutes.unsigned_abs();
            format!("UTC{sign}{:02}:{:02}", size / 60, size % 60)
        }
    };
    format!("{date} {clock} {zone}")
}

/// The time of day to the second in the viewer's zone, and the date before it if that is another than now. The offset is in
/// minutes east of UTC.
pub fn clock(time: Time, offset_minutes: i32, now: Time) -> String {
    let (date, clock) = local(time, offset_minutes);
    match local(now, offset_minutes).0 == date {
        true => clock,
        false => format!("{date} {clock}"),
    }
}

fn local(time: Time, offset_minutes: i32) -> (String, String) {
    let shifted = Time::from_millis(time.as_millis().saturating_add(i64::from(offset_minutes) * MINUTE));
    let text = shifted.to_string();
    let (date, rest) = text.split_once('T').unwrap_or((text.as_str(), ""));
    let clock: String = rest.chars().take(8).collect();
    (date.to_owned(), clock)
}

/// A size in decimal units: `512 B`, `34 KB`, `1.2 MB`. In whole numbers throughout, since the code that prints a
/// fraction of a float is large.
pub fn bytes(size: u64) -> String {
    const UNITS: [&str; 4] = ["MB", "GB", "TB", "PB"];
    if size < 1000 {
        return format!("{size} B");
    }
    // Tenths of the unit, from tenths of a kilobyte up.
    let mut tenths = size / 100 + u64::from(size % 100 >= 50);
    let mut unit = "KB";
    for next in UNITS {
        if tenths < 9_995 {
            break;
        }
        tenths = (tenths + 500) / 1000;
        unit = next;
    }
    if tenths < 100 {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    } else {
        format!("{} {unit}", (tenths + 5) / 10)
    }
}

/// A whole number with its thousands set apart: `1,204`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number and its noun: `1 run`, `6 runs`.
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// How much of a list a filter lets through: `6 runs`, `2 of 1,204 runs`.
pub fn matching(matching: u64, total: u64) -> String {
    let noun = if total == 1 { "run" } else { "runs" };
    match matching == total {
        true => format!("{} {noun}", count(total)),
        false => format!("{} of {} {noun}", count(matching), count(total)),
    }
}

/// A run's id for narrow places: the session's first eight characters, and which run of that session it is.
pub fn short_id(id: &str) -> String {
    let (session, rest) = match id.find(':') {
        Some(at) => id.split_at(at),
        None => (id, ""),
    };
    if session.chars().count() <= 12 {
        return id.to_owned();
    }
    let head: String = session.chars().take(8).collect();
    format!("{head}…{rest}")
}

/// A checkpoint's name without the segment that says its kind: `0040` for `weights/0040`.
pub fn checkpoint_name(checkpoint_id: &str) -> &str {
    checkpoint_id.rsplit_once('/').map_or(checkpoint_id, |(_, name)| name)
}

/// A name that somebody has chosen, which may be of blanks alone.
pub fn named(name: &str) -> &str {
    if name.trim().is_empty() { "(blank)" } else { name }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    #[test]
    fn relative_times_have_one_unit() {
        let ago = |seconds: i64| relative(NOW, NOW - seconds * SECOND);
        assert_eq!(ago(0), "just now");
        assert_eq!(ago(4), "just now");
        assert_eq!(ago(5), "5 s ago");
        assert_eq!(ago(59), "59 s ago");
        assert_eq!(ago(60), "1 min ago");
        assert_eq!(ago(3599), "59 min ago");
        assert_eq!(ago(3600), "1 h ago");
        assert_eq!(ago(47 * 3600), "47 h ago");
        assert_eq!(ago(48 * 3600), "2 d ago");
        assert_eq!(ago(-30), "just now");
        assert_eq!(ago(-60), "in 1 min");
    }

    #[test]
    fn extremes_do_not_overflow() {
        assert_eq!(relative(i64::MAX, i64::MIN), format!("{} d ago", i64::MAX / DAY));
        assert!(relative(i64::MIN, i64::MAX).starts_with("in "));
        assert_eq!(until(i64::MAX, i64::MIN), "expired");
    }

    #[test]
    fn expiry_is_told_from_now() {
        assert_eq!(until(NOW, NOW + 7 * DAY), "in 7 d");
        assert_eq!(until(NOW, NOW + 90 * SECOND), "in 1 min");
        assert_eq!(until(NOW, NOW), "expired");
        assert_eq!(until(NOW, NOW - 1), "expired");
    }

    #[test]
    fn a_countdown_has_two_units() {
        let left = |seconds: i64| countdown(NOW, NOW + seconds * SECOND);
        assert_eq!(left(6 * 86_400 + 4 * 3600 + 59), "in 6 d 4 h");
        assert_eq!(left(7 * 86_400), "in 7 d");
        assert_eq!(left(249), "in 4 min 9 s");
        assert_eq!(left(9), "in 9 s");
        assert_eq!(left(0), "expired");
        assert_eq!(countdown(NOW, NOW + 1), "in less than a second");
        assert!(countdown(i64::MIN, i64::MAX).starts_with("in "));
    }

    #[test]
    fn exact_times_are_in_the_viewers_zone() {
        let time: Time = "2026-11-23T23:30:05.250Z".parse().unwrap();
        assert_eq!(exact(time, 0), "2026-11-23 23:30:05 UTC");
        assert_eq!(exact(time, 60), "2026-11-24 00:30:05 UTC+01:00");
        assert_eq!(exact(time, -210), "2026-11-23 20:00:05 UTC-03:30");
        assert_eq!(clock(time, 60, time), "00:30:05");
        assert_eq!(clock(time, 60, time.later(Duration::from_secs(86_400))), "2026-11-24 00:30:05");
    }

    #[test]
    fn sizes_have_two_digits_or_three() {
        let cases = [(0, "0 B"), (999, "999 B"), (1000, "1.0 KB"), (34_200, "34 KB"), (999_600, "1.0 MB")];
        for (size, text) in cases {
            assert_eq!(bytes(size), text);
        }
        assert_eq!(bytes(8_460_000), "8.5 MB");
        assert_eq!(bytes(u64::MAX), "18447 PB");
    }

    #[test]
    fn counts_have_thousands() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1204), "1,204");
        assert_eq!(count(100_000), "100,000");
        assert_eq!(counted(1, "run", "runs"), "1 run");
        assert_eq!(counted(0, "run", "runs"), "0 runs");
    }

    #[test]
    fn totals_are_never_hidden() {
        assert_eq!(matching(6, 6), "6 runs");
        assert_eq!(matching(2, 1204), "2 of 1,204 runs");
        assert_eq!(matching(1, 1), "1 run");
        assert_eq!(matching(0, 0), "0 runs");
    }

    #[test]
    fn ids_stay_recognisable() {
        assert_eq!(short_id("3f2a9c1e-7b3d-4e55-9a0b-1c2d3e4f5a6b:train:0"), "3f2a9c1e…:train:0");
        assert_eq!(short_id("demo:train:0"), "demo:train:0");
        assert_eq!(short_id("äöüäöüäöüäöüä"), "äöüäöüäö…");
        assert_eq!(short_id(""), "");
        assert_eq!(checkpoint_name("weights/0040"), "0040");
        assert_eq!(checkpoint_name("0040"), "0040");
    }

    #[test]
    fn a_name_of_blanks_can_be_seen() {
        assert_eq!((named(" a "), named(""), named(" \u{2003}\t")), (" a ", "(blank)", "(blank)"));
    }
}
