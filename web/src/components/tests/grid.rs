//! The grid of the list of runs: what of it is on the page, and the keys that go through it.

use wasm_bindgen::JsCast;
use wasm_bindgen_test::wasm_bindgen_test;
use web_sys::{Element, HtmlElement};

use super::runs::{Page, edges, id, is, name_in, place_of};
use super::{all_in, at, drawn, press, until};
use crate::prelude::*;
use crate::view::tests::settled;

/// Rows beyond each edge that are drawn before they are seen.
const AROUND: usize = 4;

#[wasm_bindgen_test]
async fn of_a_thousand_runs_those_in_sight_are_on_the_page_and_no_others() {
    let page = Page::new(1_000).await;
    assert!(is(&page.grid, "aria-rowcount", "1001") && is(&page.grid, "aria-colcount", "9"));
    let few = |page: &Page| {
        let (drawn, seen) = (page.rows().len(), page.seen().len());
        assert!(drawn <= seen + 2 * AROUND + 1, "{drawn} are drawn, and {seen} seen");
        for pair in page.rows().windows(2) {
            assert_eq!(place_of(&pair[0]) + 1, place_of(&pair[1]));
            assert!((edges(&pair[0]).1 - edges(&pair[1]).0).abs() < 1.0, "one row lies below the other");
        }
        for row in page.rows() {
            assert_eq!(name_in(&row).text_content(), Some(format!("name {}", place_of(&row))));
            assert!(is(&row, "data-run-id", &id(place_of(&row))));
        }
    };
    few(&page);
    assert_eq!(place_of(&page.rows()[0]), 0);
    assert_eq!(page.grid.scroll_height(), 1_000 * 54 + 36, "its bar is that of the whole list");

    for (top, first) in [(54 * 400, 400), (54 * 402, 402)] {
        let stays = page.row(408);
        page.grid.set_scroll_top(top);
        until("another part is drawn", || page.seen().first().is_some_and(|row| place_of(row) == first))
            .await;
        page.until_all_in_sight().await;
        few(&page);
        assert!(page.row(0).is_none(), "what is far away is gone");
        if let Some(stays) = stays {
            assert!(stays.is_connected(), "what is still seen is not drawn anew");
        }
    }
    page.grid.set_scroll_top(i32::MAX);
    until("the last is there", || page.row(999).is_some()).await;
    page.until_all_in_sight().await;
    few(&page);
    for line in page.desk.host.asked() {
        let limit: u64 =
            line.split(['?', '&']).find_map(|m| m.strip_prefix("limit=")).unwrap().parse().unwrap();
        assert!(limit <= page.room() + 48, "a window is asked for, not the list: {line}");
    }
}

#[wasm_bindgen_test]
async fn a_screen_reader_is_told_what_is_a_head_a_row_and_a_cell_and_where_each_stands() {
    let page = Page::new(1_000).await;
    let places = |row: &Element| {
        let cells = all_in(row, ":scope > *");
        let of = |name: &str| cells.iter().map(|cell| cell.get_attribute(name).unwrap()).collect::<Vec<_>>();
        (of("role"), of("aria-colindex"))
    };
    let numbers: Vec<_> = (1..=9).map(|number: u64| number.to_string()).collect();
    let head: Element = page.desk.find("[aria-rowindex='1']");
    assert!(is(&head, "role", "row"));
    assert_eq!(places(&head), (vec!["columnheader".to_owned(); 9], numbers.clone()));
    let sorted: Vec<_> = all_in(&head, "[aria-sort]")
        .iter()
        .map(|head| (head.class_name(), head.get_attribute("aria-sort")))
        .collect();
    assert_eq!(sorted, [("c-health".to_owned(), Some("descending".to_owned()))], "the worst is first");
    let mut kinds = vec!["gridcell".to_owned(); 9];
    kinds[2] = "rowheader".to_owned();
    let rows = page.rows();
    assert!(rows.len() > 3);
    for row in rows {
        assert_eq!(places(&row), (kinds.clone(), numbers.clone()));
        assert!(is(&row, "aria-selected", "false"));
        assert!(row.closest("[role=rowgroup]").unwrap().unwrap().closest("[role=grid]").unwrap().is_some());
    }
    // One stop for the keyboard, and what can be done within it is reached by the keys of the grid.
    assert!(is(&page.grid, "tabindex", "0") && is(&page.grid, "aria-multiselectable", "true"));
    assert!(all_in(&page.grid, ".runs-body :is(a, input)").iter().all(|on| is(on, "tabindex", "-1")));
    assert!(is(&page.grid, "aria-busy", "false"));
}

#[wasm_bindgen_test]
async fn keys_move_from_cell_to_cell_and_bring_it_into_sight() {
    let page = Page::new(1_000).await;
    let screen = page.room() - 1;
    assert!(screen > 2, "{screen}");
    assert_eq!(page.active().as_deref(), Some("cell-0-2"), "it begins at the first run's name");
    for (keys, row, column) in [
        ("ArrowUp", 0, 2),
        ("ArrowDown", 1, 2),
        ("ArrowRight", 1, 3),
        ("ArrowLeft", 1, 2),
        ("Home", 1, 0),
        ("ArrowLeft", 1, 0),
        ("End", 1, 8),
        ("ArrowRight", 1, 8),
        ("PageDown", 1 + screen, 8),
        ("PageDown", 1 + 2 * screen, 8),
        ("PageUp", 1 + screen, 8),
        ("Ctrl+End", 999, 8),
        ("ArrowDown", 999, 8),
        ("PageDown", 999, 8),
        ("PageUp", 999 - screen, 8),
        ("Ctrl+Home", 0, 0),
        ("PageUp", 0, 0),
        ("Meta+End", 999, 8),
        ("Meta+Home", 0, 0),
    ] {
        assert!(press(&page.grid, keys), "the page does not scroll by {keys} as well");
        page.until_on(row, column).await;
        let marked = page.desk.all(".runs-body .runs-row > .active");
        assert_eq!(marked.len(), 1, "{keys}");
        assert_eq!(marked[0].id(), format!("cell-{row}-{column}"), "what is seen is what is told");
        assert!(page.selected().is_empty(), "{keys}");
    }
    assert!(
        !press(&page.grid, "Tab") && !press(&page.grid, "x"),
        "what is no key of the grid is the browser's"
    );
    // What is pressed on a button within the grid is that button's.
    assert!(!press(&page.desk.find("[data-testid=sort-name]"), "ArrowDown"));
    assert_eq!(page.active().as_deref(), Some("cell-0-0"));
    page.row(2).unwrap().unchecked_into::<HtmlElement>().click();
    page.until_on(2, 0).await;
}

#[wasm_bindgen_test]
async fn no_cell_is_named_that_is_not_on_the_page() {
    let page = Page::new(1_000).await;
    page.grid.set_scroll_top(54 * 500);
    until("the first row is gone", || page.row(0).is_none()).await;
    assert_eq!(page.active(), None);
    // The keyboard is still where it was, and leads back there.
    press(&page.grid, "ArrowDown");
    page.until_on(1, 2).await;
}

#[wasm_bindgen_test]
async fn a_cell_beyond_the_edge_of_a_narrow_frame_is_scrolled_into_sight() {
    let page = Page::new(40).await;
    page.desk.root.set_attribute("style", "width: 520px").unwrap();
    until("the frame is narrow", || page.grid.scroll_width() > page.grid.client_width() + 100).await;
    for (keys, cell) in
        [("End", "cell-0-8"), ("Home", "cell-0-0"), ("End", "cell-0-8"), ("ArrowLeft", "cell-0-7")]
    {
        press(&page.grid, keys);
        settled().await;
        assert_eq!(page.active().as_deref(), Some(cell));
        let (frame, cell) = (
            page.grid.get_bounding_client_rect(),
            document().get_element_by_id(cell).unwrap().get_bounding_client_rect(),
        );
        let (left, right) = (cell.left() - frame.left(), frame.right() - cell.right());
        assert!(left >= -1.0 && right >= -1.0, "{left} and {right} after {keys}");
    }
}

#[wasm_bindgen_test]
async fn enter_opens_the_run_or_the_one_that_its_lineage_names() {
    let page = Page::new(50).await;
    page.runs.lock().unwrap().change(1, |row| row.restored_to = Some(id(40)));
    page.changed().await;
    press(&page.grid, "ArrowDown");
    for (column, leads_to) in [("Home", id(1)), ("End", id(40))] {
        press(&page.grid, column);
        assert!(press(&page.grid, "Enter"));
        until("the run's page is gone to", || page.place.path.get_untracked() == format!("/runs/{leads_to}"))
            .await;
    }
    at("/");
}

#[wasm_bindgen_test]
async fn a_head_puts_the_list_in_its_order_and_turns_that_round() {
    let page = Page::new(100).await;
    let head = || page.desk.find::<Element>("[data-testid=sort-name]").parent_element().unwrap();
    let sorts = || page.desk.all("[aria-sort]").len();
    press(&page.grid, "Ctrl+End");
    page.until_on(99, 8).await;
    for (query, direction) in [("sort=name", "ascending"), ("sort=name&reverse=true", "descending")] {
        page.desk.find::<HtmlElement>("[data-testid=sort-name]").click();
        until("the address tells it", || page.place.query.get_untracked() == query).await;
        assert!(is(&head(), "aria-sort", direction) && sorts() == 1);
        until("it is asked for", || {
            let asked = page.last_asked();
            asked.contains("sort=name") && asked.contains("reverse=true") == (direction == "descending")
        })
        .await;
        page.until_on(0, 2).await;
    }
    at("/");
}

#[wasm_bindgen_test]
async fn the_bar_of_what_is_selected_hides_no_row_that_the_keyboard_comes_to() {
    let page = Page::new(1_000).await;
    press(&page.grid, " ");
    drawn().await;
    for (keys, row) in [("Ctrl+End", 999), ("Ctrl+Home", 0), ("PageDown", page.room() - 1)] {
        press(&page.grid, keys);
        page.until_on(row, if row == 999 { 8 } else { 0 }).await;
    }
}

#[wasm_bindgen_test]
async fn the_last_cell_is_scrolled_to_sideways_before_its_row_is_drawn() {
    let page = Page::new(1_000).await;
    page.desk.root.set_attribute("style", "width: 520px").unwrap();
    until("the frame is narrow", || page.grid.scroll_width() > page.grid.client_width() + 100).await;
    drawn().await;
    press(&page.grid, "Ctrl+End");
    drawn().await;
    drawn().await;
    let (frame, cell) =
        (page.grid.get_bounding_client_rect(), page.cell(999, 8).unwrap().get_bounding_client_rect());
    assert!(cell.right() <= frame.right() + 1.0, "{} {}", cell.right(), frame.right());
}

#[wasm_bindgen_test]
async fn all_are_selected_with_caps_lock_on() {
    let page = Page::new(1_000).await;
    assert!(press(&page.grid, "Ctrl+A"), "and not the text of the page");
}

#[wasm_bindgen_test]
async fn a_cell_of_nothing_is_seen_when_the_keyboard_is_on_it() {
    let page = Page::new(100).await;
    press(&page.grid, "End");
    settled().await;
    let cell: Element = page.cell(0, 8).unwrap();
    assert!(cell.client_height() > 8, "{}", cell.client_height());
}
