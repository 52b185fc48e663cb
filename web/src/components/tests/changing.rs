//! What changes in the grid of the list of runs while it is looked at.

use wasm_bindgen::JsCast;
use wasm_bindgen_test::wasm_bindgen_test;
use web_sys::{Element, HtmlElement};

use super::runs::{Page, is, name_in};
use super::{happen, point, press, until};
use crate::view::tests::settled;

#[wasm_bindgen_test]
async fn a_change_is_shown_in_its_cell_and_marked_and_nothing_is_drawn_anew() {
    let page = Page::new(1_000).await;
    let row = page.row(3).unwrap();
    let (name, model) = (name_in(&row), row.query_selector(".c-model bdi").unwrap().unwrap());
    press(&page.grid, "ArrowDown");
    press(&page.grid, " ");
    for (round, mark) in ["odd", "even", "odd"].into_iter().enumerate() {
        let now = format!("renamed {round}");
        page.runs.lock().unwrap().change(3, |row| row.name.clone_from(&now));
        page.changed().await;
        until("the change is shown", || name.text_content().as_deref() == Some(&now)).await;
        let asked = page.last_asked();
        assert!(
            asked.contains(&format!("since={}", round + 1)),
            "only what has changed is asked for: {asked}"
        );
        assert!(row.is_connected() && name.is_connected() && model.is_connected());
        let marked = page.desk.all("[data-marked]");
        assert!(marked.len() == 1 && marked[0].is_same_node(Some(&row)));
        assert!(is(&row, "data-marked", mark), "a second change begins the mark anew");
        let tick = row.query_selector("input").unwrap().unwrap();
        assert!(is(&tick, "aria-label", &format!("Select {now}")));
    }
    page.runs.lock().unwrap().change(3, |row| row.run.lora_rank = Some(64));
    page.changed().await;
    until("the rank is shown", || {
        row.query_selector(".c-rank").unwrap().unwrap().text_content().unwrap() == "64"
    })
    .await;
    assert!(model.is_connected() && is(&row, "data-marked", "even"));
    assert_eq!(
        (page.selected(), page.active().as_deref()),
        (vec![1], Some("cell-1-2")),
        "all else is as it was"
    );
}

#[wasm_bindgen_test]
async fn nothing_moves_while_somebody_points_at_a_row() {
    let page = Page::new(1_000).await;
    let names =
        || page.rows().iter().take(3).map(|row| name_in(row).text_content().unwrap()).collect::<Vec<_>>();
    let turn = || {
        let mut runs = page.runs.lock().unwrap();
        let last = runs.rows.remove(2);
        runs.rows.insert(0, last);
        runs.revision += 1;
        runs.order = runs.revision.to_string();
    };
    let withheld = || page.desk.all("[data-testid=runs-withheld]");
    let body: Element = page.desk.find("[data-testid=runs-table]");
    point(&body, "pointerenter", 0.0);
    settled().await;
    turn();
    page.changed().await;
    until("it is said that there is another order", || withheld().len() == 1).await;
    assert_eq!(names(), ["name 0", "name 1", "name 2"]);
    withheld()[0].clone().unchecked_into::<HtmlElement>().click();
    until("the order is shown once it is asked for", || names() == ["name 2", "name 0", "name 1"]).await;
    assert!(withheld().is_empty());

    turn();
    page.changed().await;
    until("it is said again", || withheld().len() == 1).await;
    point(&body, "pointerleave", 0.0);
    until("the order is shown once nobody points", || names() == ["name 1", "name 2", "name 0"]).await;
    assert!(withheld().is_empty());

    turn();
    page.changed().await;
    until("it is shown at once while nobody points", || names() == ["name 0", "name 1", "name 2"]).await;
    // The keyboard on the grid is as good as a pointer.
    happen(&page.grid, "focus");
    settled().await;
    turn();
    page.changed().await;
    until("it is withheld from the keyboard too", || withheld().len() == 1).await;
    assert_eq!(names(), ["name 0", "name 1", "name 2"]);
}
