//! Operations: written down, sent, and what they come to.

use futures_util::StreamExt;
use futures_util::future::{AbortHandle, Abortable};

use super::*;

impl Driver {
    pub(super) async fn carry_out(&mut self, operation: Operation) {
        let Operation { name, epoch, cut, then, watch, done, .. } = operation;
        if let Err(error) = self.parts.order.may_go(&name, epoch) {
            let _ = done.send(Submitted { result: Err(error), _delivered: None });
            return;
        }
        self.parts.line.settle().await;
        let parts = cut(&self.parts.line.settings.config);
        let custom = then.is_some();
        let waiter =
            Waiter { name, watch, then, done: Some(done), accepted: Vec::new(), results: Vec::new() };
        let Some(op) = self.operate(parts, waiter, false).await else { return };
        if custom {
            // What was called later comes behind the second half.
            while self.half.is_none() && self.waiters.contains_key(&op) {
                let came = self.results.1.select_next_some().await;
                self.came(came).await;
            }
            if let Some((waiter, accepted)) = self.half.take() {
                self.second_half(waiter, accepted).await;
            }
        }
        self.save_if_due(op).await;
    }

    /// Writes an operation down and sends it.
    pub(super) async fn operate(
        &mut self,
        parts: Vec<operation::Part>,
        waiter: Waiter,
        own: bool,
    ) -> Option<u64> {
        match self.reserve(parts, own).await {
            Ok((op, requests)) => {
                self.waiters.insert(op, waiter);
                self.submit(op, requests).await;
                Some(op)
            }
            Err(error) => {
                self.refuse(waiter, error);
                None
            }
        }
    }

    /// Tells that an operation is not carried out, for certain.
    fn refuse(&mut self, waiter: Waiter, error: Error) {
        let Some(done) = waiter.done else {
            // The log's own save: nothing of the program's was to follow it.
            self.saving = false;
            self.due.not_saved(&self.due_then);
            self.parts.hub.tell(RedoEvent::NotSaved { why: error.to_string() });
            return;
        };
        let (error, _delivered) = self.parts.order.stopped(Stop::refused(error));
        let _ = done.send(Submitted { result: Err(error), _delivered });
    }

    /// Writes an operation's requests down: all of them, or none.
    async fn reserve(
        &mut self,
        parts: Vec<operation::Part>,
        own: bool,
    ) -> Result<(u64, Vec<operation::Part>), Error> {
        let number = self.parts.ledger.head.next_op;
        let reserved = self.write_down(number, parts, own).await;
        if reserved.is_err() {
            self.forget(number);
        }
        Ok((number, reserved?))
    }

    /// Forgets an operation that was not sent. Whoever reads the log finds the next one in its place.
    fn forget(&mut self, number: u64) {
        if self.parts.ledger.head.next_op > number {
            self.parts.ledger.take(NOWHERE, Entry::Discarded { from: number });
        }
    }

    async fn write_down(
        &mut self,
        number: u64,
        parts: Vec<operation::Part>,
        own: bool,
    ) -> Result<Vec<operation::Part>, Error> {
        let at = self.api().runtime().now();
        let count = parts.len();
        let mut requests = Vec::with_capacity(count);
        for (part, operation::Part { write, bytes, datums, tokens, makes_a_sampler, of_session }) in
            parts.into_iter().enumerate()
        {
            let operation = format!("a request of run {}", self.parts.line.model_id);
            if let Some(reason) = of_session {
                return Err(Error::config(operation, reason));
            }
            let request = write()?;
            let (form, body) = Form::of(&request).map_err(|reason| Error::config(&operation, reason))?;
            let cursor = match form {
                Form::OptimStep { .. } => {
                    self.parts.cursor.lock().unwrap_or_else(PoisonError::into_inner).take()
                }
                _ => None,
            };
            if part == 0
                && let Form::SaveState { name, overwrite, .. } = &form
            {
                if *overwrite {
                    self.leave_what_is_overwritten(&operation, name).await?;
                }
                let unwritable = |error: LogError| Error::config(&operation, error.to_string());
                self.begin_segment(number).await.map_err(unwritable)?;
            }
            let body = cursor.clone().unwrap_or_else(|| Bytes::copy_from_slice(body));
            let cursor = cursor.is_some();
            let entry =
                RequestEntry { op: number, part, parts: count, datums, bytes, tokens, at, own, cursor, form };
            put(&*self.parts.log, &mut self.parts.ledger, Entry::Request(entry), body).await.map_err(
                |error| {
                    Error::config(
                        &operation,
                        format!("it was not sent, since it could not be written down first: {error}"),
                    )
                },
            )?;
            let write: operation::Write = Box::new(|| Ok(request));
            requests.push(operation::Part { write, bytes, datums, tokens, makes_a_sampler, of_session });
        }
        Ok(requests)
    }

    /// Has what follows begin in a segment of its own, if a checkpoint saved now would need nothing before it.
    async fn begin_segment(&mut self, op: u64) -> Result<(), LogError> {
        let Parts { log, ledger, .. } = &mut self.parts;
        if ledger.again_from(op) < op || ledger.ops.is_empty() {
            return Ok(());
        }
        log.begin_segment().await?;
        let head = ledger.next_head();
        put(&**log, ledger, Entry::Head(Box::new(head)), Bytes::new()).await
    }

    async fn submit(&mut self, op: u64, mut requests: Vec<operation::Part>) {
        let seq_id = self.parts.order.lock().next_seq_id;
        // Without this entry a program that begins again takes the request for one that was never sent.
        if let Err(error) = self.put(Entry::Submitted { op, seq_id }).await {
            self.forget(op);
            if let Some(waiter) = self.waiters.remove(&op) {
                let why = format!("it was not sent, since it could not be written down first: {error}");
                self.refuse(waiter, Error::config("a request of the run", why));
            }
            return;
        }
        let watch = self.waiters.get(&op).map(|waiter| waiter.watch.clone()).unwrap_or_default();
        let mut patience = Patience::new(&**self.api().runtime(), self.parts.options.patience);
        loop {
            match self.parts.line.send(requests, &watch).await {
                Ok(accepted) => {
                    let request_ids = accepted.iter().map(|accepted| accepted.request_id.clone()).collect();
                    self.note(Entry::Accepted { op, request_ids }).await;
                    return self.await_results(op, accepted);
                }
                Err(Stop::Refused { error, taken }) if taken.is_empty() && is_nobody_there(&error) => {
                    let runtime = self.api().runtime().clone();
                    if !patience.wait(&*runtime, &self.parts.hub, &error, error.retry_after()).await {
                        return self.refused(op, error, taken).await;
                    }
                    requests = match again_from_log(&self.parts.log, &self.parts.ledger, op).await {
                        Ok(requests) => requests,
                        Err(damaged) => {
                            let error = Error::config("the redo log", damaged.to_string());
                            return self.refused(op, error, Vec::new()).await;
                        }
                    };
                }
                Err(Stop::Refused { error, taken }) => {
                    if self.is_lost(&error).await {
                        return self.recover(&error, None, Some(op)).await;
                    }
                    return self.refused(op, error, taken).await;
                }
                Err(Stop::Lost(error)) => return self.recover(&error, None, Some(op)).await,
            }
        }
    }

    /// Tells that an operation was refused. Those of its requests that were taken before have their effect, and their results are
    /// written down.
    async fn refused(&mut self, op: u64, error: Error, taken: Vec<Accepted>) {
        let Some(waiter) = self.waiters.remove(&op) else { return };
        let parts = self.parts.ledger.ops.get(&op).map_or(0, |op| op.parts.len());
        for part in taken.len()..parts {
            self.note(Entry::Resolved { op, part, outcome: Outcome::void() }).await;
        }
        if !taken.is_empty() {
            let request_ids = taken.iter().map(|accepted| accepted.request_id.clone()).collect();
            self.note(Entry::Accepted { op, request_ids }).await;
            self.waiters.insert(op, Waiter::nobody(&waiter.name));
            self.await_results(op, taken);
        }
        self.refuse(waiter, error);
    }

    /// Has the results of an operation come, each as it is there.
    fn await_results(&mut self, op: u64, accepted: Vec<Accepted>) {
        let Some(waiter) = self.waiters.get_mut(&op) else { return };
        waiter.results.resize_with(accepted.len(), || None);
        waiter.accepted = accepted;
        for part in 0..waiter.accepted.len() {
            self.await_result(op, part);
        }
    }

    fn await_result(&mut self, op: u64, part: usize) {
        let Some(kind) = self.parts.ledger.ops.get(&op).map(|op| result_type(&op.form)) else { return };
        let Some(waiter) = self.waiters.get(&op) else { return };
        let Some(request_id) = waiter.accepted.get(part).map(|accepted| accepted.request_id.clone()) else {
            return;
        };
        let (tell, generation) = (self.results.0.clone(), self.parts.ledger.head.generation);
        let (api, watch, name) = (self.parts.line.api.clone(), waiter.watch.clone(), waiter.name.clone());
        let (abort, registration) = AbortHandle::new_pair();
        let waiting = async move {
            let result = wait_raw(&api, &request_id, kind, &name, &watch).await;
            // Nobody listens once the run is gone.
            let _ = tell.unbounded_send(Came { generation, op, part, result });
        };
        let waiting = Abortable::new(waiting, registration);
        self.waits.insert((op, part), abort);
        self.api().runtime().spawn(Box::pin(async move {
            let _ = waiting.await;
        }));
    }

    pub(super) async fn came(&mut self, came: Came) {
        let Came { generation, op, part, result } = came;
        if generation != self.parts.ledger.head.generation {
            return;
        }
        self.waits.remove(&(op, part));
        if let Err(error) = &result {
            let error = error.clone();
            if self.is_lost(&error).await {
                self.recover(&error, Some((op, part)), None).await;
                return;
            }
            if error.is_outage() {
                // Nobody knows yet what it came to.
                self.parts.hub.tell(RedoEvent::Waiting { why: error.to_string() });
                self.await_result(op, part);
                return;
            }
            if self.may_have_taken_place(op, &error) {
                self.recover(&error, Some((op, part)), None).await;
                return;
            }
        }
        self.take(op, part, result).await;
    }

    /// Whether nobody knows if the run has taken a step of the optimizer: one that failed through no fault of its own. A run that
    /// surely has taken it is made then.
    pub(super) fn may_have_taken_place(&self, op: u64, error: &Error) -> bool {
        let is_step =
            self.parts.ledger.ops.get(&op).is_some_and(|op| matches!(op.form, Form::OptimStep { .. }));
        is_step
            && matches!(error.kind(), ErrorKind::Failed { .. })
            && error.category() != RequestErrorCategory::User
    }

    /// Takes what one request of an operation came to.
    pub(super) async fn take(&mut self, number: u64, part: usize, result: Result<Raw, Error>) {
        let Some(op) = self.parts.ledger.ops.get(&number) else { return };
        let outcome = match &result {
            // One that cannot be read took place all the same.
            Ok(raw) => Outcome::of(&op.form, op.form.name(), raw).unwrap_or_default(),
            Err(error) if matches!(error.kind(), ErrorKind::Undecodable { .. }) => Outcome::default(),
            // The gradient may be gone by it, which is so again when it is done again.
            Err(_) if matches!(op.form, Form::OptimStep { .. }) => Outcome::failed(),
            Err(_) => Outcome::void(),
        };
        self.note(Entry::Resolved { op: number, part, outcome }).await;
        if let Some(waiter) = self.waiters.get_mut(&number)
            && let Some(place) = waiter.results.get_mut(part)
        {
            *place = Some(result);
        }
        if self.parts.ledger.ops.get(&number).is_some_and(Op::is_resolved) {
            self.conclude(number).await;
        }
    }

    /// Gives an operation's results to who waits for them.
    async fn conclude(&mut self, number: u64) {
        self.measure(number);
        let waiter = self.waiters.remove(&number);
        self.note_saved(number);
        self.stand_on_what_is_saved().await;
        let Some(mut waiter) = waiter else { return };
        let results_of = std::mem::take(&mut waiter.results);
        let mut accepted = std::mem::take(&mut waiter.accepted);
        for (accepted, result) in accepted.iter_mut().zip(results_of) {
            match result {
                Some(Ok(raw)) => accepted.result = Some(raw),
                Some(Err(error)) => return self.fail(waiter, error),
                None => {}
            }
        }
        if waiter.then.is_some() {
            self.half = Some((waiter, accepted));
            return;
        }
        let sampler = self.sampler_of(number, &accepted).await;
        let session = self.parts.line.session();
        if let Some(done) = waiter.done {
            let sent = Sent { accepted, session, sampler };
            let _ = done.send(Submitted { result: Ok(sent), _delivered: None });
        }
    }

    /// Takes what a pass came to for the policy that saves checkpoints, its chunks together as its caller gets them.
    fn measure(&mut self, number: u64) {
        let op = self.parts.ledger.ops.get(&number);
        let Some(op) = op.filter(|op| matches!(op.form, Form::ForwardBackward)) else { return };
        let chunk = |part: &Part| Some((part.outcome.as_ref()?.metrics.clone(), part.datums));
        let chunks: Vec<_> = op.parts.iter().filter_map(chunk).collect();
        let metrics = match &chunks[..] {
            [(only, _)] => Ok(only.clone()),
            several => combine(several),
        };
        if let Ok(metrics) = metrics {
            self.due.passed(metrics, &self.parts.options.checkpoints);
        }
    }

    /// Tells that an operation failed by itself. What was called behind the first half of two is not sent.
    fn fail(&mut self, waiter: Waiter, error: Error) {
        if waiter.then.is_some() {
            return self.refuse(waiter, error);
        }
        self.fail_alone(waiter, error);
    }

    /// Tells that an operation failed; nothing else depends on it.
    pub(super) fn fail_alone(&self, waiter: Waiter, error: Error) {
        if let Some(done) = waiter.done {
            let _ = done.send(Submitted { result: Err(error), _delivered: None });
        }
    }

    /// Sends what follows from the results of an operation's first half.
    async fn second_half(&mut self, mut waiter: Waiter, accepted: Vec<Accepted>) {
        let Some(then) = waiter.then.take() else { return };
        let outputs = results(self.api(), &accepted, &waiter.name, &waiter.watch).await;
        let parts = outputs.and_then(|outputs| then(outputs, &self.parts.line.settings.config));
        match parts {
            Ok(parts) => {
                self.operate(parts, waiter, false).await;
            }
            Err(error) => self.refuse(waiter, error),
        }
    }

    /// A client of the sampler that an operation has made.
    async fn sampler_of(&mut self, number: u64, accepted: &[Accepted]) -> Option<SamplingClient> {
        let op = self.parts.ledger.ops.get(&number).filter(|op| op.form.makes_a_sampler())?;
        let accepted = accepted.first()?;
        let session = self.parts.line.session()?;
        let sampler_id = sampler_id(op, accepted, &session.id)?;
        let keeper = keeper(self.parts.controls.clone());
        let client = SamplingClient::kept(self.api().clone(), session, sampler_id, keeper).await;
        self.samplers.retain(|(_, slot)| slot.strong_count() > 0);
        self.samplers.push((number, client.slot()));
        Some(client)
    }
}
