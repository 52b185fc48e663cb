//! `cargo xtask reference`: the checks against other people's implementations, which the everyday tests have recorded.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::python;
use crate::shell::{cargo, command, root, run, step, target_dir};

/// The built-in models that the fixtures are about.
const MODELS: [&str; 2] = ["nano-llama", "tiny-llama-1m"];

/// Makes the fixtures anew and compares them with those recorded, or records them; then has peft load a checkpoint.
pub fn run_reference(args: &[String]) -> Result<()> {
    let write = match args {
        [] => false,
        [flag] if flag == "--write" => true,
        _ => bail!("usage: cargo xtask reference [--write]"),
    };
    let jax = python::jax()?;
    let torch = python::peft()?;
    run(cargo().args(["build", "--package", "retinker-nn", "--package", "retinker-local", "--examples"]))?;
    let work = target_dir().join("reference");
    if work.exists() {
        std::fs::remove_dir_all(&work)?;
    }
    let (models, made) = (work.join("models"), work.join("fixtures"));
    for model in MODELS {
        run(command(example("export_base")).arg(format!("retinker/{model}")).arg(models.join(model)))?;
    }
    step("Computing losses, gradients and steps in JAX", || {
        run(python(&jax, "generate.py").args([&models, &made]))
    })?;
    let recorded = root().join("crates/nn/tests/fixtures/reference");
    if write {
        record(&made, &recorded)?;
    } else {
        run(python(&jax, "compare.py").args([&made, &recorded]))
            .context("the recorded fixtures are others; `cargo xtask reference --write` replaces them")?;
    }
    step("Loading the service's checkpoints with peft", || {
        let data_dir = work.join("data");
        let service = Service::start(&data_dir)?;
        run(python(&torch, "peft_check.py").arg(&service.url).args([&data_dir, &models]))
    })
}

fn example(name: &str) -> PathBuf {
    target_dir().join("debug/examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}

/// A script of the reference; it leaves no byte code beside itself.
fn python(interpreter: &Path, script: &str) -> Command {
    let mut command = command(interpreter);
    command.arg("-B").arg(root().join("tests/reference").join(script));
    command
}

fn record(made: &Path, recorded: &Path) -> Result<()> {
    std::fs::create_dir_all(recorded)?;
    for entry in std::fs::read_dir(made)? {
        let entry = entry?;
        std::fs::copy(entry.path(), recorded.join(entry.file_name()))?;
    }
    println!("Recorded in {}.", recorded.strip_prefix(root()).unwrap_or(recorded).display());
    Ok(())
}

/// An embedded service by itself; ends with this value.
struct Service {
    process: Child,
    url: String,
}

impl Service {
    fn start(data_dir: &Path) -> Result<Self> {
        let mut process = command(example("serve")).arg(data_dir).stdout(Stdio::piped()).spawn()?;
        let stdout = process.stdout.take().context("the service has no output")?;
        let mut url = String::new();
        BufReader::new(stdout).read_line(&mut url)?;
        Ok(Self { process, url: url.trim().to_owned() })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself; either way nothing of it is left.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
