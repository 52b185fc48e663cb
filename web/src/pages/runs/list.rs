//! What the parts of the page share.

use crate::prelude::*;
use retinker::host::api::ApiProblem;
use retinker_console::address::View;
use retinker_console::columns::{Column, Columns};
use retinker_console::held::Held;
use retinker_console::scroll::Frame;
use retinker_console::selection::Selection;

use crate::browser;
use crate::live::session;

/// The list: what is asked for, what is held of it, and where one looks. Cheap to copy.
#[derive(Clone, Copy)]
pub(super) struct List {
    /// What the address asks for.
    pub(super) shown: Memo<View>,
    /// The rows that are held.
    pub(super) held: RwSignal<Held>,
    /// Why the host gave no answer.
    pub(super) problem: RwSignal<Option<ApiProblem>>,
    /// Why the host did not tell what was to be selected; the list may be read well meanwhile.
    pub(super) refused: RwSignal<Option<ApiProblem>>,
    /// An answer is awaited that somebody asked for.
    pub(super) busy: RwSignal<bool>,
    /// The selected runs.
    pub(super) selection: RwSignal<Selection>,
    /// The frame's place, in pixels.
    pub(super) top: RwSignal<f64>,
    /// The frame's size.
    pub(super) size: RwSignal<Size>,
    /// The cell that the keyboard is on: row and column, the boxes that select being the first.
    pub(super) active: RwSignal<(u64, usize)>,
    /// The pointer or the keyboard is on a row: nothing may move.
    pub(super) pointed: RwSignal<bool>,
    /// Moves when what was withheld is to be shown.
    pub(super) release: RwSignal<u64>,
    /// The columns and their widths.
    pub(super) columns: Memo<Columns>,
    /// The columns alone: nothing is drawn anew for another width.
    pub(super) order: Memo<Vec<Column>>,
    /// A column whose edge is being dragged, and its width then.
    pub(super) dragged: RwSignal<Option<(Column, u32)>>,
    usual: RwSignal<Columns>,
    /// Where to go next, and whether the way back should lead past it.
    pub(super) goto: RwSignal<Option<(String, bool)>>,
}

/// How large the frame and its rows are, in pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Size {
    pub(super) height: f64,
    pub(super) row: f64,
    /// The head above the rows, which stays in sight.
    pub(super) head: f64,
}

impl Size {
    /// Rows are cards where there is no room for a table (`runs.css` says the same).
    pub(super) fn of(height: f64) -> Self {
        match browser::media("(max-width: 960px)") {
            true => Self { height, row: 184.0, head: 0.0 },
            false => Self { height: height - 36.0, row: 54.0, head: 36.0 },
        }
    }
}

/// Where this browser keeps its usual columns.
const COLUMNS: &str = "retinker.columns";

impl List {
    pub(super) fn new(shown: Memo<View>) -> Self {
        let usual = RwSignal::new(Columns::read(&browser::stored(COLUMNS)).unwrap_or_default());
        let dragged = RwSignal::new(None);
        let columns = Memo::new(move |_| {
            let own = shown.with(|shown| shown.columns.clone());
            let columns = own.unwrap_or_else(|| usual.get());
            match dragged.get() {
                Some((column, width)) => columns.with_width(column, width),
                None => columns,
            }
        });
        Self {
            shown,
            held: RwSignal::default(),
            problem: RwSignal::default(),
            refused: RwSignal::default(),
            busy: RwSignal::new(true),
            selection: session().selected_runs,
            top: RwSignal::new(0.0),
            size: RwSignal::new(Size::of(browser::height() * 0.6)),
            active: RwSignal::new((0, 2)),
            pointed: RwSignal::new(false),
            release: RwSignal::new(0),
            columns,
            order: Memo::new(move |_| columns.with(|columns| columns.list())),
            dragged,
            usual,
            goto: RwSignal::default(),
        }
    }

    /// The frame on the list.
    pub(super) fn frame(self) -> Frame {
        let Size { height, row, .. } = self.size.get();
        Frame { total: self.held.with(Held::matching), row, height, top: self.top.get() }
    }

    /// The frame as it is now, for what happens once.
    pub(super) fn frame_now(self) -> Frame {
        untrack(move || self.frame())
    }

    /// Shows another view; the way back leads to this one.
    pub(super) fn go(self, view: &View) {
        self.goto.set(Some((view.to_address(), false)));
    }

    /// Shows another view in place of this one.
    pub(super) fn replace(self, view: &View) {
        self.goto.set(Some((view.to_address(), true)));
    }

    /// Shows these columns, here and wherever the address names none.
    pub(super) fn show_columns(self, columns: Columns) {
        browser::store(COLUMNS, &columns.to_text());
        let is_usual = columns == Columns::default();
        self.usual.set(columns.clone());
        let view = self.shown.get_untracked();
        self.replace(&if is_usual { View { columns: None, ..view } } else { view.with_columns(columns) });
    }
}
