//! Which checkpoint a run is restored from, and with what.

use retinker::host::api::CheckpointRow;
use retinker::recovery::plan::{MetricMode, Strategy};
use wasm_bindgen_test::wasm_bindgen_test;
use web_sys::{Element, HtmlInputElement, HtmlSelectElement};

use super::{all_in, choose, happen, stage};
use crate::components::picker::{Choice, checkpoint_picker};
use crate::prelude::*;
use crate::view::tests::{Stage, settled};

/// A run's checkpoints, newest first; some of them cannot be used.
fn checkpoints(all: &[(&str, bool)]) -> Vec<CheckpointRow> {
    let row = |(name, usable): &(&str, bool)| {
        serde_json::from_value(serde_json::json!({
            "checkpoint": {
                "checkpoint_id": format!("weights/{name}"), "checkpoint_type": "training",
                "time": "2026-01-02T03:04:05Z", "tinker_path": path_of(name),
            },
            "unusable_because": (!usable).then_some("It is damaged."),
        }))
        .unwrap()
    };
    all.iter().map(row).collect()
}

fn path_of(name: &str) -> String {
    format!("tinker://a:train:0/weights/{name}")
}

/// The picker, and what it is about.
struct Picker {
    stage: Stage,
    choice: RwSignal<Choice>,
    planned: RwSignal<String>,
    locked: RwSignal<bool>,
}

impl Picker {
    fn new(all: &[(&str, bool)]) -> Self {
        let (choice, planned, locked) =
            (RwSignal::new(Choice::usual()), RwSignal::new(String::new()), RwSignal::new(false));
        let stage = stage(|_| checkpoint_picker(checkpoints(all), planned.signal(), choice, locked));
        Self { stage, choice, planned, locked }
    }

    fn radios(&self) -> Vec<HtmlInputElement> {
        use wasm_bindgen::JsCast;
        let radios = all_in(&self.stage.root, "input[type=radio]");
        radios.into_iter().map(JsCast::unchecked_into).collect()
    }

    /// The names of the checkpoints that are ticked.
    fn ticked(&self) -> Vec<String> {
        let ticked = self.radios().into_iter().filter(HtmlInputElement::checked);
        ticked.map(|radio| radio.value().rsplit_once('/').unwrap().1.to_owned()).collect()
    }

    fn rule(&self) -> HtmlSelectElement {
        self.stage.find("[data-testid=plan-strategy]")
    }

    fn strategy(&self) -> (Strategy, u32) {
        self.choice.with_untracked(|choice| (choice.strategy.clone(), choice.step_back))
    }

    fn label(&self) -> Option<Element> {
        self.stage.root.query_selector("[data-testid=plan-label]").unwrap()
    }
}

const THREE: [(&str, bool); 4] = [("0004", true), ("0003", false), ("0002", true), ("0001", true)];

#[wasm_bindgen_test]
async fn checkpoints_that_can_be_used_are_offered_and_the_planned_one_is_ticked() {
    let picker = Picker::new(&THREE);
    let values: Vec<_> = picker.radios().iter().map(HtmlInputElement::value).collect();
    assert_eq!(values, ["0004", "0002", "0001"].map(path_of));
    assert!(picker.ticked().is_empty(), "nothing is planned yet");
    let newest: Vec<_> = all_in(&picker.stage.root, ".option")
        .iter()
        .filter(|option| option.query_selector(".chip").unwrap().is_some())
        .map(|option| option.text_content().unwrap().contains("0004"))
        .collect();
    assert_eq!(newest, [true], "the newest that can be used, and it alone, is called so");
    for name in ["0004", "0001"] {
        picker.planned.set(path_of(name));
        settled().await;
        assert_eq!(picker.ticked(), [name]);
    }
}

#[wasm_bindgen_test]
async fn choosing_a_checkpoint_is_a_rule_of_its_own() {
    let picker = Picker::new(&THREE);
    picker.planned.set(path_of("0004"));
    settled().await;
    assert_eq!((picker.rule().value().as_str(), picker.strategy()), ("0", (Strategy::LatestValid, 0)));
    choose(&picker.rule(), "2");
    settled().await;
    assert_eq!(picker.strategy(), (Strategy::LatestValid, 2));
    picker.radios()[1].click();
    settled().await;
    assert_eq!(picker.strategy(), (Strategy::Specific { path: path_of("0002") }, 0));
    assert_eq!(picker.rule().value(), "", "the list says that it is this one, and no rule");
    choose(&picker.rule(), "1");
    settled().await;
    assert_eq!((picker.rule().value().as_str(), picker.strategy()), ("1", (Strategy::LatestValid, 1)));
    // A plan that steps further back than the list offers is shown as the furthest.
    picker.choice.update(|choice| choice.step_back = 7);
    settled().await;
    assert_eq!(picker.rule().value(), "3");
}

#[wasm_bindgen_test]
async fn the_best_by_a_label_asks_which_label() {
    let picker = Picker::new(&THREE);
    assert!(picker.label().is_none());
    choose(&picker.rule(), "min");
    settled().await;
    let best = |metric: &str, mode| (Strategy::Best { metric: metric.to_owned(), mode }, 0);
    assert_eq!(picker.strategy(), best("loss", MetricMode::Min));
    let label: HtmlInputElement = picker.stage.find("[data-testid=plan-label]");
    assert_eq!(label.value(), "loss");
    label.set_value("reward");
    happen(&label, "change");
    settled().await;
    assert_eq!(picker.strategy(), best("reward", MetricMode::Min));
    assert!(label.is_connected(), "the field stays while it is written in");
    choose(&picker.rule(), "max");
    settled().await;
    assert_eq!(picker.strategy(), best("reward", MetricMode::Max), "the label is remembered");
    assert_eq!(picker.rule().value(), "max");
    choose(&picker.rule(), "0");
    settled().await;
    assert!(picker.label().is_none());
    choose(&picker.rule(), "min");
    settled().await;
    assert_eq!(picker.strategy(), best("reward", MetricMode::Min));
    assert_eq!(picker.stage.find::<HtmlInputElement>("[data-testid=plan-label]").value(), "reward");
}

#[wasm_bindgen_test]
async fn the_optimizer_is_left_out_with_its_consequence_told() {
    let picker = Picker::new(&THREE);
    let (with, check): (HtmlInputElement, HtmlInputElement) = (
        picker.stage.find("[data-testid=optimizer-toggle]"),
        picker.stage.find("[data-testid=check-optimizer]"),
    );
    let told = picker.stage.find::<Element>("#optimizer-consequence");
    assert_eq!(
        with.get_attribute("aria-describedby"),
        Some(told.id()),
        "who hears the box hears what it means"
    );
    let seen = || {
        let chosen = picker.choice.with_untracked(|choice| (choice.optimizer, choice.check_optimizer));
        (chosen, with.checked(), check.checked(), check.disabled())
    };
    assert_eq!(seen(), ((true, false), true, false, false));
    check.click();
    settled().await;
    assert_eq!(seen(), ((true, true), true, true, false));
    assert!(!told.text_content().unwrap().contains("cold"));
    with.click();
    settled().await;
    assert_eq!(seen(), ((false, false), false, false, true), "what is not loaded cannot be looked at");
    assert!(told.text_content().unwrap().contains("cold"));
    with.click();
    settled().await;
    assert_eq!(seen(), ((true, false), true, false, false));
}

#[wasm_bindgen_test]
async fn nothing_can_be_chosen_while_a_plan_is_carried_out() {
    let picker = Picker::new(&THREE);
    let free = || all_in(&picker.stage.root, "fieldset :is(input, select):not([disabled])").len();
    assert_eq!(free(), 6);
    picker.locked.set(true);
    settled().await;
    assert_eq!(free(), 0);
    picker.locked.set(false);
    settled().await;
    assert_eq!(free(), 6);
}

#[wasm_bindgen_test]
fn where_there_is_one_there_is_nothing_to_choose() {
    let picker = Picker::new(&[("0002", false), ("0001", true)]);
    assert!(picker.radios().is_empty());
    assert!(picker.stage.root.query_selector("select").unwrap().is_none());
    assert!(picker.stage.root.query_selector("[data-testid=optimizer-toggle]").unwrap().is_some());
}
