//! The browser tests, and the browser that they need.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell::{self, command, root, run, step};
use crate::tools;

/// Where a Chromium may be, in the order in which they are tried.
const BROWSERS: [&str; 6] = [
    "/usr/bin/chromium",
    "/usr/bin/chromium-browser",
    "/usr/bin/google-chrome",
    "/usr/bin/google-chrome-stable",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
];
const DRIVERS: [&str; 4] = [
    "/usr/bin/chromedriver",
    "/usr/lib/chromium-browser/chromedriver",
    "/opt/homebrew/bin/chromedriver",
    "/usr/local/bin/chromedriver",
];

/// A Chromium: `CHROMIUM`, else a usual place, else installed from the system's packages.
pub fn chromium() -> Result<PathBuf> {
    find("CHROMIUM", &BROWSERS, "a Chromium or Chrome")
}

/// A ChromeDriver, likewise.
pub fn chromedriver() -> Result<PathBuf> {
    find("CHROMEDRIVER", &DRIVERS, "a ChromeDriver")
}

fn find(variable: &str, places: &[&str], what: &str) -> Result<PathBuf> {
    let there = || {
        std::env::var_os(variable)
            .map(PathBuf::from)
            .into_iter()
            .chain(places.iter().map(PathBuf::from))
            .find(|path| path.is_file())
    };
    if let Some(path) = there() {
        return Ok(path);
    }
    // Debian's names, then Ubuntu's.
    let packages: [&[&str]; 2] =
        [&["chromium", "chromium-driver"], &["chromium-browser", "chromium-chromedriver"]];
    shell::install_system_packages("Chromium", &packages)
        .with_context(|| format!("the browser tests need {what}: install it, or name it in {variable}"))?;
    there().with_context(|| format!("the browser tests need {what}: install it, or name it in {variable}"))
}

/// Node in `tests/browser`, whose packages are installed, with the programs that everything there needs.
fn node(binary: &Path) -> Result<Command> {
    tools::node()?;
    let chromium = chromium()?;
    let simulated = shell::release("retinker-tests", "--bin", "simulated_service")?;
    let dir = root().join("tests/browser");
    install(&dir, "Installing the browser tests' npm packages")?;
    let mut node = command("node");
    node.current_dir(&dir)
        .env("RETINKER_BIN", binary)
        .env("RETINKER_SIMULATED", simulated)
        .env("RETINKER_CHROMIUM", chromium);
    Ok(node)
}

fn install(dir: &Path, title: &str) -> Result<()> {
    step(title, || {
        run(command(shell::npm()).args(["ci", "--silent", "--no-audit", "--no-fund"]).current_dir(dir))
    })
}

/// Runs `tests/browser` on a built binary.
pub fn test(binary: &Path, (train, redo): (&Path, &Path), python: &Path) -> Result<()> {
    let files = test_files(&root().join("tests/browser"))?;
    let many_restores = shell::release("retinker-tests", "--bin", "many_restores")?;
    // Two files at once: each waits for its services and its browser as much as it computes.
    run(node(binary)?
        .args(["--test", "--test-concurrency=2", "--test-timeout=1800000", "--test-reporter=spec"])
        .args(files)
        .env("RETINKER_TRAIN", train)
        .env("RETINKER_REDO", redo)
        .env("RETINKER_MANY_RESTORES", many_restores)
        .env("RETINKER_PYTHON", python))
}

/// Every page of the console in every way in which a service can misbehave; gives what was seen, a line each.
pub fn outages(binary: &Path) -> Result<String> {
    let said = shell::output_shown(
        node(binary)?
            .args(["--test", "--test-reporter=spec", "outages.test.mjs"])
            .env("RETINKER_OUTAGES", "all"),
    )?;
    let seen = said.lines().filter_map(|line| line.split_once("✔ a service that "));
    Ok(seen.map(|(_, of)| format!("- a service that {of}")).collect::<Vec<_>>().join("\n"))
}

/// Runs `tests/npm` on a built binary, the package's tarball and the transports' server.
pub fn test_npm(binary: &Path, tarball: &Path, conformance: &str) -> Result<()> {
    let (chromium, dir) = (chromium()?, root().join("tests/npm"));
    install(&dir, "Installing the npm package's tests")?;
    run(node_on_package(binary, tarball)
        .args(["--test", "--test-concurrency=2", "--test-timeout=600000", "--test-reporter=spec"])
        .args(test_files(&dir)?)
        .env("RETINKER_CONFORMANCE_URL", conformance)
        .env("RETINKER_CHROMIUM", chromium))
}

/// Measures the package of this tarball in Node, beside native Rust and the Python SDK.
pub fn bench_npm(binary: &Path, tarball: &Path, encode: &Path, python: &Path) -> Result<()> {
    tools::node()?;
    run(node_on_package(binary, tarball)
        .arg("bench/npm.mjs")
        .env("RETINKER_ENCODE", encode)
        .env("RETINKER_PYTHON", python))
}

/// Node among the package's tests, told which binary and which package they are of.
fn node_on_package(binary: &Path, tarball: &Path) -> Command {
    let mut node = command("node");
    node.current_dir(root().join("tests/npm")).env("RETINKER_BIN", binary).env("RETINKER_NPM", tarball);
    node
}

/// Measures the console in the browser.
pub fn bench(binary: &Path) -> Result<()> {
    install(&root().join("tests/browser/bench"), "Installing Lighthouse")?;
    run(node(binary)?.arg("bench/console.mjs"))
}

fn test_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with(".test.mjs"))
        .collect();
    files.sort();
    Ok(files)
}
