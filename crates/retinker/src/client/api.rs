//! One typed call per endpoint.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use retinker_wire::account::{
    AuditEventType, AuditLogResponse, BillingUsageResponse, CheckpointStorageUsageResponse, TraceExport,
};
use retinker_wire::capabilities::{ClientConfig, ClientConfigRequest, DynamicConfig, ServerCapabilities};
use retinker_wire::future::{PROTOBUF, UntypedApiFuture};
use retinker_wire::model::{
    CreateModelRequest, CreateModelResult, GetInfoRequest, GetInfoResponse, LoadWeightsRequest,
    LoadWeightsResult,
};
use retinker_wire::run::{AccessScope, CheckpointsResponse, TrainingRun, TrainingRunsResponse};
use retinker_wire::sampler::{
    CreateSamplingSessionRequest, CreateSamplingSessionResponse, GetSamplerResponse,
    JoinSamplingSessionRequest, JoinSamplingSessionResponse,
};
use retinker_wire::sampling::{AsampleRequest, CancelFutureRequest, SampleResponse};
use retinker_wire::series::{RunStory, Series};
use retinker_wire::session::{
    CreateSessionRequest, CreateSessionResponse, FinishReason, FinishReasonBody, FinishSessionRequest,
    GetSessionResponse, ListSessionsResponse, SessionHeartbeatRequest, SessionSearchRequest,
    SessionSearchResponse, SetProjectRequest,
};
use retinker_wire::telemetry::TelemetrySendRequest;
use retinker_wire::time::Time;
use retinker_wire::training::{
    CreateCustomLossRequest, CreateCustomLossResult, Datum, ForwardBackwardOutput, OptimStepRequest,
    OptimStepResult,
};
use retinker_wire::weights::{
    CopyWeightsRequest, CopyWeightsResponse, ExternalWeightsUrls, SaveWeightsExternalRequest,
    SaveWeightsForSamplerRequest, SaveWeightsForSamplerResult, SaveWeightsRequest, SaveWeightsResult,
    SetTtlRequest, WeightsInfoRequest, WeightsInfoResponse,
};
use serde::de::DeserializeOwned;

use super::asked::{Asked, decode};
use super::auth::{Auth, CredentialSource};
use super::call::{Answer, CANCEL_TIMEOUT, Call, Caller, HEARTBEAT_TIMEOUT, TELEMETRY_TIMEOUT};
use super::download::Download;
use super::encode::{Batch, LossFnConfig};
use super::error::{Error, ErrorKind, snippet_of};
use super::pending::{FutureResult, Pending, Watch, wait};
use super::retry::RetryPolicy;
use super::secret::Secret;
use super::telemetry::Telemetry;
use super::waiting::WaitPolicy;
use super::witness::{Note, NoteOf, Witness};
use crate::json;
use crate::runtime::Runtime;
use crate::transport::{Method, Transport};

/// The longest audit log of a day that is read, in bytes.
const MAX_AUDIT_LOG: usize = 256 << 20;
/// The longest file of a model that is read.
const MAX_MODEL_FILE: usize = 64 << 20;

/// The version that requests carry as `sdk_version`.
pub const SDK_VERSION: &str = concat!("retinker-", env!("CARGO_PKG_VERSION"));

/// Where the service is, and who asks.
#[derive(Clone, Default)]
pub struct ApiConfig {
    /// The service's address, e.g. `http://127.0.0.1:8000`; a path prefix is kept, trailing slashes are not.
    pub base_url: String,
    /// Sent as `X-API-Key`; `None` where the server (or a host in between) needs none.
    pub api_key: Option<Secret>,
    /// Asked for a credential whenever one is needed, where there is no `api_key`, or where the service wants short-lived ones
    /// (`credential_default_source`).
    pub credential_source: Option<Arc<dyn CredentialSource>>,
    /// More headers for every request; names in lower case. Their values are never printed.
    pub headers: Vec<(Cow<'static, str>, String)>,
}

impl fmt::Debug for ApiConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("ApiConfig")
            .field("base_url", &self.base_url)
            .field("api_key", &self.api_key)
            .field("credential_source", &self.credential_source)
            .field("headers", &names)
            .finish()
    }
}

/// The endpoints of one service. Cheap to clone; clones share the transport and its connections.
///
/// Methods send again by [`RetryPolicy`] and fail with [`Error`]: beside what they say themselves, with what
/// [every call can give](Error#what-every-call-can-give). Those that submit something to be done resolve when the server
/// has accepted it, to a [`Pending`] result, which says how that can fail.
///
/// Ids of runs, sessions, samplers and checkpoints stand in paths: one that is empty or holds a blank or any of `/ ? # \ %`
/// is an [`ErrorKind::Config`]. A checkpoint's id is `<segment>/<name>`, such as `weights/0001`. Lists give at most `limit`
/// entries, from the `offset`-th on, counted from 0.
#[derive(Clone, Debug)]
pub struct Api {
    caller: Arc<Caller>,
    retry: RetryPolicy,
    wait: WaitPolicy,
}

impl Api {
    /// A client of the service at `config.base_url`. Sends nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the address or the key cannot be used.
    pub fn new(
        config: ApiConfig,
        transport: Arc<dyn Transport>,
        runtime: Arc<dyn Runtime>,
    ) -> Result<Self, Error> {
        let base_url = checked_base_url(&config.base_url)?;
        let printable = |value: &str| value.bytes().all(|b| b == b'\t' || (0x20..0x7f).contains(&b));
        if config.api_key.as_ref().is_some_and(|key| key.expose().is_empty() || !printable(key.expose())) {
            return Err(Error::config(
                "the API key",
                "it is empty or holds a character that a header cannot carry. Was it copied whole, and alone?",
            ));
        }
        for (name, value) in &config.headers {
            let token = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
            if name.is_empty() || !name.bytes().all(token) || !printable(value) {
                return Err(Error::config(
                    format!("the header '{}'", name.escape_debug()),
                    "names are lower-case letters, digits and '-'; values are printable ASCII",
                ));
            }
        }
        let auth = Arc::new(Auth::new(config.api_key, config.credential_source));
        let (headers, heeded, witness) = (config.headers, Arc::default(), None);
        let caller = Caller { base_url, auth, headers, transport, runtime, heeded, witness };
        Ok(Self { caller: Arc::new(caller), retry: RetryPolicy::default(), wait: WaitPolicy::default() })
    }

    /// The same service, with another budget for sending.
    pub fn with_retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// The same service, with another budget for waiting for futures.
    pub fn with_wait(mut self, policy: WaitPolicy) -> Self {
        self.wait = policy;
        self
    }

    /// The same service; what fails of its calls is told by this telemetry.
    pub fn with_telemetry(self, telemetry: &Telemetry) -> Self {
        self.witnessed_by(Some(telemetry.witness()))
    }

    pub(crate) fn witnessed_by(self, witness: Option<Arc<dyn Witness>>) -> Self {
        let caller = Caller { witness, ..Caller::clone(&self.caller) };
        Self { caller: Arc::new(caller), ..self }
    }

    /// The service's address, without a trailing slash.
    pub fn base_url(&self) -> &str {
        &self.caller.base_url
    }

    /// The clock, chance and tasks that this client was given.
    pub fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.caller.runtime
    }

    /// Exchanges the credential for short-lived tokens from now on, as servers ask for it that say `pjwt_auth_enabled`.
    /// Clients with a session do so by themselves.
    pub fn exchange_tokens(&self) {
        self.caller.auth.exchange();
    }

    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Does from now on what a server asks of every call: tokens in place of keys, the pause for billing, and how much of
    /// results may be on its way at once. Clients with a session do so by themselves.
    pub fn heed(&self, config: &ClientConfig) {
        if config.pjwt_auth_enabled {
            self.exchange_tokens();
        }
        self.caller.auth.prefer_source(config.credential_default_source == "credential_cmd");
        self.caller.heeded.heed(config);
    }

    /// The same service, after it was asked, once for all clones, how it wants to be talked to. A server that cannot say is
    /// talked to as it is.
    ///
    /// # Errors
    /// What [every call can give](Error#what-every-call-can-give), but for a server without that endpoint.
    pub async fn settled(&self) -> Result<&Self, Error> {
        if !self.caller.heeded.is_settled() {
            self.settle().await?;
        }
        Ok(self)
    }

    /// Asks the server how it wants to be talked to, and heeds what of that concerns every call. `None`: it cannot say.
    pub(crate) async fn settle(&self) -> Result<Option<ClientConfig>, Error> {
        match self.client_config().await {
            Ok(config) => {
                self.heed(&config);
                Ok(Some(config))
            }
            Err(error) if error.is_unsupported() => {
                self.caller.heeded.settle();
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// How long a call waits in all while billing is blocked.
    pub(crate) fn billing_pause(&self) -> Duration {
        self.caller.heeded.billing_pause(self.retry.billing_pause)
    }

    pub(crate) fn wait_policy(&self) -> WaitPolicy {
        let billing_pause = self.caller.heeded.billing_pause(self.wait.billing_pause);
        WaitPolicy { billing_pause: Some(billing_pause), ..self.wait }
    }

    /// Tells of an error that the program is given.
    pub(crate) fn noted<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(error) = &result {
            self.caller.note(Note {
                of: NoteOf::Outcome,
                error,
                again: false,
                tries: 0,
                elapsed: Duration::ZERO,
            });
        }
        result
    }

    // -- what the server is -------------------------------------------------------------------------------------

    /// How the server wants to be talked to.
    ///
    /// # Errors
    /// [`Error::is_unsupported`] of a server that cannot say.
    pub fn client_config(&self) -> Asked<'_, ClientConfig> {
        self.json(|| {
            let body = ClientConfigRequest { sdk_version: SDK_VERSION.to_owned() };
            Call::post("client_config", "/api/v1/client/config", &body)
        })
    }

    /// What of that may change while a program runs. A server without it has the defaults.
    pub async fn dynamic_config(&self) -> Result<DynamicConfig, Error> {
        let call = || {
            let body = ClientConfigRequest { sdk_version: SDK_VERSION.to_owned() };
            Call::post("dynamic_config", "/api/v1/client/dynamic_config", &body)
        };
        match self.json(call).await {
            Err(error) if error.is_unsupported() => Ok(DynamicConfig::default()),
            answer => answer,
        }
    }

    /// The base models that the server offers (`get_server_capabilities`), with the most tokens of a context where it
    /// says so.
    pub fn capabilities(&self) -> Asked<'_, ServerCapabilities> {
        self.json(|| Ok(Call::get("get_server_capabilities", "/api/v1/get_server_capabilities")))
    }

    /// Whether the service is up.
    ///
    /// # Errors
    /// [`ErrorKind::Undecodable`] if it says anything but that it is.
    pub async fn healthz(&self) -> Result<(), Error> {
        #[derive(serde::Deserialize)]
        struct Health {
            status: String,
        }
        let call = Call::get("healthz", "/api/v1/healthz");
        let answer = self.answer(&call).await?;
        let health: Health = decode(&call.operation, &answer)?;
        if health.status == "ok" {
            return Ok(());
        }
        Err(Error::new(
            call.operation,
            ErrorKind::Undecodable {
                path: "status".into(),
                what: "it is not 'ok'".into(),
                snippet: snippet_of(health.status.as_bytes()),
            },
        ))
    }

    // -- sessions -----------------------------------------------------------------------------------------------

    /// Opens a session, which owns the runs made in it. It lives as long as it is sent heartbeats, one every 10 s.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] for a project that there is not, or not for the caller.
    pub fn create_session(&self, request: &CreateSessionRequest) -> Asked<'_, CreateSessionResponse> {
        self.json(|| Call::post("create_session", "/api/v1/create_session", request))
    }

    /// Keeps a session alive; one attempt, 10 s.
    ///
    /// # Errors
    /// [`ErrorKind::Expired`] if the session is over; [`ErrorKind::Refused`] with 404 if the server does not know it.
    pub fn session_heartbeat(&self, session_id: &str) -> Asked<'_, ()> {
        self.done(|| {
            let mut call = Call::post(
                format!("session_heartbeat of session {session_id}"),
                "/api/v1/session_heartbeat",
                &SessionHeartbeatRequest::new(session_id),
            )?;
            call.timeout = HEARTBEAT_TIMEOUT;
            call.retry = false;
            Ok(call)
        })
    }

    /// Ends a session. The first finish counts; another changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a session that the server does not know; [`Error::is_unsupported`] of a server
    /// where sessions end by themselves.
    pub fn finish_session(
        &self,
        session_id: &str,
        reason: FinishReason,
        detail: Option<String>,
    ) -> Asked<'_, ()> {
        self.done(|| {
            let operation = format!("finish of session {session_id}");
            let path = format!("/api/v1/sessions/{}/finish", segment(&operation, session_id)?);
            let body = FinishSessionRequest { reason: FinishReasonBody { kind: reason }, detail };
            Call::post(operation, path, &body)
        })
    }

    /// The runs and samplers of a session.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a session that the server does not know, or not as the caller's own.
    pub fn get_session(&self, session_id: &str) -> Asked<'_, GetSessionResponse> {
        self.get_session_in(session_id, AccessScope::Owned)
    }

    /// A session that need not be the caller's own.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a session that the server does not know, or that the caller may not see.
    pub fn get_session_in(
        &self,
        session_id: &str,
        access_scope: AccessScope,
    ) -> Asked<'_, GetSessionResponse> {
        self.json(|| {
            let operation = format!("get_session of session {session_id}");
            let mut path = format!("/api/v1/sessions/{}", segment(&operation, session_id)?);
            put_scope(&mut path, access_scope);
            Ok(Call::get(operation, path))
        })
    }

    /// Session ids, newest first. `limit` is 20 in the SDK.
    pub fn list_sessions(&self, limit: u64, offset: u64) -> Asked<'_, ListSessionsResponse> {
        self.list_sessions_in(limit, offset, AccessScope::Owned)
    }

    // -- models -------------------------------------------------------------------------------------------------

    /// Makes a run. The pair of session id and `model_seq_id` is its identity: asking again finds the same run.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a session that the server does not know, with 400 or 422 for a base model or an
    /// adapter that it does not offer; some servers say the latter as [`ErrorKind::Failed`] of the result.
    pub async fn create_model(
        &self,
        request: &CreateModelRequest,
    ) -> Result<Pending<CreateModelResult>, Error> {
        let operation = format!(
            "create_model of run {} on {}",
            retinker_wire::model::model_id_of(&request.session_id, request.model_seq_id),
            request.base_model
        );
        self.submit(Call::post(operation, "/api/v1/create_model", request)?).await
    }

    /// Gives a session a loss of the program's own.
    ///
    /// # Errors
    /// [`Error::is_unsupported`] of a server that computes no such losses. The result is [`ErrorKind::Failed`] for a
    /// graph that it cannot compute.
    pub async fn create_custom_loss(
        &self,
        request: &CreateCustomLossRequest,
    ) -> Result<Pending<CreateCustomLossResult>, Error> {
        let operation = format!("create_custom_loss of '{}' in session {}", request.name, request.session_id);
        self.submit(Call::post(operation, "/api/v1/create_custom_loss", request)?).await
    }

    /// Loads a checkpoint: into a fresh run (`model_id` and `seq_id` given), or as a new one (`session_id` and
    /// `model_seq_id` given; some servers refuse this form).
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the request has neither `model_id` nor `session_id`. [`ErrorKind::Refused`] with 400 for
    /// a path of another form, or a run that was trained already; with 404 for a checkpoint that there is not, 403 or 404
    /// for one of somebody else without leave, 425 while it is being saved, 422 from servers that do not know the second
    /// form.
    pub async fn load_weights(
        &self,
        request: &LoadWeightsRequest,
    ) -> Result<Pending<LoadWeightsResult>, Error> {
        self.submit(load_weights_call(request)?).await
    }

    /// What a run is made of.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a run that the server does not know.
    pub fn get_info(&self, model_id: &str) -> Asked<'_, GetInfoResponse> {
        self.json(|| {
            let body = GetInfoRequest::new(model_id);
            Call::post(format!("get_info of run {model_id}"), "/api/v1/get_info", &body)
        })
    }

    // -- training: sequenced by (model id, seq_id) ---------------------------------------------------------------

    /// A forward pass and, unless `forward_only`, the gradient, which adds up until the next `optim_step`. The batch goes
    /// out as one request, whatever its size.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a datum that cannot be written: an input of a kind that the protocol has no place for,
    /// or a malformed tensor; and for a number beyond 2147483647, the last of a run. [`ErrorKind::Refused`] with 404 for
    /// a run that the server does not know, with 409 for a number that another request has.
    #[allow(clippy::too_many_arguments)]
    pub async fn forward_backward(
        &self,
        model_id: &str,
        seq_id: u64,
        data: &[Datum],
        loss_fn: &str,
        loss_fn_config: &LossFnConfig,
        forward_only: bool,
    ) -> Result<Pending<ForwardBackwardOutput>, Error> {
        let batch = Batch::new(data, loss_fn, loss_fn_config, forward_only)
            .map_err(|e| Error::config(format!("a batch for run {model_id}"), e.to_string()))?;
        self.submit(forward_backward_call(model_id, seq_id, batch, forward_only)?).await
    }

    /// One step of the optimizer over the gradients added up.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a run that the server does not know, 409 for a number that another request
    /// has, 422 for settings out of their range.
    pub async fn optim_step(&self, request: &OptimStepRequest) -> Result<Pending<OptimStepResult>, Error> {
        self.submit(optim_step_call(request)?).await
    }

    /// Saves a run's weights and optimizer state under a name.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a run that the server does not know, 409 for a name that is taken, unless it
    /// is to be overwritten, 400 or 422 for a name that cannot be one. Some servers say of the result that the name is
    /// taken.
    pub async fn save_weights(
        &self,
        request: &SaveWeightsRequest,
    ) -> Result<Pending<SaveWeightsResult>, Error> {
        self.submit(save_weights_call(request)?).await
    }

    /// Saves a run's weights for samplers: under a name, or as a sampler.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a run that the server does not know, 409 for a name that is taken, 400 or 422
    /// for a name that cannot be one. Some servers say of the result that the name is taken.
    pub async fn save_weights_for_sampler(
        &self,
        request: &SaveWeightsForSamplerRequest,
    ) -> Result<Pending<SaveWeightsForSamplerResult>, Error> {
        self.submit(save_weights_for_sampler_call(request)?).await
    }

    // -- sampling -----------------------------------------------------------------------------------------------

    /// Makes a sampler. The pair of session id and `sampling_session_seq_id` is its identity.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a session or a checkpoint that there is not, 400 for a base model that is not
    /// offered or a checkpoint that is not for samplers, 425 for one that is being saved.
    pub fn create_sampling_session(
        &self,
        request: &CreateSamplingSessionRequest,
    ) -> Asked<'_, CreateSamplingSessionResponse> {
        self.json(|| {
            let source = request.model_path.as_ref().or(request.base_model.as_ref());
            let operation =
                format!("create_sampling_session on {}", source.map_or("nothing", |source| source.as_str()));
            Call::post(operation, "/api/v1/create_sampling_session", request)
        })
    }

    /// Asks for a number that no other client of a sampler has.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a sampler that the server does not know; [`Error::is_unsupported`] of a server
    /// that does not number its clients.
    pub fn join_sampling_session(&self, sampler_id: &str) -> Asked<'_, JoinSamplingSessionResponse> {
        self.json(|| {
            let body = JoinSamplingSessionRequest { sampling_session_id: sampler_id.to_owned() };
            let operation = format!("join_sampling_session of sampler {sampler_id}");
            Call::post(operation, "/api/v1/join_sampling_session", &body)
        })
    }

    /// What a sampler samples from.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a sampler that the server does not know.
    pub fn get_sampler(&self, sampler_id: &str) -> Asked<'_, GetSamplerResponse> {
        self.json(|| {
            let operation = format!("get_sampler of sampler {sampler_id}");
            let path = format!("/api/v1/samplers/{}", segment(&operation, sampler_id)?);
            Ok(Call::get(operation, path))
        })
    }

    /// Submits a prompt to be gone on from.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a sampler that the server does not know, 400 or 422 for a prompt or settings
    /// that it refuses, 409 for a number that another sample has. A 429 is tried again as by every call; the pauses that
    /// a [`SamplingClient`](super::SamplingClient) makes for all its samples are not made.
    pub async fn asample<P: serde::Serialize>(
        &self,
        request: &AsampleRequest<P>,
    ) -> Result<Pending<SampleResponse>, Error> {
        let mut call = asample_call(request)?;
        call.yields_when_limited = false;
        self.submit(call).await
    }

    /// Tells the server that nobody waits for a sample any more. It may still be completed.
    ///
    /// # Errors
    /// [`Error::is_unsupported`] of a server that does not want to hear of it; [`ErrorKind::TimedOut`] after 30 s. By
    /// the protocol it is no error to cancel what is done or unknown.
    pub fn cancel_future(&self, request_id: &str) -> Asked<'_, ()> {
        self.done(|| {
            let body = CancelFutureRequest { request_id: request_id.to_owned() };
            let mut call =
                Call::post(format!("cancel_future of request {request_id}"), "/api/v1/cancel_future", &body)?;
            call.timeout = CANCEL_TIMEOUT;
            Ok(call)
        })
    }

    // -- futures ------------------------------------------------------------------------------------------------

    /// Takes a submitted request up again by its id.
    pub fn retrieve_future<T: FutureResult>(&self, request_id: impl Into<String>) -> Pending<T> {
        let request_id = request_id.into();
        let operation = format!("retrieve_future of request {request_id}");
        self.pending(operation, request_id)
    }

    fn pending<T: FutureResult>(&self, operation: String, request_id: String) -> Pending<T> {
        let watch = Arc::new(Watch::default());
        watch.accepted(request_id.clone());
        let (api, held) = (self.clone(), watch.clone());
        Pending::new(watch, Box::pin(async move { wait(&api, &request_id, &operation, &held).await }))
    }

    // -- what is there ------------------------------------------------------------------------------------------

    /// What a checkpoint fits.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a checkpoint that there is not, 400 for a path of another form; some servers
    /// know those of training only.
    pub fn weights_info(&self, tinker_path: &str) -> Asked<'_, WeightsInfoResponse> {
        self.json(|| {
            let body = WeightsInfoRequest { tinker_path: tinker_path.to_owned() };
            Call::post(format!("weights_info of {tinker_path}"), "/api/v1/weights_info", &body)
        })
    }

    /// One page of the runs. `limit` is 20 in the SDK; a server may cap it.
    pub fn training_runs(&self, limit: u64, offset: u64) -> Asked<'_, TrainingRunsResponse> {
        self.training_runs_in(limit, offset, AccessScope::Owned, None)
    }

    /// The same of these runs only. Servers before the SDK 0.30's ignore what they do not know of it.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] for a project that the caller may not list.
    pub fn training_runs_in(
        &self,
        limit: u64,
        offset: u64,
        access_scope: AccessScope,
        project_id: Option<&str>,
    ) -> Asked<'_, TrainingRunsResponse> {
        self.json(|| {
            let mut path = format!("/api/v1/training_runs?limit={limit}&offset={offset}");
            put_scope(&mut path, access_scope);
            put_query(&mut path, "project_id", project_id);
            Ok(Call::get(format!("training_runs from {offset} on"), path))
        })
    }

    /// A run that need not be the caller's own.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a run that there is not, or that the caller may not see.
    pub fn training_run_in(&self, run_id: &str, access_scope: AccessScope) -> Asked<'_, TrainingRun> {
        self.json(|| {
            let operation = format!("training_run of run {run_id}");
            let mut path = format!("/api/v1/training_runs/{}", segment(&operation, run_id)?);
            put_scope(&mut path, access_scope);
            Ok(Call::get(operation, path))
        })
    }

    /// Session ids that need not be the caller's own.
    pub fn list_sessions_in(
        &self,
        limit: u64,
        offset: u64,
        access_scope: AccessScope,
    ) -> Asked<'_, ListSessionsResponse> {
        self.json(|| {
            let mut path = format!("/api/v1/sessions?limit={limit}&offset={offset}");
            put_scope(&mut path, access_scope);
            Ok(Call::get("list_sessions", path))
        })
    }

    /// One run.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a run that there is not, or not as the caller's own.
    pub fn training_run(&self, run_id: &str) -> Asked<'_, TrainingRun> {
        self.training_run_in(run_id, AccessScope::Owned)
    }

    /// A run's metric series after a step, at most `limit` points (the embedded service gives at most 10,000). Beyond the
    /// protocol: only the embedded service has it.
    ///
    /// # Errors
    /// [`Error::is_unsupported`] of every other service; [`ErrorKind::Refused`] with 404 for a run that there is not.
    pub fn run_series(&self, run_id: &str, after: Option<u64>, limit: u64) -> Asked<'_, Series> {
        self.json(|| {
            let operation = format!("metrics of run {run_id}");
            let mut path = format!("/retinker/local/v1/runs/{}/metrics", segment(&operation, run_id)?);
            put_query(&mut path, "after", after.map(|after| after.to_string()).as_deref());
            put_query(&mut path, "limit", Some(&limit.to_string()));
            Ok(Call::get(operation, path))
        })
    }

    /// What happened to a run. Beyond the protocol: only the embedded service has it.
    ///
    /// # Errors
    /// [`Error::is_unsupported`] of every other service; [`ErrorKind::Refused`] with 404 for a run that there is not.
    pub fn run_story(&self, run_id: &str) -> Asked<'_, RunStory> {
        self.json(|| {
            let operation = format!("the story of run {run_id}");
            let path = format!("/retinker/local/v1/runs/{}", segment(&operation, run_id)?);
            Ok(Call::get(operation, path))
        })
    }

    /// The checkpoints of a run.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a run that there is not.
    pub fn run_checkpoints(&self, run_id: &str) -> Asked<'_, CheckpointsResponse> {
        self.json(|| {
            let operation = format!("checkpoints of run {run_id}");
            let path = format!("/api/v1/training_runs/{}/checkpoints", segment(&operation, run_id)?);
            Ok(Call::get(operation, path))
        })
    }

    /// Lets a checkpoint live for so many seconds from now, or for ever. `checkpoint_id` is `<segment>/<name>`.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a checkpoint that there is not, 400 or 422 for a time that the server does not
    /// grant (the hosted service documents an hour to ten years).
    pub fn set_checkpoint_ttl(
        &self,
        run_id: &str,
        checkpoint_id: &str,
        ttl_seconds: Option<u64>,
    ) -> Asked<'_, ()> {
        self.done(|| {
            let operation = format!("set_checkpoint_ttl of {checkpoint_id} of run {run_id}");
            let path = format!("{}/ttl", checkpoint(&operation, run_id, checkpoint_id)?);
            Call::with_body(operation, Method::Put, path, &SetTtlRequest { ttl_seconds })
        })
    }

    /// One page of the checkpoints of all of the caller's runs, newest first. `limit` is 100 in the SDK.
    pub fn user_checkpoints(&self, limit: u64, offset: u64) -> Asked<'_, CheckpointsResponse> {
        self.json(|| {
            let path = format!("/api/v1/checkpoints?limit={limit}&offset={offset}");
            Ok(Call::get(format!("checkpoints from {offset} on"), path))
        })
    }

    /// Lets everybody use a checkpoint, or takes that back. `checkpoint_id` is `<segment>/<name>`.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a checkpoint that there is not, 409 if it is public, or not public, already.
    pub fn set_checkpoint_public(&self, run_id: &str, checkpoint_id: &str, public: bool) -> Asked<'_, ()> {
        self.done(|| {
            let name = if public { "publish" } else { "unpublish" };
            let operation = format!("{name} of {checkpoint_id} of run {run_id}");
            let path = format!("{}/publish", checkpoint(&operation, run_id, checkpoint_id)?);
            let call = if public {
                Call::post(operation, path, &serde_json::Map::new())?
            } else {
                Call::delete(operation, path)
            };
            Ok(call)
        })
    }

    /// Where the files of an external checkpoint can be had for a while. The addresses are secrets.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a checkpoint that there is not, 400 for one that is not external.
    pub fn external_weights_urls(&self, run_id: &str, checkpoint_id: &str) -> Asked<'_, ExternalWeightsUrls> {
        self.json(|| {
            let operation = format!("external_weights_urls of {checkpoint_id} of run {run_id}");
            let path = format!("{}/external_weights_urls", checkpoint(&operation, run_id, checkpoint_id)?);
            Ok(Call::get(operation, path))
        })
    }

    /// Where an archive of a checkpoint's files can be had for a while. The address is a secret.
    ///
    /// SkyRL has archives of sampler checkpoints only, and knows those by their bare names; where `sampler_weights/<name>`
    /// is no endpoint, the name is asked for.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a checkpoint that there is not, 503 while its archive is being made, for
    /// longer than is tried again; [`ErrorKind::Undecodable`] if the server says that it has one, and not where.
    pub async fn checkpoint_archive_address(
        &self,
        run_id: &str,
        checkpoint_id: &str,
    ) -> Result<Secret, Error> {
        let error = match self.archive_address(run_id, checkpoint_id).await {
            Err(error) if error.is_unsupported() => error,
            done => return done,
        };
        // Of another kind the bare name would be another checkpoint's.
        let Some(name) = checkpoint_id.strip_prefix("sampler_weights/") else { return Err(error) };
        match self.archive_address(run_id, name).await {
            Err(other) if other.is_unsupported() => Err(error),
            done => done,
        }
    }

    async fn archive_address(&self, run_id: &str, checkpoint_id: &str) -> Result<Secret, Error> {
        let operation = format!("archive of {checkpoint_id} of run {run_id}");
        let path = format!("{}/archive", checkpoint(&operation, run_id, checkpoint_id)?);
        let call = Call::get(operation, path);
        let answer = self.caller.redirection(&call, &self.retry).await?;
        // Older servers answer with the address instead of sending there.
        #[derive(serde::Deserialize)]
        struct Addressed {
            url: String,
        }
        match answer.header("location").filter(|_| (300..400).contains(&answer.status)) {
            Some(address) => Ok(Secret::new(address)),
            None if answer.is_success() => match json::read(&answer.body) {
                Ok(Addressed { url }) => Ok(Secret::new(url)),
                // What it says may be a secret.
                Err(_) => Err(Error::unreadable(&call.operation, "url", "the answer holds no address")),
            },
            None => Err(answer.refusal(&call.operation, None)),
        }
    }

    /// Copies a checkpoint into a run of its own, which cannot be trained. The token of weights that are not the
    /// caller's, if there is one, is sent as a header and appears nowhere else.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a checkpoint that there is not, 403 or 404 for one of somebody else without
    /// leave, 400 or 422 for a path of another form, or for a lifetime or a project that the server does not grant.
    pub fn copy_weights(
        &self,
        request: &CopyWeightsRequest,
        weights_access_token: Option<&Secret>,
    ) -> Asked<'_, CopyWeightsResponse> {
        self.json(|| {
            let operation = format!("copy_weights of {}", request.source_path);
            let mut call = Call::post(operation, "/api/v1/copy_weights", request)?;
            if let Some(token) = weights_access_token {
                call.headers.push(("x-tinker-weights-access-token".into(), token.expose().to_owned()));
            }
            Ok(call)
        })
    }

    // -- the account --------------------------------------------------------------------------------------------

    /// The token that says who the credential belongs to: the credential itself, or what it is exchanged for.
    pub(crate) async fn identity(&self, operation: &str) -> Result<Secret, Error> {
        self.caller.identity(operation).await
    }

    /// What was done with the organization's things on one day (`YYYY-MM-DD`; `None` = today).
    ///
    /// The service keeps it elsewhere and says where; that is asked without the API key. Browsers do not show a program where
    /// a redirect leads, so there it cannot be had from such a service.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 403 if the caller may not read it, 400 or 422 for a day that is none; those of
    /// [`Download::open`] where it is kept elsewhere; [`ErrorKind::Config`] if it is longer than 256 MiB.
    pub async fn audit_log(
        &self,
        event_type: &AuditEventType,
        day: Option<&str>,
    ) -> Result<AuditLogResponse, Error> {
        let mut path = "/api/v1/audit".to_owned();
        put_query(&mut path, "event_type", Some(event_type.as_str()));
        put_query(&mut path, "day", day);
        let call = Call::get("audit_log", path);
        let answer = self.caller.redirection(&call, &self.retry).await?;
        let Some(address) = answer.header("location") else { return decode(&call.operation, &answer) };
        let mut file = Download::open(self, "the audit log", &Secret::new(address), 0).await?;
        let body = file.whole(MAX_AUDIT_LOG).await?;
        decode(&call.operation, &Answer { status: 200, headers: Vec::new(), body })
    }

    /// Usage between two full hours, at most 14 days apart.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 403 if the caller may not see it, 400 or 422 for times that are not full hours (UTC),
    /// further apart, or in the future.
    pub fn billing_usage(&self, starting_on: Time, ending_before: Time) -> Asked<'_, BillingUsageResponse> {
        self.json(|| {
            let mut path = "/api/v1/billing/usage/events".to_owned();
            put_query(&mut path, "starting_on", Some(&starting_on.to_string()));
            put_query(&mut path, "ending_before", Some(&ending_before.to_string()));
            Ok(Call::get("billing_usage", path))
        })
    }

    /// What checkpoints take now, in all or of one project: bytes, and what they cost.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 403 if the caller may not see it.
    pub fn checkpoint_storage_usage(
        &self,
        project_id: Option<&str>,
    ) -> Asked<'_, CheckpointStorageUsageResponse> {
        self.json(|| {
            let mut path = "/api/v1/billing/usage/checkpoints/current".to_owned();
            put_query(&mut path, "project_id", project_id);
            Ok(Call::get("checkpoint_storage_usage", path))
        })
    }

    /// Begins the export of a session's trace, or tells how it stands.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a session that the server does not know. That the trace could not be built is an
    /// answer: [`TraceExport::Failed`].
    pub fn session_trace_export(&self, session_id: &str) -> Asked<'_, TraceExport> {
        self.json(|| {
            let operation = format!("trace_export of session {session_id}");
            let path = format!("/api/v1/sessions/{}/trace_export", segment(&operation, session_id)?);
            Ok(Call::get(operation, path))
        })
    }

    /// One page of the sessions that fit.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] for a project that the caller may not list; with 400 or 422 for a `limit` that is not from
    /// 1 to 200, or for an empty name.
    pub fn search_sessions(&self, request: &SessionSearchRequest) -> Asked<'_, SessionSearchResponse> {
        self.json(|| Call::post("search_sessions", "/api/v1/sessions/search", request))
    }

    /// Moves a session into a project.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 400, 403 or 404 for a session or a project that there is not, or not for the caller.
    pub fn set_session_project(&self, session_id: &str, project_id: &str) -> Asked<'_, ()> {
        self.done(|| {
            let operation = format!("set_session_project of session {session_id}");
            let path = format!("/api/v1/sessions/{}/project", segment(&operation, session_id)?);
            let body = SetProjectRequest { project_id: project_id.to_owned() };
            Call::with_body(operation, Method::Put, path, &body)
        })
    }

    /// Deletes a checkpoint, for good. `checkpoint_id` is `<segment>/<name>`.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with 404 for a checkpoint that there is not, or not any more: after an attempt that broke
    /// off, perhaps deleted by that one. With 425 while it is being saved.
    pub fn delete_checkpoint(&self, run_id: &str, checkpoint_id: &str) -> Asked<'_, ()> {
        self.done(|| {
            let operation = format!("delete_checkpoint of {checkpoint_id} of run {run_id}");
            let path = checkpoint(&operation, run_id, checkpoint_id)?;
            Ok(Call::delete(operation, path))
        })
    }

    /// A file of one of the service's models, such as its tokenizer, as a hub of models gives it. Of the embedded service.
    /// At most 64 MiB.
    pub async fn model_file(&self, base_model: &str, file: &str) -> Result<bytes::Bytes, Error> {
        let mut call =
            Call::get(format!("{file} of {base_model}"), format!("/{base_model}/resolve/main/{file}"));
        call.longest = MAX_MODEL_FILE;
        self.answer(&call).await.map(|answer| answer.body)
    }

    /// Tells how the client fares; one attempt takes 5 s at most. [`Telemetry`] makes the batches.
    ///
    /// # Errors
    /// [`Error::is_unsupported`] of a server that does not want to hear of it; [`ErrorKind::TimedOut`] after 5 s.
    pub async fn send_telemetry(&self, batch: &TelemetrySendRequest) -> Result<(), Error> {
        let mut call = Call::post("telemetry", "/api/v1/telemetry", batch)?;
        call.timeout = TELEMETRY_TIMEOUT;
        self.answer(&call).await.map(drop)
    }

    // -- how ----------------------------------------------------------------------------------------------------

    pub(crate) fn json<T: DeserializeOwned>(
        &self,
        call: impl FnOnce() -> Result<Call, Error>,
    ) -> Asked<'_, T> {
        Asked::new(self, call())
    }

    /// Sends what is answered with nothing of interest. A page, or half of an answer, is no yes: something else may stand at the
    /// address. Empty ones are, and whatever words a server finds.
    fn done(&self, call: impl FnOnce() -> Result<Call, Error>) -> Asked<'_, ()> {
        Asked::nothing(self, call())
    }

    pub(crate) async fn answer(&self, call: &Call) -> Result<Answer, Error> {
        self.caller.call(call, &self.retry).await
    }

    /// Sends a submission; resolves to its request id once the server has accepted it.
    pub(crate) async fn accept(&self, call: &Call) -> Result<String, Error> {
        let answer = self.answer(call).await?;
        decode::<UntypedApiFuture>(&call.operation, &answer).map(|future| future.request_id)
    }

    async fn submit<T: FutureResult>(&self, call: Call) -> Result<Pending<T>, Error> {
        let request_id = self.accept(&call).await?;
        Ok(self.pending(call.operation, request_id))
    }
}

pub(crate) fn forward_backward_call(
    model_id: &str,
    seq_id: u64,
    batch: Batch,
    forward_only: bool,
) -> Result<Call, Error> {
    let name = if forward_only { "forward" } else { "forward_backward" };
    let mut call = sequenced(Call::post(
        format!("{name} (request {seq_id}) of run {model_id}"),
        "/api/v1/forward_backward",
        &(),
    )?);
    let number = i32::try_from(seq_id).map_err(|_| {
        Error::config(&call.operation, "the protocol's numbers end at 2147483647: go on in a new run")
    })?;
    call.body = batch.placed(model_id, number);
    call.content_type = PROTOBUF;
    Ok(call)
}

pub(crate) fn optim_step_call(request: &OptimStepRequest) -> Result<Call, Error> {
    let number = number(request.seq_id);
    let operation = format!("optim_step (request {number}) of run {}", request.model_id);
    Call::post(operation, "/api/v1/optim_step", request).map(sequenced)
}

pub(crate) fn save_weights_call(request: &SaveWeightsRequest) -> Result<Call, Error> {
    let operation =
        format!("save_weights '{}' (request {}) of run {}", request.path, request.seq_id, request.model_id);
    Call::post(operation, "/api/v1/save_weights", request).map(sequenced)
}

pub(crate) fn save_weights_external_call(request: &SaveWeightsExternalRequest) -> Result<Call, Error> {
    let number = number(request.seq_id);
    let operation =
        format!("save_weights_external '{}' (request {number}) of run {}", request.path, request.model_id);
    Call::post(operation, "/api/v1/save_weights_external", request).map(sequenced)
}

pub(crate) fn save_weights_for_sampler_call(request: &SaveWeightsForSamplerRequest) -> Result<Call, Error> {
    let number = number(request.seq_id);
    let name = request.path.as_deref().map_or_else(String::new, |name| format!(" '{name}'"));
    let operation = format!("save_weights_for_sampler{name} (request {number}) of run {}", request.model_id);
    Call::post(operation, "/api/v1/save_weights_for_sampler", request).map(sequenced)
}

pub(crate) fn asample_call<P: serde::Serialize>(request: &AsampleRequest<P>) -> Result<Call, Error> {
    let sampler = request.sampling_session_id.as_deref().or(request.model_path.as_deref());
    let operation = format!("sample of sampler {}", sampler.unwrap_or("that is not named"));
    let mut call = Call::post(operation, "/api/v1/asample", request).map(sequenced)?;
    call.yields_when_limited = true;
    call.headers = vec![("x-tinker-sampling-backpressure".into(), "1".to_owned())];
    Ok(call)
}

pub(crate) fn load_weights_call(request: &LoadWeightsRequest) -> Result<Call, Error> {
    let into = match (&request.model_id, &request.session_id) {
        (Some(model_id), _) => format!("run {model_id}"),
        (None, Some(session_id)) => format!("a new run of session {session_id}"),
        (None, None) => {
            return Err(Error::config(
                format!("load_weights of {}", request.path),
                "give either model_id and seq_id, or session_id and model_seq_id",
            ));
        }
    };
    let operation = format!("load_weights of {} into {into}", request.path);
    Call::post(operation, "/api/v1/load_weights", request).map(sequenced)
}

/// A request's number, for errors.
fn number(seq_id: Option<u64>) -> String {
    seq_id.map_or_else(|| "unnumbered".to_owned(), |number| number.to_string())
}

fn sequenced(mut call: Call) -> Call {
    call.waits_for_billing = true;
    call
}

/// Adds a member to a query, escaped.
fn put_query(path: &mut String, name: &str, value: Option<&str>) {
    let Some(value) = value else { return };
    path.push(if path.contains('?') { '&' } else { '?' });
    path.push_str(name);
    path.push('=');
    path.extend(form_urlencoded::byte_serialize(value.as_bytes()));
}

/// The caller's own is what a server takes when nothing is said, and what older ones know.
fn put_scope(path: &mut String, access_scope: AccessScope) {
    put_query(path, "access_scope", (access_scope == AccessScope::Accessible).then_some("accessible"));
}

/// Ids go into paths as they are (they hold `:`); what would change the path's meaning is refused.
fn segment<'a>(operation: &str, id: &'a str) -> Result<&'a str, Error> {
    let odd = |c: char| c.is_control() || c.is_whitespace() || "/?#\\%".contains(c);
    if id.is_empty() || id == "." || id == ".." || id.contains(odd) {
        return Err(Error::config(
            operation.escape_debug().to_string(),
            "that is not an id: ids are not empty and hold no blank and none of / ? # \\ %",
        ));
    }
    Ok(id)
}

fn checkpoint(operation: &str, run_id: &str, checkpoint_id: &str) -> Result<String, Error> {
    let run = segment(operation, run_id)?;
    for part in checkpoint_id.split('/') {
        segment(operation, part)?;
    }
    Ok(format!("/api/v1/training_runs/{run}/checkpoints/{checkpoint_id}"))
}

fn checked_base_url(text: &str) -> Result<String, Error> {
    let trimmed = text.trim_end_matches('/');
    let fail = |message: &str| Err(Error::config("the service's address", message));
    let rest = match (trimmed.strip_prefix("http://"), trimmed.strip_prefix("https://")) {
        (Some(rest), _) | (_, Some(rest)) => rest,
        _ => {
            return fail("it must start with http:// or https://, e.g. http://127.0.0.1:8000");
        }
    };
    let authority = rest.split('/').next().unwrap_or_default();
    // What was given is not repeated below: it may hold a password or a token.
    if authority.contains('@') {
        return fail("it holds a user name or password; give the API key apart from the address");
    }
    if rest.contains(['?', '#']) {
        return fail(
            "it holds a query or a fragment; requests append their paths to it, so it must end in a path",
        );
    }
    if authority.is_empty() || rest.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return fail("it has no host, or holds a blank");
    }
    Ok(trimmed.to_owned())
}
