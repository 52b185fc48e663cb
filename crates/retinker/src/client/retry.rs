//! When a request is sent again. The policy decides and knows no clock; the loop in `call` sleeps.

use std::time::Duration;

/// What came of one attempt that was not a success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The transport failed. `built` is false when the request could not even be built.
    Transport {
        /// Whether there was a request to send.
        built: bool,
    },
    /// No answer in time.
    TimedOut,
    /// An answer that is not a success.
    Status {
        /// The status.
        status: u16,
        /// What `retry-after-ms` or `retry-after` says.
        retry_after: Option<Duration>,
        /// What `x-should-retry` says.
        should_retry: Option<bool>,
        /// The body is empty: a 400 like that comes from a proxy, not from the service.
        empty: bool,
    },
}

/// What was spent on a call so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spent {
    /// Retries made.
    pub retries: u32,
    /// Answers of 409 among the attempts, this one included.
    pub conflicts: u32,
    /// Time since the call began, without the pauses for billing.
    pub elapsed: Duration,
    /// Time spent in pauses for billing (402).
    pub paused: Duration,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Give up: the outcome is the call's outcome.
    Stop,
    /// Sleep this long, then try again.
    After(Duration),
}

/// The budget of sending a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    /// Time after which no attempt is begun any more; 300 s, as in the official SDK.
    pub budget: Duration,
    /// Most retries; unbounded by default, as the time is what bounds them.
    pub max_retries: u32,
    /// Most retries after 409. The official SDK goes on for its whole budget and keeps a run's later operations
    /// waiting for minutes on a name that is taken; 2 is enough for a conflict that passes.
    pub max_conflicts: u32,
    /// The first delay; 0.5 s. It doubles each time.
    pub first_delay: Duration,
    /// The longest delay; 10 s.
    pub max_delay: Duration,
    /// How long a call that can wait for billing (402) does so in all; `None` = as long as the service's client config says,
    /// and an hour while it has not said.
    pub billing_pause: Option<Duration>,
}

/// How long billing is waited for in all where nobody says otherwise; as in the official SDK.
pub(crate) const BILLING_PAUSE: Duration = Duration::from_secs(3600);

/// How long one pause for billing is.
pub(crate) const BILLING_SLEEP: Duration = Duration::from_secs(5);

/// The longest wait that a server can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            budget: Duration::from_secs(300),
            max_retries: u32::MAX,
            max_conflicts: 2,
            first_delay: Duration::from_millis(500),
            max_delay: Duration::from_secs(10),
            billing_pause: None,
        }
    }
}

impl RetryPolicy {
    /// One attempt and no more.
    pub fn none() -> Self {
        Self { max_retries: 0, billing_pause: Some(Duration::ZERO), ..Self::default() }
    }

    /// For a person who waits in front of a screen: two retries within 5 s.
    pub fn interactive() -> Self {
        Self {
            budget: Duration::from_secs(5),
            max_retries: 2,
            max_conflicts: 0,
            billing_pause: Some(Duration::ZERO),
            ..Self::default()
        }
    }

    /// Whether and when to try again. `random` is 64 random bits, for the jitter.
    pub fn decide(&self, spent: &Spent, outcome: &Outcome, random: u64) -> Decision {
        let asked = match *outcome {
            Outcome::Transport { built } => {
                if !built {
                    return Decision::Stop;
                }
                None
            }
            Outcome::TimedOut => None,
            Outcome::Status { status, retry_after, should_retry, empty } => {
                if status == 402 && should_retry != Some(false) {
                    return if spent.paused < self.billing_pause.unwrap_or(BILLING_PAUSE) {
                        Decision::After(BILLING_SLEEP)
                    } else {
                        Decision::Stop
                    };
                }
                let by_status = match status {
                    400 => empty,
                    409 => spent.conflicts <= self.max_conflicts,
                    408 | 429 => true,
                    _ => status >= 500,
                };
                if !should_retry.unwrap_or(by_status) {
                    return Decision::Stop;
                }
                retry_after.filter(|d| !d.is_zero() && *d <= MAX_RETRY_AFTER)
            }
        };
        if spent.retries >= self.max_retries {
            return Decision::Stop;
        }
        let delay = asked.unwrap_or_else(|| backoff(self.first_delay, self.max_delay, spent.retries, random));
        if spent.elapsed + delay > self.budget { Decision::Stop } else { Decision::After(delay) }
    }
}

/// Up to which part of it a delay is shorter by chance; as in the official SDK.
pub(crate) const JITTER: f64 = 0.25;

/// `first * 2^n`, at most `max`, less up to a quarter of it by chance. `random` is 64 random bits.
pub fn backoff(first: Duration, max: Duration, n: u32, random: u64) -> Duration {
    jittered(first, max, JITTER, n, random)
}

/// The same with another part of chance, from 0 to 1.
pub(crate) fn jittered(first: Duration, max: Duration, jitter: f64, n: u32, random: u64) -> Duration {
    let full = first.saturating_mul(2u32.saturating_pow(n.min(30))).min(max);
    let chance = (random >> 11) as f64 / (1u64 << 53) as f64;
    full.mul_f64((1.0 - jitter.clamp(0.0, 1.0) * chance).clamp(0.0, 1.0))
}

/// Reads `retry-after-ms` and `retry-after` (a number of seconds, or a date as RFC 9110 has it). `None` where nothing is
/// asked for, or what is asked for is over.
pub fn retry_after(
    millis: Option<&str>,
    seconds: Option<&str>,
    now: retinker_wire::time::Time,
) -> Option<Duration> {
    let positive = |s: f64| (s.is_finite() && s > 0.0).then(|| Duration::try_from_secs_f64(s).ok()).flatten();
    if let Some(ms) = millis.and_then(|t| t.trim().parse::<f64>().ok()) {
        return positive(ms / 1000.0);
    }
    let text = seconds?.trim();
    if let Ok(secs) = text.parse::<f64>() {
        return positive(secs);
    }
    let at = http_date(text)?;
    positive((at - now.as_millis()) as f64 / 1000.0)
}

/// The milliseconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT`, the only form of date that is sent today.
fn http_date(text: &str) -> Option<i64> {
    let rest = text.split_once(", ")?.1.strip_suffix(" GMT")?;
    let mut parts = rest.split(' ');
    let (day, month, year, clock) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = MONTHS.iter().position(|m| *m == month)? + 1;
    format!("{year}-{month:02}-{day}T{clock}Z")
        .parse::<retinker_wire::time::Time>()
        .ok()
        .map(|t| t.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::test;
    use retinker_wire::time::Time;

    fn status(status: u16) -> Outcome {
        Outcome::Status { status, retry_after: None, should_retry: None, empty: false }
    }

    fn spent(retries: u32, elapsed: u64) -> Spent {
        Spent { retries, conflicts: 1, elapsed: Duration::from_secs(elapsed), paused: Duration::ZERO }
    }

    fn stops(outcome: Outcome) -> bool {
        RetryPolicy::default().decide(&spent(0, 0), &outcome, 0) == Decision::Stop
    }

    #[test]
    fn what_is_tried_again() {
        for s in [402, 408, 409, 429, 500, 502, 503, 504, 529] {
            assert!(!stops(status(s)), "{s}");
        }
        for s in [301, 400, 401, 403, 404, 405, 410, 422, 425] {
            assert!(stops(status(s)), "{s}");
        }
        assert!(!stops(Outcome::TimedOut));
        assert!(!stops(Outcome::Transport { built: true }));
        assert!(stops(Outcome::Transport { built: false }));
    }

    #[test]
    fn the_server_can_overrule() {
        let with = |s, should| Outcome::Status {
            status: s,
            retry_after: None,
            should_retry: Some(should),
            empty: false,
        };
        assert!(!stops(with(404, true)));
        assert!(stops(with(503, false)));
        assert!(stops(with(402, false)));
    }

    #[test]
    fn an_empty_400_is_a_proxys() {
        let empty = |s| Outcome::Status { status: s, retry_after: None, should_retry: None, empty: true };
        assert!(!stops(empty(400)));
        assert!(stops(empty(404)));
    }

    #[test]
    fn delays_double_up_to_ten_seconds() {
        let policy = RetryPolicy::default();
        let delays: Vec<_> = (0..7)
            .map(|n| policy.decide(&spent(n, 0), &Outcome::TimedOut, 0))
            .map(|d| match d {
                Decision::After(d) => d.as_millis(),
                Decision::Stop => 0,
            })
            .collect();
        assert_eq!(delays, [500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        // All the chance there is takes a quarter off, and no more.
        let Decision::After(least) = policy.decide(&spent(0, 0), &Outcome::TimedOut, u64::MAX) else {
            panic!("stopped");
        };
        assert!(least >= Duration::from_millis(375) && least < Duration::from_millis(376), "{least:?}");
    }

    #[test]
    fn the_budget_ends_it() {
        let policy = RetryPolicy::default();
        assert!(matches!(policy.decide(&spent(0, 299), &Outcome::TimedOut, 0), Decision::After(_)));
        assert_eq!(policy.decide(&spent(0, 300), &Outcome::TimedOut, 0), Decision::Stop);
        // A delay that would end past the budget is not begun.
        assert_eq!(policy.decide(&spent(9, 295), &Outcome::TimedOut, 0), Decision::Stop);
        assert_eq!(RetryPolicy::none().decide(&spent(0, 0), &Outcome::TimedOut, 0), Decision::Stop);
        let policy = RetryPolicy { max_retries: 3, ..policy };
        assert!(matches!(policy.decide(&spent(2, 0), &Outcome::TimedOut, 0), Decision::After(_)));
        assert_eq!(policy.decide(&spent(3, 0), &Outcome::TimedOut, 0), Decision::Stop);
    }

    #[test]
    fn conflicts_have_their_own_bound() {
        let policy = RetryPolicy::default();
        let at = |conflicts| Spent { retries: 0, conflicts, ..Spent::default() };
        assert!(matches!(policy.decide(&at(2), &status(409), 0), Decision::After(_)));
        assert_eq!(policy.decide(&at(3), &status(409), 0), Decision::Stop);
    }

    #[test]
    fn billing_pauses_are_not_counted_against_the_budget() {
        let policy = RetryPolicy::default();
        let late = Spent {
            retries: 9,
            conflicts: 0,
            elapsed: Duration::from_secs(900),
            paused: Duration::from_secs(3599),
        };
        assert_eq!(policy.decide(&late, &status(402), 7), Decision::After(BILLING_SLEEP));
        let over = Spent { paused: Duration::from_secs(3600), ..late };
        assert_eq!(policy.decide(&over, &status(402), 7), Decision::Stop);
    }

    #[test]
    fn what_the_server_asks_for_is_kept_within_a_minute() {
        let now = Time::from_millis(784_111_777_000); // Sun, 06 Nov 1994 08:49:37 GMT
        let secs = |s| Some(Duration::from_secs(s));
        assert_eq!(retry_after(Some("1500"), Some("9"), now), Some(Duration::from_millis(1500)));
        assert_eq!(retry_after(None, Some("9"), now), secs(9));
        assert_eq!(retry_after(None, Some("Sun, 06 Nov 1994 08:50:07 GMT"), now), secs(30));
        assert_eq!(retry_after(None, Some("Sun, 06 Nov 1994 08:49:07 GMT"), now), None);
        for odd in ["soon", "-1", "NaN", "inf", "1e300", ""] {
            assert_eq!(retry_after(None, Some(odd), now), None, "{odd}");
        }
        let policy = RetryPolicy::default();
        let asking = |d| Outcome::Status { status: 429, retry_after: d, should_retry: None, empty: false };
        assert_eq!(
            policy.decide(&spent(0, 0), &asking(secs(60)), 0),
            Decision::After(Duration::from_secs(60))
        );
        let own = Decision::After(Duration::from_millis(500));
        assert_eq!(policy.decide(&spent(0, 0), &asking(secs(61)), 0), own);
        assert_eq!(policy.decide(&spent(0, 0), &asking(None), 0), own);
    }
}
