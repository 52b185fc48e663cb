//! Sessions: begun, kept alive, ended.

use std::sync::Arc;
use std::time::Instant;

use retinker_wire::session::{CreateSessionRequest, FinishSessionRequest};

use crate::changes::Change;
use crate::core::Core;
use crate::db::{CheckpointRow, CheckpointState, DbError, SessionRow, sql};
use crate::http::ApiError;
use crate::index::{Index, Unsaved};
use crate::time::now_millis;
use crate::trainer::Command;

impl Core {
    /// Begins a session.
    pub(crate) async fn create_session(&self, request: CreateSessionRequest) -> Result<String, ApiError> {
        let session_id = uuid::Uuid::new_v4().to_string();
        let (id, stored) = (session_id.clone(), request.clone());
        let ordinal =
            self.db.write(move |c| sql::insert_session(c, &id, now_millis(), &stored)).done().await?;
        let row = SessionRow { ordinal, session_id: session_id.clone(), request, ended: None };
        self.index().insert_session(row, Instant::now());
        Ok(session_id)
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
            return Err(ApiError::not_found(format!("session {session_id} does not exist")));
        };
        match &session.ended {
            Some(reason) => Err(ApiError::gone(format!("session {session_id} is over: {reason}"))),
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
            return Err(ApiError::not_found(format!("session {session_id} does not exist")));
        }
        let reason = match request.detail.as_deref() {
            Some(detail) if !detail.is_empty() => {
                format!("its client finished it ({}: {detail})", request.reason.kind)
            }
            _ => format!("its client finished it ({})", request.reason.kind),
        };
        Ok(self.end_session(session_id, &reason, None).await?)
    }

    /// Ends sessions that had no heartbeat for too long. Their runs with unsaved work are corrupted.
    pub(crate) async fn expire_sessions(self: &Arc<Self>) {
        let Some(before) = Instant::now().checked_sub(self.session_timeout) else { return };
        let silent = self.index().silent_sessions(before);
        for session_id in silent {
            let reason = format!("no heartbeat for {} s", self.session_timeout.as_secs());
            tracing::info!(session = %session_id, "session ended: {reason}");
            if let Err(error) = self.end_session(&session_id, &reason, Some(&reason)).await {
                tracing::error!(session = %session_id, %error, "the session's end could not be stored");
            }
        }
    }

    /// Ends a session; its runs are unloaded. `corrupting` is why its runs with unsaved work count as corrupted; `None` when
    /// the client let that work go.
    async fn end_session(
        self: &Arc<Self>,
        session_id: &str,
        reason: &str,
        corrupting: Option<&str>,
    ) -> Result<(), DbError> {
        let mut tickets = Vec::new();
        let mut released = Vec::new();
        {
            let mut index = self.index();
            let Some(session) = index.session_mut(session_id) else { return Ok(()) };
            if session.ended.is_some() {
                return Ok(());
            }
            session.ended = Some(reason.to_owned());
            let runs = session.runs.clone();
            self.changes
                .tell(Change::SessionEnded { session_id: session_id.to_owned(), reason: reason.to_owned() });
            let (id, why) = (session_id.to_owned(), reason.to_owned());
            tickets.push(self.db.write(move |c| sql::end_session(c, &id, now_millis(), &why)));
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
                    inbox.push(Command::Unload(run_id, why));
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

    /// Lets go of what a run stood on and nobody else sees.
    fn release_standing(&self, run_id: &str, standing: &Arc<CheckpointRow>) -> crate::db::Ticket<()> {
        let (id, ordinal) = (run_id.to_owned(), standing.ordinal);
        self.db.write(move |c| {
            sql::set_standing(c, &id, None)?;
            sql::set_checkpoint_state(c, ordinal, CheckpointState::Removing)
        })
    }
}
