//! The official Python SDK's tests of the embedded service.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::python;
use crate::shell::{cargo, command, root, run, step, target_dir};

/// Earlier SDKs that must go on working: the last that sent JSON, the first of protobuf, and one between that and
/// today's.
const OLDER: [&str; 3] = ["0.24.1", "0.25.0", "0.33.1"];

/// Two processes with a service each, file by file: starting the command line takes most of the time.
const PARALLEL: [&str; 4] = ["--numprocesses", "2", "--dist", "loadfile"];

/// Installs every SDK that the tests need.
pub fn needs() -> Result<()> {
    python::sdk()?;
    python::sdk_with_torch()?;
    for version in OLDER {
        python::older_sdk(version)?;
    }
    Ok(())
}

/// Runs `tests/sdk` on a built binary.
pub fn test(binary: &Path) -> Result<()> {
    let older: Vec<_> = OLDER
        .iter()
        .map(|version| Ok(format!("{version}={}", python::older_sdk(version)?.display())))
        .collect::<Result<_>>()?;
    let older = std::env::join_paths(older).context("the cache directory's name holds a colon")?;
    step("Custom losses, with PyTorch", || {
        run(pytest(&python::sdk_with_torch()?, binary).arg("test_torch.py"))
    })?;
    // As the native tests are built, so that little of it is new.
    let build = ["build", "--workspace", "--all-features", "--bin", "wire"];
    step("Building what shows Rust's protobuf", || run(cargo().args(build)))?;
    let wire = target_dir().join("debug").join(format!("wire{}", std::env::consts::EXE_SUFFIX));
    step("Everything else", || {
        run(pytest(&python::sdk()?, binary)
            .args(["--ignore", "test_torch.py"])
            .args(PARALLEL)
            .env("RETINKER_WIRE", &wire)
            .env("RETINKER_OLD_SDKS", older))
    })
}

fn pytest(python: &Path, binary: &Path) -> Command {
    let mut pytest = command(python);
    // Nothing is left behind in the clone.
    pytest.args(["-B", "-m", "pytest", "--quiet"]);
    pytest.current_dir(root().join("tests/sdk")).env("RETINKER_BIN", binary);
    pytest
}
