//! `cargo xtask bench`: measurements, apart from the tests.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Result, bail};

use crate::shell::{cargo, command, run, target_dir};
use crate::{python, up};

/// Debian's python3-torch is a package of the system's own Python.
const PYTHON: &str = "/usr/bin/python3";

/// Measures the embedded service with 100,000 runs, and its training beside PyTorch's (docs/bench.md); or the client beside
/// the official Python SDK's (docs/bench-client.md).
pub fn run_bench(args: &[String]) -> Result<()> {
    match args.split_first() {
        Some((what, rest)) if what == "local" => local(rest),
        Some((what, [])) if what == "client" => client(),
        Some((what, _)) if what == "client" => bail!("`cargo xtask bench client` takes no options"),
        Some((other, _)) => {
            bail!(
                "there is no benchmark '{other}': use `cargo xtask bench local` or `cargo xtask bench client`"
            )
        }
        None => bail!("say what to measure: `cargo xtask bench local` or `cargo xtask bench client`"),
    }
}

fn local(options: &[String]) -> Result<()> {
    let python = std::env::var("RETINKER_TORCH_PYTHON").unwrap_or_else(|_| PYTHON.to_owned());
    if !options.iter().any(|option| option == "--only=calls") {
        check_torch(&python)?;
    }
    let bench = built("bench_local")?;
    run(command(bench).args(options).env("RETINKER_BIN", up::binary()?).env("RETINKER_TORCH_PYTHON", python))
}

fn client() -> Result<()> {
    let python = python::sdk()?;
    let bench = built("bench_client")?;
    run(command(bench).env("RETINKER_BIN", up::binary()?).env("RETINKER_SDK_PYTHON", python))
}

fn built(bench: &str) -> Result<PathBuf> {
    run(cargo().args(["build", "--release", "--package", "retinker-tests", "--bin", bench]))?;
    Ok(target_dir().join("release").join(format!("{bench}{}", std::env::consts::EXE_SUFFIX)))
}

/// What cannot work is said at once, before minutes of building.
fn check_torch(python: &str) -> Result<()> {
    let import = command(python).args(["-c", "import torch"]).stderr(Stdio::null()).status();
    if import.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    bail!(
        "{python} has no PyTorch to compare with: install Debian's with `apt-get install python3-torch \
         libopenblas0-pthread`, name another Python in RETINKER_TORCH_PYTHON, or leave the training out with \
         `cargo xtask bench local --only=calls`"
    )
}
