//! A point in time: a new run that is as the log's was after one of its steps.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::StreamExt;
use retinker_wire::UserMetadata;
use retinker_wire::run::TrainingRun;
use retinker_wire::session::FinishReason;
use serde::Serialize;

use super::RedoError;
use super::driver::{hold_against, labels, make_from, restore_ids};
use super::entry::{Base, Entry};
use super::ledger::{Ledger, Op};
use super::log::RedoLog;
use super::outcome::{Matching, Outcome};
use super::replay::{Again, Halt, Replay};
use crate::client::training::line::Line;
use crate::client::training::order::Order;
use crate::client::{Error, SaveOptions, ServiceClient, TrainingClient};
use crate::recovery::plan::{LABEL_OPT_OUT, LABEL_RESTORE_ID};

/// What a replay takes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReplayPlan {
    /// The run whose log it is.
    pub run_id: String,
    /// The checkpoint that the new run is made from; `None` = from the beginning.
    pub path: Option<String>,
    /// Steps of the optimizer that are in it.
    pub from_step: u64,
    /// Steps of the optimizer that are in the new run.
    pub to_step: u64,
    /// Requests that are sent again.
    pub requests: u64,
    /// Tokens of text in them.
    pub tokens: u64,
    /// How long it was from the first of them to the last when they were called, in seconds. A replay waits for nobody in between.
    pub seconds: f64,
}

/// What a log covers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Covered {
    /// The run of now.
    pub run_id: String,
    /// The first one.
    pub root_run_id: String,
    /// The service's address.
    pub service: String,
    /// The first step of the optimizer that can be gone back to; 0 = the beginning.
    pub first_step: u64,
    /// The last one.
    pub last_step: u64,
    /// The checkpoints that it stands on, oldest first, and then those that are loaded in a replay: they must not be deleted.
    pub stands_on: Vec<String>,
}

/// What a log is of, as far as its beginning tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSubject {
    /// The first run.
    root_run_id: String,
    /// What the restore ids of those after it begin with.
    restores: String,
}

impl LogSubject {
    /// Whether it is this run's, as it is told by its service: one that forgets labels does not tell it of a run that a recovery
    /// has made.
    pub fn is_of(&self, run: &TrainingRun) -> bool {
        let label = run.user_metadata.as_ref().and_then(|labels| labels.get(LABEL_RESTORE_ID));
        run.training_run_id == self.root_run_id || label.is_some_and(|id| id.starts_with(&self.restores))
    }
}

/// A run as it was after a step, saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SavedStep {
    /// The run that was made for it. Its session is finished.
    pub run_id: String,
    /// The checkpoint, with the optimizer's state. It has no end.
    pub path: String,
    /// The step.
    pub step: u64,
}

/// A log without the program that writes it, which may go on meanwhile.
#[derive(Debug, Clone)]
pub struct Recorded {
    log: Arc<dyn RedoLog>,
    ledger: Ledger,
}

impl Recorded {
    /// What is in a log; `None` if that is no run.
    ///
    /// # Errors
    /// [`RedoError::Log`] for a log that cannot be read.
    pub async fn read(log: impl RedoLog) -> Result<Option<Self>, RedoError> {
        let log: Arc<dyn RedoLog> = Arc::new(log);
        let ledger = Ledger::read(&*log).await?.filter(|ledger| ledger.head.run.is_some());
        Ok(ledger.map(|ledger| Self { log, ledger }))
    }

    /// Of which run a log is, without reading more of it than that takes; `None` if it is of none.
    ///
    /// # Errors
    /// [`RedoError::Log`] for a log whose beginning cannot be read.
    pub async fn subject(log: &dyn RedoLog) -> Result<Option<LogSubject>, RedoError> {
        let mut frames = log.frames();
        let mut restores = String::new();
        while let Some(frame) = frames.next().await {
            let root_run_id = match frame?.1.entry {
                Entry::Head(head) => {
                    restores = restore_ids(&head.log);
                    head.root
                }
                // The first one of all: a head after it would have told it.
                Entry::Run { attachment, .. } => Some(attachment.model_id),
                _ => None,
            };
            if let Some(root_run_id) = root_run_id {
                return Ok(Some(LogSubject { root_run_id, restores }));
            }
        }
        Ok(None)
    }

    /// Whether it is of a run: that of now, the first one, or one between them, which only its service can tell.
    pub fn is_of(&self, run: &TrainingRun) -> bool {
        let head = &self.ledger.head;
        let root_run_id = head.root.clone().unwrap_or_default();
        let subject = LogSubject { root_run_id, restores: restore_ids(&head.log) };
        run.training_run_id == run_of(&self.ledger) || subject.is_of(run)
    }

    /// What it covers.
    pub fn covered(&self) -> Covered {
        let (head, window) = (&self.ledger.head, self.ledger.window());
        Covered {
            run_id: run_of(&self.ledger),
            root_run_id: head.root.clone().unwrap_or_default(),
            service: head.service.clone(),
            first_step: *window.start(),
            last_step: *window.end(),
            stands_on: self.ledger.stands_on(),
        }
    }

    /// What [`recover_to`](Self::recover_to) would do.
    ///
    /// # Errors
    /// [`RedoError::NotCovered`].
    pub fn plan_to(&self, step: u64) -> Result<ReplayPlan, RedoError> {
        plan(&self.ledger, step)
    }

    /// Makes a new run that is as the log's was after its `step`-th step of the optimizer. `done` is told how many requests have
    /// been done again: as many as [`plan_to`](Self::plan_to) says in the end, or more where the checkpoint could not be restored
    /// and an older one was taken.
    ///
    /// # Errors
    /// As of [`Redo::recover_to`](super::Redo::recover_to).
    pub async fn recover_to(
        &self,
        service: &ServiceClient,
        matching: Matching,
        step: u64,
        done: impl Fn(u64) + Send + Sync,
    ) -> Result<TrainingClient, RedoError> {
        make(service, &self.log, &self.ledger, matching, step, &done).await
    }

    /// The same, saved as a checkpoint: with the optimizer's state, and without an end. `name` is `step-000120` and the like by
    /// default. The session of `service` is finished, as the run has nobody who trains it.
    ///
    /// # Errors
    /// As of [`recover_to`](Self::recover_to); [`RedoError::Service`] where it cannot be saved.
    pub async fn save_step(
        &self,
        service: &ServiceClient,
        matching: Matching,
        (step, name): (u64, Option<&str>),
        done: impl Fn(u64) + Send + Sync,
    ) -> Result<SavedStep, RedoError> {
        let made = self.recover_to(service, matching, step, done).await?;
        let name = name.map_or_else(|| format!("step-{step:06}"), str::to_owned);
        let saved = made.save_state(&name, SaveOptions::default()).await.map_err(RedoError::Service)?;
        if let Err(error) = service.finish(FinishReason::Success, None).await {
            tracing::debug!(%error, "the session of the saved run was not finished: it ends by itself");
        }
        Ok(SavedStep { run_id: made.model_id().to_owned(), path: saved.path, step })
    }
}

fn run_of(ledger: &Ledger) -> String {
    ledger.head.run.as_ref().map(|run| run.model_id.clone()).unwrap_or_default()
}

/// What has to be done again from there, to be as after this operation.
fn again(ledger: &Ledger, start: Option<&Base>, last: Option<u64>) -> VecDeque<Again> {
    let Some(last) = last else { return VecDeque::new() };
    let wanted = ledger.ops.range(Ledger::from(start)..=last.max(Ledger::from(start)));
    let wanted = wanted.filter(|(number, op)| **number <= last && op.changes_the_run());
    let again = wanted.map(|(number, op)| Again {
        number: *number,
        parts: effective(op),
        op: op.clone(),
        watch: Arc::default(),
    });
    again.collect()
}

/// Those of an operation's requests that did not fail by themselves.
pub(crate) fn effective(op: &Op) -> Vec<usize> {
    let void = |part: usize| op.parts.get(part)?.outcome.as_ref().map(|outcome| outcome.void);
    (0..op.parts.len()).filter(|part| void(*part) != Some(true)).collect()
}

fn check(ledger: &Ledger, step: u64) -> Result<(), RedoError> {
    let window = ledger.window();
    match window.contains(&step) {
        true => Ok(()),
        false => Err(RedoError::NotCovered { step, first: *window.start(), last: *window.end() }),
    }
}

/// The checkpoints at or before a step, newest first; `None` stands for the beginning.
fn starts(ledger: &Ledger, step: u64) -> impl Iterator<Item = Option<Base>> {
    ledger.starts().into_iter().filter(move |start| start.as_ref().is_none_or(|base| base.step <= step))
}

pub(crate) fn plan(ledger: &Ledger, step: u64) -> Result<ReplayPlan, RedoError> {
    check(ledger, step)?;
    let start = starts(ledger, step).next().flatten();
    let queue = again(ledger, start.as_ref(), ledger.op_of_step(step));
    let requests = queue.iter().map(|again| again.parts.len() as u64).sum();
    let parts = queue.iter().flat_map(|again| &again.op.parts);
    let tokens = parts.map(|part| part.tokens as u64).sum();
    let times = (queue.front().map(|again| again.op.at), queue.back().map(|again| again.op.at));
    let seconds = match times {
        (Some(first), Some(last)) => (last.as_millis() - first.as_millis()).max(0) as f64 / 1000.0,
        _ => 0.0,
    };
    let (from_step, path) = start.map_or((0, None), |base| (base.step, Some(base.path)));
    Ok(ReplayPlan { run_id: run_of(ledger), path, from_step, to_step: step, requests, tokens, seconds })
}

pub(crate) async fn make(
    service: &ServiceClient,
    log: &Arc<dyn RedoLog>,
    ledger: &Ledger,
    matching: Matching,
    step: u64,
    done: &(dyn Fn(u64) + Send + Sync),
) -> Result<TrainingClient, RedoError> {
    check(ledger, step)?;
    let mut last = "there is none".to_owned();
    for start in starts(ledger, step) {
        match new_run(service, ledger, start.as_ref()).await {
            Ok(made) => {
                let queue = again(ledger, start.as_ref(), ledger.op_of_step(step));
                return replay(service, log, ledger, matching, (made, queue), done).await;
            }
            Err(error) => last = error.to_string(),
        }
    }
    Err(RedoError::NoStart { last })
}

async fn replay(
    service: &ServiceClient,
    log: &Arc<dyn RedoLog>,
    ledger: &Ledger,
    matching: Matching,
    (made, queue): (TrainingClient, VecDeque<Again>),
    told: &(dyn Fn(u64) + Send + Sync),
) -> Result<TrainingClient, RedoError> {
    let session = made.session().ok_or(RedoError::Gone)?;
    let attachment = made.attachment();
    let order = Order::new(attachment.model_id.clone(), attachment.session_id, attachment.next_seq_id);
    let mut line = Line::new(service.api().clone(), attachment.model_id, order.clone(), &session);
    line.settle().await;
    let mut replay = Replay::new(log.clone(), queue);
    let mut seen = Vec::new();
    for number in 1.. {
        let done = match replay.next(&line).await {
            Ok(Some(done)) => done,
            Ok(None) => break,
            Err(Halt::Lost { error, .. }) => return Err(RedoError::Service(error)),
            Err(Halt::Stop(error)) => return Err(error),
        };
        told(number);
        let recorded = ledger.ops.get(&done.op).and_then(|op| op.parts.get(done.part)?.outcome.as_ref());
        if done.result.is_err() && recorded.is_some_and(|outcome| outcome.failed) {
            continue;
        }
        let raw = done.result.map_err(RedoError::Service)?;
        if let Some(op) = ledger.ops.get(&done.op) {
            let outcome = Outcome::of(&op.form, op.form.name(), &raw).unwrap_or_default();
            hold_against(ledger, done.op, done.part, &outcome, matching, &mut seen)?;
        }
    }
    let next_seq_id = order.lock().next_seq_id;
    Ok(TrainingClient::new(service.api().clone(), session, made.model_id(), next_seq_id))
}

async fn new_run(
    service: &ServiceClient,
    ledger: &Ledger,
    start: Option<&Base>,
) -> Result<TrainingClient, Error> {
    let place = service.place().await?;
    make_from(&place, start, ledger.creation(), point_labels(ledger, start)).await
}

/// The labels of a run that takes nobody's place, and that anybody may restore.
fn point_labels(ledger: &Ledger, start: Option<&Base>) -> UserMetadata {
    let mut labels = labels(ledger, start);
    labels.remove(LABEL_OPT_OUT);
    // By it the run would pass for what the lost one was restored as, and that one would be left as it is.
    labels.remove(LABEL_RESTORE_ID);
    labels
}
