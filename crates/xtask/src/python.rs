//! What runs in Python, each part in a virtual environment of its own.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::shell::{self, cache_dir, command, output, run, step};

/// The version that the tests drive the local service with.
const SDK: &str = "0.38.0";
/// What the reference is computed with.
const JAX: [&str; 3] = ["jax==0.10.2", "numpy==2.4.6", "safetensors==0.8.0"];
/// What loads checkpoints: the newest that agree with Debian 12's PyTorch 1.13.
const PEFT: [&str; 6] = [
    "peft==0.10.0",
    "transformers==4.38.2",
    "accelerate==0.27.2",
    "tokenizers==0.15.2",
    "huggingface_hub==0.21.4",
    "safetensors==0.4.5",
];
/// What those need and Debian's PyTorch does not bring. PyTorch itself is among their dependencies, so pip resolves none.
const PEFT_NEEDS: [&str; 12] = [
    "regex",
    "tqdm",
    "PyYAML",
    "requests",
    "urllib3",
    "idna",
    "certifi",
    "charset-normalizer",
    "filelock",
    "packaging",
    "fsspec",
    "psutil",
];

/// A Python that can `import tinker`.
pub fn sdk() -> Result<PathBuf> {
    let venv = environment(&format!("tinker-sdk-{SDK}"))?;
    let requirement = format!("tinker=={SDK}");
    if has(&venv, &[&requirement], "import tinker") {
        return Ok(interpreter(&venv));
    }
    step(&format!("Installing the official Python SDK {SDK}"), || {
        make(&venv, "python3", &[])
            .context("the tests need Python 3.11 or newer with its venv module (Debian: python3-venv)")?;
        let version = output(
            command(interpreter(&venv)).args(["-c", "import sys; print('%d.%d' % sys.version_info[:2])"]),
        );
        let new_enough = version.as_deref().and_then(|v| v.split_once('.')).is_some_and(|(major, minor)| {
            (major.parse::<u32>().unwrap_or(0), minor.parse::<u32>().unwrap_or(0)) >= (3, 11)
        });
        if !new_enough {
            bail!("python3 is {}: the official SDK needs 3.11 or newer", version.unwrap_or_default());
        }
        install(&venv, &[&requirement])
            .context("the official SDK could not be installed from PyPI: check the network")?;
        Ok(interpreter(&venv))
    })
}

/// A Python that can `import jax`.
pub fn jax() -> Result<PathBuf> {
    let venv = environment("reference-jax")?;
    if has(&venv, &JAX, "import jax") {
        return Ok(interpreter(&venv));
    }
    step("Installing JAX for the processor", || {
        make(&venv, "python3", &[])?;
        install(&venv, &JAX).context("JAX could not be installed from PyPI: check the network")?;
        Ok(interpreter(&venv))
    })
}

/// A Python that can `import peft`, over the system's own PyTorch: that of PyPI brings gigabytes.
pub fn peft() -> Result<PathBuf> {
    let venv = environment("reference-peft")?;
    if has(&venv, &PEFT, "import peft, torch") {
        return Ok(interpreter(&venv));
    }
    // The one that the distribution's packages belong to, whatever else comes first on the path.
    let system = "/usr/bin/python3";
    if output(command(system).args(["-c", "import torch"])).is_none() {
        shell::install_system_packages("PyTorch", &[&["python3-torch", "python3-venv"]])?;
    }
    step("Installing peft beside the system's PyTorch", || {
        make(&venv, system, &["--system-site-packages"])?;
        install(&venv, &[&["--no-deps"], &PEFT[..], &PEFT_NEEDS[..]].concat())
            .context("peft could not be installed from PyPI: check the network")?;
        Ok(interpreter(&venv))
    })
}

fn environment(name: &str) -> Result<PathBuf> {
    Ok(cache_dir()?.join("tools").join(name))
}

fn interpreter(venv: &Path) -> PathBuf {
    venv.join("bin/python")
}

/// Whether an environment is there with these versions, and can do what it is for.
fn has(venv: &Path, pinned: &[&str], import: &str) -> bool {
    let check = format!(
        "import importlib.metadata as m; assert all(m.version(p.split('==')[0]) == p.split('==')[1] \
         for p in '{}'.split()); {import}",
        pinned.join(" ")
    );
    output(command(interpreter(venv)).args(["-c", &check])).is_some()
}

/// Makes an environment anew.
fn make(venv: &Path, python: &str, arguments: &[&str]) -> Result<()> {
    let make = || run(command(python).args(["-m", "venv", "--clear"]).args(arguments).arg(venv));
    if make().is_err() {
        shell::install_system_packages("Python", &[&["python3", "python3-venv"]]).and_then(|()| make())?;
    }
    Ok(())
}

fn install(venv: &Path, arguments: &[&str]) -> Result<()> {
    let mut pip = command(interpreter(venv));
    run(pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(arguments))
}
