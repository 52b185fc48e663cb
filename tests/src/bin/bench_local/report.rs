//! What was measured, for people and as JSON.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use crate::SPAN;
use crate::calls::{CONNECTIONS, Calls, PAGE, PAGES, RESULTS};
use crate::memory::{self, Memory};
use crate::stored::{CHECKPOINTS_OF_RUN, RUNS, RUNS_OF_SESSION, STARTS, Stored};
use crate::training::{Comparison, MODEL, PIPELINE, RANK, ROUNDS, TURN};

/// What was measured so far.
pub(crate) struct Report {
    /// Cores of this machine.
    pub(crate) cores: usize,
    /// The text, without its head.
    text: String,
    result: Map<String, Value>,
}

/// What a value has to be.
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// What the service is to reach on two cores.
const TARGETS: [(&str, Bound); 8] = [
    ("heartbeat_rps", Bound::AtLeast(20_000.0)),
    ("retrieve_rps", Bound::AtLeast(20_000.0)),
    ("run_page_rps", Bound::AtLeast(2_000.0)),
    ("run_page_ms_max", Bound::AtMost(10.0)),
    ("checkpoint_page_ms_max", Bound::AtMost(10.0)),
    ("api_ms_p99_while_training", Bound::AtMost(50.0)),
    ("startup_seconds", Bound::AtMost(1.0)),
    ("train_tokens_ratio_vs_torch", Bound::AtLeast(1.2)),
];

impl Report {
    pub(crate) fn new() -> Result<Self> {
        let cores = std::thread::available_parallelism().context("the number of cores is not known")?.get();
        Ok(Self { cores, text: String::new(), result: Map::new() })
    }

    fn put(&mut self, name: &str, value: f64) {
        self.result.insert(name.to_owned(), ((value * 1e3).round() / 1e3).into());
    }

    fn table(&mut self, head: &str, rows: &[(String, String)]) {
        self.text += &format!("| {head} | value |\n| --- | --- |\n");
        for (what, value) in rows {
            self.text += &format!("| {what} | {value} |\n");
        }
        self.text += "\n";
    }

    /// Adds the calls.
    pub(crate) fn calls(&mut self, stored: &Stored, calls: &Calls) {
        let Calls { pages, checkpoint_pages, page_rps, heartbeat_rps, retrieve_rps, while_training } = calls;
        let (small, large) = CONNECTIONS;
        let mb = |bytes: u64| format!("{:.0} MB", bytes as f64 / 1e6);
        let unknown = || "not known on this system".to_owned();
        let longest = stored.starts.last().copied().unwrap_or_default();
        let rows = [
            (format!("heartbeats, {small} connections"), format!("{heartbeat_rps:.0} per second")),
            (
                format!("finished futures retrieved, {small} connections"),
                format!("{retrieve_rps:.0} per second"),
            ),
            (format!("pages of {PAGE} runs, {large} connections"), format!("{page_rps:.0} per second")),
            ("page of runs, median".to_owned(), format!("{:.2} ms", pages.ms(0.5))),
            ("page of runs, 99th percentile".to_owned(), format!("{:.2} ms", pages.ms(0.99))),
            ("page of runs, longest".to_owned(), format!("{:.2} ms", pages.ms(1.0))),
            ("page of checkpoints, median".to_owned(), format!("{:.2} ms", checkpoint_pages.ms(0.5))),
            ("page of checkpoints, longest".to_owned(), format!("{:.2} ms", checkpoint_pages.ms(1.0))),
            (
                "call while two runs train, 99th percentile".to_owned(),
                format!("{:.2} ms", while_training.ms(0.99)),
            ),
            ("call while two runs train, longest".to_owned(), format!("{:.2} ms", while_training.ms(1.0))),
            (format!("start, median of {STARTS}"), format!("{:.2} s", stored.start().as_secs_f64())),
            (format!("start, longest of {STARTS}"), format!("{:.2} s", longest.as_secs_f64())),
            ("resident memory after a start".to_owned(), stored.resident.map_or_else(unknown, mb)),
            (
                "of it, for each checkpoint".to_owned(),
                stored.bytes_per_checkpoint.map_or_else(unknown, |bytes| format!("{bytes} bytes")),
            ),
        ];
        self.text += "## Calls\n\n";
        self.table("measured", &rows);
        self.text += &format!(
            "The data directory held {RUNS} runs in {} sessions, with {CHECKPOINTS_OF_RUN} checkpoints each: {} \
             checkpoints. The release binary ran as a process of its own and was called over loopback, without \
             compression, on kept connections that send the next request when the answer is there. Rates are over \
             {} s. A start is from the start of the process until it says where it listens.\n\n\
             A page is `GET /api/v1/training_runs?limit={PAGE}` with a uniformly random offset; for the latencies \
             {PAGES} were read one after the other, and each was held against its part of one full listing. Pages of \
             checkpoints are those of `GET /api/v1/checkpoints`, as many. The \
             futures are those of {RESULTS} optimizer steps, read at random. The {} calls made while two runs trained \
             on all cores were pages and heartbeats by turns.\n\n",
            RUNS / RUNS_OF_SESSION,
            RUNS * CHECKPOINTS_OF_RUN,
            SPAN.as_secs(),
            while_training.count(),
        );
        self.put("heartbeat_rps", *heartbeat_rps);
        self.put("retrieve_rps", *retrieve_rps);
        self.put("run_page_rps", *page_rps);
        self.put("run_page_ms_p99", pages.ms(0.99));
        self.put("run_page_ms_max", pages.ms(1.0));
        self.put("checkpoint_page_ms_max", checkpoint_pages.ms(1.0));
        self.put("api_ms_p99_while_training", while_training.ms(0.99));
        self.put("startup_seconds", stored.start().as_secs_f64());
    }

    /// Adds the memory of idle runs.
    pub(crate) fn memory(&mut self, memory: &Memory) {
        let mb = |bytes: u64| format!("{:.0} MB", bytes as f64 / 1e6);
        let rows = [
            ("before any run".to_owned(), mb(memory.empty)),
            (format!("with `--memory-limit {}`", memory::LIMIT), mb(memory.limited)),
            ("with room for all of them".to_owned(), mb(memory.unlimited)),
        ];
        self.text += "## Memory of idle runs\n\n";
        self.table("resident", &rows);
        self.text += &format!(
            "{} runs of rank {RANK} on `{MODEL}` were made and trained for a step each, one after the other. What is \
             beyond the limit is put aside on disk until it is asked for.\n\n",
            memory::RUNS
        );
        self.put("idle_memory_ratio_with_limit", memory.ratio());
    }

    /// Adds the training.
    pub(crate) fn training(&mut self, comparisons: &[Comparison]) {
        self.text += "## Training, beside PyTorch\n\n\
            | threads | batch | retinker, tokens per second | PyTorch, tokens per second | ratio | ratio by processor time |\n\
            | --- | --- | --- | --- | --- | --- |\n";
        for comparison in comparisons {
            let Comparison { load, threads, .. } = comparison;
            self.text += &format!(
                "| {threads} | {} x {} | {:.0} | {:.0} | {:.2} | {:.2} |\n",
                load.batch,
                load.length,
                comparison.median(|(ours, _)| ours.tokens),
                comparison.median(|(_, torch)| torch.tokens),
                comparison.ratio(),
                comparison.cpu_ratio(),
            );
        }
        let (torch, blas) = comparisons
            .first()
            .map(|first| (first.torch.torch.as_str(), first.torch.blas.as_str()))
            .unwrap_or_default();
        self.text += &format!(
            "\nBoth train a LoRA adapter of rank {RANK} on every projection and the unembedding of the same model, \
             `{MODEL}`, in single precision: forward, backward, one AdamW step. PyTorch is {torch} with {blas}, the \
             whole batch as one tensor, in the program `tests/bench/torch_baseline.py`, with nothing around it. The \
             service is measured from outside, requests and answers over HTTP included, with {PIPELINE} steps on \
             their way at a time; its client runs on the same cores. Both have the number of threads given; PyTorch is \
             taken with OpenBLAS at one thread or at as many, whichever is faster. They take \
             turns, {ROUNDS} times {} s each; the values are medians, and the ratio is the median of the turns' \
             ratios.\n\nThe ratio by processor time divides tokens by the time that the process used on all cores, \
             that of serving HTTP included, so that other load on the machine shows less.\n\n",
            TURN.as_secs(),
        );
        let least = comparisons.iter().map(Comparison::ratio).fold(f64::INFINITY, f64::min);
        self.put("train_tokens_ratio_vs_torch", least);
    }

    /// Adds what was asked for, beside what was measured.
    pub(crate) fn targets(&mut self) {
        self.text +=
            "## What was asked for\n\n| measured | asked for | found | met |\n| --- | --- | --- | --- |\n";
        for (name, bound) in TARGETS {
            let Some(found) = self.result.get(name).and_then(Value::as_f64) else { continue };
            let (words, met) = match bound {
                Bound::AtLeast(least) => (format!("at least {least}"), found >= least),
                Bound::AtMost(most) => (format!("at most {most}"), found <= most),
            };
            let met = if met { "yes" } else { "no" };
            self.text += &format!("| `{name}` | {words} | {found} | {met} |\n");
        }
        self.text += "\n";
    }

    /// Prints everything, and writes it to a file.
    pub(crate) fn print(&self, path: Option<&Path>) -> Result<()> {
        let text = format!(
            "# Benchmark of the embedded service\n\n\
             Written by `cargo xtask bench local`, retinker {}. One run on one machine with {} cores ({}), the client on \
             the same machine.\n\n{}",
            env!("CARGO_PKG_VERSION"),
            self.cores,
            processor().unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            self.text.trim_end(),
        );
        if let Some(path) = path {
            std::fs::write(path, format!("{text}\n"))
                .with_context(|| format!("{} cannot be written", path.display()))?;
        }
        println!("{text}\n");
        println!("{}", Value::from(self.result.clone()));
        Ok(())
    }
}

/// What the processor calls itself.
fn processor() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let name = info.lines().find_map(|line| line.strip_prefix("model name"))?.split_once(':')?.1;
    Some(name.trim().to_owned())
}
