//! Keeps house among checkpoints: lists them, lets old ones expire, and downloads one.
//!
//! ```sh
//! export TINKER_BASE_URL=http://127.0.0.1:8788 TINKER_API_KEY=tml-local
//! cargo run -p retinker --example checkpoints -- list
//! cargo run -p retinker --example checkpoints -- expire tinker://RUN/weights/step-10 3600
//! cargo run -p retinker --example checkpoints -- download tinker://RUN/weights/step-10 ./step-10
//! ```
#![allow(clippy::disallowed_methods)] // This is the program, which reads its environment.

use std::path::Path;
use std::sync::Arc;

use futures_util::StreamExt;
use retinker::client::{Api, RestClient};
use retinker::native::{NativeRuntime, NativeTransport, download_archive, resolve};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let config = resolve(|name| std::env::var(name).ok(), None, None)?;
    let runtime = NativeRuntime::current().ok_or("there is no tokio runtime")?;
    let rest = RestClient::new(Api::new(config, Arc::new(NativeTransport::new()?), Arc::new(runtime))?);
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["list"] => {
            let mut pages = Box::pin(rest.user_checkpoints(100));
            while let Some(page) = pages.next().await {
                for checkpoint in page? {
                    let kib = checkpoint.size_bytes.unwrap_or_default() / 1024;
                    println!("{}  {kib:>8} KiB  {}", checkpoint.time, checkpoint.tinker_path);
                }
            }
        }
        ["expire", path, seconds] => {
            rest.set_checkpoint_ttl_from_tinker_path(path, Some(seconds.parse()?)).await?;
            println!("{path} is deleted in {seconds} s");
        }
        ["download", path, directory] => {
            let show = |progress: retinker::native::Progress| eprint!("\r{} bytes", progress.received);
            let files = download_archive(&rest, path, Path::new(directory), show).await?;
            eprintln!();
            files.iter().for_each(|file| println!("{}", file.display()));
        }
        _ => return Err("usage: checkpoints list | expire PATH SECONDS | download PATH DIRECTORY".into()),
    }
    Ok(())
}
