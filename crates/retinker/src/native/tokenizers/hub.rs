//! Tokenizers from a Hugging Face hub, by way of its cache.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_core::future::BoxFuture;

use super::cache::{Cached, is_plain};
use super::files::{CONFIG, HfTokenizer, TOKENIZER, missing};
use crate::client::call::{Answer, Call};
use crate::client::retry::RetryPolicy;
use crate::client::{Api, ApiConfig, Download, Error, Secret, Tokenizer, TokenizerId, TokenizerSource};
use crate::runtime::Runtime;
use crate::transport::Transport;

/// Where the hub is unless something else is said.
const ENDPOINT: &str = "https://huggingface.co";
/// The version that is meant when none is.
const NEWEST: &str = "main";
/// How long an answer of the hub may take, a whole file in it.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often the hub may send on to another place of its own.
const REDIRECTS: u32 = 5;
/// The longest file that is read: the largest vocabularies take a tenth of it.
const MAX_FILE: usize = 256 << 20;
/// How often a question is asked again.
const RETRIES: u32 = 5;
/// Models whose tokenizers are on no hub, by how their ids begin.
const ELSEWHERE: [&str; 2] = ["TML/", "thinkingmachines/"];

/// Where the hub and its cache are, and who asks.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// The hub's address: `https://huggingface.co`. A local service is a hub for its own models.
    pub endpoint: String,
    /// What repositories that are not open to all are read with. Sent to `endpoint` and nowhere else.
    pub token: Option<Secret>,
    /// Where downloaded files are kept, in the layout of Hugging Face's Python library; the two can share it.
    pub cache: PathBuf,
    /// Whether only what is in the cache, or in a directory, is used.
    pub offline: bool,
}

impl HubConfig {
    /// By the variables of Hugging Face's Python library: `HF_ENDPOINT`; `HF_TOKEN`, else the file `token` in `HF_HOME`;
    /// `HF_HUB_CACHE`, else `hub` in `HF_HOME`; `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE`. `HF_HOME` is
    /// `~/.cache/huggingface` by default.
    ///
    /// `environment` gives a variable's value, as `|name| std::env::var(name).ok()` does.
    pub fn from_environment(environment: impl Fn(&str) -> Option<String>) -> Self {
        let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
        let user = || variable("HOME").or_else(|| variable("USERPROFILE")).map(PathBuf::from);
        let caches =
            || variable("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| Some(user()?.join(".cache")));
        let home = variable("HF_HOME").map(PathBuf::from);
        let home = home.unwrap_or_else(|| caches().unwrap_or_default().join("huggingface"));
        let stored = || std::fs::read_to_string(home.join("token")).ok();
        let token = variable("HF_TOKEN").or_else(stored).map(|token| token.trim().to_owned());
        let yes = |name: &str| {
            let value = variable(name).unwrap_or_default().to_uppercase();
            matches!(value.as_str(), "1" | "ON" | "YES" | "TRUE")
        };
        Self {
            endpoint: variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned()),
            token: token.filter(|token| !token.is_empty()).map(Secret::new),
            cache: variable("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from),
            offline: yes("HF_HUB_OFFLINE") || yes("TRANSFORMERS_OFFLINE"),
        }
    }
}

/// Tokenizers from directories, from Hugging Face's cache, and from a hub. Cheap to clone; clones share what they have
/// loaded, which they keep.
///
/// What is in the cache is used without asking whether the hub has a newer version: a model's tokenizer is what it was
/// trained with. What is downloaded is kept in the cache.
#[derive(Debug, Clone)]
pub struct HubTokenizers {
    pub(super) inner: Arc<Inner>,
}

/// A file of a repository.
struct File {
    commit: String,
    content: Bytes,
}

#[derive(Debug)]
pub(super) struct Inner {
    api: Api,
    cache: PathBuf,
    offline: bool,
    loaded: Mutex<HashMap<TokenizerId, Arc<dyn Tokenizer>>>,
}

impl HubTokenizers {
    /// Tokenizers of this hub. Asks nothing. Must be used inside a tokio runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::client::ErrorKind::Config) if the address or the token cannot be used.
    pub fn new(
        config: HubConfig,
        transport: Arc<dyn Transport>,
        runtime: Arc<dyn Runtime>,
    ) -> Result<Self, Error> {
        let authorization = |token: Secret| ("authorization".into(), format!("Bearer {}", token.expose()));
        let api = ApiConfig {
            base_url: config.endpoint,
            headers: config.token.map(authorization).into_iter().collect(),
            ..ApiConfig::default()
        };
        let inner = Inner {
            api: Api::new(api, transport, runtime)?,
            cache: config.cache,
            offline: config.offline,
            loaded: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl TokenizerSource for HubTokenizers {
    fn load(&self, id: TokenizerId) -> BoxFuture<'_, Result<Arc<dyn Tokenizer>, Error>> {
        Box::pin(async move {
            let loaded = || self.inner.loaded.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(tokenizer) = loaded().get(&id) {
                return Ok(tokenizer.clone());
            }
            let tokenizer: Arc<dyn Tokenizer> = Arc::new(self.inner.find(&id).await?);
            loaded().insert(id, tokenizer.clone());
            Ok(tokenizer)
        })
    }
}

impl Inner {
    async fn find(&self, id: &TokenizerId) -> Result<HfTokenizer, Error> {
        let fail = |what: &str| Err(Error::config(format!("the tokenizer {id}"), what));
        if Path::new(&id.name).is_absolute() {
            return read(PathBuf::from(&id.name)).await;
        }
        if ELSEWHERE.iter().any(|begin| id.name.starts_with(begin)) {
            return fail(
                "the tokenizers of Thinking Machines' own models are in the Python package tml-renderers only",
            );
        }
        let revision = id.revision.as_deref().unwrap_or(NEWEST);
        let parts: Vec<_> = id.name.split('/').collect();
        if parts.len() > 2 || !parts.iter().all(|part| is_plain(part)) || !is_plain(revision) {
            return fail(
                "that is neither the id of a repository, `organization/name`, nor the absolute path of a directory",
            );
        }
        let cached = Cached::new(&self.cache, &id.name);
        match cached.snapshot(revision).filter(|snapshot| snapshot.join(TOKENIZER).exists()) {
            Some(snapshot) => read(snapshot).await,
            None if self.offline => {
                fail("it is not in the cache, and the environment says not to ask a hub (offline)")
            }
            None => self.download(id, revision, cached).await,
        }
    }

    async fn download(&self, id: &TokenizerId, revision: &str, cached: Cached) -> Result<HfTokenizer, Error> {
        let config = self.file(id, revision, CONFIG).await?;
        // The same commit for both, or they need not fit.
        let commit = config.as_ref().map_or(revision, |config| &config.commit);
        let Some(File { commit, content }) = self.file(id, commit, TOKENIZER).await? else {
            return Err(missing(&id.to_string()));
        };
        let (name, revision) = (id.to_string(), revision.to_owned());
        let (config, tag) = (config.map(|config| config.content), self.api.runtime().random());
        beside(move || {
            let tokenizer = HfTokenizer::from_bytes(&name, &content, config.as_deref())?;
            // The tokenizer is last: where it is, all is.
            if let Some(config) = config {
                cached.keep(&commit, CONFIG, &config, tag)?;
            }
            cached.keep(&commit, TOKENIZER, &content, tag)?;
            cached.note(&revision, &commit, tag)?;
            Ok(tokenizer)
        })
        .await
    }

    /// A file of a repository; `None` if the repository has none of that name.
    async fn file(&self, id: &TokenizerId, revision: &str, file: &str) -> Result<Option<File>, Error> {
        let operation = format!("{file} of the tokenizer {id} from {}", self.api.base_url());
        let fail = |what: &str| Error::config(&operation, what);
        let mut call = Call::get(&operation, format!("/{}/resolve/{revision}/{file}", id.name));
        call.accept = "*/*";
        call.timeout = PATIENCE;
        let mut commit = None;
        for _ in 0..=REDIRECTS {
            let answer = self.ask(&call).await?;
            let named = answer.header("x-repo-commit").filter(|commit| is_plain(commit));
            commit = commit.or(named.map(str::to_owned));
            let location = answer.header("location").unwrap_or_default();
            let content = match answer.status {
                200..=299 => answer.body,
                300..=399 => match self.own_path(location) {
                    Some(path) => {
                        call.path = path;
                        continue;
                    }
                    None => self.elsewhere(&operation, location).await?,
                },
                404 if commit.is_some() => return Ok(None),
                401 | 403 | 404 => {
                    return Err(fail(
                        "the hub does not give it: is the id right, and is HF_TOKEN that of an account which may read it?",
                    ));
                }
                _ => return Err(answer.refusal(&operation, None)),
            };
            let commit =
                commit.ok_or_else(|| fail("the answer does not name a commit: is HF_ENDPOINT a hub?"))?;
            return Ok(Some(File { commit, content }));
        }
        Err(fail("the hub redirects too often"))
    }

    /// Asks the hub, again where another try may help.
    async fn ask(&self, call: &Call) -> Result<Answer, Error> {
        let decides = |answer: &Answer| answer.status < 500 && !matches!(answer.status, 408 | 429);
        let policy = RetryPolicy { max_retries: RETRIES, ..RetryPolicy::default() };
        self.api.caller().until(call, &policy, decides).await
    }

    /// The path of an address of the hub itself, which alone is given the token.
    pub(super) fn own_path(&self, location: &str) -> Option<String> {
        let relative = location.starts_with('/') && !location.starts_with("//");
        let base = self.api.base_url();
        if relative {
            // From the root of the host, whatever the hub's own prefix is.
            let prefix = base.splitn(4, '/').nth(3).map(|prefix| format!("/{prefix}")).unwrap_or_default();
            return location.strip_prefix(&prefix).filter(|path| path.starts_with('/')).map(str::to_owned);
        }
        location.strip_prefix(base).filter(|path| path.starts_with('/')).map(str::to_owned)
    }

    /// What is at another host, to which no credential goes.
    async fn elsewhere(&self, operation: &str, location: &str) -> Result<Bytes, Error> {
        let secure = self.api.base_url().starts_with("https://");
        if !location.starts_with("https://") && (secure || !location.starts_with("http://")) {
            return Err(Error::config(
                operation,
                "the hub redirects to an address that is not safe to follow",
            ));
        }
        Download::open(&self.api, operation, &Secret::new(location), 0).await?.whole(MAX_FILE).await
    }
}

async fn read(directory: PathBuf) -> Result<HfTokenizer, Error> {
    beside(move || HfTokenizer::from_directory(&directory)).await
}

/// Reads files, and builds what they describe, where nobody waits for it: a large vocabulary takes a second.
async fn beside(
    work: impl FnOnce() -> Result<HfTokenizer, Error> + Send + 'static,
) -> Result<HfTokenizer, Error> {
    let cut_off =
        |e: tokio::task::JoinError| Err(Error::config("the tokenizer", format!("it was not read: {e}")));
    tokio::task::spawn_blocking(work).await.unwrap_or_else(cut_off)
}
