//! `retinker up`: the embedded service and the console in one process.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use retinker::client::Secret;
use retinker::host::api::{DemoProgress, ServiceKind};
use retinker_host::{Connection, Demo, Host, HostConfig, Location, ServiceTarget};
use retinker_local::{LocalConfig, LocalService};
use tokio::sync::{Notify, watch};

use super::connections::{ConnectionArgs, LOCAL};
use super::redo_logs::RedoArgs;
use super::watching::WatchArgs;
use crate::say::say;
use crate::{demo, paths, shutdown};

/// What `retinker up` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The console's port, at 127.0.0.1; 0 picks a free one.
    #[arg(long, default_value_t = 8787)]
    port: u16,
    /// The service's port, at 127.0.0.1; 0 picks a free one.
    #[arg(long, default_value_t = 8788)]
    service_port: u16,
    /// Where everything is kept. Default: the user's data directory.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Let the service be made to fail: see 'retinker local fault --help'.
    #[arg(long)]
    faults: bool,
    /// Leave an empty data directory empty. The console's first page can still begin the demonstration.
    #[arg(long)]
    no_demo: bool,
    #[command(flatten)]
    connections: ConnectionArgs,
    #[command(flatten)]
    redo: RedoArgs,
    #[command(flatten)]
    watching: WatchArgs,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    if args.port == args.service_port && args.port != 0 {
        anyhow::bail!("--port and --service-port are both {}: give them different numbers", args.port);
    }
    let data_dir = paths::data_dir(args.data_dir)?;
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let service = LocalService::start(LocalConfig {
        listen: local(args.service_port),
        faults: args.faults,
        port_option: "--service-port",
        ..LocalConfig::new(data_dir.join("service"))
    })
    .await?;
    let marker = demo::Marker::new(&data_dir);
    let show_demo = !args.no_demo && (service.is_empty() || marker.is_there());
    let (progress, watched) = watch::channel(DemoProgress::default());
    let begin = Arc::new(Notify::new());
    if show_demo {
        begin.notify_one();
    }
    let hooks = args.watching.hooks(&service.base_url()).await?;
    let embedded = Connection {
        name: LOCAL.to_owned(),
        service: ServiceTarget {
            name: "local service".to_owned(),
            kind: ServiceKind::Local,
            base_url: service.base_url(),
            api_key: Some(Secret::new(demo::KEY)),
        },
        key_from: String::new(),
        journal: Location::Directory(data_dir.join("host")),
        watching: hooks.watching(args.watching.policy()?),
        demo: Some(Demo { progress: watched, begin: Arc::clone(&begin) }),
    };
    let connections = args.connections.add_to(vec![embedded], &data_dir, |name| std::env::var(name).ok())?;
    let host = Host::start(HostConfig {
        listen: local(args.port),
        connections,
        redo_logs: args.redo.logs(),
        token: None,
    })
    .await?;
    say("");
    say(format_args!("  Console: {}", host.console_url()));
    say(format_args!("  Service: {}   (for training programs: TINKER_BASE_URL)", service.base_url()));
    say(format_args!("  Data:    {}", data_dir.display()));
    say("");
    say("Stop with Ctrl-C.");
    if show_demo {
        say("Training a few demonstration runs, for less than a minute.");
    }
    let demo = {
        let (base_url, faults) = (service.base_url(), service.faults());
        tokio::spawn(async move {
            begin.notified().await;
            demo::run(base_url, faults, marker, progress).await;
        })
    };
    shutdown::requested().await;
    demo.abort();
    host.stop().await;
    hooks.drain().await;
    service.stop().await;
    Ok(())
}
