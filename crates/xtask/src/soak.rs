//! `cargo xtask soak`: what takes too long for every change.

use anyhow::{Context, Result, bail};

use crate::reference;
use crate::shell::{self, cargo, command, root, run, step, target_dir};
use crate::up;

/// How often the service is killed when nothing else is said.
const KILLS: &str = "300";

/// The reference implementations, kills, cut-off restores, a storm of faults, fuzzing; the report is docs/soak.md.
pub fn run_soak(args: &[String]) -> Result<()> {
    let kills = match args {
        [] => KILLS,
        [option, count] if option == "--kills" && count.parse::<u32>().is_ok() => count,
        _ => bail!("usage: cargo xtask soak [--kills N]"),
    };
    reference::run_reference(&[])?;
    let binary = up::binary()?;
    run(cargo().args(["build", "--release", "--package", "retinker-tests", "--bin", "soak"]))?;
    let of_service =
        step(&format!("Killing the service {kills} times, as its own test does"), || kill_service(kills))?;
    let soak = target_dir().join("release").join(format!("soak{}", std::env::consts::EXE_SUFFIX));
    run(command(soak).args(["--kills", kills]).env("RETINKER_BIN", binary))?;
    let report = root().join("docs/soak.md");
    let text = std::fs::read_to_string(&report).context("the soak wrote no report")?;
    let section = format!("\n## Kills of the service, every kind of request\n\n{of_service}\n");
    std::fs::write(&report, text + &section)
        .with_context(|| format!("{} cannot be written", report.display()))
}

/// The test of `crates/local` with more kills; gives what it says it saw.
fn kill_service(kills: &str) -> Result<String> {
    let mut test = cargo();
    test.args(["test", "--release", "--package", "retinker-local", "--test", "kills", "--", "--nocapture"]);
    let said = shell::output_shown(test.env("RETINKER_KILLS", kills))?;
    let found = said.lines().find(|line| line.contains(" kills of a service")).map(str::to_owned);
    found.context("the test of kills did not say what it saw")
}
