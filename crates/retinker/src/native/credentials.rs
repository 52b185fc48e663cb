//! Where a native program's address and credentials come from, by the rules of the official SDK 0.38: arguments first,
//! then the environment, then what `tinker auth login` has stored.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_core::future::BoxFuture;
use serde::Deserialize;

use crate::client::{ApiConfig, CredentialSource, Error, Secret, SessionOptions};

/// Where the service is unless something else is said; the SDK's.
pub const DEFAULT_BASE_URL: &str = "https://tinker.thinkingmachines.dev/services/tinker-prod";

const BASE_URL: &str = "TINKER_BASE_URL";
const API_KEY: &str = "TINKER_API_KEY";
const COMMAND: &str = "TINKER_CREDENTIAL_CMD";
const PROJECT: &str = "TINKER_PROJECT_ID";
const TAGS: &str = "TINKER_TAGS";
const TELEMETRY: &str = "TINKER_TELEMETRY";
const ACCESS_HEADERS: [(&str, &str); 2] = [
    ("cf-access-client-id", "CLOUDFLARE_ACCESS_CLIENT_ID"),
    ("cf-access-client-secret", "CLOUDFLARE_ACCESS_CLIENT_SECRET"),
];

/// The address and credentials that a program should use.
///
/// - The address: the argument, else `TINKER_BASE_URL`, else [`DEFAULT_BASE_URL`].
/// - The key: the argument, else `TINKER_API_KEY`, else what the command in `TINKER_CREDENTIAL_CMD` prints (asked for each
///   time it is needed), else the default key of `~/.tinker/credentials.json`. A key that is neither `tml-...` nor a JWT
///   gives way to the command, if there is one; so does any key where the service wants short-lived credentials.
/// - Headers that Cloudflare Access asks for: `CLOUDFLARE_ACCESS_CLIENT_ID` and `CLOUDFLARE_ACCESS_CLIENT_SECRET`.
///
/// `environment` gives a variable's value, as `|name| std::env::var(name).ok()` does.
///
/// # Errors
/// [`ErrorKind::Config`](crate::client::ErrorKind::Config) if there is no credential, or the file of stored ones cannot
/// be read.
pub fn resolve(
    environment: impl Fn(&str) -> Option<String>,
    base_url: Option<&str>,
    api_key: Option<Secret>,
) -> Result<ApiConfig, Error> {
    let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
    let home = variable("HOME").or_else(|| variable("USERPROFILE"));
    Environment {
        base_url: variable(BASE_URL),
        api_key: variable(API_KEY).map(Secret::new),
        command: variable(COMMAND),
        stored: home.map(|home| Path::new(&home).join(".tinker").join("credentials.json")),
        headers: ACCESS_HEADERS
            .into_iter()
            .filter_map(|(header, name)| Some((header.into(), variable(name)?)))
            .collect(),
    }
    .resolve(base_url, api_key)
}

/// What a program's session is labelled with by the environment, as the official SDK does: the project
/// `TINKER_PROJECT_ID`, and the tags `TINKER_TAGS`, separated by commas. And whether there is telemetry: only if
/// `TINKER_TELEMETRY` is `1`, `true`, `yes` or `on`, in any case, where the SDK takes silence for a yes.
pub fn session_options(environment: impl Fn(&str) -> Option<String>) -> SessionOptions {
    let tags = environment(TAGS).unwrap_or_default();
    let tags = tags.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect();
    let project_id = environment(PROJECT).filter(|project| !project.is_empty());
    let telemetry = environment(TELEMETRY).unwrap_or_default().to_lowercase();
    let telemetry = matches!(telemetry.as_str(), "1" | "true" | "yes" | "on");
    SessionOptions { tags, project_id, telemetry, ..SessionOptions::default() }
}

struct Environment {
    base_url: Option<String>,
    api_key: Option<Secret>,
    command: Option<String>,
    stored: Option<PathBuf>,
    headers: Vec<(Cow<'static, str>, String)>,
}

impl Environment {
    fn resolve(self, base_url: Option<&str>, api_key: Option<Secret>) -> Result<ApiConfig, Error> {
        let base_url = base_url.filter(|url| !url.is_empty()).map(str::to_owned);
        let base_url = base_url.or(self.base_url).unwrap_or_else(|| DEFAULT_BASE_URL.to_owned());
        let config = ApiConfig { base_url, headers: self.headers, ..ApiConfig::default() };
        let given = api_key.filter(|key| !key.expose().is_empty()).or(self.api_key);
        let usable = |key: &Secret| key.expose().starts_with("tml-") || key.expose().starts_with("eyJ");
        match (given, self.command) {
            (Some(key), Some(command)) if !usable(&key) => Ok(with_command(config, command)),
            // Which of the two is for the service to say.
            (Some(key), Some(command)) => {
                Ok(ApiConfig { api_key: Some(key), ..with_command(config, command) })
            }
            (Some(key), None) => Ok(ApiConfig { api_key: Some(key), ..config }),
            (None, Some(command)) => Ok(with_command(config, command)),
            (None, None) => match self.stored.as_deref().map(stored_key).transpose()?.flatten() {
                Some(key) => Ok(ApiConfig { api_key: Some(key), ..config }),
                None => Err(Error::config(
                    "the API key",
                    "there is none: give it as an argument, set TINKER_API_KEY, or store one with `tinker auth login`",
                )),
            },
        }
    }
}

fn with_command(config: ApiConfig, command: String) -> ApiConfig {
    ApiConfig { credential_source: Some(Arc::new(CommandSource { command })), ..config }
}

/// The file's default key. `None` if there is no file, or no default in it.
fn stored_key(path: &Path) -> Result<Option<Secret>, Error> {
    #[derive(Deserialize)]
    struct Stored {
        #[serde(default)]
        default: Option<String>,
        #[serde(default)]
        keys: HashMap<String, Key>,
    }
    #[derive(Deserialize)]
    struct Key {
        key: String,
    }
    let unreadable = |what: String| Error::config(format!("the credentials in {}", path.display()), what);
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(unreadable(format!("they cannot be read: {e}"))),
    };
    // The parser's own words could repeat a key.
    let mut stored: Stored = serde_json::from_slice(&text).map_err(|e| {
        unreadable(format!("they are not as expected, at line {} column {}", e.line(), e.column()))
    })?;
    Ok(stored.default.and_then(|name| stored.keys.remove(&name)).map(|key| Secret::new(key.key)))
}

/// Runs a command of the shell for each credential.
#[derive(Debug)]
struct CommandSource {
    command: String,
}

impl CredentialSource for CommandSource {
    fn credential(&self) -> BoxFuture<'static, Result<Secret, String>> {
        let command = self.command.clone();
        Box::pin(async move {
            let run = tokio::task::spawn_blocking(move || shell(&command).output());
            let output = run.await.map_err(|e| format!("TINKER_CREDENTIAL_CMD was not run: {e}"))?;
            let output = output.map_err(|e| format!("TINKER_CREDENTIAL_CMD cannot be run: {e}"))?;
            let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            if printed.is_empty() {
                return Err(format!("TINKER_CREDENTIAL_CMD printed no credential ({})", output.status));
            }
            Ok(Secret::new(printed))
        })
    }
}

fn shell(command: &str) -> std::process::Command {
    let (shell, option) = if cfg!(windows) { ("cmd", "/C") } else { ("/bin/sh", "-c") };
    let mut run = std::process::Command::new(shell);
    run.arg(option).arg(command).stdin(std::process::Stdio::null());
    run
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(stored: Option<PathBuf>) -> Environment {
        Environment { base_url: None, api_key: None, command: None, stored, headers: Vec::new() }
    }

    fn key(config: &ApiConfig) -> Option<&str> {
        config.api_key.as_ref().map(Secret::expose)
    }

    #[test]
    fn arguments_come_before_the_environment() {
        let with = || Environment {
            base_url: Some("http://env".to_owned()),
            api_key: Some(Secret::new("tml-env")),
            command: Some("echo no".to_owned()),
            stored: None,
            headers: Vec::new(),
        };
        let config = with().resolve(Some("http://arg"), Some(Secret::new("tml-arg"))).unwrap();
        assert_eq!((config.base_url.as_str(), key(&config)), ("http://arg", Some("tml-arg")));
        let config = with().resolve(Some(""), None).unwrap();
        assert_eq!((config.base_url.as_str(), key(&config)), ("http://env", Some("tml-env")));
        assert!(config.credential_source.is_some(), "for a service that wants short-lived ones");
        // A key that cannot be one gives way to the command.
        let config = with().resolve(None, Some(Secret::new("wrong"))).unwrap();
        assert!(config.api_key.is_none() && config.credential_source.is_some());
    }

    #[test]
    fn a_session_is_labelled_by_the_environment() {
        let labelled = session_options(|name| match name {
            "TINKER_PROJECT_ID" => Some("p".to_owned()),
            "TINKER_TAGS" => Some("a, b,,".to_owned()),
            _ => None,
        });
        assert_eq!(
            (labelled.project_id.as_deref(), labelled.tags),
            (Some("p"), vec!["a".to_owned(), "b".to_owned()])
        );
        let plain = session_options(|_| Some(String::new()));
        assert_eq!((plain.project_id, plain.tags.len()), (None, 0));
    }

    #[test]
    fn telemetry_is_asked_for_in_so_many_words() {
        let wanted = |value: Option<&str>| {
            session_options(|name| (name == TELEMETRY).then_some(value?).map(str::to_owned)).telemetry
        };
        for value in ["1", "TRUE", "yes", "On"] {
            assert!(wanted(Some(value)), "{value}");
        }
        for value in [None, Some(""), Some("0"), Some("off")] {
            assert!(!wanted(value), "{value:?}");
        }
    }

    #[test]
    fn what_stands_before_the_service_gets_its_headers() {
        let environment = |name: &str| match name {
            "CLOUDFLARE_ACCESS_CLIENT_ID" => Some("id".to_owned()),
            "CLOUDFLARE_ACCESS_CLIENT_SECRET" => Some("s3cret".to_owned()),
            "TINKER_API_KEY" => Some("tml-key".to_owned()),
            _ => None,
        };
        let config = resolve(environment, None, None).unwrap();
        let expected = [("cf-access-client-id", "id"), ("cf-access-client-secret", "s3cret")];
        let found: Vec<_> = config.headers.iter().map(|(name, value)| (&**name, value.as_str())).collect();
        assert_eq!(found, expected);
        assert!(!format!("{config:?}").contains("s3cret"));
    }

    #[test]
    fn the_stored_default_is_the_last_resort() {
        let dir = std::env::temp_dir().join(format!("retinker-credentials-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("credentials.json");
        let none = environment(Some(path.clone())).resolve(None, None).unwrap_err().to_string();
        assert!(none.contains("tinker auth login"), "{none}");
        let text = r#"{"version":1,"default":"b","keys":{
            "a":{"type":"manual","key":"tml-a","name":"a"},"b":{"type":"manual","key":"tml-b","name":"b"}}}"#;
        std::fs::write(&path, text).unwrap();
        let config = environment(Some(path.clone())).resolve(None, None).unwrap();
        assert_eq!((config.base_url.as_str(), key(&config)), (DEFAULT_BASE_URL, Some("tml-b")));
        std::fs::write(&path, r#"{"default":"b","keys":{"b":{"key":5,"secret":"tml-b"}}}"#).unwrap();
        let error = environment(Some(path)).resolve(None, None).unwrap_err().to_string();
        assert!(error.contains("credentials.json") && !error.contains("tml-b"), "{error}");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_command_is_asked_each_time() {
        let source = CommandSource { command: "echo tml-$$".to_owned() };
        let first = source.credential().await.unwrap();
        assert!(first.expose().starts_with("tml-"));
        assert_ne!(first, source.credential().await.unwrap());
        let silent = CommandSource { command: "exit 3".to_owned() };
        let error = silent.credential().await.unwrap_err();
        assert!(error.contains("printed no credential") && error.contains('3'), "{error}");
    }
}
