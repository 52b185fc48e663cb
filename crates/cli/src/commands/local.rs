//! `retinker local`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::Result;
use retinker_local::{LocalConfig, LocalService};

use crate::say::say;
use crate::{paths, shutdown};

/// What `retinker local` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The port to listen on, at 127.0.0.1; 0 picks a free one.
    #[arg(long, default_value_t = 8788)]
    port: u16,
    /// Where checkpoints and the database are kept. Default: the user's data directory.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// How many threads the training computes with. Default: one for each core.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Require this key of every request. Default: any key, or none, is taken on this machine.
    #[arg(long, env = "RETINKER_LOCAL_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    if args.api_key.as_deref().is_some_and(|key| key.is_empty() || !key.bytes().all(|b| b.is_ascii_graphic()))
    {
        anyhow::bail!(
            "--api-key is empty or holds characters that no header can carry: give it printable ASCII"
        );
    }
    // A key that was chosen is not repeated on the screen.
    let key = if args.api_key.is_some() { "…the key given" } else { "tml-local" };
    let defaults = LocalConfig::new(paths::data_dir(args.data_dir)?.join("service"));
    let config = LocalConfig {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, args.port)),
        api_key: args.api_key,
        threads: args.threads.map_or(defaults.threads, usize::from),
        ..defaults
    };
    let service = LocalService::start(config).await?;
    say(format_args!("Tinker-compatible service: {}", service.base_url()));
    say(format_args!("  export TINKER_BASE_URL={} TINKER_API_KEY={key}", service.base_url()));
    say("Stop with Ctrl-C.");
    shutdown::requested().await;
    service.stop().await;
    Ok(())
}
