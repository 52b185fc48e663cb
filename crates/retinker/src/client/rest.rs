//! What is on the server, without a session.

use std::time::Duration;

use futures_core::Stream;
use futures_util::stream;
use retinker_wire::account::{
    AuditEventType, AuditLogResponse, BillingUsageResponse, CheckpointStorageUsageResponse, TraceExport,
    Whoami,
};
use retinker_wire::capabilities::ServerCapabilities;
use retinker_wire::future::RequestErrorCategory;
use retinker_wire::path::TinkerPath;
use retinker_wire::run::{
    AccessScope, Checkpoint, CheckpointType, CheckpointsResponse, TrainingRun, TrainingRunsResponse,
};
use retinker_wire::sampler::GetSamplerResponse;
use retinker_wire::session::{
    GetSessionResponse, ListSessionsResponse, SessionSearchRequest, SessionSummary,
};
use retinker_wire::time::Time;
use retinker_wire::weights::{CopyWeightsRequest, ExternalWeightsUrls, WeightsInfoResponse};

use super::api::Api;
use super::asked::Asked;
use super::auth::Claims;
use super::error::{Error, ErrorKind};
use super::pages::{Page, pages};
use super::secret::Secret;

/// How often a trace that is being built is asked for; as in the official SDK.
const TRACE_POLL: Duration = Duration::from_secs(5);

/// Looks at runs and checkpoints, and manages them. Opens no session. Lists are `limit` entries from the `offset`-th on,
/// counted from 0; the server may give fewer.
///
/// # Errors
///
/// Methods give what [every call can give](Error#what-every-call-can-give), and what they say themselves;
/// [`Error::is_unsupported`] tells where the server lacks what is asked for. What takes the `path` of a checkpoint gives
/// [`ErrorKind::Config`] for one that is not of the form `tinker://<run>/<segment>/<name>`, what takes an id for one that
/// cannot be one (see [`Api`]); nothing is sent then. The first call of all asks the server how it wants to be talked to,
/// once, and fails if that does.
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

    /// The base models that the server offers, with the most tokens of a context where it says so.
    pub fn get_server_capabilities(&self) -> Asked<'_, ServerCapabilities> {
        self.api.capabilities().settled(&self.api)
    }

    /// One run.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a run that there is not, or not as the caller's own.
    pub fn get_training_run(&self, run_id: &str) -> Asked<'_, TrainingRun> {
        self.api.training_run(run_id).settled(&self.api)
    }

    /// The run that a checkpoint belongs to.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a run that there is not, or not as the caller's own.
    pub async fn get_training_run_by_tinker_path(&self, path: &str) -> Result<TrainingRun, Error> {
        self.api.settled().await?.training_run(&parsed(path)?.training_run_id).await
    }

    /// The run that a checkpoint belongs to, which need not be the caller's own.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a run that there is not, or that the caller may not see.
    pub async fn get_training_run_by_tinker_path_in(
        &self,
        path: &str,
        access_scope: AccessScope,
    ) -> Result<TrainingRun, Error> {
        self.get_training_run_in(&parsed(path)?.training_run_id, access_scope).await
    }

    /// One page of the runs.
    pub fn list_training_runs(&self, limit: u64, offset: u64) -> Asked<'_, TrainingRunsResponse> {
        self.api.training_runs(limit, offset).settled(&self.api)
    }

    /// One page of these runs: the caller's own or all that the caller may see, of all projects or of one.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] for a project that the caller may not list.
    pub fn list_training_runs_in(
        &self,
        limit: u64,
        offset: u64,
        access_scope: AccessScope,
        project_id: Option<&str>,
    ) -> Asked<'_, TrainingRunsResponse> {
        self.api.training_runs_in(limit, offset, access_scope, project_id).settled(&self.api)
    }

    /// A run that need not be the caller's own.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a run that there is not, or that the caller may not see.
    pub fn get_training_run_in(&self, run_id: &str, access_scope: AccessScope) -> Asked<'_, TrainingRun> {
        self.api.training_run_in(run_id, access_scope).settled(&self.api)
    }

    /// All runs, a page of about `page_size` at a time. Each comes once, whatever is made, used or deleted
    /// meanwhile; to be sure of that, a list of several pages is read at least twice. Ends with the first page that fails.
    ///
    /// # Errors
    /// [`ErrorKind::Undecodable`] for a list that a server gives without an end.
    pub fn training_runs(
        &self,
        page_size: u64,
    ) -> impl Stream<Item = Result<Vec<TrainingRun>, Error>> + Send + 'static + use<> {
        self.training_runs_in(page_size, AccessScope::Owned, None)
    }

    /// The same of the caller's own runs or all that the caller may see, of all projects or of one.
    pub fn training_runs_in(
        &self,
        page_size: u64,
        access_scope: AccessScope,
        project_id: Option<&str>,
    ) -> impl Stream<Item = Result<Vec<TrainingRun>, Error>> + Send + 'static + use<> {
        let (api, project_id) = (self.api.clone(), project_id.map(str::to_owned));
        pages(
            page_size,
            |run: &TrainingRun| &run.training_run_id,
            move |limit, offset| {
                let (api, project_id) = (api.clone(), project_id.clone());
                async move {
                    let api = api.settled().await?;
                    let page =
                        api.training_runs_in(limit, offset, access_scope, project_id.as_deref()).await?;
                    Ok(Page { entries: page.training_runs, total: Some(page.cursor.total_count) })
                }
            },
        )
    }

    /// The checkpoints of all runs, newest first, in the same way.
    pub fn user_checkpoints(
        &self,
        page_size: u64,
    ) -> impl Stream<Item = Result<Vec<Checkpoint>, Error>> + Send + 'static + use<> {
        let api = self.api.clone();
        pages(
            page_size,
            |checkpoint: &Checkpoint| &checkpoint.tinker_path,
            move |limit, offset| {
                let api = api.clone();
                async move {
                    let page = api.settled().await?.user_checkpoints(limit, offset).await?;
                    Ok(Page {
                        entries: page.checkpoints,
                        total: page.cursor.map(|cursor| cursor.total_count),
                    })
                }
            },
        )
    }

    /// The ids of all sessions, newest first, in the same way.
    pub fn sessions(
        &self,
        page_size: u64,
    ) -> impl Stream<Item = Result<Vec<String>, Error>> + Send + 'static + use<> {
        self.sessions_in(page_size, AccessScope::Owned)
    }

    /// The same of the caller's own sessions or all that the caller may see.
    pub fn sessions_in(
        &self,
        page_size: u64,
        access_scope: AccessScope,
    ) -> impl Stream<Item = Result<Vec<String>, Error>> + Send + 'static + use<> {
        let api = self.api.clone();
        pages(
            page_size,
            |id: &String| id.as_str(),
            move |limit, offset| {
                let api = api.clone();
                async move {
                    let listed = api.settled().await?.list_sessions_in(limit, offset, access_scope).await?;
                    Ok(Page { entries: listed.sessions, total: None })
                }
            },
        )
    }

    /// The checkpoints of a run.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a run that there is not.
    pub fn list_checkpoints(&self, run_id: &str) -> Asked<'_, CheckpointsResponse> {
        self.api.run_checkpoints(run_id).settled(&self.api)
    }

    /// What a checkpoint fits.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a checkpoint that there is not, 400 for a path of another form, which
    /// is not looked at here; some servers know those of training only.
    pub fn get_weights_info_by_tinker_path(&self, path: &str) -> Asked<'_, WeightsInfoResponse> {
        self.api.weights_info(path).settled(&self.api)
    }

    /// Lets a checkpoint live for so many seconds from now; `None` = for ever.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a checkpoint that there is not, 400 or 422 for a time that the server
    /// does not grant (the hosted service documents an hour to ten years).
    pub async fn set_checkpoint_ttl_from_tinker_path(
        &self,
        path: &str,
        ttl_seconds: Option<u64>,
    ) -> Result<(), Error> {
        let path = parsed(path)?;
        self.api
            .settled()
            .await?
            .set_checkpoint_ttl(&path.training_run_id, &path.checkpoint_id(), ttl_seconds)
            .await
    }

    /// Deletes a checkpoint, for good.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a checkpoint that there is not, or not any more: after an attempt that broke
    /// off, perhaps deleted by that one. With 425 while it is being saved.
    pub async fn delete_checkpoint_from_tinker_path(&self, path: &str) -> Result<(), Error> {
        let path = parsed(path)?;
        self.api.settled().await?.delete_checkpoint(&path.training_run_id, &path.checkpoint_id()).await
    }

    /// One page of the checkpoints of all runs, newest first.
    pub fn list_user_checkpoints(&self, limit: u64, offset: u64) -> Asked<'_, CheckpointsResponse> {
        self.api.user_checkpoints(limit, offset).settled(&self.api)
    }

    /// Lets everybody load a checkpoint and sample from it.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a checkpoint that there is not, 409 for one that is public already.
    pub async fn publish_checkpoint_from_tinker_path(&self, path: &str) -> Result<(), Error> {
        let path = parsed(path)?;
        self.api
            .settled()
            .await?
            .set_checkpoint_public(&path.training_run_id, &path.checkpoint_id(), true)
            .await
    }

    /// Takes that back.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a checkpoint that there is not, 409 for one that is not public.
    pub async fn unpublish_checkpoint_from_tinker_path(&self, path: &str) -> Result<(), Error> {
        let path = parsed(path)?;
        self.api
            .settled()
            .await?
            .set_checkpoint_public(&path.training_run_id, &path.checkpoint_id(), false)
            .await
    }

    /// Where the files of an external checkpoint can be had for a while. The addresses are secrets.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a checkpoint of another kind; [`ErrorKind::Refused`] with 404 for one that there is not.
    pub async fn get_external_weights_urls(&self, path: &str) -> Result<ExternalWeightsUrls, Error> {
        let path = parsed(path)?;
        if path.checkpoint_type != CheckpointType::External {
            return Err(Error::config(
                format!("external_weights_urls of {path}"),
                "only weights saved by save_weights_external have such addresses",
            ));
        }
        self.api.settled().await?.external_weights_urls(&path.training_run_id, &path.checkpoint_id()).await
    }

    /// Where an archive of a checkpoint's files can be had for a while. The address is a secret.
    ///
    /// # Errors
    /// As of [`Api::checkpoint_archive_address`].
    pub async fn checkpoint_archive_address(&self, path: &str) -> Result<Secret, Error> {
        let path = parsed(path)?;
        self.api
            .settled()
            .await?
            .checkpoint_archive_address(&path.training_run_id, &path.checkpoint_id())
            .await
    }

    /// Copies a checkpoint into a run of its own, in a project if one is named; that run cannot be trained. Gives the
    /// copy's path. The copy lives for `ttl_seconds`; `None` = for ever.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a checkpoint that there is not, 403 or 404 for one of somebody else without
    /// leave, 400 or 422 for a lifetime or a project that the server does not grant.
    pub async fn copy_weights(
        &self,
        path: &str,
        destination_project_id: Option<&str>,
        ttl_seconds: Option<u64>,
        weights_access_token: Option<&Secret>,
    ) -> Result<String, Error> {
        let request = CopyWeightsRequest {
            source_path: parsed(path)?.to_string(),
            session_id: None,
            model_seq_id: None,
            destination_project_id: destination_project_id.map(str::to_owned),
            ttl_seconds,
        };
        Ok(self.api.settled().await?.copy_weights(&request, weights_access_token).await?.tinker_path)
    }

    /// All sessions that fit, newest first, a page at a time. Ends with the first page that fails.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] for a project that the caller may not list; with 400 or 422 for a `limit` that is not from
    /// 1 to 200, or for an empty name.
    pub fn search_sessions(
        &self,
        request: SessionSearchRequest,
    ) -> impl Stream<Item = Result<Vec<SessionSummary>, Error>> + Send + 'static + use<> {
        stream::unfold(Some((self.api.clone(), request)), |state| async move {
            let (api, mut request) = state?;
            let page = async { api.settled().await?.search_sessions(&request).await };
            let page = match page.await {
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
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 400, 403 or 404 for a session or a project that there is not, or not for the caller.
    pub fn assign_session_project(&self, session_id: &str, project_id: &str) -> Asked<'_, ()> {
        self.api.set_session_project(session_id, project_id).settled(&self.api)
    }

    /// What a sampler samples from.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a sampler that there is not.
    pub fn get_sampler(&self, sampler_id: &str) -> Asked<'_, GetSamplerResponse> {
        self.api.get_sampler(sampler_id).settled(&self.api)
    }

    /// A session that need not be the caller's own.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a session that there is not, or that the caller may not see.
    pub fn get_session_in(
        &self,
        session_id: &str,
        access_scope: AccessScope,
    ) -> Asked<'_, GetSessionResponse> {
        self.api.get_session_in(session_id, access_scope).settled(&self.api)
    }

    /// The runs and samplers of a session.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a session that there is not, or not as the caller's own.
    pub fn get_session(&self, session_id: &str) -> Asked<'_, GetSessionResponse> {
        self.api.get_session(session_id).settled(&self.api)
    }

    /// Who the credential belongs to, as its token says. Servers that give no tokens cannot say.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] without an API key; [`ErrorKind::Refused`] where the server gives no token for it;
    /// [`ErrorKind::Undecodable`] if the token does not say whose it is.
    pub async fn whoami(&self) -> Result<Whoami, Error> {
        let token = self.api.settled().await?.identity("whoami").await?;
        let claims = Claims::of(token.expose());
        let claim = |name: &str| claims.as_ref()?.others.get(name)?.as_str().map(str::to_owned);
        match (claim("sub"), claim("org_id")) {
            (Some(user_urn), Some(org)) => Ok(Whoami {
                user_urn,
                org_urn: format!("tml:organization:{org}"),
                email: claim("email").filter(|email| !email.is_empty()),
            }),
            _ => Err(Error::unreadable("whoami", "the token", "it does not say whose it is")),
        }
    }

    /// What was done with the organization's things on one day (`YYYY-MM-DD`; `None` = today).
    ///
    /// # Errors
    /// As of [`Api::audit_log`].
    pub async fn get_audit_log(
        &self,
        event_type: &AuditEventType,
        day: Option<&str>,
    ) -> Result<AuditLogResponse, Error> {
        self.api.settled().await?.audit_log(event_type, day).await
    }

    /// Usage between two full hours, at most 14 days apart.
    ///
    /// # Errors
    /// As of [`Api::billing_usage`].
    pub fn get_billing_usage(
        &self,
        starting_on: Time,
        ending_before: Time,
    ) -> Asked<'_, BillingUsageResponse> {
        self.api.billing_usage(starting_on, ending_before).settled(&self.api)
    }

    /// What checkpoints take now, in bytes, and would cost, in all or of one project.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 403 if the caller may not see it.
    pub fn get_current_checkpoint_storage_usage(
        &self,
        project_id: Option<&str>,
    ) -> Asked<'_, CheckpointStorageUsageResponse> {
        self.api.checkpoint_storage_usage(project_id).settled(&self.api)
    }

    /// Has a session's timeline built as a Perfetto trace, waits for it, and gives the address to download it from for
    /// about an hour. The address is a secret. Asks every 5 s, for as long as it takes.
    ///
    /// # Errors
    /// [`ErrorKind::Failed`] if it could not be built; [`ErrorKind::Refused`] with 404 for a session that there is not.
    pub async fn export_session_trace(&self, session_id: &str) -> Result<String, Error> {
        loop {
            match self.api.settled().await?.session_trace_export(session_id).await? {
                TraceExport::Ready { url } => return Ok(url),
                TraceExport::Failed { error } => {
                    return Err(Error::new(
                        format!("trace_export of session {session_id}"),
                        ErrorKind::Failed {
                            category: RequestErrorCategory::Server,
                            message: error.unwrap_or_else(|| "the server does not say why".to_owned()),
                            request_id: None,
                        },
                    ));
                }
                _ => self.api.runtime().sleep(TRACE_POLL).await,
            }
        }
    }

    /// Session ids that need not be the caller's own, newest first.
    pub fn list_sessions_in(
        &self,
        limit: u64,
        offset: u64,
        access_scope: AccessScope,
    ) -> Asked<'_, ListSessionsResponse> {
        self.api.list_sessions_in(limit, offset, access_scope).settled(&self.api)
    }

    /// Deletes a checkpoint of a run, for good. `checkpoint_id` is `<segment>/<name>`.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a checkpoint that there is not, or not any more: after an attempt that broke
    /// off, perhaps deleted by that one. With 425 while it is being saved.
    pub fn delete_checkpoint(&self, run_id: &str, checkpoint_id: &str) -> Asked<'_, ()> {
        self.api.delete_checkpoint(run_id, checkpoint_id).settled(&self.api)
    }

    /// Session ids, newest first.
    pub fn list_sessions(&self, limit: u64, offset: u64) -> Asked<'_, ListSessionsResponse> {
        self.api.list_sessions(limit, offset).settled(&self.api)
    }
}

fn parsed(path: &str) -> Result<TinkerPath, Error> {
    path.parse().map_err(|error: retinker_wire::path::PathError| {
        Error::config("a checkpoint's path", error.to_string())
    })
}
