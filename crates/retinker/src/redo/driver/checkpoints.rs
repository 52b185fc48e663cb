//! Checkpoints: saved by the policy and for room, stood on, let go of.

use futures_util::StreamExt;

use super::*;
use crate::client::RestClient;
use crate::recovery::retention::Rule;
use crate::redo::keep::{self, Fate};

impl Driver {
    /// Saves a checkpoint if one is due after this operation, and waits for it where the log is full.
    pub(super) async fn save_if_due(&mut self, op: u64) {
        let stepped = self.parts.ledger.ops.get(&op).is_some_and(|op| op.step.is_some());
        let now = self.api().runtime().monotonic();
        let by_policy = stepped && self.due.stepped(now, &self.parts.options.checkpoints);
        let (size, bound) = (self.parts.log.size(), self.parts.options.bound);
        // After a step alone: within one a checkpoint would need what was asked for before it, and free nothing.
        let by_size = stepped && (size >= bound || size.saturating_sub(self.size_then) >= bound / 3);
        if (by_policy || by_size) && !self.saving && self.parts.order.lock().poisoned.is_none() {
            self.save().await;
        }
        while self.saving && self.parts.log.size() >= bound && self.parts.order.lock().poisoned.is_none() {
            let came = self.results.1.select_next_some().await;
            self.came(came).await;
        }
    }

    async fn save(&mut self) {
        self.saving = true;
        self.due_then = self.due.clone();
        self.due.saved(self.api().runtime().monotonic());
        // Two may be saved after one step.
        let (step, op) = (self.parts.ledger.head.steps, self.parts.ledger.head.next_op);
        let name = format!("redo-{step:06}-{op}");
        let Head { log, saves, .. } = &self.parts.ledger.head;
        let labels = keep::labels(log, (step, *saves), &self.due_then.metrics());
        let options = SaveOptions { user_metadata: Some(labels), ..SaveOptions::default() };
        let request = TrainingRequest::SaveState { name, options };
        let part = operation::Part {
            write: Box::new(|| Ok(request)),
            bytes: 0,
            datums: 0,
            tokens: 0,
            makes_a_sampler: false,
            of_session: None,
        };
        let waiter = Waiter::nobody(&format!("save_state of run {}", self.parts.line.model_id));
        Box::pin(self.operate(vec![part], waiter, true)).await;
    }

    /// Notes that a checkpoint was saved, if it was one, and can be stood on: it has no end, and is nothing that is saved over.
    pub(super) fn note_saved(&mut self, number: u64) {
        let Some(op) = self.parts.ledger.ops.get(&number) else { return };
        let Form::SaveState { ttl_seconds, overwrite, .. } = &op.form else { return };
        let (own, lasts) = (op.own, ttl_seconds.is_none() && !overwrite);
        let path =
            op.parts.first().and_then(|part| part.outcome.as_ref()).and_then(|outcome| outcome.path.clone());
        if own {
            self.saving = false;
        }
        match path {
            Some(path) if lasts => {
                self.saved.insert(number, path);
            }
            None if own => {
                // What it was due for, it is due for after the next step.
                self.due.not_saved(&self.due_then);
                self.parts.hub.tell(RedoEvent::NotSaved { why: "the service did not save it".to_owned() });
            }
            _ => {}
        }
    }

    /// Stands on checkpoints in the order of their saves, each when all that was called before it is there: nobody waits for what
    /// is let go of.
    pub(super) async fn stand_on_what_is_saved(&mut self) {
        while let Some((&number, _)) = self.saved.first_key_value() {
            if self.waiters.first_key_value().is_some_and(|(waits, _)| *waits < number) {
                return;
            }
            let Some(path) = self.saved.remove(&number) else { return };
            match self.check(&path).await {
                Ok(()) => {}
                Err(error) if error.is_not_found() => {
                    self.due.not_saved(&self.due_then);
                    self.parts.hub.tell(RedoEvent::NotSaved { why: error.to_string() });
                    continue;
                }
                // It is asked again with the next result.
                Err(error) => {
                    tracing::debug!(%error, "whether a checkpoint is there is not known yet");
                    self.saved.insert(number, path);
                    return;
                }
            }
            // What is not written down is stood on by nobody who reads the log: nothing is let go of for it.
            if let Err(error) = self.put(Entry::Base { op: number, path: path.clone() }).await {
                self.parts.hub.tell(RedoEvent::NotRecorded { why: error.to_string() });
                self.saved.insert(number, path);
                return;
            }
            let step = self.parts.ledger.head.bases.last().map_or(0, |base| base.step);
            self.parts.hub.tell(RedoEvent::Saved { path, step });
            self.let_go().await;
            self.delete_what_is_not_kept().await;
            self.size_then = self.parts.log.size();
        }
    }

    /// Stands no more on a checkpoint that is about to be saved over.
    pub(super) async fn leave_what_is_overwritten(
        &mut self,
        operation: &str,
        name: &str,
    ) -> Result<(), Error> {
        let path = format!("tinker://{}/weights/{name}", self.parts.line.model_id);
        let bases = &self.parts.ledger.head.bases;
        if !bases.iter().any(|base| base.path == path) {
            if self.parts.ledger.stands_on().contains(&path) {
                let why =
                    format!("the redo log loads {path} when it makes the run anew: save under another name");
                return Err(Error::config(operation, why));
            }
            return Ok(());
        }
        if bases.len() == 1 && !self.parts.ledger.has_the_beginning() {
            let why = format!("the redo log stands on {path}, and on nothing else: save under another name");
            return Err(Error::config(operation, why));
        }
        self.note(Entry::Useless { path }).await;
        Ok(())
    }

    /// Whether the service knows the checkpoint.
    async fn check(&mut self, path: &str) -> Result<(), Error> {
        match self.api().weights_info(path).await {
            // It cannot be asked: that the save succeeded has to do.
            Err(error) if !error.is_unsupported() => Err(error),
            _ => Ok(()),
        }
    }

    /// Deletes of the log's own checkpoints what the policy's rule does not keep. Between two operations, so that none is called meanwhile
    /// that loads one.
    async fn delete_what_is_not_kept(&mut self) {
        // A run may be being made of a checkpoint that is stood on no more.
        if self.parts.options.checkpoints.keep == Rule::default() || self.is_pinned() {
            return;
        }
        let Parts { options, ledger, .. } = &self.parts;
        let fates = keep::fates(self.api(), options.journal.as_deref(), ledger, &options.checkpoints).await;
        let fates = match fates {
            Ok(fates) => fates,
            Err(error) => {
                let why = format!("which checkpoints are there is not known: {error}");
                return self.parts.hub.tell(RedoEvent::NotDeleted { path: None, why });
            }
        };
        let rest = RestClient::new(self.api().clone());
        for Fate { path, .. } in fates.into_iter().filter(|fate| fate.goes) {
            match rest.delete_checkpoint_from_tinker_path(&path).await {
                Ok(()) => self.parts.hub.tell(RedoEvent::Deleted { path }),
                // Somebody else was quicker.
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    let why = error.to_string();
                    self.parts.hub.tell(RedoEvent::NotDeleted { path: Some(path), why });
                }
            }
        }
    }

    /// Drops what nothing stands on any more.
    async fn let_go(&mut self) {
        if self.is_pinned() {
            return;
        }
        let keep = if self.parts.log.size() >= self.parts.options.bound { 1 } else { KEPT };
        if let Some(segment) = self.parts.ledger.let_go(keep)
            && let Err(error) = self.parts.log.drop_before(segment).await
        {
            tracing::warn!(%error, "old segments of a redo log were not dropped");
        }
    }
}
