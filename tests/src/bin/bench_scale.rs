//! Measures what a round of the monitor costs over simulated services of up to 1,000,000 runs, each in a process of its own.
//! Writes `docs/scale.md`; the last line on standard output is one JSON object.

use std::path::Path;

use anyhow::{Context, Result, bail};
use retinker_tests::simulated::{self, Cost, Costs};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::process::Command;

/// Runs, how many of them one poisoned stands for, and how many have a session that lasts.
const CASES: [(u64, u64, u64); 4] =
    [(10_000, 1_000, 20), (100_000, 2_000, 200), (1_000_000, 20_000, 200), (1_000_000, 1_000, 200)];

#[derive(Debug, Serialize, Deserialize)]
struct Measured {
    runs: u64,
    lost: u64,
    requests: u64,
    cpu_seconds: f64,
    memory_bytes: u64,
}

/// A round over the whole list, and the next one.
#[derive(Debug, Serialize, Deserialize)]
struct Pair {
    lasting: u64,
    whole: Measured,
    part: Measured,
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
        ["round", runs, every, lasting] => {
            let lasting = lasting.parse()?;
            let Costs { whole, part } = simulated::rounds(runs.parse()?, every.parse()?, lasting).await?;
            let pair = Pair { lasting, whole: whole.into(), part: part.into() };
            println!("{}", serde_json::to_string(&pair)?);
            Ok(())
        }
        other => bail!("{other:?} is no option of this benchmark; it takes none"),
    }
}

async fn all() -> Result<()> {
    let mut measured = Vec::new();
    for (runs, every, lasting) in CASES {
        eprintln!("{runs} runs, one in {every} poisoned");
        let output = Command::new(std::env::current_exe()?)
            .args(["round", &runs.to_string(), &every.to_string(), &lasting.to_string()])
            .output()
            .await?;
        let text = String::from_utf8_lossy(&output.stdout);
        measured.push(serde_json::from_str::<Pair>(text.trim()).with_context(|| {
            format!("a round over {runs} runs failed: {}", String::from_utf8_lossy(&output.stderr))
        })?);
    }
    let Pair { whole, part, .. } = measured.get(2).context("a measurement is missing")?;
    let hundredths = |seconds: f64| (seconds * 100.0).round() / 100.0;
    let figures = json!({
        "requests_1000000": whole.requests,
        "cpu_seconds_1000000": hundredths(whole.cpu_seconds),
        "memory_mib_1000000": (whole.memory_bytes as f64 / f64::from(1 << 20)).round(),
        "requests_between_1000000": part.requests,
        "cpu_seconds_between_1000000": hundredths(part.cpu_seconds),
    });
    let text = page(&measured, &figures);
    let path = Path::new("docs/scale.md");
    std::fs::write(path, &text).with_context(|| format!("{} cannot be written", path.display()))?;
    println!("{text}\n{figures}");
    Ok(())
}

fn page(measured: &[Pair], figures: &serde_json::Value) -> String {
    let mut text = String::from(
        "# Scale\n\n\
         Written by `cargo xtask bench scale`. The service is simulated in the process: no network, and the time that the \
         pages of its list take to make is subtracted. Measured are rounds of `retinker watch` that have seen the poisoned \
         runs before and restore nothing: one that reads the whole list, and the next, which reads the runs of the \
         sessions that last.\n\n\
         | runs | poisoned | sessions that last | requests | processor time | memory | requests of the next | its processor time |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for Pair { lasting, whole, part } in measured {
        text.push_str(&format!(
            "| {} | {} | {lasting} | {} | {:.2} s | {:.0} MiB | {} | {:.2} s |\n",
            whole.runs,
            whole.lost,
            whole.requests,
            whole.cpu_seconds,
            whole.memory_bytes as f64 / f64::from(1 << 20),
            part.requests,
            part.cpu_seconds,
        ));
    }
    text.push_str(EXTRAPOLATED);
    text.push_str(&format!("\nAs JSON:\n\n```json\n{figures}\n```\n"));
    text
}

const EXTRAPOLATED: &str = "\n\
## What this says, and what it does not\n\n\
Measured: the requests and processor time of a whole reading grow with the runs that the service lists, one request for each \
hundred; its memory grows with the runs that are poisoned or whose sessions last, not with those that are listed. The \
rounds between, for ten minutes, grow with the sessions that last and the poisoned runs alone.\n\n\
Extrapolated, not measured: over a network with 20 ms for each page, which are read one after the other, a whole reading of \
a million runs takes 200 s. The monitor leaves three times a round's length between rounds. So a poisoning in a session that \
lasts is seen within minutes, once the list has been read; one on a service without a search for sessions within a quarter \
of an hour.\n\n\
Monitors that share a journal each read by themselves: a hundred of them ask a hundred times as much. Their restores are \
not doubled. Splitting the runs among monitors by lease is not built.\n\n\
The console's host keeps all runs in memory (docs/bench.md has the list at 100,000).\n";
