//! A run with a redo log: begun, or gone on with.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_channel::{mpsc, oneshot};
use futures_core::Stream;
use retinker_wire::model::LoraConfig;

use super::driver::{Control, Driver, STRIKES, keeper, make_from};
use super::entry::{Creation, Entry, Frame, Head, Identity};
use super::error::RedoError;
use super::event::{Hub, RedoEvent};
use super::keep::{Fate, fates};
use super::ledger::Ledger;
use super::log::{LogError, RedoLog};
use super::outcome::Matching;
use super::point::{self, ReplayPlan};
use super::policy::CheckpointPolicy;
use crate::client::training::line::Line;
use crate::client::training::order::Order;
use crate::client::{Error, ServiceClient, TrainingClient, TrainingOptions};
use crate::recovery::journal::Store;
use crate::recovery::plan::{LABEL_OPT_OUT, SCHEMA_VERSION};
use crate::recovery::retention::Rule;

/// How a run is kept.
#[derive(Debug, Clone)]
pub struct RedoOptions {
    /// How replayed results are held against recorded ones; exactly.
    pub matching: Matching,
    /// When checkpoints are saved beside those that the program saves; never.
    pub checkpoints: CheckpointPolicy,
    /// Bytes that the log may take; 1 GiB. When a third of it was written since the last checkpoint one is saved; when it is
    /// full, operations wait until one is.
    pub bound: u64,
    /// How long a service that is not there is asked for a new run; an hour.
    pub patience: Duration,
    /// The run's labels, and its optimizer.
    pub training: TrainingOptions,
    /// The recovery journal that is told of each recovery from a checkpoint, so that consoles on it show it and nobody restores the run as
    /// well; none. It has to be bound to the service.
    pub journal: Option<Arc<dyn Store>>,
}

impl Default for RedoOptions {
    fn default() -> Self {
        Self {
            matching: Matching::default(),
            checkpoints: CheckpointPolicy::default(),
            bound: 1 << 30,
            patience: Duration::from_secs(3600),
            training: TrainingOptions::default(),
            journal: None,
        }
    }
}

/// Where a program that was started again goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumed {
    /// The steps of the optimizer that were taken.
    pub step: u64,
    /// What the program gave with the last of them; see [`Redo::set_cursor`].
    pub cursor: Option<Bytes>,
}

/// A run with a redo log. Cheap to clone.
#[derive(Clone)]
pub struct Redo {
    training: TrainingClient,
    service: ServiceClient,
    log: Arc<dyn RedoLog>,
    matching: Matching,
    checkpoints: CheckpointPolicy,
    journal: Option<Arc<dyn Store>>,
    hub: Hub,
    cursor: Arc<Mutex<Option<Bytes>>>,
    controls: mpsc::UnboundedSender<Control>,
    resumed: Option<Resumed>,
}

impl fmt::Debug for Redo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redo")
            .field("training", &self.training)
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}

impl Redo {
    /// Makes a run whose requests are written to this log; or goes on with the run that is in it, made anew first if it was
    /// lost, or if it was left within a step.
    ///
    /// # Errors
    /// [`RedoError::OtherRun`] for a log of a run on another base model, of another adapter or of another service.
    /// [`RedoError::Service`] for what [`ServiceClient::create_lora_training_client`] gives, and for a policy that cannot be gone by.
    pub async fn lora(
        service: &ServiceClient,
        log: impl RedoLog,
        base_model: &str,
        lora_config: LoraConfig,
        options: RedoOptions,
    ) -> Result<Self, RedoError> {
        options
            .checkpoints
            .check()
            .map_err(|why| RedoError::Service(Error::config("the checkpoint policy of a redo log", why)))?;
        let log: Arc<dyn RedoLog> = Arc::new(log);
        match Ledger::read(&*log).await? {
            Some(ledger) => {
                check_same(&*log, &ledger.head, service, base_model, &lora_config)?;
                Self::resume(service, log, ledger, options).await
            }
            None => Self::begin(service, log, base_model, lora_config, options).await,
        }
    }

    async fn begin(
        service: &ServiceClient,
        log: Arc<dyn RedoLog>,
        base_model: &str,
        mut lora_config: LoraConfig,
        options: RedoOptions,
    ) -> Result<Self, RedoError> {
        let runtime = service.api().runtime().clone();
        // Always explicit, so that the run can be made again: as by the client without a log.
        lora_config.seed.get_or_insert_with(|| runtime.random() >> 33);
        let mut user_metadata = options.training.user_metadata.clone().unwrap_or_default();
        user_metadata.insert(LABEL_OPT_OUT.to_owned(), "redo_log".to_owned());
        let creation = Creation {
            base_model: base_model.to_owned(),
            lora_config,
            optimizer_config: options.training.optimizer_config.clone(),
            user_metadata,
        };
        let head = Head {
            schema: SCHEMA_VERSION,
            log: format!("{:016x}", runtime.random()),
            service: service.api().base_url().to_owned(),
            creation,
            next_op: 0,
            steps: 0,
            generation: 0,
            run: None,
            root: None,
            runs: Vec::new(),
            saves: 0,
            bases: Vec::new(),
        };
        let mut ledger = Ledger::new(head.clone());
        put(&*log, &mut ledger, Entry::Head(Box::new(head)), Bytes::new()).await?;
        Self::first_run(service, &log, &mut ledger)
            .await
            .and_then(|made| Self::drive(service, log, ledger, &made, options, None))
    }

    /// Makes the first run of a log.
    async fn first_run(
        service: &ServiceClient,
        log: &Arc<dyn RedoLog>,
        ledger: &mut Ledger,
    ) -> Result<TrainingClient, RedoError> {
        let mut place = match ledger.identity.take() {
            // The program before this one may have made it, and not heard of that.
            Some(chosen) => service.place_of(&chosen.session_id, chosen.model_seq_id),
            None => service.place().await.map_err(RedoError::Service)?,
        };
        let creation = ledger.creation().clone();
        let mut again = true;
        let made = loop {
            put(&**log, ledger, Entry::Identity(Identity::of(&place, None)), Bytes::new()).await?;
            match make_from(&place, None, &creation, creation.user_metadata.clone()).await {
                // Its session is over: another place, once.
                Err(error) if matches!(error.status(), Some(404 | 410)) && std::mem::take(&mut again) => {
                    place = service.place().await.map_err(RedoError::Service)?;
                }
                made => break made,
            }
        };
        let made = made.map_err(RedoError::Service)?;
        let attachment = made.attachment();
        put(&**log, ledger, Entry::Run { generation: 0, attachment }, Bytes::new()).await?;
        Ok(made)
    }

    async fn resume(
        service: &ServiceClient,
        log: Arc<dyn RedoLog>,
        mut ledger: Ledger,
        options: RedoOptions,
    ) -> Result<Self, RedoError> {
        let Some(attachment) = ledger.attachment() else {
            // It ended before its run was there.
            let made = Self::first_run(service, &log, &mut ledger).await?;
            return Self::drive(service, log, ledger, &made, options, None);
        };
        // What lies behind the last step is begun again by the program.
        let adrift = ledger.is_adrift() || ledger.rebuilding;
        // Nor what it is lost by: the program goes on without that.
        let pill = ledger.pill(STRIKES).map(|(op, _)| op);
        // Written before what tells of it is let go of: should this end before the run is made anew, the next program makes it.
        if adrift && !ledger.rebuilding {
            put(&*log, &mut ledger, Entry::Replaying, Bytes::new()).await?;
        }
        if let Some(from) = [ledger.loose_end(), pill].into_iter().flatten().min() {
            put(&*log, &mut ledger, Entry::Discarded { from }, Bytes::new()).await?;
        }
        let cursor = match ledger.last_step() {
            Some((_, op)) if op.cursor => match op.parts.first() {
                Some(part) => Some(log.read(part.place).await?.body),
                None => None,
            },
            _ => None,
        };
        let resumed = Some(Resumed { step: ledger.head.steps, cursor });
        let client = TrainingClient::attach(service.api().clone(), attachment);
        let lost = adrift || is_gone(service, &client).await?;
        let redo = Self::drive(service, log, ledger, &client, options, resumed)?;
        if lost {
            redo.ask(|answer| Control::Rebuild { answer }).await??;
        }
        Ok(redo)
    }

    /// Has a driver take the client's operations from now on.
    fn drive(
        service: &ServiceClient,
        log: Arc<dyn RedoLog>,
        ledger: Ledger,
        made: &TrainingClient,
        options: RedoOptions,
        resumed: Option<Resumed>,
    ) -> Result<Self, RedoError> {
        let api = service.api().clone();
        let attachment = made.attachment();
        let session = made.session().ok_or(RedoError::Gone)?;
        let order = Order::new(attachment.model_id.clone(), attachment.session_id, attachment.next_seq_id);
        let line = Line::new(api.clone(), attachment.model_id, order.clone(), &session);
        let held = Arc::new(Mutex::new(Some(session)));
        let (jobs, queue) = mpsc::unbounded();
        let (controls, asked) = mpsc::unbounded();
        let (hub, cursor) = (Hub::default(), Arc::default());
        let (matching, checkpoints) = (options.matching, options.checkpoints.clone());
        let journal = options.journal.clone();
        let driver = Driver::new(super::driver::Parts {
            service: service.clone(),
            order: order.clone(),
            held: held.clone(),
            line,
            log: log.clone(),
            ledger,
            options,
            hub: hub.clone(),
            cursor: Arc::clone(&cursor),
            controls: controls.clone(),
        });
        api.runtime().spawn(Box::pin(driver.run(queue, asked)));
        let training = TrainingClient::driven(api, jobs, order, held, Some(keeper(controls.clone())));
        let service = service.clone();
        Ok(Self { training, service, log, matching, checkpoints, journal, hub, cursor, controls, resumed })
    }

    /// The client that trains the run: it recovers by itself. Its clones and this share the run.
    pub fn training_client(&self) -> &TrainingClient {
        &self.training
    }

    /// Where the program goes on, if the log had a run already.
    pub fn resumed(&self) -> Option<&Resumed> {
        self.resumed.as_ref()
    }

    /// What happens to the run from now on; who listens first also hears what has happened before, such as that the run of a log
    /// was lost and is made anew.
    pub fn events(&self) -> impl Stream<Item = RedoEvent> + Send + 'static + use<> {
        self.hub.listen()
    }

    /// Gives the next step of the optimizer a cursor: what the program needs to go on after that step, such as its place in the
    /// data and the state of its chance. It is written with the step, and never read.
    pub fn set_cursor(&self, cursor: impl Into<Bytes>) {
        *self.cursor.lock().unwrap_or_else(PoisonError::into_inner) = Some(cursor.into());
    }

    /// The steps of the optimizer that a run can be made of anew, from the first to the last.
    ///
    /// # Errors
    /// [`RedoError::Gone`] once every client is gone.
    pub async fn window(&self) -> Result<std::ops::RangeInclusive<u64>, RedoError> {
        Ok(self.ask(|answer| Control::Ledger { answer }).await?.ledger.window())
    }

    /// The end of the training, once the result of its last step is there: saves a checkpoint if [`CheckpointPolicy::at_end`] says so
    /// and steps were taken since the newest one, and gives the path of the newest one, `None` if there is none. More can be trained
    /// afterwards.
    ///
    /// # Errors
    /// As of [`save`](Self::save); [`RedoError::Gone`] once every client is gone.
    pub async fn finish(&self) -> Result<Option<String>, RedoError> {
        let held = self.ask(|answer| Control::Ledger { answer }).await?;
        let (newest, steps) = (held.ledger.head.bases.last(), held.ledger.head.steps);
        if self.checkpoints.at_end && newest.map_or(0, |base| base.step) < steps {
            return self.save(&format!("end-{steps:06}")).await.map(Some);
        }
        Ok(newest.map(|base| base.path.clone()))
    }

    /// Saves a checkpoint that the log can stand on, and gives its path when it is there.
    ///
    /// # Errors
    /// [`RedoError::Service`] for what [`TrainingClient::save_state`] gives.
    pub async fn save(&self, name: &str) -> Result<String, RedoError> {
        let saved = self.training.save_state(name, Default::default()).await;
        Ok(saved.map_err(RedoError::Service)?.path)
    }

    /// The checkpoints that the log has saved by itself, and which of them go by this rule, as they would by
    /// [`CheckpointPolicy::keep`]: nothing is deleted here.
    ///
    /// # Errors
    /// [`RedoError::Service`] where the service, or the journal, does not tell which there are; [`RedoError::Gone`] once every client is gone.
    pub async fn plan_retention(&self, keep: Rule) -> Result<Vec<Fate>, RedoError> {
        let held = self.ask(|answer| Control::Ledger { answer }).await?;
        let policy = CheckpointPolicy { keep, ..self.checkpoints.clone() };
        policy.check().map_err(|why| RedoError::Service(Error::config("a rule for checkpoints", why)))?;
        let fates = fates(self.service.api(), self.journal.as_deref(), &held.ledger, &policy).await;
        fates.map_err(RedoError::Service)
    }

    /// What [`recover_to`](Self::recover_to) would do.
    ///
    /// # Errors
    /// [`RedoError::NotCovered`] for a step outside of [`window`](Self::window).
    pub async fn plan_to(&self, step: u64) -> Result<ReplayPlan, RedoError> {
        point::plan(&self.ask(|answer| Control::Ledger { answer }).await?.ledger, step)
    }

    /// Makes a new run that is as this one was after its `step`-th step of the optimizer, 0 for the beginning. This run goes on as it
    /// is. The new one has no redo log.
    ///
    /// # Errors
    /// [`RedoError::NotCovered`] for a step outside of [`window`](Self::window); [`RedoError::Mismatch`] if the service does not come to the
    /// same results again.
    pub async fn recover_to(&self, step: u64) -> Result<TrainingClient, RedoError> {
        let held = self.ask(|answer| Control::Ledger { answer }).await?;
        point::make(&self.service, &self.log, &held.ledger, self.matching, step, &|_| ()).await
    }

    async fn ask<T>(&self, control: impl FnOnce(oneshot::Sender<T>) -> Control) -> Result<T, RedoError> {
        let (answer, answered) = oneshot::channel();
        self.controls.unbounded_send(control(answer)).map_err(|_| RedoError::Gone)?;
        answered.await.map_err(|_| RedoError::Gone)
    }
}

/// Whether a run that the log says nothing against is lost all the same.
async fn is_gone(service: &ServiceClient, client: &TrainingClient) -> Result<bool, RedoError> {
    let (run_id, session_id) = (client.model_id(), client.session_id());
    match service.api().session_heartbeat(&session_id).await {
        Err(error) if error.says_session_is_over() => return Ok(true),
        Err(error) if !matches!(error.status(), Some(404 | 410)) => return Err(RedoError::Service(error)),
        _ => {}
    }
    match service.api().training_run(&run_id).await {
        Ok(run) => Ok(run.corrupted == Some(true)),
        Err(error) if error.is_not_found() => Ok(true),
        Err(error) => Err(RedoError::Service(error)),
    }
}

fn check_same(
    log: &dyn RedoLog,
    head: &Head,
    service: &ServiceClient,
    base_model: &str,
    lora_config: &LoraConfig,
) -> Result<(), RedoError> {
    let kept = &head.creation;
    let seed = lora_config.seed.or(kept.lora_config.seed);
    let asked = LoraConfig { seed, ..lora_config.clone() };
    let describe = |service: &str, model: &str, lora: &LoraConfig| {
        format!("a run on {model} at {service} with the adapter {lora:?}")
    };
    let address = service.api().base_url();
    if head.service != address || kept.base_model != base_model || kept.lora_config != asked {
        return Err(RedoError::OtherRun {
            log: log.name(),
            kept: describe(&head.service, &kept.base_model, &kept.lora_config),
            asked: describe(address, base_model, &asked),
        });
    }
    Ok(())
}

/// Writes an entry, and takes it.
pub(crate) async fn put(
    log: &dyn RedoLog,
    ledger: &mut Ledger,
    entry: Entry,
    body: Bytes,
) -> Result<(), LogError> {
    let place = log.append(Frame { entry: entry.clone(), body }).await?;
    ledger.take(place, entry);
    Ok(())
}
