//! What a log's entries amount to: the run's operations since the oldest checkpoint that it stands on, and how far each is.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use retinker_wire::time::Time;

use super::entry::{Base, Creation, Entry, Form, Frame, Head, Identity, RequestEntry};
use super::log::{LogError, Place, RedoLog};
use super::outcome::Outcome;
use crate::recovery::plan::SCHEMA_VERSION;
use crate::recovery::restore::Attachment;

/// One request of an operation.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// Where it is in the log.
    pub(crate) place: Place,
    pub(crate) datums: usize,
    pub(crate) bytes: usize,
    pub(crate) tokens: usize,
    /// What it came to, with whichever run.
    pub(crate) outcome: Option<Outcome>,
}

/// An operation of the run.
#[derive(Debug, Clone)]
pub(crate) struct Op {
    pub(crate) form: Form,
    pub(crate) parts: Vec<Part>,
    /// How many there are to be.
    expected: usize,
    /// Whether the server may have it.
    pub(crate) submitted: bool,
    /// Which step of the optimizer it is, from 1.
    pub(crate) step: Option<u64>,
    pub(crate) cursor: bool,
    pub(crate) own: bool,
    /// When it was called.
    pub(crate) at: Time,
}

impl Op {
    /// Whether what it came to is known.
    pub(crate) fn is_resolved(&self) -> bool {
        self.parts.iter().all(|part| part.outcome.is_some())
    }

    /// Whether it was written down whole: a program may end in between.
    fn is_whole(&self) -> bool {
        self.parts.len() == self.expected
    }

    /// Whether none of it had an effect.
    pub(crate) fn is_void(&self) -> bool {
        self.parts.iter().all(|part| part.outcome.as_ref().is_some_and(|outcome| outcome.void))
    }

    /// Whether it changes the run.
    pub(crate) fn changes_the_run(&self) -> bool {
        let changes = matches!(self.form, Form::ForwardBackward | Form::OptimStep { .. } | Form::Load { .. });
        changes && !self.is_void()
    }
}

/// What is known from a log.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    /// As of now; `next_op` and what follows it are counted on.
    pub(crate) head: Head,
    pub(crate) ops: BTreeMap<u64, Op>,
    /// A run that was about to be made when the program ended.
    pub(crate) identity: Option<Identity>,
    /// Another run is being made, and has not taken the place of the one of now: that may not be gone on with, whatever the service says of it.
    pub(crate) rebuilding: bool,
    /// The number of the run's next request.
    pub(crate) next_seq_id: u64,
    /// How often the run was lost while an operation was carried out.
    pub(crate) strikes: BTreeMap<u64, u32>,
    /// The oldest segment's number, and the first operation in each segment after it.
    segments: BTreeMap<u64, u64>,
}

impl Ledger {
    pub(crate) fn new(head: Head) -> Self {
        let next_seq_id = head.run.as_ref().map_or(1, |run| run.next_seq_id);
        Self {
            head,
            ops: BTreeMap::new(),
            identity: None,
            rebuilding: false,
            next_seq_id,
            strikes: BTreeMap::new(),
            segments: BTreeMap::new(),
        }
    }

    /// What is in a log; `None` if that is nothing.
    pub(crate) async fn read(log: &dyn RedoLog) -> Result<Option<Self>, LogError> {
        let mut ledger: Option<Self> = None;
        let mut frames = log.frames();
        while let Some(frame) = frames.next().await {
            let (place, Frame { entry, .. }) = frame?;
            if let Entry::Head(head) = &entry
                && head.schema > SCHEMA_VERSION
            {
                let (found, known) = (head.schema, SCHEMA_VERSION);
                return Err(LogError::Newer { log: log.name(), found, known });
            }
            match (&mut ledger, entry) {
                (None, Entry::Head(head)) => {
                    ledger.insert(Self::new(*head)).begin_segment(place.segment);
                }
                (None, _) => {
                    let reason = "the segment has no head".to_owned();
                    return Err(LogError::Damaged { log: log.name(), place, reason });
                }
                (Some(ledger), entry) => ledger.take(place, entry),
            }
        }
        if let Some(ledger) = &mut ledger {
            // What was not written down whole was not sent, nor what is not noted to have been.
            let unsent = |op: &Op| !op.is_whole() || !op.submitted;
            while let Some(last) = ledger.ops.last_key_value().filter(|(_, op)| unsent(op)).map(|(op, _)| *op)
            {
                ledger.forget_from(last);
            }
            // Those of dropped segments are named by the heads that were written before they were let go.
            let first = ledger.first_op();
            ledger.head.bases.retain(|base| base.from >= first);
        }
        Ok(ledger)
    }

    fn begin_segment(&mut self, segment: u64) {
        self.segments.insert(segment, self.head.next_op);
    }

    /// Takes the next entry.
    pub(crate) fn take(&mut self, place: Place, entry: Entry) {
        match entry {
            Entry::Head(_) => self.begin_segment(place.segment),
            Entry::Request(request) => self.take_request(place, request),
            Entry::Submitted { op, .. } => {
                if let Some(op) = self.ops.get_mut(&op) {
                    op.submitted = true;
                }
            }
            Entry::Accepted { request_ids, .. } => self.next_seq_id += request_ids.len() as u64,
            Entry::Resolved { op, part, outcome } => {
                self.resolve(op, part, outcome);
            }
            Entry::Discarded { from } => self.forget_from(from),
            Entry::Base { op, path } => self.stand_on(op, path),
            Entry::Useless { path } => self.head.bases.retain(|base| base.path != path),
            Entry::Identity(identity) => {
                self.rebuilding = self.head.run.is_some();
                self.identity = Some(identity);
            }
            Entry::Replaying => {
                self.rebuilding = true;
                self.identity = None;
            }
            Entry::Run { generation, attachment } => {
                self.identity = None;
                self.rebuilding = false;
                self.next_seq_id = attachment.next_seq_id;
                self.head.generation = generation;
                self.head.runs.push(attachment.model_id.clone());
                self.head.root.get_or_insert_with(|| attachment.model_id.clone());
                self.head.run = Some(attachment);
            }
            Entry::Struck { op } => *self.strikes.entry(op).or_default() += 1,
        }
    }

    fn take_request(&mut self, place: Place, request: RequestEntry) {
        // The one before it of this number was not written down whole, and never sent.
        if request.part == 0 && self.ops.contains_key(&request.op) {
            self.forget_from(request.op);
        }
        let RequestEntry { op, part: _, parts, datums, bytes, tokens, at, own, cursor, form } = request;
        self.head.saves += u64::from(own && matches!(form, Form::SaveState { .. }));
        let steps = &mut self.head.steps;
        let kept = self.ops.entry(op).or_insert_with(|| {
            let step = matches!(form, Form::OptimStep { .. }).then(|| {
                *steps += 1;
                *steps
            });
            Op { form, parts: Vec::new(), expected: parts, submitted: false, step, cursor, own, at }
        });
        kept.parts.push(Part { place, datums, bytes, tokens, outcome: None });
        self.head.next_op = op + 1;
    }

    fn resolve(&mut self, number: u64, part: usize, outcome: Outcome) {
        let Some(op) = self.ops.get_mut(&number) else { return };
        let took_place = !outcome.void && !outcome.failed;
        if let Some(part) = op.parts.get_mut(part) {
            part.outcome = Some(outcome);
        }
        if op.is_resolved() {
            self.strikes.remove(&number);
        }
        // What failed was no step: those after it are counted without it.
        if !took_place && op.step.take().is_some() {
            self.head.steps -= 1;
            self.ops
                .range_mut(number + 1..)
                .filter_map(|(_, op)| op.step.as_mut())
                .for_each(|step| *step -= 1);
        }
    }

    fn forget_from(&mut self, from: u64) {
        self.strikes.split_off(&from);
        let forgotten = self.ops.split_off(&from);
        self.head.steps -= forgotten.values().filter(|op| op.step.is_some()).count() as u64;
        self.head.next_op = from;
        self.head.bases.retain(|base| base.op < from);
    }

    fn stand_on(&mut self, op: u64, path: String) {
        let before = self.ops.range(..op).rev().find_map(|(_, op)| op.step);
        // Of steps that are not kept any more all lie before it.
        let step = before.unwrap_or(self.head.steps - self.steps_kept());
        self.head.bases.push(Base { op, path, from: self.again_from(op), step });
    }

    /// The first operation to be done again after a checkpoint is loaded that this one saves: a gradient that adds up is in no
    /// checkpoint, and a sampler of the same weights has its place behind the last step.
    pub(crate) fn again_from(&self, op: u64) -> u64 {
        let behind = self.ops.range(..op).rev().take_while(|(_, op)| op.step.is_none());
        let again = behind.filter(|(_, op)| op.changes_the_run() || op.form.makes_a_sampler());
        again.last().map_or(op, |(number, _)| *number)
    }

    fn steps_kept(&self) -> u64 {
        self.ops.values().filter(|op| op.step.is_some()).count() as u64
    }

    /// The oldest operation that is kept, or the next one.
    pub(crate) fn first_op(&self) -> u64 {
        self.segments.values().next().copied().unwrap_or(self.head.next_op)
    }

    /// Whether the run can be made anew from its beginning.
    pub(crate) fn has_the_beginning(&self) -> bool {
        self.first_op() == 0
    }

    /// The last step of the optimizer.
    pub(crate) fn last_step(&self) -> Option<(u64, &Op)> {
        self.ops.iter().rev().find(|(_, op)| op.step.is_some()).map(|(number, op)| (*number, op))
    }

    /// The first operation behind the last step that a program which begins again behind that step would do again, or whose end
    /// nobody knows; what is before it stays.
    pub(crate) fn loose_end(&self) -> Option<u64> {
        let from = self.last_step().map_or(0, |(number, _)| number + 1);
        let loose = |op: &Op| !op.is_resolved() || op.changes_the_run();
        self.ops.range(from..).find(|(_, op)| loose(op)).map(|(number, _)| *number)
    }

    /// Whether the run may not be where the last step has left it.
    pub(crate) fn is_adrift(&self) -> bool {
        let end = self.loose_end().unwrap_or(u64::MAX);
        let adrift = |(number, op): (&u64, &Op)| {
            op.submitted && op.changes_the_run() && (!op.is_resolved() || *number >= end)
        };
        self.ops.iter().any(adrift)
    }

    /// The operation that the run is lost by, as often as it may be.
    pub(crate) fn pill(&self, times: u32) -> Option<(u64, u32)> {
        self.strikes.iter().find(|(_, struck)| **struck >= times).map(|(op, struck)| (*op, *struck))
    }

    /// The operation that was this step of the optimizer.
    pub(crate) fn op_of_step(&self, step: u64) -> Option<u64> {
        self.ops.iter().find(|(_, op)| op.step == Some(step)).map(|(number, _)| *number)
    }

    /// How the run can be gone on with.
    pub(crate) fn attachment(&self) -> Option<Attachment> {
        self.head.run.clone().map(|run| Attachment { next_seq_id: self.next_seq_id, ..run })
    }

    /// The checkpoints that something can be made anew from, newest first; `None` stands for the beginning.
    pub(crate) fn starts(&self) -> Vec<Option<Base>> {
        let bases = self.head.bases.iter().rev().cloned().map(Some);
        bases.chain(self.has_the_beginning().then_some(None)).collect()
    }

    /// The first operation that is to be done again from there.
    pub(crate) fn from(start: Option<&Base>) -> u64 {
        start.map_or(0, |base| base.from)
    }

    /// The steps that a run can be made of anew: from the oldest checkpoint that is kept on.
    pub(crate) fn window(&self) -> std::ops::RangeInclusive<u64> {
        let first = match self.has_the_beginning() {
            true => 0,
            false => self.head.bases.first().map_or(self.head.steps, |base| base.step),
        };
        first..=self.head.steps
    }

    /// The checkpoints without which nothing can be made anew: those that are stood on, and those that are loaded on the way.
    pub(crate) fn stands_on(&self) -> Vec<String> {
        let mut paths: Vec<String> = self.head.bases.iter().map(|base| base.path.clone()).collect();
        let from = self.starts().last().map_or(u64::MAX, |start| Self::from(start.as_ref()));
        for op in self.ops.range(from..).map(|(_, op)| op).filter(|op| !op.is_void()) {
            if let Form::Load { path, .. } = &op.form
                && !paths.contains(path)
            {
                paths.push(path.clone());
            }
        }
        paths
    }

    /// Lets go of all checkpoints but the newest `keep`, and of what lies before them; tells the oldest segment that is needed.
    pub(crate) fn let_go(&mut self, keep: usize) -> Option<u64> {
        let surplus = self.head.bases.len().saturating_sub(keep);
        self.head.bases.drain(..surplus);
        if self.head.bases.len() < keep {
            return None;
        }
        let needed = self.head.bases.first()?.from;
        let segment = self.segments.iter().rev().find(|(_, first)| **first <= needed).map(|(s, _)| *s)?;
        if self.segments.keys().next() == Some(&segment) {
            return None;
        }
        self.segments = self.segments.split_off(&segment);
        let first = self.first_op();
        self.ops = self.ops.split_off(&first);
        Some(segment)
    }

    /// What the next segment begins with.
    pub(crate) fn next_head(&self) -> Head {
        Head { run: self.attachment(), ..self.head.clone() }
    }

    /// How the first run was made.
    pub(crate) fn creation(&self) -> &Creation {
        &self.head.creation
    }
}
