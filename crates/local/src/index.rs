//! Everything there is, in memory: what is read by every call, in the order in which it is listed.
//!
//! The database holds the same and is read at start only. Order is that of creation, by the database's ordinals, so
//! pages are stable: what is new comes before the first page and moves the rest as a whole.

mod runs;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use retinker_wire::path::TinkerPath;
use retinker_wire::run::{Checkpoint, CheckpointType, TrainingRun};
use retinker_wire::session::CreateSessionRequest;

use crate::changes::{Change, Changes};
use crate::db::{
    CheckpointKind, CheckpointRow, CheckpointState, NewRun, Progress, Rows, RunRow, SamplerRow, SessionEnd,
    SessionRow,
};
use crate::labels::Labels;
use crate::metrics::Point;
use crate::time::time;

use runs::{Order, Place, Runs};

/// How many refused request numbers are remembered for each run.
const REFUSED: usize = 1024;

/// A session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) created_at: i64,
    pub(crate) request: CreateSessionRequest,
    pub(crate) runs: Vec<Arc<str>>,
    pub(crate) samplers: Vec<Arc<str>>,
    /// How it ended; `None` while it lasts.
    pub(crate) ended: Option<SessionEnd>,
    pub(crate) last_heartbeat: Instant,
}

/// The project of sessions that were given none.
const PROJECT: &str = "local";

impl Session {
    /// The project that it belongs to.
    pub(crate) fn project(&self) -> &str {
        self.request.project_id.as_deref().unwrap_or(PROJECT)
    }
}

/// A sampling session.
#[derive(Debug)]
pub(crate) struct Sampler {
    pub(crate) row: SamplerRow,
    /// The checkpoint that it samples from; `None` = the base model, or the checkpoint is gone.
    pub(crate) checkpoint: Option<Arc<CheckpointRow>>,
}

/// A run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) ordinal: u64,
    pub(crate) new: Arc<NewRun>,
    pub(crate) last_request_at: i64,
    /// Why its state is lost; `None` while it is not.
    pub(crate) corrupted: Option<String>,
    /// Why it takes no more requests although its session lasts.
    pub(crate) retired: Option<String>,
    /// What is in memory only.
    pub(crate) unsaved: Unsaved,
    /// The number of the last request carried out, as far as this process knows.
    pub(crate) executed_seq: u64,
    /// The highest number taken in.
    pub(crate) accepted_seq: u64,
    /// Requests up to this number may have been taken in by a memory that is gone. They changed nothing, or the run would be
    /// corrupted; nobody waits for them.
    pub(crate) expendable_seq: u64,
    /// The number that its trainer waits for while later ones are here.
    pub(crate) awaited_seq: Option<u64>,
    /// What it is reloaded from; `None` = its seed.
    pub(crate) standing: Option<Arc<CheckpointRow>>,
    /// Which trainer holds it; chosen when first needed.
    pub(crate) trainer: Option<usize>,
    /// Numbers of requests that were refused, so that nobody waits for them.
    pub(crate) refused: BTreeSet<u64>,
    /// Every request taken in and not carried out yet holds a copy, so that they can be counted.
    pub(crate) permit: Arc<()>,
    /// Its listed checkpoints, oldest first.
    pub(crate) checkpoints: Vec<Arc<CheckpointRow>>,
    /// Points of its metric series that are not written yet.
    pub(crate) unwritten: Vec<Point>,
    /// The last point, if it was made since the service started.
    pub(crate) last_point: Option<Box<Point>>,
    /// Whether its progress has to be written.
    touched: bool,
}

/// What of a run is in memory only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Unsaved {
    /// When it began; `None` = there is nothing.
    pub(crate) since: Option<i64>,
    /// Whether the mark is known to be on the disk.
    pub(crate) durable: bool,
    /// How many training requests were accepted since.
    pub(crate) requests: u64,
    /// The highest number among them.
    pub(crate) highest_seq: u64,
}

impl Run {
    fn from_row(row: RunRow) -> Self {
        Self {
            ordinal: row.ordinal,
            last_request_at: row.last_request_at,
            corrupted: row.corrupted_reason,
            retired: row.retired,
            unsaved: Unsaved { since: row.dirty_since, durable: true, requests: row.unsaved, highest_seq: 0 },
            executed_seq: 0,
            accepted_seq: row.accepted_seq,
            expendable_seq: row.accepted_seq,
            awaited_seq: None,
            standing: None,
            trainer: None,
            refused: BTreeSet::new(),
            permit: Arc::new(()),
            checkpoints: Vec::new(),
            unwritten: Vec::new(),
            last_point: None,
            touched: false,
            new: row.new,
        }
    }

    /// Notes a number that was refused.
    pub(crate) fn refuse(&mut self, seq: u64) {
        self.refused.insert(seq);
        if self.refused.len() > REFUSED {
            self.refused.pop_first();
        }
    }

    /// The newest training checkpoint that has not expired.
    pub(crate) fn newest_checkpoint(&self, now: i64) -> Option<&Arc<CheckpointRow>> {
        self.newest_of(CheckpointKind::Training, now)
    }

    fn newest_of(&self, kind: CheckpointKind, now: i64) -> Option<&Arc<CheckpointRow>> {
        self.newest_first(now).find(|checkpoint| checkpoint.new.kind == kind)
    }

    /// Its checkpoints that have not expired, newest first.
    pub(crate) fn newest_first(&self, now: i64) -> impl Iterator<Item = &Arc<CheckpointRow>> {
        self.checkpoints.iter().rev().filter(move |checkpoint| !checkpoint.expired(now))
    }

    /// The run as it is listed.
    pub(crate) fn to_wire(&self, now: i64) -> TrainingRun {
        TrainingRun {
            training_run_id: self.new.run_id.to_string(),
            base_model: self.new.base_model.to_string(),
            model_owner: crate::core::OWNER.to_owned(),
            is_lora: true,
            corrupted: Some(self.corrupted.is_some()),
            lora_rank: Some(self.new.lora.rank),
            last_request_time: time(self.last_request_at),
            last_checkpoint: self.newest_checkpoint(now).map(|checkpoint| checkpoint.to_wire()),
            last_sampler_checkpoint: self
                .newest_of(CheckpointKind::Sampler, now)
                .map(|checkpoint| checkpoint.to_wire()),
            user_metadata: self.new.user_metadata.as_ref().map(Labels::to_wire),
            corrupted_reason: self.corrupted.clone(),
        }
    }
}

impl CheckpointRow {
    /// Its address. Those that users do not see have none; they are given that of a training checkpoint.
    pub(crate) fn path(&self) -> TinkerPath {
        TinkerPath {
            training_run_id: self.new.run_id.to_string(),
            checkpoint_type: self.new.kind.listed_as().unwrap_or(CheckpointType::Training),
            name: self.new.name.to_string(),
        }
    }

    /// The checkpoint as it is listed.
    pub(crate) fn to_wire(&self) -> Checkpoint {
        let path = self.path();
        Checkpoint {
            checkpoint_id: path.checkpoint_id(),
            checkpoint_type: path.checkpoint_type.clone(),
            time: time(self.new.saved_at),
            tinker_path: path.to_string(),
            size_bytes: Some(self.size_bytes),
            public: self.public,
            user_metadata: self.new.user_metadata.as_deref().map(Labels::to_wire),
            expires_at: self.expires_at.map(time),
        }
    }

    /// Whether users see it.
    pub(crate) fn is_listed(&self) -> bool {
        self.new.kind.listed_as().is_some() && self.state == CheckpointState::Live
    }

    /// Whether its time has come.
    pub(crate) fn expired(&self, now: i64) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// What a page is cut from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Page {
    pub(crate) offset: usize,
    pub(crate) limit: usize,
}

/// Everything there is.
#[derive(Debug, Default)]
pub(crate) struct Index {
    sessions: HashMap<String, Session>,
    /// Sessions by what their creation was marked with.
    session_keys: HashMap<String, String>,
    samplers: HashMap<Arc<str>, Sampler>,
    /// By ordinal, oldest first.
    session_order: Vec<(u64, String)>,
    runs: Runs,
    /// The runs of each project.
    projects: HashMap<String, Order>,
    /// Listed checkpoints by ordinal, oldest first.
    checkpoints: Vec<Arc<CheckpointRow>>,
    /// When which of them expire. May hold times that were changed since.
    expiring: BTreeSet<(i64, u64)>,
    /// Runs whose progress has to be written.
    touched: Vec<Arc<str>>,
    next_trainer: usize,
    /// Who is told of changes; nobody while the database is being read.
    changes: Option<Arc<Changes>>,
}

/// Puts an entry where its ordinal belongs, which is nearly always the end.
fn insert_ordered<T>(list: &mut Vec<T>, ordinal: u64, entry: T, ordinal_of: impl Fn(&T) -> u64) {
    // A search through a long list reads memory that is in no cache.
    if list.last().is_none_or(|last| ordinal_of(last) < ordinal) {
        return list.push(entry);
    }
    let at = list.partition_point(|other| ordinal_of(other) < ordinal);
    list.insert(at, entry);
}

impl Index {
    /// The index of what the database holds. Gives back the checkpoints that nobody needs.
    pub(crate) fn new(rows: Rows, now: Instant) -> (Self, Vec<CheckpointRow>) {
        let mut index = Self { runs: Runs::with_capacity(rows.runs.len()), ..Self::default() };
        for session in rows.sessions {
            index.insert_session(session, now);
        }
        let mut standing = Vec::new();
        for (row, checkpoints) in rows.runs.into_iter().zip(rows.of_runs) {
            standing.extend(row.standing.map(|checkpoint| (checkpoint, Arc::clone(&row.new.run_id))));
            index.put_run(Run { checkpoints, ..Run::from_row(row) });
        }
        index.checkpoints = rows.listed;
        let mut unlisted: BTreeMap<u64, _> =
            rows.unlisted.into_iter().map(|row| (row.ordinal, row)).collect();
        let expiring = index.checkpoints.iter().filter_map(|row| Some((row.expires_at?, row.ordinal)));
        index.expiring = expiring.collect();

        let mut needed = HashSet::new();
        for (ordinal, run_id) in standing {
            let found = index.checkpoint_by_ordinal(ordinal).or_else(|| unlisted.get(&ordinal)).cloned();
            let usable = |row: &Arc<CheckpointRow>| {
                matches!(row.state, CheckpointState::Live | CheckpointState::Retained)
            };
            if let (Some(row), Some(run)) = (found.filter(usable), index.runs.get_mut(&run_id)) {
                needed.insert(ordinal);
                run.standing = Some(row);
            }
        }
        for row in rows.samplers {
            let found = row.new.checkpoint.and_then(|ordinal| {
                index.checkpoint_by_ordinal(ordinal).or_else(|| unlisted.get(&ordinal)).cloned()
            });
            let found = found.filter(|checkpoint| checkpoint.state == CheckpointState::Live);
            if let Some(checkpoint) = &found
                && index.lasts(&checkpoint.new.run_id)
            {
                needed.insert(checkpoint.ordinal);
            }
            index.insert_sampler(row, found);
        }
        unlisted.retain(|ordinal, _| !needed.contains(ordinal));
        (index, unlisted.into_values().map(Arc::unwrap_or_clone).collect())
    }

    /// From now on changes are told.
    pub(crate) fn tell_changes_to(&mut self, changes: Arc<Changes>) {
        self.changes = Some(changes);
    }

    fn tell(&self, change: impl FnOnce() -> Change) {
        if let Some(changes) = &self.changes {
            changes.tell(change());
        }
    }

    // Sessions.

    pub(crate) fn insert_session(&mut self, row: SessionRow, now: Instant) {
        if let Some(key) = row.idempotency_key {
            self.session_keys.insert(key, row.session_id.clone());
        }
        let session = Session {
            created_at: row.created_at,
            request: row.request,
            runs: Vec::new(),
            samplers: Vec::new(),
            ended: row.ended,
            last_heartbeat: now,
        };
        let entry = (row.ordinal, row.session_id.clone());
        insert_ordered(&mut self.session_order, row.ordinal, entry, |entry| entry.0);
        self.sessions.insert(row.session_id, session);
    }

    pub(crate) fn session(&self, id: &str) -> Option<&Session> {
        self.sessions.get(id)
    }

    pub(crate) fn session_mut(&mut self, id: &str) -> Option<&mut Session> {
        self.sessions.get_mut(id)
    }

    /// Changes what a session was created with, its project among it.
    pub(crate) fn set_session_request(&mut self, id: &str, request: CreateSessionRequest) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let before = session.project().to_owned();
        session.request = request;
        let moved: HashSet<Place> = session.runs.iter().filter_map(|id| self.runs.place_of(id)).collect();
        if let Some(of_project) = self.projects.get_mut(&before) {
            let mut runs: Vec<_> = of_project.extract_if(.., |(_, run)| moved.contains(run)).collect();
            let of_project = self.projects.entry(session.project().to_owned()).or_default();
            of_project.append(&mut runs);
            of_project.sort_by_key(|(ordinal, _)| *ordinal);
        }
    }

    /// The session whose creation was marked so.
    pub(crate) fn session_of_key(&self, key: &str) -> Option<&String> {
        self.session_keys.get(key)
    }

    /// All sessions, newest first.
    pub(crate) fn sessions_newest_first(&self) -> impl Iterator<Item = (&str, &Session)> {
        let newest_first = self.session_order.iter().rev();
        newest_first.filter_map(|(_, id)| Some((id.as_str(), self.sessions.get(id)?)))
    }

    /// Whether the session of a run lasts.
    fn lasts(&self, run_id: &str) -> bool {
        let session = self.runs.get(run_id).and_then(|run| self.sessions.get(&*run.new.session_id));
        session.is_some_and(|session| session.ended.is_none())
    }

    /// Sessions, newest first.
    pub(crate) fn sessions_page(&self, page: Page) -> Vec<String> {
        let newest_first = self.session_order.iter().rev().skip(page.offset).take(page.limit);
        newest_first.map(|(_, id)| id.clone()).collect()
    }

    /// Sessions that last and had their last heartbeat before `before`.
    pub(crate) fn silent_sessions(&self, before: Instant) -> Vec<String> {
        let silent = self.sessions.iter().filter(|(_, s)| s.ended.is_none() && s.last_heartbeat < before);
        silent.map(|(id, _)| id.clone()).collect()
    }

    // Samplers.

    pub(crate) fn insert_sampler(&mut self, row: SamplerRow, checkpoint: Option<Arc<CheckpointRow>>) {
        let id: Arc<str> = row.new.sampler_id.as_str().into();
        if let Some(session) = self.sessions.get_mut(&row.new.session_id) {
            session.samplers.push(Arc::clone(&id));
        }
        self.samplers.insert(id, Sampler { row, checkpoint });
    }

    pub(crate) fn sampler(&self, id: &str) -> Option<&Sampler> {
        self.samplers.get(id)
    }

    pub(crate) fn sampler_mut(&mut self, id: &str) -> Option<&mut Sampler> {
        self.samplers.get_mut(id)
    }

    /// Gives the samplers that follow a run its newest weights. Gives those that they had before.
    pub(crate) fn feed_followers(
        &mut self,
        run_id: &str,
        weights: &Arc<CheckpointRow>,
    ) -> Option<Arc<CheckpointRow>> {
        let run = self.runs.get(run_id)?;
        let samplers = self.sessions.get(&*run.new.session_id)?.samplers.clone();
        let mut before = None;
        for id in samplers {
            let Some(sampler) = self.samplers.get_mut(&id) else { continue };
            if sampler.row.new.follows.as_deref() == Some(run_id) {
                sampler.row.new.checkpoint = Some(weights.ordinal);
                before = sampler.checkpoint.replace(Arc::clone(weights)).or(before);
            }
        }
        before
    }

    // Runs.

    pub(crate) fn insert_run(&mut self, row: RunRow) {
        self.put_run(Run::from_row(row));
    }

    fn put_run(&mut self, run: Run) {
        let (new, ordinal) = (Arc::clone(&run.new), run.ordinal);
        let place = self.runs.insert(run);
        if let Some(session) = self.sessions.get_mut(&*new.session_id) {
            session.runs.push(Arc::clone(&new.run_id));
            let of_project = match self.projects.get_mut(session.project()) {
                Some(of_project) => of_project,
                None => self.projects.entry(session.project().to_owned()).or_default(),
            };
            insert_ordered(of_project, ordinal, (ordinal, place), |entry| entry.0);
        }
        self.tell(|| Change::RunCreated {
            run_id: new.run_id.clone(),
            session_id: new.session_id.clone(),
            base_model: new.base_model.clone(),
            origin_path: new.origin_path.clone(),
        });
    }

    pub(crate) fn run(&self, id: &str) -> Option<&Run> {
        self.runs.get(id)
    }

    pub(crate) fn run_mut(&mut self, id: &str) -> Option<&mut Run> {
        self.runs.get_mut(id)
    }

    /// Whether no run was ever made.
    pub(crate) fn has_no_runs(&self) -> bool {
        self.runs.order().is_empty()
    }

    pub(crate) fn run_count(&self) -> usize {
        self.runs.order().len()
    }

    /// Runs, newest first.
    pub(crate) fn runs_page(&self, page: Page, now: i64) -> Vec<TrainingRun> {
        self.page_of(self.runs.order(), page, now)
    }

    /// Runs of a project, newest first, and how many there are.
    pub(crate) fn project_page(&self, project: &str, page: Page, now: i64) -> (Vec<TrainingRun>, usize) {
        let of_project = self.projects.get(project).map(Vec::as_slice).unwrap_or_default();
        (self.page_of(of_project, page, now), of_project.len())
    }

    /// A page of a list that is oldest first, newest first.
    fn page_of(&self, order: &[(u64, Place)], page: Page, now: i64) -> Vec<TrainingRun> {
        let newest_first = order.iter().rev().skip(page.offset).take(page.limit);
        newest_first.filter_map(|(_, place)| self.runs.at(*place)).map(|run| run.to_wire(now)).collect()
    }

    /// All runs, in no order.
    pub(crate) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter()
    }

    /// The trainer of a run, chosen in turn.
    pub(crate) fn trainer_of(&mut self, id: &str, trainers: usize) -> Option<usize> {
        match self.runs.get(id)?.trainer {
            Some(trainer) => Some(trainer),
            None => {
                let trainer = self.next_trainer(trainers);
                self.runs.get_mut(id)?.trainer = Some(trainer);
                Some(trainer)
            }
        }
    }

    /// Notes that a trainer's memory is gone. Gives the runs that lose nothing by it.
    pub(crate) fn lose_memory_of(&mut self, trainer: usize) -> Vec<String> {
        let mut unharmed = Vec::new();
        for run in self.runs.iter_mut().filter(|run| run.trainer == Some(trainer)) {
            run.expendable_seq = run.accepted_seq;
            run.awaited_seq = None;
            if run.corrupted.is_none() && run.unsaved.since.is_none() {
                unharmed.push(run.new.run_id.to_string());
            }
        }
        unharmed.sort();
        unharmed
    }

    /// The trainer whose turn it is to take a run.
    pub(crate) fn next_trainer(&mut self, trainers: usize) -> usize {
        self.next_trainer = (self.next_trainer + 1) % trainers.max(1);
        self.next_trainer
    }

    /// Notes that a run was asked for something, so that its progress is written soon.
    pub(crate) fn touch(&mut self, id: &str, now: i64) {
        let Some(run) = self.runs.get_mut(id) else { return };
        run.last_request_at = run.last_request_at.max(now);
        if !std::mem::replace(&mut run.touched, true) {
            self.touched.push(Arc::clone(&run.new.run_id));
        }
    }

    /// The progress of the runs touched since the last call.
    pub(crate) fn take_progress(&mut self) -> Vec<Progress> {
        let touched = std::mem::take(&mut self.touched);
        let mut progress = Vec::with_capacity(touched.len());
        for id in touched {
            let Some(run) = self.runs.get_mut(&id) else { continue };
            run.touched = false;
            progress.push(Progress {
                ordinal: run.ordinal,
                run_id: run.new.run_id.clone(),
                last_request_at: run.last_request_at,
                unsaved: run.unsaved.requests,
                points: run.take_points(),
            });
            if let Some(changes) = &self.changes {
                changes.tell(Change::RunProgress {
                    run_id: run.new.run_id.clone(),
                    executed_seq: run.executed_seq,
                    unsaved_requests: run.unsaved.requests,
                    step: run.last_point.as_ref().map(|point| point.step),
                    loss: run.last_point.as_ref().and_then(|point| point.loss),
                });
            }
        }
        progress
    }

    // Checkpoints.

    pub(crate) fn insert_checkpoint(&mut self, checkpoint: Arc<CheckpointRow>) {
        self.tell(|| Change::CheckpointSaved {
            run_id: checkpoint.new.run_id.clone(),
            tinker_path: checkpoint.path().to_string(),
        });
        if let Some(run) = self.runs.get_mut(&checkpoint.new.run_id) {
            let entry = Arc::clone(&checkpoint);
            insert_ordered(&mut run.checkpoints, checkpoint.ordinal, entry, |other| other.ordinal);
        }
        if let Some(at) = checkpoint.expires_at {
            self.expiring.insert((at, checkpoint.ordinal));
        }
        insert_ordered(&mut self.checkpoints, checkpoint.ordinal, checkpoint, |other| other.ordinal);
    }

    /// Takes a checkpoint off the lists.
    pub(crate) fn remove_checkpoint(&mut self, checkpoint: &CheckpointRow) {
        self.tell(|| Change::CheckpointDeleted {
            run_id: checkpoint.new.run_id.clone(),
            tinker_path: checkpoint.path().to_string(),
        });
        let remove = |list: &mut Vec<Arc<CheckpointRow>>| {
            if let Ok(at) = list.binary_search_by_key(&checkpoint.ordinal, |other| other.ordinal) {
                list.remove(at);
            }
        };
        if let Some(run) = self.runs.get_mut(&checkpoint.new.run_id) {
            remove(&mut run.checkpoints);
        }
        remove(&mut self.checkpoints);
    }

    /// Puts a changed checkpoint in the place of the old one.
    pub(crate) fn replace_checkpoint(&mut self, new: CheckpointRow) {
        self.tell(|| Change::CheckpointChanged {
            run_id: new.new.run_id.clone(),
            tinker_path: new.path().to_string(),
        });
        let new = Arc::new(new);
        let replace = |list: &mut Vec<Arc<CheckpointRow>>| {
            if let Ok(at) = list.binary_search_by_key(&new.ordinal, |other| other.ordinal)
                && let Some(slot) = list.get_mut(at)
            {
                *slot = Arc::clone(&new);
            }
        };
        if let Some(run) = self.runs.get_mut(&new.new.run_id) {
            replace(&mut run.checkpoints);
            if run.standing.as_ref().is_some_and(|standing| standing.ordinal == new.ordinal) {
                run.standing = Some(Arc::clone(&new));
            }
        }
        replace(&mut self.checkpoints);
        if let Some(at) = new.expires_at {
            self.expiring.insert((at, new.ordinal));
        }
    }

    /// A listed checkpoint by run, kind and name.
    pub(crate) fn checkpoint(
        &self,
        run_id: &str,
        kind: CheckpointKind,
        name: &str,
    ) -> Option<&Arc<CheckpointRow>> {
        let mut newest_first = self.runs.get(run_id)?.checkpoints.iter().rev();
        newest_first.find(|checkpoint| checkpoint.new.kind == kind && &*checkpoint.new.name == name)
    }

    /// A listed checkpoint by its number.
    pub(crate) fn checkpoint_by_ordinal(&self, ordinal: u64) -> Option<&Arc<CheckpointRow>> {
        self.checkpoints.get(self.place_of(ordinal)?)
    }

    /// Listed checkpoints, newest first, and how many there are. Expired ones count no more, though they are deleted a
    /// little later.
    pub(crate) fn checkpoints_page(&self, page: Page, now: i64) -> (Vec<Checkpoint>, usize) {
        // Where they stand in the list; those without it are found by counting, not by going through the list.
        let due = self.expiring.range(..=(now, u64::MAX)).filter_map(|(_, ordinal)| self.place_of(*ordinal));
        let expired: BTreeSet<usize> =
            due.filter(|place| self.checkpoints.get(*place).is_some_and(|row| row.expired(now))).collect();
        let mut end = self.checkpoints.len().saturating_sub(page.offset);
        for place in expired.iter().rev() {
            if *place >= end {
                end = end.saturating_sub(1);
            }
        }
        let newest_first = self.checkpoints.iter().enumerate().take(end).rev();
        let lasting =
            newest_first.filter(|(place, _)| !expired.contains(place)).map(|(_, row)| row.to_wire());
        (lasting.take(page.limit).collect(), self.checkpoints.len() - expired.len())
    }

    /// Where a listed checkpoint stands.
    fn place_of(&self, ordinal: u64) -> Option<usize> {
        self.checkpoints.binary_search_by_key(&ordinal, |row| row.ordinal).ok()
    }

    /// Checkpoints whose time has come.
    pub(crate) fn expired_checkpoints(&mut self, now: i64) -> Vec<Arc<CheckpointRow>> {
        let due: Vec<(i64, u64)> = self.expiring.range(..=(now, u64::MAX)).copied().collect();
        let mut expired = Vec::new();
        for entry in due {
            match self.checkpoint_by_ordinal(entry.1).filter(|row| row.expired(now)) {
                Some(row) => expired.push(Arc::clone(row)),
                None => {
                    self.expiring.remove(&entry);
                }
            }
        }
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lora::LoraShape;
    use retinker_wire::model::LoraConfig;

    fn run(ordinal: u64, session: &str) -> RunRow {
        RunRow {
            ordinal,
            new: Arc::new(NewRun {
                run_id: format!("{session}:train:{ordinal}").into(),
                session_id: session.into(),
                model_seq_id: ordinal,
                base_model: "m".into(),
                lora: LoraShape::from_wire(&LoraConfig { seed: Some(1), ..LoraConfig::default() }),
                optimizer_config: Arc::new(retinker_wire::model::adamw()),
                user_metadata: None,
                origin_path: None,
                created_at: 5,
            }),
            last_request_at: 5,
            dirty_since: None,
            unsaved: 0,
            accepted_seq: 0,
            corrupted_reason: None,
            retired: None,
            standing: None,
        }
    }

    fn ids(index: &Index, offset: usize, limit: usize) -> Vec<String> {
        index.runs_page(Page { offset, limit }, 9).into_iter().map(|run| run.training_run_id).collect()
    }

    #[test]
    fn a_hundred_thousand_runs_page_completely_newest_first_and_stably() {
        let mut index = Index::default();
        // Creations are answered by several tasks, so they may arrive a little out of order.
        for block in 0..1000u64 {
            for i in (0..100u64).rev() {
                index.insert_run(run(block * 100 + i + 1, "s"));
            }
        }
        let mut seen = Vec::new();
        for page in 0..1000 {
            let ids = ids(&index, page * 100, 100);
            assert_eq!(ids.len(), 100);
            seen.extend(ids);
        }
        let expected: Vec<String> = (1..=100_000u64).rev().map(|n| format!("s:train:{n}")).collect();
        assert_eq!(seen, expected);
        assert!(ids(&index, 100_000, 100).is_empty());
        assert_eq!(ids(&index, 99_950, 100).len(), 50);

        let before = ids(&index, 40_000, 100);
        index.insert_run(run(100_001, "s"));
        assert_eq!(ids(&index, 40_001, 100), before);
        assert_eq!(ids(&index, 0, 1), ["s:train:100001"]);
        // Activity does not move a run.
        index.touch("s:train:3", 99);
        assert_eq!(ids(&index, 40_001, 100), before);
    }

    #[test]
    fn what_has_expired_is_not_listed() {
        let mut index = Index::default();
        index.insert_run(run(1, "s"));
        for (ordinal, expires_at) in [(1, Some(10)), (2, None), (3, Some(20)), (4, Some(10))] {
            index.insert_checkpoint(Arc::new(CheckpointRow {
                ordinal,
                new: crate::db::NewCheckpoint {
                    run_id: "s:train:1".into(),
                    kind: CheckpointKind::Training,
                    name: format!("c{ordinal}").into(),
                    seq: ordinal,
                    saved_at: 5,
                    user_metadata: None,
                },
                state: CheckpointState::Live,
                size_bytes: 0,
                public: false,
                expires_at,
            }));
        }
        let listed = |index: &Index, now| {
            let (page, count) = index.checkpoints_page(Page { offset: 0, limit: 9 }, now);
            assert_eq!(page.len(), count);
            let last = index.runs_page(Page { offset: 0, limit: 1 }, now)[0].last_checkpoint.clone();
            assert_eq!(last.as_ref(), page.first());
            assert_eq!(index.run("s:train:1").unwrap().newest_first(now).count(), count);
            page.into_iter().map(|checkpoint| checkpoint.checkpoint_id).collect::<Vec<_>>()
        };
        assert_eq!(listed(&index, 9), ["weights/c4", "weights/c3", "weights/c2", "weights/c1"]);
        assert_eq!(listed(&index, 10), ["weights/c3", "weights/c2"]);
        // Kept longer in the last moment.
        let kept = CheckpointRow { expires_at: Some(30), ..(*index.checkpoints[0]).clone() };
        index.replace_checkpoint(kept);
        assert_eq!(listed(&index, 25), ["weights/c2", "weights/c1"]);
    }

    #[test]
    fn trainers_take_turns_and_keep_their_runs() {
        let mut index = Index::default();
        for n in 1..=4 {
            index.insert_run(run(n, "s"));
        }
        let first: Vec<_> = (1..=4).map(|n| index.trainer_of(&format!("s:train:{n}"), 2).unwrap()).collect();
        assert_eq!(first.iter().filter(|t| **t == 0).count(), 2);
        let again: Vec<_> = (1..=4).map(|n| index.trainer_of(&format!("s:train:{n}"), 2).unwrap()).collect();
        assert_eq!(first, again);
    }
}
