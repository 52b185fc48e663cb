//! The page of the list of runs, before a host that has many.

use std::sync::{Arc, Mutex};

use retinker::client::testing::FakeReply;
use retinker::host::api::{RunIds, RunRow, RunWindow};
use retinker::transport::Request;
use web_sys::{Element, HtmlElement};

use super::{Desk, FakeHost, Styled, at, comes, drawn, member, path, rows_of_list, run, until};
use crate::browser;
use crate::live::CALM;
use crate::pages::runs::runs_page;
use crate::place::Place;
use crate::prelude::*;
use crate::view::tests::settled;

/// The host's list.
pub(super) struct Runs {
    pub(super) rows: Vec<RunRow>,
    /// Moves with each change.
    pub(super) revision: u64,
    /// The runs that have changed, each with the revision at which it did.
    changed: Vec<(u64, String)>,
    /// A name of the order.
    pub(super) order: String,
}

impl Runs {
    fn new(many: u64) -> Self {
        let rows = (0..many).map(|at| run(&id(at), &format!("name {at}"))).collect();
        Self { rows, revision: 1, changed: Vec::new(), order: "1".to_owned() }
    }

    /// Changes the run at this place.
    pub(super) fn change(&mut self, at: usize, change: impl FnOnce(&mut RunRow)) {
        change(&mut self.rows[at]);
        self.revision += 1;
        self.changed.push((self.revision, self.rows[at].run.training_run_id.clone()));
    }

    fn answer(&self, request: &Request) -> FakeReply {
        let number = |name: &str| member(request, name).and_then(|value| value.parse::<u64>().ok());
        let text = match path(request) {
            "/runs" => {
                let from = number("offset").unwrap_or(0) as usize;
                let many = number("limit").unwrap_or(100) as usize;
                serde_json::to_string(&self.window(from, many, number("since"), member(request, "order")))
            }
            "/run-ids" => {
                let to = number("offset").unwrap_or(0) as usize;
                let anchor = member(request, "anchor")
                    .map(|id| self.rows.iter().position(|row| row.run.training_run_id == id).unwrap());
                let range = match anchor {
                    Some(from) => &self.rows[from.min(to)..=from.max(to)],
                    None => &self.rows,
                };
                let ids: Vec<_> = range.iter().map(|row| row.run.training_run_id.clone()).collect();
                serde_json::to_string(&RunIds { matching: ids.len() as u64, ids })
            }
            other => panic!("nothing was to ask for {other}"),
        };
        FakeReply::json(200, text.unwrap())
    }

    fn window(&self, from: usize, many: usize, since: Option<u64>, order: Option<String>) -> RunWindow {
        let whole = &self.rows[from.min(self.rows.len())..(from + many).min(self.rows.len())];
        let ids = || whole.iter().map(|row| row.run.training_run_id.clone()).collect();
        let is_new = |row: &&RunRow| match since {
            Some(since) => self.changed.iter().any(|(at, id)| *at > since && *id == row.run.training_run_id),
            None => true,
        };
        RunWindow {
            revision: self.revision,
            order: self.order.clone(),
            partial: since.is_some(),
            ids: (since.is_some() && order.as_deref() != Some(&self.order)).then(ids),
            ..rows_of_list(whole.iter().filter(is_new).cloned().collect(), self.rows.len() as u64)
        }
    }
}

pub(super) fn id(at: u64) -> String {
    format!("run-{at:04}")
}

/// The page.
pub(super) struct Page {
    pub(super) desk: Desk,
    pub(super) runs: Arc<Mutex<Runs>>,
    pub(super) grid: HtmlElement,
    pub(super) place: Place,
    _styled: Styled,
}

impl Page {
    /// Once its first rows are there.
    pub(super) async fn new(many: u64) -> Self {
        let styled = Styled::new();
        let place = at("/");
        let runs = Arc::new(Mutex::new(Runs::new(many)));
        let answering = Arc::clone(&runs);
        let host = FakeHost::new(move |request| answering.lock().unwrap().answer(request));
        let desk = Desk::new(host, |_| {
            provide_context(place);
            runs_page()
        });
        assert!(
            !browser::media("(max-width: 960px)"),
            "the tests are of a table, which a narrow window has not"
        );
        until("the grid is there", || desk.root.query_selector("#runs-grid").unwrap().is_some()).await;
        let page = Self { grid: desk.find("#runs-grid"), desk, runs, place, _styled: styled };
        // The place that it had before is scrolled to with the next frame.
        drawn().await;
        page.until_all_in_sight().await;
        page
    }

    /// Waits until the rows that are seen are on the page, each with its run.
    pub(super) async fn until_all_in_sight(&self) {
        until("what is seen of the list is drawn and read", || {
            let seen = self.seen();
            let (top, bottom) = self.area();
            let ends = seen.first().zip(seen.last()).map(|(first, last)| (edges(first).0, edges(last).1));
            ends.is_some_and(|(first, last)| first <= top + 0.5 && last >= bottom - 0.5)
                && self.desk.all("[data-testid=run-blank]").is_empty()
        })
        .await;
    }

    /// The rows that are on the page, in the list's order.
    pub(super) fn rows(&self) -> Vec<Element> {
        let mut rows = self.desk.all("[data-testid=runs-table] > [role=row]");
        rows.sort_by_key(place_of);
        rows
    }

    pub(super) fn row(&self, at: u64) -> Option<Element> {
        self.rows().into_iter().find(|row| place_of(row) == at)
    }

    /// Where rows are seen: below the head, and above the frame's lower edge.
    fn area(&self) -> (f64, f64) {
        let top = self.grid.get_bounding_client_rect().top();
        (top + 36.0, top + f64::from(self.grid.client_height()))
    }

    /// The rows of which something is seen.
    pub(super) fn seen(&self) -> Vec<Element> {
        let (top, bottom) = self.area();
        let mut rows = self.rows();
        rows.retain(|row| {
            let (upper, lower) = edges(row);
            lower > top + 0.5 && upper < bottom - 0.5
        });
        rows
    }

    /// How many rows have room in the frame.
    pub(super) fn room(&self) -> u64 {
        let (top, bottom) = self.area();
        ((bottom - top) / 54.0) as u64
    }

    /// The cell that the keyboard is on, as the grid names it.
    pub(super) fn active(&self) -> Option<String> {
        self.grid.get_attribute("aria-activedescendant")
    }

    pub(super) fn cell(&self, row: u64, column: usize) -> Option<Element> {
        self.grid.query_selector(&format!("#cell-{row}-{column}")).unwrap()
    }

    /// Waits until the keyboard is on this cell and all of its row is seen.
    pub(super) async fn until_on(&self, row: u64, column: usize) {
        let id = format!("cell-{row}-{column}");
        let seen = || {
            let place = self.row(row).filter(|_| self.cell(row, column).is_some()).map(|row| edges(&row));
            (self.active(), place, self.area())
        };
        let is_on = comes(|| {
            let (active, place, (top, bottom)) = seen();
            active.as_deref() == Some(&id)
                && place.is_some_and(|(upper, lower)| upper >= top - 1.0 && lower <= bottom + 1.0)
        });
        assert!(is_on.await, "the keyboard is to be on {id}, in sight: {:?}", seen());
    }

    /// The places of the rows on the page that are selected.
    pub(super) fn selected(&self) -> Vec<u64> {
        self.rows().iter().filter(|row| is(row, "aria-selected", "true")).map(place_of).collect()
    }

    /// What the bar of what is selected says; nothing while there is none.
    pub(super) fn told(&self) -> String {
        self.desk
            .all("[data-testid=selected-count]")
            .first()
            .and_then(|count| count.text_content())
            .unwrap_or_default()
    }

    /// Tells the page that runs have changed, and lets it take that in.
    pub(super) async fn changed(&self) {
        self.desk.session.any_change.update(|n| *n += 1);
        settled().await;
        self.desk.host.pass(CALM).await;
    }

    pub(super) fn last_asked(&self) -> String {
        self.desk.host.asked().pop().unwrap()
    }
}

pub(super) fn is(element: &Element, name: &str, value: &str) -> bool {
    element.get_attribute(name).as_deref() == Some(value)
}

/// A row's place in the list; the head is the first row to those who are told of it.
pub(super) fn place_of(row: &Element) -> u64 {
    row.get_attribute("aria-rowindex").unwrap().parse::<u64>().unwrap() - 2
}

/// The upper and the lower edge.
pub(super) fn edges(element: &Element) -> (f64, f64) {
    let rect = element.get_bounding_client_rect();
    (rect.top(), rect.bottom())
}

pub(super) fn name_in(row: &Element) -> Element {
    row.query_selector(".run-name bdi").unwrap().unwrap()
}
