//! Measures what a round of the monitor costs over simulated services of up to 1,000,000 runs, each in a process of its own.
//! Writes `docs/scale.md`; the last line on standard output is one JSON object.

use std::path::Path;

use anyhow::{Context, Result, bail};
use retinker_tests::simulated::{self, Cost};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::process::Command;

/// Runs, and how many of them one poisoned stands for.
const CASES: [(u64, u64); 4] = [(10_000, 200), (100_000, 2_000), (1_000_000, 20_000), (1_000_000, 1_000)];

#[derive(Debug, Serialize, Deserialize)]
struct Measured {
    runs: u64,
    lost: u64,
    requests: u64,
    cpu_seconds: f64,
    memory_bytes: u64,
}

impl From<Cost> for Measured {
    fn from(cost: Cost) -> Self {
        let Cost { runs, lost, requests, cpu, memory } = cost;
        Self { runs, lost, requests, cpu_seconds: cpu.as_secs_f64(), memory_bytes: memory }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => all().await,
        ["round", runs, every] => {
            let cost = simulated::round(runs.parse()?, every.parse()?).await?;
            println!("{}", serde_json::to_string(&Measured::from(cost))?);
            Ok(())
        }
        other => bail!("{other:?} is no option of this benchmark; it takes none"),
    }
}

async fn all() -> Result<()> {
    let mut measured = Vec::new();
    for (runs, every) in CASES {
        eprintln!("{runs} runs, one in {every} poisoned");
        let output = Command::new(std::env::current_exe()?)
            .args(["round", &runs.to_string(), &every.to_string()])
            .output()
            .await?;
        let text = String::from_utf8_lossy(&output.stdout);
        measured.push(serde_json::from_str::<Measured>(text.trim()).with_context(|| {
            format!("a round over {runs} runs failed: {}", String::from_utf8_lossy(&output.stderr))
        })?);
    }
    let largest = measured.get(2).context("a measurement is missing")?;
    let figures = json!({
        "requests_1000000": largest.requests,
        "cpu_seconds_1000000": (largest.cpu_seconds * 100.0).round() / 100.0,
        "memory_mib_1000000": (largest.memory_bytes as f64 / f64::from(1 << 20)).round(),
    });
    let text = page(&measured, &figures);
    let path = Path::new("docs/scale.md");
    std::fs::write(path, &text).with_context(|| format!("{} cannot be written", path.display()))?;
    println!("{text}\n{figures}");
    Ok(())
}

fn page(measured: &[Measured], figures: &serde_json::Value) -> String {
    let mut text = String::from(
        "# Scale\n\n\
         Written by `cargo xtask bench scale`. The service is simulated in the process: no network, and the time that its \
         answers take to make is subtracted. Measured is a round of `retinker watch` that has seen the poisoned runs before \
         and restores nothing.\n\n\
         | runs | poisoned | requests | processor time | memory |\n| --- | --- | --- | --- | --- |\n",
    );
    for one in measured {
        text.push_str(&format!(
            "| {} | {} | {} | {:.2} s | {:.0} MiB |\n",
            one.runs,
            one.lost,
            one.requests,
            one.cpu_seconds,
            one.memory_bytes as f64 / f64::from(1 << 20)
        ));
    }
    text.push_str(EXTRAPOLATED);
    text.push_str(&format!("\nAs JSON:\n\n```json\n{figures}\n```\n"));
    text
}

const EXTRAPOLATED: &str = "\n\
## What this says, and what it does not\n\n\
Measured: a round's requests and processor time grow with the runs that the service lists, one request for each hundred; its \
memory grows with the runs that are poisoned, not with those that are listed.\n\n\
Extrapolated, not measured: over a network with 20 ms for each page, which are read one after the other, a round over a \
million runs takes 200 s. So the first limit is the list: the monitor leaves three times a round's length between rounds, \
and sees a poisoning of such a service within a quarter of an hour. A service that lists its runs by their last use would \
allow to read only what has changed; none is known to promise that order, so the monitor does not rely on it.\n\n\
The whole list is read in each round. Reading only the runs of active sessions, by a search for these, would take fewer
requests where most runs are done; it is not built.\n\n\
Monitors that share a journal each read the whole list: a hundred of them ask a hundred times as much. Their restores are \
not doubled. Splitting the runs among monitors by lease is not built.\n\n\
The console's host keeps all runs in memory (docs/bench.md has the list at 100,000).\n";
