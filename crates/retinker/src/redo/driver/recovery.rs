//! What is done when the run is lost: another is made, and takes its place.

use std::collections::{BTreeSet, VecDeque};

use futures_util::StreamExt;
use futures_util::future::{AbortHandle, Either, select};

use retinker_wire::time::Time;

use super::*;
use crate::redo::told::{self, Recovery};

impl Driver {
    /// Whether an error tells that the run has lost its state.
    pub(super) async fn is_lost(&mut self, error: &Error) -> bool {
        if Symptom::of(error).is_some() {
            return true;
        }
        if matches!(
            error.kind(),
            ErrorKind::Cancelled { .. } | ErrorKind::Undecodable { .. } | ErrorKind::Config { .. }
        ) {
            return false;
        }
        // A session that has ended is told as whoever has ended it sees it.
        let of_session = error.detail().is_some_and(|detail| detail.contains("session"));
        let users = error.category() == RequestErrorCategory::User && !error.is_not_found();
        if users && !of_session {
            return false;
        }
        self.is_gone(users).await
    }

    /// Whether the service says that the run is not what it was: its session is over, it is corrupted, or it is not there. With
    /// `session_alone` only the first of these is asked for.
    pub(super) async fn is_gone(&mut self, session_alone: bool) -> bool {
        let Some(session) = self.parts.line.session() else { return false };
        let runtime = self.api().runtime().clone();
        let mut patience = Patience::new(&*runtime, self.parts.options.patience);
        loop {
            let asked = match self.api().session_heartbeat(&session.id).await {
                Err(error) if error.says_session_is_over() => return true,
                Err(error) if error.is_outage() => Err(error),
                _ if session_alone => return false,
                _ => self.api().training_run(&self.parts.line.model_id).await,
            };
            match asked {
                Ok(run) => return run.corrupted == Some(true),
                Err(error) if error.is_not_found() => return true,
                Err(error) if error.is_outage() => {
                    if !patience.wait(&*runtime, &self.parts.hub, &error, error.retry_after()).await {
                        return false;
                    }
                }
                Err(_) => return false,
            }
        }
    }

    /// Makes the run anew; if that cannot be done, every operation fails from now on. `failed` is the request whose result has told
    /// that the run is lost, `submitting` the operation that could not be sent.
    pub(super) async fn recover(
        &mut self,
        cause: &Error,
        failed: Option<(u64, usize)>,
        submitting: Option<u64>,
    ) {
        let why = cause.to_string();
        self.settle_what_is_there(failed.into_iter().collect()).await;
        let struck = self.waiters.iter().find(|(_, waiter)| !waiter.accepted.is_empty()).map(|(op, _)| *op);
        let struck = match (struck, submitting) {
            // The run may be as it was, and the way to it broken.
            (None, Some(op)) if self.is_gone(false).await => Some(op),
            (struck, _) => struck,
        };
        if let Some(op) = struck {
            self.note(Entry::Struck { op }).await;
        }
        let _ = self.made_anew(&why).await;
    }

    /// Takes the results that a lost run still gives: they are the true ones.
    async fn settle_what_is_there(&mut self, mut failed: BTreeSet<(u64, usize)>) {
        let generation = self.parts.ledger.head.generation;
        let mut grace = self.api().runtime().sleep(GRACE);
        loop {
            let outstanding = self.waiters.iter().flat_map(|(op, waiter)| {
                waiter
                    .results
                    .iter()
                    .enumerate()
                    .filter(|(_, r)| r.is_none())
                    .map(move |(part, _)| (*op, part))
            });
            if outstanding.filter(|of| !failed.contains(of)).count() == 0 {
                return;
            }
            let came = match select(self.results.1.next(), grace).await {
                Either::Left((Some(came), rest)) => {
                    grace = rest;
                    came
                }
                _ => return,
            };
            if came.generation != generation {
                continue;
            }
            let by_itself = came.result.as_ref().err().is_none_or(|error| {
                error.category() == RequestErrorCategory::User
                    && matches!(error.kind(), ErrorKind::Failed { .. })
            });
            if by_itself {
                Box::pin(self.take(came.op, came.part, came.result)).await;
            } else {
                failed.insert((came.op, came.part));
            }
        }
    }

    pub(super) async fn made_anew(&mut self, why: &str) -> Result<(), RedoError> {
        let lost = self.parts.line.model_id.clone();
        self.parts.hub.tell(RedoEvent::Lost { run_id: lost.clone(), why: why.to_owned() });
        let halves = self.half.iter().map(|(waiter, _)| waiter);
        halves.chain(self.waiters.values()).for_each(|waiter| waiter.watch.recovering(&lost));
        let (begun, at) = (self.api().runtime().monotonic(), self.api().runtime().now());
        let mut attempts = 0;
        let base = loop {
            attempts += 1;
            std::mem::take(&mut self.waits).values().for_each(AbortHandle::abort);
            if let Some((op, times)) = self.parts.ledger.pill(STRIKES) {
                let operation = describe(&self.parts.ledger, op);
                return self.give_up(&lost, RedoError::PoisonPill { operation, times });
            }
            match Box::pin(self.rebuild(&lost)).await {
                Ok(base) => break base,
                Err(Halt::Stop(error)) => return self.give_up(&lost, error),
                Err(Halt::Lost { error, .. }) if attempts >= ATTEMPTS => {
                    return self.give_up(&lost, RedoError::Service(error));
                }
                Err(Halt::Lost { error, op }) => {
                    let run_id = self.parts.line.model_id.clone();
                    self.parts.hub.tell(RedoEvent::Lost { run_id, why: error.to_string() });
                    if let Some(op) = op
                        && self.is_gone(false).await
                    {
                        self.note(Entry::Struck { op }).await;
                    }
                }
            }
        };
        self.stand_on_what_is_saved().await;
        self.tell_the_journal(&lost, at, base).await;
        let seconds = self.api().runtime().monotonic().saturating_sub(begun).as_secs_f64();
        let (run_id, step) = (self.parts.line.model_id.clone(), self.parts.ledger.head.steps);
        self.parts.hub.tell(RedoEvent::Recovered { run_id, from: lost, step, seconds });
        Ok(())
    }

    /// `base` is what the new run was made from: the log may not stand on it any more.
    async fn tell_the_journal(&mut self, lost: &str, begun: Time, base: Option<Base>) {
        let Some(journal) = self.parts.options.journal.clone() else { return };
        let head = &self.parts.ledger.head;
        // One from the beginning stands on no checkpoint: there is no plan of it.
        let (Some(base), Some(made)) = (base, self.parts.ledger.attachment()) else { return };
        let id = format!("{}{}", restore_ids(&head.log), head.generation);
        let recovery = Recovery { id, lost, base: &base, made, begun, step: head.steps };
        if let Err(why) = told::tell(self.api(), &*journal, recovery).await {
            self.parts.hub.tell(RedoEvent::NotRecorded { why });
        }
    }

    fn give_up(&mut self, lost: &str, error: RedoError) -> Result<(), RedoError> {
        let why = error.to_string();
        self.parts.hub.tell(RedoEvent::Stopped { run_id: lost.to_owned(), why: why.clone() });
        let cause = |name: &str| {
            Error::new(name, ErrorKind::Unrecovered { run_id: lost.to_owned(), reason: why.clone() })
        };
        self.parts.order.lock().poisoned = Some(cause("recovery"));
        for (_, waiter) in std::mem::take(&mut self.waiters) {
            let error = cause(&waiter.name);
            self.fail_alone(waiter, error);
        }
        Err(error)
    }

    /// Makes a run from the newest checkpoint that can be restored, and does again what was done since; tells that checkpoint.
    async fn rebuild(&mut self, lost: &str) -> Result<Option<Base>, Halt> {
        let (mut last, mut useless) = ("there is none".to_owned(), Vec::new());
        for start in self.parts.ledger.starts() {
            match self.make(start.as_ref(), lost).await? {
                Ok(made) => {
                    // Only now: what refuses all of them is no fault of theirs.
                    for path in useless {
                        self.note(Entry::Useless { path }).await;
                    }
                    self.replay(start.as_ref(), made).await?;
                    return Ok(start);
                }
                Err(error) => last = error.to_string(),
            }
            if let Some(base) = start {
                self.parts.hub.tell(RedoEvent::SteppedBack { path: base.path.clone(), why: last.clone() });
                useless.push(base.path);
            }
        }
        Err(Halt::Stop(RedoError::NoStart { last }))
    }

    /// Writes an entry down without which the new run is not gone on with: while there is no room for it, it is tried again.
    async fn put_at_last(&mut self, entry: Entry) -> Result<(), Halt> {
        let runtime = self.api().runtime().clone();
        let mut patience = Patience::new(&*runtime, self.parts.options.patience);
        loop {
            let Err(error) = self.put(entry.clone()).await else { return Ok(()) };
            let may_pass = matches!(error, LogError::Unavailable { .. });
            if !(may_pass && patience.wait(&*runtime, &self.parts.hub, &error, None).await) {
                return Err(error.into());
            }
        }
    }

    /// Makes a run; waits for a service that is not there. The inner error is the checkpoint's.
    async fn make(
        &mut self,
        start: Option<&Base>,
        lost: &str,
    ) -> Result<Result<TrainingClient, Error>, Halt> {
        let runtime = self.api().runtime().clone();
        let mut patience = Patience::new(&*runtime, self.parts.options.patience);
        loop {
            let error = match self.try_make(start, lost).await? {
                Ok(made) => return Ok(Ok(made)),
                Err(error) => error,
            };
            let may_pass = error.is_outage() || error.is_retryable() && error.status().is_some();
            if may_pass && patience.wait(&*runtime, &self.parts.hub, &error, error.retry_after()).await {
                continue;
            }
            let checkpoints = start.is_some() && !may_pass && error.status() != Some(401);
            return if checkpoints { Ok(Err(error)) } else { Err(Halt::Stop(RedoError::Service(error))) };
        }
    }

    async fn try_make(
        &mut self,
        start: Option<&Base>,
        lost: &str,
    ) -> Result<Result<TrainingClient, Error>, Halt> {
        let path = start.map(|base| base.path.clone());
        let chosen = self.parts.ledger.identity.take().filter(|identity| identity.path == path);
        let mut place = match chosen {
            Some(identity) => self.parts.service.place_of(&identity.session_id, identity.model_seq_id),
            None => match self.parts.service.place().await {
                Ok(place) => place,
                Err(error) => return Ok(Err(error)),
            },
        };
        let mut again = true;
        loop {
            self.put_at_last(Entry::Identity(Identity::of(&place, path.clone()))).await?;
            let mut labels = labels(&self.parts.ledger, start);
            labels.insert(LABEL_RESTORED_FROM.to_owned(), lost.to_owned());
            let made = make_from(&place, start, self.parts.ledger.creation(), labels).await;
            let error = match made {
                Ok(made) => return Ok(Ok(made)),
                Err(error) => error,
            };
            if !error.is_outage() {
                self.parts.ledger.identity = None;
            }
            // It may be the session that is not there any more: that of a program before this one, or of the lost run.
            let may_be = matches!(error.status(), Some(404 | 410));
            if !(std::mem::take(&mut again) && may_be && self.is_over(place.session_id()).await) {
                return Ok(Err(error));
            }
            self.parts.service.forget_session(place.session_id()).await;
            place = match self.parts.service.place().await {
                Ok(place) => place,
                Err(error) => return Ok(Err(error)),
            };
        }
    }

    async fn is_over(&mut self, session_id: &str) -> bool {
        let beat = self.api().session_heartbeat(session_id).await;
        beat.is_err_and(|error| error.says_session_is_over())
    }

    /// Does again with a new run what was done since its checkpoint, and has it take the place of the one that was lost.
    async fn replay(&mut self, start: Option<&Base>, made: TrainingClient) -> Result<(), Halt> {
        self.put_at_last(Entry::Replaying).await?;
        let attachment = made.attachment();
        let Some(session) = made.session() else { return Err(Halt::Stop(RedoError::Gone)) };
        let (api, model_id) = (self.api().clone(), attachment.model_id.clone());
        {
            let mut state = self.parts.order.lock();
            state.model_id.clone_from(&model_id);
            state.session_id.clone_from(&attachment.session_id);
            state.next_seq_id = attachment.next_seq_id;
            state.checkpoint = start.map(|base| base.path.clone());
        }
        self.parts.line = Line::new(api, model_id.clone(), self.parts.order.clone(), &session);
        self.parts.line.settle().await;
        {
            let mut held = self.parts.held.lock().unwrap_or_else(PoisonError::into_inner);
            // Given away meanwhile, it stays so.
            if held.is_some() {
                *held = Some(session);
            }
        }
        let generation = self.parts.ledger.head.generation + 1;
        let queue = self.queue_again(Ledger::from(start));
        let steps = queue.iter().filter(|again| again.op.step.is_some()).count() as u64;
        let requests = queue.iter().map(|again| again.parts.len() as u64).sum();
        let (path, step) = (start.map(|base| base.path.clone()), start.map_or(0, |base| base.step));
        self.parts.hub.tell(RedoEvent::Replaying { run_id: model_id, path, step, requests, steps });
        let mut seen = Vec::new();
        let mut replay = Replay::new(self.parts.log.clone(), queue);
        while let Some(done) = replay.next(&self.parts.line).await? {
            self.done_again(done, &mut seen).await?;
        }
        let run = self.parts.order.lock().next_seq_id;
        let attachment = crate::recovery::restore::Attachment { next_seq_id: run, ..attachment };
        self.put_at_last(Entry::Run { generation, attachment }).await?;
        // Nobody is left waiting for what was not done again.
        let left: Vec<u64> = self.waiters.keys().copied().collect();
        for op in left {
            if let Some(waiter) = self.waiters.remove(&op) {
                let why = "what it was to come to was let go of before it was there".to_owned();
                let run_id = self.parts.line.model_id.clone();
                let error = Error::new(&waiter.name, ErrorKind::Unrecovered { run_id, reason: why });
                self.fail_alone(waiter, error);
            }
        }
        Ok(())
    }

    /// What has to be done again with a new run: what changes it, what somebody waits for, and samplers that somebody has.
    fn queue_again(&mut self, from: u64) -> VecDeque<Again> {
        self.samplers.retain(|(_, slot)| slot.strong_count() > 0);
        let mut queue = VecDeque::new();
        for (number, op) in self.parts.ledger.ops.range(from..) {
            let waiter = self.waiters.get(number);
            let sampled = self.samplers.iter().any(|(of, _)| of == number);
            let wanted = op.changes_the_run() || (waiter.is_some() && !op.is_resolved()) || sampled;
            if !wanted || op.is_void() {
                continue;
            }
            let parts = effective(op);
            let watch = waiter.map(|waiter| waiter.watch.clone()).unwrap_or_default();
            queue.push_back(Again { number: *number, op: op.clone(), parts, watch });
        }
        queue
    }

    /// Takes what a request came to that was done again.
    async fn done_again(&mut self, done: Done, seen: &mut Vec<(f64, f64)>) -> Result<(), Halt> {
        let Done { op: number, part, accepted, result } = done;
        if let Err(error) = &result
            && self.is_lost(error).await
        {
            // Whether it was this one is found out by whoever makes the next run.
            return Err(Halt::Lost { error: error.clone(), op: Some(number) });
        }
        if let Err(error) = &result
            && error.is_outage()
        {
            return Err(Halt::Lost { error: error.clone(), op: None });
        }
        let Some(op) = self.parts.ledger.ops.get(&number).cloned() else { return Ok(()) };
        let recorded = op.parts.get(part).and_then(|part| part.outcome.clone());
        match (recorded, result) {
            (Some(recorded), Err(_)) if recorded.failed => Ok(()),
            (None, Err(error)) if self.may_have_taken_place(number, &error) => {
                Err(Halt::Lost { error, op: None })
            }
            (Some(_), Ok(raw)) => {
                let outcome = Outcome::of(&op.form, op.form.name(), &raw).unwrap_or_default();
                let matching = self.parts.options.matching;
                hold_against(&self.parts.ledger, number, part, &outcome, matching, seen)
                    .map_err(Halt::Stop)?;
                self.remap(number, &op, &Accepted { result: Some(raw), ..accepted }).await;
                Ok(())
            }
            // It was done before: what the service fails at by itself is tried again with another run.
            (Some(_), Err(error)) if error.category() != RequestErrorCategory::User => {
                Err(Halt::Lost { error, op: None })
            }
            (Some(_), Err(error)) => Err(Halt::Stop(RedoError::Service(error))),
            (None, result) => {
                if let Some(waiter) = self.waiters.get_mut(&number) {
                    waiter.results.resize_with(op.parts.len(), || None);
                    waiter.accepted.resize_with(op.parts.len(), Accepted::nothing);
                    if let Some(place) = waiter.accepted.get_mut(part) {
                        *place = accepted;
                    }
                }
                Box::pin(self.take(number, part, result)).await;
                Ok(())
            }
        }
    }

    /// Has clients of a sampler that was made anew sample from that one.
    async fn remap(&mut self, number: u64, op: &Op, accepted: &Accepted) {
        let slots: Vec<_> = self
            .samplers
            .iter()
            .filter(|(of, _)| *of == number)
            .filter_map(|(_, slot)| slot.upgrade())
            .collect();
        let Some(session) = self.parts.line.session() else { return };
        let Some(sampler_id) = sampler_id(op, accepted, &session.id) else { return };
        for slot in slots {
            slot.replace(self.api().clone(), session.clone(), sampler_id.clone()).await;
        }
    }
}
