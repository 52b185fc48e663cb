//! The list of all checkpoints: what its address holds, which are selected, and how it is worded.

use std::collections::HashSet;

use retinker::host::checkpoints::{
    CheckpointActions, CheckpointDo, CheckpointItem, CheckpointOutcome, CheckpointSort, CheckpointWindow,
    CheckpointsQuery, DeletePreview,
};
use retinker::wire::run::CheckpointType;

use crate::address::{asking, decode};
use crate::format::{bytes, count, counted};
use crate::order::sorted;

/// Rows on one page of the list.
pub const PAGE: u64 = 100;

/// What of the checkpoints is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Only those that this matches; empty = all.
    pub q: String,
    /// Only those of this type.
    pub kind: Option<CheckpointType>,
    /// The order.
    pub sort: CheckpointSort,
    /// Whether it begins with the greatest; `None`: as is usual.
    pub desc: Option<bool>,
    /// The page, from 0.
    pub page: u64,
}

impl View {
    /// Reads a query string, with or without its `?`. Values that mean nothing are passed over.
    pub fn read(query: &str) -> Self {
        let mut view = Self::default();
        for member in query.trim_start_matches('?').split('&') {
            let (name, value) = member.split_once('=').unwrap_or((member, ""));
            let value = decode(value);
            match name {
                "q" => view.q = value.trim().to_owned(),
                "type" => view.kind = KINDS.into_iter().find(|kind| kind.as_str() == value),
                "sort" => {
                    let known = CheckpointSort::ALL.into_iter().find(|sort| sort.as_str() == value);
                    view.sort = known.unwrap_or_default();
                }
                "desc" => view.desc = value.parse().ok(),
                "page" => view.page = value.parse::<u64>().unwrap_or(1).saturating_sub(1),
                _ => {}
            }
        }
        view
    }

    /// The address that shows this view; what is as usual is left out.
    pub fn to_address(&self) -> String {
        let page = if self.page > 0 { self.page.saturating_add(1).to_string() } else { String::new() };
        asking(
            "/checkpoints",
            &[
                ("q", &self.q),
                ("type", self.kind.as_ref().map_or("", |kind| kind.as_str())),
                ("sort", if self.sort == CheckpointSort::default() { "" } else { self.sort.as_str() }),
                ("desc", self.desc.map_or("", |desc| if desc { "true" } else { "false" })),
                ("page", &page),
            ],
        )
    }

    /// What to ask the host for.
    pub fn to_query(&self) -> CheckpointsQuery {
        CheckpointsQuery {
            q: (!self.q.is_empty()).then(|| self.q.clone()),
            kind: self.kind.clone(),
            sort: self.sort,
            desc: self.desc,
            offset: self.page.saturating_mul(PAGE),
            limit: Some(PAGE),
        }
    }

    /// Whether it begins with the greatest.
    pub fn descends(&self) -> bool {
        self.desc.unwrap_or(self.sort.is_descending())
    }

    /// The same in another order, or in the same one turned round; from the first page.
    pub fn sorted(&self, sort: CheckpointSort) -> Self {
        let turned = (self.sort == sort).then(|| !self.descends());
        let desc = turned.filter(|desc| *desc != sort.is_descending());
        Self { sort, desc, page: 0, ..self.clone() }
    }

    /// Whether every checkpoint is let through.
    pub fn is_whole(&self) -> bool {
        self.q.is_empty() && self.kind.is_none()
    }
}

/// The types that there are, in the order of [`CheckpointWindow::counts`].
pub const KINDS: [CheckpointType; 3] =
    [CheckpointType::Training, CheckpointType::Sampler, CheckpointType::External];

/// What a type is for.
pub fn kind(kind: &CheckpointType) -> &str {
    match kind {
        CheckpointType::Training => "Training",
        CheckpointType::Sampler => "Sampling",
        CheckpointType::External => "External",
        other => other.as_str(),
    }
}

/// How much of the list is shown, and how large it is.
pub fn shown(view: &View, window: &CheckpointWindow) -> String {
    let CheckpointWindow { rows, matching, total, bytes_matching, bytes_total, .. } = window;
    let rows = rows.len() as u64;
    let first = view.page.saturating_mul(PAGE);
    let mut text = if rows > 0 && rows < *matching {
        format!("{}–{} of ", count(first.saturating_add(1)), count(first.saturating_add(rows)))
    } else {
        String::new()
    };
    if matching == total {
        text.push_str(&format!("{}, {}", counted(*total, "checkpoint", "checkpoints"), bytes(*bytes_total)));
    } else {
        let all = counted(*total, "checkpoint", "checkpoints");
        text.push_str(&format!("{} matching, {}; {all} in all, ", count(*matching), bytes(*bytes_matching)));
        text.push_str(&bytes(*bytes_total));
    }
    text
}

/// Which are selected: by their paths, whatever page they are on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// The paths.
    pub paths: HashSet<String>,
    /// Where a range begins: the last that was picked by itself.
    anchor: Option<String>,
}

impl Selection {
    /// Picks one or leaves it; with `range`, all from the last one that was picked to it as they stand in `order`.
    pub fn pick(&mut self, order: &[String], path: &str, on: bool, range: bool) {
        let place = |path: &str| order.iter().position(|known| known == path);
        let from = self.anchor.as_deref().filter(|_| range).and_then(place);
        let span = match (from, place(path)) {
            (Some(from), Some(to)) => order.get(from.min(to)..=from.max(to)).unwrap_or_default(),
            _ => &[],
        };
        for one in span.iter().map(String::as_str).chain([path]) {
            if on {
                self.paths.insert(one.to_owned());
            } else {
                self.paths.remove(one);
            }
        }
        self.anchor = Some(path.to_owned());
    }

    /// The paths, by name.
    pub fn in_order(&self) -> Vec<String> {
        sorted(self.paths.iter().cloned().collect(), String::cmp)
    }
}

/// A preview in a sentence: how many go, what that frees, and what that saves.
pub fn preview(preview: &DeletePreview, more: &[CheckpointItem]) -> String {
    let goes = (preview.goes.len() + more.len()) as u64;
    if goes == 0 {
        return "Nothing would be deleted.".to_owned();
    }
    let more = more.iter().filter_map(|item| item.checkpoint.size_bytes).sum::<u64>();
    let size = preview.bytes.saturating_add(more);
    let counted = counted(goes, "checkpoint goes", "checkpoints go");
    let freed = if size == 0 {
        "; the service does not tell sizes".to_owned()
    } else {
        format!(", which frees {}", bytes(size))
    };
    let saved = preview.usd_per_gigabyte_month.map(|rate| money(rate * size as f64 / 1e9));
    match saved {
        Some(saved) => format!("{counted}{freed} and saves {saved} a month."),
        None => format!("{counted}{freed}."),
    }
}

/// US dollars: to the cent, and never "nothing" for something. In whole numbers, since the code that prints a fraction of a
/// float is large.
fn money(usd: f64) -> String {
    let cents = (usd * 100.0 + 0.5) as u64;
    match cents {
        0 => "less than $0.01".to_owned(),
        cents => format!("${}.{:02}", count(cents / 100), cents % 100),
    }
}

/// Something that is being done with several checkpoints, or was.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// What.
    pub action: CheckpointDo,
    /// With how many.
    pub total: usize,
    /// What became of those that it has come to.
    pub outcomes: Vec<CheckpointOutcome>,
    /// Whether it goes on: until the answer to the last request that was sent.
    pub running: bool,
    /// Whether no further request is to be sent.
    pub stopping: bool,
}

/// Checkpoints that are changed by one request: few, so that it is seen how it goes on.
const BATCH: usize = 20;

impl Job {
    /// The beginning of what is asked for.
    pub fn new(requests: &[CheckpointActions]) -> Self {
        Self {
            action: requests.first().map_or(CheckpointDo::Keep, |request| request.action),
            total: requests.iter().map(|request| request.paths.len()).sum(),
            outcomes: Vec::new(),
            running: true,
            stopping: false,
        }
    }

    /// Cuts one action on many checkpoints into requests.
    pub fn requests(
        action: CheckpointDo,
        paths: &[String],
        ttl_seconds: Option<u64>,
        force: bool,
    ) -> Vec<CheckpointActions> {
        let request = |paths: &[String]| CheckpointActions {
            action,
            paths: paths.to_vec(),
            ttl_seconds,
            expires_at: Vec::new(),
            force,
        };
        paths.chunks(BATCH).map(request).collect()
    }

    /// What takes it back; `None` where nothing was changed, or it cannot be.
    pub fn undo(&self) -> Option<Vec<CheckpointActions>> {
        let changed: Vec<_> = self.outcomes.iter().filter(|one| one.changed).collect();
        let action = match self.action {
            CheckpointDo::Publish => CheckpointDo::Unpublish,
            CheckpointDo::Unpublish => CheckpointDo::Publish,
            CheckpointDo::Delete | CheckpointDo::Copy => return None,
            _ => CheckpointDo::PutBack,
        };
        if self.running || changed.is_empty() {
            return None;
        }
        let request = |batch: &[&CheckpointOutcome]| CheckpointActions {
            action,
            paths: batch.iter().map(|one| one.path.clone()).collect(),
            ttl_seconds: None,
            expires_at: match action {
                CheckpointDo::PutBack => batch.iter().map(|one| one.former_expires_at).collect(),
                _ => Vec::new(),
            },
            force: false,
        };
        Some(changed.chunks(BATCH).map(request).collect())
    }

    /// The paths of those that it has deleted.
    pub fn deleted(&self) -> impl Iterator<Item = &String> {
        let outcomes = self.outcomes.iter().filter(|one| one.done && self.action == CheckpointDo::Delete);
        outcomes.map(|one| &one.path)
    }

    /// How it stands, in a sentence.
    pub fn told(&self) -> String {
        let done = self.outcomes.iter().filter(|one| one.done).count();
        let what = match self.action {
            CheckpointDo::Publish => "published",
            CheckpointDo::Unpublish => "made private",
            CheckpointDo::Live | CheckpointDo::Extend => "given another life",
            CheckpointDo::Keep => "kept for ever",
            CheckpointDo::PutBack => "given their former life",
            CheckpointDo::Copy => "copied",
            CheckpointDo::Delete => "deleted",
        };
        let number = |number: usize| count(number as u64);
        let unchanged = self.outcomes.iter().filter(|one| one.done && !one.changed).count();
        // What is gone is as good as deleted; what was published before was not published now.
        let deletes = self.action == CheckpointDo::Delete;
        let done = if deletes { done } else { done - unchanged };
        let mut text = if done == self.total {
            format!("{} {what}", counted(done as u64, "checkpoint", "checkpoints"))
        } else {
            let all = counted(self.total as u64, "checkpoint", "checkpoints");
            format!("{} of {all} {what}", number(done))
        };
        match unchanged {
            0 => {}
            gone if deletes => text.push_str(&format!(", {} of them gone already", number(gone))),
            unchanged => text.push_str(&format!(", {} needed no change", number(unchanged))),
        }
        text.push(if self.running { '…' } else { '.' });
        text
    }
}

#[cfg(test)]
mod tests {
    use retinker::wire::time::Time;

    use super::*;

    #[test]
    fn every_view_survives_the_address_bar() {
        assert_eq!(View::default().to_address(), "/checkpoints");
        let view = View {
            q: "run:a:train:0 size>1GB".into(),
            kind: Some(CheckpointType::Sampler),
            sort: CheckpointSort::Expires,
            desc: Some(true),
            page: 2,
        };
        let address = view.to_address();
        assert_eq!(
            address,
            "/checkpoints?q=run%3Aa%3Atrain%3A0%20size%3E1GB&type=sampler&sort=expires&desc=true&page=3"
        );
        assert_eq!(View::read(address.split_once('?').unwrap().1), view);
        assert_eq!(View::read("?type=x&sort=y&desc=z&page=-1&&a"), View::default());
        assert_eq!(View::read("q=run:a:train:0").q, "run:a:train:0", "as other pages link here");
    }

    #[test]
    fn a_second_click_turns_the_order_round() {
        let view = View { page: 3, ..View::default() };
        let size = view.sorted(CheckpointSort::Size);
        assert_eq!((size.sort, size.desc, size.page, size.descends()), (CheckpointSort::Size, None, 0, true));
        let turned = size.sorted(CheckpointSort::Size);
        assert_eq!((turned.desc, turned.descends()), (Some(false), false));
        assert_eq!(turned.sorted(CheckpointSort::Size), size);
        assert_eq!(view.sorted(CheckpointSort::Saved).desc, Some(false));
    }

    #[test]
    fn totals_are_never_hidden() {
        let item: CheckpointItem = serde_json::from_value(serde_json::json!({
            "run_id": "r", "run_name": "r",
            "checkpoint": {"checkpoint_id": "weights/a", "checkpoint_type": "training", "time": Time::from_millis(0),
                "tinker_path": "tinker://r/weights/a"},
        }))
        .unwrap();
        let mut window =
            CheckpointWindow { matching: 1, total: 1, bytes_total: 7, ..CheckpointWindow::default() };
        window.rows = vec![item];
        assert_eq!(shown(&View::default(), &window), "1 checkpoint, 7 B");
        (window.total, window.matching, window.bytes_matching) = (1204, 150, 5);
        let second = View { page: 1, ..View::default() };
        assert_eq!(shown(&second, &window), "101–101 of 150 matching, 5 B; 1,204 checkpoints in all, 7 B");
    }

    #[test]
    fn ranges_are_picked_and_left() {
        let order: Vec<String> = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        let mut selection = Selection::default();
        let is = |selection: &Selection, paths: &str| {
            assert_eq!(selection.in_order().concat(), paths);
        };
        selection.pick(&order, "c", true, true);
        is(&selection, "c");
        selection.pick(&order, "a", true, true);
        is(&selection, "abc");
        selection.pick(&order, "d", true, false);
        selection.pick(&order, "b", false, true);
        is(&selection, "a");
        // Where the range began is on another page.
        selection.pick(&["x".to_owned(), "y".to_owned()], "y", true, true);
        is(&selection, "ay");
    }

    #[test]
    fn previews_say_what_is_freed() {
        let mut given = DeletePreview::default();
        assert_eq!(preview(&given, &[]), "Nothing would be deleted.");
        let item: CheckpointItem = serde_json::from_value(serde_json::json!({
            "run_id": "r", "run_name": "r",
            "checkpoint": {"checkpoint_id": "weights/a", "checkpoint_type": "training", "time": Time::from_millis(0),
                "tinker_path": "tinker://r/weights/a", "size_bytes": 2_000_000_000_u64},
        }))
        .unwrap();
        given.goes = vec![item.clone()];
        assert_eq!(preview(&given, &[]), "1 checkpoint goes; the service does not tell sizes.");
        given.bytes = 2_000_000_000;
        assert_eq!(preview(&given, &[item]), "2 checkpoints go, which frees 4.0 GB.");
        given.usd_per_gigabyte_month = Some(0.1);
        assert_eq!(preview(&given, &[]), "1 checkpoint goes, which frees 2.0 GB and saves $0.20 a month.");
        assert_eq!((money(0.001), money(1234.5)), ("less than $0.01".to_owned(), "$1,234.50".to_owned()));
    }

    fn outcome(path: &str, done: bool, changed: bool) -> CheckpointOutcome {
        let former_expires_at = changed.then(|| Time::from_millis(5));
        let code = if done { "" } else { "needed" }.to_owned();
        CheckpointOutcome { path: path.into(), done, changed, message: "m".into(), former_expires_at, code }
    }

    #[test]
    fn what_was_changed_can_be_taken_back_and_nothing_else() {
        let paths: Vec<String> = (0..45).map(|n| n.to_string()).collect();
        let requests = Job::requests(CheckpointDo::Extend, &paths, Some(60), false);
        assert_eq!(requests.iter().map(|r| r.paths.len()).collect::<Vec<_>>(), [20, 20, 5]);
        let mut job = Job::new(&requests);
        assert_eq!((job.total, job.undo()), (45, None));
        job.outcomes = vec![outcome("a", true, true), outcome("b", true, false), outcome("c", false, false)];
        job.total = 3;
        assert_eq!(job.undo(), None, "not while it goes on");
        assert_eq!(job.told(), "1 of 3 checkpoints given another life, 1 needed no change…");
        job.running = false;
        let undo = job.undo().unwrap();
        assert_eq!(
            (undo[0].action, undo[0].paths.as_slice()),
            (CheckpointDo::PutBack, &["a".to_owned()][..])
        );
        assert_eq!(undo[0].expires_at, [Some(Time::from_millis(5))]);
        job.action = CheckpointDo::Publish;
        let undo = job.undo().unwrap();
        assert_eq!((undo[0].action, undo[0].expires_at.len()), (CheckpointDo::Unpublish, 0));
        job.action = CheckpointDo::Delete;
        assert_eq!(job.undo(), None);
        assert_eq!(job.told(), "2 of 3 checkpoints deleted, 1 of them gone already.");
        job.outcomes.truncate(1);
        job.total = 1;
        assert_eq!(job.told(), "1 checkpoint deleted.");
    }
}
