//! Lists whose parts stay what they are while others come and go.

use std::cell::RefCell;
use std::rc::Rc;

use leptos::prelude::{Owner, RenderEffect, untrack};
use web_sys::Node;

use super::AnyView;
use super::draw::{Drawn, Place, insert};

/// What a part is known by.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Key {
    Number(u64),
    Text(String),
}

/// What can be a key.
pub(crate) trait Keyed: Sized {
    fn key(self) -> Key;
    fn of(key: Key) -> Option<Self>;
}

impl Keyed for u64 {
    fn key(self) -> Key {
        Key::Number(self)
    }

    fn of(key: Key) -> Option<Self> {
        match key {
            Key::Number(number) => Some(number),
            Key::Text(_) => None,
        }
    }
}

impl Keyed for String {
    fn key(self) -> Key {
        Key::Text(self)
    }

    fn of(key: Key) -> Option<Self> {
        match key {
            Key::Text(text) => Some(text),
            Key::Number(_) => None,
        }
    }
}

/// A list, in the order of its keys.
pub(crate) struct Each {
    keys: Box<dyn Fn() -> Vec<Key>>,
    draw: Box<dyn Fn(Key) -> AnyView>,
    owner: Option<Owner>,
}

/// One part for each key. A part is drawn once, and moved or taken away with its key.
pub(crate) fn each<K: Keyed, I: IntoIterator<Item = K>>(
    keys: impl Fn() -> I + 'static,
    draw: impl Fn(K) -> AnyView + 'static,
) -> AnyView {
    AnyView::Each(Each {
        keys: Box::new(move || keys().into_iter().map(K::key).collect()),
        draw: Box::new(move |key| K::of(key).map_or(AnyView::Nothing, &draw)),
        owner: Owner::current(),
    })
}

struct Item {
    key: Key,
    // Dropped before its owner: what is drawn must not outlive what it reads.
    drawn: Drawn,
    owner: Option<Owner>,
}

impl Item {
    fn remove(self) {
        self.drawn.remove();
        if let Some(owner) = self.owner {
            owner.cleanup();
        }
    }
}

/// A list on the page.
pub(super) struct DrawnEach {
    place: Place,
    items: Rc<RefCell<Vec<Item>>>,
    effect: Option<RenderEffect<()>>,
}

impl DrawnEach {
    pub(super) fn begin(each: Each, place: Place) -> Self {
        let items = Rc::new(RefCell::new(Vec::new()));
        let (drawn, end) = (Rc::clone(&items), place.end.clone());
        let effect = RenderEffect::new(move |_| {
            let keys = (each.keys)();
            let before = drawn.take();
            let now = untrack(|| arrange(before, keys, &end, &each));
            drawn.replace(now);
        });
        Self { place, items, effect: Some(effect) }
    }

    pub(super) fn nodes(&self, into: &mut Vec<Node>) {
        self.items.borrow().iter().for_each(|item| item.drawn.nodes(into));
        self.place.nodes(into);
    }

    pub(super) fn silence(&self) {
        self.items.borrow().iter().for_each(|item| item.drawn.silence());
    }
}

impl Drop for DrawnEach {
    /// As for a part that changes: what is within ends now.
    fn drop(&mut self) {
        self.effect = None;
        if let Ok(mut items) = self.items.try_borrow_mut() {
            items.clear();
        }
    }
}

fn arrange(before: Vec<Item>, keys: Vec<Key>, end: &Node, each: &Each) -> Vec<Item> {
    let mut before: Vec<_> = before.into_iter().map(Some).collect();
    let mut from = 0;
    let kept: Vec<_> = keys
        .iter()
        .map(|key| {
            let is = |item: &Option<Item>| item.as_ref().is_some_and(|item| item.key == *key);
            // Mostly it is the one after that of the key before.
            let after = before.iter().skip(from).position(is).map(|at| at + from);
            let at = after.or_else(|| before.iter().position(is))?;
            from = at + 1;
            before.get_mut(at).and_then(Option::take)
        })
        .collect();
    before.into_iter().flatten().for_each(Item::remove);
    // From the last to the first, since each stands before the next.
    let mut next = end.clone();
    let mut items: Vec<_> = keys
        .into_iter()
        .zip(kept)
        .rev()
        .map(|(key, kept)| {
            let item = kept.unwrap_or_else(|| draw(key, &next, each));
            let mut nodes = Vec::new();
            item.drawn.nodes(&mut nodes);
            if nodes.last().is_some_and(|last| last.next_sibling().as_ref() != Some(&next)) {
                nodes.iter().for_each(|node| insert(node, &next));
            }
            if let Some(first) = nodes.into_iter().next() {
                next = first;
            }
            item
        })
        .collect();
    items.reverse();
    items
}

fn draw(key: Key, next: &Node, each: &Each) -> Item {
    let owner = each.owner.as_ref().map(|owner| owner.child());
    let draw = || Drawn::before((each.draw)(key.clone()), next);
    let drawn = owner.as_ref().map_or_else(draw, |owner| owner.with(draw));
    Item { key, drawn, owner }
}
