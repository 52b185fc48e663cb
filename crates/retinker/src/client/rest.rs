//! What is on the server, without a session.

use std::collections::HashSet;

use futures_core::Stream;
use futures_util::stream;
use retinker_wire::capabilities::ServerCapabilities;
use retinker_wire::path::TinkerPath;
use retinker_wire::run::{CheckpointsResponse, TrainingRun, TrainingRunsResponse};
use retinker_wire::sampler::GetSamplerResponse;
use retinker_wire::session::{
    GetSessionResponse, ListSessionsResponse, SessionSearchRequest, SessionSummary,
};
use retinker_wire::weights::{CopyWeightsRequest, ExternalWeightsUrls, WeightsInfoResponse};

use super::api::Api;
use super::error::Error;
use super::secret::Secret;

/// Looks at runs and checkpoints, and manages them. Opens no session.
#[derive(Debug, Clone)]
pub struct RestClient {
    api: Api,
}

impl RestClient {
    /// A client over these endpoints.
    pub fn new(api: Api) -> Self {
        Self { api }
    }

    /// The endpoints.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// The base models that the server offers.
    pub async fn get_server_capabilities(&self) -> Result<ServerCapabilities, Error> {
        self.api.capabilities().await
    }

    /// One run.
    pub async fn get_training_run(&self, run_id: &str) -> Result<TrainingRun, Error> {
        self.api.training_run(run_id).await
    }

    /// The run that a checkpoint belongs to.
    pub async fn get_training_run_by_tinker_path(&self, path: &str) -> Result<TrainingRun, Error> {
        self.api.training_run(&parsed(path)?.training_run_id).await
    }

    /// One page of the runs.
    pub async fn list_training_runs(&self, limit: u64, offset: u64) -> Result<TrainingRunsResponse, Error> {
        self.api.training_runs(limit, offset).await
    }

    /// All runs, a page of `page_size` at a time. Runs made meanwhile move the pages; a run that comes twice is
    /// given once. Ends with the first page that fails, or that brings nothing new.
    pub fn training_runs(
        &self,
        page_size: u64,
    ) -> impl Stream<Item = Result<Vec<TrainingRun>, Error>> + Send + 'static + use<> {
        let start = (self.api.clone(), 0u64, HashSet::<String>::new(), true);
        stream::unfold(start, move |(api, offset, mut seen, more)| async move {
            if !more {
                return None;
            }
            match api.training_runs(page_size, offset).await {
                Err(error) => Some((Err(error), (api, offset, seen, false))),
                Ok(page) => {
                    let came = page.training_runs.len() as u64;
                    let total = page.cursor.total_count;
                    let next = offset + came;
                    let new: Vec<_> = page
                        .training_runs
                        .into_iter()
                        .filter(|run| seen.insert(run.training_run_id.clone()))
                        .collect();
                    // A server may cap the page below what was asked for, so only its total tells the end, or,
                    // where it answers a total of 0, a page with nothing new.
                    let more = came > 0 && if total > 0 { next < total } else { !new.is_empty() };
                    if new.is_empty() && !more { None } else { Some((Ok(new), (api, next, seen, more))) }
                }
            }
        })
    }

    /// The checkpoints of a run.
    pub async fn list_checkpoints(&self, run_id: &str) -> Result<CheckpointsResponse, Error> {
        self.api.run_checkpoints(run_id).await
    }

    /// What a checkpoint fits.
    pub async fn get_weights_info_by_tinker_path(&self, path: &str) -> Result<WeightsInfoResponse, Error> {
        self.api.weights_info(path).await
    }

    /// Lets a checkpoint live for so many seconds from now; `None` = for ever.
    pub async fn set_checkpoint_ttl_from_tinker_path(
        &self,
        path: &str,
        ttl_seconds: Option<u64>,
    ) -> Result<(), Error> {
        let path = parsed(path)?;
        self.api.set_checkpoint_ttl(&path.training_run_id, &path.checkpoint_id(), ttl_seconds).await
    }

    /// Deletes a checkpoint, for good.
    pub async fn delete_checkpoint_from_tinker_path(&self, path: &str) -> Result<(), Error> {
        let path = parsed(path)?;
        self.api.delete_checkpoint(&path.training_run_id, &path.checkpoint_id()).await
    }

    /// One page of the checkpoints of all runs, newest first.
    pub async fn list_user_checkpoints(&self, limit: u64, offset: u64) -> Result<CheckpointsResponse, Error> {
        self.api.user_checkpoints(limit, offset).await
    }

    /// Lets everybody load a checkpoint and sample from it.
    pub async fn publish_checkpoint_from_tinker_path(&self, path: &str) -> Result<(), Error> {
        let path = parsed(path)?;
        self.api.set_checkpoint_public(&path.training_run_id, &path.checkpoint_id(), true).await
    }

    /// Takes that back.
    pub async fn unpublish_checkpoint_from_tinker_path(&self, path: &str) -> Result<(), Error> {
        let path = parsed(path)?;
        self.api.set_checkpoint_public(&path.training_run_id, &path.checkpoint_id(), false).await
    }

    /// Where the files of an external checkpoint can be had for a while. The addresses are secrets.
    pub async fn get_external_weights_urls(&self, path: &str) -> Result<ExternalWeightsUrls, Error> {
        let path = parsed(path)?;
        self.api.external_weights_urls(&path.training_run_id, &path.checkpoint_id()).await
    }

    /// Copies a checkpoint into a run of its own in a project; that run cannot be trained. Gives the copy's path. The copy lives for `ttl_seconds`; `None` = for ever.
    pub async fn copy_weights(
        &self,
        path: &str,
        destination_project_id: &str,
        ttl_seconds: Option<u64>,
        weights_access_token: Option<&Secret>,
    ) -> Result<String, Error> {
        let request = CopyWeightsRequest {
            source_path: parsed(path)?.to_string(),
            session_id: None,
            model_seq_id: None,
            destination_project_id: Some(destination_project_id.to_owned()),
            ttl_seconds,
        };
        Ok(self.api.copy_weights(&request, weights_access_token).await?.tinker_path)
    }

    /// All sessions that fit, newest first, a page at a time. Ends with the first page that fails.
    pub fn search_sessions(
        &self,
        request: SessionSearchRequest,
    ) -> impl Stream<Item = Result<Vec<SessionSummary>, Error>> + Send + 'static + use<> {
        stream::unfold(Some((self.api.clone(), request)), |state| async move {
            let (api, mut request) = state?;
            let page = match api.search_sessions(&request).await {
                Ok(page) => page,
                Err(error) => return Some((Err(error), None)),
            };
            let more = page.next_cursor.map(|cursor| {
                request.cursor = Some(cursor);
                (api, request)
            });
            Some((Ok(page.sessions), more))
        })
    }

    /// Moves a session into a project.
    pub async fn assign_session_project(&self, session_id: &str, project_id: &str) -> Result<(), Error> {
        self.api.set_session_project(session_id, project_id).await
    }

    /// What a sampler samples from.
    pub async fn get_sampler(&self, sampler_id: &str) -> Result<GetSamplerResponse, Error> {
        self.api.get_sampler(sampler_id).await
    }

    /// The runs and samplers of a session.
    pub async fn get_session(&self, session_id: &str) -> Result<GetSessionResponse, Error> {
        self.api.get_session(session_id).await
    }

    /// Session ids, newest first.
    pub async fn list_sessions(&self, limit: u64, offset: u64) -> Result<ListSessionsResponse, Error> {
        self.api.list_sessions(limit, offset).await
    }
}

fn parsed(path: &str) -> Result<TinkerPath, Error> {
    path.parse().map_err(|error: retinker_wire::path::PathError| {
        Error::config("a checkpoint's path", error.to_string())
    })
}
