//! `retinker console`.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use retinker::host::api::ServiceKind;
use retinker_host::{Connection, Host, HostConfig, Watching};

use super::connections::{ConnectionArgs, LOCAL, name_of};
use super::redo_logs::RedoArgs;
use super::target::{KEY, Target};
use super::watching::WatchArgs;
use crate::say::say;
use crate::shutdown;

/// What `retinker console` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    connections: ConnectionArgs,
    /// The console's port, at 127.0.0.1; 0 picks a free one.
    #[arg(long, default_value_t = 8787)]
    port: u16,
    #[command(flatten)]
    redo: RedoArgs,
    #[command(flatten)]
    watching: WatchArgs,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let Args { target, connections, port, redo, watching } = args;
    // The service of `retinker up` is meant where nothing is named, and not beside what is.
    let only_named = target.is_default() && connections.is_some();
    if only_named && target.has_journal() {
        anyhow::bail!(
            "--journal (or RETINKER_JOURNAL) belongs to --base-url, which is not given: give each connection its own in a --config file"
        );
    }
    let asked = if only_named { Vec::new() } else { vec![first(&target)?] };
    let mut all = connections.add_to(asked, &target.data_dir()?, |name| std::env::var(name).ok())?;
    let Some(first) = all.first_mut() else {
        anyhow::bail!("the --config file names no connection: give one there, or with --connection NAME=URL")
    };
    let base_url = first.service.base_url.clone();
    let hooks = watching.hooks(&base_url).await?;
    let mut policy = watching.policy()?;
    policy.enabled |= first.watching.policy.enabled;
    first.watching = hooks.watching(policy);
    let told: Vec<_> =
        all.iter().skip(1).map(|one| format!("{} ({})", one.service.base_url, one.name)).collect();
    let host = Host::start(HostConfig {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        connections: all,
        redo_logs: redo.logs(),
        token: None,
    })
    .await
    .context("the console could not be started")?;
    say(format_args!("Console: {}", host.console_url()));
    say(format_args!("Service: {base_url}"));
    for other in told {
        say(format_args!("   also: {other}"));
    }
    say("Stop with Ctrl-C.");
    shutdown::requested().await;
    host.stop().await;
    hooks.drain().await;
    Ok(())
}

/// The service that --base-url names, else that of `retinker up`.
fn first(target: &Target) -> Result<Connection> {
    let service = target.service()?;
    let (name, key_from) = match service.kind {
        ServiceKind::Local => (LOCAL.to_owned(), String::new()),
        ServiceKind::Remote => (name_of(&service.name), KEY.to_owned()),
    };
    Ok(Connection {
        name,
        service,
        key_from,
        journal: target.journal()?,
        watching: Watching::default(),
        demo: None,
    })
}
