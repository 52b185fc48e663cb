//! `retinker console`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, Result};
use retinker::client::Secret;
use retinker::host::api::ServiceKind;
use retinker_host::{Host, HostConfig, Location, ServiceTarget, Watching};

use crate::say::say;
use crate::{paths, shutdown};

/// What `retinker console` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The Tinker-compatible service to look after. Its key is read from TINKER_API_KEY.
    #[arg(long, env = "TINKER_BASE_URL")]
    base_url: String,
    /// The console's port, at 127.0.0.1; 0 picks a free one.
    #[arg(long, default_value_t = 8787)]
    port: u16,
    /// Where the recovery journal is kept. Default: the user's data directory.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Keep the recovery journal exactly here: a directory, or postgres://user:password@host:port/database where several
    /// machines share it. A password is better given in the environment, which other users of the machine cannot read.
    #[arg(long, value_name = "LOCATION", env = "RETINKER_JOURNAL", hide_env_values = true)]
    journal: Option<Location>,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let key = std::env::var("TINKER_API_KEY").ok().filter(|key| !key.is_empty());
    if !args.base_url.starts_with("http://") && !args.base_url.starts_with("https://") {
        anyhow::bail!(
            "'{}' is not a service's address: give --base-url http://… or https://…",
            args.base_url
        );
    }
    if args.base_url.trim_end_matches('/').ends_with("/api/v1") {
        anyhow::bail!("'{}' is an endpoint's address: leave /api/v1 off the --base-url", args.base_url);
    }
    // A variable that is empty is not set.
    let is_set =
        |journal: &Location| !matches!(journal, Location::Directory(path) if path.as_os_str().is_empty());
    let journal = match args.journal.filter(is_set) {
        Some(journal) => journal,
        None => Location::Directory(
            paths::data_dir(args.data_dir)?.join(format!("host-{}", slug(&args.base_url))),
        ),
    };
    let host = Host::start(HostConfig {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, args.port)),
        service: ServiceTarget {
            name: host_of(&args.base_url).to_owned(),
            kind: ServiceKind::Remote,
            base_url: args.base_url.clone(),
            api_key: key.map(Secret::new),
        },
        journal,
        watching: Watching::default(),
        demo: None,
        token: None,
    })
    .await
    .context("the console could not be started")?;
    say(format_args!("Console: {}", host.console_url()));
    say(format_args!("Service: {}", args.base_url));
    say("Stop with Ctrl-C.");
    shutdown::requested().await;
    host.stop().await;
    Ok(())
}

/// A directory's name for an address: a recovery journal belongs to one service. Should two addresses have the same,
/// the journal refuses the second.
fn slug(base_url: &str) -> String {
    base_url.trim_end_matches('/').replace(|c: char| !c.is_ascii_alphanumeric() && c != '.', "-")
}

/// The host in an address, for a name in the console.
fn host_of(base_url: &str) -> &str {
    let rest = base_url.split_once("://").map_or(base_url, |(_, rest)| rest);
    let rest = rest.split('/').next().unwrap_or(rest);
    rest.rsplit('@').next().unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    #[derive(Debug, clap::Parser)]
    struct Console {
        #[command(flatten)]
        args: super::Args,
    }

    #[test]
    fn no_password_of_a_journal_is_shown() {
        for url in [
            "postgres://me:hunter2@db.example/journal",
            "postgres://me:hunter2@db.example:x",
            "mysql://hunter2",
        ] {
            let parsed =
                Console::try_parse_from(["console", "--base-url", "http://one", "--journal", url]).unwrap();
            assert!(
                parsed.args.journal.is_some() && !format!("{parsed:?}").contains("hunter2"),
                "{parsed:?}"
            );
        }
    }

    #[test]
    fn a_directory_for_an_address() {
        assert_eq!(super::slug("https://tinker.example/services/a/"), "https---tinker.example-services-a");
        assert_eq!(super::slug("http://../.."), "http---..-..");
    }

    #[test]
    fn the_host_of_an_address() {
        for (url, host) in [
            ("https://tinker.example/services/a", "tinker.example"),
            ("http://127.0.0.1:8788", "127.0.0.1:8788"),
            ("https://user:secret@tinker.example", "tinker.example"),
        ] {
            assert_eq!(super::host_of(url), host);
        }
    }
}
