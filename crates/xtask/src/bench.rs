//! `cargo xtask bench`: measurements, apart from the tests.

use std::process::Stdio;

use anyhow::{Result, bail};

use crate::shell::{cargo, command, run, target_dir};
use crate::up;

/// Debian's python3-torch is a package of the system's own Python.
const PYTHON: &str = "/usr/bin/python3";

/// Measures the embedded service with 100,000 runs, and its training beside PyTorch's; the report is docs/bench.md.
pub fn run_bench(args: &[String]) -> Result<()> {
    let rest = match args.split_first() {
        Some((what, rest)) if what == "local" => rest,
        Some((other, _)) => bail!("there is no benchmark '{other}': use `cargo xtask bench local`"),
        None => bail!("say what to measure: `cargo xtask bench local`"),
    };
    let python = std::env::var("RETINKER_TORCH_PYTHON").unwrap_or_else(|_| PYTHON.to_owned());
    if !rest.iter().any(|option| option == "--only=calls") {
        check_torch(&python)?;
    }
    let binary = up::binary()?;
    run(cargo().args(["build", "--release", "--package", "retinker-tests", "--bin", "bench_local"]))?;
    let bench = target_dir().join("release").join(format!("bench_local{}", std::env::consts::EXE_SUFFIX));
    run(command(bench).args(rest).env("RETINKER_BIN", binary).env("RETINKER_TORCH_PYTHON", python))
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
