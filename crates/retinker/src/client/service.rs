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

use super::api::{Api, SDK_VERSION};
use super::console_url;
use super::error::Error;
use super::pending::Pending;
use super::rest::RestClient;
use super::sampling::{SamplingClient, SamplingSource};
use super::secret::Secret;
use super::session::{Session, ask};
use super::training::{LoadOptions, TrainingClient};

/// What a session is opened with.
#[derive(Debug, Clone, Default)]
pub struct SessionOptions {
    /// Labels.
    pub tags: Vec<String>,
    /// Labels with values.
    pub user_metadata: UserMetadata,
    /// The project that the session belongs to.
    pub project_id: Option<String>,
    /// A name for people.
    pub display_name: Option<String>,
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
    Open(Arc<Session>),
    Finished(String),
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

    /// The base models that the server offers.
    pub async fn get_server_capabilities(&self) -> Result<ServerCapabilities, Error> {
        self.inner.api.capabilities().await
    }

    /// The session's id; opens the session if there is none yet.
    pub async fn session_id(&self) -> Result<String, Error> {
        Ok(self.session().await?.id.clone())
    }

    /// Makes a run and a client that trains it. Without a seed in the config one is drawn and sent, so that the
    /// run's initial weights are known from its requests.
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
        let session = self.session().await?;
        let number = self.inner.next_model.fetch_add(1, Ordering::Relaxed);
        let options = options.into();
        let model_id = self.create_model(&session, number, base_model, lora_config, &options).await?;
        Ok(self.training_client(session, model_id, 1))
    }

    /// Makes a run that starts from a checkpoint's weights, with a cold optimizer.
    pub async fn create_training_client_from_state(
        &self,
        path: &str,
        options: impl Into<TrainingOptions>,
    ) -> Result<TrainingClient, Error> {
        self.go_on_from(path, false, options.into()).await
    }

    /// Makes a run that goes on from a checkpoint: weights and optimizer state.
    pub async fn create_training_client_from_state_with_optimizer(
        &self,
        path: &str,
        options: impl Into<TrainingOptions>,
    ) -> Result<TrainingClient, Error> {
        self.go_on_from(path, true, options.into()).await
    }

    /// Makes a sampler and a client of it.
    pub async fn create_sampling_client(&self, source: SamplingSource) -> Result<SamplingClient, Error> {
        let session = self.session().await?;
        SamplingClient::create(&self.inner.api, session, source).await
    }

    /// Gives the session a loss of the program's own, as a graph that the server computes: what `torch.fx` traces of a
    /// function, as JSON. Passes of the session's runs then name `custom` as their loss, with the result's `loss_id` in their
    /// settings. A loss in Rust needs none of this: see
    /// [`forward_backward_custom`](TrainingClient::forward_backward_custom).
    ///
    /// # Errors
    /// [`ErrorKind::Config`](super::ErrorKind::Config) where the server does not say that it computes such losses.
    pub async fn create_custom_loss(
        &self,
        name: &str,
        inputs: Vec<CustomLossInput>,
        graph: serde_json::Value,
    ) -> Result<Pending<CreateCustomLossResult>, Error> {
        let session = self.session().await?;
        if !session.settings(&self.inner.api).await.config.custom_loss_server_side {
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
        self.inner.api.create_custom_loss(&request).await
    }

    /// Copies a checkpoint into a run of its own in this client's project; that run cannot be trained. Gives the copy's
    /// path. The copy lives for `ttl_seconds`; `None` = for ever.
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
        Ok(console_url::of_session(&self.session().await?.id))
    }

    /// Ends the session and stops its heartbeat. Does nothing if none was opened. The client makes no training
    /// clients afterwards. A server without this endpoint lets the session end by itself, which is no error.
    pub async fn finish(&self, reason: FinishReason, detail: Option<String>) -> Result<(), Error> {
        let mut state = self.inner.session.lock().await;
        let State::Open(session) = &*state else { return Ok(()) };
        let id = session.id.clone();
        match self.inner.api.finish_session(&id, reason, detail).await {
            Ok(()) => {}
            Err(error) if error.is_unsupported() => {
                tracing::debug!(session_id = id, "the server has no way to finish a session");
            }
            Err(error) => return Err(error),
        }
        *state = State::Finished(id);
        Ok(())
    }

    async fn session(&self) -> Result<Arc<Session>, Error> {
        let mut state = self.inner.session.lock().await;
        match &*state {
            State::Open(session) => return Ok(session.clone()),
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
        let session = Arc::new(Session::opened(&self.inner.api, id, config, dynamic));
        *state = State::Open(session.clone());
        Ok(session)
    }

    fn training_client(&self, session: Arc<Session>, model_id: String, next_seq_id: u64) -> TrainingClient {
        TrainingClient::new(self.inner.api.clone(), session, model_id, next_seq_id)
    }

    async fn create_model(
        &self,
        session: &Session,
        model_seq_id: u64,
        base_model: &str,
        mut lora_config: LoraConfig,
        options: &TrainingOptions,
    ) -> Result<String, Error> {
        // 31 bits: every server's and every language's integer takes them.
        lora_config.seed.get_or_insert_with(|| self.inner.api.runtime().random() >> 33);
        let request = CreateModelRequest {
            session_id: session.id.clone(),
            model_seq_id,
            base_model: base_model.to_owned(),
            user_metadata: options.user_metadata.as_ref().map(metadata_value),
            lora_config: Some(lora_config),
            // Left out where it is the default: some servers refuse the member.
            optimizer_config: options.optimizer_config.clone().filter(|config| *config != adamw()),
            kind: create_model_type(),
        };
        Ok(self.inner.api.create_model(&request).await?.await?.model_id)
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
        let session = self.session().await?;
        let number = self.inner.next_model.fetch_add(1, Ordering::Relaxed);
        let request = LoadWeightsRequest {
            session_id: Some(session.id.clone()),
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
        let refusal = match self.inner.api.load_weights(&request).await {
            Ok(pending) => {
                let loaded = pending.await?;
                let model_id = loaded.model_id.unwrap_or_else(|| model_id_of(&session.id, number));
                let client = self.training_client(session, model_id, 1);
                client.remember(path);
                return Ok(client);
            }
            Err(error) if error.is_unknown_form() => error,
            Err(error) => return Err(error),
        };
        // Servers that do not know this form of load_weights make the run first and load into it. Where that does
        // not help either, what the first form was refused for is what the caller needs to hear.
        let info = match self.inner.api.weights_info(path).await {
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
        let model_id = self.create_model(&session, number, base_model, lora, &options).await?;
        let client = self.training_client(session, model_id, 1);
        let weights_access_token = options.weights_access_token;
        client.load_state_with(path, LoadOptions { optimizer, weights_access_token }).await?;
        Ok(client)
    }
}
