//! Measures what a redo log costs: processor time and latency of a step with one and without, bytes on the disk, and how fast a
//! replay is beside the steps that it does again. Writes `docs/bench-redo.md`; the last line on standard output is one JSON object.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use retinker::client::{LossFnConfig, ServiceClient, TrainingClient, TrainingOptions};
use retinker::native::DiskLog;
use retinker::redo::{MemoryLog, Redo, RedoLog, RedoOptions};
use retinker::wire::training::{AdamParams, Datum};
use retinker_tests::service::{ServiceProcess, api};
use retinker_tests::{process, schedule};
use serde_json::json;

/// Steps of each client, which take turns.
const STEPS: usize = 60;
/// Those before anything is measured.
const WARM: usize = 5;
/// Sequences of a batch, and tokens of each.
const BATCH: (usize, usize) = (16, 256);

/// What steps took.
#[derive(Default)]
struct Took {
    wall: Duration,
    cpu: Duration,
}

fn batch(step: usize) -> Vec<Datum> {
    let (sequences, length) = BATCH;
    let token = |sequence: usize, at: usize| ((step * 31 + sequence * 17 + at * at * 7) % 250) as i32;
    let datum = |sequence: usize| {
        let tokens: Vec<i32> = (0..=length).map(|at| token(sequence, at)).collect();
        let targets = tokens.iter().skip(1).map(|&token| i64::from(token)).collect();
        Datum::cross_entropy(tokens.into_iter().take(length).collect(), targets, vec![1.0; length])
    };
    (0..sequences).map(datum).collect()
}

async fn step(client: &TrainingClient, at: usize, took: &mut Took) -> Result<f64> {
    let data = batch(at);
    let (begun, cpu) = (Instant::now(), processor_time()?);
    let passed = client.forward_backward(data, "cross_entropy", &LossFnConfig::new());
    let stepped = client.optim_step(AdamParams { learning_rate: 1e-3, ..AdamParams::default() });
    let output = passed.await?;
    stepped.await?;
    if at >= WARM {
        took.wall += begun.elapsed();
        took.cpu += processor_time()?.saturating_sub(cpu);
    }
    output.metrics.get("loss:sum").copied().context("there is no loss")
}

/// Of this process alone; the service is another.
fn processor_time() -> Result<Duration> {
    process::cpu_time(std::process::id()).context("the processor time of this process is not known")
}

async fn with(service: &ServiceClient, log: impl RedoLog) -> Result<Redo> {
    Ok(Redo::lora(service, log, schedule::BASE_MODEL, schedule::lora(), RedoOptions::default()).await?)
}

/// What the disk alone takes to have so many bytes a step appended, and made to last.
fn disk_alone(dir: &Path, bytes: usize) -> Result<Duration> {
    let mut file = OpenOptions::new().create(true).append(true).open(dir.join("alone"))?;
    let piece = vec![7; bytes];
    let begun = Instant::now();
    for _ in 0..STEPS {
        file.write_all(&piece)?;
        file.sync_data()?;
    }
    Ok(begun.elapsed())
}

/// Recording may cost this part of a step's client time, beside what the disk takes.
const ALLOWED: f64 = 0.03;

#[tokio::main]
async fn main() -> Result<()> {
    if let Some(other) = std::env::args().nth(1) {
        bail!("'{other}' is no option of this benchmark; it takes none");
    }
    let (data, logs) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let local = ServiceProcess::start(data.path()).await?;
    let service = ServiceClient::new(api(&local.base_url)?);
    let made = TrainingOptions::default();
    let plain = service.create_lora_training_client(schedule::BASE_MODEL, schedule::lora(), made).await?;
    let (memory, disk) = (MemoryLog::new(), DiskLog::open(logs.path().join("log"))?);
    let in_memory = with(&service, memory).await?;
    let on_disk = with(&service, disk.clone()).await?;
    let mut took = [Took::default(), Took::default(), Took::default()];
    for at in 0..STEPS + WARM {
        let [without, memory, disk] = &mut took;
        let expected = step(&plain, at, without).await?;
        let losses = (
            step(in_memory.training_client(), at, memory).await?,
            step(on_disk.training_client(), at, disk).await?,
        );
        if losses != (expected, expected) {
            bail!("step {at} came to {losses:?}, where {expected} was expected");
        }
    }
    let steps = STEPS as f64;
    let written = disk.size() as f64 / (STEPS + WARM) as f64;
    let begun = Instant::now();
    on_disk.recover_to((STEPS + WARM) as u64).await?;
    // As many steps as were measured.
    let replay = begun.elapsed().mul_f64(steps / (STEPS + WARM) as f64);
    let alone = disk_alone(logs.path(), written as usize)?;
    let [without, memory, disk] = &took;
    let allowed = without.wall.mul_f64(1.0 + ALLOWED);
    let held = |is: bool| if is { "held" } else { "**missed**" };
    let targets = (held(memory.wall <= allowed), held(disk.wall <= allowed + alone));
    let round = |number: f64| (number * 1000.0).round() / 1000.0;
    let ratio = |a: Duration, b: Duration| round(a.as_secs_f64() / b.as_secs_f64());
    let figures = json!({
        "record_overhead_ratio": ratio(disk.wall, without.wall),
        "bytes_per_step": written.round(),
        "replay_speed_ratio": ratio(disk.wall, replay),
    });
    let rows =
        [("without a log", without), ("in memory", memory), ("on the disk", disk)].map(|(name, took)| {
            let millis = |time: Duration| time.as_secs_f64() * 1000.0 / steps;
            format!("| {name} | {:.2} ms | {:.2} ms |\n", millis(took.wall), millis(took.cpu))
        });
    let cores = std::thread::available_parallelism().context("the number of cores is not known")?;
    let (sequences, length) = BATCH;
    let text = format!(
        "# Benchmark of the redo log\n\n\
         Written by `cargo xtask bench redo` on a machine with {cores} cores, the service on the same ones, in a process of its own. \
         Three runs of {} take turns, {STEPS} steps each, of {sequences} sequences of {length} tokens: {} bytes of tensors a step.\n\n\
         | a step | takes | processor time of the client |\n| --- | --- | --- |\n{}\n\
         Recording may cost 3 % of a step's client time, beside the disk's own, which is {:.2} ms a step for as many bytes appended and made \
         to last: in memory {}, on the disk {}.\n\n\
         The log takes {:.0} bytes a step on the disk. A replay of all steps takes {:.0} ms a step: it waits for nobody in between.\n\n\
         As JSON:\n\n```json\n{figures}\n```\n",
        schedule::BASE_MODEL,
        sequences * length * 16,
        rows.concat(),
        alone.as_secs_f64() * 1000.0 / steps,
        targets.0,
        targets.1,
        written,
        replay.as_secs_f64() * 1000.0 / steps,
    );
    let path = Path::new("docs/bench-redo.md");
    std::fs::write(path, &text).with_context(|| format!("{} cannot be written", path.display()))?;
    println!("{text}\n{figures}");
    Ok(())
}
