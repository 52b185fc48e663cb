//! `cargo xtask soak`: what takes too long for every change.

use anyhow::Result;

use crate::shell::{cargo, run, target_dir};
use crate::up;

/// Kills, cut-off restores, a storm of faults, fuzzing; the report is docs/soak.md.
pub fn run_soak(args: &[String]) -> Result<()> {
    let binary = up::binary()?;
    run(cargo().args(["build", "--release", "--package", "retinker-tests", "--bin", "soak"]))?;
    let soak = target_dir().join("release").join(format!("soak{}", std::env::consts::EXE_SUFFIX));
    run(crate::shell::command(soak).args(args).env("RETINKER_BIN", binary))
}
