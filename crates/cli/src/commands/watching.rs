//! What is done about lost runs, and who hears of it: options that `retinker watch`, `console` and `up` share.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::join;
use retinker::client::Secret;
use retinker::native::NativeRuntime;
use retinker::recovery::events::{EventSink, Traced};
use retinker::recovery::policy::Policy;
use retinker_host::Watching;
use retinker_host::hooks::{ExecConfig, ExecHook, JsonLines, Metrics, Webhook, WebhookConfig};
use tokio::net::TcpListener;

/// How long events that are on their way are waited for at the end.
const PATIENCE: Duration = Duration::from_secs(10);

/// The options.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Recovery")]
pub(crate) struct WatchArgs {
    /// Restore poisoned runs without being asked. Off by default: then they are seen, told of, and their checkpoints protected.
    #[arg(long)]
    auto_restore: bool,
    /// A file of JSON with the policy; see docs/recovery.md. --auto-restore enables it.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Append each event to this file as a line of JSON; - is the standard output.
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// Send each event to this address, signed with RETINKER_WEBHOOK_SECRET. Better given in the environment: whoever knows
    /// the address can send as well.
    #[arg(long, value_name = "URL", env = "RETINKER_WEBHOOK", hide_env_values = true)]
    webhook: Option<Secret>,
    /// Run this program for each event: the event is on its standard input and in its environment (TINKER_RESTORE_PATH and
    /// others). No shell looks at it; give each argument with another --exec.
    #[arg(long, value_name = "PROGRAM", allow_hyphen_values = true)]
    exec: Vec<String>,
    /// Pass this variable of the environment on to the program, e.g. TINKER_API_KEY. Can be given several times.
    #[arg(long, value_name = "NAME", requires = "exec")]
    exec_env: Vec<String>,
    /// Answer Prometheus at this address, under /metrics.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
}

/// Who hears of events.
#[derive(Debug)]
pub(crate) struct Hooks {
    /// Who hears of what this process does.
    own: Vec<Arc<dyn EventSink>>,
    /// Who is told of what happens in the journal.
    listeners: Vec<Arc<dyn EventSink>>,
    webhook: Option<Arc<Webhook>>,
    exec: Option<Arc<ExecHook>>,
    pub(crate) metrics: Arc<Metrics>,
    server: Option<tokio::task::JoinHandle<()>>,
}

impl WatchArgs {
    /// The policy, as the file and the options say.
    pub(crate) fn policy(&self) -> Result<Policy> {
        let mut policy = match &self.policy {
            None => Policy::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("the policy {} cannot be read", path.display()))?;
                serde_json::from_str(&text)
                    .with_context(|| format!("the policy {} makes no sense", path.display()))?
            }
        };
        policy.enabled |= self.auto_restore;
        Ok(policy)
    }

    /// Sets up who hears of events, and answers Prometheus if that was asked for. `base_url` is told to programs.
    pub(crate) async fn hooks(&self, base_url: &str) -> Result<Hooks> {
        let runtime = Arc::new(NativeRuntime::current().context("there is no tokio runtime")?);
        let metrics = Arc::new(Metrics::new());
        let own: Vec<Arc<dyn EventSink>> = vec![Arc::new(Traced), Arc::clone(&metrics) as _];
        let mut listeners: Vec<Arc<dyn EventSink>> = Vec::new();
        if let Some(path) = &self.events {
            let lines = if path.as_os_str() == "-" { JsonLines::stdout() } else { JsonLines::file(path)? };
            listeners.push(Arc::new(lines));
        }
        let webhook = match self.webhook.as_ref().filter(|url| !url.expose().is_empty()) {
            None => None,
            Some(url) => {
                let secret = std::env::var("RETINKER_WEBHOOK_SECRET")
                    .context("a webhook is signed: put its secret into RETINKER_WEBHOOK_SECRET")?;
                let config = WebhookConfig::new(url.clone(), Secret::new(secret));
                Some(Arc::new(Webhook::new(config, Arc::clone(&runtime) as _)?))
            }
        };
        let exec = match self.exec.as_slice() {
            [] => None,
            argv => {
                let config = ExecConfig {
                    base_url: Some(base_url.to_owned()),
                    pass_env: self.exec_env.clone(),
                    ..ExecConfig::new(argv.iter().cloned())
                };
                Some(Arc::new(ExecHook::new(config, |name| std::env::var_os(name), &*runtime)?))
            }
        };
        listeners.extend(webhook.iter().map(|hook| Arc::clone(hook) as Arc<dyn EventSink>));
        listeners.extend(exec.iter().map(|hook| Arc::clone(hook) as Arc<dyn EventSink>));
        let server = match self.metrics {
            None => None,
            Some(address) => {
                let listener = TcpListener::bind(address).await.with_context(|| {
                    format!("metrics cannot be served at {address}: choose another --metrics address")
                })?;
                Some(tokio::spawn(retinker_host::hooks::serve(listener, Arc::clone(&metrics))))
            }
        };
        Ok(Hooks { own, listeners, webhook, exec, metrics, server })
    }
}

impl Hooks {
    /// All who hear of what this process does.
    pub(crate) fn sink(&self) -> Arc<dyn EventSink> {
        Arc::new(self.own.clone())
    }

    /// All who are told of what happens in the journal, if anybody is.
    pub(crate) fn told(&self) -> Option<Arc<dyn EventSink>> {
        (!self.listeners.is_empty()).then(|| Arc::new(self.listeners.clone()) as Arc<dyn EventSink>)
    }

    /// What a host is told.
    pub(crate) fn watching(&self, policy: Policy) -> Watching {
        Watching { policy, sink: self.sink(), told: self.told(), metrics: Some(Arc::clone(&self.metrics)) }
    }

    /// Delivers what is on its way, to all at the same time, and answers nobody any more.
    pub(crate) async fn drain(&self) {
        join(
            async {
                if let Some(webhook) = &self.webhook {
                    webhook.drain(PATIENCE).await;
                }
            },
            async {
                if let Some(exec) = &self.exec {
                    exec.drain(PATIENCE).await;
                }
            },
        )
        .await;
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use retinker::recovery::events::{EventKind, RecoveryEvent};
    use retinker::wire::time::Time;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        watching: WatchArgs,
    }

    fn args(words: &[&str]) -> WatchArgs {
        Line::try_parse_from(["x"].iter().chain(words)).unwrap().watching
    }

    #[test]
    fn the_policy_is_off_unless_asked_for_and_read_from_a_file() {
        assert!(!args(&[]).policy().unwrap().enabled);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.json");
        std::fs::write(&path, r#"{"max_attempts": 7}"#).unwrap();
        let text = path.to_str().unwrap();
        let policy = args(&["--policy", text, "--auto-restore"]).policy().unwrap();
        assert_eq!(policy, Policy { enabled: true, max_attempts: 7, ..Policy::default() });
        std::fs::write(&path, "{").unwrap();
        let error = format!("{:#}", args(&["--policy", text]).policy().unwrap_err());
        assert!(error.starts_with(&format!("the policy {text} makes no sense")), "{error}");
        let error = format!("{:#}", args(&["--policy", "/none"]).policy().unwrap_err());
        assert!(error.starts_with("the policy /none cannot be read"), "{error}");
    }

    #[test]
    fn a_webhooks_address_is_shown_nowhere() {
        let args = args(&["--webhook", "https://hooks.example/hunter2"]);
        assert!(!format!("{args:?}").contains("hunter2"));
    }

    /// A receiver that never answers, and a program that does not end: neither is waited for after the other. No time passes
    /// here but what is waited for.
    #[tokio::test(start_paused = true)]
    async fn who_does_not_take_its_events_is_waited_for_beside_the_others() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let runtime = Arc::new(NativeRuntime::current().unwrap());
        let url = format!("http://{}", listener.local_addr().unwrap());
        let secret = format!("whsec_{}", "A".repeat(32));
        let config = WebhookConfig::new(Secret::new(url), Secret::new(secret));
        let webhook = Arc::new(Webhook::new(config, Arc::clone(&runtime) as _).unwrap());
        let config = ExecConfig::new(["sleep", "600"]);
        let exec = Arc::new(ExecHook::new(config, |name| std::env::var_os(name), &*runtime).unwrap());
        let sinks: Vec<Arc<dyn EventSink>> = vec![Arc::clone(&webhook) as _, Arc::clone(&exec) as _];
        let hooks = Hooks {
            own: Vec::new(),
            listeners: sinks,
            webhook: Some(webhook),
            exec: Some(exec),
            metrics: Arc::new(Metrics::new()),
            server: None,
        };
        let at = Time::from_millis(1_000);
        hooks.told().unwrap().tell(&RecoveryEvent::new(
            EventKind::Detected,
            at,
            "local",
            "run",
            "It failed.",
        ));
        let begin = tokio::time::Instant::now();
        hooks.drain().await;
        assert_eq!(begin.elapsed().as_secs(), PATIENCE.as_secs());
    }
}
