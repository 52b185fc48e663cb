//! A driver: the real executor, whose state is what it was answered so far.
//!
//! A future cannot be copied, and a checker has to go on from every state in many ways. So a state is the list of answers
//! from which a fresh driver is put there again; that is done once for each list, and remembered.
//!
//! Lists that lead to the same place are made one, or there would be no end to them: a lease that was renewed is the lease
//! that it was; within a call the executor goes on, after a step, from its lease and the record alone; and it keeps nothing
//! between calls. In the first two cases it is asserted that what is asked for next is the same.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use retinker::client::retry::RetryPolicy;
use retinker::client::{Api, ApiConfig};
use retinker::recovery::executor::Executor;
use retinker::recovery::journal::{Begun, Lease};
use retinker::recovery::plan::RestorePlan;
use retinker::recovery::restore::RestoreState;
use serde_json::{Value, json};

use crate::digest;
use crate::seams::{Answer, Ask, Desk, Lane};
use crate::service::Rules;
use crate::world::without_story;

/// What a driver is doing. Between two of these it remembers nothing but the restore's id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Stage {
    /// It restores the run, or finds the restore of it.
    Begin,
    /// It carries this restore on.
    Run(String),
    /// It takes its run over.
    HandOver(String),
}

impl Stage {
    /// Does this; answers what is next.
    async fn act(self, executor: Executor, plan: RestorePlan) -> Option<Self> {
        match self {
            Self::Begin => match executor.begin(plan).await.ok()? {
                Begun::New(record) | Begun::Existing(record) => Some(Self::Run(record.id)),
            },
            Self::Run(id) => {
                let record = executor.run(&id).await.ok()?;
                (record.state == RestoreState::Adopted).then_some(Self::HandOver(id))
            }
            Self::HandOver(id) => {
                executor.hand_over(&id).await.ok()?;
                None
            }
        }
    }
}

/// Where a driver is.
#[derive(Debug)]
pub struct Point {
    /// Tells it from others.
    pub id: u64,
    seed: u64,
    stage: Stage,
    work: Vec<Answer>,
    keep: Vec<Answer>,
    /// What it asks for. Nothing: it has ended.
    pub asks: Vec<(Lane, Ask)>,
    next: Option<Stage>,
}

impl Point {
    /// What this lane asks for.
    pub fn ask(&self, lane: Lane) -> Option<&Ask> {
        self.asks.iter().find(|(of, _)| *of == lane).map(|(_, ask)| ask)
    }

    /// How often it has paused to try again.
    pub fn pauses(&self) -> usize {
        self.work.iter().filter(|answer| matches!(answer, Answer::Elapsed)).count()
    }

    /// The answers that lead to where this driver is once the write that it asks for is done. Where the write ends a
    /// step, the executor goes on from nothing but its lease and the record: as one does that has just read it.
    fn written(&self) -> Option<Vec<Answer>> {
        let (Stage::Run(_), Some(Ask::Append(_, record))) = (&self.stage, self.ask(Lane::Work)) else {
            return None;
        };
        let [lease, Answer::Record(Some(read)), ..] = self.work.as_slice() else { return None };
        if record.state == read.state || record.state == RestoreState::Failed {
            return None;
        }
        Some(vec![lease.clone(), Answer::Record(Some(Box::new(without_story(record))))])
    }
}

/// All drivers, as far as they were looked at.
#[derive(Debug)]
pub struct Drivers {
    plan: RestorePlan,
    rules: Rules,
    old_run: Value,
    checkpoints: Value,
    known: Mutex<HashMap<u64, Arc<Point>>>,
}

impl Drivers {
    /// Drivers that carry out this plan.
    pub fn new(plan: RestorePlan, rules: Rules) -> Self {
        let old_run = json!({
            "training_run_id": plan.run_id, "base_model": plan.base_model, "model_owner": "me", "is_lora": true,
            "corrupted": true, "lora_rank": plan.lora_rank, "last_request_time": "2026-01-01T00:00:00Z",
        });
        let checkpoints = json!({"checkpoints": [plan.checkpoint]});
        Self { plan, rules, old_run, checkpoints, known: Mutex::default() }
    }

    /// One that has just been started; no two have the same seed.
    pub fn start(&self, seed: u64) -> Arc<Point> {
        self.point(seed, Stage::Begin, Vec::new(), Vec::new())
    }

    /// Where a driver is after this lane's ask has been answered.
    pub fn answered(&self, at: &Point, lane: Lane, answer: Answer) -> Arc<Point> {
        let done = matches!(answer, Answer::Done(Ok(())));
        let (mut work, mut keep) = (at.work.clone(), at.keep.clone());
        match lane {
            Lane::Work => work.push(answer),
            Lane::Keep => keep.push(answer),
        }
        let point = |work, keep| self.point(at.seed, at.stage.clone(), work, keep);
        if renewed(&work, &keep) {
            return same(point(work.clone(), Vec::new()), &point(work, keep));
        }
        if lane == Lane::Work && !keep.is_empty() && point(work.clone(), Vec::new()).ask(Lane::Keep).is_none()
        {
            keep.clear();
        }
        if lane == Lane::Work
            && done
            && let Some(shorter) = at.written()
        {
            return same(point(shorter, keep.clone()), &point(work, keep));
        }
        let point = point(work, keep);
        match &point.next {
            Some(stage) => self.point(at.seed, stage.clone(), Vec::new(), Vec::new()),
            None => point,
        }
    }

    fn point(&self, seed: u64, stage: Stage, work: Vec<Answer>, keep: Vec<Answer>) -> Arc<Point> {
        let digests = |answers: &[Answer]| answers.iter().map(Answer::digest).collect::<Vec<_>>();
        let id = digest::of((seed, &stage, digests(&work), digests(&keep)));
        let mut known = self.known.lock().unwrap();
        let point = known.entry(id).or_insert_with(|| {
            let (asks, next) = self.replay(seed, &stage, &work, &keep);
            Arc::new(Point { id, seed, stage, work, keep, asks, next })
        });
        Arc::clone(point)
    }

    /// What a driver asks for after these answers, and what is next if it has ended.
    fn replay(
        &self,
        seed: u64,
        stage: &Stage,
        work: &[Answer],
        keep: &[Answer],
    ) -> (Vec<(Lane, Ask)>, Option<Stage>) {
        let chance = digest::of((seed, stage));
        let desk = Desk::new(chance, self.rules, self.old_run.clone(), self.checkpoints.clone());
        let config = ApiConfig { base_url: "http://service".into(), ..ApiConfig::default() };
        let api = Api::new(config, Arc::new(desk.clone()), Arc::new(desk.clone())).unwrap();
        // The executor's own retries are enough to be looked at.
        let api = api.with_retry(RetryPolicy::none());
        let executor = Executor::new(api, Arc::new(desk.clone()), Arc::new(desk.clone()));
        let mut program = pin!(stage.clone().act(executor, self.plan.clone()));
        let mut context = Context::from_waker(Waker::noop());
        let mut now = program.as_mut().poll(&mut context);
        let answers = work.iter().map(|answer| (Lane::Work, answer));
        for (lane, answer) in answers.chain(keep.iter().map(|answer| (Lane::Keep, answer))) {
            assert!(now.is_pending(), "{answer:?} comes after the end");
            desk.answer(lane, answer.clone());
            now = program.as_mut().poll(&mut context);
        }
        let asks = desk.asked();
        assert_eq!(now.is_ready(), asks.is_empty(), "a driver that has not ended asks for something");
        match now {
            Poll::Ready(next) => (asks, next),
            Poll::Pending => (asks, None),
        }
    }

    /// How many points were looked at.
    pub fn count(&self) -> usize {
        self.known.lock().unwrap().len()
    }
}

/// Whether the lease was renewed, after a pause, and is the one that it was.
fn renewed(work: &[Answer], keep: &[Answer]) -> bool {
    let lease = |answer: &Answer| match answer {
        Answer::Lease(Ok(Some(lease))) => Some(lease.clone()),
        _ => None,
    };
    let taken: Option<Lease> = work.iter().rev().find_map(lease);
    matches!(keep, [Answer::Elapsed, answer] if lease(answer) == taken)
}

/// The first of two points, which must be one place.
fn same(point: Arc<Point>, other: &Point) -> Arc<Point> {
    let asked =
        |point: &Point| point.asks.iter().map(|(lane, ask)| (*lane, ask.digest())).collect::<Vec<_>>();
    assert_eq!(asked(&point), asked(other), "two ways that should lead to one place do not");
    point
}
