//! Sampling sessions and what they sample from.

use std::collections::HashMap;

use retinker_wire::sampling::CreateSamplingSessionRequest;

use super::{training_path, unknown_run};
use crate::core::Core;
use crate::http::ApiError;
use crate::sampler::Source;
use crate::sync::lock;

/// The sampling sessions, with what they sample from.
pub(crate) type SamplingSessions = HashMap<String, Source>;

impl Core {
    /// Begins a sampling session; a request that is sent again gets the same.
    pub(crate) fn create_sampling_session(
        &self,
        request: &CreateSamplingSessionRequest,
    ) -> Result<String, ApiError> {
        Self::check_session(&self.index(), &request.session_id)?;
        let source = self.source_of(request.base_model.as_deref(), request.model_path.as_deref())?;
        let id = format!("{}:sample:{}", request.session_id, request.sampling_session_seq_id);
        lock(&self.sampling_sessions).entry(id.clone()).or_insert(source);
        Ok(id)
    }

    /// What a sampling session samples from.
    pub(crate) fn sampling_source(&self, sampling_session_id: &str) -> Result<Source, ApiError> {
        lock(&self.sampling_sessions).get(sampling_session_id).cloned().ok_or_else(|| {
            ApiError::not_found(format!("sampling session {sampling_session_id} does not exist"))
        })
    }

    /// What a request names by model or path.
    pub(crate) fn source_of(
        &self,
        base_model: Option<&str>,
        model_path: Option<&str>,
    ) -> Result<Source, ApiError> {
        if let Some(path) = model_path {
            let path = training_path(path)?;
            let index = self.index();
            if index.run(&path.training_run_id).is_none() {
                return Err(unknown_run(&path.training_run_id));
            }
            let row = index.checkpoint(&path.training_run_id, &path.name).cloned();
            return row
                .map(Source::Checkpoint)
                .ok_or_else(|| ApiError::not_found(format!("checkpoint {path} does not exist")));
        }
        let Some(name) = base_model else {
            return Err(ApiError::bad_request(
                "base_model or model_path must say what to sample from".to_owned(),
            ));
        };
        self.models.config(name).map_err(ApiError::not_found)?;
        Ok(Source::Base(name.to_owned()))
    }
}
