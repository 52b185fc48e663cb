//! What was measured, for people and as JSON.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use crate::encode::{Encoded, LENGTH, Memory, SEQUENCES};
use crate::samples::{AT_ONCE, MODEL, Sampled, TOKENS};

/// Both sides.
pub(crate) struct Report {
    pub(crate) rust: Sampled,
    /// The same over HTTP/1.1.
    pub(crate) rust_http1: Sampled,
    pub(crate) python_samples: Sampled,
    pub(crate) encoded: Encoded,
    pub(crate) memory: Memory,
    pub(crate) wasm: Encoded,
    pub(crate) python_encoded: Encoded,
}

impl Report {
    /// Writes the page, and prints it with the figures as the last line.
    pub(crate) fn write(&self, page: &Path) -> Result<()> {
        let per_cpu = |side: &Sampled| side.samples as f64 / side.cpu_seconds;
        let rate = |side: &Encoded| side.payload_bytes as f64 / side.seconds / 1e9;
        let (own, own_http1, theirs) =
            (per_cpu(&self.rust), per_cpu(&self.rust_http1), per_cpu(&self.python_samples));
        let figures = json!({
            "sample_cpu_ratio": rounded(own / theirs),
            "sample_memory_ratio": rounded(self.rust.peak_bytes as f64 / self.python_samples.peak_bytes as f64),
            "encode_gb_per_s": rounded(rate(&self.encoded)),
            "encode_ratio": rounded(rate(&self.encoded) / rate(&self.python_encoded)),
            "encode_wasm_slowdown": rounded(rate(&self.encoded) / rate(&self.wasm)),
            "encode_memory_factor": rounded(self.memory.factor),
        });
        let cores = std::thread::available_parallelism().context("the number of cores is not known")?;
        let version = self.python_encoded.version.as_deref().unwrap_or("unknown");
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let text = format!(
            "# Benchmark of the client\n\n\
             Written by `cargo xtask bench client` on a machine with {cores} cores, the service on the same ones. Python is the \
             official SDK {version}.\n\n\
             ## Samples\n\n\
             {AT_ONCE} at once of a prompt of {TOKENS} tokens, one token each, on {MODEL}. With the hosted service both sides \
             speak HTTP/2; without TLS the SDK cannot. The figures below compare the first column with the last.\n\n\
             | | Rust, HTTP/2 | Rust, HTTP/1.1 | Python, HTTP/1.1 |\n| --- | --- | --- | --- |\n\
             | samples a second of the client's processor time | {own:.0} | {own_http1:.0} | {theirs:.0} |\n\
             | samples a second | {:.0} | {:.0} | {:.0} |\n\
             | most memory | {:.0} MiB | {:.0} MiB | {:.0} MiB |\n\n\
             ## Encoding\n\n\
             A forward_backward of {SEQUENCES} sequences of {LENGTH} tokens with targets and weights: from vectors (in Python \
             lists) to the bodies of its requests. The memory is that of a client whose server takes 50 ms for each request.\n\n\
             | | Rust | Rust as wasm, in Node | Python |\n| --- | --- | --- | --- |\n\
             | tensor payload a second | {:.2} GB | {:.2} GB | {:.3} GB |\n\
             | memory beyond what there was, over the payload | {:.2} | - | - |\n\n\
             As JSON:\n\n```json\n{figures}\n```\n",
            self.rust.samples as f64 / self.rust.seconds,
            self.rust_http1.samples as f64 / self.rust_http1.seconds,
            self.python_samples.samples as f64 / self.python_samples.seconds,
            mib(self.rust.peak_bytes),
            mib(self.rust_http1.peak_bytes),
            mib(self.python_samples.peak_bytes),
            rate(&self.encoded),
            rate(&self.wasm),
            rate(&self.python_encoded),
            self.memory.factor,
        );
        std::fs::write(page, &text).with_context(|| format!("{} cannot be written", page.display()))?;
        println!("{text}\n{figures}");
        Ok(())
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
