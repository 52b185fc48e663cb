//! The engine: takes requests in, and lets what is under way go on, a token at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use retinker_wire::sampling::{SampleResponse, SampledSequence, StopReason};

use super::growing::{Growing, NotFinite};
use super::loaded::Loaded;
use super::prompt::scored;
use super::queue::{Job, Sampler, cancelled};
use super::spec::Spec;
use crate::core::Core;
use crate::futures::{Completer, Outcome};
use retinker_nn::{DecodeScratch, MergedModel, Prompt, Sequence, Workspace};

/// How many sequences grow at the same time.
const MAX_ROWS: usize = 64;
/// How many of them may be one request's, so that a large request leaves room for others.
const MAX_ROWS_OF_ONE: usize = MAX_ROWS / 2;
/// How many requests are under way at the same time.
const MAX_OPEN: usize = 64;
/// How many tokens of prompts are read between two steps; a longer prompt is read by itself.
const READ_PER_TURN: usize = 2048;
/// How much memory keys and values may take. The longest sequence may take more, then it is alone.
const MAX_CACHE_BYTES: usize = 128 << 20;

/// A request under way.
struct Open {
    completer: Completer,
    spec: Arc<Spec>,
    seed: u64,
    model: Arc<MergedModel>,
    prompt: Prompt,
    /// How long a sample may become.
    room: usize,
    /// The answer, but for the samples.
    response: SampleResponse,
    samples: Vec<Option<SampledSequence>>,
    /// How many samples were begun, and how many of those still grow.
    begun: usize,
    growing: usize,
}

/// A sequence that grows.
struct Row {
    request: u64,
    sample: usize,
    model: Arc<MergedModel>,
    sequence: Sequence,
    growing: Growing,
    /// How it ended.
    end: Option<Result<StopReason, NotFinite>>,
}

#[derive(Default)]
struct Engine {
    loaded: Loaded,
    /// By number, in the order in which they came.
    open: BTreeMap<u64, Open>,
    next: u64,
    rows: Vec<Row>,
    workspace: Workspace,
    scratch: DecodeScratch,
}

/// How often it is looked whether a pause is over.
const PAUSED: std::time::Duration = std::time::Duration::from_millis(20);

/// The engine's life. What is under way when this returns is lost.
pub(super) fn run(core: &Core, sampler: &Sampler) {
    let mut engine = Engine::default();
    while let Some(cancelled) = sampler.news(engine.open.is_empty()) {
        for request_id in cancelled {
            engine.cancel(&request_id);
        }
        if let Some(rest) = core.faults.rest() {
            std::thread::sleep(rest.min(PAUSED));
            continue;
        }
        engine.take_in(core, sampler);
        engine.begin_samples();
        engine.step();
        engine.collect();
    }
}

impl Engine {
    fn cancel(&mut self, request_id: &str) {
        let found = self.open.iter().find(|(_, open)| open.completer.request_id() == request_id);
        if let Some(number) = found.map(|(number, _)| *number) {
            self.close(number, cancelled(request_id));
        }
    }

    /// Takes in requests that wait, as far as there is room.
    fn take_in(&mut self, core: &Core, sampler: &Sampler) {
        let mut read = 0;
        while self.rows.len() < MAX_ROWS
            && self.open.len() < MAX_OPEN
            && read < READ_PER_TURN
            && (self.open.is_empty() || self.cache_bytes() < MAX_CACHE_BYTES)
        {
            let Some(job) = sampler.next() else { return };
            read += job.spec.tokens.len();
            self.open(core, job);
        }
    }

    fn open(&mut self, core: &Core, job: Job) {
        let Job { source, spec, completer } = job;
        let seed = spec.seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
        let opened = self.loaded.get(core, &source).and_then(|model| {
            let room = spec.fit(model.config()).map_err(Outcome::user)?;
            let prompt = model
                .read(&spec.tokens, spec.prompt.wanted(), &mut self.workspace)
                .map_err(|e| Outcome::user(format!("the prompt cannot be read: {e}")))?;
            let response = scored(&spec, &prompt, seed).map_err(not_finite)?;
            Ok((model, room, prompt, response))
        });
        match opened {
            Ok((model, room, prompt, response)) => {
                let samples = vec![None; spec.samples];
                let spec = Arc::new(spec);
                let open = Open {
                    completer,
                    spec,
                    seed,
                    model,
                    prompt,
                    room,
                    response,
                    samples,
                    begun: 0,
                    growing: 0,
                };
                self.open.insert(self.next, open);
                self.next += 1;
            }
            Err(outcome) => completer.complete(outcome),
        }
    }

    /// Begins samples while there is room, each time of the request that has the fewest growing.
    fn begin_samples(&mut self) {
        while self.rows.len() < MAX_ROWS {
            let used = self.cache_bytes();
            let alone = self.rows.is_empty();
            let waiting = self.open.iter_mut().filter(|(_, open)| {
                open.begun < open.samples.len()
                    && open.growing < MAX_ROWS_OF_ONE
                    && (alone || used + open.model.cache_bytes(open.room) <= MAX_CACHE_BYTES)
            });
            let Some((number, open)) = waiting.min_by_key(|(_, open)| open.growing) else { return };
            let sample = open.begun;
            let seed = open.seed.wrapping_add(sample as u64);
            let mut growing = Growing::new(&open.spec, seed, open.room);
            open.begun += 1;
            open.growing += 1;
            let end = growing.draw(open.prompt.next_logits()).transpose();
            // The last token is never read, so it needs no keys and values.
            let ended = end.is_some();
            self.rows.push(Row {
                request: *number,
                sample,
                model: Arc::clone(&open.model),
                sequence: open.prompt.sequence(if ended { 0 } else { open.room - 1 }),
                growing,
                end,
            });
            if ended {
                self.collect();
            }
        }
    }

    /// Lets every sequence grow by a token, those with the same weights together.
    fn step(&mut self) {
        let mut models: Vec<Arc<MergedModel>> = Vec::new();
        for row in &self.rows {
            if !models.iter().any(|model| Arc::ptr_eq(model, &row.model)) {
                models.push(Arc::clone(&row.model));
            }
        }
        for model in models {
            let mut rows: Vec<&mut Row> =
                self.rows.iter_mut().filter(|row| Arc::ptr_eq(&row.model, &model)).collect();
            let mut steps: Vec<(&mut Sequence, u32)> =
                rows.iter_mut().map(|row| (&mut row.sequence, row.growing.newest())).collect();
            match model.decode(&mut steps, &mut self.scratch) {
                Ok(logits) => {
                    for (row, logits) in rows.into_iter().zip(logits.chunks_exact(model.config().vocab_size))
                    {
                        row.end = row.growing.draw(logits).transpose();
                    }
                }
                Err(error) => {
                    // Rows end before they fill the context, and their tokens are the model's own.
                    tracing::error!(%error, "a step of the sampler was refused");
                    let mut requests: Vec<u64> = rows.iter().map(|row| row.request).collect();
                    requests.dedup();
                    for request in requests {
                        self.close(request, Outcome::server(format!("sampling failed: {error}")));
                    }
                }
            }
        }
    }

    /// Takes out the samples that ended, and answers the requests whose last these were.
    fn collect(&mut self) {
        let ended: Vec<Row> = self.rows.extract_if(.., |row| row.end.is_some()).collect();
        for row in ended {
            let Some(open) = self.open.get_mut(&row.request) else { continue };
            match row.end {
                Some(Ok(reason)) => {
                    open.growing -= 1;
                    if let Some(sample) = open.samples.get_mut(row.sample) {
                        *sample = Some(row.growing.finish(reason));
                    }
                    if open.begun == open.samples.len() && open.growing == 0 {
                        let sequences = open.samples.drain(..).flatten().collect();
                        let response = SampleResponse { sequences, ..open.response.clone() };
                        self.close(row.request, Outcome::Sample(Box::new(response)));
                    }
                }
                Some(Err(error)) => self.close(row.request, not_finite(error)),
                None => {}
            }
        }
    }

    /// Ends a request and all that grows for it.
    fn close(&mut self, number: u64, outcome: Outcome) {
        self.rows.retain(|row| row.request != number);
        if let Some(open) = self.open.remove(&number) {
            open.completer.complete(outcome);
        }
    }

    /// How much memory keys and values take, or will when every sample is as long as it may become.
    fn cache_bytes(&self) -> usize {
        let prompts = self.open.values().map(|open| open.model.cache_bytes(open.prompt.len()));
        let rows = self.rows.iter().filter_map(|row| {
            let open = self.open.get(&row.request)?;
            Some(open.model.cache_bytes(open.room))
        });
        prompts.sum::<usize>() + rows.sum::<usize>()
    }
}

fn not_finite(_: NotFinite) -> Outcome {
    Outcome::user(
        "the model's output is not finite: training went astray; sample from an earlier checkpoint of the run",
    )
}
