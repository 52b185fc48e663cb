//! Selecting runs in their grid.

use wasm_bindgen::JsCast;
use wasm_bindgen_test::wasm_bindgen_test;
use web_sys::HtmlElement;

use super::runs::Page;
use super::{press, until};
use crate::view::tests::settled;

#[wasm_bindgen_test]
async fn space_selects_one_and_shift_a_range_and_escape_none() {
    let page = Page::new(1_000).await;
    press(&page.grid, "ArrowDown");
    assert!(press(&page.grid, " "), "the page does not scroll by it");
    settled().await;
    assert_eq!((page.selected(), page.told().as_str()), (vec![1], "1 run selected"));
    let ticked = |at: u64| {
        let row = page.row(at).unwrap();
        row.query_selector("input").unwrap().unwrap().unchecked_into::<web_sys::HtmlInputElement>().checked()
    };
    assert!(ticked(1) && !ticked(0));
    press(&page.grid, " ");
    settled().await;
    assert_eq!((page.selected(), page.told().as_str()), (vec![], ""));

    // Without one that was selected before, a range begins where the keyboard is.
    for last in [2, 3, 4] {
        press(&page.grid, "Shift+ArrowDown");
        page.until_on(last, 2).await;
        assert_eq!(page.selected(), (1..=last).collect::<Vec<_>>());
    }
    press(&page.grid, "Shift+ArrowRight");
    settled().await;
    assert_eq!((page.selected(), page.told().as_str()), (vec![1, 2, 3, 4], "4 runs selected"));
    // Moving alone selects nothing, and takes nothing away.
    press(&page.grid, "ArrowDown");
    page.until_on(5, 3).await;
    assert_eq!(page.selected(), [1, 2, 3, 4]);
    press(&page.grid, "Escape");
    settled().await;
    assert_eq!((page.selected(), page.told().as_str()), (vec![], ""));
    assert!(
        page.desk.host.asked().iter().all(|line| !line.contains("/run-ids")),
        "what is held is not asked for"
    );
}

#[wasm_bindgen_test]
async fn a_range_beyond_what_is_held_is_the_hosts_to_tell() {
    let page = Page::new(1_000).await;
    press(&page.grid, "ArrowDown");
    press(&page.grid, " ");
    press(&page.grid, "Ctrl+Shift+End");
    until("the range is selected", || page.told() == "999 runs selected").await;
    let asked = page.desk.host.asked();
    let asked: Vec<_> = asked.iter().filter(|line| line.contains("/run-ids?")).collect();
    assert_eq!(asked.len(), 1);
    assert!(asked[0].contains("offset=999") && asked[0].contains("anchor=run-0001"), "{asked:?}");
    until("the end is read", || page.selected().contains(&999)).await;
    press(&page.grid, "Ctrl+Home");
    page.until_on(0, 0).await;
    page.until_all_in_sight().await;
    assert_eq!(page.selected().first(), Some(&1), "the one before the range is not of it");
}

#[wasm_bindgen_test]
async fn all_that_match_are_selected_whether_they_are_on_the_page_or_not() {
    let page = Page::new(1_000).await;
    assert!(press(&page.grid, "Ctrl+a"), "the browser does not mark the page's text");
    until("all are selected", || page.told() == "1,000 runs selected").await;
    assert_eq!(page.selected().len(), page.rows().len());
    page.grid.set_scroll_top(54 * 700);
    until("another part is drawn", || page.row(705).is_some()).await;
    page.until_all_in_sight().await;
    assert_eq!(page.selected().len(), page.rows().len());
    page.desk.find::<HtmlElement>("[data-testid=select-none]").click();
    settled().await;
    assert!(page.selected().is_empty());
    // A letter alone is no command.
    assert!(!press(&page.grid, "a"));
    settled().await;
    assert_eq!(page.told(), "");
}

#[wasm_bindgen_test]
async fn a_box_is_ticked_by_the_pointer_and_a_range_with_shift() {
    let page = Page::new(100).await;
    let click = |at: u64, shift: bool| {
        let tick = page.row(at).unwrap().query_selector("input").unwrap().unwrap();
        let init = web_sys::MouseEventInit::new();
        init.set_bubbles(true);
        init.set_cancelable(true);
        init.set_shift_key(shift);
        let event = web_sys::MouseEvent::new_with_mouse_event_init_dict("click", &init).unwrap();
        tick.dispatch_event(&event).unwrap();
    };
    click(4, true);
    settled().await;
    assert_eq!(page.selected(), [4], "no range has begun yet");
    click(2, true);
    settled().await;
    assert_eq!(page.selected(), [2, 3, 4]);
    click(3, false);
    settled().await;
    assert_eq!(page.selected(), [2, 4]);
    click(3, true);
    settled().await;
    assert_eq!(page.selected(), [2, 3, 4], "it begins at the one that was clicked last");
}
