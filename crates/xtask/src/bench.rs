//! `cargo xtask bench`: measurements, apart from the tests.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Result, bail};

use crate::shell::{cargo, command, release, run, target_dir};
use crate::{browser, console, npm, python, tools, up};

/// Debian's python3-torch is a package of the system's own Python.
const PYTHON: &str = "/usr/bin/python3";

/// What can be measured.
const ALL: &str = "local, client, recovery, redo, scale, console or npm";

/// Measures the embedded service with 100,000 runs, and its training beside PyTorch's (docs/bench.md); or the client beside
/// the official Python SDK's (docs/bench-client.md); or how long a restore takes (docs/bench-recovery.md), what a redo log costs (docs/bench-redo.md), what watching a
/// million runs costs (docs/scale.md), the console in a browser (docs/bench-console.md), or the npm package in Node
/// (docs/bench-npm.md).
pub fn run_bench(args: &[String]) -> Result<()> {
    match args.split_first() {
        Some((what, rest)) if what == "local" => local(rest),
        Some((what, [])) if what == "client" => client(),
        Some((what, [])) if what == "recovery" => recovery(),
        Some((what, [])) if what == "redo" => {
            let bench = release("retinker-tests", "--bin", "bench_redo")?;
            run(command(bench).env("RETINKER_BIN", up::binary()?))
        }
        Some((what, [])) if what == "scale" => {
            run(&mut command(release("retinker-tests", "--bin", "bench_scale")?))
        }
        Some((what, [])) if what == "console" => {
            // A console that is not built anew would be measured for the one that is there.
            console::build()?;
            browser::bench(&up::binary()?)
        }
        Some((what, [])) if what == "npm" => npm_package(),
        Some((what, _))
            if matches!(what.as_str(), "client" | "recovery" | "redo" | "scale" | "console" | "npm") =>
        {
            bail!("`cargo xtask bench {what}` takes no options")
        }
        Some((other, _)) => bail!("there is no benchmark '{other}': use `cargo xtask bench` with {ALL}"),
        None => bail!("say what to measure: `cargo xtask bench` with {ALL}"),
    }
}

fn local(options: &[String]) -> Result<()> {
    let python = std::env::var("RETINKER_TORCH_PYTHON").unwrap_or_else(|_| PYTHON.to_owned());
    if !options.iter().any(|option| option == "--only=calls") {
        check_torch(&python)?;
    }
    let bench = release("retinker-tests", "--bin", "bench_local")?;
    run(command(bench).args(options).env("RETINKER_BIN", up::binary()?).env("RETINKER_TORCH_PYTHON", python))
}

fn client() -> Result<()> {
    let python = python::sdk()?;
    let bench = release("retinker-tests", "--bin", "bench_client")?;
    run(command(bench)
        .env("RETINKER_BIN", up::binary()?)
        .env("RETINKER_SDK_PYTHON", python)
        .env("RETINKER_ENCODE", release("retinker", "--example", "encode")?)
        .env("RETINKER_ENCODE_WASM", encode_wasm()?))
}

fn npm_package() -> Result<()> {
    let tarball = npm::build()?;
    console::build()?;
    let encode = release("retinker", "--example", "encode")?;
    browser::bench_npm(&up::binary()?, &tarball, &encode, &python::sdk()?)
}

fn recovery() -> Result<()> {
    let bench = release("retinker-tests", "--bin", "bench_recovery")?;
    run(command(bench).env("RETINKER_BIN", up::binary()?))
}

/// The program that encodes, as wasm for Node.
fn encode_wasm() -> Result<PathBuf> {
    tools::wasm_target()?;
    tools::node()?;
    let target = ["--target", "wasm32-unknown-unknown", "--profile", "wasm-release", "--no-default-features"];
    run(cargo().args(["build", "--package", "retinker", "--example", "encode"]).args(target))?;
    let (wasm, out) = (
        target_dir().join("wasm32-unknown-unknown/wasm-release/examples/encode.wasm"),
        target_dir().join("encode-node"),
    );
    let tool = tools::wasm_bindgen()?.join("wasm-bindgen");
    run(command(tool).arg(wasm).args(["--target", "nodejs", "--out-dir"]).arg(&out))?;
    Ok(out.join("encode.js"))
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
