//! Sessions: begun, kept alive, ended.

use std::sync::Arc;
use std::time::Instant;

use retinker_wire::session::{CreateSessionRequest, FinishSessionRequest, SessionStatus};

use super::runs::unknown_run;
use crate::changes::Change;
use crate::core::Core;
use crate::db::{CheckpointKind, CheckpointRow, CheckpointState, DbError, SessionEnd, SessionRow, sql};
use crate::futures::{Accepted, Outcome};
use crate::http::ApiError;
use crate::index::{Index, Unsaved};
use crate::time::now_millis;
use crate::trainer::Command;

impl Core {
    /// Begins a session.
    ///
    /// `key` is what the client marked the request with: sent again, as after a lost answer, it finds the session.
    pub(crate) async fn create_session(
        &self,
        request: CreateSessionRequest,
        key: Option<String>,
    ) -> Result<String, ApiError> {
        if let Some(session_id) = key.as_deref().and_then(|key| self.index().session_of_key(key).cloned()) {
            return Ok(session_id);
        }
        let (session_id, created_at) = (uuid::Uuid::new_v4().to_string(), now_millis());
        let (id, stored, mark) = (session_id.clone(), request.clone(), key.clone());
        let ticket =
            self.db.write(move |c| sql::insert_session(c, &id, created_at, &stored, mark.as_deref()));
        let row = SessionRow {
            ordinal: ticket.done().await?,
            session_id: session_id.clone(),
            created_at,
            request,
            idempotency_key: key,
            ended: None,
        };
        self.index().insert_session(row, Instant::now());
        Ok(session_id)
    }

    /// Moves a session into a project.
    pub(crate) async fn set_project(&self, session_id: &str, project_id: String) -> Result<(), ApiError> {
        if project_id.is_empty() {
            return Err(ApiError::bad_request(
                "project_id is empty: a project can be changed, not cleared".to_owned(),
            ));
        }
        let (ticket, request) = {
            let index = self.index();
            let session = index.session(session_id).ok_or_else(|| unknown_session(session_id))?;
            let request = CreateSessionRequest { project_id: Some(project_id), ..session.request.clone() };
            let (id, stored) = (session_id.to_owned(), request.clone());
            (self.db.write(move |c| sql::set_session(c, &id, &stored)), request)
        };
        ticket.done().await?;
        self.index().set_session_request(session_id, request);
        Ok(())
    }

    /// Notes that a session's client lives.
    pub(crate) fn heartbeat(&self, session_id: &str) -> Result<(), ApiError> {
        let mut index = self.index();
        Self::check_session(&index, session_id)?;
        if let Some(session) = index.session_mut(session_id) {
            session.last_heartbeat = Instant::now();
        }
        Ok(())
    }

    /// Refuses sessions that do not exist (404) or are over (410).
    pub(crate) fn check_session(index: &Index, session_id: &str) -> Result<(), ApiError> {
        let Some(session) = index.session(session_id) else {
            return Err(unknown_session(session_id));
        };
        match &session.ended {
            Some(end) => Err(ApiError::gone(format!("session {session_id} is over: {}", end.reason))),
            None => Ok(()),
        }
    }

    /// Ends a session at its client's wish. Ending it again changes nothing.
    pub(crate) async fn finish_session(
        self: &Arc<Self>,
        session_id: &str,
        request: &FinishSessionRequest,
    ) -> Result<(), ApiError> {
        if self.index().session(session_id).is_none() {
            return Err(unknown_session(session_id));
        }
        let reason = match request.detail.as_deref() {
            Some(detail) if !detail.is_empty() => {
                format!("its client finished it ({}: {detail})", request.reason.kind)
            }
            _ => format!("its client finished it ({})", request.reason.kind),
        };
        let status = SessionStatus::ClientFinished {
            reason: request.reason.clone(),
            detail: request.detail.clone().filter(|detail| !detail.is_empty()),
        };
        Ok(self.end_session(session_id, SessionEnd { reason, status }, None).await?)
    }

    /// Ends sessions that had no heartbeat for too long. Their runs with unsaved work are corrupted.
    pub(crate) async fn expire_sessions(self: &Arc<Self>) {
        let Some(before) = Instant::now().checked_sub(self.session_timeout) else { return };
        let silent = self.index().silent_sessions(before);
        for session_id in silent {
            let reason = format!("no heartbeat for {} s", self.session_timeout.as_secs());
            tracing::info!(session = %session_id, "session ended: {reason}");
            let end = SessionEnd { reason: reason.clone(), status: SessionStatus::cancelled(reason.clone()) };
            if let Err(error) = self.end_session(&session_id, end, Some(&reason)).await {
                tracing::error!(session = %session_id, %error, "the session's end could not be stored");
            }
        }
    }

    /// Ends a session; its runs are unloaded. `corrupting` is why its runs with unsaved work count as corrupted; `None` when
    /// the client let that work go.
    async fn end_session(
        self: &Arc<Self>,
        session_id: &str,
        end: SessionEnd,
        corrupting: Option<&str>,
    ) -> Result<(), DbError> {
        let mut tickets = Vec::new();
        let mut released: Vec<Arc<CheckpointRow>> = Vec::new();
        {
            let mut index = self.index();
            let Some(session) = index.session_mut(session_id) else { return Ok(()) };
            if session.ended.is_some() {
                return Ok(());
            }
            session.ended = Some(end.clone());
            let (runs, samplers) = (session.runs.clone(), session.samplers.clone());
            let (id, reason) = (session_id.to_owned(), end.reason.clone());
            self.changes.tell(Change::SessionEnded { session_id: id.clone(), reason: reason.clone() });
            tickets.push(self.db.write(move |c| sql::end_session(c, &id, now_millis(), &end)));
            for id in samplers {
                let Some(sampler) = index.sampler_mut(&id) else { continue };
                let own = sampler.checkpoint.take_if(|weights| weights.new.kind == CheckpointKind::Session);
                // Samplers that follow a run share its weights.
                if let Some(own) = own.filter(|own| released.iter().all(|other| other.ordinal != own.ordinal))
                {
                    let ordinal = own.ordinal;
                    let removing = CheckpointState::Removing;
                    tickets.push(self.db.write(move |c| sql::set_checkpoint_state(c, ordinal, removing)));
                    released.push(own);
                }
            }
            for run_id in runs {
                let Some(run) = index.run_mut(&run_id) else { continue };
                let unsaved = run.corrupted.is_none() && run.unsaved.since.is_some();
                if let (true, Some(cause)) = (unsaved, corrupting) {
                    let unsaved = Self::unsaved_text(run, "");
                    let reason = format!("{cause}; the session ended while the run had {unsaved}");
                    tickets.push(self.mark_corrupted(run, reason));
                } else if unsaved {
                    let id = run_id.to_string();
                    run.unsaved = Unsaved::default();
                    let accepted = run.accepted_seq;
                    tickets.push(self.db.write(move |c| sql::mark_clean(c, &id, accepted)));
                }
                if let Some(standing) = run.standing.take_if(|standing| !standing.is_listed()) {
                    tickets.push(self.release_standing(&run_id, &standing));
                    released.push(standing);
                }
                if let Some(inbox) = run.trainer.and_then(|trainer| self.inbox(trainer)) {
                    let why = format!("session {session_id} is over: {reason}");
                    inbox.push(Command::Unload(run_id, Outcome::user(why)));
                }
            }
        }
        for ticket in tickets {
            ticket.done().await?;
        }
        for standing in released {
            self.discard_async(standing).await;
        }
        Ok(())
    }

    /// Takes a run out of training at its client's wish. What it has not saved is let go. Gives the id of the request.
    pub(crate) async fn unload_model(self: &Arc<Self>, run_id: &str) -> Result<String, ApiError> {
        let request_id = format!("{run_id}:unload");
        let completer = match self.futures.accept(&request_id, None) {
            Accepted::New(completer) => completer,
            Accepted::Before | Accepted::Reused => return Ok(request_id),
        };
        match self.retire(run_id).await {
            Ok(()) => {
                completer.complete(Outcome::Done(serde_json::json!({ "model_id": run_id })));
                Ok(request_id)
            }
            Err(error) => {
                completer.withdraw();
                Err(error)
            }
        }
    }

    async fn retire(self: &Arc<Self>, run_id: &str) -> Result<(), ApiError> {
        const REASON: &str = "its client unloaded it";
        let mut tickets = Vec::new();
        let released = {
            let mut index = self.index();
            let run = index.run_mut(run_id).ok_or_else(|| unknown_run(run_id))?;
            run.retired.get_or_insert_with(|| REASON.to_owned());
            let (id, accepted) = (run_id.to_owned(), run.accepted_seq);
            let clean = run.corrupted.is_none() && run.unsaved.since.is_some();
            if clean {
                run.unsaved = Unsaved::default();
            }
            tickets.push(self.db.write(move |c| {
                sql::set_retired(c, &id, REASON)?;
                if clean { sql::mark_clean(c, &id, accepted) } else { Ok(()) }
            }));
            let released = run.standing.take_if(|standing| !standing.is_listed());
            if let Some(standing) = &released {
                tickets.push(self.release_standing(run_id, standing));
            }
            if let Some(inbox) = run.trainer.and_then(|trainer| self.inbox(trainer)) {
                let why = format!("training run {run_id} takes no requests: {REASON}");
                inbox.push(Command::Unload(Arc::clone(&run.new.run_id), Outcome::user(why)));
            }
            released
        };
        for ticket in tickets {
            ticket.done().await?;
        }
        if let Some(standing) = released {
            self.discard_async(standing).await;
        }
        Ok(())
    }

    /// Lets go of what a run stood on and nobody else sees.
    fn release_standing(&self, run_id: &str, standing: &Arc<CheckpointRow>) -> crate::db::Ticket<()> {
        let (id, ordinal) = (run_id.to_owned(), standing.ordinal);
        self.db.write(move |c| {
            sql::set_standing(c, &id, None)?;
            sql::set_checkpoint_state(c, ordinal, CheckpointState::Removing)
        })
    }
}

/// The answer for a session that nobody made.
pub(crate) fn unknown_session(session_id: &str) -> ApiError {
    ApiError::not_found(format!("session {session_id} does not exist"))
}
