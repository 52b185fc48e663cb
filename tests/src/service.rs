//! The embedded service as a process of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, Result};
use retinker::client::{Api, ApiConfig};
use retinker::native::{NativeRuntime, NativeTransport};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// A running `retinker local`; killed when dropped.
#[derive(Debug)]
pub struct ServiceProcess {
    child: Child,
    /// Kept open: what the service says later must find an ear.
    _stdout: Lines<BufReader<ChildStdout>>,
    /// Where it listens.
    pub base_url: String,
}

impl ServiceProcess {
    /// Starts the binary named by `RETINKER_BIN` on this data directory.
    pub async fn start(data_dir: &Path) -> Result<Self> {
        let binary = std::env::var_os("RETINKER_BIN")
            .map(PathBuf::from)
            .context("RETINKER_BIN names no binary: use `cargo xtask`")?;
        let mut child = Command::new(binary)
            .args(["local", "--port", "0", "--data-dir"])
            .arg(data_dir)
            .env("RETINKER_LOG", "error")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("the service could not be started")?;
        let stdout = child.stdout.take().context("the service has no output")?;
        let mut lines = BufReader::new(stdout).lines();
        while let Some(line) = lines.next_line().await? {
            if let Some(url) = line.split_whitespace().find(|word| word.starts_with("http://")) {
                let base_url = url.to_owned();
                return Ok(Self { child, _stdout: lines, base_url });
            }
        }
        anyhow::bail!("the service ended before it said where it listens")
    }

    /// A client of it.
    pub fn api(&self) -> Result<Api> {
        let config = ApiConfig { base_url: self.base_url.clone(), ..ApiConfig::default() };
        let runtime = NativeRuntime::current().context("there is no tokio runtime")?;
        Ok(Api::new(config, Arc::new(NativeTransport::new()?), Arc::new(runtime))?)
    }

    /// SIGKILL, and waits for the process to be gone.
    pub async fn kill(mut self) -> Result<()> {
        self.child.kill().await.context("the service could not be killed")
    }
}
