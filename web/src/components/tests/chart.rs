//! Curves, looked into by keyboard and by pointer.

use retinker::host::run::RunMetrics;
use retinker_console::curves::drawing::{LEFT, RIGHT};
use retinker_console::curves::series::Series;
use wasm_bindgen_test::wasm_bindgen_test;
use web_sys::{Element, HtmlElement, HtmlInputElement, HtmlSelectElement};

use super::{Styled, all_in, choose, happen, point, press, stage, until, write};
use crate::browser;
use crate::components::curves::{Curves, Look, panel};
use crate::prelude::*;
use crate::view::tests::{Stage, settled};

/// A run of these steps, whose loss for each token is a hundredth of the step, and of the whole batch the step. It has no
/// gradient.
fn series(id: &str, steps: impl IntoIterator<Item = u64>) -> Series {
    let steps: Vec<u64> = steps.into_iter().collect();
    let numbers = |of: fn(u64) -> f64| steps.iter().map(|step| Some(of(*step))).collect();
    let mut series = Series::new(id.to_owned());
    series.add(&RunMetrics {
        offered: true,
        times: steps.iter().map(|step| 1_767_225_600_000 + *step as i64).collect(),
        loss: numbers(|step| step as f64),
        loss_per_token: numbers(|step| step as f64 / 100.0),
        learning_rate: numbers(|_| 0.001),
        grad_norm: vec![None; steps.len()],
        steps: steps.clone(),
        next_after: None,
    });
    series
}

/// A hundred steps, of which ten are missing.
fn with_a_gap() -> Series {
    series("a", (1..=50).chain(61..=100))
}

/// The place of a step in a chart of this width that shows these, from its left edge.
fn place(step: f64, (low, high): (f64, f64), width: f64) -> f64 {
    LEFT + (step - low) / (high - low) * (width - RIGHT - LEFT)
}

/// The panel of these runs' curves.
struct Panel {
    stage: Stage,
    look: Look,
    curves: Curves,
    _styled: Styled,
}

impl Panel {
    /// Once it is as wide as it is going to be.
    async fn new(all: Vec<Series>) -> Self {
        let styled = Styled::new();
        let mut known = None;
        let stage = stage(|_| {
            let names = all.iter().map(|series| format!("run {}", series.run_id)).collect();
            let curves = Curves {
                all: RwSignal::new(all),
                offered: RwSignal::new(Some(true)),
                whole: RwSignal::new(true),
                problem: RwSignal::default(),
            };
            let look = Look::new(Memo::new(move |_| curves.all.get()), Signal::stored(names));
            known = Some((look, curves));
            panel(curves, look, ().into_any())
        });
        let (look, curves) = known.unwrap();
        let panel = Self { stage, look, curves, _styled: styled };
        if !panel.curves.all.with_untracked(Vec::is_empty) {
            until("it is drawn as wide as there is room", || {
                let drawing = panel.plot().query_selector("svg").unwrap();
                let seen = drawing.and_then(|drawing| drawing.get_attribute("viewBox"));
                seen.is_some_and(|seen| seen.starts_with(&format!("0 0 {} ", panel.width())))
            })
            .await;
        }
        panel
    }

    /// The chart of the loss.
    fn plot(&self) -> Element {
        self.stage.find("#chart-main")
    }

    fn width(&self) -> f64 {
        browser::width_of("chart-main").unwrap()
    }

    /// Has the pointer do something at a step of a chart that shows all.
    fn point(&self, kind: &str, step: f64) {
        let left = browser::left_of("chart-main").unwrap();
        point(&self.plot(), kind, left + place(step, (1.0, 100.0), self.width()));
    }

    async fn press(&self, keys: &str) {
        assert!(press(&self.plot(), keys), "the page does not scroll or zoom by {keys} as well");
        settled().await;
    }

    fn readout(&self) -> String {
        self.stage.find::<Element>("[data-testid=curves-readout]").text_content().unwrap()
    }

    /// What the chart of the loss is for those who do not see it.
    fn label(&self) -> String {
        self.plot().get_attribute("aria-label").unwrap()
    }

    fn shows(&self, steps: &str) -> bool {
        self.label().contains(&format!(", steps {steps}, from "))
    }

    /// The step that is read, by the numbers that are told of it and the line in each chart.
    fn read(&self) -> Option<u64> {
        let step = self.look.at.get_untracked();
        let lines = all_in(&self.stage.root, ".crosshair");
        let Some(step) = step else {
            assert!(lines.is_empty());
            return None;
        };
        assert!(self.readout().starts_with(&format!("step {step} · loss ")), "{}", self.readout());
        assert_eq!(lines.len(), 2, "one in each chart that has something drawn");
        let part = self.look.part.get_untracked().unwrap_or((1.0, 100.0));
        for line in lines {
            let at: f64 = line.get_attribute("x1").unwrap().parse().unwrap();
            let width = line.closest(".plot").unwrap().unwrap().client_width();
            assert!(
                (at - place(step as f64, part, width.into())).abs() <= 1.0,
                "{at} at step {step} of {width}"
            );
        }
        Some(step)
    }
}

#[wasm_bindgen_test]
async fn keys_go_from_step_to_step_and_read_it() {
    let panel = Panel::new(vec![with_a_gap()]).await;
    let live =
        || panel.stage.find::<Element>("[data-testid=curves-readout]").get_attribute("aria-live").unwrap();
    assert_eq!((panel.read(), live().as_str()), (None, "off"));
    assert!(panel.readout().starts_with("step 100 · "), "of no step it tells the last");
    for (keys, step) in [
        ("ArrowLeft", 50),
        ("ArrowRight", 61),
        ("ArrowRight", 62),
        ("ArrowLeft", 61),
        ("ArrowLeft", 50),
        ("Shift+ArrowLeft", 46),
        ("Shift+ArrowRight", 50),
        ("Home", 1),
        ("ArrowLeft", 1),
        ("End", 100),
        ("ArrowRight", 100),
    ] {
        panel.press(keys).await;
        assert_eq!(panel.read(), Some(step), "{keys}");
        assert_eq!(live(), "polite", "it is read aloud once it is asked for");
    }
    assert_eq!(panel.readout(), "step 100 · loss 1 · learning rate 0.001 · gradient –");
    panel.press("Escape").await;
    assert_eq!((panel.read(), live().as_str()), (None, "off"));
    // The small charts take the same keys.
    assert!(press(&panel.stage.find("#learning_rate"), "Home"));
    settled().await;
    assert_eq!(panel.read(), Some(1));
}

#[wasm_bindgen_test]
async fn keys_zoom_around_what_is_read_and_back() {
    let panel = Panel::new(vec![with_a_gap()]).await;
    let all = || panel.stage.root.query_selector("[data-testid=curves-all]").unwrap();
    assert!(panel.label().starts_with("Loss per token of 1 run, steps 1 to 100, from −0.0296 to 1.0396."));
    assert!(all().is_none());
    panel.press("ArrowLeft").await;
    panel.press("+").await;
    assert!(panel.shows("26 to 75"), "{}", panel.label());
    assert_eq!(panel.read(), Some(50));
    assert!(all().is_some());
    panel.press("-").await;
    assert!(panel.shows("1 to 100") && all().is_none());
    for _ in 0..9 {
        panel.press("=").await;
    }
    assert!(panel.shows("50 to 51"), "two steps wide and no less: {}", panel.label());
    assert_eq!(panel.read(), Some(50));
    // What is read stays in sight.
    panel.press("ArrowRight").await;
    assert_eq!(panel.read(), Some(61));
    assert!(panel.shows("60 to 62"), "{}", panel.label());
    panel.press("End").await;
    assert_eq!(panel.read(), Some(62), "the last in sight");
    panel.press("Home").await;
    assert_eq!(panel.read(), Some(61), "the first in sight that there is");
    panel.press("0").await;
    assert!(panel.shows("1 to 100"));
    panel.press("+").await;
    assert!(!panel.shows("1 to 100"));
    panel.stage.find::<HtmlElement>("[data-testid=curves-all]").click();
    settled().await;
    assert!(panel.shows("1 to 100"));
}

#[wasm_bindgen_test]
async fn keys_of_the_browser_are_left_to_it() {
    let panel = Panel::new(vec![with_a_gap()]).await;
    for keys in ["Ctrl+=", "Ctrl+-", "Ctrl+0", "Meta+ArrowLeft", "Tab", "ArrowDown", "x"] {
        assert!(!press(&panel.plot(), keys), "{keys}");
    }
    settled().await;
    assert!(panel.read().is_none() && panel.shows("1 to 100"));
}

#[wasm_bindgen_test]
async fn the_pointer_reads_the_nearest_step() {
    let panel = Panel::new(vec![with_a_gap()]).await;
    for (at, step) in [(20.0, 20), (20.3, 20), (54.0, 50), (57.0, 61), (-30.0, 1), (130.0, 100)] {
        panel.point("pointermove", at);
        settled().await;
        assert_eq!(panel.read(), Some(step), "{at}");
    }
    happen(&panel.plot(), "pointerleave");
    settled().await;
    assert_eq!(panel.read(), None);
}

#[wasm_bindgen_test]
async fn dragging_marks_a_part_and_shows_it() {
    let panel = Panel::new(vec![with_a_gap()]).await;
    let marked = || all_in(&panel.stage.root, "rect.marked");
    for (from, to) in [(19.5, 40.5), (40.5, 19.5)] {
        panel.point("pointerdown", from);
        panel.point("pointermove", to);
        settled().await;
        assert_eq!(marked().len(), 2, "in each chart");
        let number = |name: &str| marked()[0].get_attribute(name).unwrap().parse::<f64>().unwrap();
        let (left, right) =
            (place(19.5, (1.0, 100.0), panel.width()), place(40.5, (1.0, 100.0), panel.width()));
        assert!((number("x") - left).abs() <= 2.0 && (number("x") + number("width") - right).abs() <= 2.0);
        panel.point("pointerup", to);
        settled().await;
        assert!(marked().is_empty() && panel.shows("20 to 40"), "{}", panel.label());
        happen(&panel.plot(), "dblclick");
        settled().await;
        assert!(panel.shows("1 to 100"));
    }
    // A click is no drag, and one that leaves the chart is given up.
    panel.point("pointerdown", 30.0);
    panel.point("pointermove", 30.4);
    panel.point("pointerup", 30.4);
    panel.point("pointerdown", 30.0);
    panel.point("pointermove", 70.0);
    happen(&panel.plot(), "pointerleave");
    panel.point("pointermove", 80.0);
    panel.point("pointerup", 80.0);
    settled().await;
    assert!(marked().is_empty() && panel.shows("1 to 100"));
}

#[wasm_bindgen_test]
async fn several_runs_are_read_at_once_each_by_its_name() {
    let panel = Panel::new(vec![series("a", 1..=50), series("b", 40..=100)]).await;
    let lines = || {
        let lines = all_in(&panel.stage.root, "[data-testid=curves-readout] li");
        lines.iter().map(|line| line.text_content().unwrap()).collect::<Vec<_>>()
    };
    assert!(panel.label().contains(" of 2 runs, steps 1 to 100,"));
    assert!(
        lines()[0].starts_with("run astep 50 · ") && lines()[1].starts_with("run bstep 100 · "),
        "{:?}",
        lines()
    );
    panel.press("Home").await;
    assert!(lines()[0].starts_with("run astep 1 · loss 0.01 "));
    assert_eq!(lines()[1], "run bno step 1");
    // Where one has ended the other goes on.
    panel.look.at.set(Some(50));
    panel.press("ArrowRight").await;
    assert_eq!(lines()[0], "run ano step 51");
    assert!(lines()[1].starts_with("run bstep 51 · "));
    for line in 0..2 {
        let paths = all_in(&panel.plot(), &format!("path[data-line='{line}']:not([d=''])"));
        assert_eq!(paths.len(), 1, "each has its line");
    }
}

#[wasm_bindgen_test]
async fn smoothing_logarithm_and_another_loss_change_what_is_drawn_and_told() {
    let panel = Panel::new(vec![with_a_gap()]).await;
    let drawn = || all_in(&panel.plot(), "path:not([d=''])").len();
    assert_eq!(drawn(), 1);
    let slider: HtmlInputElement = panel.stage.find("[data-testid=curves-smoothing]");
    assert_eq!(slider.get_attribute("aria-valuetext").as_deref(), Some("off"));
    write(&slider, "90");
    settled().await;
    assert_eq!(slider.get_attribute("aria-valuetext").as_deref(), Some("0.90"));
    assert_eq!(drawn(), 2, "the smoothed line beside the other");
    assert!(panel.readout().contains("loss 1 (smoothed 0."), "{}", panel.readout());
    write(&slider, "0");
    settled().await;
    assert!(drawn() == 1 && !panel.readout().contains("smoothed"));

    panel.stage.find::<HtmlElement>("[data-testid=curves-log]").click();
    settled().await;
    assert!(panel.label().contains("from 0.00") && !panel.label().contains('−'), "{}", panel.label());
    choose(&panel.stage.find::<HtmlSelectElement>("[data-testid=curves-loss]"), "loss");
    settled().await;
    assert!(panel.label().starts_with("Loss of the batch of 1 run, "), "{}", panel.label());
    assert!(panel.readout().starts_with("step 100 · loss 100 · "));
    assert_eq!(
        panel.stage.find::<Element>(".chart-tall").get_attribute("data-metric").as_deref(),
        Some("loss")
    );
}

#[wasm_bindgen_test]
async fn the_numbers_behind_the_curves_are_those_in_sight() {
    let panel = Panel::new(vec![series("a", 1..=250)]).await;
    let caption = || panel.stage.find::<Element>("caption").text_content().unwrap();
    let steps = || {
        let heads = all_in(&panel.stage.root, "tbody th");
        let text = |head: Option<&Element>| head.unwrap().text_content().unwrap();
        (heads.len(), text(heads.first()), text(heads.last()))
    };
    assert!(
        panel.stage.root.query_selector("table").unwrap().is_none(),
        "nothing is drawn before it is opened"
    );
    panel.stage.find::<HtmlElement>(".values summary").click();
    until("the table is there", || panel.stage.root.query_selector("table").unwrap().is_some()).await;
    assert!(caption().ends_with(": the last 100 of 250 steps; zoom in for others"), "{}", caption());
    assert_eq!(steps(), (100, "151".to_owned(), "250".to_owned()));
    panel.look.part.set(Some((10.5, 20.0)));
    settled().await;
    assert!(caption().ends_with(": 10 steps"), "{}", caption());
    assert_eq!(steps(), (10, "11".to_owned(), "20".to_owned()));
    let cell: Element = panel.stage.find("tbody tr:first-child [data-metric=loss_per_token]");
    assert_eq!(
        (cell.text_content().unwrap(), cell.get_attribute("title").unwrap()),
        ("0.11".into(), "0.11".into())
    );
}

#[wasm_bindgen_test]
async fn what_cannot_be_drawn_is_said_and_takes_no_keys() {
    let panel = Panel::new(vec![with_a_gap()]).await;
    let gradient: Element = panel.stage.find("#grad_norm");
    assert_eq!(gradient.text_content().as_deref(), Some("There are no numbers to draw here."));

    let panel = Panel::new(Vec::new()).await;
    let said = || panel.stage.find::<Element>("[data-testid=curves-instead]").text_content().unwrap();
    assert!(said().starts_with("No optimizer step has been taken yet"));
    panel.curves.whole.set(false);
    settled().await;
    assert_eq!(said(), "Reading the curves…");
    panel.curves.all.set(vec![with_a_gap()]);
    settled().await;
    assert_eq!(said(), "");
    panel.plot();
    panel.curves.offered.set(Some(false));
    settled().await;
    assert!(panel.stage.find::<Element>("[data-testid=curves]").has_attribute("hidden"));
}

#[wasm_bindgen_test]
async fn the_pointer_reads_the_right_step_of_a_picture_that_is_drawn_smaller() {
    let panel = Panel::new(vec![series("a", 1..=1000)]).await;
    let was = panel.width();
    panel.stage.root.set_attribute("style", &format!("width: {}px", was - 40.0)).unwrap();
    settled().await;
    let left = browser::left_of("chart-main").unwrap();
    let x = left + panel.width() / was * place(900.0, (1.0, 1000.0), was);
    point(&panel.plot(), "pointermove", x);
    settled().await;
    let read = panel.look.at.get_untracked().unwrap();
    assert!(read.abs_diff(900) <= 1, "{read}");
}
