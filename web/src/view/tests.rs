//! The drawing of views, in a browser.

use std::cell::Cell;
use std::rc::Rc;

use wasm_bindgen::JsCast;
use wasm_bindgen_test::{wasm_bindgen_test, wasm_bindgen_test_configure};
use web_sys::{Element, HtmlElement, HtmlInputElement};

use super::draw::Drawn;
use crate::prelude::*;

wasm_bindgen_test_configure!(run_in_browser);

/// A place on the page with something drawn in it. Dropped, it is taken away.
pub(crate) struct Stage {
    pub(crate) root: Element,
    drawn: Option<Drawn>,
    owner: Owner,
}

impl Stage {
    pub(crate) fn new(draw: impl FnOnce() -> AnyView) -> Self {
        let _ = any_spawner::Executor::init_wasm_bindgen();
        let root = document().create_element("div").unwrap();
        document().body().unwrap().append_child(&root).unwrap();
        let end = document().create_comment("end");
        root.append_child(&end).unwrap();
        let owner = Owner::new();
        let drawn = owner.with(|| Drawn::before(draw(), &end));
        Self { root, drawn: Some(drawn), owner }
    }

    pub(crate) fn text(&self) -> String {
        self.root.text_content().unwrap()
    }

    pub(crate) fn find<T: JsCast>(&self, selector: &str) -> T {
        self.root.query_selector(selector).unwrap().expect(selector).unchecked_into()
    }

    fn remove(&mut self) {
        self.drawn.take().unwrap().remove();
        self.owner.cleanup();
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(drawn) = self.drawn.take() {
            drawn.remove();
        }
        self.owner.cleanup();
        self.root.remove();
    }
}

/// Whether the keyboard is on it.
pub(crate) fn is_focused(element: &Element) -> bool {
    document().active_element().is_some_and(|active| active.is_same_node(Some(element)))
}

/// Waits until what depends on signals has been drawn again.
pub(crate) async fn settled() {
    for _ in 0..5 {
        leptos::task::tick().await;
    }
}

#[wasm_bindgen_test]
async fn markup_is_drawn_with_its_holes_filled() {
    let (class, no_title, no_text) = ("a".to_owned(), None::<String>, None::<String>);
    let count = RwSignal::new(1_u64);
    let stage = Stage::new(|| {
        view! {
            <p class=class title=no_title hidden=false lang=Some("en")>
                "<b>&amp;</b> " {"<i>"} {count.signal()} {Some("x")} {no_text}
            </p>
            <ul>{vec![view! { <li>"1"</li> }, view! { <li>"2"</li> }]}</ul>
        }
    });
    let html = stage.root.inner_html();
    assert_eq!(
        html.replace("<!---->", "").replace("<!--end-->", ""),
        "<p class=\"a\" lang=\"en\">&lt;b&gt;&amp;amp;&lt;/b&gt; &lt;i&gt;1x</p><ul><li>1</li><li>2</li></ul>"
    );
    count.set(20);
    settled().await;
    assert!(stage.text().contains("<i>20x"), "{}", stage.text());
}

#[wasm_bindgen_test]
async fn attributes_classes_styles_and_properties_follow_signals() {
    let (on, word, name) =
        (RwSignal::new(false), RwSignal::new(Some("one")), RwSignal::new("first".to_owned()));
    let stage = Stage::new(|| {
        view! {
            <input
                class="fixed"
                class:busy=on.signal()
                disabled=on.signal()
                data-word=word.signal()
                style:--wide=name.signal()
                prop:value=name.signal()
                prop:checked=on.signal()
            />
        }
    });
    let input: HtmlInputElement = stage.find("input");
    let seen = || {
        let style = HtmlElement::style(&input).get_property_value("--wide").unwrap();
        (
            input.class_name(),
            input.disabled(),
            input.get_attribute("data-word"),
            style,
            input.value(),
            input.checked(),
        )
    };
    assert_eq!(seen(), ("fixed".into(), false, Some("one".into()), "first".into(), "first".into(), false));
    on.set(true);
    word.set(None);
    name.set("second".to_owned());
    settled().await;
    assert_eq!(seen(), ("fixed busy".into(), true, None, "second".into(), "second".into(), true));
}

#[wasm_bindgen_test]
async fn the_same_markup_is_updated_in_place() {
    let count = RwSignal::new(0_u64);
    let stage = Stage::new(|| {
        view! {
            <div>
                {move || {
                    let now = count.get();
                    let more = (now > 1).then(|| view! { <b>"more"</b> });
                    view! { <label>{now} <input title=now.to_string() /> {more}</label> }
                }}
            </div>
        }
    });
    let input: HtmlInputElement = stage.find("input");
    input.focus().unwrap();
    input.set_value("typed");
    count.set(2);
    settled().await;
    assert_eq!((input.title(), input.value()), ("2".into(), "typed".into()));
    assert!(input.is_connected() && is_focused(&input), "the focus stays");
    assert_eq!(stage.text(), "2more");
    count.set(1);
    settled().await;
    assert_eq!(stage.text(), "1");
}

#[wasm_bindgen_test]
async fn other_markup_takes_its_place_in_order() {
    let which = RwSignal::new(0_u64);
    let part = |name: &'static str, at: u64| {
        move || {
            if which.get() == at {
                view! { <i>{name}</i> }
            } else {
                ().into_any()
            }
        }
    };
    let stage = Stage::new(|| {
        vec![
            part("a", 0).into_any(),
            "-".into_any(),
            vec![part("b", 1).into_any(), part("c", 2).into_any()].into_any(),
            view! { "." },
        ]
        .into_any()
    });
    for (at, text) in [(0, "a-."), (2, "-c."), (1, "-b."), (0, "a-."), (7, "-.")] {
        which.set(at);
        settled().await;
        assert_eq!(stage.text(), text);
    }
}

#[wasm_bindgen_test]
async fn lists_without_keys_grow_and_shrink() {
    let items = RwSignal::new(vec!["a", "b"]);
    let stage = Stage::new(|| {
        let draw = move |name: &'static str| match name {
            "" => ().into_any(),
            name if name.len() > 1 => view! { <b>{name}</b> },
            name => view! { <i>{name}</i> },
        };
        view! { <p>{move || items.get().into_iter().map(draw).collect::<Vec<_>>()}</p> }
    });
    for list in [vec!["a", "b"], vec!["", "b", "cc"], vec!["dd", "", "e", "f"], vec![], vec!["", "", "g"]] {
        let text = list.concat();
        items.set(list);
        settled().await;
        assert_eq!(stage.text(), text);
    }
}

#[wasm_bindgen_test]
async fn parts_of_a_list_are_known_by_their_keys() {
    let keys = RwSignal::new(vec![1_u64, 2, 3]);
    let (drawn, gone) = (Rc::new(Cell::new(0)), RwSignal::new(Vec::<u64>::new()));
    let count = Rc::clone(&drawn);
    let stage = Stage::new(|| {
        each(
            move || keys.get(),
            move |key| {
                count.set(count.get() + 1);
                on_cleanup(move || gone.update(|gone| gone.push(key)));
                let twice = Memo::new(move |_| key * 2);
                view! { <button id=format!("k{key}")>{twice.signal()} ","</button> }
            },
        )
    });
    assert_eq!((stage.text().as_str(), drawn.get()), ("2,4,6,", 3));
    let two: HtmlElement = stage.find("#k2");
    two.focus().unwrap();
    keys.set(vec![2, 3, 4]);
    settled().await;
    assert_eq!((stage.text().as_str(), drawn.get(), gone.get()), ("4,6,8,", 4, vec![1]));
    assert!(is_focused(&two), "what stays is not touched");
    keys.set(vec![4, 1, 2, 3]);
    settled().await;
    assert_eq!((stage.text().as_str(), drawn.get()), ("8,2,4,6,", 5));
    keys.set(vec![]);
    settled().await;
    assert_eq!(stage.text(), "");
    let mut gone = gone.get();
    gone.sort_unstable();
    assert_eq!(gone, [1, 1, 2, 3, 4]);
}

#[wasm_bindgen_test]
async fn events_come_to_the_newest_handler_and_to_none_that_is_gone() {
    let (round, heard) = (RwSignal::new(1_u64), RwSignal::new(Vec::<String>::new()));
    let mut stage = Stage::new(|| {
        view! {
            {move || {
                let now = round.get();
                view! {
                    <button
                        on:click=move |_| heard.update(|heard| heard.push(format!("click {now}")))
                        on:blur=move |_| heard.update(|heard| heard.push(format!("blur {now}")))
                    >
                        "x"
                    </button>
                }
            }}
        }
    });
    let button: HtmlElement = stage.find("button");
    button.click();
    round.set(2);
    settled().await;
    button.click();
    assert_eq!(heard.get_untracked(), ["click 1", "click 2"]);
    button.focus().unwrap();
    // A browser tells a button that is removed that it has lost the focus.
    stage.remove();
    button.click();
    assert_eq!((stage.text(), stage.root.child_nodes().length()), (String::new(), 1));
}

#[wasm_bindgen_test]
async fn what_was_drawn_ends_with_the_part_that_it_was_drawn_in() {
    let (shown, value) = (RwSignal::new(true), RwSignal::new(1_u64));
    let runs = Rc::new(Cell::new(0));
    let count = Rc::clone(&runs);
    let stage = Stage::new(|| {
        view! {
            {move || {
                let count = Rc::clone(&count);
                shown.get().then(|| {
                    // A signal of this part: once it is drawn anew, whoever reads the old one would fail.
                    let own = RwSignal::new(value.get_untracked());
                    Effect::new(move |_| own.set(value.get()));
                    view! {
                        <p>
                            {move || {
                                count.set(count.get() + 1);
                                format!("{}/{}", own.get(), value.get())
                            }}
                        </p>
                    }
                })
            }}
        }
    });
    settled().await;
    value.set(2);
    settled().await;
    assert_eq!(stage.text(), "2/2");
    shown.set(false);
    value.set(3);
    settled().await;
    let before = runs.get();
    value.set(4);
    settled().await;
    assert_eq!((stage.text(), runs.get()), (String::new(), before), "it is asked no more");
    shown.set(true);
    settled().await;
    assert_eq!(stage.text(), "4/4");
}

#[wasm_bindgen_test]
fn drawings_are_drawings_wherever_they_stand() {
    let stage = Stage::new(|| {
        let lines: Vec<_> = ["M0 0", "M1 1"].map(|d| view! { <path d=d></path> }).into();
        view! { <svg viewBox="0 0 2 2">{lines} <g><use href="#a"></use></g></svg> }
    });
    for name in ["svg", "path", "g", "use"] {
        let element: Element = stage.find(name);
        assert!(element.namespace_uri().is_some_and(|uri| uri.ends_with("//www.w3.org/2000/svg")), "{name}");
    }
    assert_eq!(stage.root.query_selector_all("path").unwrap().length(), 2);
}

#[wasm_bindgen_test]
async fn an_element_is_known_once_it_is_drawn() {
    let node = NodeRef::<HtmlInputElement>::new();
    let told = RwSignal::new(None::<String>);
    let _stage = Stage::new(|| {
        Effect::new(move |_| told.set(node.get().map(|input| input.value())));
        view! { <input node_ref=node prop:value="here" /> }
    });
    settled().await;
    assert_eq!(told.get_untracked().as_deref(), Some("here"));
}

#[wasm_bindgen_test]
async fn an_element_of_a_part_that_is_gone_is_none() {
    let mut known = None;
    let mut stage = Stage::new(|| {
        let node = NodeRef::<HtmlInputElement>::new();
        known = Some(node);
        view! { <input node_ref=node /> }
    });
    let node = known.unwrap();
    assert!(node.get_untracked().is_some());
    stage.remove();
    assert!(node.get_untracked().is_none(), "a frame that was asked for before comes after it");
}
