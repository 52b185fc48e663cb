//! All runs of the service, in memory: filtered, sorted and cut into windows here, since no service can do that.
//!
//! A list that cannot be read again stays as it was, with the time of its last good reading and the problem: it
//! never becomes an empty one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use retinker::host::api::{
    ApiProblem, HealthCounts, LineageEntry, MAX_IDS, RunIds, RunRow, RunSort, RunWindow, RunsQuery,
};
use retinker::host::query::{Query, QueryError, text_of};
use retinker::recovery::findings::Finding;
use retinker::recovery::health::{Health, Known, Succession, Verdict, assess, session_of_run};
use retinker::recovery::monitor::Journal;
use retinker::recovery::plan::{LABEL_RESTORE_ID, LABEL_RESTORED_FROM, LINEAGE_PREFIX};
use retinker::recovery::planner::origin_of;
use retinker::recovery::reports::Report;
use retinker::recovery::restore::{RestoreRecord, RestoreState};
use retinker::recovery::sessions::Sessions;
use retinker::wire::UserMetadata;
use retinker::wire::run::{Checkpoint, TrainingRun};
use retinker::wire::time::Time;
use sha2::{Digest, Sha256};

mod needed;

/// Rows in a window when the query does not say.
const DEFAULT_LIMIT: u64 = 100;
/// Most rows in a window.
const MAX_LIMIT: u64 = 1000;
/// Most runs of a family that are told.
const MAX_FAMILY: usize = 200;

/// The index. Not shared by itself: the host keeps it behind a lock.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// As the service listed them, each id once.
    runs: Vec<TrainingRun>,
    /// What runs can be restored from, where that had to be read to judge them, with the run's last request then.
    checkpoints: HashMap<String, (Time, Vec<Checkpoint>)>,
    /// How the sessions of runs ended.
    sessions: Arc<Sessions>,
    /// The journal's restores.
    restores: BTreeMap<String, RestoreRecord>,
    findings: Arc<BTreeMap<String, Finding>>,
    reports: Arc<BTreeMap<String, Report>>,
    rows: Vec<Entry>,
    by_id: HashMap<String, usize>,
    /// The rows in each order, made when it is asked for; all go when a row changes.
    orders: [OnceLock<Vec<usize>>; RunSort::ALL.len()],
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
}

/// What is told of a run's place among restored ones.
#[derive(Debug, Default)]
struct Lineage {
    /// By old run.
    successors: HashMap<String, Succession>,
    /// By new run.
    predecessors: HashMap<String, String>,
    /// The checkpoint's path that the journal tells, by new run.
    origins: HashMap<String, String>,
    /// The restore, by new run.
    made_by: HashMap<String, String>,
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
        self.runs = runs.into_iter().filter(|run| seen.insert(run.training_run_id.clone())).collect();
        self.checkpoints.retain(|id, _| seen.contains(id));
        self.taken(now)
    }

    /// Takes a reading of some runs; answers which changed or came.
    pub(crate) fn update(&mut self, runs: Vec<TrainingRun>, now: Time) -> Vec<String> {
        let mut new = BTreeMap::new();
        for run in runs {
            match self.by_id.get(&run.training_run_id).and_then(|at| self.runs.get_mut(*at)) {
                Some(known) => *known = run,
                None => drop(new.insert(run.training_run_id.clone(), run)),
            }
        }
        self.runs.extend(new.into_values());
        self.taken(now)
    }

    fn taken(&mut self, now: Time) -> Vec<String> {
        self.as_of = Some(now);
        self.problem = None;
        self.rebuild(now)
    }

    /// Notes that the list could not be read.
    pub(crate) fn fail(&mut self, problem: ApiProblem) {
        self.problem = Some(problem);
    }

    /// Takes a restore as it is now; answers which runs look different.
    pub(crate) fn set_restore(&mut self, record: RestoreRecord, now: Time) -> Vec<String> {
        self.restores.insert(record.id.clone(), record);
        self.rebuild(now)
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
        if changed.is_empty() && self.findings == findings && self.reports == reports {
            return Default::default();
        }
        (self.findings, self.reports) = (findings, reports);
        for record in &changed {
            self.restores.insert(record.id.clone(), record.clone());
        }
        (changed, self.rebuild(now))
    }

    /// Corrupted runs that cannot be judged by what the list says of them, and whose checkpoints have not been read
    /// since their last request; each with the checkpoint that it was restored from.
    pub(crate) fn unjudged(&self, now: Time) -> Vec<(TrainingRun, Option<String>)> {
        let unjudged: Vec<&TrainingRun> = self
            .runs
            .iter()
            .filter(|run| run.corrupted == Some(true))
            .filter(|run| retinker::recovery::health::newest_usable(&run.last_checkpoint, now).is_none())
            .filter(|run| self.checkpoints_of(run).is_none())
            .collect();
        if unjudged.is_empty() {
            return Vec::new();
        }
        let lineage = self.lineage();
        unjudged.into_iter().map(|run| (run.clone(), lineage.origin_of(run))).collect()
    }

    /// What this run can be restored from, if that has been read since its last request.
    fn checkpoints_of(&self, run: &TrainingRun) -> Option<&[Checkpoint]> {
        let (at, list) = self.checkpoints.get(&run.training_run_id)?;
        (*at == run.last_request_time).then_some(list.as_slice())
    }

    /// Takes what a run can be restored from, as of its last request then.
    pub(crate) fn set_checkpoints(
        &mut self,
        run_id: String,
        last_request: Time,
        checkpoints: Vec<Checkpoint>,
    ) {
        self.checkpoints.insert(run_id, (last_request, checkpoints));
    }

    /// Judges and sorts all runs anew; answers which look different.
    pub(crate) fn rebuild(&mut self, now: Time) -> Vec<String> {
        let lineage = self.lineage();
        let mut rows = Vec::with_capacity(self.runs.len());
        let mut by_id = HashMap::with_capacity(self.runs.len());
        let mut changed = Vec::new();
        let next = self.revision + 1;
        for run in &self.runs {
            let row = self.row_of(run, self.checkpoints_of(run), &lineage, now);
            let before = self.by_id.get(&run.training_run_id).and_then(|at| self.rows.get(*at));
            let since = match before.filter(|before| before.row == row) {
                Some(before) => before.changed,
                None => {
                    changed.push(run.training_run_id.clone());
                    next
                }
            };
            by_id.insert(run.training_run_id.clone(), rows.len());
            let text = text_of(&row);
            rows.push(Entry { row, text, changed: since });
        }
        changed.extend(self.by_id.keys().filter(|id| !by_id.contains_key(*id)).cloned());
        self.rows = rows;
        self.by_id = by_id;
        if !changed.is_empty() {
            self.revision = next;
            self.orders = Default::default();
        }
        changed
    }

    /// The rows in this order; equal ones by their ids.
    fn order(&self, sort: RunSort) -> &[usize] {
        let slot = RunSort::ALL.iter().position(|known| *known == sort).and_then(|at| self.orders.get(at));
        slot.map_or(&[], |slot| slot.get_or_init(|| self.sorted(sort)))
    }

    fn sorted(&self, sort: RunSort) -> Vec<usize> {
        let worst =
            |health: Health| Health::ALL.iter().position(|h| *h == health).unwrap_or(Health::ALL.len());
        let newest = |a: &RunRow, b: &RunRow| b.run.last_request_time.cmp(&a.run.last_request_time);
        let last = |row: &RunRow| row.run.last_checkpoint.as_ref().map(|last| last.time);
        // Without a time at the end: never.
        let expires = |row: &RunRow| {
            let expires = row.run.last_checkpoint.as_ref().and_then(|last| last.expires_at);
            (expires.is_none(), expires)
        };
        let compare = |a: &RunRow, b: &RunRow| match sort {
            RunSort::Health => {
                worst(a.verdict.health).cmp(&worst(b.verdict.health)).then_with(|| newest(a, b))
            }
            RunSort::Activity => newest(a, b),
            RunSort::Name => a.name.cmp(&b.name),
            RunSort::Model => a.run.base_model.cmp(&b.run.base_model),
            RunSort::Rank => b.run.lora_rank.cmp(&a.run.lora_rank),
            RunSort::Saved => last(b).cmp(&last(a)),
            RunSort::Expires => expires(a).cmp(&expires(b)),
        };
        let mut sorted: Vec<(usize, &RunRow)> =
            self.rows.iter().map(|entry| &entry.row).enumerate().collect();
        sorted.sort_by(|(_, a), (_, b)| {
            compare(a, b).then_with(|| a.run.training_run_id.cmp(&b.run.training_run_id))
        });
        sorted.into_iter().map(|(at, _)| at).collect()
    }

    fn lineage(&self) -> Lineage {
        let mut lineage = Lineage::default();
        for (record, succession) in
            self.restores.values().filter_map(|record| Some((record, record.succession()?)))
        {
            if let Some(new_run) = &succession.new_run_id {
                lineage.predecessors.insert(new_run.clone(), record.plan.run_id.clone());
                lineage.origins.insert(new_run.clone(), record.plan.checkpoint.tinker_path.clone());
                lineage.made_by.insert(new_run.clone(), record.id.clone());
            }
            lineage.successors.insert(record.plan.run_id.clone(), succession);
        }
        // Where the journal does not know a restore (another host's, or a lost journal), the labels do.
        for run in &self.runs {
            let Some(labels) = &run.user_metadata else { continue };
            let (Some(from), Some(restore_id)) =
                (labels.get(LABEL_RESTORED_FROM), labels.get(LABEL_RESTORE_ID))
            else {
                continue;
            };
            if self.restores.contains_key(restore_id) {
                continue;
            }
            let new_run = run.training_run_id.clone();
            lineage.predecessors.entry(new_run.clone()).or_insert_with(|| from.clone());
            lineage.made_by.entry(new_run.clone()).or_insert_with(|| restore_id.clone());
            lineage
                .successors
                .entry(from.clone())
                .or_insert_with(|| Succession { restore_id: restore_id.clone(), new_run_id: Some(new_run) });
        }
        lineage
    }

    fn row_of(
        &self,
        run: &TrainingRun,
        checkpoints: Option<&[Checkpoint]>,
        lineage: &Lineage,
        now: Time,
    ) -> RunRow {
        let id = &run.training_run_id;
        let succession = lineage.successors.get(id);
        let (origin, session) = (lineage.origin_of(run), self.sessions.end_of(run));
        let known = Known {
            checkpoints,
            succession,
            origin: origin.as_deref(),
            session: session.as_ref(),
            reported: self.reports.get(id),
            since: self.findings.get(id).map(|finding| finding.since),
        };
        RunRow {
            name: name_of(run),
            verdict: assess(run, known, now),
            restored_from: lineage.predecessors.get(id).cloned(),
            restored_to: succession.and_then(|s| s.new_run_id.clone()),
            restore_id: succession.filter(|s| s.new_run_id.is_none()).map(|s| s.restore_id.clone()),
            run: run.clone(),
        }
    }

    /// A row made of a run that was read by itself, and of what it can be restored from, if that was read with it.
    pub(crate) fn row_for(&self, run: &TrainingRun, checkpoints: Option<&[Checkpoint]>, now: Time) -> RunRow {
        self.row_of(run, checkpoints.or_else(|| self.checkpoints_of(run)), &self.lineage(), now)
    }

    /// Goes over all rows that the text of a query matches, in its order.
    fn visit<'a>(
        &'a self,
        query: &RunsQuery,
        now: Time,
        mut take: impl FnMut(&'a Entry),
    ) -> Result<(), QueryError> {
        let wanted = Query::parse(query.q.as_deref().unwrap_or_default())?;
        let order = self.order(query.sort);
        let mut look = |at: &usize| {
            if let Some(entry) = self.rows.get(*at)
                && wanted.matches(&entry.row, &entry.text, now)
            {
                take(entry);
            }
        };
        match query.reverse {
            true => order.iter().rev().for_each(&mut look),
            false => order.iter().for_each(&mut look),
        }
        Ok(())
    }

    /// The window that a query asks for.
    ///
    /// # Errors
    /// Its text makes no sense.
    pub(crate) fn window(&self, query: &RunsQuery, now: Time) -> Result<RunWindow, QueryError> {
        let limit = query.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT);
        let mut counts = HealthCounts::default();
        let mut matching = 0u64;
        let mut shown = Vec::new();
        self.visit(query, now, |entry| {
            counts.add(entry.row.verdict.health);
            if query.health.is_some_and(|health| health != entry.row.verdict.health) {
                return;
            }
            if matching >= query.offset && (shown.len() as u64) < limit {
                shown.push(entry);
            }
            matching += 1;
        })?;
        let since = query.since.filter(|since| (self.began..=self.revision).contains(since));
        let order = digest(shown.iter().map(|entry| entry.row.run.training_run_id.as_str()));
        let ids = (since.is_some() && query.order.as_ref() != Some(&order))
            .then(|| shown.iter().map(|entry| entry.row.run.training_run_id.clone()).collect());
        let is_new = |entry: &&&Entry| since.is_none_or(|since| entry.changed > since);
        Ok(RunWindow {
            rows: shown.iter().filter(is_new).map(|entry| entry.row.clone()).collect(),
            matching,
            total: self.rows.len() as u64,
            counts,
            revision: self.revision,
            order,
            partial: since.is_some(),
            ids,
            as_of: self.as_of,
            problem: self.problem.clone(),
        })
    }

    /// The ids of the runs that a query matches.
    ///
    /// # Errors
    /// Its text makes no sense.
    pub(crate) fn ids(&self, query: &RunsQuery, now: Time) -> Result<RunIds, QueryError> {
        let mut found = RunIds::default();
        self.visit(query, now, |entry| {
            if query.health.is_none_or(|health| health == entry.row.verdict.health) {
                found.matching += 1;
                if found.ids.len() < MAX_IDS {
                    found.ids.push(entry.row.run.training_run_id.clone());
                }
            }
        })?;
        Ok(found)
    }

    /// The runs of these sessions, by session, the newest activity first. Of all sessions where none is named.
    pub(crate) fn runs_of(&self, session_ids: &[String]) -> HashMap<String, Vec<&RunRow>> {
        let wanted: HashSet<&str> = session_ids.iter().map(String::as_str).collect();
        let mut found: HashMap<String, Vec<&RunRow>> = HashMap::new();
        for entry in self.order(RunSort::Activity).iter().filter_map(|at| self.rows.get(*at)) {
            let session_id = session_of_run(&entry.row.run.training_run_id);
            if let Some(id) = session_id.filter(|id| wanted.is_empty() || wanted.contains(id)) {
                found.entry(id.to_owned()).or_default().push(&entry.row);
            }
        }
        found
    }

    /// All runs, the newest activity first.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &RunRow> {
        self.order(RunSort::Activity).iter().filter_map(|at| self.rows.get(*at)).map(|entry| &entry.row)
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
        self.lineage().successors.remove(run_id)
    }

    /// What a monitor has noted of this run.
    pub(crate) fn finding(&self, run_id: &str) -> Option<&Finding> {
        self.findings.get(run_id)
    }

    /// What its training program has told of it.
    pub(crate) fn report(&self, run_id: &str) -> Option<&Report> {
        self.reports.get(run_id)
    }

    /// All runs that descend from the first of this one's lineage, parents before their children.
    pub(crate) fn family(&self, run_id: &str) -> Vec<LineageEntry> {
        let lineage = self.lineage();
        let mut ancestors = vec![run_id];
        while let Some(before) = ancestors.last().and_then(|id| lineage.predecessors.get(*id)) {
            if ancestors.contains(&before.as_str()) {
                break;
            }
            ancestors.push(before);
        }
        let mut children: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (child, parent) in &lineage.predecessors {
            children.entry(parent).or_default().push(child);
        }
        let mut family: Vec<LineageEntry> = Vec::new();
        let mut next = vec![(ancestors.last().copied().unwrap_or(run_id), 0)];
        while let Some((id, generation)) = next.pop() {
            if family.len() >= MAX_FAMILY || family.iter().any(|known| known.run_id == id) {
                continue;
            }
            family.push(self.lineage_entry(&lineage, id, generation));
            let mut born = children.get(id).cloned().unwrap_or_default();
            // Taken from the end.
            born.sort_unstable_by(|a, b| b.cmp(a));
            next.extend(born.into_iter().map(|child| (child, generation + 1)));
        }
        family
    }

    fn lineage_entry(&self, lineage: &Lineage, run_id: &str, generation: u32) -> LineageEntry {
        let row = self.row(run_id);
        let parent = lineage.predecessors.get(run_id).filter(|_| generation > 0).cloned();
        let origin = || lineage.origins.get(run_id).cloned().or_else(|| origin_of(&row?.run, None));
        LineageEntry {
            restore_id: parent.as_ref().and_then(|_| lineage.made_by.get(run_id).cloned()),
            checkpoint: parent.as_ref().and_then(|_| origin()),
            name: row.map_or_else(|| run_id.to_owned(), |row| row.name.clone()),
            health: row.map(|row| row.verdict.health),
            run_id: run_id.to_owned(),
            generation,
            parent,
        }
    }
}

impl Lineage {
    fn origin_of(&self, run: &TrainingRun) -> Option<String> {
        self.origins.get(&run.training_run_id).cloned().or_else(|| origin_of(run, None))
    }
}

/// A digest of ids in their order.
fn digest<'a>(ids: impl Iterator<Item = &'a str>) -> String {
    let mut hasher = Sha256::new();
    for id in ids {
        hasher.update(id.as_bytes());
        hasher.update([0]);
    }
    hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
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
