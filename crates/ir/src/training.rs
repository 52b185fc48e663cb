//! Policies: when checkpoints are saved and kept, and how often something is tried again.
//!
//! No program of the platform has these as code; they are read in every spelling that its texts have.

use std::collections::BTreeMap;
use std::time::Duration;

use retinker::recovery::plan::MetricMode;
use retinker::recovery::policy::Policy;
use retinker::recovery::retention::Rule;
use retinker::redo;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{IrError, read};

/// When a checkpoint is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// After so many steps.
    #[default]
    Steps,
    /// After so many epochs.
    Epoch,
    /// When the metric has improved.
    Best,
    /// Never while it trains.
    Last,
    /// After each step.
    All,
}

/// The layout of a checkpoint's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Safetensors: the only one that Tinker has.
    #[default]
    Safetensors,
    /// PyTorch's.
    Pytorch,
    /// llama.cpp's.
    Gguf,
    /// ONNX.
    Onnx,
}

/// When checkpoints are saved, and which are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckpointPolicy {
    /// When; by steps.
    pub strategy: Strategy,
    /// Every so many steps, or epochs; 100.
    pub save_every: u64,
    /// How many of the newest are kept; 5.
    pub keep_last: u64,
    /// Whether the best is kept; yes.
    pub save_best: bool,
    /// By which metric; `loss`.
    pub best_metric: String,
    /// Which of its values are better; low ones.
    pub best_mode: MetricMode,
    /// The layout of its files; safetensors.
    pub format: Format,
    /// Whether it is uploaded to a hub; no.
    pub push_to_hub: bool,
    /// Where to.
    pub hub_repo: Option<String>,
    /// What else the document has: kept as it is, and gone by by nobody here.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Default for CheckpointPolicy {
    fn default() -> Self {
        Self {
            strategy: Strategy::Steps,
            save_every: 100,
            keep_last: 5,
            save_best: true,
            best_metric: "loss".to_owned(),
            best_mode: MetricMode::Min,
            format: Format::Safetensors,
            push_to_hub: false,
            hub_repo: None,
            other: BTreeMap::new(),
        }
    }
}

impl CheckpointPolicy {
    /// Reads one: a policy, a job whose payload has one, or a training config of crucible_ir with `checkpoint_every`.
    ///
    /// # Errors
    /// [`IrError::Form`]; [`IrError::Invalid`] for a `save_every` of 0.
    pub fn read(text: &str) -> Result<Self, IrError> {
        const WHAT: &str = "checkpoint policy";
        let value: Value = read(WHAT, text)?;
        let inner = [&["checkpoint_policy"][..], &["payload", "checkpoint_policy"]];
        let inner = inner.iter().find_map(|path| at(&value, path)).unwrap_or(&value);
        let policy: Self = match inner.get("checkpoint_every").and_then(Value::as_u64) {
            Some(every) => Self { save_every: every, ..Self::default() },
            None => serde_json::from_value(inner.clone())
                .map_err(|error| IrError::Form { what: WHAT, reason: error.to_string() })?,
        };
        if policy.save_every == 0 && policy.strategy != Strategy::Last {
            return Err(IrError::Invalid { what: WHAT, reason: "save_every must be at least 1".to_owned() });
        }
        Ok(policy)
    }

    /// The metric as Tinker's passes name theirs: with how it adds up, which the sketch leaves out.
    fn metric(&self) -> String {
        match self.best_metric.contains(':') {
            true => self.best_metric.clone(),
            false => format!("{}:sum", self.best_metric),
        }
    }

    /// What is kept, as `retinker checkpoints prune` and the console's *Clean up* take it; `None` where the best is to be kept by another
    /// metric than the loss, which nothing tells of a checkpoint.
    pub fn rule(&self) -> Option<Rule> {
        let by_loss = self.metric().starts_with("loss:") && self.best_mode == MetricMode::Min;
        if self.save_best && !by_loss {
            return None;
        }
        let last = Some(u32::try_from(self.keep_last).unwrap_or(u32::MAX));
        Some(Rule { last, best: self.save_best.then_some(1), every: None })
    }

    /// What a recovering client goes by; `None` for what it cannot do: it knows no epochs, and Tinker has one layout and no hub.
    ///
    /// The sketch saves at step 0 as well; there is nothing to be saved then.
    pub fn for_redo(&self) -> Option<redo::CheckpointPolicy> {
        if self.format != Format::Safetensors || self.push_to_hub {
            return None;
        }
        let last = Some(u32::try_from(self.keep_last).unwrap_or(u32::MAX));
        let keep = Rule { last, best: self.save_best.then_some(1), every: None };
        let keep_by = Some((self.metric(), self.best_mode));
        let none = redo::CheckpointPolicy { keep, keep_by, ..redo::CheckpointPolicy::default() };
        Some(match self.strategy {
            Strategy::Steps => redo::CheckpointPolicy { every_steps: Some(self.save_every), ..none },
            Strategy::All => redo::CheckpointPolicy { every_steps: Some(1), ..none },
            Strategy::Best => {
                redo::CheckpointPolicy { on_improvement: Some((self.metric(), self.best_mode)), ..none }
            }
            Strategy::Last => redo::CheckpointPolicy { at_end: true, ..none },
            Strategy::Epoch => return None,
        })
    }
}

/// How the pause between tries grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Backoff {
    /// It doubles, up to the longest.
    #[default]
    Exponential,
    /// By the first pause each time.
    Linear,
    /// It stays as it is.
    Constant,
}

/// How often something is tried again. `max_attempts` counts **retries**, as in nsai_work: 3 means up to four tries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RetryPolicy {
    /// Retries; 3.
    pub max_attempts: u32,
    /// How the pause grows.
    #[serde(alias = "backoff_type")]
    pub backoff: Backoff,
    /// The first pause, in milliseconds; 1000.
    #[serde(alias = "initial_delay_ms")]
    pub base_delay_ms: u64,
    /// The longest, of an exponential one; 60,000.
    pub max_delay_ms: u64,
    /// Whether a pause is up to 5 % longer by chance, also beyond the longest; yes.
    pub jitter: bool,
    /// Names of errors that are worth another try, where the text has any. Work itself goes by each error's own flag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retryable_errors: Option<Vec<String>>,
    /// What else the document has: kept as it is, and gone by by nobody here.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            backoff: Backoff::Exponential,
            base_delay_ms: 1000,
            max_delay_ms: 60_000,
            jitter: true,
            retryable_errors: None,
            other: BTreeMap::new(),
        }
    }
}

impl RetryPolicy {
    /// Reads one: a policy, or a job with one at its top or under its constraints, in either spelling.
    ///
    /// # Errors
    /// [`IrError::Form`].
    pub fn read(text: &str) -> Result<Self, IrError> {
        const WHAT: &str = "retry policy";
        let value: Value = read(WHAT, text)?;
        let places = [&["retry_policy"][..], &["constraints", "retry_policy"]];
        let inner = places.iter().find_map(|path| at(&value, path)).unwrap_or(&value);
        serde_json::from_value(inner.clone())
            .map_err(|error| IrError::Form { what: WHAT, reason: error.to_string() })
    }

    /// The pause before the retry with this number, from 0, without jitter. Only an exponential one has a longest.
    pub fn delay(&self, retry: u32) -> Duration {
        let base = self.base_delay_ms;
        Duration::from_millis(match self.backoff {
            Backoff::Constant => base,
            Backoff::Linear => base.saturating_mul(u64::from(retry) + 1),
            Backoff::Exponential => {
                base.saturating_mul(1_u64.checked_shl(retry).unwrap_or(u64::MAX)).min(self.max_delay_ms)
            }
        })
    }

    /// What a monitor goes by. Its attempts are all tries, and it doubles its pauses.
    pub fn for_monitor(&self) -> Policy {
        Policy {
            max_attempts: self.max_attempts.saturating_add(1),
            backoff_ms: self.base_delay_ms,
            max_backoff_ms: self.max_delay_ms,
            ..Policy::default()
        }
    }

    /// What a monitor goes by, as such a document.
    pub fn of_monitor(policy: &Policy) -> Self {
        Self {
            max_attempts: policy.max_attempts.saturating_sub(1),
            base_delay_ms: policy.backoff_ms,
            max_delay_ms: policy.max_backoff_ms,
            ..Self::default()
        }
    }
}

fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, name| value.get(name)).filter(|value| value.is_object())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn checkpoint_policies_are_read_with_their_defaults_and_come_back() {
        let bare = CheckpointPolicy::read("{}").unwrap();
        assert_eq!(bare, CheckpointPolicy::default());
        assert_eq!(bare.rule(), Some(Rule { last: Some(5), best: Some(1), every: None }));
        let text = serde_json::to_string(&bare).unwrap();
        assert_eq!(
            text,
            r#"{"strategy":"steps","save_every":100,"keep_last":5,"save_best":true,"best_metric":"loss","best_mode":"min","format":"safetensors","push_to_hub":false,"hub_repo":null}"#
        );
        assert_eq!(CheckpointPolicy::read(&text).unwrap(), bare);
        let nested = r#"{"kind":"training_step","payload":{"checkpoint_policy":{"strategy":"best","best_metric":"accuracy","best_mode":"max","later":1}}}"#;
        let nested = CheckpointPolicy::read(nested).unwrap();
        assert_eq!(nested.other, BTreeMap::from([("later".to_owned(), Value::from(1))]));
        let written = serde_json::to_string(&nested).unwrap();
        assert!(written.ends_with(r#","later":1}"#), "what nobody here knows is kept: {written}");
        assert_eq!(CheckpointPolicy::read(&written).unwrap(), nested);
        assert_eq!(
            nested.for_redo().unwrap().on_improvement,
            Some(("accuracy:sum".to_owned(), MetricMode::Max))
        );
        assert_eq!(nested.rule(), None, "how accurate a checkpoint is, nothing tells");
        let crucible = CheckpointPolicy::read(r#"{"id":"a","epochs":2,"checkpoint_every":25}"#).unwrap();
        let redo = crucible.for_redo().unwrap();
        assert_eq!((redo.every_steps, redo.keep.last, redo.keep.best), (Some(25), Some(5), Some(1)));
        assert_eq!((redo.keep_by.unwrap().0.as_str(), redo.on_improvement), ("loss:sum", None));
        let last = CheckpointPolicy { strategy: Strategy::Last, ..bare.clone() }.for_redo().unwrap();
        assert!(last.at_end && last.every_steps.is_none());
        assert!(CheckpointPolicy { strategy: Strategy::Epoch, ..bare.clone() }.for_redo().is_none());
        assert!(CheckpointPolicy { format: Format::Gguf, ..bare }.for_redo().is_none());
        for wrong in [r#"{"save_every":0}"#, r#"{"strategy":"sometimes"}"#, "[", r#"{"save_every":-1}"#] {
            CheckpointPolicy::read(wrong).unwrap_err();
        }
    }

    #[test]
    fn retry_policies_are_read_in_both_spellings_and_places() {
        let sketched = r#"{"retry_policy":{"max_attempts":5,"backoff_type":"linear","initial_delay_ms":1000,"max_delay_ms":60000,"retryable_errors":["timeout","capacity"]}}"#;
        let sketched = RetryPolicy::read(sketched).unwrap();
        assert_eq!((sketched.max_attempts, sketched.backoff, sketched.jitter), (5, Backoff::Linear, true));
        let real = r#"{"constraints":{"retry_policy":{"max_attempts":3,"backoff":"exponential","base_delay_ms":1000,"max_delay_ms":60000,"jitter":true}}}"#;
        let real = RetryPolicy::read(real).unwrap();
        assert_eq!(real, RetryPolicy::default());
        assert_eq!(RetryPolicy::read(&serde_json::to_string(&real).unwrap()).unwrap(), real);
        let odd = RetryPolicy::read(r#"{"max_attempts":1,"give_up":{"after":"1h"}}"#).unwrap();
        assert_eq!(odd.other["give_up"]["after"], "1h");
        assert_eq!(RetryPolicy::read(&serde_json::to_string(&odd).unwrap()).unwrap(), odd);
        // As observed of nsai_work 0.1.0, without jitter, for n = 0, 1, 5, 7.
        let delays = |policy: &RetryPolicy| [0, 1, 5, 7].map(|n| policy.delay(n).as_millis());
        assert_eq!(delays(&sketched), [1000, 2000, 6000, 8000]);
        assert_eq!(delays(&real), [1000, 2000, 32_000, 60_000]);
        assert_eq!(
            RetryPolicy { backoff: Backoff::Constant, ..real.clone() }.delay(90),
            Duration::from_secs(1)
        );
        assert_eq!(real.delay(u32::MAX), Duration::from_secs(60));
    }

    #[test]
    fn a_monitors_attempts_are_tries_and_works_are_retries() {
        let policy = RetryPolicy::default().for_monitor();
        assert_eq!((policy.max_attempts, policy.backoff_ms, policy.enabled), (4, 1000, false));
        assert_eq!(RetryPolicy::of_monitor(&policy), RetryPolicy::default());
    }
}
