//! Health from inside the program that trains a run: what it sees and no monitor can, told to the monitors.
//!
//! Show a [`DriverWatch`] what the run's requests come to, its losses and its probes. The first sign of lost state becomes a
//! verdict, and a report in the journal, by which every monitor and console knows that the run is to be restored.

use std::fmt;
use std::sync::Arc;

use super::evidence::{LossWatch, Symptom};
use super::health::{FailureCategory, Health, Verdict};
use super::journal::{Store, StoreError};
use super::probe::Verification;
use super::reports;
use crate::client::Error;
use crate::runtime::Runtime;

/// Watches one run for its driver.
pub struct DriverWatch {
    run_id: String,
    store: Arc<dyn Store>,
    runtime: Arc<dyn Runtime>,
    losses: LossWatch,
    verdict: Option<(Symptom, Verdict)>,
    /// Whether the journal has it.
    told: bool,
}

impl fmt::Debug for DriverWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DriverWatch")
            .field("run_id", &self.run_id)
            .field("verdict", &self.verdict)
            .finish_non_exhaustive()
    }
}

impl DriverWatch {
    /// Watches this run; what it sees is told through this journal.
    pub fn new(run_id: impl Into<String>, store: Arc<dyn Store>, runtime: Arc<dyn Runtime>) -> Self {
        let (run_id, losses) = (run_id.into(), LossWatch::new());
        Self { run_id, store, runtime, losses, verdict: None, told: false }
    }

    /// What has been seen: the first sign of lost state, since when, and whose fault. `None`: nothing speaks against the run.
    pub fn verdict(&self) -> Option<&Verdict> {
        self.verdict.as_ref().map(|(_, verdict)| verdict)
    }

    /// The sign itself.
    pub fn symptom(&self) -> Option<Symptom> {
        self.verdict.as_ref().map(|(symptom, _)| *symptom)
    }

    /// Looks at what a request of the run came to. An error is a gap: the next loss is held against those before it.
    ///
    /// # Errors
    /// The journal could not be written; the next call tries again.
    pub async fn outcome<T>(&mut self, outcome: &Result<T, Error>) -> Result<Option<&Verdict>, StoreError> {
        if let Err(error) = outcome {
            self.losses.gap();
            if let Some(symptom) = Symptom::of(error) {
                self.see(symptom, Some(error.to_string()));
            }
        }
        self.tell().await
    }

    /// Something came between the last loss and the next that is no error: a pause, a new connection.
    pub fn gap(&mut self) {
        self.losses.gap();
    }

    /// Looks at the next loss, a mean per token.
    ///
    /// # Errors
    /// As of [`outcome`](Self::outcome).
    pub async fn loss(&mut self, loss: f64) -> Result<Option<&Verdict>, StoreError> {
        if let Some(symptom) = self.losses.observe(loss) {
            self.see(symptom, None);
        }
        self.tell().await
    }

    /// Looks at what a probe came to that was recorded after the last step.
    ///
    /// # Errors
    /// As of [`outcome`](Self::outcome).
    pub async fn probe(&mut self, verification: &Verification) -> Result<Option<&Verdict>, StoreError> {
        if matches!(verification, Verification::Different { .. }) {
            self.see(Symptom::RolledBack, Some(verification.to_string()));
        }
        self.tell().await
    }

    fn see(&mut self, symptom: Symptom, detail: Option<String>) {
        if self.verdict.is_some() {
            return;
        }
        let detail = detail.map_or_else(String::new, |detail| format!(" {detail}"));
        let verdict = Verdict {
            // What there is to restore from, a monitor finds out.
            health: Health::Poisoned,
            reason: format!("{}{detail}", symptom.sentence()),
            category: Some(FailureCategory::Server),
            since: Some(self.runtime.now()),
        };
        self.verdict = Some((symptom, verdict));
    }

    async fn tell(&mut self) -> Result<Option<&Verdict>, StoreError> {
        if let Some((symptom, Verdict { since: Some(since), .. })) = &self.verdict
            && !self.told
        {
            reports::report(&*self.store, &self.run_id, *symptom, *since).await?;
            self.told = true;
        }
        Ok(self.verdict())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::super::simulation::{Service, World};
    use super::*;
    use crate::client::ErrorKind;
    use crate::client::testing::test;

    fn watch(world: &World) -> DriverWatch {
        DriverWatch::new("r", Arc::clone(&world.store), Arc::new(world.runtime.clone()))
    }

    fn refused(status: u16, detail: &str) -> Result<(), Error> {
        let kind = ErrorKind::Refused { status, detail: detail.to_owned(), request_id: None };
        Err(Error::new("optim_step of run r", kind))
    }

    #[test]
    fn the_first_sign_counts_and_is_told() {
        let world = World::new(Service::default());
        let mut watch = watch(&world);
        world.runtime.block_on(async {
            assert_eq!(watch.outcome(&Ok(())).await.unwrap(), None);
            assert_eq!(watch.outcome(&refused(503, "overloaded")).await.unwrap(), None, "that may pass");
            let since = world.now();
            let verdict = watch.outcome(&refused(400, "Model r not loaded")).await.unwrap().unwrap().clone();
            assert_eq!((verdict.health, verdict.since), (Health::Poisoned, Some(since)));
            assert_eq!(verdict.category, Some(FailureCategory::Server));
            assert!(verdict.reason.contains("does not hold") && verdict.reason.contains("not loaded"));
            watch.outcome(&refused(409, "Sequence conflict: expected 1, got 2")).await.unwrap();
            assert_eq!(watch.symptom(), Some(Symptom::NotLoaded));
            let report = reports::of_run(&*world.store, "r").await.unwrap().unwrap();
            assert_eq!((report.symptom, report.at), (Symptom::NotLoaded, since));
        });
    }

    #[test]
    fn losses_and_probes_are_signs_as_well() {
        let world = World::new(Service::default());
        world.runtime.block_on(async {
            let mut by_loss = watch(&world);
            for n in 0..40 {
                assert_eq!(by_loss.loss(1.0 + f64::from(n % 3) * 0.01).await.unwrap(), None);
            }
            assert_eq!(by_loss.loss(2.0).await.unwrap(), None, "losses jump");
            by_loss.outcome(&refused(503, "overloaded")).await.unwrap();
            assert!(by_loss.loss(4.0).await.unwrap().is_some(), "but not after a gap");
            assert_eq!(by_loss.symptom(), Some(Symptom::LossJumped));
            let mut by_probe = watch(&world);
            by_probe.probe(&Verification::not("it failed")).await.unwrap();
            by_probe.probe(&Verification::Verified { difference: 0.0 }).await.unwrap();
            assert_eq!(by_probe.verdict(), None);
            let different = Verification::Different { difference: 1.0, tolerance: 0.02 };
            assert!(by_probe.probe(&different).await.unwrap().is_some());
        });
    }

    #[test]
    fn what_could_not_be_told_is_told_later() {
        let world = World::new(Service::default());
        let mut watch = watch(&world);
        world.runtime.block_on(async {
            world.crash.unwritable.store(true, Ordering::Relaxed);
            watch.outcome(&refused(400, "Model r not loaded")).await.unwrap_err();
            assert!(watch.verdict().is_some(), "it is known all the same");
            world.crash.unwritable.store(false, Ordering::Relaxed);
            watch.outcome(&Ok(())).await.unwrap();
            assert!(reports::of_run(&*world.store, "r").await.unwrap().is_some());
        });
    }
}
