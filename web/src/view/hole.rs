//! One place of a view's markup that is not static.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;

use leptos::prelude::{Owner, RenderEffect, document};
use wasm_bindgen::prelude::Closure;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{DocumentFragment, Element, Event, HtmlElement, HtmlTemplateElement, Node};

use super::draw::Drawn;
use super::value::{Given, Handler, Value};

/// Static markup, and where something goes into it.
pub(crate) struct Template {
    pub(crate) html: &'static str,
    /// Its elements are those of a drawing.
    pub(crate) is_svg: bool,
    /// Each by how many elements and comments come before it, in the order of the document.
    pub(crate) holes: &'static [(u16, Hole)],
}

/// What a hole is.
pub(crate) enum Hole {
    Attribute(&'static str),
    Class(&'static str),
    Style(&'static str),
    Property(&'static str),
    On(&'static str),
    Node,
    Child,
}

thread_local! {
    /// What the browser has made of the templates. Never more than there are `view!`s.
    static PARSED: RefCell<Vec<(&'static Template, DocumentFragment)>> = const { RefCell::new(Vec::new()) };
}

impl Template {
    /// The markup, not yet on the page, and the node of each hole.
    pub(super) fn copy(&'static self) -> Result<(DocumentFragment, Vec<Node>), JsValue> {
        let kept = PARSED.with_borrow(|parsed| {
            parsed.iter().find(|(of, _)| std::ptr::eq(*of, self)).map(|(_, parsed)| parsed.clone())
        });
        let kept = match kept {
            Some(kept) => kept,
            None => {
                let parsed = self.parse()?;
                PARSED.with_borrow_mut(|all| all.push((self, parsed.clone())));
                parsed
            }
        };
        let copy: DocumentFragment = document().import_node_with_deep(&kept, true)?.unchecked_into();
        // Elements and comments: NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_COMMENT.
        let walker = document().create_tree_walker_with_what_to_show(&copy, 0x81)?;
        let mut nodes = Vec::with_capacity(self.holes.len());
        let mut seen = None;
        for (at, _) in self.holes {
            while seen.is_none_or(|seen| seen < *at) {
                walker.next_node()?;
                seen = Some(seen.map_or(0, |seen| seen + 1));
            }
            nodes.push(walker.current_node());
        }
        Ok((copy, nodes))
    }

    fn parse(&self) -> Result<DocumentFragment, JsValue> {
        let template: HtmlTemplateElement = document().create_element("template")?.unchecked_into();
        if !self.is_svg {
            template.set_inner_html(self.html);
            return Ok(template.content());
        }
        template.set_inner_html(&format!("<svg>{}</svg>", self.html));
        let content = template.content();
        if let Some(svg) = content.first_child() {
            while let Some(child) = svg.first_child() {
                content.append_child(&child)?;
            }
            content.remove_child(&svg)?;
        }
        Ok(content)
    }
}

/// A hole with what is in it.
pub(super) struct Filled {
    node: Node,
    content: Content,
}

enum Content {
    Given { last: Rc<RefCell<Option<Given>>>, effect: Option<RenderEffect<()>> },
    Handler(Rc<RefCell<Option<Handler>>>, Closure<dyn Fn(Event)>),
    Child(Drawn),
    Node,
}

impl Filled {
    /// Fills a hole.
    pub(super) fn new(hole: &'static Hole, node: Node, value: Value) -> Self {
        let content = fill(hole, &node, Rc::default(), value);
        Self { node, content }
    }

    /// Fills it with something else.
    pub(super) fn update(self, hole: &'static Hole, value: Value) -> Self {
        let Self { node, content } = self;
        let content = match (content, value) {
            (Content::Handler(act, closure), Value::Handler(handler)) => {
                act.replace(Some(owned(handler)));
                Content::Handler(act, closure)
            }
            (Content::Child(drawn), Value::Child(view)) => Content::Child(drawn.update(view, &node, true)),
            (Content::Given { last, effect }, value) => {
                drop(effect);
                fill(hole, &node, last, value)
            }
            (_, value) => fill(hole, &node, Rc::default(), value),
        };
        Self { node, content }
    }

    /// Lets no event come to it any more.
    pub(super) fn silence(&self) {
        match &self.content {
            Content::Handler(act, _) => drop(act.take()),
            Content::Child(drawn) => drawn.silence(),
            _ => {}
        }
    }

    /// What is drawn in it.
    pub(super) fn child(&self) -> Option<&Drawn> {
        match &self.content {
            Content::Child(drawn) => Some(drawn),
            _ => None,
        }
    }
}

/// `last` is what was written there before.
fn fill(hole: &'static Hole, node: &Node, last: Rc<RefCell<Option<Given>>>, value: Value) -> Content {
    match value {
        Value::Given(given) => {
            put(hole, node, &last, given);
            Content::Given { last, effect: None }
        }
        Value::Changing(read) => {
            let (node, seen) = (node.clone(), Rc::clone(&last));
            let effect = RenderEffect::new(move |_| put(hole, &node, &seen, read.read()));
            Content::Given { last, effect: Some(effect) }
        }
        Value::Handler(handler) => listen(hole, node, handler),
        Value::Child(view) => Content::Child(Drawn::in_hole(view, node)),
        Value::Node(signal) => {
            signal.set(node.dyn_ref::<Element>().cloned().map(send_wrapper::SendWrapper::new));
            Content::Node
        }
    }
}

/// Writes what is given into the page, unless it is there already.
fn put(hole: &Hole, node: &Node, last: &RefCell<Option<Given>>, given: Given) {
    if last.borrow().as_ref() == Some(&given) {
        return;
    }
    let _ = write(hole, node.unchecked_ref(), &given);
    last.replace(Some(given));
}

fn write(hole: &Hole, element: &HtmlElement, given: &Given) -> Result<(), JsValue> {
    let text = match given {
        Given::Nothing | Given::Flag(false) => None,
        Given::Flag(true) => Some(&Cow::Borrowed("")),
        Given::Text(text) => Some(text),
    };
    match (hole, text) {
        (Hole::Attribute(name), Some(text)) => element.set_attribute(name, text),
        (Hole::Attribute(name), None) => element.remove_attribute(name),
        (Hole::Class(name), text) => element.class_list().toggle_with_force(name, text.is_some()).map(drop),
        (Hole::Style(name), Some(text)) => element.style().set_property(name, text),
        (Hole::Style(name), None) => element.style().remove_property(name).map(drop),
        (Hole::Property(name), text) => {
            let value = match given {
                Given::Flag(flag) => JsValue::from_bool(*flag),
                _ => text.map_or(JsValue::NULL, |text| JsValue::from_str(text)),
            };
            js_sys::Reflect::set(element, &JsValue::from_str(name), &value).map(drop)
        }
        (Hole::On(_) | Hole::Node | Hole::Child, _) => Ok(()),
    }
}

fn listen(hole: &Hole, node: &Node, handler: Handler) -> Content {
    let act = Rc::new(RefCell::new(Some(owned(handler))));
    let now = Rc::clone(&act);
    // Taken out before it is called: it may have the page drawn, and so itself replaced.
    let closure = Closure::<dyn Fn(Event)>::new(move |event| {
        let handler = now.borrow().clone();
        if let Some(handler) = handler {
            handler.handle(event);
        }
    });
    if let Hole::On(event) = hole {
        let _ = node.add_event_listener_with_callback(event, closure.as_ref().unchecked_ref());
    }
    Content::Handler(act, closure)
}

/// What is done at an event belongs to the part of the page that it was written for.
fn owned(handler: Handler) -> Handler {
    let owner = Owner::current();
    Rc::new(move |event: Event| match &owner {
        Some(owner) => owner.with(|| handler.handle(event)),
        None => handler.handle(event),
    })
}
