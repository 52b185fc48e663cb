//! What runs in Python, each part in a virtual environment of its own.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::shell::{self, cache_dir, command, output, root, run, step};

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

/// Debian's, whose PyTorch needs no graphics card. PyPI's brings gigabytes of libraries for one.
const SYSTEM_PYTHON: &str = "/usr/bin/python3";

/// A Python that can `import tinker`.
pub fn sdk() -> Result<PathBuf> {
    older_sdk(SDK)
}

/// A Python with the SDK of that version, of which `tests/sdk/requirements` has a list.
pub fn older_sdk(version: &str) -> Result<PathBuf> {
    environment(
        &format!("tinker-sdk-{version}"),
        Path::new("python3"),
        &requirements(version)?,
        Options::default(),
    )
}

/// A Python with the SDK and PyTorch.
pub fn sdk_with_torch() -> Result<PathBuf> {
    system_torch()?;
    // PyTorch is built against the system's numpy, which must not be hidden by another.
    let list: String = requirements(SDK)?
        .lines()
        .filter(|line| !line.starts_with("numpy=="))
        .fold(String::new(), |list, line| list + line + "\n");
    let options = Options { venv: &["--system-site-packages"], ..Options::default() };
    environment("tinker-sdk-torch", Path::new(SYSTEM_PYTHON), &list, options)
}

fn requirements(version: &str) -> Result<String> {
    let path = root().join("tests/sdk/requirements").join(format!("{version}.txt"));
    std::fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))
}

/// What an environment is made with besides.
#[derive(Default)]
struct Options {
    venv: &'static [&'static str],
    pip: &'static [&'static str],
}

/// The Python of an environment that holds what the list names; made anew when the list has changed.
fn environment(name: &str, base: &Path, list: &str, options: Options) -> Result<PathBuf> {
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
        let make = || run(command(base).args(["-m", "venv", "--clear"]).args(options.venv).arg(&venv));
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
            bail!("python3 is {}: 3.11 or newer is needed", version.unwrap_or_default());
        }
        let wanted = venv.join("wanted.txt");
        std::fs::write(&wanted, list)?;
        let mut pip = command(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(options.pip)
            .arg("--requirement")
            .arg(&wanted);
        run(&mut pip)
            .with_context(|| format!("{name} could not be installed from PyPI: check the network"))?;
        std::fs::rename(&wanted, &installed)?;
        Ok(python)
    })
}

/// A Python that can `import jax`.
pub fn jax() -> Result<PathBuf> {
    environment("reference-jax", Path::new("python3"), &JAX.join("\n"), Options::default())
}

/// A Python that can `import peft`, over the system's own PyTorch.
pub fn peft() -> Result<PathBuf> {
    system_torch()?;
    // PyTorch is among what peft wants, and pip would fetch it from PyPI.
    let options = Options { venv: &["--system-site-packages"], pip: &["--no-deps"] };
    let list = [&PEFT[..], &PEFT_NEEDS[..]].concat().join("\n");
    environment("reference-peft", Path::new(SYSTEM_PYTHON), &list, options)
}

/// Sees to it that the system's Python has PyTorch.
fn system_torch() -> Result<()> {
    if output(command(SYSTEM_PYTHON).args(["-c", "import numpy, torch"])).is_some() {
        return Ok(());
    }
    shell::install_system_packages("PyTorch", &[&["python3-torch", "python3-numpy", "python3-venv"]])
        .context("Debian's python3-torch is needed")
}
