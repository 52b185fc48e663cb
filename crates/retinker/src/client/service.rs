//! Where a program begins: a session, and the training clients made in it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::lock::Mutex;
use retinker_wire::UserMetadata;
use retinker_wire::capabilities::ServerCapabilities;
use retinker_wire::model::{
    CreateModelRequest, LoadWeightsRequest, LoraConfig, OptimizerConfig, adamw, create_model_type,
    load_weights_type, metadata_value, model_id_of,
};
use retinker_wire::session::{CreateSessionRequest, FinishReason};
use retinker_wire::training::{
    CreateCustomLossRequest, CreateCustomLossResult, CustomLossInput, create_custom_loss_type,
};
use serde::Deserialize;

use super::api::{Api, SDK_VERSION};
use super::console_url;
use super::error::Error;
use super::pending::Pending;
use super::rest::RestClient;
use super::sampling::{SamplingClient, SamplingSource};
use super::secret::Secret;
use super::session::{Session, ask};
use super::telemetry::Telemetry;
use super::training::{LoadOptions, TrainingClient};

/// What a session is opened with.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct SessionOptions {
    /// Labels.
    pub tags: Vec<String>,
    /// Labels with values.
    pub user_metadata: UserMetadata,
    /// The project that the session belongs to.
    pub project_id: Option<String>,
    /// A name for people.
    pub display_name: Option<String>,
    /// Whether the service is told how the session and its clients fare, by [`Telemetry`]; `false`. The official SDK does so
    /// unless the environment's `TINKER_TELEMETRY` says no, which a program here asks for itself
    /// (`retinker::native::session_options`). A [`RestClient`] belongs to no session: see [`Api::with_telemetry`].
    pub telemetry: bool,
}

/// What a run is made with, beside its adapter or checkpoint.
#[derive(Debug, Clone, Default)]
pub struct TrainingOptions {
    /// The run's labels.
    pub user_metadata: Option<UserMetadata>,
    /// What it is trained with: [`adamw`], [`dimuon`](retinker_wire::model::dimuon); `None` = AdamW. With the optimizer's
    /// state of a checkpoint it is the checkpoint's, and cannot be chosen.
    pub optimizer_config: Option<OptimizerConfig>,
    /// Another base model that the checkpoint fits, e.g. one with a longer context; `None` = the checkpoint's own.
    pub base_model: Option<String>,
    /// Leave to load another account's checkpoint.
    pub weights_access_token: Option<Secret>,
}

impl From<UserMetadata> for TrainingOptions {
    fn from(labels: UserMetadata) -> Self {
        Self { user_metadata: Some(labels), ..Self::default() }
    }
}

/// Makes training and sampling clients. Opens its session when it is first needed, and keeps it alive until the last clone and
/// the last client made by it are gone, or until [`finish`](Self::finish).
///
/// # Errors
///
/// Methods give what [every call can give](Error#what-every-call-can-give), and what they say themselves. Those that need
/// the session open it: they give what keeps it from that, such as [`ErrorKind::Refused`](super::ErrorKind::Refused) for
/// a project that is not the caller's, and [`ErrorKind::Config`](super::ErrorKind::Config) once the session was finished.
/// One that could not be opened is tried again by the next that needs it.
#[derive(Clone)]
pub struct ServiceClient {
    inner: Arc<Inner>,
}

struct Inner {
    api: Api,
    options: SessionOptions,
    session: Mutex<State>,
    next_model: AtomicU64,
    next_custom_loss: AtomicU64,
}

enum State {
    None,
    Open(Open),
    Finished(String),
}

/// A session, and how it is talked to.
#[derive(Clone)]
struct Open {
    session: Arc<Session>,
    /// The service; its failures are told if there is telemetry.
    api: Api,
    telemetry: Option<Telemetry>,
}

impl fmt::Debug for ServiceClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceClient").field("base_url", &self.inner.api.base_url()).finish_non_exhaustive()
    }
}

impl ServiceClient {
    /// A client of this service. Sends nothing.
    pub fn new(api: Api) -> Self {
        Self::with_options(api, SessionOptions::default())
    }

    /// The same, with labels for its session.
    pub fn with_options(api: Api, options: SessionOptions) -> Self {
        let session = Mutex::new(State::None);
        let (next_model, next_custom_loss) = (AtomicU64::new(0), AtomicU64::new(0));
        let inner = Inner { api, options, session, next_model, next_custom_loss };
        Self { inner: Arc::new(inner) }
    }

    /// The endpoints.
    pub fn api(&self) -> &Api {
        &self.inner.api
    }

    /// A client for what is on the server.
    pub fn create_rest_client(&self) -> RestClient {
        RestClient::new(self.inner.api.clone())
    }

    /// The base models that the server offers, with the most tokens of a context where it says so.
    pub async fn get_server_capabilities(&self) -> Result<ServerCapabilities, Error> {
        self.inner.api.capabilities().await
    }

    /// The session's id; opens the session if there is none yet.
    pub async fn session_id(&self) -> Result<String, Error> {
        Ok(self.open().await?.session.id.clone())
    }

    /// Makes a run and a client that trains it. Without a seed in the config one is drawn and sent, so that the
    /// run's initial weights are known from its requests. Resolves when the run is there.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](super::ErrorKind::Config) if nothing of the model is to be trained.
    /// [`ErrorKind::Refused`](super::ErrorKind::Refused) with 400 or 422, or
    /// [`ErrorKind::Failed`](super::ErrorKind::Failed) of category `User`, for a base model, an adapter or an optimizer
    /// that the server does not offer.
    pub async fn create_lora_training_client(
        &self,
        base_model: &str,
        lora_config: LoraConfig,
        options: impl Into<TrainingOptions>,
    ) -> Result<TrainingClient, Error> {
        if !(lora_config.train_mlp || lora_config.train_attn || lora_config.train_unembed) {
            return Err(Error::config(
                format!("create_model on {base_model}"),
                "nothing of it is to be trained: set at least one of train_mlp, train_attn and train_unembed",
            ));
        }
        let open = self.open().await?;
        let number = self.inner.next_model.fetch_add(1, Ordering::Relaxed);
        let options = options.into();
        let made = open.create_model(number, base_model, lora_config, &options).await;
        Ok(open.training_client(open.api.noted(made)?))
    }

    /// Makes a run that starts from a checkpoint's weights, with a cold optimizer. `path` is a training checkpoint's,
    /// `tinker://<run>/weights/<name>`. Resolves when it is loaded.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`](super::ErrorKind::Refused) with 400 for a path of another form, 404 for a checkpoint that
    /// there is not, 403 or 404 for one of somebody else without leave, 425 while it is being saved;
    /// [`ErrorKind::Failed`](super::ErrorKind::Failed) if it could not be loaded, e.g. on a base model that it does not
    /// fit.
    pub async fn create_training_client_from_state(
        &self,
        path: &str,
        options: impl Into<TrainingOptions>,
    ) -> Result<TrainingClient, Error> {
        self.go_on_from(path, false, options.into()).await
    }

    /// Makes a run that goes on from a checkpoint: weights and optimizer state.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](super::ErrorKind::Config) if the options name an optimizer: it is the checkpoint's.
    /// Otherwise as of [`create_training_client_from_state`](Self::create_training_client_from_state).
    pub async fn create_training_client_from_state_with_optimizer(
        &self,
        path: &str,
        options: impl Into<TrainingOptions>,
    ) -> Result<TrainingClient, Error> {
        self.go_on_from(path, true, options.into()).await
    }

    /// Makes a sampler and a client of it.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`](super::ErrorKind::Refused) with 400 for a base model that the server does not offer or a
    /// path that is none of a checkpoint for samplers, 404 for one that there is not, 425 while it is being saved.
    pub async fn create_sampling_client(&self, source: SamplingSource) -> Result<SamplingClient, Error> {
        let Open { session, api, .. } = self.open().await?;
        let made = SamplingClient::create(&api, session, source).await;
        api.noted(made)
    }

    /// Gives the session a loss of the program's own, as a graph that the server computes: what `torch.fx` traces of a
    /// function, as JSON. Passes of the session's runs then name `custom` as their loss, with the result's `loss_id` in their
    /// settings. A loss in Rust needs none of this: see
    /// [`forward_backward_custom`](TrainingClient::forward_backward_custom).
    ///
    /// # Errors
    /// [`ErrorKind::Config`](super::ErrorKind::Config) where the server does not say that it computes such losses. The
    /// result is [`ErrorKind::Failed`](super::ErrorKind::Failed) for a graph that it cannot compute.
    pub async fn create_custom_loss(
        &self,
        name: &str,
        inputs: Vec<CustomLossInput>,
        graph: serde_json::Value,
    ) -> Result<Pending<CreateCustomLossResult>, Error> {
        let Open { session, api, .. } = self.open().await?;
        if !session.settings(&api).await.config.custom_loss_server_side {
            return Err(Error::config(
                format!("create_custom_loss of '{name}'"),
                "this server computes no losses of programs: use forward_backward_custom, which computes it here",
            ));
        }
        let request = CreateCustomLossRequest {
            session_id: session.id.clone(),
            custom_loss_seq_id: self.inner.next_custom_loss.fetch_add(1, Ordering::Relaxed),
            name: name.to_owned(),
            inputs,
            graph,
            kind: create_custom_loss_type(),
        };
        api.noted(api.create_custom_loss(&request).await)
    }

    /// Copies a checkpoint into a run of its own in this client's project; that run cannot be trained. Gives the copy's
    /// path. The copy lives for `ttl_seconds`; `None` = for ever.
    ///
    /// # Errors
    /// As of [`RestClient::copy_weights`]. Opens no session.
    pub async fn copy_weights(
        &self,
        path: &str,
        ttl_seconds: Option<u64>,
        weights_access_token: Option<&Secret>,
    ) -> Result<String, Error> {
        let project = self.inner.options.project_id.as_deref();
        self.create_rest_client().copy_weights(path, project, ttl_seconds, weights_access_token).await
    }

    /// The session's page in the console of the hosted service; opens the session if there is none yet.
    pub async fn get_console_url(&self) -> Result<String, Error> {
        Ok(console_url::of_session(&self.open().await?.session.id))
    }

    /// The session's telemetry; `None` if it was not asked for, or no session is open.
    pub async fn get_telemetry(&self) -> Option<Telemetry> {
        match &*self.inner.session.lock().await {
            State::Open(open) => open.telemetry.clone(),
            State::None | State::Finished(_) => None,
        }
    }

    /// Ends the session and stops its heartbeat; waits until telemetry, if there is any, is sent, 30 s at most. Does
    /// nothing if none was opened. The client makes no training clients afterwards. A server without this endpoint lets
    /// the session end by itself, which is no error, nor is telemetry that is not sent.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`](super::ErrorKind::Refused) with 404 if the server does not know the session any more. After
    /// an error the session goes on, and can be finished again.
    pub async fn finish(&self, reason: FinishReason, detail: Option<String>) -> Result<(), Error> {
        let mut state = self.inner.session.lock().await;
        let State::Open(Open { session, api, telemetry }) = &*state else { return Ok(()) };
        let (id, telemetry) = (session.id.clone(), telemetry.clone());
        match api.finish_session(&id, reason, detail).await {
            Ok(()) => {}
            Err(error) if error.is_unsupported() => {
                tracing::debug!(session_id = id, "the server has no way to finish a session");
            }
            Err(error) => return api.noted(Err(error)),
        }
        *state = State::Finished(id);
        drop(state);
        if let Some(telemetry) = telemetry {
            telemetry.end().await;
        }
        Ok(())
    }

    async fn open(&self) -> Result<Open, Error> {
        let mut state = self.inner.session.lock().await;
        match &*state {
            State::Open(open) => return Ok(open.clone()),
            State::Finished(id) => {
                return Err(Error::config(
                    format!("session {id}"),
                    "it was finished by this client; make a new ServiceClient",
                ));
            }
            State::None => {}
        }
        let (config, dynamic) = ask(&self.inner.api).await?;
        let options = &self.inner.options;
        let request = CreateSessionRequest {
            tags: options.tags.clone(),
            user_metadata: metadata_value(&options.user_metadata),
            sdk_version: SDK_VERSION.to_owned(),
            project_id: options.project_id.clone(),
            display_name: options.display_name.clone(),
            kind: "create_session".to_owned(),
        };
        let answer = self.inner.api.create_session(&request).await?;
        let id = answer.session_id;
        if let Some(message) = answer.info_message {
            tracing::info!(session_id = id, "{message}");
        }
        if let Some(message) = answer.warning_message {
            tracing::warn!(session_id = id, "{message}");
        }
        if let Some(message) = answer.error_message {
            tracing::error!(session_id = id, "{message}");
        }
        let telemetry = options.telemetry.then(|| Telemetry::of_session(&self.inner.api, &id));
        let api = match &telemetry {
            Some(telemetry) => self.inner.api.clone().with_telemetry(telemetry),
            None => self.inner.api.clone(),
        };
        let session = Arc::new(Session::opened(&api, id, config, dynamic));
        let open = Open { session, api, telemetry };
        *state = State::Open(open.clone());
        Ok(open)
    }

    async fn go_on_from(
        &self,
        path: &str,
        optimizer: bool,
        options: TrainingOptions,
    ) -> Result<TrainingClient, Error> {
        if optimizer && options.optimizer_config.is_some() {
            return Err(Error::config(
                format!("load_weights of {path} with its optimizer's state"),
                "the optimizer is the checkpoint's: leave optimizer_config out",
            ));
        }
        let open = self.open().await?;
        let number = self.inner.next_model.fetch_add(1, Ordering::Relaxed);
        let made = open.go_on_from(number, path, optimizer, options).await;
        open.api.noted(made)
    }
}

/// Where a new run is to be: a session, and a number in it.
pub(crate) struct Place {
    open: Open,
    number: u64,
}

impl ServiceClient {
    /// A place that no run has, in this client's session, or in a new one if that is over.
    pub(crate) async fn place(&self) -> Result<Place, Error> {
        {
            let mut state = self.inner.session.lock().await;
            if matches!(&*state, State::Open(open) if open.session.is_over()) {
                *state = State::None;
            }
        }
        let open = self.open().await?;
        Ok(Place { open, number: self.inner.next_model.fetch_add(1, Ordering::Relaxed) })
    }

    /// Opens another session when one is next needed, if this is the one that is open: it is not there any more.
    pub(crate) async fn forget_session(&self, session_id: &str) {
        let mut state = self.inner.session.lock().await;
        if matches!(&*state, State::Open(open) if open.session.id == session_id) {
            *state = State::None;
        }
    }

    /// One that another program has chosen.
    pub(crate) fn place_of(&self, session_id: &str, number: u64) -> Place {
        let api = self.inner.api.clone();
        let session = Arc::new(Session::adopted(&api, session_id.to_owned()));
        Place { open: Open { session, api, telemetry: None }, number }
    }
}

impl Place {
    pub(crate) fn session_id(&self) -> &str {
        &self.open.session.id
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Makes the run there, from a checkpoint with its optimizer's state. Asked again, finds the same run, where the service
    /// tells runs apart by their places.
    pub(crate) async fn make_from(&self, path: &str, labels: UserMetadata) -> Result<TrainingClient, Error> {
        self.open.go_on_from(self.number, path, true, labels.into()).await
    }

    /// The same of a run from its beginning.
    pub(crate) async fn make(
        &self,
        base_model: &str,
        lora_config: LoraConfig,
        options: &TrainingOptions,
    ) -> Result<TrainingClient, Error> {
        let model_id = self.open.create_model(self.number, base_model, lora_config, options).await?;
        Ok(self.open.training_client(model_id))
    }
}

impl Open {
    /// A client of a run that nothing was asked of yet.
    fn training_client(&self, model_id: String) -> TrainingClient {
        TrainingClient::new(self.api.clone(), self.session.clone(), model_id, 1)
    }

    async fn create_model(
        &self,
        model_seq_id: u64,
        base_model: &str,
        mut lora_config: LoraConfig,
        options: &TrainingOptions,
    ) -> Result<String, Error> {
        // 31 bits: every server's and every language's integer takes them.
        lora_config.seed.get_or_insert_with(|| self.api.runtime().random() >> 33);
        let request = CreateModelRequest {
            session_id: self.session.id.clone(),
            model_seq_id,
            base_model: base_model.to_owned(),
            user_metadata: options.user_metadata.as_ref().map(metadata_value),
            lora_config: Some(lora_config),
            // Left out where it is the default: some servers refuse the member.
            optimizer_config: options.optimizer_config.clone().filter(|config| *config != adamw()),
            kind: create_model_type(),
        };
        Ok(self.api.create_model(&request).await?.await?.model_id)
    }

    async fn go_on_from(
        &self,
        number: u64,
        path: &str,
        optimizer: bool,
        options: TrainingOptions,
    ) -> Result<TrainingClient, Error> {
        let request = LoadWeightsRequest {
            session_id: Some(self.session.id.clone()),
            model_seq_id: Some(number),
            path: path.to_owned(),
            optimizer,
            base_model: options.base_model.clone(),
            user_metadata: options.user_metadata.as_ref().map(metadata_value),
            // Left out where it is the default, as by the official SDK: some servers refuse the member.
            optimizer_config: options.optimizer_config.clone().filter(|config| *config != adamw()),
            weights_access_token: options.weights_access_token.as_ref().map(|t| t.expose().to_owned()),
            kind: load_weights_type(),
            ..LoadWeightsRequest::default()
        };
        let refusal = match self.api.load_weights(&request).await {
            Ok(pending) => {
                let loaded = pending.await?;
                let model_id = loaded.model_id.unwrap_or_else(|| model_id_of(&self.session.id, number));
                let client = self.training_client(model_id);
                client.remember(path);
                return Ok(client);
            }
            Err(error) if error.is_unknown_form() => error,
            Err(error) => return Err(error),
        };
        // Servers that do not know this form of load_weights make the run first and load into it. Where that does
        // not help either, what the first form was refused for is what the caller needs to hear.
        let info = match self.api.weights_info(path).await {
            Ok(info) if !info.base_model.is_empty() => info,
            _ => return Err(refusal),
        };
        tracing::debug!(%refusal, "create-via-load was refused; making the run first");
        let default = LoraConfig::default();
        let lora = LoraConfig {
            rank: info.lora_rank.unwrap_or(default.rank),
            seed: None,
            train_unembed: info.train_unembed.unwrap_or(default.train_unembed),
            train_mlp: info.train_mlp.unwrap_or(default.train_mlp),
            train_attn: info.train_attn.unwrap_or(default.train_attn),
        };
        let base_model = options.base_model.as_ref().unwrap_or(&info.base_model);
        let mut options = options.clone();
        options.optimizer_config = options.optimizer_config.or(info.optimizer_config);
        let model_id = self.create_model(number, base_model, lora, &options).await?;
        let client = self.training_client(model_id);
        let weights_access_token = options.weights_access_token;
        client.load_state_with(path, LoadOptions { optimizer, weights_access_token }).await?;
        Ok(client)
    }
}
