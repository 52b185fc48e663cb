//! Runs: made, asked to train, found to be lost.

use std::sync::Arc;

use retinker_wire::UserMetadata;
use retinker_wire::model::{CreateModelRequest, LoadWeightsRequest, adamw, model_id_of};
use retinker_wire::path::TinkerPath;
use retinker_wire::run::CheckpointType;

use crate::backlog::Waiting;
use crate::changes::Change;
use crate::core::Core;
use crate::db::{CheckpointKind, DbError, NewRun, RunRow, Ticket, sql};
use crate::fingerprint::Fingerprint;
use crate::futures::{Accepted, Completer, Outcome};
use crate::http::ApiError;
use crate::index::{Index, Run, Unsaved};
use crate::labels::Labels;
use crate::lora::LoraShape;
use crate::metrics;
use crate::time::{now_millis, time};
use crate::trainer::{Command, CreateFrom, Job, Load, Lost, Op};
use retinker_nn::Layout;

/// How many requests of one run may wait.
const QUEUE_LIMIT: usize = 4096;

impl Core {
    /// Takes `create_model` in. Gives the id of its request.
    pub(crate) async fn create_model(&self, request: CreateModelRequest) -> Result<String, ApiError> {
        check_number("model_seq_id", request.model_seq_id)?;
        let run_id = model_id_of(&request.session_id, request.model_seq_id);
        let request_id = format!("{run_id}:0");
        let completer = {
            let index = self.index();
            Self::check_session(&index, &request.session_id)?;
            if index.run(&run_id).is_some() {
                return Ok(request_id);
            }
            match self.futures.accept(&request_id, None) {
                Accepted::New(completer) => completer,
                Accepted::Before | Accepted::Reused => return Ok(request_id),
            }
        };
        if let Some(outcome) = self.faults.of_operation("create_model", &run_id) {
            completer.complete(outcome);
            return Ok(request_id);
        }
        let outcome = match self.new_run(request, run_id) {
            Ok(run) => match self.insert_run(run).await {
                Ok(result) => Outcome::Done(result),
                Err(error) => {
                    completer.withdraw();
                    return Err(error.into());
                }
            },
            Err(reason) => Outcome::user(reason),
        };
        completer.complete(outcome);
        Ok(request_id)
    }

    /// Checks what a model is to be made of.
    fn new_run(&self, request: CreateModelRequest, run_id: String) -> Result<NewRun, String> {
        let config = self.models.config(&request.base_model)?;
        let lora = LoraShape::from_wire(&request.lora_config.unwrap_or_default());
        Layout::new(config, &lora.to_nn()).map_err(|e| e.to_string())?;
        let optimizer_config = request.optimizer_config.unwrap_or_else(adamw);
        check_optimizer(&optimizer_config)?;
        Ok(NewRun {
            run_id: run_id.into(),
            session_id: request.session_id.into(),
            model_seq_id: request.model_seq_id,
            base_model: request.base_model.into(),
            lora,
            optimizer_config: Arc::new(optimizer_config),
            user_metadata: request.user_metadata.map(text_labels).map(Into::into),
            origin_path: None,
            created_at: now_millis(),
        })
    }

    async fn insert_run(&self, new: NewRun) -> Result<serde_json::Value, DbError> {
        let new = Arc::new(new);
        let stored = Arc::clone(&new);
        let ordinal = self.db.write(move |c| sql::insert_run(c, &stored, None)).done().await?;
        let result = serde_json::json!({ "model_id": new.run_id });
        self.index().insert_run(RunRow {
            ordinal,
            last_request_at: new.created_at,
            new,
            dirty_since: None,
            unsaved: 0,
            accepted_seq: 0,
            corrupted_reason: None,
            retired: None,
            standing: None,
        });
        Ok(result)
    }

    /// Takes create-via-load in. Gives the id of its request.
    pub(crate) fn create_from_checkpoint(
        &self,
        request: LoadWeightsRequest,
        session_id: String,
        model_seq_id: u64,
    ) -> Result<String, ApiError> {
        check_number("model_seq_id", model_seq_id)?;
        let path = training_path(&request.path)?;
        let run_id = model_id_of(&session_id, model_seq_id);
        let request_id = format!("{run_id}:0");
        let mut index = self.index();
        Self::check_session(&index, &session_id)?;
        if index.run(&run_id).is_some() {
            return Ok(request_id);
        }
        let completer = match self.futures.accept(&request_id, None) {
            Accepted::New(completer) => completer,
            Accepted::Before | Accepted::Reused => return Ok(request_id),
        };
        if let Some(Err(reason)) = request.optimizer_config.as_ref().map(check_optimizer) {
            completer.complete(Outcome::user(reason));
            return Ok(request_id);
        }
        let trainer = index.next_trainer(self.trainers());
        let create = CreateFrom {
            load: Load { path, optimizer: request.optimizer },
            session_id,
            model_seq_id,
            base_model: request.base_model,
            optimizer_config: request.optimizer_config,
            user_metadata: request.user_metadata.map(text_labels),
            run_id,
            completer,
        };
        if let Some(inbox) = self.inbox(trainer) {
            inbox.push(Command::Create(Box::new(create)));
        }
        Ok(request_id)
    }

    /// Takes a numbered request in. Once this has answered, the loss of what the request does would be noticed: a run
    /// that is about to train is marked on the disk first.
    ///
    /// The same request again is not done again. Another one under a number that was taken is refused: its sender, who
    /// may have joined with an old number, would take the results of the first for its own.
    pub(crate) async fn submit(&self, run_id: &str, seq: u64, op: Op) -> Result<String, ApiError> {
        if seq == 0 {
            return Err(ApiError::bad_request(
                "seq_id must be at least 1: 0 is the number of the model's creation".to_owned(),
            ));
        }
        check_number("seq_id", seq)?;
        let request_id = format!("{run_id}:{seq}");
        let bytes = op.bytes();
        let failed = |_| ApiError::internal("the batch could not be read; the log says why".to_owned());
        let (fingerprint, op) =
            crate::beside::beside(bytes, move || (Fingerprint::of(&op), op)).await.map_err(failed)?;
        let Admitted { run, trainer, permit, completer, waiting, durable } =
            self.admit(run_id, seq, &request_id, &op, fingerprint, bytes)?;
        if let Some(Durable { ticket, marked }) = durable {
            if let Err(error) = ticket.done().await {
                if let Some(completer) = completer {
                    completer.withdraw();
                }
                return Err(error.into());
            }
            if marked.is_some()
                && let Some(run) = self.index().run_mut(run_id)
                && run.unsaved.since == marked
            {
                run.unsaved.durable = true;
            }
        }
        if let (Some(completer), Some(waiting), Some(inbox)) = (completer, waiting, self.inbox(trainer)) {
            inbox.push(Command::Job(Box::new(Job { run_id: run, seq, op, completer, permit, waiting })));
        }
        Ok(request_id)
    }

    /// Looks whether a run takes a request, and notes it. All under one lock, so that a save that ends at the same moment
    /// either comes before and leaves the run clean, or sees that there is more to come.
    fn admit(
        &self,
        run_id: &str,
        seq: u64,
        request_id: &str,
        op: &Op,
        fingerprint: Fingerprint,
        bytes: u64,
    ) -> Result<Admitted, ApiError> {
        let now = now_millis();
        let mut index = self.index();
        let run = index.run(run_id).ok_or_else(|| unknown_run(run_id))?;
        Self::check_session(&index, &run.new.session_id)?;
        let mut waiting = None;
        let mut completer = match self.futures.accept(request_id, Some(fingerprint)) {
            Accepted::New(completer) if Self::was_another(run, seq, op) => {
                completer.withdraw();
                return Err(reused(run, seq));
            }
            Accepted::New(completer) => match self.room_for(run, seq, bytes) {
                Ok(room) => {
                    waiting = Some(room);
                    Some(completer)
                }
                Err(full) => {
                    completer.withdraw();
                    return Err(ApiError::too_many(full));
                }
            },
            Accepted::Before => None,
            Accepted::Reused => return Err(reused(run, seq)),
        };
        let unusable = Self::unusable(&index, run);
        index.touch(run_id, now);
        let trainer = index.trainer_of(run_id, self.trainers()).unwrap_or_default();
        let run = index.run_mut(run_id).ok_or_else(|| unknown_run(run_id))?;
        let mut durable = None;
        if let Some(outcome) = unusable {
            if let Some(completer) = completer.take() {
                completer.complete(outcome);
            }
        } else {
            if completer.is_some() {
                run.refused.remove(&seq);
                run.accepted_seq = run.accepted_seq.max(seq);
            }
            durable = self.note_accepted(run, seq, op.trains(), completer.is_some(), now);
        }
        Ok(Admitted {
            run: Arc::clone(&run.new.run_id),
            trainer,
            permit: Arc::clone(&run.permit),
            completer,
            waiting,
            durable,
        })
    }

    /// Room among what waits for one more request of a run, or why there is none.
    fn room_for(&self, run: &Run, seq: u64, bytes: u64) -> Result<Waiting, String> {
        let waiting = Arc::strong_count(&run.permit) - 1;
        let others_wait_for = waiting > 0 && (seq == run.executed_seq + 1 || run.awaited_seq == Some(seq));
        let way_out = "wait until some of them were carried out, then send this one again";
        if waiting >= QUEUE_LIMIT && !others_wait_for {
            let id = &run.new.run_id;
            return Err(format!("{waiting} requests of {id} wait, and at most {QUEUE_LIMIT} may: {way_out}"));
        }
        self.backlog.admit(bytes, others_wait_for).map_err(|full| format!("{full}: {way_out}"))
    }

    /// Whether a checkpoint shows that a number belonged to another request, of which nothing else is known since a restart.
    fn was_another(run: &Run, seq: u64, op: &Op) -> bool {
        // Nearly always; and a run may have a great many checkpoints.
        if seq > run.accepted_seq {
            return false;
        }
        let standing = run.standing.iter().filter(|standing| !standing.is_listed());
        let Some(stored) = run.checkpoints.iter().chain(standing).find(|stored| stored.new.seq == seq) else {
            return false;
        };
        match op {
            Op::Save(save) => {
                save.kind != stored.new.kind
                    || *save.name != *stored.new.name
                    || save.user_metadata.clone().map(Labels::from).as_ref()
                        != stored.new.user_metadata.as_deref()
            }
            Op::Load(_) => stored.new.kind != CheckpointKind::State,
            _ => true,
        }
    }

    /// What has to be on the disk before a request is answered.
    fn note_accepted(&self, run: &mut Run, seq: u64, trains: bool, new: bool, now: i64) -> Option<Durable> {
        let id = run.new.run_id.clone();
        if trains && new {
            if run.unsaved.since.is_none() {
                run.unsaved = Unsaved { since: Some(now), ..Unsaved::default() };
            }
            run.unsaved.requests += 1;
            run.unsaved.highest_seq = run.unsaved.highest_seq.max(seq);
        }
        match run.unsaved.since {
            // Those that come while the first mark is on its way wait for it too.
            Some(since) if trains && !run.unsaved.durable => {
                let ticket = self.db.write(move |c| sql::mark_dirty(c, &id, since));
                Some(Durable { ticket, marked: Some(since) })
            }
            // A run that is reloaded must know which numbers will not come again.
            None if !trains => {
                let ticket = self.db.write(move |c| sql::note_accepted(c, &id, seq));
                Some(Durable { ticket, marked: None })
            }
            _ => None,
        }
    }

    /// Notes which request of a run is waited for, or that none is.
    pub(crate) fn note_awaited(&self, run_id: &str, awaited: Option<u64>) {
        if let Some(run) = self.index().run_mut(run_id) {
            run.awaited_seq = awaited;
        }
    }

    /// Why a request that is not carried out yet waits, when another has to come first.
    pub(crate) fn waits_for(&self, request_id: &str) -> Option<String> {
        let (run_id, seq) = request_id.rsplit_once(':')?;
        let seq: u64 = seq.parse().ok()?;
        let awaited = self.index().run(run_id)?.awaited_seq.filter(|awaited| *awaited < seq)?;
        Some(format!("waiting for request {awaited} of this run, which has not come"))
    }

    /// Notes that a numbered request was refused, so that later ones do not wait for it.
    pub(crate) fn note_refused(&self, run_id: &str, seq: u64) {
        let mut index = self.index();
        let Some(run) = index.run_mut(run_id) else { return };
        if seq <= run.executed_seq || self.futures.watch(&format!("{run_id}:{seq}")).is_some() {
            return;
        }
        run.refuse(seq);
        if let Some(inbox) = run.trainer.and_then(|trainer| self.inbox(trainer)) {
            inbox.push(Command::Recheck(Arc::clone(&run.new.run_id)));
        }
    }

    /// Notes that a request was carried out. `unchanged` says that it was to train and left nothing behind.
    pub(crate) fn note_executed(&self, run_id: &Arc<str>, seq: u64, unchanged: bool) {
        let mut index = self.index();
        index.touch(run_id, now_millis());
        let Some(run) = index.run_mut(run_id) else { return };
        run.executed_seq = run.executed_seq.max(seq);
        run.refused = run.refused.split_off(&seq);
        if unchanged && run.unsaved.since.is_some() && run.unsaved.highest_seq <= seq {
            run.unsaved = Unsaved::default();
            let (id, accepted) = (run_id.to_string(), run.accepted_seq);
            // Nobody waits: until it is durable the run counts as having unsaved work, which is the safe side.
            drop(self.db.write(move |c| sql::mark_clean(c, &id, accepted)));
        }
    }

    /// Why a run takes no requests, if so.
    pub(crate) fn unusable(index: &Index, run: &Run) -> Option<Outcome> {
        if let Some(reason) = &run.corrupted {
            let way_out = match run.newest_checkpoint(now_millis()) {
                Some(checkpoint) => format!("restore it from its newest checkpoint, {}", checkpoint.path()),
                None => "it has no checkpoint to be restored from".to_owned(),
            };
            return Some(Outcome::server(format!(
                "training run {} is corrupted: {reason}; {way_out}",
                run.new.run_id
            )));
        }
        if let Some(reason) = &run.retired {
            return Some(Outcome::user(format!(
                "training run {} takes no requests: {reason}",
                run.new.run_id
            )));
        }
        let ended = index.session(&run.new.session_id).and_then(|session| session.ended.as_ref());
        ended.map(|end| Outcome::user(format!("session {} is over: {}", run.new.session_id, end.reason)))
    }

    /// What would be lost with a run's memory, for people.
    pub(crate) fn unsaved_text(run: &Run, at_least: &str) -> String {
        let saved = match run.newest_checkpoint(now_millis()) {
            Some(checkpoint) => format!("after checkpoint {}", checkpoint.path().checkpoint_id()),
            None => "and no checkpoint".to_owned(),
        };
        let since = run.unsaved.since.map_or_else(String::new, |since| format!(" since {:#}", time(since)));
        match run.unsaved.requests {
            0 => format!("unsaved work{since} {saved}"),
            1 => format!("{at_least}1 unsaved training request{since} {saved}"),
            n => format!("{at_least}{n} unsaved training requests{since} {saved}"),
        }
    }

    /// Marks a run as corrupted, in memory at once.
    pub(crate) fn mark_corrupted(&self, run: &mut Run, reason: String) -> Ticket<()> {
        let (id, ordinal, now) = (run.new.run_id.clone(), run.ordinal, now_millis());
        run.corrupted = Some(reason.clone());
        self.changes.tell(Change::RunCorrupted { run_id: id.clone(), reason: reason.clone() });
        // What is left of the run is what it stands on; its series must not show more.
        let saved_seq = run.standing.as_ref().map_or(0, |standing| standing.new.seq);
        let points = run.take_points();
        run.last_point = None;
        self.db.write(move |c| {
            sql::mark_corrupted(c, &id, &reason)?;
            metrics::append(c, ordinal, &points)?;
            metrics::note_corrupted(c, ordinal, now)?;
            metrics::truncate(c, ordinal, saved_seq)
        })
    }

    /// Marks runs as corrupted, each for its reason. Blocks until that is durable.
    pub(crate) fn corrupt(&self, runs: &[(Arc<str>, String)]) -> Result<(), DbError> {
        let tickets: Vec<Ticket<()>> = {
            let mut index = self.index();
            let mark = |(id, reason): &(Arc<str>, String)| {
                let run = index.run_mut(id).filter(|run| run.corrupted.is_none())?;
                Some(self.mark_corrupted(run, reason.clone()))
            };
            runs.iter().filter_map(mark).collect()
        };
        tickets.into_iter().try_for_each(Ticket::wait)
    }

    /// Marks the runs that had unsaved work at a start: the memory that held it is gone.
    pub(crate) fn corrupt_interrupted(&self) -> Result<Vec<String>, DbError> {
        // Their number is written once a second.
        self.corrupt_unsaved("the service stopped", "at least ", |_| true)
    }

    /// Marks what a trainer's loss of memory corrupted.
    pub(crate) fn trainer_lost(&self, trainer: usize, reason: &str) -> Lost {
        let unharmed = self.index().lose_memory_of(trainer);
        let corrupted = self.corrupt_unsaved(reason, "", |run| run.trainer == Some(trainer));
        let corrupted = corrupted.unwrap_or_else(|error| {
            tracing::error!(trainer, %error, "corrupted runs could not be marked on the disk");
            Vec::new()
        });
        Lost { corrupted, unharmed }
    }

    /// Marks runs with unsaved work, and says which.
    fn corrupt_unsaved(
        &self,
        cause: &str,
        at_least: &str,
        lost: impl Fn(&Run) -> bool,
    ) -> Result<Vec<String>, DbError> {
        let runs: Vec<(Arc<str>, String)> = {
            let index = self.index();
            let lasts =
                |run: &Run| index.session(&run.new.session_id).is_some_and(|session| session.ended.is_none());
            let lost = index.runs().filter(|run| {
                run.corrupted.is_none() && run.unsaved.since.is_some() && lasts(run) && lost(run)
            });
            lost.map(|run| {
                let reason = format!("{cause} while the run had {}", Self::unsaved_text(run, at_least));
                (Arc::clone(&run.new.run_id), reason)
            })
            .collect()
        };
        for (run, reason) in &runs {
            tracing::warn!(%run, "corrupted: {reason}");
        }
        self.corrupt(&runs)?;
        Ok(runs.into_iter().map(|(id, _)| id.to_string()).collect())
    }

    /// What became of a request that is not among those in memory; `None` when it was never heard of.
    pub(crate) fn forgotten(&self, request_id: &str) -> Option<Outcome> {
        let (run_id, seq) = request_id.rsplit_once(':')?;
        let seq: u64 = seq.parse().ok()?;
        let index = self.index();
        let Some(run) = index.run(run_id) else {
            // The number of a creation, which is all that a run without a trace can have been asked for.
            let (session_id, _) = run_id.split_once(":train:").filter(|_| seq == 0)?;
            return index.session(session_id).map(|_| {
                Outcome::server(format!(
                    "training run {run_id} was not made: if it was asked for, the service was restarted before it was \
                     there; ask for it again"
                ))
            });
        };
        if seq == 0 {
            let mut result = serde_json::json!({ "model_id": run_id });
            if let (Some(result), Some(path)) = (result.as_object_mut(), &run.new.origin_path) {
                result.insert("path".to_owned(), path.as_str().into());
            }
            return Some(Outcome::Done(result));
        }
        if let Some(saved) = run.checkpoints.iter().find(|checkpoint| checkpoint.new.seq == seq) {
            return Some(Outcome::Done(serde_json::json!({ "path": saved.path().to_string() })));
        }
        let session = index.session(&run.new.session_id);
        let samplers = session.iter().flat_map(|session| &session.samplers);
        for sampler in samplers.filter_map(|id| index.sampler(id)) {
            let saved =
                sampler.checkpoint.as_ref().filter(|weights| weights.new.kind == CheckpointKind::Session);
            if saved.is_some_and(|weights| *weights.new.run_id == *run_id && weights.new.seq == seq) {
                return Some(Outcome::Done(
                    serde_json::json!({ "path": null, "sampling_session_id": sampler.row.new.sampler_id }),
                ));
            }
        }
        Some(Self::unusable(&index, run).unwrap_or_else(|| {
            if run.refused.contains(&seq) {
                return Outcome::Gone(format!(
                    "request {request_id} was refused when it was sent: nothing of it was or will be carried out"
                ));
            }
            if seq <= run.executed_seq {
                return Outcome::server(format!(
                    "request {request_id} was carried out, but its result is no longer kept: go on with the next one, for \
                     to send it again would do it twice"
                ));
            }
            Outcome::Gone(format!(
                "the result of request {request_id} is no longer kept; if the service was restarted since, the request \
                 may not have been carried out, and changed nothing then"
            ))
        }))
    }
}

/// A numbered request that was taken in.
struct Admitted {
    run: Arc<str>,
    trainer: usize,
    permit: Arc<()>,
    /// `None` when there is nothing to do: it was taken in before, or has failed already.
    completer: Option<Completer>,
    waiting: Option<Waiting>,
    durable: Option<Durable>,
}

/// A change to wait for before answering.
struct Durable {
    ticket: Ticket<()>,
    /// Since when the run has unsaved work, if that is what is being written.
    marked: Option<i64>,
}

/// The answer to a request under another's number. Its first words are SkyRL's, by which clients know it.
fn reused(run: &Run, seq: u64) -> ApiError {
    let next = match run.accepted_seq.max(run.executed_seq).max(seq) {
        last if last < NUMBER_LIMIT => format!("the next free number is {}", last + 1),
        _ => "the run has used the largest number there is: go on in a new run".to_owned(),
    };
    ApiError::conflict(format!(
        "Training request sequence number was reused: run {} has taken another request with seq_id {seq} before; {next}",
        run.new.run_id
    ))
}

/// The largest number that a request or a run can have: what the database can store.
const NUMBER_LIMIT: u64 = i64::MAX as u64;

/// Refuses numbers that cannot be stored.
pub(super) fn check_number(member: &str, number: u64) -> Result<(), ApiError> {
    if number > NUMBER_LIMIT {
        return Err(ApiError::unprocessable(format!(
            "{member} must be at most {NUMBER_LIMIT}, not {number}"
        )));
    }
    Ok(())
}

/// The answer for a run that nobody made.
pub(crate) fn unknown_run(run_id: &str) -> ApiError {
    ApiError::not_found(format!("training run {run_id} does not exist"))
}

/// Reads the path of a training checkpoint.
pub(crate) fn training_path(text: &str) -> Result<TinkerPath, ApiError> {
    let invalid = |reason: String| {
        ApiError::bad_request(format!(
            "Invalid checkpoint tinker path {text}: {reason}; expected tinker://<run id>/weights/<name>"
        ))
    };
    let path = checkpoint_path(text)?;
    if path.checkpoint_type != CheckpointType::Training {
        return Err(invalid(format!("it is not a training checkpoint but {}", path.checkpoint_type)));
    }
    Ok(path)
}

/// Reads the path of a checkpoint of any kind.
pub(crate) fn checkpoint_path(text: &str) -> Result<TinkerPath, ApiError> {
    text.parse().map_err(|e: retinker_wire::path::PathError| {
        ApiError::bad_request(format!(
            "Invalid checkpoint tinker path {text}: {}; expected tinker://<run id>/<kind>/<name> with the kind weights, \
             sampler_weights or external_weights",
            e.reason
        ))
    })
}

fn check_optimizer(config: &serde_json::Value) -> Result<(), String> {
    match config.get("type").and_then(serde_json::Value::as_str) {
        Some("adamw") | None => Ok(()),
        Some(other) => Err(format!("optimizer '{other}' is not offered here; offered: adamw")),
    }
}

/// Labels as they are listed: a value that is not text becomes its JSON text.
pub(crate) fn text_labels(labels: serde_json::Map<String, serde_json::Value>) -> UserMetadata {
    let text = |value| match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    labels.into_iter().map(|(key, value)| (key, text(value))).collect()
}
