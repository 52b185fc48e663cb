//! The choice of columns of the list of runs: by the menu, and by dragging their edges.

use wasm_bindgen::JsCast;
use wasm_bindgen_test::wasm_bindgen_test;
use web_sys::{Element, HtmlElement, HtmlInputElement};

use super::runs::Page;
use super::{all_in, point, until};
use crate::browser;
use crate::view::tests::settled;

/// The page with its menu of columns open.
async fn page() -> Page {
    let page = Page::new(50).await;
    page.desk.find::<HtmlElement>("#columns-menu").click();
    until("the menu is open", || page.desk.all(".column-line").len() == 10).await;
    page
}

fn tick(page: &Page, column: &str) -> HtmlInputElement {
    page.desk.find(&format!("[data-testid=column-{column}]"))
}

/// The columns of a row, in order: after the one of the boxes, by their class, each at the next place.
fn columns(row: &Element) -> Vec<String> {
    let cells = all_in(row, ":scope > *");
    for (cell, place) in cells.iter().zip(1_u64..) {
        assert_eq!(cell.get_attribute("aria-colindex"), Some(place.to_string()));
    }
    let name = |cell: &Element| {
        let class = cell.class_name();
        class.split_whitespace().find_map(|class| class.strip_prefix("c-")).unwrap().to_owned()
    };
    cells.iter().skip(1).map(name).collect()
}

/// Those that the head and every row show, which are the same.
fn shown(page: &Page) -> String {
    let head = columns(&page.desk.find("[aria-rowindex='1']"));
    assert!(page.rows().iter().all(|row| columns(row) == head), "{head:?}");
    assert_eq!(page.grid.get_attribute("aria-colcount"), Some((head.len() + 1).to_string()));
    head.join(",")
}

/// How wide the columns are, as the style sheet is told.
fn widths(page: &Page) -> String {
    page.grid.style().get_property_value("--columns").unwrap()
}

const USUAL: &str = "health,name,model,rank,activity,checkpoint,expires,lineage";

#[wasm_bindgen_test]
async fn a_column_goes_and_comes_back_where_it_stood() {
    let page = page().await;
    assert_eq!(shown(&page), USUAL);
    for (column, there) in [("labels", false), ("owner", false), ("rank", true), ("name", true)] {
        assert_eq!(tick(&page, column).checked(), there, "{column}");
    }
    assert!(tick(&page, "name").disabled(), "a list of runs without names would be of no use");
    for (column, now) in [
        ("rank", "health,name,model,activity,checkpoint,expires,lineage"),
        ("labels", "health,name,model,activity,checkpoint,expires,lineage,labels"),
        ("rank", "health,name,model,rank,activity,checkpoint,expires,lineage,labels"),
    ] {
        tick(&page, column).click();
        until("the address tells the columns", || {
            page.place.query.get_untracked().replace("%2C", ",") == format!("columns={now}")
        })
        .await;
        assert_eq!(shown(&page), now);
        assert_eq!(
            browser::stored("retinker.columns"),
            now,
            "they are the usual ones of this browser from now on"
        );
    }
    let labels = page.rows()[0].query_selector(".c-labels").unwrap();
    assert!(labels.is_some(), "a column that is shown has its cells");
    page.desk.find::<HtmlElement>("#columns-menu ~ .menu-panel .menu-form button").click();
    until("all is as usual", || page.place.query.get_untracked().is_empty()).await;
    assert_eq!(shown(&page), USUAL);
    assert!(!tick(&page, "labels").checked());
}

#[wasm_bindgen_test]
async fn a_column_is_made_wider_and_narrower_by_buttons() {
    let page = page().await;
    let line = |column: &str| tick(&page, column).closest(".column-line").unwrap().unwrap();
    let press = |column: &str, label: &str| {
        let button = line(column).query_selector(&format!("[aria-label='Make {label}']")).unwrap().unwrap();
        button.unchecked_into::<HtmlElement>().click();
    };
    let size = |column: &str| line(column).query_selector(".quiet").unwrap().unwrap().text_content().unwrap();
    assert_eq!(size("rank"), "68 px");
    let row = page.rows()[0].clone();
    for (label, width) in [("Rank wider", 84), ("Rank wider", 100), ("Rank narrower", 84)] {
        press("rank", label);
        settled().await;
        assert_eq!(size("rank"), format!("{width} px"));
        assert!(widths(&page).contains(&format!(" {width}px")), "{}", widths(&page));
        let cell = row.query_selector(".c-rank").unwrap().unwrap();
        assert!((cell.get_bounding_client_rect().width() - f64::from(width)).abs() < 1.0);
    }
    assert!(row.is_connected(), "no row is drawn anew for another width");
    for _ in 0..5 {
        press("rank", "Rank narrower");
        settled().await;
    }
    assert_eq!(size("rank"), "56 px", "not so narrow that it could not be seen");
    assert!(all_in(&line("owner"), "button").iter().all(|button| button.has_attribute("disabled")));
    assert!(all_in(&line("rank"), "button").iter().all(|button| !button.has_attribute("disabled")));
}

#[wasm_bindgen_test]
async fn the_edge_of_a_column_is_dragged() {
    let page = Page::new(50).await;
    let edge: Element = page.desk.find("[data-testid=edge-model]");
    let was = edge.parent_element().unwrap().client_width();
    let row = page.rows()[0].clone();
    point(&edge, "pointermove", 300.0);
    settled().await;
    assert!(widths(&page).contains("minmax(180px, 1fr)"), "a pointer that only passes by drags nothing");
    point(&edge, "pointerdown", 300.0);
    point(&edge, "pointermove", 330.0);
    settled().await;
    assert!(widths(&page).contains(&format!(" {}px", was + 30)), "it follows the pointer: {}", widths(&page));
    assert!(browser::stored("retinker.columns").is_empty(), "nothing is kept before it is let go");
    point(&edge, "pointermove", 340.0);
    point(&edge, "pointerup", 340.0);
    let kept = format!("model~{}", was + 40);
    until("the width is kept", || browser::stored("retinker.columns").contains(&kept)).await;
    assert!(page.place.query.get_untracked().contains(&kept));
    assert!(row.is_connected());
    point(&edge, "pointermove", 500.0);
    settled().await;
    assert!(widths(&page).contains(&format!(" {}px", was + 40)), "it is let go");
}
