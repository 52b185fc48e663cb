//! One trainer: takes turns between its runs, one request at a time.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::inbox::{Command, Exit, Inbox};
use super::job::{Job, Op};
use super::queue::{Late, Queue};
use super::run_state::RunState;
use crate::core::Core;
use crate::futures::Outcome;
use crate::nn::Workspace;

/// What a trainer has in memory.
struct Worker {
    runs: HashMap<Arc<str>, Held>,
    /// Runs whose next request is here, in turn.
    ready: VecDeque<Arc<str>>,
    workspace: Workspace,
}

/// One run in memory.
pub(super) struct Held {
    pub(super) state: RunState,
    pub(super) queue: Queue<Job>,
    /// Whether it stands among those that are ready.
    listed: bool,
}

impl Held {
    pub(super) fn new(state: RunState, queue: Queue<Job>) -> Self {
        Self { state, queue, listed: false }
    }
}

/// A trainer's life. Everything it holds is dropped when this returns.
pub(super) fn run(core: &Core, inbox: &Inbox, trainer: usize) -> Exit {
    let workspace = Workspace::with_threads(Arc::clone(&core.threads));
    let mut worker = Worker { runs: HashMap::new(), ready: VecDeque::new(), workspace };
    loop {
        let commands = match inbox.take(worker.patience()) {
            Ok(commands) => commands,
            Err(exit) => return exit,
        };
        for command in commands {
            worker.handle(core, command, trainer);
        }
        worker.give_up_waiting(core);
        worker.step(core);
    }
}

impl Worker {
    /// How long to wait for commands: not at all while there is work.
    fn patience(&self) -> Option<Duration> {
        if !self.ready.is_empty() {
            return Some(Duration::ZERO);
        }
        let first = self.runs.values().filter_map(|held| held.queue.deadline()).min();
        first.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    fn handle(&mut self, core: &Core, command: Command, trainer: usize) {
        match command {
            Command::Job(job) => self.take_in(core, *job),
            Command::Create(create) => {
                if let Some((run_id, held)) = core.create_from(*create, trainer) {
                    self.runs.insert(run_id, held);
                }
            }
            Command::Unload(run_id, reason) => {
                core.note_awaited(&run_id, None);
                if let Some(mut held) = self.runs.remove(&run_id) {
                    for job in held.queue.drain() {
                        job.completer.complete(Outcome::user(reason.clone()));
                    }
                }
                self.ready.retain(|ready| *ready != run_id);
            }
            Command::Recheck(run_id) => self.list_if_ready(core, &run_id),
        }
    }

    fn take_in(&mut self, core: &Core, job: Job) {
        let run_id = Arc::clone(&job.run_id);
        if !self.runs.contains_key(&run_id) {
            match core.load_run(&run_id) {
                Ok(held) => {
                    self.runs.insert(Arc::clone(&run_id), held);
                }
                Err(outcome) => return job.completer.complete(outcome),
            }
        }
        let Some(held) = self.runs.get_mut(&run_id) else { return };
        if let Err((late, job)) = held.queue.push(job.seq, job) {
            let outcome = match late {
                Late::Executed => core.forgotten(job.completer.request_id()).unwrap_or_else(|| {
                    Outcome::Gone(format!("request {} was carried out before", job.completer.request_id()))
                }),
                Late::PassedOver => Outcome::server(format!(
                    "request {} came too late and was not carried out: later requests of the run were",
                    job.completer.request_id()
                )),
            };
            return job.completer.complete(outcome);
        }
        self.list_if_ready(core, &run_id);
    }

    fn list_if_ready(&mut self, core: &Core, run_id: &Arc<str>) {
        let Some(held) = self.runs.get_mut(run_id) else { return };
        let refused = core.index().run(run_id).map(|run| run.refused.clone()).unwrap_or_default();
        let before = held.queue.missing();
        if held.queue.ready(&refused, Instant::now()) && !held.listed {
            held.listed = true;
            self.ready.push_back(Arc::clone(run_id));
        }
        let missing = held.queue.missing();
        if missing != before {
            core.note_awaited(run_id, missing);
        }
    }

    /// Passes over requests that did not come in time.
    fn give_up_waiting(&mut self, core: &Core) {
        let now = Instant::now();
        let mut freed = Vec::new();
        for (run_id, held) in &mut self.runs {
            if let Some(missing) = held.queue.mention(now) {
                tracing::warn!(run = %run_id, missing, "later requests wait for one that has not come");
            }
            if let Some((from, to)) = held.queue.give_up(now) {
                core.note_awaited(run_id, None);
                tracing::warn!(run = %run_id, from, to, "requests from..to never came; going on without them");
                freed.push(Arc::clone(run_id));
            }
        }
        for run_id in freed {
            self.list_if_ready(core, &run_id);
        }
    }

    /// Carries out one request.
    fn step(&mut self, core: &Core) {
        let Some(run_id) = self.ready.pop_front() else { return };
        let Some(held) = self.runs.get_mut(&run_id) else { return };
        held.listed = false;
        if let Some((seq, job)) = held.queue.pop() {
            let trained = job.op.trains();
            let outcome = execute(core, held, &mut self.workspace, &job, seq);
            core.note_executed(&run_id, seq, trained && !held.state.modified);
            // Before the client hears of it, so that a count of what waits is never too high.
            drop(job.permit);
            job.completer.complete(outcome);
        }
        self.list_if_ready(core, &run_id);
    }
}

fn execute(core: &Core, held: &mut Held, workspace: &mut Workspace, job: &Job, seq: u64) -> Outcome {
    let state = &mut held.state;
    match &job.op {
        Op::ForwardBackward(pass) => match state.pass(pass, workspace) {
            Ok(output) => {
                let loss = output.metrics.get("loss:sum").copied().unwrap_or_default();
                tracing::debug!(run = %job.run_id, seq, loss, forward_only = pass.forward_only, "pass");
                Outcome::Forward(output)
            }
            Err(reason) => Outcome::user(reason),
        },
        Op::OptimStep(params) => match state.step(params) {
            Ok(metrics) => {
                tracing::debug!(run = %job.run_id, seq, step = state.optimizer.step(), "optimizer step");
                // JSON has no NaN, and a step with one is refused above.
                Outcome::Done(serde_json::json!({ "metrics": metrics }))
            }
            Err(reason) => Outcome::user(reason),
        },
        Op::Save(save) => core.save(state, &job.run_id, seq, save),
        Op::Load(load) => core.load_into(state, &job.run_id, seq, load),
        Op::Refuse(refusal) => Outcome::user(refusal.reason.clone()),
    }
}
