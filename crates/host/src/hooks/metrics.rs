//! What a monitor counts, for Prometheus.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use retinker::recovery::events::{EventKind, EventSink, RecoveryEvent};
use retinker::recovery::health::Health;
use retinker::recovery::restore::RestoreState;
use retinker::wire::time::Time;

/// Upper bounds for the time from a detection to an adoption, in seconds.
const BOUNDS: [f64; 12] = [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];

/// Most runs whose detection is remembered; of more that are poisoned at once, the time to adoption is not measured.
const REMEMBERED: usize = 100_000;

/// One label, of names that are known when the program is built.
type Label = [(&'static str, &'static str); 1];

/// Counters of a monitor, in the text format 0.0.4 of Prometheus. Each series is there from the beginning, with 0.
///
/// | Name | Kind | What |
/// |---|---|---|
/// | `retinker_recovery_events_total{event}` | counter | Events told by this process. |
/// | `retinker_recovery_seconds` | histogram | From `detected` to `completed`, where this process told both. |
/// | `retinker_restores{state}` | gauge | Restores in the journal; see [`set_restores`](Self::set_restores). |
/// | `retinker_runs{health}` | gauge | Runs of the service; see [`set_runs`](Self::set_runs). |
/// | `retinker_rounds_total{outcome}` | counter | Readings of the runs: `read` or `failed`. |
/// | `retinker_round_requests` | gauge | Requests of the last round. |
/// | `retinker_last_round_timestamp_seconds` | gauge | When a round last succeeded, since 1970; 0 = never. |
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    events: Family<Label, Counter>,
    seconds: Histogram,
    restores: Family<Label, Gauge>,
    runs: Family<Label, Gauge>,
    rounds: Family<Label, Counter>,
    round_requests: Gauge,
    last_round: Gauge,
    /// When runs that are not restored yet were detected.
    detected: Mutex<HashMap<String, Time>>,
}

impl Metrics {
    /// What an answer with [`render`](Self::render)'s text says it is.
    pub const CONTENT_TYPE: &'static str = prometheus_text::CONTENT_TYPE;

    /// Everything 0.
    pub fn new() -> Self {
        let metrics = Self {
            registry: Registry::with_prefix("retinker"),
            events: Family::default(),
            seconds: Histogram::new(BOUNDS),
            restores: Family::default(),
            runs: Family::default(),
            rounds: Family::default(),
            round_requests: Gauge::default(),
            last_round: Gauge::default(),
            detected: Mutex::default(),
        };
        // Asked for, a series is there.
        for kind in EventKind::ALL {
            drop(metrics.events.get_or_create(&event(kind)));
        }
        for outcome in [READ, FAILED] {
            drop(metrics.rounds.get_or_create(&outcome));
        }
        metrics.set_restores([]);
        metrics.set_runs([]);
        metrics.registered()
    }

    fn registered(mut self) -> Self {
        let r = &mut self.registry;
        r.register("recovery_events", "Events of poisoned runs and their restores", self.events.clone());
        r.register(
            "recovery_seconds",
            "From the detection of a poisoned run to the adoption of the new one",
            self.seconds.clone(),
        );
        r.register("restores", "Restores in the journal, by state", self.restores.clone());
        r.register("runs", "Runs of the service, by health", self.runs.clone());
        r.register("rounds", "Readings of the service's runs, by outcome", self.rounds.clone());
        r.register("round_requests", "Requests of the last round", self.round_requests.clone());
        r.register(
            "last_round_timestamp_seconds",
            "When a round last succeeded, in seconds since 1970",
            self.last_round.clone(),
        );
        self
    }

    /// Notes the state of each restore in the journal.
    pub fn set_restores(&self, states: impl IntoIterator<Item = RestoreState>) {
        set(&self.restores, states, RestoreState::ALL, |state| [("state", state.as_str())]);
    }

    /// Notes the health of each run.
    pub fn set_runs(&self, healths: impl IntoIterator<Item = Health>) {
        set(&self.runs, healths, Health::ALL, |health| [("health", health.as_str())]);
    }

    /// Notes a round that has read all runs, with so many requests; `at` is when it ended.
    pub fn round_read(&self, requests: u64, at: Time) {
        self.round(&READ, requests);
        self.last_round.set(at.as_millis().div_euclid(1000));
    }

    /// Notes a round that could not read all runs, and how many requests it sent.
    pub fn round_failed(&self, requests: u64) {
        self.round(&FAILED, requests);
    }

    fn round(&self, outcome: &Label, requests: u64) {
        self.rounds.get_or_create(outcome).inc();
        self.round_requests.set(i64::try_from(requests).unwrap_or(i64::MAX));
    }

    /// All of it as text, of the type [`CONTENT_TYPE`](Self::CONTENT_TYPE).
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = prometheus_text::encode(&mut text, &self.registry);
        text
    }

    /// Measures from a run's detection to its adoption.
    fn measure(&self, told: &RecoveryEvent) {
        let mut detected = self.detected.lock().unwrap_or_else(PoisonError::into_inner);
        match told.event {
            EventKind::Detected if detected.len() < REMEMBERED => {
                detected.entry(told.run_id.clone()).or_insert(told.at);
            }
            EventKind::Completed => {
                if let Some(since) = detected.remove(&told.run_id) {
                    let took = told.at.as_millis().saturating_sub(since.as_millis());
                    self.seconds.observe(took.max(0) as f64 / 1000.0);
                }
            }
            EventKind::Exhausted => {
                detected.remove(&told.run_id);
            }
            _ => {}
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl EventSink for Metrics {
    fn tell(&self, told: &RecoveryEvent) {
        self.events.get_or_create(&event(told.event)).inc();
        self.measure(told);
    }
}

const READ: Label = [("outcome", "read")];
const FAILED: Label = [("outcome", "failed")];

fn event(kind: EventKind) -> Label {
    [("event", kind.as_str())]
}

/// Sets each of a family's gauges to how many of the items are of its kind.
fn set<T: Copy + Eq + Hash + Debug, const N: usize>(
    family: &Family<Label, Gauge>,
    items: impl IntoIterator<Item = T>,
    all: [T; N],
    label: impl Fn(T) -> Label,
) {
    let mut counts = HashMap::<T, i64>::new();
    for item in items {
        *counts.entry(item).or_default() += 1;
    }
    for kind in all {
        family.get_or_create(&label(kind)).set(counts.get(&kind).copied().unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::event;
    use super::*;

    fn has(metrics: &Metrics, line: &str) {
        let text = metrics.render();
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }

    fn at(kind: EventKind, run: &str, millis: i64) -> RecoveryEvent {
        RecoveryEvent { at: Time::from_millis(millis), ..event(kind, run) }
    }

    #[test]
    fn every_series_is_there_from_the_beginning() {
        let metrics = Metrics::new();
        for kind in EventKind::ALL {
            has(&metrics, &format!("retinker_recovery_events_total{{event=\"{}\"}} 0", kind.as_str()));
        }
        for health in Health::ALL {
            has(&metrics, &format!("retinker_runs{{health=\"{}\"}} 0", health.as_str()));
        }
        for state in RestoreState::ALL {
            has(&metrics, &format!("retinker_restores{{state=\"{}\"}} 0", state.as_str()));
        }
        has(&metrics, "# TYPE retinker_recovery_events_total counter");
        has(&metrics, "# TYPE retinker_recovery_seconds histogram");
        has(&metrics, "# TYPE retinker_runs gauge");
        has(&metrics, "retinker_recovery_seconds_count 0");
        has(&metrics, "retinker_rounds_total{outcome=\"read\"} 0");
        has(&metrics, "retinker_rounds_total{outcome=\"failed\"} 0");
        has(&metrics, "retinker_last_round_timestamp_seconds 0");
    }

    #[test]
    fn events_are_counted_and_recoveries_measured() {
        let metrics = Metrics::new();
        metrics.tell(&at(EventKind::Detected, "a", 1_000));
        metrics.tell(&at(EventKind::Detected, "b", 2_000));
        metrics.tell(&at(EventKind::Failed, "a", 3_000));
        metrics.tell(&at(EventKind::Completed, "a", 5_500));
        metrics.tell(&at(EventKind::Exhausted, "b", 6_000));
        metrics.tell(&at(EventKind::Completed, "c", 9_000));
        has(&metrics, "retinker_recovery_events_total{event=\"detected\"} 2");
        has(&metrics, "retinker_recovery_events_total{event=\"completed\"} 2");
        has(&metrics, "retinker_recovery_events_total{event=\"protected\"} 0");
        // Only of `a` are both ends known.
        has(&metrics, "retinker_recovery_seconds_sum 4.5");
        has(&metrics, "retinker_recovery_seconds_count 1");
        has(&metrics, "retinker_recovery_seconds_bucket{le=\"2\"} 0");
        has(&metrics, "retinker_recovery_seconds_bucket{le=\"5\"} 1");
        has(&metrics, "retinker_recovery_seconds_bucket{le=\"+Inf\"} 1");
        assert!(metrics.detected.lock().unwrap().is_empty());
    }

    #[test]
    fn a_clock_that_goes_back_is_no_negative_time() {
        let metrics = Metrics::new();
        metrics.tell(&at(EventKind::Detected, "a", 5_000));
        metrics.tell(&at(EventKind::Completed, "a", 1_000));
        has(&metrics, "retinker_recovery_seconds_sum 0.0");
        has(&metrics, "retinker_recovery_seconds_count 1");
    }

    #[test]
    fn gauges_are_what_was_set_last() {
        let metrics = Metrics::new();
        metrics.set_runs([Health::Healthy, Health::Poisoned, Health::Healthy]);
        metrics.set_restores([RestoreState::Loading, RestoreState::Failed]);
        has(&metrics, "retinker_runs{health=\"healthy\"} 2");
        has(&metrics, "retinker_runs{health=\"poisoned\"} 1");
        has(&metrics, "retinker_restores{state=\"loading\"} 1");
        metrics.set_runs([Health::Recovered]);
        has(&metrics, "retinker_runs{health=\"healthy\"} 0");
        has(&metrics, "retinker_runs{health=\"poisoned\"} 0");
        has(&metrics, "retinker_runs{health=\"recovered\"} 1");
    }

    #[test]
    fn a_round_that_failed_does_not_look_like_a_good_one() {
        let metrics = Metrics::new();
        metrics.round_read(101, Time::from_millis(1_700_000_000_999));
        metrics.round_failed(7);
        has(&metrics, "retinker_rounds_total{outcome=\"read\"} 1");
        has(&metrics, "retinker_rounds_total{outcome=\"failed\"} 1");
        has(&metrics, "retinker_round_requests 7");
        has(&metrics, "retinker_last_round_timestamp_seconds 1700000000");
    }
}
