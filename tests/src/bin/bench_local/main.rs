//! Measures the embedded service: its calls with 100,000 runs and 1,000,000 checkpoints in its data directory, and its
//! training beside PyTorch's. Writes `docs/bench.md`; the last line on standard output is one JSON object.

mod calls;
mod memory;
mod report;
mod stored;
mod torch;
mod training;

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use retinker_tests::service::ServiceProcess;

use calls::Calls;
use report::Report;
use stored::Stored;

/// How long a rate is measured.
const SPAN: Duration = Duration::from_secs(5);

/// What is measured, all of it unless one part is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    All,
    Calls,
    Memory,
    Training,
}

#[tokio::main]
async fn main() -> Result<()> {
    let part = match std::env::args().nth(1).as_deref() {
        None => Part::All,
        Some("--only=calls") => Part::Calls,
        Some("--only=memory") => Part::Memory,
        Some("--only=training") => Part::Training,
        Some(other) => {
            bail!(
                "'{other}' is not an option of the benchmark; it takes --only=calls, --only=memory or --only=training"
            )
        }
    };
    let mut report = Report::new()?;
    if part == Part::All || part == Part::Calls {
        let (stored, calls) = measure_calls().await?;
        report.calls(&stored, &calls);
    }
    if part == Part::All || part == Part::Memory {
        report.memory(&memory::measure().await?);
    }
    if part == Part::All || part == Part::Training {
        report.training(&training::beside_torch(report.cores).await?);
    }
    report.targets();
    // A part by itself is for work on that part: the page in the docs is of a whole run.
    report.print((part == Part::All).then_some(Path::new("docs/bench.md")))
}

async fn measure_calls() -> Result<(Stored, Calls)> {
    let data = tempfile::tempdir()?;
    let stored = Stored::make(data.path()).await?;
    let service = ServiceProcess::start(data.path()).await?;
    let calls = calls::measure(&service).await?;
    service.kill().await?;
    Ok((stored, calls))
}
