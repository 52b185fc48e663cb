//! Which services a console stands before. They are named here, on the host's side, and never by a page: an address that a
//! page could choose would be sent a key.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use retinker::client::Secret;
use retinker::host::api::is_connection_name;
use retinker::recovery::policy::Policy;
use retinker_host::{Connection, Location, Watching};
use serde::Deserialize;

use super::target::{named_journal, remote};

/// The options that say so.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Connections")]
pub(crate) struct ConnectionArgs {
    /// Stand before this service too; the console switches between them. Its key is read from TINKER_API_KEY_NAME, with the
    /// name in capitals and '_' for '-' and '.'. Can be given several times.
    #[arg(long = "connection", value_name = "NAME=URL")]
    named: Vec<Named>,
    /// A file of TOML with more of them; see docs/console.md.
    #[arg(long, value_name = "FILE", env = "RETINKER_CONFIG")]
    config: Option<PathBuf>,
}

/// `NAME=URL`.
#[derive(Debug, Clone)]
struct Named {
    name: String,
    base_url: String,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, base_url) =
            text.split_once('=').ok_or("it is NAME=URL, such as lab=https://tinker.example")?;
        if !is_connection_name(name) {
            return Err(format!(
                "'{name}' is no name: letters, digits, '-', '_' and '.', beginning with a letter or digit"
            ));
        }
        Ok(Self { name: name.to_owned(), base_url: base_url.to_owned() })
    }
}

/// A file of connections.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    connection: Vec<Written>,
}

/// One of them. There is no place for a key: it would be read by whoever reads the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    base_url: String,
    api_key_env: Option<String>,
    journal: Option<String>,
    #[serde(default)]
    auto_restore: bool,
}

impl From<Named> for Written {
    fn from(Named { name, base_url }: Named) -> Self {
        Self { name, base_url, api_key_env: None, journal: None, auto_restore: false }
    }
}

/// The connection to the service of `retinker up`.
pub(crate) const LOCAL: &str = "local";

/// A connection's name for a host's name.
pub(crate) fn name_of(host: &str) -> String {
    let name = host.replace(|c: char| !c.is_ascii_alphanumeric() && c != '.', "-");
    let name = name.trim_start_matches(['-', '.']);
    match name.get(..name.len().min(64)) {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => "service".to_owned(),
    }
}

impl ConnectionArgs {
    /// Whether any is given.
    pub(crate) fn is_some(&self) -> bool {
        !self.named.is_empty() || self.config.as_ref().is_some_and(|path| !path.as_os_str().is_empty())
    }

    /// All of them, after those that there are already. `env` reads a variable.
    pub(crate) fn add_to(
        &self,
        mut connections: Vec<Connection>,
        data_dir: &Path,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Vec<Connection>> {
        let named = self.named.iter().cloned().map(Written::from);
        let written = match self.config.as_deref().filter(|path| !path.as_os_str().is_empty()) {
            Some(path) => read(path)?.connection,
            None => Vec::new(),
        };
        for one in named.chain(written) {
            let name = one.name.clone();
            let connection =
                one.connection(data_dir, &env).with_context(|| format!("connection '{name}'"))?;
            connections.push(connection);
        }
        each_key_for_one_address(&connections)?;
        each_journal_for_one_connection(&connections)?;
        Ok(connections)
    }
}

fn read(path: &Path) -> Result<File> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("the connections in {} cannot be read", path.display()))?;
    toml::from_str(&text).map_err(|error| {
        // The error shows its line, which may hold what should not have been written there.
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        anyhow::anyhow!(
            "the connections in {} make no sense at line {line}: {}",
            path.display(),
            error.message()
        )
    })
}

impl Written {
    fn connection(self, data_dir: &Path, env: impl Fn(&str) -> Option<String>) -> Result<Connection> {
        let key_from = self.api_key_env.unwrap_or_else(|| key_variable(&self.name));
        let key = env(&key_from).filter(|key| !key.is_empty()).map(Secret::new);
        let mut service = remote(&self.base_url, key)?;
        service.name.clone_from(&self.name);
        let journal = match self.journal {
            Some(place) => Location::from(OsString::from(place)),
            None => named_journal(data_dir, &self.base_url),
        };
        let policy = Policy { enabled: self.auto_restore, ..Policy::default() };
        let watching = Watching { policy, ..Watching::default() };
        Ok(Connection { name: self.name, service, key_from, journal, watching, demo: None })
    }
}

/// The variable that holds a connection's key, where nobody says otherwise.
fn key_variable(name: &str) -> String {
    let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    format!("TINKER_API_KEY_{}", name.to_ascii_uppercase())
}

/// A key belongs to the address that it was given for.
fn each_key_for_one_address(connections: &[Connection]) -> Result<()> {
    let mut known: BTreeMap<&str, &Connection> = BTreeMap::new();
    for connection in connections.iter().filter(|connection| !connection.key_from.is_empty()) {
        let earlier = known.entry(&connection.key_from).or_insert(connection);
        if address(earlier) != address(connection) {
            bail!(
                "connections '{}' and '{}' have different addresses, and both would be sent the key in {}: name another variable \
                 with api_key_env in the --config file, or another connection",
                earlier.name,
                connection.name,
                connection.key_from
            );
        }
    }
    Ok(())
}

fn address(connection: &Connection) -> &str {
    connection.service.base_url.trim_end_matches('/')
}

fn each_journal_for_one_connection(connections: &[Connection]) -> Result<()> {
    let mut known: BTreeMap<String, &str> = BTreeMap::new();
    for connection in connections {
        let place = match &connection.journal {
            Location::Directory(path) => path.display().to_string(),
            Location::Database(url) => url.expose().to_owned(),
        };
        if let Some(earlier) = known.insert(place, &connection.name) {
            bail!(
                "connections '{earlier}' and '{}' would keep their restores in one place, {}: give one of them a journal of its own in \
                 the --config file",
                connection.name,
                connection.journal
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        connections: ConnectionArgs,
    }

    fn made(words: &[&str], env: &[(&str, &str)]) -> Result<Vec<Connection>> {
        let args = Line::try_parse_from(["x"].iter().chain(words))?.connections;
        let env =
            |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        args.add_to(Vec::new(), Path::new("/d"), env)
    }

    fn refused(words: &[&str]) -> String {
        format!("{:#}", made(words, &[]).unwrap_err())
    }

    fn file(text: &str) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("connections.toml");
        std::fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap().to_owned();
        (dir, path)
    }

    #[test]
    fn each_has_its_own_key_and_journal() {
        let env = [
            ("TINKER_API_KEY", "tml-first"),
            ("TINKER_API_KEY_LAB_2", "tml-lab"),
            ("ELSEWHERE", "tml-elsewhere"),
        ];
        let (_dir, path) = file(
            "[[connection]]\nname = 'hosted'\nbase_url = 'https://t.example'\napi_key_env = 'ELSEWHERE'\n\
             journal = '/j'\nauto_restore = true\n",
        );
        let words =
            ["--connection", "lab-2=http://lab:8000", "--connection", "bare=http://b", "--config", &path];
        let made = made(&words, &env).unwrap();
        let key = |at: usize| made[at].service.api_key.as_ref().map(|key: &Secret| key.expose().to_owned());
        assert_eq!(
            (key(0).as_deref(), key(1), key(2).as_deref()),
            (Some("tml-lab"), None, Some("tml-elsewhere"))
        );
        assert_eq!(made.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["lab-2", "bare", "hosted"]);
        assert_eq!(
            (made[1].key_from.as_str(), made[1].service.name.as_str()),
            ("TINKER_API_KEY_BARE", "bare")
        );
        assert!(
            matches!(&made[0].journal, Location::Directory(path) if path == Path::new("/d/host-http---lab-8000"))
        );
        assert!(matches!(&made[2].journal, Location::Directory(path) if path == Path::new("/j")));
        assert_eq!(
            made.iter().map(|one| one.watching.policy.enabled).collect::<Vec<_>>(),
            [false, false, true]
        );
    }

    #[test]
    fn a_hosts_name_is_made_a_connections() {
        for (host, name) in [
            ("tinker.example", "tinker.example"),
            ("127.0.0.1:8788", "127.0.0.1-8788"),
            ("[::1]:8", "1--8"),
            ("é", "service"),
        ] {
            assert_eq!(name_of(host), name);
            assert!(is_connection_name(&name_of(host)));
        }
        assert_eq!(name_of(&"x".repeat(90)).len(), 64);
    }

    #[test]
    fn no_key_is_sent_to_two_addresses() {
        let text = refused(&["--connection", "a-b=http://one", "--connection", "a.b=http://two"]);
        assert!(text.contains("both would be sent the key in TINKER_API_KEY_A_B"), "{text}");
        // The same address twice is two accounts of one service: their restores are not mixed.
        let text = refused(&["--connection", "a=http://one", "--connection", "b=http://one/"]);
        assert!(text.contains("'a' and 'b' would keep their restores in one place"), "{text}");
    }

    #[test]
    fn what_makes_no_sense_is_told_and_no_key_with_it() {
        for (word, said) in [
            ("lab", "NAME=URL"),
            ("a b=http://x", "is no name"),
            ("=http://x", "is no name"),
            ("lab=tinker.example", "connection 'lab': 'tinker.example' is not a service's address"),
            ("lab=http://x/api/v1", "leave /api/v1 off"),
        ] {
            let text = refused(&["--connection", word]);
            assert!(text.contains(said), "{text}");
        }
        let (_dir, path) =
            file("[[connection]]\nname = 'a'\nbase_url = 'http://x'\napi_key = 'tml-hunter2'\n");
        let text = refused(&["--config", &path]);
        assert!(
            text.contains("line 4") && text.contains("api_key_env") && !text.contains("hunter2"),
            "{text}"
        );
        assert!(refused(&["--config", "/none"]).starts_with("the connections in /none cannot be read"));
    }
}
