//! Schemathesis against the embedded service: requests made up from its own description, good and bad ones.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::{Context, Result};

use crate::shell::{self, cache_dir, cargo, command, output, root, run, step, target_dir};

/// The version that is pinned; a newer one finds other things.
const SCHEMATHESIS: &str = "4.32.5";

/// No answer may be a 5xx, or another than the description says.
const CHECKS: &str =
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";

/// How many requests of a kind are made up for each operation; all of it takes about a minute.
const EXAMPLES: &str = "30";

/// A stream that ends with the service only.
const ENDLESS: &str = "changes";

/// Where failures are asked for.
const FAULTS: &str = "^/retinker/local/v1/faults";

/// Runs it on services in data directories of their own.
pub fn test() -> Result<()> {
    let schemathesis = schemathesis()?;
    run(cargo().args(["build", "--package", "retinker-local", "--example", "serve"]))?;
    step("Requests to a service that cannot be made to fail", || ask(&schemathesis, &[], &[]))?;
    step("Requests to make it fail", || {
        ask(&schemathesis, &["0", "1000000000", "--faults"], &["--include-path-regex", FAULTS])
    })
}

/// Starts a service with these arguments, and asks it for what these options choose.
fn ask(schemathesis: &Path, arguments: &[&str], options: &[&str]) -> Result<()> {
    let service = Service::start(arguments)?;
    run(command(schemathesis)
        .arg("run")
        .arg(format!("{}/openapi.json", service.url))
        .args(["--checks", CHECKS, "--exclude-operation-id", ENDLESS])
        .args(["--max-examples", EXAMPLES, "--seed", "1", "--request-timeout", "30", "--workers", "2"])
        .args(["--generation-database", "none", "--suppress-health-check", "all"])
        .args(["--header", "X-API-Key: tml-test"])
        .args(options)
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONPATH", root().join("tests/schema"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("RETINKER_URL", &service.url)
        .current_dir(&service.data_dir))
}

/// The program, in a virtual environment of its own.
pub fn schemathesis() -> Result<PathBuf> {
    let venv = cache_dir()?.join("tools").join(format!("schemathesis-{SCHEMATHESIS}"));
    let program = venv.join("bin/schemathesis");
    if output(command(&program).arg("--version")).is_some_and(|version| version.contains(SCHEMATHESIS)) {
        return Ok(program);
    }
    step(&format!("Installing schemathesis {SCHEMATHESIS}"), || {
        run(command("python3").args(["-m", "venv", "--clear"]).arg(&venv))
            .context("schemathesis needs Python with its venv module (Debian: python3-venv)")?;
        run(command(venv.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .arg(format!("schemathesis=={SCHEMATHESIS}")))
        .context("schemathesis could not be installed from PyPI: check the network")?;
        Ok(program)
    })
}

/// A running service; ends with this value.
struct Service {
    process: Child,
    url: String,
    data_dir: PathBuf,
}

impl Service {
    fn start(arguments: &[&str]) -> Result<Self> {
        let data_dir = target_dir().join("schema-test");
        if data_dir.exists() {
            std::fs::remove_dir_all(&data_dir)?;
        }
        std::fs::create_dir_all(&data_dir)?;
        let binary =
            target_dir().join("debug/examples").join(format!("serve{}", std::env::consts::EXE_SUFFIX));
        let log = std::fs::File::create(data_dir.join("service.log"))?;
        let mut process = shell::command(binary)
            .arg(data_dir.join("data"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("the service cannot be started")?;
        let stdout = process.stdout.take().context("the service has no output")?;
        let mut url = String::new();
        BufReader::new(stdout).read_line(&mut url)?;
        Ok(Self { process, url: url.trim().to_owned(), data_dir })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself; either way nothing of it is left.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
