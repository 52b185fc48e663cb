//! `retinker console`.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use retinker_host::{Host, HostConfig};

use super::target::Target;
use super::watching::WatchArgs;
use crate::say::say;
use crate::shutdown;

/// What `retinker console` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// The console's port, at 127.0.0.1; 0 picks a free one.
    #[arg(long, default_value_t = 8787)]
    port: u16,
    #[command(flatten)]
    watching: WatchArgs,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let service = args.target.service()?;
    let base_url = service.base_url.clone();
    let hooks = args.watching.hooks(&base_url).await?;
    let host = Host::start(HostConfig {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, args.port)),
        service,
        journal: args.target.journal()?,
        watching: hooks.watching(args.watching.policy()?),
        demo: None,
        token: None,
    })
    .await
    .context("the console could not be started")?;
    say(format_args!("Console: {}", host.console_url()));
    say(format_args!("Service: {base_url}"));
    say("Stop with Ctrl-C.");
    shutdown::requested().await;
    host.stop().await;
    hooks.drain().await;
    Ok(())
}
