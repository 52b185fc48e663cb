//! The npm package: built, weighed, packed, and tried out in fresh folders.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::shell::{self, command, output, root, run, step};
use crate::{browser, console, tools};

/// An entry of the package: the wasm behind it, what of the crate is in it, and how many bytes its wasm and its script may
/// take, compressed.
struct Entry {
    name: &'static str,
    features: &'static [&'static str],
    script: &'static str,
    budget: u64,
}

/// The budgets hold the package to what it is; it is to be half of that (docs/decisions/0031-the-npm-package-is-a-facade.md).
const ENTRIES: [Entry; 2] = [
    Entry { name: "retinker", features: &[], script: "index.js", budget: 513_000 },
    Entry { name: "rest", features: &["--no-default-features"], script: "rest.js", budget: 352_000 },
];

/// Where the package lies.
fn home() -> PathBuf {
    root().join("crates/wasm/npm")
}

/// Builds the package, and gives the tarball that `npm publish` would send.
pub fn build() -> Result<PathBuf> {
    tools::wasm_target()?;
    tools::node()?;
    for Entry { name, features, .. } in &ENTRIES {
        step(&format!("Building the wasm of the npm package: {name}"), || {
            wasm(name, features, "pkg", "wasm-release")?;
            let wasm = home().join(format!("pkg/{name}/{name}_bg.wasm"));
            run(command(tools::wasm_opt()?.join("wasm-opt")).arg("-Oz").arg(&wasm).arg("-o").arg(&wasm))
        })?;
    }
    step("Building the npm package", || {
        npm(&["ci", "--silent"])?;
        run(command("node").arg("build.mjs").current_dir(home()))?;
        std::fs::copy(root().join("LICENSE"), home().join("LICENSE")).context("LICENSE cannot be copied")?;
        let packed = output(command(shell::npm()).args(["pack", "--silent"]).current_dir(home()))
            .context("npm could not pack the package")?;
        Ok(home().join(packed.lines().last().unwrap_or_default()))
    })
}

/// Builds the crate for JavaScript into a folder of the package.
fn wasm(name: &str, features: &[&str], folder: &str, profile: &str) -> Result<()> {
    let path = tools::path_with(&[tools::wasm_pack()?, tools::wasm_bindgen()?])?;
    let out = home().join(folder).join(name);
    run(command("wasm-pack")
        .args(["--quiet", "build", "--mode", "no-install", "--target", "web", "--no-pack", "--no-opt"])
        .args(["--profile", profile, "--out-name", name, "--out-dir"])
        .arg(&out)
        .arg(root().join("crates/wasm"))
        .args(["--", "--locked"])
        .args(features)
        .env("PATH", &path)
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", console::rust_flags()?))
}

/// The package once more, with a wasm that can be made to panic.
fn build_panicking() -> Result<()> {
    step("Building the npm package with a wasm that can be made to panic", || {
        wasm("retinker", &["--features", "panics"], "pkg-panics", "dev")?;
        run(command("node").args(["build.mjs", "pkg-panics", "dist-panics", "index"]).current_dir(home()))
    })
}

/// Holds the package to its size.
fn weigh() -> Result<Vec<(&'static str, u64)>> {
    let mut sizes = Vec::new();
    for Entry { name, script, budget, .. } in &ENTRIES {
        let dist = home().join("dist");
        let wasm = compressed(&dist.join(format!("{name}.wasm")))?;
        let size = wasm + compressed(&dist.join("esm").join(script))?;
        eprintln!("    {name} is {} kB to load (brotli), {} kB of it wasm", size / 1000, wasm / 1000);
        if size > *budget {
            bail!("{name} is {size} bytes compressed, over its budget of {budget}: look at what was added");
        }
        sizes.push((*name, size));
    }
    Ok(sizes)
}

fn compressed(file: &Path) -> Result<u64> {
    let bytes = std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
    Ok(console::brotli(&bytes)?.len() as u64)
}

fn npm(args: &[&str]) -> Result<()> {
    run(command(shell::npm()).args(args).args(["--no-audit", "--no-fund"]).current_dir(home()))
}

/// Builds the package, and uses it as people would: from its tarball, in Node, Deno, Bun, an edge worker and Chromium; and holds
/// it to what every transport must do, against the server of that at an address.
pub fn test(binary: &Path, conformance: &str) -> Result<()> {
    let tarball = build()?;
    weigh()?;
    build_panicking()?;
    browser::test_npm(binary, &tarball, conformance)
}
