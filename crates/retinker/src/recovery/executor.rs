//! Carries plans out: journal first, then act, so that a restore that was cut off anywhere can be gone on with.
//!
//! The new run's identity is (session id, number in that session). It is in the journal *before* the weights are
//! loaded, and whoever resumes the restore asks again under the same identity: a service that deduplicates on it
//! finds the same run. What a crash can leave behind:
//!
//! - after `create_session`, before its id is journaled: a session without a run. It carries the label
//!   `retinker.restore_id` and gets no heartbeats; the resumed restore opens another, finds it by its label and finishes it.
//! - during the load, on a service that does not deduplicate: a surplus run that nobody adopts, in the same
//!   session and with the same label.
//!
//! Exactly one run is *adopted*: that is one write to the journal, under a lease. Two hosts with two journals on one
//! service are not kept apart by it: right before a restore begins, the runs' labels are searched for a successor that
//! the journal does not know. That narrows the race and cannot close it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use retinker_wire::UserMetadata;
use retinker_wire::future::RequestErrorCategory;
use retinker_wire::model::{
    CreateModelRequest, LoadWeightsRequest, LoadWeightsResult, LoraConfig, adamw, create_model_type,
    load_weights_type, metadata_value, model_id_of,
};
use retinker_wire::run::TrainingRun;
use retinker_wire::session::{
    CreateSessionRequest, FinishReason, SessionSearchRequest, SessionStatus, SessionStatusQuery,
    SessionSummary,
};
use retinker_wire::time::Time;
use retinker_wire::training::ForwardBackwardOutput;
use tracing::Instrument;

use self::pauses::Pauses;
use super::health::{cause_of, unusable_because};
use super::journal::{Begun, Lease, Store, StoreError, check_schema};
use super::listing::is_itself;
use super::plan::{LABEL_RESTORE_ID, LABEL_RESTORED_FROM, RestorePlan};
use super::planner::{candidates, origin_of};
use super::probe::{LOSS, Probe, Verification};
use super::restore::{Attachment, RestoreEvent, RestoreRecord, RestoreState};
use super::sentence::sentence;
use super::sessions;
use super::verify::{self, OptimizerState};
use crate::client::{Api, Error, ErrorKind, LossFnConfig, SDK_VERSION};
use crate::runtime::Runtime;

/// How long a lease holds without being renewed: after a crash, nobody resumes the restore sooner.
pub const LEASE_TTL: Duration = Duration::from_secs(15);

/// How often one step is tried against a service that fails, beyond the client's own retries.
const ATTEMPTS: u32 = 4;
/// The pause before the second try; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// The longest pause that a service can ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// How often, and after which pause each, a hand-over that finds the lease taken looks again.
const HAND_OVER_TRIES: (u32, Duration) = (20, Duration::from_millis(100));
/// How many runs at each end of the list are searched for a successor right before a restore begins.
const ENDS: u64 = 100;
/// The number of the new run in its session: a session is opened for each restore.
const MODEL_SEQ_ID: u64 = 0;
/// Seed of the adapter that is made only to be overwritten by the checkpoint; explicit, as always.
const PLACEHOLDER_SEED: u64 = 0;

/// Why a restore was not begun, or went no further.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RestoreError {
    /// The plan's id is not its digest.
    #[error("this is not the plan that was shown: its contents do not match its id")]
    NotThePlan,
    /// What the plan was made from has changed.
    #[error("the plan no longer holds: {0}")]
    PlanChanged(String),
    /// The service could not be asked.
    #[error("{0}")]
    Service(Error),
    /// The journal failed. The restore is where the journal says it is.
    #[error("{0}")]
    Journal(#[from] StoreError),
    /// Another program drives the restore now.
    #[error("restore {0} is being carried out elsewhere")]
    DrivenElsewhere(String),
    /// Only what is not done yet can be cancelled.
    #[error("restore {id} cannot be cancelled any more: it is {state}")]
    NothingToCancel {
        /// The restore.
        id: String,
        /// How far it is.
        state: &'static str,
    },
    /// Only an adopted run can be handed over.
    #[error("restore {id} has no run to hand over: it is {state}")]
    NothingToHandOver {
        /// The restore.
        id: String,
        /// How far it is.
        state: &'static str,
    },
}

type Progress = Arc<dyn Fn(&RestoreRecord) + Send + Sync>;

/// Carries restores out. Cheap to clone.
#[derive(Clone)]
pub struct Executor {
    api: Api,
    /// The same for what somebody waits for.
    asking: Api,
    store: Arc<dyn Store>,
    runtime: Arc<dyn Runtime>,
    by: Arc<str>,
    progress: Option<Progress>,
    pauses: Pauses,
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Executor {
    /// An executor over this service and journal.
    pub fn new(api: Api, store: Arc<dyn Store>, runtime: Arc<dyn Runtime>) -> Self {
        Self {
            asking: api.clone(),
            api,
            store,
            runtime,
            by: Arc::from("a program"),
            progress: None,
            pauses: Pauses::default(),
        }
    }

    /// Looks at the service by this one before a restore is begun: somebody waits for that, and is told soon that it cannot be.
    #[must_use]
    pub fn asking(mut self, api: Api) -> Self {
        self.asking = api;
        self
    }

    /// On whose behalf restores are begun, cancelled and handed over by this one, e.g. `the console of ada@box`; `a program`
    /// where nobody says so. The journal tells it.
    #[must_use]
    pub fn on_behalf_of(mut self, by: &str) -> Self {
        self.by = by.into();
        self
    }

    /// Until when no other restore should begin: the service has paused what one of this process waits for, or was not there
    /// for one, or asked for patience.
    pub fn held_until(&self) -> Option<Time> {
        self.pauses.until(self.runtime.now())
    }

    /// Calls this after each write to the journal.
    #[must_use]
    pub fn on_progress(mut self, progress: impl Fn(&RestoreRecord) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }

    /// Writes a confirmed plan to the journal as a restore; [`run`](Self::run) then carries it out. A run that a
    /// restore holds already is answered with that one. The plan is checked again before: it must be as it was
    /// shown, its run still corrupted and without a successor, and its checkpoint still there.
    pub async fn begin(&self, plan: RestorePlan) -> Result<Begun, RestoreError> {
        if !plan.verify_id() {
            return Err(RestoreError::NotThePlan);
        }
        let earlier = self.store.by_old_run(&plan.run_id).await?;
        if let Some(record) = earlier.into_iter().find(|record| record.state.holds_the_run()) {
            return Ok(Begun::Existing(record));
        }
        self.check_again(&plan).await?;
        let now = self.runtime.now();
        let id = format!("restore-{:016x}", self.runtime.random());
        let path = &plan.checkpoint.tinker_path;
        let message = format!("Asked for by {}: restore run {} from {path}.", self.by, plan.run_id);
        let mut record = RestoreRecord::planned(id, plan, now, message);
        record.asked_by = Some(self.by.to_string());
        let begun = self.store.begin(record).await?;
        if let Begun::New(record) = &begun {
            self.tell(record);
        }
        Ok(begun)
    }

    async fn check_again(&self, plan: &RestorePlan) -> Result<(), RestoreError> {
        let changed = |why: String| Err(RestoreError::PlanChanged(why));
        let run = match self.asking.training_run(&plan.run_id).await {
            Err(error) if error.is_not_found() => {
                is_itself(&self.asking).await.map_err(RestoreError::Service)?;
                return changed(format!("run {} does not exist any more", plan.run_id));
            }
            answer => answer.map_err(RestoreError::Service)?,
        };
        if run.corrupted != Some(true) && plan.observed.is_none() {
            return changed(format!("run {} is no longer corrupted", plan.run_id));
        }
        let path = &plan.checkpoint.tinker_path;
        let origin = origin_of(&run, self.store.by_new_run(&plan.run_id).await?.as_ref());
        let listed =
            candidates(&self.asking, &run, origin.as_deref()).await.map_err(RestoreError::Service)?;
        let Some(found) = listed.iter().find(|checkpoint| checkpoint.tinker_path == *path) else {
            return changed(format!("checkpoint {path} does not exist any more"));
        };
        if found.time != plan.checkpoint.time {
            return changed(format!("checkpoint {path} has been saved again since"));
        }
        if let Some(reason) = unusable_because(found, self.runtime.now()) {
            return changed(format!("checkpoint {path} cannot be used. {reason}"));
        }
        match self.foreign_successor(&plan.run_id).await? {
            Some(other) => changed(format!(
                "run {} has been restored already, by another program: run {other} has taken its place",
                plan.run_id
            )),
            None => Ok(()),
        }
    }

    /// A run that says in its labels that it was restored from this one, by a restore that the journal does not
    /// know. Only the newest runs are looked at, which services list first or last.
    async fn foreign_successor(&self, run_id: &str) -> Result<Option<String>, RestoreError> {
        let mut offset = 0;
        loop {
            let page = match self.asking.training_runs(ENDS, offset).await {
                Err(error) if error.is_unsupported() => return Ok(None),
                page => page.map_err(RestoreError::Service)?,
            };
            for run in page.training_runs {
                if let Some(restore_id) = restore_of(&run, run_id)
                    && self.store.get(restore_id).await?.is_none()
                {
                    return Ok(Some(run.training_run_id));
                }
            }
            let last = page.cursor.total_count.saturating_sub(ENDS);
            if last <= offset {
                return Ok(None);
            }
            offset = last;
        }
    }

    /// Carries a restore on from wherever the journal says it is, until it is settled. A restore that failed is a
    /// success of this call: its record says why.
    pub async fn run(&self, restore_id: &str) -> Result<RestoreRecord, RestoreError> {
        self.run_leased(restore_id).instrument(tracing::info_span!("restore", restore_id)).await
    }

    async fn run_leased(&self, restore_id: &str) -> Result<RestoreRecord, RestoreError> {
        let lease = self.lease(restore_id).await?;
        let (renewal, work) = (Box::pin(self.keep(&lease)), Box::pin(self.drive(&lease)));
        let end = select(renewal, Box::pin(self.unwanted(restore_id)));
        let outcome = match select(work, end).await {
            Either::Left((outcome, _)) => Some(outcome),
            Either::Right((Either::Left((error, _)), _)) => return Err(error.into()),
            Either::Right((Either::Right(_), _)) => None,
        };
        let Some(outcome) = outcome else { return self.let_go(&lease).await };
        // A lease that cannot be given back ends by itself.
        let _ = self.store.release(&lease).await;
        outcome
    }

    /// Takes the lease for one call: each has a name of its own, so that no two share a lease.
    async fn lease(&self, restore_id: &str) -> Result<Lease, RestoreError> {
        let owner = format!("executor-{:016x}", self.runtime.random());
        self.store
            .acquire_lease(restore_id, &owner, LEASE_TTL)
            .await?
            .ok_or_else(|| RestoreError::DrivenElsewhere(restore_id.to_owned()))
    }

    /// Renews the lease until somebody else has it, or it could not be renewed for as long as it holds.
    async fn keep(&self, lease: &Lease) -> StoreError {
        let mut renewed_at = self.runtime.monotonic();
        loop {
            self.runtime.sleep(LEASE_TTL / 3).await;
            let asked_at = self.runtime.monotonic();
            match self.store.acquire_lease(&lease.restore_id, &lease.owner, LEASE_TTL).await {
                Ok(Some(renewed)) if renewed.fence == lease.fence => renewed_at = asked_at,
                Ok(_) => return StoreError::LeaseLost(lease.restore_id.clone()),
                Err(error) if self.runtime.monotonic().saturating_sub(renewed_at) >= LEASE_TTL * 2 / 3 => {
                    return error;
                }
                Err(error) => tracing::warn!(restore = %lease.restore_id, %error, "a lease was not renewed"),
            }
        }
    }

    /// The restores that are not settled, oldest first; some of them may be driven by others.
    pub async fn unfinished(&self) -> Result<Vec<RestoreRecord>, StoreError> {
        self.store.unfinished().await
    }

    /// Carries on what a crash or a stop cut off, one after the other. A restore that another program drives is
    /// left to it and not in the answer.
    pub async fn resume_unfinished(&self) -> Result<Vec<RestoreRecord>, RestoreError> {
        let mut settled = Vec::new();
        for record in self.store.unfinished().await? {
            match self.run(&record.id).await {
                Ok(record) => settled.push(record),
                Err(RestoreError::DrivenElsewhere(_) | RestoreError::Journal(StoreError::LeaseLost(_))) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(settled)
    }

    /// Marks a restored run as taken over. A second hand-over is answered like the first. A restore that is under
    /// way is left alone.
    pub async fn hand_over(&self, restore_id: &str) -> Result<RestoreRecord, RestoreError> {
        // Whoever has just adopted it, or hands it over at the same time, is done in a moment.
        let handed_over = |record: &RestoreRecord| match record.state {
            RestoreState::HandedOver => Ok(true),
            RestoreState::Adopted => Ok(false),
            state => Err(RestoreError::NothingToHandOver { id: record.id.clone(), state: state.as_str() }),
        };
        let (mut record, lease) = self.claim(restore_id, HAND_OVER_TRIES, handed_over).await?;
        let Some(lease) = lease else { return Ok(record) };
        let message = format!("Handed over by {}.", self.by);
        let written = self.write(&lease, &mut record, RestoreState::HandedOver, message).await;
        let _ = self.store.release(&lease).await;
        written.map(|()| record)
    }

    /// Takes a restore's lease, waiting while another program has it; with no lease where it is done already.
    async fn claim(
        &self,
        restore_id: &str,
        (mut tries, pause): (u32, Duration),
        is_done: impl Fn(&RestoreRecord) -> Result<bool, RestoreError>,
    ) -> Result<(RestoreRecord, Option<Lease>), RestoreError> {
        let known = self.read(restore_id).await?;
        if is_done(&known)? {
            return Ok((known, None));
        }
        let lease = loop {
            match self.lease(restore_id).await {
                Ok(lease) => break lease,
                Err(RestoreError::DrivenElsewhere(_)) if tries > 0 => {
                    tries -= 1;
                    self.runtime.sleep(pause).await;
                    let known = self.read(restore_id).await?;
                    if is_done(&known)? {
                        return Ok((known, None));
                    }
                }
                Err(error) => return Err(error),
            }
        };
        // Somebody else may have been sooner.
        let known = self.read(restore_id).await.and_then(|known| Ok((is_done(&known)?, known)));
        match known {
            Ok((false, known)) => Ok((known, Some(lease))),
            other => {
                let _ = self.store.release(&lease).await;
                other.map(|(_, known)| (known, None))
            }
        }
    }

    async fn read(&self, restore_id: &str) -> Result<RestoreRecord, RestoreError> {
        let record =
            self.store.get(restore_id).await?.ok_or_else(|| StoreError::NotFound(restore_id.to_owned()))?;
        check_schema(&record)?;
        Ok(record)
    }

    /// Moves the record to this state, in the journal and then in memory.
    async fn write(
        &self,
        lease: &Lease,
        record: &mut RestoreRecord,
        state: RestoreState,
        message: String,
    ) -> Result<(), RestoreError> {
        let at = self.runtime.now();
        let mut next = record.clone();
        next.state = state;
        next.updated_at = at;
        next.events.push(RestoreEvent { at, state, message: sentence(&message) });
        self.store.append(lease, next.clone()).await?;
        *record = next;
        self.tell(record);
        Ok(())
    }

    fn tell(&self, record: &RestoreRecord) {
        if let Some(event) = record.events.last() {
            tracing::debug!(restore = %record.id, run = %record.plan.run_id, state = ?event.state, "{}", event.message);
        }
        if let Some(progress) = &self.progress {
            progress(record);
        }
    }

    async fn drive(&self, lease: &Lease) -> Result<RestoreRecord, RestoreError> {
        let mut record = self.read(&lease.restore_id).await?;
        while !record.state.is_settled() {
            let step = match record.state {
                RestoreState::Planned => {
                    let message = "Opening a session for the new run.".to_owned();
                    self.write(lease, &mut record, RestoreState::OpeningSession, message).await?;
                    Ok(())
                }
                RestoreState::OpeningSession => self.open_session(lease, &mut record).await?,
                RestoreState::Loading => self.load(lease, &mut record).await?,
                _ => self.check(lease, &mut record).await?,
            };
            if let Err(reason) = step {
                self.fail(lease, &mut record, reason).await?;
            }
        }
        Ok(record)
    }

    async fn open_session(&self, lease: &Lease, record: &mut RestoreRecord) -> Result<Step, RestoreError> {
        let labels = UserMetadata::from([
            (LABEL_RESTORE_ID.to_owned(), record.id.clone()),
            (LABEL_RESTORED_FROM.to_owned(), record.plan.run_id.clone()),
        ]);
        let request = CreateSessionRequest {
            tags: vec!["retinker-restore".to_owned()],
            user_metadata: metadata_value(&labels),
            sdk_version: SDK_VERSION.to_owned(),
            kind: "create_session".to_owned(),
            ..CreateSessionRequest::default()
        };
        let opened = self.persist(|| self.api.create_session(&request), Error::is_retryable).await;
        let session = match opened {
            Ok(session) => session,
            Err(error) => return self.failed("No session could be opened for the new run.", error),
        };
        record.session_id = Some(session.session_id);
        record.model_seq_id = Some(MODEL_SEQ_ID);
        let message = format!("Loading {}.", record.plan.checkpoint.tinker_path);
        self.write(lease, record, RestoreState::Loading, message).await?;
        Ok(Ok(()))
    }

    async fn load(&self, lease: &Lease, record: &mut RestoreRecord) -> Result<Step, RestoreError> {
        let Some((session_id, model_seq_id)) = record.session_id.clone().zip(record.model_seq_id) else {
            return Ok(Err("The journal holds no identity for the new run.".to_owned()));
        };
        // An attachment that stands in the journal already is the mark of the second way.
        if record.attachment.is_none() {
            let request = LoadWeightsRequest {
                session_id: Some(session_id.clone()),
                model_seq_id: Some(model_seq_id),
                path: record.plan.checkpoint.tinker_path.clone(),
                optimizer: record.plan.optimizer,
                user_metadata: Some(metadata_value(&labels_of(record))),
                optimizer_config: self.optimizer_for(record).await,
                kind: load_weights_type(),
                ..LoadWeightsRequest::default()
            };
            match self.load_weights(&request).await {
                Ok(loaded) => {
                    let model_id = loaded.model_id.unwrap_or_else(|| model_id_of(&session_id, model_seq_id));
                    record.attachment = Some(Attachment { session_id, model_id, next_seq_id: 1 });
                    return self.loaded(lease, record).await;
                }
                Err(error) if error.is_unknown_form() => {}
                Err(error) => return self.not_loaded(record, error),
            }
            match self.make_fresh_model(record, &session_id, model_seq_id).await {
                Ok(model_id) => {
                    record.attachment = Some(Attachment { session_id, model_id, next_seq_id: 2 });
                    let message = "The service does not make a run from a checkpoint in one call: loading into a fresh one.";
                    self.write(lease, record, RestoreState::Loading, message.to_owned()).await?;
                }
                Err(error) => return self.failed("No run could be made for the checkpoint.", error),
            }
        }
        let Some(attachment) = &record.attachment else {
            return Ok(Err("The new run has no id.".to_owned()));
        };
        let request = LoadWeightsRequest {
            model_id: Some(attachment.model_id.clone()),
            seq_id: Some(1),
            path: record.plan.checkpoint.tinker_path.clone(),
            optimizer: record.plan.optimizer,
            kind: load_weights_type(),
            ..LoadWeightsRequest::default()
        };
        match self.load_weights(&request).await {
            Ok(_) => self.loaded(lease, record).await,
            Err(error) => self.not_loaded(record, error),
        }
    }

    /// Why the restore fails whose load did.
    fn not_loaded(&self, record: &mut RestoreRecord, error: Error) -> Result<Step, RestoreError> {
        let error = self.unless_outage(error)?;
        record.checkpoint_useless = blames_checkpoint(&error);
        Ok(Err(load_failure(record, &error)))
    }

    async fn loaded(&self, lease: &Lease, record: &mut RestoreRecord) -> Result<Step, RestoreError> {
        record.new_run_id = record.attachment.as_ref().map(|attachment| attachment.model_id.clone());
        let message = "The checkpoint is loaded. Looking at the new run.".to_owned();
        self.write(lease, record, RestoreState::Checking, message).await?;
        Ok(Ok(()))
    }

    /// What optimizer a load without the optimizer's state starts with: the one that the checkpoint was trained
    /// with. A load with the state must not name one.
    async fn optimizer_for(&self, record: &RestoreRecord) -> Option<serde_json::Value> {
        if record.plan.optimizer {
            return None;
        }
        let info = self.api.weights_info(&record.plan.checkpoint.tinker_path).await.ok();
        // Left out where it is the default: some services refuse the member.
        info.and_then(|info| info.optimizer_config).filter(|config| *config != adamw())
    }

    async fn make_fresh_model(
        &self,
        record: &RestoreRecord,
        session_id: &str,
        model_seq_id: u64,
    ) -> Result<String, Error> {
        let path = &record.plan.checkpoint.tinker_path;
        let info = match self.api.weights_info(path).await {
            Ok(info) => info,
            Err(error) if error.is_unsupported() => Default::default(),
            Err(error) => return Err(error),
        };
        let shape = LoraConfig::default();
        let request = CreateModelRequest {
            session_id: session_id.to_owned(),
            model_seq_id,
            base_model: record.plan.base_model.clone(),
            user_metadata: Some(metadata_value(&labels_of(record))),
            lora_config: Some(LoraConfig {
                rank: info.lora_rank.or(record.plan.lora_rank).unwrap_or(shape.rank),
                seed: Some(PLACEHOLDER_SEED),
                train_unembed: info.train_unembed.unwrap_or(shape.train_unembed),
                train_mlp: info.train_mlp.unwrap_or(shape.train_mlp),
                train_attn: info.train_attn.unwrap_or(shape.train_attn),
            }),
            // Services without the one-call form are the same that refuse this member; they know only AdamW.
            optimizer_config: info.optimizer_config.filter(|config| *config != adamw()),
            kind: create_model_type(),
        };
        let made = self.persist(
            || async { self.pauses.result_of(self.api.create_model(&request).await?).await },
            may_ask_again,
        );
        Ok(made.await?.model_id)
    }

    /// Asks for the load and waits for it. A result that the service has forgotten, as after its restart, is
    /// asked for anew under the same identity.
    async fn load_weights(&self, request: &LoadWeightsRequest) -> Result<LoadWeightsResult, Error> {
        let loaded = self.persist(
            || async { self.pauses.result_of(self.api.load_weights(request).await?).await },
            may_ask_again,
        );
        loaded.await
    }

    async fn check(&self, lease: &Lease, record: &mut RestoreRecord) -> Result<Step, RestoreError> {
        let Some(attachment) = record.attachment.clone() else {
            return Ok(Err("The journal holds no new run to look at.".to_owned()));
        };
        let new_run = &attachment.model_id;
        if let Err(error) = self.persist(|| self.api.get_info(new_run), Error::is_retryable).await {
            return self.failed(format!("The new run {new_run} does not answer."), error);
        }
        let run = match self.persist(|| self.api.training_run(new_run), Error::is_retryable).await {
            Ok(run) => run,
            Err(error) => return self.failed(format!("The new run {new_run} is not listed."), error),
        };
        if run.corrupted == Some(true) {
            let reason = cause_of(&run).unwrap_or("the service says no more");
            return Ok(Err(format!("The new run {new_run} is corrupted itself: {reason}.")));
        }
        if let (Some(found), Some(planned)) = (run.lora_rank, record.plan.lora_rank)
            && found != planned
        {
            return Ok(Err(format!("The new run {new_run} has rank {found} instead of {planned}.")));
        }
        // Some services keep no labels; then the lineage lives in the journal alone.
        let label = run.user_metadata.as_ref().and_then(|labels| labels.get(LABEL_RESTORE_ID));
        if label.is_some_and(|label| *label != record.id) {
            return Ok(Err(format!("Run {new_run} belongs to another restore.")));
        }
        if let Err(reason) = self.verify(lease, record).await? {
            return Ok(Err(reason));
        }
        if record.plan.check_optimizer && record.optimizer_state.is_none() {
            record.optimizer_state = Some(self.look_at_optimizer(record).await);
        }
        self.finish_surplus(record).await;
        // The probe was a request as well.
        let run = self.api.training_run(new_run).await.unwrap_or(run);
        if run.corrupted == Some(true) {
            let reason = cause_of(&run).unwrap_or("the service says no more");
            return Ok(Err(format!("The new run {new_run} was corrupted while it was compared: {reason}.")));
        }
        record.last_request_time = Some(run.last_request_time);
        let verdicts: String = record.verdicts().map(|verdict| format!(" {verdict}")).collect();
        let message = format!("Run {new_run} has taken the place of run {}.{verdicts}", record.plan.run_id);
        self.write(lease, record, RestoreState::Adopted, message).await?;
        Ok(Ok(()))
    }

    /// Finishes sessions that a crash left behind, after they were opened and before they were journaled: they carry the
    /// restore's label. Whoever resumes the restore does it again, until it is adopted. A service that has no search for
    /// sessions lets them end by themselves.
    async fn finish_surplus(&self, record: &RestoreRecord) {
        let request = SessionSearchRequest {
            user_metadata: [(LABEL_RESTORE_ID.to_owned(), record.id.clone())].into(),
            statuses: Some(vec![SessionStatusQuery::Active]),
            ..SessionSearchRequest::default()
        };
        let found = match sessions::search(&self.api, request).await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(restore = %record.id, %error, "sessions that a crash left behind are not looked for");
                return;
            }
        };
        // A server may not know the filter: only what carries the label itself is ours.
        let ours = |session: &SessionSummary| {
            let label = session.user_metadata.as_ref().and_then(|labels| labels.get(LABEL_RESTORE_ID));
            label == Some(&record.id) && matches!(session.status, None | Some(SessionStatus::Active))
        };
        let surplus = found.into_iter().filter(ours).map(|session| session.session_id);
        for session_id in surplus.filter(|id| record.session_id.as_ref() != Some(id)) {
            let detail = Some(format!("surplus of restore {}", record.id));
            match self.api.finish_session(&session_id, FinishReason::Interrupted, detail).await {
                Ok(()) => {
                    tracing::info!(restore = %record.id, session = %session_id, "a surplus session is finished")
                }
                Err(error) => {
                    tracing::warn!(session = %session_id, %error, "a surplus session is left to end by itself")
                }
            }
        }
    }

    /// Compares the new run with the probe that was saved with the checkpoint. The forward pass takes the run's next
    /// number, so it is in the journal first that this number is taken: who resumes the restore asks for the same one.
    async fn verify(&self, lease: &Lease, record: &mut RestoreRecord) -> Result<Step, RestoreError> {
        let Some(attachment) = record.attachment.clone() else { return Ok(Ok(())) };
        let probe = match Probe::of_checkpoint(&record.plan.checkpoint) {
            Ok(Some(probe)) => probe,
            Ok(None) => {
                let reason = "No probe was saved with the checkpoint to compare with.";
                record.verification.get_or_insert_with(|| Verification::not(reason));
                return Ok(Ok(()));
            }
            Err(error) => {
                record.verification.get_or_insert_with(|| Verification::not(format!("{error}.")));
                return Ok(Ok(()));
            }
        };
        let asked_before = record.probe_seq_id.is_some();
        let seq_id = match record.probe_seq_id {
            Some(seq_id) => seq_id,
            None => {
                record.probe_seq_id = Some(attachment.next_seq_id);
                if let Some(attachment) = &mut record.attachment {
                    attachment.next_seq_id += 1;
                }
                let message = "Comparing the new run with what was saved.".to_owned();
                self.write(lease, record, RestoreState::Checking, message).await?;
                attachment.next_seq_id
            }
        };
        // A service may refuse a number for the very reason that it was used when the restore was cut off.
        let compared = self.forward(&attachment.model_id, seq_id, &probe).await;
        let verification = match compared.map_err(|error| error.seen_before(asked_before)) {
            Ok(output) => probe.compare(&output),
            Err(error) if error.is_definite_refusal() => {
                // The number was not used.
                if let Some(attachment) = &mut record.attachment {
                    attachment.next_seq_id = seq_id;
                }
                Verification::not(format!("The service refused the probe. {error}"))
            }
            Err(error) if matches!(error.kind(), ErrorKind::Failed { .. }) => {
                Verification::not(format!("The probe failed. {error}"))
            }
            // Whether the number is used cannot be known, so nobody could go on with the run.
            Err(error) => return self.failed("The new run could not be compared.", error),
        };
        record.verification = Some(verification.clone());
        Ok(match verification {
            Verification::Different { .. } => {
                record.checkpoint_useless = true;
                Err(format!("The new run {} is not what was saved. {verification}", attachment.model_id))
            }
            _ => Ok(()),
        })
    }

    /// Finds out on copies whether the optimizer's state came back. Their session carries the restore's label: should this be
    /// cut off, it is finished as a surplus one.
    async fn look_at_optimizer(&self, record: &RestoreRecord) -> OptimizerState {
        let labels = UserMetadata::from([(LABEL_RESTORE_ID.to_owned(), record.id.clone())]);
        let found = verify::optimizer(&self.api, &record.plan.checkpoint, labels).await;
        found.unwrap_or_else(|error| OptimizerState::not(format!("{error}.")))
    }

    async fn forward(
        &self,
        model_id: &str,
        seq_id: u64,
        probe: &Probe,
    ) -> Result<ForwardBackwardOutput, Error> {
        let batch = [probe
            .batch()
            .map_err(|error| Error::new("the probe", ErrorKind::Config { message: error.to_string() }))?];
        let compared = self.persist(
            || async {
                let config = LossFnConfig::new();
                let pending =
                    self.api.forward_backward(model_id, seq_id, &batch, LOSS, &config, true).await?;
                pending.await
            },
            may_ask_again,
        );
        compared.await
    }

    async fn fail(
        &self,
        lease: &Lease,
        record: &mut RestoreRecord,
        reason: String,
    ) -> Result<(), RestoreError> {
        record.error = Some(sentence(&reason));
        self.end(lease, record, RestoreState::Failed, reason, FinishReason::Errored).await
    }

    /// Ends a restore without a new run.
    async fn end(
        &self,
        lease: &Lease,
        record: &mut RestoreRecord,
        state: RestoreState,
        message: String,
        finish: FinishReason,
    ) -> Result<(), RestoreError> {
        record.attachment = None;
        record.new_run_id = None;
        self.write(lease, record, state, message).await?;
        self.finish_surplus(record).await;
        // What the session holds is not adopted by anybody: let the service have its memory back.
        if let Some(session_id) = &record.session_id {
            let detail = Some(format!("restore {} {}", record.id, state.as_str()));
            if let Err(error) = self.api.finish_session(session_id, finish, detail).await {
                tracing::debug!(session = %session_id, %error, "the session of an ended restore is left to end by itself");
            }
        }
        Ok(())
    }

    /// The restore's failure, with what it means and the error; or that there is none yet.
    fn failed(&self, what: impl fmt::Display, error: Error) -> Result<Step, RestoreError> {
        let error = self.unless_outage(error)?;
        Ok(Err(format!("{what} {error}")))
    }

    /// An error that is the restore's failure. That the service is not there, or asks for patience, is none: the restore
    /// stays where it is, and is gone on with.
    fn unless_outage(&self, error: Error) -> Result<Error, RestoreError> {
        if !error.is_outage() {
            return Ok(error);
        }
        self.pauses.hold(self.runtime.now(), &error);
        Err(RestoreError::Service(error))
    }

    /// Does something again, after growing pauses, while it fails in a way that may pass.
    async fn persist<T, F>(
        &self,
        mut act: impl FnMut() -> F,
        may_pass: fn(&Error) -> bool,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let (mut next, mut seen) = (FIRST_PAUSE, false);
        for _ in 1..ATTEMPTS {
            match act().await {
                Err(error) if may_pass(&error) => {
                    let pause = error.retry_after().map_or(next, |asked| asked.clamp(next, LONGEST_PAUSE));
                    tracing::warn!(%error, "trying again in {} s", pause.as_secs());
                    seen |= !error.is_definite_refusal();
                    self.runtime.sleep(pause).await;
                    next *= 2;
                }
                outcome => return outcome.map_err(|error| error.seen_before(seen)),
            }
        }
        act().await.map_err(|error| error.seen_before(seen))
    }
}

/// What a step came to: done, or why the restore has failed.
type Step = Result<(), String>;

/// Whether asking again, under the same identity, may end otherwise.
fn may_ask_again(error: &Error) -> bool {
    match error.kind() {
        // The same identity would be given the same failure.
        ErrorKind::Failed { .. } => false,
        // The service has forgotten the result; whether the load was done is seen by asking for it again.
        ErrorKind::Expired { .. } => true,
        ErrorKind::Refused { status: 404, request_id: Some(_), .. } => true,
        _ => error.is_retryable(),
    }
}

/// The restore that made this run from that one, as its labels say.
fn restore_of<'a>(run: &'a TrainingRun, old_run: &str) -> Option<&'a String> {
    let labels = run.user_metadata.as_ref()?;
    labels.get(LABEL_RESTORED_FROM).filter(|from| *from == old_run)?;
    labels.get(LABEL_RESTORE_ID)
}

/// The labels of the new run: those of the plan, and which restore makes it.
fn labels_of(record: &RestoreRecord) -> UserMetadata {
    let mut labels = record.plan.user_metadata.clone();
    labels.insert(LABEL_RESTORE_ID.to_owned(), record.id.clone());
    labels
}

/// Whether a load failed because of its checkpoint: not because its session was over meanwhile, nor by a failure of the
/// service, which may be any.
fn blames_checkpoint(error: &Error) -> bool {
    let of_session = error.detail().is_some_and(|detail| detail.to_ascii_lowercase().contains("session"));
    let refused = match error.kind() {
        ErrorKind::Refused { status, .. } => matches!(status, 400 | 404 | 422),
        ErrorKind::Failed { category, .. } => *category == RequestErrorCategory::User,
        _ => false,
    };
    refused && !of_session
}

fn load_failure(record: &RestoreRecord, error: &Error) -> String {
    format!("Checkpoint {} could not be loaded. {error}", record.plan.checkpoint.tinker_path)
}

mod cancel;
mod pauses;
pub(super) use pauses::patience;
#[cfg(test)]
pub(super) use pauses::{LEFT_ALONE, LONGEST_ALONE};
#[cfg(test)]
mod tests;
