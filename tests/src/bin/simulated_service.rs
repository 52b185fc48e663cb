//! A service of any number of runs over HTTP, for the console: prints its address, and serves until it is ended.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use retinker_tests::simulated::{Service, http};
use tokio::net::TcpListener;

#[derive(Debug, Parser)]
struct Args {
    /// How many runs there are.
    #[arg(long, default_value_t = 10_000)]
    runs: u64,
    /// One in so many is poisoned; 0 for none.
    #[arg(long, default_value_t = 199)]
    every: u64,
    /// So many of the newest have a session that lasts.
    #[arg(long, default_value_t = 20)]
    lasting: u64,
    /// The newest runs have names and labels that no page should stumble over.
    #[arg(long)]
    odd: bool,
    /// Every so many milliseconds some runs change; 0 for never.
    #[arg(long, default_value_t = 0)]
    change_every_ms: u64,
    /// How many then change.
    #[arg(long, default_value_t = 1)]
    changing: u64,
    /// The port at 127.0.0.1; 0 picks a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let mut service = Service::varied(args.runs, args.every, args.lasting, http::now());
    service.odd = args.odd;
    let service = Arc::new(service);
    if args.change_every_ms > 0 {
        let every = Duration::from_millis(args.change_every_ms);
        tokio::spawn(http::keep_changing(Arc::clone(&service), every, args.changing));
    }
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("{address} cannot be listened at"))?;
    println!("Service: http://{}", listener.local_addr()?);
    http::serve(service, listener).await
}
