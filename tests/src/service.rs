//! The embedded service as a process of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, Result};
use retinker::client::{Api, ApiConfig, Secret};
use retinker::host::HostClient;
use retinker::native::{NativeRuntime, NativeTransport};
use retinker::transport::{Method, Request, Transport};
use retinker_local::{LocalConfig, LocalService};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// A running `retinker`; killed when dropped.
#[derive(Debug)]
struct Process {
    child: Child,
    /// Kept open: what the program says later must find an ear.
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts the binary, and reads what it says until it has told this many addresses.
    async fn start(arguments: &[&str], data_dir: &Path, addresses: usize) -> Result<(Self, Vec<String>)> {
        let mut child = Command::new(binary()?)
            .args(arguments)
            .arg("--data-dir")
            .arg(data_dir)
            .env("RETINKER_LOG", "error")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("retinker could not be started")?;
        let stdout = child.stdout.take().context("retinker has no output")?;
        let mut lines = BufReader::new(stdout).lines();
        let mut found = Vec::new();
        while found.len() < addresses {
            let line = lines.next_line().await?.context("retinker ended before it said where it listens")?;
            found.extend(line.split_whitespace().find(|word| word.starts_with("http://")).map(str::to_owned));
        }
        Ok((Self { child, _stdout: lines }, found))
    }

    async fn kill(mut self) -> Result<()> {
        self.child.kill().await.context("retinker could not be killed")
    }
}

/// The `retinker` binary: the one that `RETINKER_BIN` names, which `cargo xtask` sets, else the one in the target
/// directory of this very program, as old as it may be.
pub fn binary() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("RETINKER_BIN").filter(|named| !named.is_empty()) {
        return Ok(named.into());
    }
    let program = std::env::current_exe()?;
    let name = format!("retinker{}", std::env::consts::EXE_SUFFIX);
    // A test is one directory further down.
    let places = program.ancestors().skip(1).take(2).map(|place| place.join(&name));
    let built = places.into_iter().find(|place| place.is_file());
    built.context(
        "there is no retinker binary: use `cargo xtask`, or `cargo build --package retinker-cli` first",
    )
}

/// A client of the service at this address.
pub fn api(base_url: &str) -> Result<Api> {
    api_over(NativeTransport::new()?, base_url)
}

/// The same by a transport of one's own.
pub fn api_over(transport: NativeTransport, base_url: &str) -> Result<Api> {
    let key = Some(Secret::new("tml-test"));
    let config = ApiConfig { base_url: base_url.to_owned(), api_key: key, ..ApiConfig::default() };
    Ok(Api::new(config, Arc::new(transport), Arc::new(runtime()?))?)
}

/// The embedded service in this process, with its faults, in a directory of its own, and a client of it.
pub async fn embedded() -> Result<(TempDir, LocalService, Api)> {
    embedded_with(|config| config).await
}

/// The same, able to fail by rules.
pub async fn faulty() -> Result<(TempDir, LocalService, Api)> {
    embedded_with(|config| LocalConfig { faults: true, ..config }).await
}

async fn embedded_with(
    change: impl FnOnce(LocalConfig) -> LocalConfig,
) -> Result<(TempDir, LocalService, Api)> {
    let dir = tempfile::tempdir()?;
    let service = LocalService::start(change(LocalConfig::new(dir.path()))).await?;
    let api = api(&service.base_url())?;
    Ok((dir, service, api))
}

fn runtime() -> Result<NativeRuntime> {
    NativeRuntime::current().context("there is no tokio runtime")
}

/// A running `retinker local`; killed when dropped.
#[derive(Debug)]
pub struct ServiceProcess {
    process: Process,
    transport: NativeTransport,
    /// Where it listens.
    pub base_url: String,
}

impl ServiceProcess {
    /// Starts it on this data directory.
    pub async fn start(data_dir: &Path) -> Result<Self> {
        Self::start_with(data_dir, &[]).await
    }

    /// Starts it on this data directory, with more options.
    pub async fn start_with(data_dir: &Path, options: &[&str]) -> Result<Self> {
        let arguments = [&["local", "--port", "0"], options].concat();
        let (process, addresses) = Process::start(&arguments, data_dir, 1).await?;
        let base_url = addresses.into_iter().next().unwrap_or_default();
        Ok(Self { process, transport: NativeTransport::new()?, base_url })
    }

    /// A client of it.
    pub fn api(&self) -> Result<Api> {
        api(&self.base_url)
    }

    /// Poisons a run of a service that was started with faults; answers the status.
    pub async fn poison(&self, run_id: &str) -> Result<u16> {
        let body = serde_json::json!({ "run_id": run_id, "reason": "a backend failed" }).to_string();
        let request = Request {
            method: Method::Post,
            url: format!("{}/retinker/local/v1/faults/poison", self.base_url),
            headers: vec![("content-type".into(), "application/json".to_owned())],
            body: body.into(),
        };
        Ok(self.transport.send(request).await?.status)
    }

    /// The process's number, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.process.child.id()
    }

    /// SIGKILL, and waits for the process to be gone.
    pub async fn kill(self) -> Result<()> {
        self.process.kill().await
    }
}

/// A running `retinker up`, service and host in one; killed when dropped.
#[derive(Debug)]
pub struct UpProcess {
    process: Process,
    console_url: String,
    base_url: String,
}

impl UpProcess {
    /// Starts it on this data directory, without the demonstration.
    pub async fn start(data_dir: &Path) -> Result<Self> {
        let arguments = ["up", "--no-demo", "--port", "0", "--service-port", "0"];
        let (process, addresses) = Process::start(&arguments, data_dir, 2).await?;
        let [console_url, base_url] = <[String; 2]>::try_from(addresses)
            .map_err(|found| anyhow::anyhow!("retinker told {} addresses instead of two", found.len()))?;
        Ok(Self { process, console_url, base_url })
    }

    /// A client of the service.
    pub fn api(&self) -> Result<Api> {
        api(&self.base_url)
    }

    /// A client of the host.
    pub fn host(&self) -> Result<HostClient> {
        let (address, token) = self.console_url.split_once("/#token=").context("the console has no token")?;
        Ok(HostClient::new(
            Arc::new(NativeTransport::new()?),
            Arc::new(runtime()?),
            address,
            Secret::new(token),
        ))
    }

    /// SIGKILL, and waits for the process to be gone.
    pub async fn kill(self) -> Result<()> {
        self.process.kill().await
    }
}
