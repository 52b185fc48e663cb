//! `cargo xtask bench`: measurements, apart from the tests.

use anyhow::{Result, bail};

use crate::shell::{cargo, command, run, target_dir};
use crate::up;

/// Measures the embedded service with 100,000 runs; the report is docs/bench.md.
pub fn run_bench(args: &[String]) -> Result<()> {
    let rest = match args.split_first() {
        Some((what, rest)) if what == "local" => rest,
        Some((other, _)) => bail!("there is no benchmark '{other}': use `cargo xtask bench local`"),
        None => bail!("say what to measure: `cargo xtask bench local`"),
    };
    let binary = up::binary()?;
    run(cargo().args(["build", "--release", "--package", "retinker-tests", "--bin", "bench_local"]))?;
    let bench = target_dir().join("release").join(format!("bench_local{}", std::env::consts::EXE_SUFFIX));
    run(command(bench).args(rest).env("RETINKER_BIN", binary))
}
