//! Measures the client beside the official Python SDK's: many samples at once, and the encoding of a large batch. Each side
//! runs in a process of its own against the same service. Writes `docs/bench-client.md`; the last line on standard output is
//! one JSON object.

mod encode;
mod report;
mod samples;

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use retinker_tests::service::ServiceProcess;
use serde::de::DeserializeOwned;
use tokio::process::Command;

use report::Report;
use samples::Protocol;

// One thread, as the SDK has one for its requests.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => compare().await,
        // The side that is measured.
        ["samples", base_url, "http1"] => print(&samples::here(base_url, Protocol::Http1).await?),
        ["samples", base_url, "http2"] => print(&samples::here(base_url, Protocol::Http2).await?),
        other => bail!("{other:?} is no option of this benchmark; it takes none"),
    }
}

async fn compare() -> Result<()> {
    let data = tempfile::tempdir()?;
    let service = ServiceProcess::start(data.path()).await?;
    eprintln!("samples, Rust");
    let [rust, rust_http1] = [Protocol::Http2, Protocol::Http1].map(|protocol| {
        let mut own = program("samples");
        own.args([&service.base_url, protocol.word()]);
        own
    });
    let (rust, rust_http1) = (answer(rust).await?, answer(rust_http1).await?);
    eprintln!("samples, Python");
    let python_samples = answer(samples::python(&service.base_url)?).await?;
    eprintln!("encoding, Rust");
    let encoded = answer(encode::native()?).await?;
    let memory = answer(encode::memory()?).await?;
    eprintln!("encoding, wasm");
    let wasm = answer(encode::wasm()?).await?;
    eprintln!("encoding, Python");
    let python_encoded = answer(encode::python()?).await?;
    Report { rust, rust_http1, python_samples, encoded, memory, wasm, python_encoded }
        .write(Path::new("docs/bench-client.md"))
}

/// This program again, in another of its parts.
fn program(part: &str) -> Command {
    let mut program = Command::new(std::env::current_exe().unwrap_or_default());
    program.arg(part);
    program
}

/// The official SDK's side.
fn python(what: &str) -> Result<Command> {
    let python = std::env::var_os("RETINKER_SDK_PYTHON")
        .context("RETINKER_SDK_PYTHON is not set: use `cargo xtask`")?;
    let mut command = Command::new(python);
    command.args(["-B", "tests/bench/client_python.py", what]).env("TINKER_TELEMETRY", "0");
    Ok(command)
}

async fn answer<T: DeserializeOwned>(mut command: Command) -> Result<T> {
    let output = command.stderr(Stdio::inherit()).output().await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    serde_json::from_str(line)
        .with_context(|| format!("a side of the comparison failed ({}): {line}", output.status))
}

fn print(value: &impl serde::Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(value)?);
    Ok(())
}
