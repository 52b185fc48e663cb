//! `retinker local`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::Result;
use bytesize::ByteSize;
use clap::Subcommand;
use retinker_local::{LocalConfig, LocalService};

use super::fault;
use crate::say::say;
use crate::{paths, shutdown};

const EXAMPLES: &str = "\
Examples:
  retinker local                                      on this machine, at port 8788, for any key
  retinker local --faults                             and able to fail: see 'retinker local fault --help'
  retinker local --listen 0.0.0.0 --api-key tml-...   for other machines
  retinker local --cors-origin http://localhost:3000  for a web page that you develop";

/// What `retinker local` takes.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// The port to listen on; 0 picks a free one.
    #[arg(long, default_value_t = 8788)]
    port: u16,
    /// Where checkpoints and the database are kept. Default: the user's data directory.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// How many threads the training computes with. Default: one for each core.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// How much memory runs may fill, such as 512MiB; what is not in use beyond it is put aside on disk.
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    memory_limit: ByteSize,
    /// How many bytes of training requests may wait; beyond it they are answered 429, and clients try again.
    #[arg(long, value_name = "SIZE", default_value = "512MiB")]
    queue_limit: ByteSize,
    /// Require this key of every request. Default: any key is taken, on this machine only.
    #[arg(long, env = "RETINKER_LOCAL_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// The address to listen on. Any but this machine's own needs --api-key.
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    listen: IpAddr,
    /// Let web pages of this origin call the service, such as http://localhost:3000. Can be given several times.
    #[arg(long = "cors-origin", value_name = "ORIGIN")]
    cors_origins: Vec<String>,
    /// Let the service be made to fail: see 'retinker local fault --help'.
    #[arg(long)]
    faults: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a running service fail on purpose.
    Fault(fault::Args),
}

pub(crate) async fn run(args: Args) -> Result<()> {
    if let Some(Command::Fault(args)) = args.command {
        return fault::run(args).await;
    }
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
        listen: SocketAddr::from((args.listen, args.port)),
        api_key: args.api_key,
        cors_origins: args.cors_origins,
        faults: args.faults,
        threads: args.threads.map_or(defaults.threads, usize::from),
        memory_limit: args.memory_limit.as_u64(),
        queue_limit: args.queue_limit.as_u64(),
        ..defaults
    };
    let service = LocalService::start(config).await?;
    say(format_args!("Tinker-compatible service: {}", service.base_url()));
    say(format_args!("  export TINKER_BASE_URL={} TINKER_API_KEY={key}", service.base_url()));
    if args.faults {
        say(format_args!(
            "  retinker local fault list --url {}   (and other ways to make it fail)",
            service.base_url()
        ));
    }
    say("Stop with Ctrl-C.");
    shutdown::requested().await;
    service.stop().await;
    Ok(())
}
