//! One trainer: takes turns between its runs, one request at a time.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::inbox::{Command, Exit, Inbox, RollBack};
use super::job::{CreateFrom, Job, Op};
use super::queue::{Late, Queue};
use super::run_state::RunState;
use super::states::States;
use crate::core::Core;
use crate::futures::Outcome;
use crate::metrics::Tally;
use crate::time::now_millis;
use retinker_nn::Workspace;
use retinker_wire::path::TinkerPath;
use retinker_wire::tensor::TensorValues;
use retinker_wire::training::ForwardBackwardOutput;

/// What a trainer has in memory.
struct Worker {
    states: States,
    runs: HashMap<Arc<str>, Requests>,
    /// Runs whose next request is here, in turn.
    ready: VecDeque<Arc<str>>,
    /// Runs whose next request is missing while later ones are here.
    waiting: BTreeSet<Arc<str>>,
    workspace: Workspace,
    /// Runs to be made from checkpoints.
    creations: Vec<CreateFrom>,
}

/// What one run is asked for.
struct Requests {
    queue: Queue<Job>,
    /// The passes since the last optimizer step.
    tally: Tally,
    /// Whether it stands among those that are ready.
    listed: bool,
}

impl Requests {
    fn new(queue: Queue<Job>) -> Self {
        Self { queue, tally: Tally::default(), listed: false }
    }
}

/// A trainer's life. Everything it holds is dropped when this returns.
pub(super) fn run(core: &Core, inbox: &Inbox, trainer: usize) -> Exit {
    let mut worker = Worker::new(core);
    loop {
        let patience = core.faults.rest().or_else(|| worker.patience());
        let commands = match inbox.take(patience) {
            Ok(commands) => commands,
            Err(exit) => return exit,
        };
        for command in commands {
            worker.handle(core, command);
        }
        if core.faults.rest().is_some() {
            continue;
        }
        worker.create(core, trainer);
        worker.give_up_waiting(core);
        worker.step(core);
    }
}

impl Worker {
    fn new(core: &Core) -> Self {
        Self {
            states: States::new(core.memory_share, core.layout.aside()),
            runs: HashMap::new(),
            ready: VecDeque::new(),
            waiting: BTreeSet::new(),
            workspace: Workspace::with_threads(Arc::clone(&core.threads)),
            creations: Vec::new(),
        }
    }

    /// How long to wait for commands: not at all while there is work.
    fn patience(&self) -> Option<Duration> {
        if !self.ready.is_empty() || !self.creations.is_empty() {
            return Some(Duration::ZERO);
        }
        let waiting = self.waiting.iter().filter_map(|run_id| self.runs.get(run_id));
        let first = waiting.filter_map(|run| run.queue.deadline()).min();
        first.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    fn handle(&mut self, core: &Core, command: Command) {
        match command {
            Command::Job(job) => self.take_in(core, *job),
            Command::Create(create) => self.creations.push(*create),
            Command::Unload(run_id, outcome) => self.unload(core, &run_id, &outcome),
            Command::Recheck(run_id) => self.list_if_ready(core, &run_id),
            Command::RollBack(asked) => {
                let RollBack { run_id, path, done } = *asked;
                // Whoever asked may have stopped waiting.
                let _ = done.send(self.roll_back(core, &run_id, &path));
            }
        }
    }

    /// Loses the work since a checkpoint, as a service does that goes on from its last one after a restart.
    fn roll_back(&mut self, core: &Core, run_id: &Arc<str>, path: &TinkerPath) -> Result<(), String> {
        let reason = |outcome: Outcome| match outcome {
            Outcome::Failed { message, .. } | Outcome::Gone(message) => {
                format!("run {run_id} cannot be rolled back: {message}")
            }
            _ => format!("run {run_id} cannot be rolled back"),
        };
        let earlier = core.earlier(path).map_err(reason)?;
        *self.states.get(core, run_id).map_err(reason)? = earlier;
        Ok(())
    }

    /// Forgets a run; what waits for it comes to this.
    fn unload(&mut self, core: &Core, run_id: &Arc<str>, outcome: &Outcome) {
        core.note_awaited(run_id, None);
        self.states.forget(run_id);
        self.waiting.remove(run_id);
        let Some(mut run) = self.runs.remove(run_id) else { return };
        for job in run.queue.drain() {
            job.completer.complete(outcome.clone());
        }
        if run.listed {
            self.ready.retain(|ready| ready != run_id);
        }
    }

    /// Makes the runs that were asked for.
    fn create(&mut self, core: &Core, trainer: usize) {
        for create in std::mem::take(&mut self.creations) {
            if let Some(outcome) = core.faults.of_operation("load_weights", &create.run_id) {
                create.completer.complete(outcome);
            } else if let Some((run_id, state)) = core.create_from(create, trainer) {
                self.states.insert(&run_id, state);
                self.runs.insert(run_id, Requests::new(Queue::new(1, 0)));
            }
        }
    }

    fn take_in(&mut self, core: &Core, job: Job) {
        let run_id = Arc::clone(&job.run_id);
        if !self.runs.contains_key(&run_id) {
            match core.queue_of(&run_id) {
                Ok(queue) => {
                    self.runs.insert(Arc::clone(&run_id), Requests::new(queue));
                }
                Err(outcome) => return job.completer.complete(outcome),
            }
        }
        let Some(run) = self.runs.get_mut(&run_id) else { return };
        if let Err((late, job)) = run.queue.push(job.seq, job) {
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
        let Some(run) = self.runs.get_mut(run_id) else { return };
        let before = run.queue.missing();
        let ready = {
            let index = core.index();
            let nothing = BTreeSet::new();
            let refused = index.run(run_id).map_or(&nothing, |run| &run.refused);
            run.queue.ready(refused, Instant::now())
        };
        if ready && !run.listed {
            run.listed = true;
            self.ready.push_back(Arc::clone(run_id));
        }
        let missing = run.queue.missing();
        if missing != before {
            match missing {
                Some(_) => self.waiting.insert(Arc::clone(run_id)),
                None => self.waiting.remove(run_id),
            };
            core.note_awaited(run_id, missing);
        }
    }

    /// Passes over requests that did not come in time.
    fn give_up_waiting(&mut self, core: &Core) {
        let now = Instant::now();
        let mut freed = Vec::new();
        for run_id in &self.waiting {
            let Some(run) = self.runs.get_mut(run_id) else { continue };
            if let Some(missing) = run.queue.mention(now) {
                tracing::warn!(run = %run_id, missing, "later requests wait for one that has not come");
            }
            if let Some((from, to)) = run.queue.give_up(now) {
                core.note_awaited(run_id, None);
                tracing::warn!(run = %run_id, from, to, "requests from..to never came; going on without them");
                freed.push(Arc::clone(run_id));
            }
        }
        for run_id in freed {
            self.waiting.remove(&run_id);
            self.list_if_ready(core, &run_id);
        }
    }

    /// Carries out one request.
    fn step(&mut self, core: &Core) {
        let Some(run_id) = self.ready.pop_front() else { return };
        let Some(run) = self.runs.get_mut(&run_id) else { return };
        run.listed = false;
        if let Some((seq, job)) = run.queue.pop() {
            let state = match self.states.get(core, &run_id) {
                Ok(state) => state,
                Err(outcome) => {
                    job.completer.complete(outcome.clone());
                    return self.unload(core, &run_id, &outcome);
                }
            };
            if let Some(outcome) = core.faults.of_loss(job.op.name(), &run_id) {
                let reason = format!("{} lost the run on purpose, by a fault rule", job.op.name());
                if let Err(error) = core.corrupt(&[(Arc::clone(&run_id), reason)]) {
                    tracing::error!(run = %run_id, %error, "a run could not be marked as corrupted");
                }
                job.completer.complete(outcome.clone());
                return self.unload(core, &run_id, &outcome);
            }
            let trained = job.op.trains();
            let outcome = execute(core, state, (&mut self.workspace, &mut run.tally), &job, seq);
            core.note_executed(&run_id, seq, trained && !state.modified);
            // Before the client hears of it, so that a count of what waits is never too high.
            drop((job.permit, job.waiting));
            job.completer.complete(outcome);
        }
        self.list_if_ready(core, &run_id);
    }
}

/// What a service whose arithmetic is not its own gives: each number off by up to this part of itself.
fn noisy(mut output: ForwardBackwardOutput, part: f64, seq: u64) -> ForwardBackwardOutput {
    if part == 0.0 {
        return output;
    }
    // By the clock: the same pass is never off in the same way.
    let mut chance = now_millis().cast_unsigned() ^ seq.rotate_left(32);
    let mut off = || {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        1.0 + part * ((chance >> 11) as f64 / (1_u64 << 52) as f64 - 1.0)
    };
    for tensor in output.loss_fn_outputs.iter_mut().flat_map(|fields| fields.values_mut()) {
        if let TensorValues::Float32(values) = &mut tensor.values {
            values.iter_mut().for_each(|value| *value = (f64::from(*value) * off()) as f32);
        }
    }
    output.metrics.values_mut().for_each(|value| *value *= off());
    output
}

fn execute(
    core: &Core,
    state: &mut RunState,
    (workspace, tally): (&mut Workspace, &mut Tally),
    job: &Job,
    seq: u64,
) -> Outcome {
    if let Some(outcome) = core.faults.of_operation(job.op.name(), &job.run_id) {
        return outcome;
    }
    match &job.op {
        Op::ForwardBackward(pass) => match state.pass(pass, workspace) {
            Ok(output) => {
                let output = noisy(output, core.faults.noise(), seq);
                let loss = output.metrics.get("loss:sum").copied().unwrap_or_default();
                tracing::debug!(run = %job.run_id, seq, loss, forward_only = pass.forward_only, "pass");
                if !pass.forward_only {
                    tally.add(pass, &output.metrics);
                }
                Outcome::Forward(output)
            }
            Err(reason) => Outcome::user(reason),
        },
        Op::OptimStep(params) => match state.step(params) {
            Ok(metrics) => {
                let step = state.optimizer.step();
                tracing::debug!(run = %job.run_id, seq, step, "optimizer step");
                let passes = std::mem::take(tally);
                let point = passes.point((step, seq), now_millis(), params.learning_rate, &metrics);
                core.note_step(&job.run_id, point);
                // JSON has no NaN, and a step with one is refused above.
                Outcome::Done(serde_json::json!({ "metrics": metrics }))
            }
            Err(reason) => {
                // The gradients of the passes were dropped.
                *tally = Tally::default();
                Outcome::user(reason)
            }
        },
        Op::Save(save) => core.save(state, &job.run_id, seq, save),
        Op::SaveForSampler(save) => core.save_for_sampler(state, &job.run_id, seq, save),
        Op::Load(load) => core.load_into(state, &job.run_id, seq, load),
        Op::Refuse(refusal) => Outcome::user(refusal.reason.clone()),
    }
}
