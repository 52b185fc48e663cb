//! Measures how long it takes from a poisoning to a verified, adopted successor, for one run, an incident of 50 and one of
//! 1,000; and what a round costs with 10,000 runs. Writes `docs/bench-recovery.md`; the last line on standard output is one
//! JSON object.

mod flight;
mod incident;

use std::path::Path;

use anyhow::{Context, Result, bail};
use retinker_tests::simulated::{self, Costs};
use serde_json::json;

use incident::{INTERVAL_MS, Incident};

#[tokio::main]
async fn main() -> Result<()> {
    if let Some(other) = std::env::args().nth(1) {
        bail!("'{other}' is no option of this benchmark; it takes none");
    }
    let mut incidents = Vec::new();
    // One alone is a matter of when the monitor looks: so it is done often.
    for (runs, times) in [(1, 20), (50, 3), (1000, 1)] {
        eprintln!("an incident of {runs}, {times} times");
        let measured = incident::measure(runs, times).await;
        incidents.push((runs, measured.with_context(|| format!("an incident of {runs}"))?));
    }
    let [(_, one), (_, fifty), (_, thousand)] = incidents.as_slice() else { bail!("an incident is missing") };
    eprintln!("a round of 10,000 runs");
    let rounds = simulated::rounds(10_000, 0, 20).await?;
    let figures = json!({
        "mttr_ms_1": one.mean_ms().round(),
        "mttr_ms_50": fifty.mean_ms().round(),
        "mttr_ms_1000": thousand.mean_ms().round(),
        "own_share_50": (fifty.own_share * 1e3).round() / 1e3,
        "requests_per_round_10000": rounds.whole.requests,
    });
    let text = page(&incidents, &rounds, &figures)?;
    let path = Path::new("docs/bench-recovery.md");
    std::fs::write(path, &text).with_context(|| format!("{} cannot be written", path.display()))?;
    println!("{text}\n{figures}");
    Ok(())
}

fn page(incidents: &[(usize, Incident)], rounds: &Costs, figures: &serde_json::Value) -> Result<String> {
    let cores = std::thread::available_parallelism().context("the number of cores is not known")?;
    let mut text = format!(
        "# Benchmark of recovery\n\n\
         Written by `cargo xtask bench recovery` on a machine with {cores} cores, the service on the same ones, the journal in \
         SQLite. The monitor looks every {INTERVAL_MS} ms; its default is every 30 s, which then is most of the time. The \
         runs are of retinker/nano-llama, each with one checkpoint and its probe.\n\n\
         From the poisoning of a run until its successor is adopted and verified by the probe:\n\n\
         | runs poisoned at once | mean | median | last | share that is ours |\n| --- | --- | --- | --- | --- |\n"
    );
    for (runs, incident) in incidents {
        text.push_str(&format!(
            "| {} | {:.0} ms | {:.0} ms | {:.0} ms | {:.0} % |\n",
            runs,
            incident.mean_ms(),
            incident.at(0.5),
            incident.at(1.0),
            incident.own_share * 100.0
        ));
    }
    text.push_str(&format!(
        "\nOurs is the time in which nothing was asked of the service: waiting for the next look, deciding, and writing to the \
         journal.\n\nA round of a service of 10,000 runs takes {} requests when it reads the whole list, and {} between, \
         where 20 of its sessions last.\n\nAs JSON:\n\n```json\n{figures}\n```\n",
        rounds.whole.requests, rounds.part.requests
    ));
    Ok(text)
}
