//! Python environments with the official SDK, each made once from a list of exact versions.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::shell::{self, cache_dir, command, output, root, run, step};

/// The version that the tests drive the local service with.
const SDK: &str = "0.38.0";

/// Debian's, whose PyTorch needs no graphics card. PyPI's brings gigabytes of libraries for one.
const SYSTEM_PYTHON: &str = "/usr/bin/python3";

/// A Python that can `import tinker`.
pub fn sdk() -> Result<PathBuf> {
    older_sdk(SDK)
}

/// A Python with the SDK of that version, of which `tests/sdk/requirements` has a list.
pub fn older_sdk(version: &str) -> Result<PathBuf> {
    environment(&format!("tinker-sdk-{version}"), Path::new("python3"), &requirements(version)?, &[])
}

/// A Python with the SDK and PyTorch.
pub fn sdk_with_torch() -> Result<PathBuf> {
    let there = || output(command(SYSTEM_PYTHON).args(["-c", "import numpy, torch"])).is_some();
    if !there() {
        shell::install_system_packages("PyTorch", &[&["python3-torch", "python3-numpy", "python3-venv"]])
            .context("the tests of custom losses need Debian's python3-torch")?;
    }
    // PyTorch is built against the system's numpy, which must not be hidden by another.
    let list: String = requirements(SDK)?
        .lines()
        .filter(|line| !line.starts_with("numpy=="))
        .fold(String::new(), |list, line| list + line + "\n");
    environment("tinker-sdk-torch", Path::new(SYSTEM_PYTHON), &list, &["--system-site-packages"])
}

fn requirements(version: &str) -> Result<String> {
    let path = root().join("tests/sdk/requirements").join(format!("{version}.txt"));
    std::fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))
}

/// The Python of an environment that holds what the list names; made anew when the list has changed.
fn environment(name: &str, base: &Path, list: &str, options: &[&str]) -> Result<PathBuf> {
    let venv = cache_dir()?.join("tools").join(name);
    let python = venv.join("bin/python");
    // Written last: an environment that was left half-made has none.
    let installed = venv.join("installed.txt");
    if std::fs::read_to_string(&installed).is_ok_and(|text| text == list)
        && output(command(&python).args(["-c", "pass"])).is_some()
    {
        return Ok(python);
    }
    step(&format!("Installing {name} for Python"), || {
        let make = || run(command(base).args(["-m", "venv", "--clear"]).args(options).arg(&venv));
        if make().is_err() {
            shell::install_system_packages("Python", &[&["python3", "python3-venv"]])
                .and_then(|()| make())
                .context("the tests need Python 3.11 or newer with its venv module (Debian: python3-venv)")?;
        }
        let version =
            output(command(&python).args(["-c", "import sys; print('%d.%d' % sys.version_info[:2])"]));
        let new_enough = version.as_deref().and_then(|v| v.split_once('.')).is_some_and(|(major, minor)| {
            (major.parse::<u32>().unwrap_or(0), minor.parse::<u32>().unwrap_or(0)) >= (3, 11)
        });
        if !new_enough {
            bail!("python3 is {}: the official SDK needs 3.11 or newer", version.unwrap_or_default());
        }
        let wanted = venv.join("wanted.txt");
        std::fs::write(&wanted, list)?;
        let mut pip = command(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"])
            .arg(&wanted);
        run(&mut pip).context("the official SDK could not be installed from PyPI: check the network")?;
        std::fs::rename(&wanted, &installed)?;
        Ok(python)
    })
}
