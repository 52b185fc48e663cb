//! Which service and which journal a command is about.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use retinker::client::Secret;
use retinker::host::api::ServiceKind;
use retinker::recovery::events::EventSink;
use retinker::recovery::policy::Policy;
use retinker::recovery::restore::RestoreRecord;
use retinker_host::{Keeper, Location, ServiceTarget, asker};

use crate::{demo, paths};

/// The options that say so. Without an address it is the service of `retinker up`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Target {
    /// The Tinker-compatible service. Its key is read from TINKER_API_KEY. Default: the one that 'retinker up' runs.
    #[arg(long, env = "TINKER_BASE_URL")]
    base_url: Option<String>,
    /// The port of the service that 'retinker up' runs, where --base-url is not given.
    #[arg(long, default_value_t = 8788, conflicts_with = "base_url")]
    service_port: u16,
    /// Where the recovery journal is kept, as given to 'retinker up' or 'retinker console'. Default: the user's data directory.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Keep the recovery journal exactly here: a directory, or postgres://user:password@host:port/database where several
    /// machines share it. A password is better given in the environment, which other users of the machine cannot read.
    #[arg(long, value_name = "LOCATION", env = "RETINKER_JOURNAL", hide_env_values = true)]
    journal: Option<Location>,
}

impl Target {
    /// One that is no more than an address.
    #[cfg(test)]
    pub(crate) fn of(base_url: &str) -> Self {
        Self { base_url: Some(base_url.to_owned()), service_port: 8788, data_dir: None, journal: None }
    }

    /// The service.
    pub(crate) fn service(&self) -> Result<ServiceTarget> {
        let Some(base_url) = self.base_url.as_deref().filter(|url| !url.is_empty()) else {
            return Ok(ServiceTarget {
                name: "local service".to_owned(),
                kind: ServiceKind::Local,
                base_url: format!("http://127.0.0.1:{}", self.service_port),
                api_key: Some(Secret::new(demo::KEY)),
            });
        };
        let key = std::env::var(KEY).ok().filter(|key| !key.is_empty());
        remote(base_url, key.map(Secret::new))
    }

    /// Whether no service is named.
    pub(crate) fn is_default(&self) -> bool {
        self.base_url.as_deref().is_none_or(str::is_empty)
    }

    /// Whether a place for the journal is given.
    pub(crate) fn has_journal(&self) -> bool {
        self.journal.as_ref().is_some_and(is_set)
    }

    /// The directory that everything is kept in.
    pub(crate) fn data_dir(&self) -> Result<PathBuf> {
        paths::data_dir(self.data_dir.clone())
    }

    /// The journal.
    pub(crate) fn journal(&self) -> Result<Location> {
        if let Some(journal) = self.journal.clone().filter(is_set) {
            return Ok(journal);
        }
        let data_dir = self.data_dir()?;
        Ok(match self.base_url.as_deref().filter(|url| !url.is_empty()) {
            Some(base_url) => named_journal(&data_dir, base_url),
            None => Location::Directory(data_dir.join("host")),
        })
    }

    /// Both, put together.
    pub(crate) async fn keeper(
        &self,
        policy: Policy,
        sink: Arc<dyn EventSink>,
        progress: impl Fn(&RestoreRecord) + Send + Sync + 'static,
    ) -> Result<Keeper> {
        Ok(Keeper::open(
            &asker("the command line"),
            &self.service()?,
            self.journal()?,
            policy,
            sink,
            progress,
        )
        .await?)
    }

    /// The same for a command that begins nothing by itself.
    pub(crate) async fn reader(&self) -> Result<Keeper> {
        self.keeper(Policy::default(), nobody(), |_| {}).await
    }
}

/// The variable that holds the key of the service that --base-url names.
pub(crate) const KEY: &str = "TINKER_API_KEY";

/// A service by its address.
pub(crate) fn remote(base_url: &str, api_key: Option<Secret>) -> Result<ServiceTarget> {
    if !base_url.starts_with("http://") && !base_url.starts_with("https://") {
        anyhow::bail!("'{base_url}' is not a service's address: give --base-url http://… or https://…");
    }
    if base_url.trim_end_matches('/').ends_with("/api/v1") {
        anyhow::bail!("'{base_url}' is an endpoint's address: leave /api/v1 off the --base-url");
    }
    Ok(ServiceTarget {
        name: host_of(base_url).to_owned(),
        kind: ServiceKind::Remote,
        base_url: base_url.to_owned(),
        api_key,
    })
}

/// Where the journal of the service at this address is kept.
pub(crate) fn named_journal(data_dir: &Path, base_url: &str) -> Location {
    Location::Directory(data_dir.join(format!("host-{}", slug(base_url))))
}

/// A variable that is empty is not set.
fn is_set(journal: &Location) -> bool {
    !matches!(journal, Location::Directory(path) if path.as_os_str().is_empty())
}

/// Who hears of events where the command itself tells what happens.
pub(crate) fn nobody() -> Arc<dyn EventSink> {
    Arc::new(Vec::<Arc<dyn EventSink>>::new())
}

/// A directory's name for an address: a recovery journal belongs to one service. Should two addresses have the same,
/// the journal refuses the second.
fn slug(base_url: &str) -> String {
    base_url.trim_end_matches('/').replace(|c: char| !c.is_ascii_alphanumeric() && c != '.', "-")
}

/// The host in an address, for a name in the console.
pub(crate) fn host_of(base_url: &str) -> &str {
    let rest = base_url.split_once("://").map_or(base_url, |(_, rest)| rest);
    let rest = rest.split('/').next().unwrap_or(rest);
    rest.rsplit('@').next().unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        target: Target,
    }

    #[test]
    fn no_password_of_a_journal_is_shown() {
        for url in [
            "postgres://me:hunter2@db.example/journal",
            "postgres://me:hunter2@db.example:x",
            "mysql://hunter2",
        ] {
            let parsed = Line::try_parse_from(["x", "--base-url", "http://one", "--journal", url]).unwrap();
            assert!(
                parsed.target.journal.is_some() && !format!("{parsed:?}").contains("hunter2"),
                "{parsed:?}"
            );
        }
    }

    #[test]
    fn without_an_address_it_is_the_service_of_up_and_its_journal() {
        let target = Line::try_parse_from(["x", "--data-dir", "/d", "--service-port", "9"]).unwrap().target;
        let service = target.service().unwrap();
        assert_eq!((service.kind, service.base_url.as_str()), (ServiceKind::Local, "http://127.0.0.1:9"));
        assert!(
            matches!(target.journal().unwrap(), Location::Directory(path) if path == std::path::Path::new("/d/host"))
        );
    }

    #[test]
    fn addresses_that_are_none_are_told() {
        for (url, said) in
            [("one", "is not a service's address"), ("http://one/api/v1/", "leave /api/v1 off")]
        {
            let error = Target::of(url).service().unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_directory_for_an_address() {
        assert_eq!(slug("https://tinker.example/services/a/"), "https---tinker.example-services-a");
        assert_eq!(slug("http://../.."), "http---..-..");
    }

    #[test]
    fn the_host_of_an_address() {
        for (url, host) in [
            ("https://tinker.example/services/a", "tinker.example"),
            ("http://127.0.0.1:8788", "127.0.0.1:8788"),
            ("https://user:secret@tinker.example", "tinker.example"),
        ] {
            assert_eq!(host_of(url), host);
        }
    }
}
