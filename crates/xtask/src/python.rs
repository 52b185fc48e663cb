//! The official Python SDK, in a virtual environment of its own.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::shell::{self, cache_dir, command, output, run, step};

/// The version that the tests drive the local service with.
const SDK: &str = "0.38.0";

/// A Python that can `import tinker`.
pub fn sdk() -> Result<PathBuf> {
    let venv = cache_dir()?.join("tools").join(format!("tinker-sdk-{SDK}"));
    let python = venv.join("bin/python");
    let check =
        format!("import importlib.metadata as m; assert m.version('tinker') == '{SDK}'; import tinker");
    if output(command(&python).args(["-c", &check])).is_some() {
        return Ok(python);
    }
    step(&format!("Installing the official Python SDK {SDK}"), || {
        let make = || run(command("python3").args(["-m", "venv", "--clear"]).arg(&venv));
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
        let mut pip = command(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .arg(format!("tinker=={SDK}"));
        run(&mut pip).context("the official SDK could not be installed from PyPI: check the network")?;
        Ok(python)
    })
}
