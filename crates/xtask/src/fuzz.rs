//! libFuzzer on what reads bytes from outside: the targets of tests/fuzz.

use std::path::Path;

use anyhow::{Context, Result};

use crate::shell::{cache_dir, command, output_shown, root, run, step};
use crate::tools;

/// What an input may take, in MiB. What a target holds itself, with the sanitizer's share, is about half of it.
const MEMORY: u32 = 2048;
/// How long one input may take, in seconds.
const PATIENCE: u32 = 30;

/// Runs each target for so many seconds; gives what came of it, for the report. What is found stays in the cache for the next
/// time. Fails with the first input that breaks something, which cargo-fuzz then says how to see again.
pub fn run_targets(seconds: u32) -> Result<String> {
    let path = tools::path_with(&[tools::cargo_fuzz()?])?;
    let fuzz = |arguments: &[&str]| {
        // rustup's cargo, which alone knows other toolchains.
        let mut cargo = command("rustup");
        cargo.args(["run", "nightly", "cargo", "fuzz"]).args(arguments).args(["--fuzz-dir", "tests/fuzz"]);
        // This cargo's own toolchain must not be taken for that one's.
        cargo.env_remove("RUSTC").env_remove("RUSTDOC").env_remove("CARGO").env("PATH", &path);
        cargo
    };
    run(&mut fuzz(&["build"]))?;
    let listed = output_shown(&mut fuzz(&["list"]))?;
    let mut targets = 0;
    for target in listed.lines() {
        let found = cache_dir()?.join("fuzz").join(target);
        std::fs::create_dir_all(&found).with_context(|| format!("{} cannot be created", found.display()))?;
        step(&format!("Fuzzing {target} for {seconds} s"), || {
            let mut cargo = fuzz(&["run", target]);
            cargo.arg(&found).arg(root().join("tests/fuzz/corpus").join(target)).arg("--");
            // The runtime of tests is held by the tasks that it holds: every input leaves a little.
            cargo.env("ASAN_OPTIONS", "detect_leaks=0");
            run(cargo.args(options(seconds)).arg(dictionary()))
        })?;
        targets += 1;
    }
    Ok(format!(
        "Each of {targets} targets, which together read everything that comes from outside (tests/fuzz), was given made-up \
         input for {seconds} s, under the address sanitizer and with checks for overflow. Nothing panicked, took more than \
         {MEMORY} MiB or {PATIENCE} s for one input, or broke what is promised of it.\n"
    ))
}

fn options(seconds: u32) -> [String; 5] {
    [
        format!("-max_total_time={seconds}"),
        format!("-rss_limit_mb={MEMORY}"),
        format!("-timeout={PATIENCE}"),
        "-max_len=65536".to_owned(),
        "-detect_leaks=0".to_owned(),
    ]
}

/// The words of the protocol.
fn dictionary() -> String {
    format!("-dict={}", root().join(Path::new("tests/fuzz/words.dict")).display())
}
