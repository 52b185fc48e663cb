//! `cargo xtask soak`: what takes too long for every change.

use anyhow::{Context, Result, bail};

use crate::shell::{self, cargo, command, root, run, step};
use crate::up;
use crate::{browser, console, fuzz, reference};

/// How often the service is killed when nothing else is said.
const KILLS: u32 = 300;
/// How many seconds each fuzz target is run for when nothing else is said.
const FUZZ_SECONDS: u32 = 60;

/// The reference implementations, kills, cut-off restores, a storm of faults, model checking, pages in outages, fuzzing; the report is docs/soak.md.
pub fn run_soak(args: &[String]) -> Result<()> {
    let (kills, fuzz_seconds) = options(args)?;
    let kills = &kills.to_string();
    reference::run_reference(&[])?;
    console::build()?;
    let binary = up::binary()?;
    let soak = shell::release("retinker-tests", "--bin", "soak")?;
    let of_service =
        step(&format!("Killing the service {kills} times, as its own test does"), || kill_service(kills))?;
    run(command(soak).args(["--kills", kills]).env("RETINKER_BIN", &binary))?;
    let of_orders = step("Every order of events in a restore, within wide bounds", check_model)?;
    let of_pages = step("Every page of the console in every outage", || browser::outages(&binary))?;
    let of_bytes = fuzz::run_targets(fuzz_seconds)?;
    let report = root().join("docs/soak.md");
    let text = std::fs::read_to_string(&report).context("the soak wrote no report")?;
    let section = format!(
        "\n## Kills of the service, every kind of request\n\n{of_service}\n\n## Orders of events in a restore\n\n{of_orders}\n\n\
         ## Pages of the console in outages\n\n{of_pages}\n\n## Bytes from outside\n\n{of_bytes}"
    );
    std::fs::write(&report, text + &section)
        .with_context(|| format!("{} cannot be written", report.display()))
}

/// How many kills, and how many seconds for each fuzz target.
fn options(mut args: &[String]) -> Result<(u32, u32)> {
    let (mut kills, mut fuzz_seconds) = (KILLS, FUZZ_SECONDS);
    while let [option, number, rest @ ..] = args
        && let Ok(number) = number.parse()
    {
        match option.as_str() {
            "--kills" => kills = number,
            "--fuzz-seconds" => fuzz_seconds = number,
            _ => break,
        }
        args = rest;
    }
    match args {
        [] => Ok((kills, fuzz_seconds)),
        _ => bail!("usage: cargo xtask soak [--kills N] [--fuzz-seconds N]"),
    }
}

/// The test of `crates/local` with more kills; gives what it says it saw.
fn kill_service(kills: &str) -> Result<String> {
    let mut test = cargo();
    test.args(["test", "--release", "--package", "retinker-local", "--test", "kills", "--", "--nocapture"]);
    let said = shell::output_shown(test.env("RETINKER_KILLS", kills))?;
    let found = said.lines().find(|line| line.contains(" kills of a service")).map(str::to_owned);
    found.context("the test of kills did not say what it saw")
}

/// The checks of `tests/model` that take minutes; gives the states that they have seen.
fn check_model() -> Result<String> {
    let mut test = cargo();
    test.args([
        "test",
        "--package",
        "retinker-model",
        "--",
        "--ignored",
        "--nocapture",
        "--test-threads",
        "1",
    ]);
    let said = shell::output_shown(&mut test)?;
    let seen: Vec<_> =
        said.lines().filter(|line| line.contains(" states, ")).map(|line| format!("- {line}")).collect();
    Ok(seen.join("\n"))
}
