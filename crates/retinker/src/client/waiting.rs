//! When a future is asked for again: a budget of its own, apart from that of sending a request. The policy
//! decides and knows no clock; the loop in `pending` sleeps.

use std::time::Duration;

use super::retry::{BILLING_PAUSE, BILLING_SLEEP, Decision, backoff};

/// What one question about a future came to, when it was neither a result nor a final no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// Not yet: a 408, or a 200 with `type: "try_again"`.
    NotYet {
        /// What the server asks for, if it does.
        retry_after: Option<Duration>,
    },
    /// A 5xx.
    ServerError,
    /// A 429, no answer in time, no connection, or a 400 without a body.
    Unreachable,
    /// A 400 with a body.
    BadRequest,
    /// A 402.
    Billing,
    /// Anything else: final.
    Final,
}

/// What happened while waiting for one future.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WaitState {
    /// Questions in a row that met no service: unreachable or a 5xx.
    pub failures: u32,
    /// 400s in a row.
    pub bad_requests: u32,
    /// "Not yet" in a row that came at once, although the server should have held the request.
    pub quick: u32,
    /// Time spent in pauses for billing.
    pub paused: Duration,
    /// Time since the service last gave a sensible answer.
    pub silent: Duration,
}

/// The budget of waiting for a future.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitPolicy {
    /// How long the service may give no sensible answer before the wait is given up; half an hour. The official
    /// SDK has no such bound.
    pub patience: Duration,
    /// How long to wait for billing (402) in all; `None` = as long as the service's client config says, and an hour while it
    /// has not said.
    pub billing_pause: Option<Duration>,
    /// How often a 400 is asked again; 3.
    pub max_bad_requests: u32,
}

/// A "not yet" that took less than this was not held by the server.
pub(super) const HELD: Duration = Duration::from_secs(1);
/// The first and the longest sleep after a "not yet" that was not held.
pub(super) const QUICK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// The first and the longest sleep after a failure: `min(2^n, 30)` seconds.
const FAILURE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// The longest sleep that a server can ask for.
const MAX_ASKED: Duration = Duration::from_secs(60);

impl Default for WaitPolicy {
    fn default() -> Self {
        Self { patience: Duration::from_secs(1800), billing_pause: None, max_bad_requests: 3 }
    }
}

impl WaitPolicy {
    /// Whether and when to ask again. `took` is how long the answer took, `random` 64 random bits.
    pub fn decide(&self, state: &mut WaitState, reply: Reply, took: Duration, random: u64) -> Decision {
        match reply {
            Reply::Final => Decision::Stop,
            Reply::NotYet { retry_after } => {
                let quick = state.quick;
                let billed = state.paused;
                *state = WaitState { paused: billed, ..WaitState::default() };
                if let Some(asked) = retry_after.filter(|d| !d.is_zero()) {
                    return Decision::After(asked.min(MAX_ASKED));
                }
                if took >= HELD {
                    return Decision::After(Duration::ZERO);
                }
                state.quick = quick.saturating_add(1);
                Decision::After(backoff(QUICK.0, QUICK.1, quick, random))
            }
            Reply::BadRequest => {
                state.bad_requests += 1;
                if state.bad_requests > self.max_bad_requests {
                    return Decision::Stop;
                }
                Decision::After(backoff(QUICK.0, QUICK.1, state.bad_requests - 1, random))
            }
            Reply::Billing => {
                if state.paused >= self.billing_pause.unwrap_or(BILLING_PAUSE) {
                    return Decision::Stop;
                }
                state.paused += BILLING_SLEEP;
                state.silent = Duration::ZERO;
                Decision::After(BILLING_SLEEP)
            }
            Reply::ServerError | Reply::Unreachable => {
                let n = state.failures;
                state.failures = n.saturating_add(1);
                state.quick = 0;
                let delay = backoff(FAILURE.0, FAILURE.1, n, random);
                state.silent += took + delay;
                if state.silent > self.patience { Decision::Stop } else { Decision::After(delay) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::test;

    const SLOW: Duration = Duration::from_secs(30);
    const NOT_YET: Reply = Reply::NotYet { retry_after: None };

    fn delays(replies: &[(Reply, Duration)]) -> Vec<Option<u128>> {
        let (policy, mut state) = (WaitPolicy::default(), WaitState::default());
        replies
            .iter()
            .map(|(reply, took)| match policy.decide(&mut state, *reply, *took, 0) {
                Decision::After(d) => Some(d.as_millis()),
                Decision::Stop => None,
            })
            .collect()
    }

    #[test]
    fn a_held_not_yet_is_asked_again_at_once() {
        assert_eq!(delays(&[(NOT_YET, SLOW); 3]), [Some(0); 3]);
    }

    #[test]
    fn a_not_yet_that_came_at_once_is_no_busy_loop() {
        let quick = (NOT_YET, Duration::ZERO);
        assert_eq!(
            delays(&[quick, quick, quick, quick, quick, quick, (NOT_YET, SLOW), quick]),
            [50, 100, 200, 400, 800, 1000, 0, 50].map(Some)
        );
    }

    #[test]
    fn the_servers_wish_comes_first() {
        let asked = |ms| Reply::NotYet { retry_after: Some(Duration::from_millis(ms)) };
        assert_eq!(
            delays(&[(asked(250), Duration::ZERO), (asked(3_600_000), SLOW), (asked(0), SLOW)]),
            [250, 60_000, 0].map(Some)
        );
    }

    #[test]
    fn failures_back_off_to_half_a_minute_and_forget() {
        let down = (Reply::Unreachable, Duration::ZERO);
        assert_eq!(
            delays(&[down, down, down, down, down, down, down, (NOT_YET, SLOW), down]),
            [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 0, 1000].map(Some)
        );
        assert_eq!(delays(&[(Reply::ServerError, Duration::ZERO), down]), [1000, 2000].map(Some));
    }

    #[test]
    fn a_400_is_asked_three_times_more() {
        let bad = (Reply::BadRequest, Duration::ZERO);
        assert_eq!(delays(&[bad, bad, bad, bad]), [Some(50), Some(100), Some(200), None]);
        // A "not yet" in between gives the budget back.
        assert_eq!(delays(&[bad, bad, (NOT_YET, SLOW), bad]), [50, 100, 0, 50].map(Some));
    }

    #[test]
    fn silence_ends_it() {
        let (policy, mut state) = (WaitPolicy::default(), WaitState::default());
        let mut asked = 0;
        while policy.decide(&mut state, Reply::Unreachable, Duration::ZERO, 0) != Decision::Stop {
            asked += 1;
        }
        // 1 + 2 + 4 + 8 + 16 = 31 s, then 30 s each, up to 1800 s.
        assert_eq!(asked, 5 + (1800 - 31) / 30);
    }

    #[test]
    fn billing_is_waited_out_for_an_hour() {
        let (policy, mut state) = (WaitPolicy::default(), WaitState::default());
        let mut asked = 0;
        while policy.decide(&mut state, Reply::Billing, Duration::ZERO, 0) == Decision::After(BILLING_SLEEP) {
            asked += 1;
        }
        assert_eq!(asked, 720);
    }

    #[test]
    fn a_final_answer_stops() {
        assert_eq!(delays(&[(Reply::Final, SLOW)]), [None]);
    }
}
