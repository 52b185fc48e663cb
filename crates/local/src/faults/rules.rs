//! What is to go wrong, and how often: kept in memory only, and asked before each request and each piece of work.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use retinker_wire::future::{QueueState, RequestErrorCategory};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::FaultError;
use crate::futures::Outcome;
use crate::sync::lock;

/// Where the protocol's endpoints are: what patterns leave out.
pub(crate) const API_PREFIX: &str = "/api/v1/";
/// The operations that can be failed. `*` means all of them.
pub(crate) const OPERATIONS: [&str; 9] = [
    "*",
    "create_model",
    "forward",
    "forward_backward",
    "load_weights",
    "optim_step",
    "sample",
    "save_weights",
    "save_weights_for_sampler",
];
/// The longest delay: clients give up long before.
const LONGEST_DELAY_MS: u64 = 600_000;

/// What happens to the next requests of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestRule {
    /// The path below `/api/v1`, where `*` stands for anything: `forward_backward`, `training_runs/*`, `*`.
    pub endpoint: String,
    /// Only requests of this method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// How many requests it still happens to.
    #[serde(default = "once")]
    pub times: u32,
    /// What happens to them.
    pub fault: RequestFault,
}

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RequestFault {
    /// It is answered with an error and not applied.
    Fail {
        /// The status, 400 to 599.
        status: u16,
        /// The value of `Retry-After`, in seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after: Option<u64>,
        /// Whether the answer has no body, as when a proxy fails.
        #[serde(default)]
        empty_body: bool,
    },
    /// It is held for a while, then applied.
    Delay {
        /// For how long.
        milliseconds: u64,
    },
    /// Its connection breaks, and it has no answer at all.
    Drop {
        /// Whether it is applied all the same.
        when: DropWhen,
    },
}

/// When a connection breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropWhen {
    /// Before the request is applied: it never is.
    Before,
    /// After it was applied, before the answer is sent.
    After,
}

/// What happens to the next operations, when their turn comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperationRule {
    /// `forward_backward`, `optim_step`, `save_weights`, ...; `*` for all.
    pub operation: String,
    /// Only those of this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// How many operations it still happens to.
    #[serde(default = "once")]
    pub times: u32,
    /// Whose fault the failure is said to be.
    #[serde(default = "server")]
    pub category: RequestErrorCategory,
    /// What the failure says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Whether the run is lost by it: what it had in memory is gone, and the requests that wait fail.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub corrupts: bool,
}

/// A pause of all work: what was accepted waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// What clients are told while they wait: `paused_capacity` or `paused_rate_limit`.
    #[serde(default = "capacity")]
    pub queue_state: QueueState,
    /// The sentence that goes with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For how many seconds; `None` = until it is resumed. In a list: how many are left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

/// What is going wrong, or will.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ActiveFaults {
    /// What happens to requests, oldest first.
    #[serde(default)]
    pub requests: Vec<RequestRule>,
    /// What happens to operations, oldest first.
    #[serde(default)]
    pub operations: Vec<OperationRule>,
    /// How many loads still leave the optimizer's state behind.
    #[serde(default)]
    pub cold_loads: u32,
    /// By which part of itself each number that a pass gives may be off; 0 = it is what was computed.
    #[serde(default)]
    pub noise: f64,
    /// The pause, while there is one.
    #[serde(default)]
    pub pause: Option<Pause>,
}

fn once() -> u32 {
    1
}

fn server() -> RequestErrorCategory {
    RequestErrorCategory::Server
}

fn capacity() -> QueueState {
    QueueState::PausedCapacity
}

impl RequestRule {
    /// One request of this endpoint, whatever its method.
    pub fn new(endpoint: impl Into<String>, fault: RequestFault) -> Self {
        Self { endpoint: endpoint.into(), method: None, times: 1, fault }
    }

    /// So many requests.
    pub fn times(self, times: u32) -> Self {
        Self { times, ..self }
    }

    /// The endpoint as it is compared: a path below [`API_PREFIX`], however it was given.
    pub(crate) fn pattern(&self) -> &str {
        let endpoint = self.endpoint.trim_start_matches('/');
        endpoint.strip_prefix(API_PREFIX.trim_start_matches('/')).unwrap_or(endpoint)
    }

    /// The rule in its usual form, or what is wrong with it.
    fn checked(mut self) -> Result<Self, String> {
        let endpoint = self.pattern();
        if endpoint.is_empty() || endpoint.contains(char::is_whitespace) {
            return Err(format!(
                "endpoint must be a path below {API_PREFIX}, such as forward_backward or training_runs/*, not '{}'",
                self.endpoint
            ));
        }
        self.endpoint = endpoint.to_owned();
        if let Some(method) = &mut self.method {
            method.make_ascii_uppercase();
            if !["GET", "POST", "PUT", "DELETE"].contains(&method.as_str()) {
                return Err(format!("method must be one of GET, POST, PUT, DELETE, not '{method}'"));
            }
        }
        check_times(self.times)?;
        match self.fault {
            RequestFault::Fail { status, .. } if !(400..=599).contains(&status) => {
                Err(format!("status must be from 400 to 599, not {status}"))
            }
            RequestFault::Delay { milliseconds } if milliseconds > LONGEST_DELAY_MS => {
                Err(format!("milliseconds must be at most {LONGEST_DELAY_MS}, not {milliseconds}"))
            }
            _ => Ok(self),
        }
    }

    fn matches(&self, method: &str, endpoint: &str) -> bool {
        self.method.as_deref().is_none_or(|wanted| wanted == method) && matches(&self.endpoint, endpoint)
    }
}

impl OperationRule {
    /// One operation of this name, of any run, failed by the service.
    pub fn new(operation: impl Into<String>) -> Self {
        Self {
            operation: operation.into(),
            run_id: None,
            times: 1,
            category: server(),
            message: None,
            corrupts: false,
        }
    }

    fn checked(self) -> Result<Self, String> {
        if !OPERATIONS.contains(&self.operation.as_str()) {
            let known = OPERATIONS.join(", ");
            return Err(format!("operation must be one of {known}, not '{}'", self.operation));
        }
        if let RequestErrorCategory::Other(category) = &self.category {
            return Err(format!("category must be one of server, user, unknown, not '{category}'"));
        }
        check_times(self.times)?;
        Ok(self)
    }

    fn matches(&self, operation: &str, run_id: &str) -> bool {
        (self.operation == "*" || self.operation == operation)
            && self.run_id.as_deref().is_none_or(|wanted| wanted == run_id)
    }

    fn outcome(&self, operation: &str) -> Outcome {
        let message = self.message.clone();
        Outcome::Failed {
            message: message.unwrap_or_else(|| format!("{operation} failed on purpose, by a fault rule")),
            category: self.category.clone(),
        }
    }
}

impl Default for Pause {
    fn default() -> Self {
        Self { queue_state: capacity(), reason: None, seconds: None }
    }
}

impl Pause {
    fn checked(self) -> Result<Self, String> {
        if !matches!(self.queue_state, QueueState::PausedCapacity | QueueState::PausedRateLimit) {
            return Err(format!(
                "queue_state must be paused_capacity or paused_rate_limit, not '{}'",
                self.queue_state
            ));
        }
        if self.seconds == Some(0) {
            return Err("seconds must be at least 1; leave it out to pause until resumed".to_owned());
        }
        Ok(self)
    }
}

fn check_times(times: u32) -> Result<(), String> {
    if times == 0 { Err("times must be at least 1, not 0".to_owned()) } else { Ok(()) }
}

/// Whether a pattern with `*` stands for this text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        // The first place is as good as any: the stars around it take the rest.
        let Some((_, after)) = text.split_once(part) else { return false };
        text = after;
    }
    text.ends_with(end)
}

/// The rules of one service.
#[derive(Debug)]
pub(crate) struct Rules {
    /// Whether the service was started with faults.
    enabled: bool,
    /// Whether there are any, so that requests need no lock while there are none.
    any: AtomicBool,
    rules: Mutex<Standing>,
    pause: watch::Sender<Option<Paused>>,
}

#[derive(Debug, Clone, Default)]
struct Standing {
    requests: Vec<RequestRule>,
    operations: Vec<OperationRule>,
    cold_loads: u32,
    noise: f64,
}

#[derive(Debug, Clone)]
struct Paused {
    pause: Pause,
    until: Option<Instant>,
}

impl Rules {
    /// No rules yet. There never will be any unless `enabled`.
    pub(crate) fn new(enabled: bool) -> Self {
        Self {
            enabled,
            any: AtomicBool::new(false),
            rules: Mutex::default(),
            pause: watch::Sender::new(None),
        }
    }

    /// Whether the service was started with faults.
    pub(crate) fn enabled(&self) -> bool {
        self.enabled
    }

    fn change<T>(&self, change: impl FnOnce(&mut Standing) -> T) -> T {
        let mut rules = lock(&self.rules);
        let changed = change(&mut rules);
        let any = !rules.requests.is_empty()
            || !rules.operations.is_empty()
            || rules.cold_loads > 0
            || rules.noise > 0.0;
        self.any.store(any, Ordering::Release);
        changed
    }

    fn check<T>(&self, rule: Result<T, String>) -> Result<T, FaultError> {
        if !self.enabled {
            return Err(FaultError::Off);
        }
        rule.map_err(FaultError::Invalid)
    }

    pub(super) fn add_request_rule(&self, rule: RequestRule) -> Result<(), FaultError> {
        let rule = self.check(rule.checked())?;
        self.change(|rules| rules.requests.push(rule));
        Ok(())
    }

    pub(super) fn add_operation_rule(&self, rule: OperationRule) -> Result<(), FaultError> {
        let rule = self.check(rule.checked())?;
        self.change(|rules| rules.operations.push(rule));
        Ok(())
    }

    pub(super) fn add_cold_loads(&self, times: u32) -> Result<(), FaultError> {
        self.check(check_times(times))?;
        self.change(|rules| rules.cold_loads = rules.cold_loads.saturating_add(times));
        Ok(())
    }

    pub(super) fn set_noise(&self, noise: f64) -> Result<(), FaultError> {
        let sound = (0.0..=1.0).contains(&noise);
        self.check(sound.then_some(()).ok_or_else(|| format!("relative must be from 0 to 1, not {noise}")))?;
        self.change(|rules| rules.noise = noise);
        Ok(())
    }

    pub(super) fn pause(&self, pause: Pause) -> Result<(), FaultError> {
        let pause = self.check(pause.checked())?;
        // A pause longer than the clock can tell has no end.
        let until =
            pause.seconds.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
        self.pause.send_replace(Some(Paused { pause, until }));
        Ok(())
    }

    /// Ends the pause. Trainers have to be woken by whoever calls this.
    pub(super) fn resume(&self) {
        self.pause.send_replace(None);
    }

    pub(super) fn clear(&self) {
        self.change(|rules| *rules = Standing::default());
        self.resume();
    }

    pub(super) fn active(&self) -> ActiveFaults {
        let Standing { requests, operations, cold_loads, noise } = lock(&self.rules).clone();
        ActiveFaults { requests, operations, cold_loads, noise, pause: self.paused() }
    }

    /// What happens to a request, in this order. Each rule that takes part has one time less to go; the first that keeps
    /// the request from its answer is the last.
    pub(crate) fn of_request(&self, method: &str, endpoint: &str) -> Vec<RequestFault> {
        if !self.any.load(Ordering::Acquire) {
            return Vec::new();
        }
        self.change(|rules| {
            let mut faults = Vec::new();
            for rule in rules.requests.iter_mut().filter(|rule| rule.matches(method, endpoint)) {
                rule.times -= 1;
                faults.push(rule.fault);
                if !matches!(rule.fault, RequestFault::Delay { .. }) {
                    break;
                }
            }
            rules.requests.retain(|rule| rule.times > 0);
            faults
        })
    }

    /// How an operation fails instead of being carried out, if so.
    pub(crate) fn of_operation(&self, operation: &str, run_id: &str) -> Option<Outcome> {
        self.failing(operation, run_id, false)
    }

    /// The same of one by which its run is lost.
    pub(crate) fn of_loss(&self, operation: &str, run_id: &str) -> Option<Outcome> {
        self.failing(operation, run_id, true)
    }

    fn failing(&self, operation: &str, run_id: &str, corrupts: bool) -> Option<Outcome> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        self.change(|rules| {
            let mut fitting = rules.operations.iter_mut().filter(|rule| rule.corrupts == corrupts);
            let rule = fitting.find(|rule| rule.matches(operation, run_id))?;
            rule.times -= 1;
            let outcome = rule.outcome(operation);
            rules.operations.retain(|rule| rule.times > 0);
            Some(outcome)
        })
    }

    /// By which part of itself each number that a pass gives may be off.
    pub(crate) fn noise(&self) -> f64 {
        if !self.any.load(Ordering::Acquire) {
            return 0.0;
        }
        lock(&self.rules).noise
    }

    /// Whether a load that is to bring the optimizer's state leaves it behind.
    pub(crate) fn of_load(&self) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        self.change(|rules| {
            let cold = rules.cold_loads > 0;
            rules.cold_loads = rules.cold_loads.saturating_sub(1);
            cold
        })
    }

    /// The pause, while there is one.
    pub(crate) fn paused(&self) -> Option<Pause> {
        let paused = self.pause.borrow();
        let Paused { pause, until } = paused.as_ref()?;
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return None;
        }
        let seconds = left.map(|left| left.as_secs() + u64::from(left.subsec_nanos() > 0));
        Some(Pause { seconds, ..pause.clone() })
    }

    /// How long work rests from now, unless it is resumed sooner; `None` while there is no pause.
    pub(crate) fn rest(&self) -> Option<Duration> {
        /// A pause without an end is looked at again after this.
        const ENDLESS: Duration = Duration::from_secs(3600);
        let paused = self.pause.borrow();
        let until = paused.as_ref()?.until;
        let left = until.map_or(ENDLESS, |until| until.saturating_duration_since(Instant::now()));
        (!left.is_zero()).then_some(left)
    }

    /// Resolves when there is a pause.
    pub(crate) async fn wait_for_pause(&self) {
        let mut watched = self.pause.subscribe();
        loop {
            if self.rest().is_some() {
                return;
            }
            // The sender is this one: it cannot go away in between.
            let _ = watched.changed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAIL: RequestFault = RequestFault::Fail { status: 503, retry_after: None, empty_body: false };
    const DELAY: RequestFault = RequestFault::Delay { milliseconds: 1 };

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text, expected) in [
            ("forward_backward", "forward_backward", true),
            ("forward", "forward_backward", false),
            ("backward", "forward_backward", false),
            ("*", "training_runs/a/checkpoints/weights/b", true),
            ("training_runs/*", "training_runs/a/checkpoints", true),
            ("training_runs/*", "training_runs", false),
            ("training_runs/*/checkpoints", "training_runs/a/checkpoints", true),
            ("training_runs/*/checkpoints", "training_runs/a/checkpoints/b", false),
            ("*weights*", "save_weights_for_sampler", true),
            ("s*e*s", "save_weights", true),
            ("aa*aa", "aaa", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn rules_apply_in_order_and_as_often_as_they_say() {
        let rules = Rules::new(true);
        assert_eq!(rules.of_request("POST", "optim_step"), []);
        rules.add_request_rule(RequestRule::new("optim_step", DELAY).times(2)).unwrap();
        rules.add_request_rule(RequestRule::new("/api/v1/*", FAIL)).unwrap();
        let get = RequestRule { method: Some("get".into()), ..RequestRule::new("*", FAIL) };
        rules.add_request_rule(get).unwrap();
        assert_eq!(rules.of_request("POST", "optim_step"), [DELAY, FAIL]);
        assert_eq!(rules.of_request("POST", "optim_step"), [DELAY]);
        assert_eq!(rules.of_request("POST", "optim_step"), []);
        assert_eq!(rules.active().requests.len(), 1);
        assert_eq!(rules.of_request("GET", "healthz"), [FAIL]);
        assert_eq!(rules.active(), ActiveFaults::default());
    }

    #[test]
    fn operations_fail_by_name_and_run() {
        let rules = Rules::new(true);
        let rule = OperationRule {
            run_id: Some("r".into()),
            category: RequestErrorCategory::User,
            message: Some("no".into()),
            ..OperationRule::new("optim_step")
        };
        rules.add_operation_rule(rule).unwrap();
        assert!(rules.of_operation("forward_backward", "r").is_none());
        assert!(rules.of_operation("optim_step", "other").is_none());
        let Some(Outcome::Failed { message, category }) = rules.of_operation("optim_step", "r") else {
            panic!("it was carried out")
        };
        assert_eq!((message.as_str(), category), ("no", RequestErrorCategory::User));
        assert!(rules.of_operation("optim_step", "r").is_none());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let rules = Rules::new(true);
        let fail = |status| RequestFault::Fail { status, retry_after: None, empty_body: false };
        for (rule, said) in [
            (RequestRule::new("*", fail(200)), "status must be from 400 to 599, not 200"),
            (RequestRule::new("*", FAIL).times(0), "times must be at least 1, not 0"),
            (RequestRule::new("/api/v1/", FAIL), "endpoint must be a path"),
            (
                RequestRule { method: Some("GRAB".into()), ..RequestRule::new("*", FAIL) },
                "method must be one of GET, POST, PUT, DELETE, not 'GRAB'",
            ),
        ] {
            let Err(FaultError::Invalid(reason)) = rules.add_request_rule(rule) else { panic!("{said}") };
            assert!(reason.starts_with(said), "{reason}");
        }
        let Err(FaultError::Invalid(reason)) = rules.add_operation_rule(OperationRule::new("optimstep"))
        else {
            panic!("an unknown operation was taken")
        };
        assert!(reason.contains("optim_step") && reason.ends_with("not 'optimstep'"), "{reason}");
        let pause = Pause { queue_state: QueueState::Active, ..Pause::default() };
        assert!(matches!(rules.pause(pause), Err(FaultError::Invalid(_))));
        assert_eq!(rules.active(), ActiveFaults::default());
        let off = Rules::new(false);
        assert_eq!(off.add_request_rule(RequestRule::new("*", FAIL)), Err(FaultError::Off));
        assert_eq!(off.pause(Pause::default()), Err(FaultError::Off));
    }

    #[test]
    fn a_pause_ends_when_its_time_has_come_or_it_is_resumed() {
        let rules = Rules::new(true);
        assert_eq!((rules.paused(), rules.rest()), (None, None));
        rules.pause(Pause { seconds: Some(90), ..Pause::default() }).unwrap();
        assert_eq!(rules.paused().unwrap().seconds, Some(90));
        rules.resume();
        assert_eq!((rules.paused(), rules.rest()), (None, None));
        let past = Paused { pause: Pause::default(), until: Some(Instant::now()) };
        rules.pause.send_replace(Some(past));
        assert_eq!((rules.paused(), rules.rest()), (None, None));
        rules.pause(Pause::default()).unwrap();
        assert_eq!(rules.paused().unwrap().seconds, None);
        rules.clear();
        assert_eq!(rules.rest(), None);
    }
}
