//! All runs of the service, in memory: filtered, sorted and cut into windows here, since no service can do that.
//!
//! A list that cannot be read again stays as it was, with the time of its last good reading and the problem: it
//! never becomes an empty one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use retinker::host::api::{ApiProblem, RunRow, RunSort};
use retinker::host::query::text_of;
use retinker::recovery::findings::Finding;
use retinker::recovery::health::{
    Health, Known, Succession, Verdict, assess, changes_at, newest_usable, session_of_run,
};
use retinker::recovery::monitor::Journal;
use retinker::recovery::plan::LINEAGE_PREFIX;
use retinker::recovery::reports::Report;
use retinker::recovery::restore::{RestoreRecord, RestoreState};
use retinker::recovery::sessions::{FORGOTTEN, Sessions};
use retinker::wire::UserMetadata;
use retinker::wire::run::{Checkpoint, TrainingRun};
use retinker::wire::time::Time;

use lineage::{Labels, Lineage};
use orders::Orders;

mod lineage;
mod needed;
mod orders;
mod window;

/// The index. Not shared by itself: the host keeps it behind a lock.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// What runs can be restored from, where that had to be read to judge them, with the run's last request then.
    checkpoints: HashMap<String, (Time, Vec<Checkpoint>)>,
    /// How the sessions of runs ended.
    sessions: Arc<Sessions>,
    /// The journal's restores.
    restores: BTreeMap<String, RestoreRecord>,
    findings: Arc<BTreeMap<String, Finding>>,
    reports: Arc<BTreeMap<String, Report>>,
    /// What runs tell of their restores themselves, by run.
    labels: BTreeMap<String, Labels>,
    lineage: Lineage,
    /// The runs as the service listed them, each id once, and what is made of them. A reading judges those anew that it can
    /// have made others, and no more.
    rows: Vec<Entry>,
    by_id: HashMap<String, usize>,
    orders: Orders,
    /// Moves when a row changes, comes or goes. It begins at the time of the start: what a caller knows of another host, or of
    /// this one before its start, is never taken for known.
    revision: u64,
    began: u64,
    as_of: Option<Time>,
    problem: Option<ApiProblem>,
}

#[derive(Debug)]
struct Entry {
    row: RunRow,
    /// What the text of a query is looked for in, in lower case.
    text: String,
    /// The revision at which it came to look as it does.
    changed: u64,
    /// When it is judged anew though nothing was learnt of it.
    due: Option<Time>,
}

impl Index {
    /// Empty; reads here how sessions ended.
    pub(crate) fn new(sessions: Arc<Sessions>, now: Time) -> Self {
        let began = u64::try_from(now.as_millis()).unwrap_or_default();
        Self { sessions, began, revision: began, ..Self::default() }
    }

    /// Takes a whole new reading; answers which runs changed, came or went.
    pub(crate) fn replace(&mut self, runs: Vec<TrainingRun>, now: Time) -> Vec<String> {
        let mut seen = HashSet::with_capacity(runs.len());
        let runs: Vec<_> = runs.into_iter().filter(|run| seen.insert(run.training_run_id.clone())).collect();
        let gone = self.drop_all_but(&seen);
        let mut changed = self.taken(runs, now);
        changed.extend(gone);
        changed
    }

    /// Takes a reading of some runs; answers which changed or came.
    pub(crate) fn update(&mut self, runs: Vec<TrainingRun>, now: Time) -> Vec<String> {
        let latest: BTreeMap<_, _> = runs.into_iter().map(|run| (run.training_run_id.clone(), run)).collect();
        self.taken(latest.into_values().collect(), now)
    }

    fn taken(&mut self, runs: Vec<TrainingRun>, now: Time) -> Vec<String> {
        self.as_of = Some(now);
        self.problem = None;
        self.settle(runs, BTreeSet::new(), now)
    }

    /// Lets go of the runs that are not among these; answers which they were.
    fn drop_all_but(&mut self, seen: &HashSet<String>) -> Vec<String> {
        let gone: Vec<String> = self.by_id.keys().filter(|id| !seen.contains(*id)).cloned().collect();
        if gone.is_empty() {
            return gone;
        }
        self.rows.retain(|entry| seen.contains(&entry.row.run.training_run_id));
        let ids = self.rows.iter().map(|entry| entry.row.run.training_run_id.clone());
        self.by_id = ids.zip(0..).collect();
        self.checkpoints.retain(|id, _| seen.contains(id));
        self.labels.retain(|id, _| seen.contains(id));
        self.orders = Orders::default();
        self.revision += 1;
        gone
    }

    /// Notes that the list could not be read.
    pub(crate) fn fail(&mut self, problem: ApiProblem) {
        self.problem = Some(problem);
    }

    /// Takes a restore as it is now; answers which runs look different. `None`: it was known, from the journal.
    pub(crate) fn set_restore(&mut self, record: RestoreRecord, now: Time) -> Option<Vec<String>> {
        if self.restores.get(&record.id) == Some(&record) {
            return None;
        }
        self.restores.insert(record.id.clone(), record);
        Some(self.settle(Vec::new(), BTreeSet::new(), now))
    }

    /// Takes the whole journal; answers which restores are not as they were known, and which runs look different.
    pub(crate) fn set_journal(&mut self, journal: Journal, now: Time) -> (Vec<RestoreRecord>, Vec<String>) {
        let Journal { records, findings, reports, .. } = journal;
        // While it was read, a restore that is carried out here may have gone on: a story only grows.
        let is_new = |record: &&RestoreRecord| {
            self.restores
                .get(&record.id)
                .is_none_or(|known| known != *record && known.events.len() <= record.events.len())
        };
        let changed: Vec<_> = records.iter().filter(is_new).cloned().collect();
        let mut stale = differing(&self.findings, &findings);
        stale.extend(differing(&self.reports, &reports));
        (self.findings, self.reports) = (findings, reports);
        self.restores.extend(changed.iter().map(|record| (record.id.clone(), record.clone())));
        let runs = self.settle(Vec::new(), stale, now);
        (changed, runs)
    }

    /// Corrupted runs that cannot be judged by what the list says of them, and whose checkpoints have not been read
    /// since their last request; each with the checkpoint that it was restored from.
    pub(crate) fn unjudged(&self, now: Time) -> Vec<(TrainingRun, Option<String>)> {
        self.rows
            .iter()
            .map(|entry| &entry.row.run)
            .filter(|run| run.corrupted == Some(true))
            .filter(|run| newest_usable(&run.last_checkpoint, now).is_none())
            .filter(|run| self.checkpoints_of(run).is_none())
            .map(|run| (run.clone(), self.lineage.origin_of(run)))
            .collect()
    }

    /// What this run can be restored from, if that has been read since its last request.
    fn checkpoints_of(&self, run: &TrainingRun) -> Option<&[Checkpoint]> {
        let (at, list) = self.checkpoints.get(&run.training_run_id)?;
        (*at == run.last_request_time).then_some(list.as_slice())
    }

    /// Takes what runs can be restored from, as of their last requests then; answers which look different.
    pub(crate) fn set_checkpoints(
        &mut self,
        lists: Vec<(TrainingRun, Vec<Checkpoint>)>,
        now: Time,
    ) -> Vec<String> {
        let mut stale = BTreeSet::new();
        for (run, list) in lists {
            stale.insert(run.training_run_id.clone());
            self.checkpoints.insert(run.training_run_id, (run.last_request_time, list));
        }
        self.settle(Vec::new(), stale, now)
    }

    /// Judges these runs anew, of whose sessions something may have been learnt; answers which look different.
    pub(crate) fn set_sessions(&mut self, runs: &[TrainingRun], now: Time) -> Vec<String> {
        let stale = runs.iter().map(|run| run.training_run_id.clone()).collect();
        self.settle(Vec::new(), stale, now)
    }

    /// Takes these runs, and judges them and the stale ones anew, with those whose place among restored runs is another now
    /// and those that are due; answers which look different.
    fn settle(&mut self, mut runs: Vec<TrainingRun>, mut stale: BTreeSet<String>, now: Time) -> Vec<String> {
        runs.retain(|run| self.run(&run.training_run_id) != Some(run));
        let labelled = runs.iter().filter_map(|run| Some((run.training_run_id.clone(), Labels::of(run)?)));
        self.labels.extend(labelled);
        let lineage = Lineage::of(&self.restores, &self.labels);
        stale.extend(lineage.differing(&self.lineage));
        self.lineage = lineage;
        let is_due = |entry: &&Entry| entry.due.is_some_and(|due| due <= now);
        stale.extend(self.rows.iter().filter(is_due).map(|entry| entry.row.run.training_run_id.clone()));
        for run in &runs {
            stale.remove(&run.training_run_id);
        }
        runs.extend(stale.iter().filter_map(|id| self.run(id).cloned()));

        let mut moved = HashSet::new();
        let mut changed = Vec::new();
        for run in runs {
            let id = run.training_run_id.clone();
            let entry = self.judge(run, now);
            match self.by_id.get(&id).and_then(|at| Some((*at, self.rows.get_mut(*at)?))) {
                Some((_, known)) if known.row == entry.row => {
                    known.due = entry.due;
                    continue;
                }
                Some((at, known)) => {
                    *known = entry;
                    moved.insert(at);
                }
                None => {
                    self.by_id.insert(id.clone(), self.rows.len());
                    moved.insert(self.rows.len());
                    self.rows.push(entry);
                }
            }
            changed.push(id);
        }
        if !changed.is_empty() {
            self.revision += 1;
            self.orders.moved(&moved, &self.rows);
        }
        changed
    }

    /// The run's row as it is from the next revision on.
    fn judge(&self, run: TrainingRun, now: Time) -> Entry {
        let listed = self.checkpoints_of(&run);
        let changes = changes_at(listed.unwrap_or_default().iter().chain(&run.last_checkpoint), now);
        // How a session ended is history one day.
        let forgotten = self.sessions.end_of(&run).map(|_| run.last_request_time.later(FORGOTTEN));
        let row = self.row_of(run, listed, now);
        Entry {
            text: text_of(&row),
            row,
            changed: self.revision + 1,
            due: changes.into_iter().chain(forgotten).min(),
        }
    }

    fn row_of(&self, run: TrainingRun, checkpoints: Option<&[Checkpoint]>, now: Time) -> RunRow {
        let id = &run.training_run_id;
        let succession = self.lineage.successor(id);
        let (origin, session) = (self.lineage.origin_of(&run), self.sessions.end_of(&run));
        let known = Known {
            checkpoints,
            succession,
            origin: origin.as_deref(),
            session: session.as_ref(),
            reported: self.reports.get(id),
            since: self.findings.get(id).map(|finding| finding.since),
        };
        let mut verdict = assess(&run, known, now);
        if let (Health::Healthy | Health::AtRisk, Some(left)) = (verdict.health, self.lineage.left_behind(id))
        {
            verdict = Verdict { health: Health::Healthy, reason: left.reason(), category: None, since: None };
        }
        RunRow {
            name: name_of(&run),
            verdict,
            restored_from: self.lineage.replaced(id).map(str::to_owned),
            restored_to: succession.and_then(|s| s.new_run_id.clone()),
            restore_id: succession.filter(|s| s.new_run_id.is_none()).map(|s| s.restore_id.clone()),
            run,
        }
    }

    /// A row made of a run that was read by itself, and of what it can be restored from, if that was read with it.
    pub(crate) fn row_for(&self, run: &TrainingRun, checkpoints: Option<&[Checkpoint]>, now: Time) -> RunRow {
        self.row_of(run.clone(), checkpoints.or_else(|| self.checkpoints_of(run)), now)
    }

    /// The runs of these sessions, by session, the newest activity first. Of all sessions where none is named.
    pub(crate) fn runs_of(&self, session_ids: &[String]) -> HashMap<String, Vec<&RunRow>> {
        let wanted: HashSet<&str> = session_ids.iter().map(String::as_str).collect();
        let mut found: HashMap<String, Vec<&RunRow>> = HashMap::new();
        for entry in self.orders.of(RunSort::Activity, &self.rows) {
            let session_id = session_of_run(&entry.row.run.training_run_id);
            if let Some(id) = session_id.filter(|id| wanted.is_empty() || wanted.contains(id)) {
                found.entry(id.to_owned()).or_default().push(&entry.row);
            }
        }
        found
    }

    /// All runs, the newest activity first.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &RunRow> {
        self.orders.of(RunSort::Activity, &self.rows).map(|entry| &entry.row)
    }

    pub(crate) fn run(&self, run_id: &str) -> Option<&TrainingRun> {
        self.row(run_id).map(|row| &row.run)
    }

    /// Whether it has lost its state, can be restored, and nobody does that yet.
    pub(crate) fn waits(&self, run_id: &str) -> bool {
        self.row(run_id).is_some_and(|row| row.verdict.health == Health::Poisoned && row.restore_id.is_none())
    }

    /// Its name for people.
    pub(crate) fn name(&self, run_id: &str) -> Option<&str> {
        self.row(run_id).map(|row| row.name.as_str())
    }

    pub(crate) fn row(&self, run_id: &str) -> Option<&RunRow> {
        self.by_id.get(run_id).and_then(|at| self.rows.get(*at)).map(|entry| &entry.row)
    }

    /// The health of each run.
    pub(crate) fn healths(&self) -> impl Iterator<Item = Health> {
        self.rows.iter().map(|entry| entry.row.verdict.health)
    }

    /// The state of each restore.
    pub(crate) fn restore_states(&self) -> impl Iterator<Item = RestoreState> {
        self.restores.values().map(|record| record.state)
    }

    /// How many runs there are.
    pub(crate) fn total(&self) -> u64 {
        self.rows.len() as u64
    }

    pub(crate) fn as_of(&self) -> Option<Time> {
        self.as_of
    }

    pub(crate) fn problem(&self) -> Option<&ApiProblem> {
        self.problem.as_ref()
    }

    /// The restore that holds this run, from the journal or from labels.
    pub(crate) fn succession(&self, run_id: &str) -> Option<Succession> {
        self.lineage.successor(run_id).cloned()
    }

    /// What a monitor has noted of this run.
    pub(crate) fn finding(&self, run_id: &str) -> Option<&Finding> {
        self.findings.get(run_id)
    }

    /// What its training program has told of it.
    pub(crate) fn report(&self, run_id: &str) -> Option<&Report> {
        self.reports.get(run_id)
    }
}

/// The keys that two maps do not have the same of.
fn differing<T: PartialEq>(a: &BTreeMap<String, T>, b: &BTreeMap<String, T>) -> BTreeSet<String> {
    let keys = a.keys().chain(b.keys());
    keys.filter(|key| a.get(*key) != b.get(*key)).cloned().collect()
}

/// The run's name for people.
fn name_of(run: &TrainingRun) -> String {
    let label = run.user_metadata.as_ref().and_then(|labels| labels.get("name")).map(|name| name.trim());
    label.filter(|name| !name.is_empty()).unwrap_or(&run.training_run_id).to_owned()
}

/// The run's own labels, without the lineage.
pub(crate) fn own_metadata(run: &TrainingRun) -> UserMetadata {
    let labels = run.user_metadata.clone().unwrap_or_default();
    labels.into_iter().filter(|(key, _)| !key.starts_with(LINEAGE_PREFIX)).collect()
}

/// Why a run in this state offers no restore; `None` = it does.
pub(crate) fn no_restore_because(verdict: &Verdict, row: &RunRow) -> Option<String> {
    match verdict.health {
        Health::Poisoned if row.restore_id.is_some() => {
            Some("A restore of this run is under way.".to_owned())
        }
        Health::Poisoned => None,
        Health::Unrecoverable => {
            Some("There is no checkpoint that this run could be restored from: its work is lost.".to_owned())
        }
        Health::Recovered => Some(verdict.reason.clone()),
        Health::Stalled => Some(
            "Its session is over, and nobody trains it. Start from its newest checkpoint, as shown below."
                .to_owned(),
        ),
        Health::AtRisk | Health::Healthy => Some(
            "The service does not say that this run is corrupted, so there is nothing to restore.".to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests;
