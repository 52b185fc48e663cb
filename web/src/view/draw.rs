//! Drawing views, and drawing them again in place.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;

use leptos::prelude::{RenderEffect, document};
use web_sys::{Node, Text};

use super::AnyView;
use super::each::DrawnEach;
use super::hole::{Filled, Template};
use super::value::Value;
use crate::erased::Reads;

/// A view on the page. Whoever drops it must have removed it, or what it stands in.
pub(super) enum Drawn {
    Nothing,
    Text(Text, Cow<'static, str>),
    Words(Text, RenderEffect<()>),
    Markup(Markup),
    Several(Vec<Drawn>),
    Changing(Changing),
    Each(DrawnEach),
}

/// Markup with its holes filled.
pub(super) struct Markup {
    template: &'static Template,
    /// Each with the hole that it is the end of.
    roots: Vec<(Node, Option<usize>)>,
    holes: Vec<Filled>,
}

/// A part that draws itself again.
pub(super) struct Changing {
    place: Place,
    inner: Rc<RefCell<Drawn>>,
    effect: Option<RenderEffect<()>>,
}

/// Where something stands that changes: before this node.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) end: Node,
    /// The node was made for it, and goes with it.
    is_own: bool,
}

impl Place {
    fn before(next: &Node) -> Self {
        let end: Node = document().create_comment("").into();
        insert(&end, next);
        Self { end, is_own: true }
    }

    fn hole(end: &Node) -> Self {
        Self { end: end.clone(), is_own: false }
    }

    pub(super) fn nodes(&self, into: &mut Vec<Node>) {
        if self.is_own {
            into.push(self.end.clone());
        }
    }
}

impl Drawn {
    /// Draws before a node.
    pub(super) fn before(view: AnyView, next: &Node) -> Self {
        match view {
            AnyView::Changing(draw) => {
                Self::Changing(Changing::begin(draw, Place::before(next), Self::Nothing))
            }
            AnyView::Each(each) => Self::Each(DrawnEach::begin(each, Place::before(next))),
            AnyView::Nothing => Self::Nothing,
            AnyView::Text(text) => Self::Text(text_node(&text, next), text),
            AnyView::Words(read) => {
                let node = text_node("", next);
                let effect = words(&node, read);
                Self::Words(node, effect)
            }
            AnyView::Markup(template, values) => Self::Markup(Markup::before(template, values, next)),
            AnyView::Several(views) => {
                Self::Several(views.into_iter().map(|view| Self::before(view, next)).collect())
            }
        }
    }

    /// Draws in a hole of markup: nothing else stands before its comment.
    pub(super) fn in_hole(view: AnyView, hole: &Node) -> Self {
        match view {
            AnyView::Changing(draw) => {
                Self::Changing(Changing::begin(draw, Place::hole(hole), Self::Nothing))
            }
            AnyView::Each(each) => Self::Each(DrawnEach::begin(each, Place::hole(hole))),
            other => Self::before(other, hole),
        }
    }

    /// Draws another view in its place, before a node.
    pub(super) fn update(self, view: AnyView, next: &Node, is_hole: bool) -> Self {
        match (self, view) {
            (Self::Text(node, before), AnyView::Text(text)) => {
                if before != text {
                    node.set_data(&text);
                }
                Self::Text(node, text)
            }
            (Self::Words(node, before), AnyView::Words(read)) => {
                drop(before);
                let effect = words(&node, read);
                Self::Words(node, effect)
            }
            (Self::Markup(markup), AnyView::Markup(template, values))
                if std::ptr::eq(markup.template, template) =>
            {
                Self::Markup(markup.update(values))
            }
            (Self::Several(drawn), AnyView::Several(views)) => Self::Several(update_all(drawn, views, next)),
            (Self::Changing(changing), AnyView::Changing(draw)) => {
                let (place, inner) = changing.end();
                Self::Changing(Changing::begin(draw, place, inner))
            }
            (before, view) => {
                let first = before.first();
                let draw = if is_hole { Self::in_hole } else { Self::before };
                // In a hole, its own comment is where both stand.
                let drawn = draw(view, if is_hole { next } else { first.as_ref().unwrap_or(next) });
                before.remove();
                drawn
            }
        }
    }

    /// The nodes that it put beside one another, in order.
    pub(super) fn nodes(&self, into: &mut Vec<Node>) {
        match self {
            Self::Nothing => {}
            Self::Text(node, _) | Self::Words(node, _) => into.push(node.clone().into()),
            Self::Markup(markup) => markup.nodes(into),
            Self::Several(drawn) => drawn.iter().for_each(|drawn| drawn.nodes(into)),
            Self::Changing(changing) => {
                changing.inner.borrow().nodes(into);
                changing.place.nodes(into);
            }
            Self::Each(each) => each.nodes(into),
        }
    }

    /// The first of its nodes.
    pub(super) fn first(&self) -> Option<Node> {
        let mut nodes = Vec::new();
        self.nodes(&mut nodes);
        nodes.into_iter().next()
    }

    /// Lets no event come to it any more: a browser tells an element that it loses the focus while it is being removed.
    pub(super) fn silence(&self) {
        match self {
            Self::Markup(markup) => markup.holes.iter().for_each(Filled::silence),
            Self::Several(drawn) => drawn.iter().for_each(Self::silence),
            Self::Changing(changing) => changing.inner.borrow().silence(),
            Self::Each(each) => each.silence(),
            Self::Nothing | Self::Text(..) | Self::Words(..) => {}
        }
    }

    /// Takes it off the page.
    pub(super) fn remove(self) {
        self.silence();
        let mut nodes = Vec::new();
        self.nodes(&mut nodes);
        for node in nodes {
            if let Some(parent) = node.parent_node() {
                let _ = parent.remove_child(&node);
            }
        }
    }
}

/// From the last to the first, since each stands before the next.
fn update_all(drawn: Vec<Drawn>, views: Vec<AnyView>, next: &Node) -> Vec<Drawn> {
    let mut views: Vec<_> = views.into_iter().map(Some).collect();
    let mut drawn: Vec<_> = drawn.into_iter().map(Some).collect();
    while drawn.len() > views.len() {
        if let Some(more) = drawn.pop().flatten() {
            more.remove();
        }
    }
    drawn.resize_with(views.len(), || None);
    let mut next = next.clone();
    let mut updated: Vec<_> = drawn
        .into_iter()
        .zip(&mut views)
        .rev()
        .filter_map(|(drawn, view)| {
            let view = view.take()?;
            let drawn = match drawn {
                Some(drawn) => drawn.update(view, &next, false),
                None => Drawn::before(view, &next),
            };
            if let Some(first) = drawn.first() {
                next = first;
            }
            Some(drawn)
        })
        .collect();
    updated.reverse();
    updated
}

impl Markup {
    fn before(template: &'static Template, values: Box<[Value]>, next: &Node) -> Self {
        let Ok((copy, nodes)) = template.copy() else {
            return Self { template, roots: Vec::new(), holes: Vec::new() };
        };
        let mut roots = Vec::new();
        let mut root = copy.first_child();
        while let Some(node) = root {
            root = node.next_sibling();
            let is_hole = node.node_type() == Node::COMMENT_NODE;
            let hole = if is_hole { nodes.iter().position(|hole| *hole == node) } else { None };
            roots.push((node, hole));
        }
        let holes = template
            .holes
            .iter()
            .zip(nodes)
            .zip(values)
            .map(|(((_, hole), node), value)| Filled::new(hole, node, value))
            .collect();
        insert(&copy, next);
        Self { template, roots, holes }
    }

    fn update(self, values: Box<[Value]>) -> Self {
        let Self { template, roots, holes } = self;
        let holes = template
            .holes
            .iter()
            .zip(holes)
            .zip(values)
            .map(|(((_, hole), filled), value)| filled.update(hole, value))
            .collect();
        Self { template, roots, holes }
    }

    fn nodes(&self, into: &mut Vec<Node>) {
        for (root, hole) in &self.roots {
            if let Some(child) = hole.and_then(|at| self.holes.get(at)).and_then(Filled::child) {
                child.nodes(into);
            }
            into.push(root.clone());
        }
    }
}

impl Changing {
    fn begin(draw: Box<dyn Reads<AnyView>>, place: Place, inner: Drawn) -> Self {
        let inner = Rc::new(RefCell::new(inner));
        let (drawn, end) = (Rc::clone(&inner), place.clone());
        let effect = RenderEffect::new(move |_| {
            let view = draw.read();
            let before = drawn.replace(Drawn::Nothing);
            let now = before.update(view, &end.end, true);
            drawn.replace(now);
        });
        Self { place, inner, effect: Some(effect) }
    }

    /// What is drawn, drawn again no more.
    fn end(mut self) -> (Place, Drawn) {
        self.effect = None;
        (self.place.clone(), self.inner.replace(Drawn::Nothing))
    }
}

impl Drop for Changing {
    /// What is within must end now: the effect lets go of it only when its task is run again, and until then what is within
    /// could be told of signals that are no more.
    fn drop(&mut self) {
        self.effect = None;
        if let Ok(mut inner) = self.inner.try_borrow_mut() {
            *inner = Drawn::Nothing;
        }
    }
}

fn text_node(text: &str, next: &Node) -> Text {
    let node = document().create_text_node(text);
    insert(&node, next);
    node
}

fn words(node: &Text, read: Box<dyn Reads<Cow<'static, str>>>) -> RenderEffect<()> {
    let node = node.clone();
    RenderEffect::new(move |before: Option<()>| {
        let text = read.read();
        if before.is_none() || node.data() != text {
            node.set_data(&text);
        }
    })
}

/// Puts a node before another.
pub(super) fn insert(node: &Node, next: &Node) {
    if let Some(parent) = next.parent_node() {
        let _ = parent.insert_before(node, Some(next));
    }
}
