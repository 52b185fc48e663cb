//! `cargo xtask test`: everything that must hold before a change lands.

use anyhow::{Context, Result, bail};

use crate::shell::{self, cargo, root, run, step, target_dir};
use crate::{browser, checks, console, npm, postgres, python, schema, sdk, tools, up};

/// A stage's name, what it is, and how it runs.
type Stage = (&'static str, &'static str, fn() -> Result<()>);

const STAGES: [Stage; 13] = [
    ("needs", "What the tests need", needs),
    ("lint", "Formatting and lints", checks::lint),
    ("invariants", "What ARCHITECTURE.md promises", checks::invariants),
    ("deny", "Licences and sources of dependencies", checks::deny),
    ("docs", "Documentation builds without warnings", checks::docs),
    ("native", "Native tests", native),
    ("wasm-node", "The core's tests under wasm, in Node", wasm_node),
    ("wasm-browser", "The core's and the console's tests under wasm, in Chromium", wasm_browser),
    ("console", "The console, within its size budget", console::check),
    ("npm", "The npm package, used as people would", npm_package),
    ("sdk", "The official Python SDK drives the embedded service", official_sdk),
    ("schema", "Requests made up from the service's own description", schema::test),
    ("browser", "The story in the browser, on the release binary", story),
];

/// Runs the stages named, or all of them; stops at the first that fails.
pub fn run_stages(names: &[String]) -> Result<()> {
    if let Some(unknown) = names.iter().find(|name| STAGES.iter().all(|(stage, ..)| stage != name)) {
        let known: Vec<_> = STAGES.iter().map(|(stage, ..)| *stage).collect();
        bail!("there is no stage '{unknown}'; there are: {}", known.join(", "));
    }
    let chosen: Vec<_> = STAGES
        .iter()
        .filter(|(stage, ..)| names.is_empty() || names.iter().any(|name| name == stage))
        .collect();
    for (name, title, work) in &chosen {
        step(title, work)
            .with_context(|| format!("stage '{name}' failed; run it alone with `cargo xtask test {name}`"))?;
    }
    println!("\nAll {} stages passed.", chosen.len());
    Ok(())
}

/// Everything that has to be installed, first: a missing part is said before minutes of building.
fn needs() -> Result<()> {
    tools::wasm_target()?;
    tools::node()?;
    // Packages are waited for while tools are built.
    std::thread::scope(|scope| {
        let tools = scope.spawn(tools::report);
        let packages = packages();
        let tools = tools.join().unwrap_or_else(|_| bail!("installing the build tools broke off"));
        packages.and(tools)
    })
}

/// What the system's and Python's packages bring.
fn packages() -> Result<()> {
    browser::chromium()?;
    browser::chromedriver()?;
    postgres::needs()?;
    sdk::needs()?;
    schema::schemathesis()?;
    Ok(())
}

fn native() -> Result<()> {
    // The tests of the commands start the binary, which `cargo test` does not build.
    run(cargo().args(["build", "--workspace", "--all-features", "--bin", "retinker"]))?;
    let binary = target_dir().join("debug").join(format!("retinker{}", std::env::consts::EXE_SUFFIX));
    // The console's view logic is tested natively as well; only its views need a browser.
    run(cargo().args(["test", "--workspace", "--all-features"]).env("RETINKER_BIN", binary))
}

fn wasm_node() -> Result<()> {
    tools::node()?;
    wasm_tests(&[])
}

fn wasm_browser() -> Result<()> {
    let driver = browser::chromedriver()?;
    let environment = [
        ("WASM_BINDGEN_USE_BROWSER", "1".into()),
        ("CHROMEDRIVER", driver.into()),
        ("WASM_BINDGEN_TEST_TIMEOUT", "120".into()),
        ("WASM_BINDGEN_TEST_WEBDRIVER_JSON", root().join("crates/retinker/webdriver.json").into()),
    ];
    wasm_tests(&environment)?;
    // The console's own parts: how views are drawn, and what pages are made of.
    run(cargo()
        .args(["test", "--package", "retinker-console", "--bins", "--target", "wasm32-unknown-unknown"])
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER", test_runner()?)
        .envs(environment.iter().map(|(name, value)| (name, value))))
}

fn test_runner() -> Result<std::path::PathBuf> {
    Ok(tools::wasm_bindgen()?.join("wasm-bindgen-test-runner"))
}

/// Runs the core's wasm tests against a real server of good and bad answers.
fn wasm_tests(environment: &[(&str, std::ffi::OsString)]) -> Result<()> {
    tools::wasm_target()?;
    let runner = test_runner()?;
    let server = ConformanceServer::start()?;
    run(cargo()
        .args(["test", "--package", "retinker", "--target", "wasm32-unknown-unknown"])
        .args(["--no-default-features", "--features", "test-util"])
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER", runner)
        .env("RETINKER_CONFORMANCE_URL", &server.url)
        .envs(environment.iter().map(|(name, value)| (name, value))))
}

/// The misbehaving server that the transport tests talk to; ends with this value.
struct ConformanceServer {
    process: std::process::Child,
    url: String,
}

impl ConformanceServer {
    fn start() -> Result<Self> {
        use std::io::BufRead;
        run(cargo().args(["build", "--workspace", "--all-features", "--example", "conformance_server"]))?;
        let binary = target_dir()
            .join("debug/examples")
            .join(format!("conformance_server{}", std::env::consts::EXE_SUFFIX));
        let mut process = shell::command(binary).stdout(std::process::Stdio::piped()).spawn()?;
        let stdout = process.stdout.take().context("the conformance server has no output")?;
        let mut url = String::new();
        std::io::BufReader::new(stdout).read_line(&mut url)?;
        Ok(Self { process, url: url.trim().to_owned() })
    }
}

impl Drop for ConformanceServer {
    fn drop(&mut self) {
        // It may have ended by itself; either way nothing of it is left.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn npm_package() -> Result<()> {
    console::build()?;
    let server = ConformanceServer::start()?;
    npm::test(&up::binary()?, &server.url)
}

fn official_sdk() -> Result<()> {
    console::build()?;
    sdk::test(&up::binary()?)
}

fn story() -> Result<()> {
    console::build()?;
    let binary = up::binary()?;
    let train = shell::release("retinker-tests", "--bin", "train")?;
    let redo = shell::release("retinker-tests", "--bin", "redo")?;
    browser::test(&binary, (&train, &redo), &python::sdk()?)
}
