//! Sampling for people who try a model: in one session of the host's own, which lasts as long as somebody samples.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use http::StatusCode;
use retinker::client::{
    Api, Error, ErrorKind, SampleOptions, SampleRetry, SamplingClient, SamplingOptions, SamplingSource,
    ServiceClient, SessionOptions, Tokenizer, TokenizerId, TokenizerSource,
};
use retinker::native::{HfTokenizer, HubConfig, HubTokenizers};
use retinker::runtime::Runtime;
use retinker::transport::Transport;
use retinker::wire::UserMetadata;
use retinker::wire::sampling::SampleResponse;
use retinker::wire::session::FinishReason;
use retinker::wire::training::ModelInput;
use tokio::sync::Mutex;

use crate::host::Shared;
use crate::problem::Problem;

/// The session's name, and the value of its label `made_by`.
pub(crate) const NAME: &str = "retinker console";
/// After so long without a sample the session is finished.
const IDLE: Duration = Duration::from_secs(600);
/// How often that is looked for.
const LOOK: Duration = Duration::from_secs(30);
/// Samplers that are kept at once; beyond them all are made anew.
const KEPT: usize = 32;
/// Models of the embedded service, whose tokenizers are at its own address.
const EMBEDDED: &str = "retinker/";
/// A character of UTF-8 takes at most so many bytes, so what is no text after so many tokens never becomes one.
const LONGEST_CHARACTER: usize = 4;

/// What samples are drawn with.
pub(crate) struct Trial {
    api: Api,
    transport: Arc<dyn Transport>,
    runtime: Arc<dyn Runtime>,
    bench: Mutex<Option<Bench>>,
    /// How many there were.
    benches: AtomicU64,
    /// By base model.
    tokenizers: std::sync::Mutex<HashMap<String, Arc<dyn Tokenizer>>>,
    hub: std::sync::Mutex<Option<HubTokenizers>>,
}

impl fmt::Debug for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trial").finish_non_exhaustive()
    }
}

/// A session, and what was made in it.
struct Bench {
    /// Which of those that there were.
    number: u64,
    service: ServiceClient,
    /// By what they sample from.
    samplers: HashMap<String, SamplingClient>,
    /// When it was last used.
    used: Duration,
}

/// What samples are drawn by.
struct Sampler {
    client: SamplingClient,
    /// It was made just now.
    fresh: bool,
    /// The number of its session.
    number: u64,
}

/// What was drawn, and in which time.
pub(crate) struct Drawn {
    pub(crate) response: SampleResponse,
    pub(crate) took: Duration,
}

impl Trial {
    pub(crate) fn new(api: Api, transport: Arc<dyn Transport>, runtime: Arc<dyn Runtime>) -> Self {
        let (bench, tokenizers, hub) =
            (Mutex::default(), std::sync::Mutex::default(), std::sync::Mutex::default());
        Self { api, transport, runtime, bench, benches: AtomicU64::new(0), tokenizers, hub }
    }

    /// Draws samples. A session that has ended since its last use is no failure: another is made.
    pub(crate) async fn sample(
        &self,
        source: &str,
        prompt: &ModelInput,
        options: &SampleOptions,
    ) -> Result<Drawn, Error> {
        let begun = self.runtime.monotonic();
        let Sampler { client, fresh, number } = self.sampler(source).await?;
        let response = match client.sample(prompt, options).await {
            Err(error) if !fresh && (is_over(&error) || error.is_not_found()) => {
                self.forget(source, number, &error).await;
                self.sampler(source).await?.client.sample(prompt, options).await?
            }
            result => result?,
        };
        Ok(Drawn { response, took: self.runtime.monotonic().saturating_sub(begun) })
    }

    /// Lets go of what an error says is gone: the session of this number, or one sampler of it. Of several that meet the same
    /// end only the first does: what the next one finds is new.
    async fn forget(&self, source: &str, number: u64, error: &Error) {
        let mut bench = self.bench.lock().await;
        if bench.as_ref().is_none_or(|bench| bench.number != number) {
            return;
        }
        if is_over(error) {
            bench.take();
        } else if let Some(bench) = &mut *bench {
            bench.samplers.remove(source);
        }
    }

    /// A sampler of this source; in another session if the one that there was has ended.
    async fn sampler(&self, source: &str) -> Result<Sampler, Error> {
        match self.sampler_here(source).await {
            // It was finished by somebody, or this machine slept.
            Err((number, error)) if is_over(&error) => {
                self.forget(source, number, &error).await;
                self.sampler_here(source).await
            }
            sampler => sampler,
        }
        .map_err(|(_, error)| error)
    }

    /// A sampler of this source in the session that there is; with its number if there can be none.
    async fn sampler_here(&self, source: &str) -> Result<Sampler, (u64, Error)> {
        let (number, service) = {
            let mut bench = self.bench.lock().await;
            let bench = bench.get_or_insert_with(|| Bench {
                number: self.benches.fetch_add(1, Ordering::Relaxed),
                service: ServiceClient::with_options(self.api.clone(), session()),
                samplers: HashMap::new(),
                used: Duration::ZERO,
            });
            bench.used = self.runtime.monotonic();
            if let Some(client) = bench.samplers.get(source) {
                return Ok(Sampler { client: client.clone(), fresh: false, number: bench.number });
            }
            (bench.number, bench.service.clone())
        };
        let from = match is_path(source) {
            true => SamplingSource::ModelPath(source.to_owned()),
            false => SamplingSource::BaseModel(source.to_owned()),
        };
        let client = service.create_sampling_client(from).await.map_err(|error| (number, error))?;
        // A person is told at once, and asks again.
        let retry = SampleRetry { enabled: false, ..SampleRetry::default() };
        let client = client.with_options(SamplingOptions { retry, ..SamplingOptions::default() });
        if let Some(bench) = self.bench.lock().await.as_mut().filter(|bench| bench.number == number) {
            if bench.samplers.len() >= KEPT {
                bench.samplers.clear();
            }
            bench.samplers.insert(source.to_owned(), client.clone());
        }
        Ok(Sampler { client, fresh: true, number })
    }

    /// The base model that a source's weights belong to.
    pub(crate) async fn base_model(&self, source: &str) -> Result<String, Error> {
        if !is_path(source) {
            return Ok(source.to_owned());
        }
        match self.sampler(source).await?.client.get_base_model().await {
            Err(error) if error.is_unsupported() => Ok(self.api.weights_info(source).await?.base_model),
            told => told,
        }
    }

    /// The tokenizer of a base model.
    pub(crate) async fn tokenizer(&self, base_model: &str) -> Result<Arc<dyn Tokenizer>, NoTokenizer> {
        let known = || self.tokenizers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tokenizer) = known().get(base_model) {
            return Ok(Arc::clone(tokenizer));
        }
        let tokenizer = if base_model.starts_with(EMBEDDED) {
            self.own_tokenizer(base_model).await?
        } else {
            let loaded = async { self.hub()?.load(TokenizerId::of_model(base_model, None)).await };
            loaded.await.map_err(|error| NoTokenizer::None(error.to_string()))?
        };
        known().insert(base_model.to_owned(), Arc::clone(&tokenizer));
        Ok(tokenizer)
    }

    fn hub(&self) -> Result<HubTokenizers, Error> {
        let mut hub = self.hub.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hub) = &*hub {
            return Ok(hub.clone());
        }
        let config = HubConfig::from_environment(|name| std::env::var(name).ok());
        let made = HubTokenizers::new(config, Arc::clone(&self.transport), Arc::clone(&self.runtime))?;
        Ok(hub.insert(made).clone())
    }

    /// The tokenizer of one of the embedded service's models, from the service itself, which may want its key for it.
    async fn own_tokenizer(&self, base_model: &str) -> Result<Arc<dyn Tokenizer>, NoTokenizer> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if !base_model.chars().all(is_plain) || base_model.contains("..") {
            return Err(NoTokenizer::None("its name cannot stand in an address".to_owned()));
        }
        let file = |name| self.api.model_file(base_model, name);
        let (tokenizer, config) = (file("tokenizer.json").await?, file("tokenizer_config.json").await?);
        let made = HfTokenizer::from_bytes(base_model, &tokenizer, Some(&config));
        made.map(|tokenizer| Arc::new(tokenizer) as _)
            .map_err(|error| NoTokenizer::Unreadable(error.to_string()))
    }

    /// Finishes the session.
    pub(crate) async fn end(&self) {
        let bench = self.bench.lock().await.take();
        if let Some(bench) = bench
            && let Err(error) = bench.service.finish(FinishReason::Success, None).await
        {
            tracing::debug!(%error, "the session for samples was not finished: it ends by itself");
        }
    }

    async fn is_idle(&self) -> bool {
        let now = self.runtime.monotonic();
        self.bench.lock().await.as_ref().is_some_and(|bench| now.saturating_sub(bench.used) >= IDLE)
    }
}

/// Finishes the session whenever nobody has sampled for long.
pub(crate) async fn tidy(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(LOOK).await;
        if shared.trial.is_idle().await {
            shared.trial.end().await;
        }
    }
}

fn session() -> SessionOptions {
    SessionOptions {
        tags: vec!["retinker-console".to_owned()],
        user_metadata: UserMetadata::from([("made_by".to_owned(), NAME.to_owned())]),
        display_name: Some(NAME.to_owned()),
        ..SessionOptions::default()
    }
}

/// Whether a source is a checkpoint's path, and not a base model's name.
pub(crate) fn is_path(source: &str) -> bool {
    source.starts_with("tinker://")
}

/// Whether the session is over.
fn is_over(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Expired { .. })
}

/// Why there is no tokenizer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoTokenizer {
    /// None is to be had here.
    #[error("{0}")]
    None(String),
    /// The service did not give its own.
    #[error("{0}")]
    Service(Error),
    /// What it gave is none.
    #[error("{0}")]
    Unreadable(String),
}

impl From<Error> for NoTokenizer {
    fn from(error: Error) -> Self {
        match error.is_not_found() {
            true => Self::None(error.to_string()),
            false => Self::Service(error),
        }
    }
}

/// What it means to a person at the console that a prompt has no tokens.
pub(crate) fn untokenized(error: &NoTokenizer) -> Problem {
    match error {
        NoTokenizer::Service(error) => problem_of(error),
        NoTokenizer::Unreadable(what) => Problem::new(
            StatusCode::BAD_GATEWAY,
            "service_unreadable",
            format!("The service's tokenizer cannot be read: {}", without_parsing(what)),
            "",
        ),
        NoTokenizer::None(why) => Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "no_tokenizer",
            format!("The prompt cannot be turned into tokens: {}", without_parsing(why)),
            "Give the prompt as token numbers, or set HF_TOKEN or HF_ENDPOINT where retinker runs.",
        ),
    }
}

/// Without what a parser says of a file, which is for the log.
fn without_parsing(why: &str) -> String {
    const UNUSABLE: &str = "cannot be used";
    match why.split_once(UNUSABLE) {
        Some((before, parsing)) => {
            tracing::warn!(parsing, "a tokenizer that cannot be used");
            format!("{before}{UNUSABLE}.")
        }
        None => why.to_owned(),
    }
}

/// What a failed sample means to a person at the console.
pub(crate) fn problem_of(error: &Error) -> Problem {
    let refused = |hint: &str| {
        let message = error.detail().filter(|detail| !detail.is_empty()).map(str::to_owned);
        let message = message.unwrap_or_else(|| error.to_string());
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "sample_refused", message, hint)
    };
    match error.kind() {
        ErrorKind::Failed { .. } => refused("Is the prompt longer than the model's context?"),
        ErrorKind::Refused { status: 400 | 404 | 410 | 422, .. } | ErrorKind::Expired { .. } => {
            refused("Only checkpoints for samplers and base models of this service can be sampled from.")
        }
        ErrorKind::Refused { status: 425, .. } => {
            refused("Wait until the checkpoint is saved, then try again.")
        }
        ErrorKind::Config { .. } => refused(""),
        _ => Problem::from(error),
    }
}

/// Each token's part of the text. A character that several tokens make up is the last one's.
pub(crate) fn pieces(tokenizer: &dyn Tokenizer, tokens: &[u32]) -> Result<Vec<String>, Error> {
    // Whole tokens before the first that is not told yet go in with it: what a token says can depend on its neighbour.
    let (mut before, mut told) = (0, 0);
    let mut pieces = Vec::with_capacity(tokens.len());
    let text = |from: usize, to: usize| tokenizer.decode(tokens.get(from..to).unwrap_or_default(), false);
    for end in 1..=tokens.len() {
        let (known, all) = (text(before, told)?, text(before, end)?);
        let whole = !all.ends_with('\u{fffd}') || end - told >= LONGEST_CHARACTER || end == tokens.len();
        let piece = all.strip_prefix(&known).filter(|_| whole).map(str::to_owned);
        match piece {
            Some(piece) => {
                pieces.push(piece);
                (before, told) = (told, end);
            }
            None if whole => {
                // The neighbour has changed: the token by itself.
                pieces.push(text(told, end)?);
                (before, told) = (told, end);
            }
            None => pieces.push(String::new()),
        }
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;
    use retinker::client::testing::ByteTokenizer;

    fn pieces_of(bytes: &[u8]) -> Vec<String> {
        pieces(&ByteTokenizer, &bytes.iter().map(|byte| u32::from(*byte)).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn characters_of_several_tokens_are_the_last_ones() {
        assert_eq!(pieces_of(b"ab"), ["a", "b"]);
        assert_eq!(pieces_of("aé€x".as_bytes()), ["a", "", "é", "", "", "€", "x"]);
        assert_eq!(pieces_of("🦀".as_bytes()), ["", "", "", "🦀"]);
        assert!(pieces_of(b"").is_empty());
    }

    #[test]
    fn bytes_that_are_no_text_are_told_soon() {
        let odd = [0xff, 0xfe, b'a', 0xc3, b'b', 0xe2];
        let told = pieces_of(&odd);
        assert_eq!(told.len(), odd.len());
        assert_eq!(told.concat(), String::from_utf8_lossy(&odd));
        // Nothing but such bytes: in pieces of at most four, none lost.
        let told = pieces_of(&[0x80; 11]);
        assert_eq!(told.concat().chars().count(), 11);
        assert!(told.iter().all(|piece| piece.chars().count() <= 4));
    }
}
