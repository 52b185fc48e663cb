//! Signs of lost state that only the program which trains a run can see. `corrupted` alone finds almost nothing on
//! self-hosted servers: SkyRL never sets it, and TuFT goes on silently from its last checkpoint.
//!
//! A monitor sees none of these: it sends no numbered request to a run that it does not own.

use serde::{Deserialize, Serialize};

use crate::client::{Error, ErrorKind};
use retinker_wire::future::RequestErrorCategory;

/// What a driver has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Symptom {
    /// The service does not hold the run's model any more (SkyRL after a restart: "Model ... not loaded").
    NotLoaded,
    /// The service counts the run's requests otherwise than the driver (TuFT after a restart: "Sequence conflict").
    SequenceConflict,
    /// The service has forgotten a result that it had promised (410).
    PromiseExpired,
    /// The order of the run's requests can no longer be known: the client is poisoned.
    OrderLost,
    /// After a gap the loss was far above what it had been.
    LossJumped,
    /// A fixed batch gave other log-probabilities than before, though no step was taken: a silent rollback.
    RolledBack,
    /// The session is over (410 to a heartbeat), and with it what the run had not saved.
    SessionOver,
}

impl Symptom {
    /// What an error says of the run's state; `None` where it says nothing: the request failed and no other.
    pub fn of(error: &Error) -> Option<Self> {
        match error.kind() {
            ErrorKind::Poisoned { cause, .. } => Self::of(cause).or(Some(Self::OrderLost)),
            ErrorKind::Expired { .. } => Some(Self::PromiseExpired),
            ErrorKind::Failed { category: RequestErrorCategory::User, .. } => None,
            ErrorKind::Failed { message: text, .. } | ErrorKind::Refused { detail: text, .. } => {
                let text = text.to_ascii_lowercase();
                // The words of SkyRL a956457 and TuFT 0.2.2, and of the embedded service.
                if text.contains("not loaded") || text.contains("not initialized") {
                    Some(Self::NotLoaded)
                } else if text.contains("sequence conflict") || text.contains("sequence number was reused") {
                    Some(Self::SequenceConflict)
                } else {
                    None
                }
            }
            _ => None,
        }
    }

    /// What was seen, as a sentence for people.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::NotLoaded => "The service does not hold the run's model any more.",
            Self::SequenceConflict => {
                "The service and the training program count the run's requests differently."
            }
            Self::PromiseExpired => "The service has forgotten a result that it had promised.",
            Self::OrderLost => "The order of the run's requests can no longer be known.",
            Self::LossJumped => "After a gap the loss was far above what it had been.",
            Self::RolledBack => "A fixed batch gave other results than before, though no step was taken.",
            Self::SessionOver => "The run's session is over.",
        }
    }
}

/// Watches a run's losses for a jump after a gap: the sign of state that was lost in between.
///
/// Losses differ from batch to batch, so a jump counts only right after a gap, and only beyond what the losses before
/// it differed by: above their mean by more than [`SPREADS`] standard deviations and [`LEAST`] of the mean.
#[derive(Debug, Clone, Default)]
pub struct LossWatch {
    recent: std::collections::VecDeque<f64>,
    after_gap: bool,
}

/// So many standard deviations above the mean is a jump. Ours: one in thirty thousand by chance, were losses normal.
pub const SPREADS: f64 = 4.0;
/// And at least this part of the mean, so that losses that hardly differ do not make a jump of nothing.
pub const LEAST: f64 = 0.02;
/// Losses that are remembered; fewer than half of them say nothing yet.
const REMEMBERED: usize = 32;

impl LossWatch {
    /// One that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Something came between the last loss and the next: an error, a pause, a new connection.
    pub fn gap(&mut self) {
        self.after_gap = true;
    }

    /// Takes the next loss, a mean per token; tells whether it has jumped.
    pub fn observe(&mut self, loss: f64) -> Option<Symptom> {
        let jumped = std::mem::take(&mut self.after_gap) && self.is_far_above(loss);
        if loss.is_finite() && !jumped {
            self.recent.push_back(loss);
            if self.recent.len() > REMEMBERED {
                self.recent.pop_front();
            }
        }
        jumped.then_some(Symptom::LossJumped)
    }

    fn is_far_above(&self, loss: f64) -> bool {
        if self.recent.len() < REMEMBERED / 2 {
            return false;
        }
        let count = self.recent.len() as f64;
        let mean = self.recent.iter().sum::<f64>() / count;
        let spread = (self.recent.iter().map(|l| (l - mean).powi(2)).sum::<f64>() / count).sqrt();
        loss.is_nan() || loss - mean > (SPREADS * spread).max(LEAST * mean.abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::test;

    fn refused(status: u16, detail: &str) -> Error {
        let kind = ErrorKind::Refused { status, detail: detail.to_owned(), request_id: None };
        Error::new("forward_backward of run r", kind)
    }

    #[test]
    fn errors_of_servers_that_lost_a_run() {
        for (error, symptom) in [
            (refused(400, "Model s:train:0 not loaded"), Some(Symptom::NotLoaded)),
            (refused(409, "Sequence conflict: expected 18, got 31"), Some(Symptom::SequenceConflict)),
            (Error::new("x", ErrorKind::Expired { request_id: None }), Some(Symptom::PromiseExpired)),
            (refused(400, "chunk too long"), None),
            (refused(500, "try again"), None),
        ] {
            assert_eq!(Symptom::of(&error), symptom, "{error}");
            let poisoned = ErrorKind::Poisoned { run_id: "r".into(), checkpoint: None, cause: error };
            let expected = symptom.or(Some(Symptom::OrderLost));
            assert_eq!(Symptom::of(&Error::new("x", poisoned)), expected, "poison has its cause's symptom");
        }
    }

    #[test]
    fn a_users_failure_is_no_lost_state() {
        let kind = ErrorKind::Failed {
            category: RequestErrorCategory::User,
            message: "Model not loaded: no such adapter in your request".into(),
            request_id: None,
        };
        assert_eq!(Symptom::of(&Error::new("x", kind)), None);
    }

    #[test]
    fn a_jump_counts_only_after_a_gap_and_beyond_the_usual_spread() {
        let mut watch = LossWatch::new();
        for k in 0..20 {
            assert_eq!(watch.observe(2.0 + 0.05 * f64::from(k % 3)), None);
        }
        assert_eq!(watch.clone().observe(5.0), None, "no gap: a hard batch");
        watch.gap();
        assert_eq!(watch.clone().observe(2.15), None, "within the spread");
        assert_eq!(watch.clone().observe(1.0), None, "better is no jump");
        assert_eq!(watch.clone().observe(f64::NAN), Some(Symptom::LossJumped));
        assert_eq!(watch.observe(2.6), Some(Symptom::LossJumped));
        assert_eq!(watch.observe(2.6), None, "told once");
    }

    #[test]
    fn too_few_losses_say_nothing() {
        let mut watch = LossWatch::new();
        for _ in 0..REMEMBERED / 2 - 1 {
            watch.observe(1.0);
        }
        watch.gap();
        assert_eq!(watch.clone().observe(9.0), None);
        watch.gap();
        watch.observe(1.0);
        watch.gap();
        assert_eq!(watch.observe(9.0), Some(Symptom::LossJumped));
    }
}
