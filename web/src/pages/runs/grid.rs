//! The list as a grid of which only what is seen is on the page. The keyboard stays on the grid and moves a cell in it
//! (`aria-activedescendant`), since rows come and go.

use crate::prelude::*;
use leptos::ev::{KeyboardEvent, PointerEvent};
use retinker_console::address::{View, run_address};
use retinker_console::columns::Column;
use retinker_console::held::Held;
use retinker_console::selection::Selection;
use wasm_bindgen::JsCast;

use super::line::line;
use super::list::{List, Size};
use super::selected::select_range;
use super::states::no_rows;
use crate::browser;
use crate::components::icon::icon;
use crate::components::reactive::{flag, maybe, part, text, when, word};
use crate::live::session;

type Node = NodeRef<web_sys::HtmlElement>;

/// A cell's id on the page.
pub(super) fn cell_id(row: u64, column: usize) -> String {
    format!("cell-{row}-{column}")
}

/// The grid, and what is said where it has no rows.
pub(super) fn grid(list: List) -> AnyView {
    let node: Node = NodeRef::new();
    keep_place(list, node);
    let drawn = Memo::new(move |_| list.frame().drawn());
    let rows_drawn = move || {
        let (from, to) = drawn.get();
        from..to
    };
    // The head counts as a row.
    let rows = text(move || list.held.with(Held::matching).saturating_add(1).to_string());
    let columns = text(move || list.order.with(|columns| (columns.len() + 1).to_string()));
    // A cell that is scrolled out of sight is not on the page, and none is named then.
    let active = Signal::derive(move || {
        let ((row, column), (from, to)) = (list.active.get(), drawn.get());
        (from..to).contains(&row).then(|| cell_id(row, column))
    });
    let busy = flag(move || list.busy.get());
    let scrolled = move |_| {
        if let Some(frame) = node.get_untracked() {
            list.top.set(f64::from(frame.scroll_top()));
        }
    };
    let pointer = RwSignal::new(false);
    let focused = RwSignal::new(false);
    Effect::new(move |_| list.pointed.set(pointer.get() || focused.get()));
    let empty = move || list.held.with(Held::matching) == 0;
    view! {
        <div class="runs-frame" class:busy=busy>
            {maybe(move || {
                list.held.with(Held::is_withheld).then(|| {
                    view! {
                        <div class="withheld" role="status">
                            <button
                                type="button"
                                class="button"
                                data-testid="runs-withheld"
                                on:click=move |_| list.release.update(|n| *n += 1)
                            >
                                "The order has changed: show it"
                            </button>
                        </div>
                    }
                })
            })}
            <div
                role="grid"
                id="runs-grid"
                class="runs"
                class:none=flag(empty)
                tabindex="0"
                node_ref=node
                data-testid="runs-scroller"
                aria-label="Runs"
                aria-rowcount=rows
                aria-colcount=columns
                aria-multiselectable="true"
                aria-busy=word(move || Some(if busy.get() { "true" } else { "false" }))
                aria-activedescendant=active
                style:--columns=text(move || list.columns.with(|columns| columns.template()))
                style:--width=text(move || list.columns.with(|columns| format!("{}px", columns.total())))
                on:scroll=scrolled
                on:keydown=move |event| keys(list, node, &event)
                on:focus=move |_| focused.set(true)
                on:blur=move |_| focused.set(false)
            >
                <div role="rowgroup" class="runs-head">
                    <div role="row" aria-rowindex="1" class="runs-row">
                        <div role="columnheader" aria-colindex="1" class="c-select">
                            <span class="said">"Selected"</span>
                        </div>
                        {part(move || heads(list))}
                    </div>
                </div>
                <div
                    role="rowgroup"
                    class="runs-body"
                    data-testid="runs-table"
                    style:height=text(move || format!("{}px", list.frame().tall() as i64))
                    on:pointerenter=move |_| pointer.set(true)
                    on:pointerleave=move |_| pointer.set(false)
                >
                    {each(rows_drawn, move |at| line(list, at))}
                </div>
            </div>
            {when(empty, move || no_rows(list))}
        </div>
    }
}

/// Follows the frame's size; begins at the top of another list, and where it was on the way back.
fn keep_place(list: List, node: Node) {
    let measure = move || {
        if let Some(frame) = node.get_untracked() {
            list.size.set(Size::of(f64::from(frame.client_height())));
        }
    };
    let resized = window_event_listener_untyped("resize", move |_| measure());
    on_cleanup(move || resized.remove());
    let places = session().places;
    // Other columns are no other list.
    let address =
        Memo::new(move |_| list.shown.with(|shown| View { columns: None, ..shown.clone() }.to_address()));
    let there = Memo::new(move |_| list.held.with(|held| held.whole().is_some()));
    Effect::new(move |before: Option<(String, bool)>| {
        let (address, there) = (address.get(), there.get());
        let Some(frame) = node.get() else { return (address, false) };
        request_animation_frame(measure);
        let is_other = before.as_ref().is_some_and(|(before, _)| *before != address);
        if is_other {
            frame.set_scroll_top(0);
            list.active.set((0, 2));
        } else if there && before.is_none_or(|(_, was)| !was) {
            let place = places.with_value(|places| places.get(&address).copied());
            request_animation_frame(move || frame.set_scroll_top(place.unwrap_or_default().cast_signed()));
        }
        (address, there)
    });
    on_cleanup(move || {
        let at = (address.try_get_untracked(), list.top.try_get_untracked());
        if let (Some(address), Some(top)) = at {
            places.update_value(|places| {
                let _ = places.insert(address, top as u32);
            });
        }
    });
}

fn heads(list: List) -> AnyView {
    let heads: Vec<_> =
        list.order.get().into_iter().enumerate().map(|(at, column)| head(list, at, column)).collect();
    heads.into_any()
}

fn head(list: List, at: usize, column: Column) -> AnyView {
    let sorted = Memo::new(move |_| {
        let (sort, reverse) = list.shown.with(|shown| (shown.sort, shown.reverse));
        (column.sort() == Some(sort)).then_some(reverse)
    });
    // The usual direction of some orders is downwards: newest, highest, worst first.
    let falls = !matches!(column, Column::Name | Column::Model | Column::Expires);
    let direction =
        word(move || sorted.get().map(|reverse| if reverse == falls { "ascending" } else { "descending" }));
    let name = match column.sort() {
        Some(sort) => {
            let turn = move |_| list.go(&list.shown.with_untracked(|shown| shown.with_sort(sort)));
            view! {
                <button
                    type="button"
                    class="sort"
                    data-testid=format!("sort-{}", column.as_str())
                    on:click=turn
                >
                    {column.heading()}
                    {maybe(move || {
                        let drawing = if direction.get()? == "ascending" { "up" } else { "down" };
                        Some(icon(drawing))
                    })}
                </button>
            }
        }
        None => view! { <span class="sort">{column.heading()}</span> },
    };
    view! {
        <div
            role="columnheader"
            class=format!("c-{}", column.as_str())
            class:number=column.is_number()
            aria-colindex=(at + 2).to_string()
            aria-sort=direction
        >
            {name}
            {edge(list, column)}
        </div>
    }
}

/// The edge of a column, which can be dragged; the menu of columns does the same by keyboard.
fn edge(list: List, column: Column) -> AnyView {
    let begun = RwSignal::new(None::<(i32, u32)>);
    let down = move |event: PointerEvent| {
        event.prevent_default();
        if let Some(edge) = event.current_target().and_then(|on| on.dyn_into::<web_sys::Element>().ok()) {
            let _ = edge.set_pointer_capture(event.pointer_id());
            // As it is drawn, which is wider than its number where it takes the room that is left.
            let width = edge.parent_element().map(|head| head.client_width()).unwrap_or_default();
            begun.set(Some((event.client_x(), u32::try_from(width).unwrap_or_default())));
        }
    };
    let drag = move |event: PointerEvent| {
        if let Some((x, width)) = begun.get_untracked() {
            let width = width.saturating_add_signed(event.client_x().saturating_sub(x));
            list.dragged.set(Some((column, width)));
        }
    };
    let up = move |_: PointerEvent| {
        begun.set(None);
        if list.dragged.get_untracked().is_some() {
            let columns = list.columns.get_untracked();
            list.dragged.set(None);
            list.show_columns(columns);
        }
    };
    view! {
        <span
            class="edge"
            aria-hidden="true"
            data-testid=format!("edge-{}", column.as_str())
            on:pointerdown=down
            on:pointermove=drag
            on:pointerup=up
        ></span>
    }
}

/// What the keyboard does while it is on the grid itself, and not on a button in it.
fn keys(list: List, node: Node, event: &KeyboardEvent) {
    let Some(frame) = node.get_untracked() else { return };
    if event
        .target()
        .and_then(|on| on.dyn_into::<web_sys::Element>().ok())
        .is_none_or(|on| on.id() != "runs-grid")
    {
        return;
    }
    // What is selected has a bar, which takes its room from the frame.
    list.size.set(Size::of(f64::from(frame.client_height())));
    let total = list.held.with_untracked(Held::matching);
    let last_column = list.order.with_untracked(Vec::len);
    let (row, column) = list.active.get_untracked();
    let page = list.frame_now().page();
    let whole = event.ctrl_key() || event.meta_key();
    let last = total.saturating_sub(1);
    let next = match event.key().as_str() {
        "ArrowDown" => (row.saturating_add(1), column),
        "ArrowUp" => (row.saturating_sub(1), column),
        "PageDown" => (row.saturating_add(page), column),
        "PageUp" => (row.saturating_sub(page), column),
        "ArrowRight" => (row, column + 1),
        "ArrowLeft" => (row, column.saturating_sub(1)),
        "Home" => (if whole { 0 } else { row }, 0),
        "End" => (if whole { last } else { row }, last_column),
        "Enter" => {
            event.prevent_default();
            return open(list, row, column);
        }
        " " => {
            event.prevent_default();
            return toggle(list, row);
        }
        "a" | "A" if whole && !event.shift_key() => {
            event.prevent_default();
            return super::selected::select_all(list);
        }
        "Escape" => {
            list.selection.update(Selection::clear);
            return;
        }
        _ => return,
    };
    event.prevent_default();
    let next = (next.0.min(last), next.1.min(last_column));
    if event.shift_key() && next.0 != row {
        if list.selection.with_untracked(|selection| selection.anchor().is_none()) {
            toggle(list, row);
        }
        select_range(list, next.0);
    }
    list.active.set(next);
    let top = list.frame_now().shows(next.0, 0.0);
    frame.set_scroll_top(top.round() as i32);
    let _ = browser::show_sideways(&frame, &cell_id(row, next.1));
}

fn toggle(list: List, row: u64) {
    let id = list.held.with_untracked(|held| held.id(row).map(str::to_owned));
    if let Some(id) = id {
        list.selection.update(|selection| selection.toggle(&id));
    }
}

/// Opens what the cell is about: a run of the lineage, else the row's own.
fn open(list: List, row: u64, column: usize) {
    let column = column.checked_sub(1).and_then(|at| list.order.with_untracked(|all| all.get(at).copied()));
    let id = list.held.with_untracked(|held| {
        let row = held.row(row)?.row;
        let other =
            if column == Some(Column::Lineage) { row.restored_to.or(row.restored_from) } else { None };
        Some(other.unwrap_or(row.run.training_run_id))
    });
    if let Some(id) = id {
        list.goto.set(Some((run_address(&id), false)));
    }
}
