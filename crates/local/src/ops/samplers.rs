//! Sampling sessions: made, joined, and what they sample from.

use std::sync::Arc;

use retinker_wire::sampler::{CreateSamplingSessionRequest, GetSamplerResponse, sampler_id_of};

use super::runs::{check_number, checkpoint_path};
use crate::core::Core;
use crate::db::{CheckpointKind, CheckpointRow, NewSampler, SamplerRow, sql};
use crate::http::ApiError;
use crate::sampler::Source;
use crate::time::now_millis;

impl Core {
    /// Makes a sampling session. Asked for again it is found.
    pub(crate) async fn create_sampler(
        &self,
        request: CreateSamplingSessionRequest,
    ) -> Result<String, ApiError> {
        check_number("sampling_session_seq_id", request.sampling_session_seq_id)?;
        let sampler_id = sampler_id_of(&request.session_id, request.sampling_session_seq_id);
        {
            let index = self.index();
            Self::check_session(&index, &request.session_id)?;
            if let Some(sampler) = index.sampler(&sampler_id) {
                let made = &sampler.row.new;
                let same = made.model_path == request.model_path
                    && request.base_model.as_ref().is_none_or(|base| *base == made.base_model)
                    && made.follows.is_none();
                return if same {
                    Ok(sampler_id)
                } else {
                    Err(ApiError::bad_request(format!(
                        "sampler {sampler_id} exists already and samples from something else: use another \
                         sampling_session_seq_id"
                    )))
                };
            }
        }
        let source = self.source_of(request.base_model.as_deref(), request.model_path.as_deref())?;
        let (base_model, checkpoint) = self.described(&source)?;
        let new = NewSampler {
            sampler_id: sampler_id.clone(),
            session_id: request.session_id,
            base_model,
            model_path: request.model_path,
            checkpoint: checkpoint.as_ref().map(|row| row.ordinal),
            follows: None,
            created_at: now_millis(),
        };
        let stored = new.clone();
        let ordinal = self.db.write(move |c| sql::insert_sampler(c, &stored)).done().await?;
        self.index().insert_sampler(SamplerRow { ordinal, new, clients: 0 }, checkpoint);
        Ok(sampler_id)
    }

    /// What a source's weights belong to, and its checkpoint.
    fn described(&self, source: &Source) -> Result<(String, Option<Arc<CheckpointRow>>), ApiError> {
        match source {
            Source::Base(name) => Ok((name.clone(), None)),
            Source::Checkpoint(row) => {
                let index = self.index();
                let run = index.run(&row.new.run_id);
                let run = run.ok_or_else(|| super::runs::unknown_run(&row.new.run_id))?;
                Ok((run.new.base_model.to_string(), Some(Arc::clone(row))))
            }
        }
    }

    /// Weights by their names, as clients give them: a checkpoint's path, or else a base model.
    pub(crate) fn source_of(
        &self,
        base_model: Option<&str>,
        model_path: Option<&str>,
    ) -> Result<Source, ApiError> {
        match (model_path, base_model) {
            (Some(path), expected) => {
                let path = checkpoint_path(path)?;
                let row = self.find_checkpoint(&path).map_err(ApiError::not_found)?;
                let source = Source::Checkpoint(row);
                let (base, _) = self.described(&source)?;
                if let Some(expected) = expected.filter(|expected| *expected != base) {
                    return Err(ApiError::bad_request(format!(
                        "{path} was trained on {base}, not on {expected}: leave base_model out, or name the right one"
                    )));
                }
                Ok(source)
            }
            (None, Some(base)) => {
                self.models.config(base).map_err(ApiError::bad_request)?;
                Ok(Source::Base(base.to_owned()))
            }
            (None, None) => Err(ApiError::bad_request(
                "say what to sample from: base_model, or model_path with a tinker:// path".to_owned(),
            )),
        }
    }

    /// What a sampling session samples from now.
    pub(crate) fn sampling_source(&self, sampler_id: &str) -> Result<Source, ApiError> {
        let index = self.index();
        let sampler = index.sampler(sampler_id).ok_or_else(|| unknown_sampler(sampler_id))?;
        let made = &sampler.row.new;
        Self::check_session(&index, &made.session_id)?;
        if made.checkpoint.is_none() {
            return Ok(Source::Base(made.base_model.clone()));
        }
        let now = now_millis();
        let there = sampler.checkpoint.as_ref().filter(|row| {
            let listed = || index.checkpoint_by_ordinal(row.ordinal).is_some_and(|row| !row.expired(now));
            row.new.kind == CheckpointKind::Session || listed()
        });
        there.map(|row| Source::Checkpoint(Arc::clone(row))).ok_or_else(|| {
            let path = made.model_path.as_deref().unwrap_or("its checkpoint");
            ApiError::not_found(format!(
                "sampler {sampler_id} has nothing to sample from: {path} was deleted, or has expired"
            ))
        })
    }

    /// What took the place of weights that samplers followed.
    pub(crate) fn newer_copy(&self, weights: &CheckpointRow) -> Option<Arc<CheckpointRow>> {
        let index = self.index();
        let run = index.run(&weights.new.run_id)?;
        let samplers = &index.session(&run.new.session_id)?.samplers;
        let followers = samplers
            .iter()
            .filter_map(|id| index.sampler(id))
            .filter(|sampler| sampler.row.new.follows.as_deref() == Some(&*weights.new.run_id));
        let newer = followers.filter_map(|sampler| sampler.checkpoint.as_ref());
        newer.max_by_key(|row| row.ordinal).filter(|row| row.ordinal > weights.ordinal).cloned()
    }

    /// Gives a client of a sampler a number that no other client of it has.
    pub(crate) async fn join_sampler(&self, sampler_id: &str) -> Result<u64, ApiError> {
        let (ticket, client) = {
            let mut index = self.index();
            let sampler = index.sampler(sampler_id).ok_or_else(|| unknown_sampler(sampler_id))?;
            Self::check_session(&index, &sampler.row.new.session_id)?;
            let sampler = index.sampler_mut(sampler_id).ok_or_else(|| unknown_sampler(sampler_id))?;
            sampler.row.clients += 1;
            let (id, clients) = (sampler_id.to_owned(), sampler.row.clients);
            (self.db.write(move |c| sql::set_sampler_clients(c, &id, clients)), clients)
        };
        ticket.done().await?;
        Ok(client)
    }

    /// A sampler as it is described.
    pub(crate) fn describe_sampler(&self, sampler_id: &str) -> Result<GetSamplerResponse, ApiError> {
        let index = self.index();
        let made = &index.sampler(sampler_id).ok_or_else(|| unknown_sampler(sampler_id))?.row.new;
        Ok(GetSamplerResponse {
            sampler_id: sampler_id.to_owned(),
            base_model: made.base_model.clone(),
            model_path: made.model_path.clone(),
        })
    }
}

/// The answer for a sampler that nobody made.
fn unknown_sampler(sampler_id: &str) -> ApiError {
    ApiError::not_found(format!("sampling session {sampler_id} does not exist"))
}
