//! Every chore of the repository: `cargo xtask up`, `cargo xtask test`, and the parts that they are made of.

mod bench;
mod browser;
mod checks;
mod console;
mod fuzz;
mod npm;
mod postgres;
mod python;
mod reference;
mod schema;
mod sdk;
mod shell;
mod soak;
mod test;
mod tools;
mod up;

use std::process::ExitCode;

const USAGE: &str = "\
Usage: cargo xtask <command>

  up [--port N] [--service-port N] [--data-dir DIR] [--no-demo]
               install what is missing, build, and serve the console on the embedded service
  test [STAGE…] install what the tests need, and run all of them, or only these stages
  console      build the web console into dist/
  npm          build the npm package, and pack it
  soak [--kills N] [--fuzz-seconds N]
               kills, cut-off restores, network faults, model checking, pages in outages, fuzzing
               (each target so long);
               writes docs/soak.md
  bench local    measure the embedded service; writes docs/bench.md
  bench client   measure the client beside the official Python SDK; writes docs/bench-client.md
  bench recovery measure how long a restore takes; writes docs/bench-recovery.md
  bench scale    measure what watching a million runs costs; writes docs/scale.md
  bench console  measure the console in a browser; writes docs/bench-console.md
  bench npm      measure the npm package beside native Rust and the Python SDK; writes docs/bench-npm.md
  reference [--write]
               compute losses, gradients and steps in JAX and compare them with the fixtures, or record
               them; then have peft load a checkpoint of the service
  tools        install the pinned build tools and say where they are
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match args.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", &[][..]),
    };
    let outcome = match command {
        "up" => up::run(rest),
        "test" => test::run_stages(rest),
        "console" => console::build().map(|_| ()),
        "npm" => npm::build().map(|tarball| println!("{}", tarball.display())),
        "soak" => soak::run_soak(rest),
        "bench" => bench::run_bench(rest),
        "reference" => reference::run_reference(rest),
        "tools" => tools::report(),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(())
        }
        other => Err(anyhow::anyhow!("there is no command '{other}'\n\n{USAGE}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}
