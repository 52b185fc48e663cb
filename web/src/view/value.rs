//! What goes into the holes of a view's markup.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::rc::Rc;

use leptos::ev::EventDescriptor;
use leptos::prelude::{Get, Signal};
use send_wrapper::SendWrapper;
use wasm_bindgen::JsCast;

use super::{AnyView, IntoAny};
use crate::erased::{Reads, RwSignal};

/// What an attribute, a class, a style or a property is given.
#[derive(Clone, PartialEq)]
pub(crate) enum Given {
    Nothing,
    Flag(bool),
    Text(Cow<'static, str>),
}

/// What is done at an event.
pub(crate) type Handler = Rc<dyn Handles>;

/// A closure that is given an event. For why it is no `dyn Fn`, see [`Reads`].
pub(crate) trait Handles {
    fn handle(&self, event: web_sys::Event);
}

impl<F: Fn(web_sys::Event)> Handles for F {
    fn handle(&self, event: web_sys::Event) {
        self(event);
    }
}

/// What goes into a hole.
pub(crate) enum Value {
    Given(Given),
    /// Given anew whenever what it read has changed.
    Changing(Box<dyn Reads<Given>>),
    Handler(Handler),
    Child(AnyView),
    Node(RwSignal<Option<SendWrapper<web_sys::Element>>>),
}

impl Value {
    pub(crate) fn child(view: impl IntoAny) -> Self {
        Self::Child(view.into_any())
    }

    pub(crate) fn handler<E>(_: E, act: impl Fn(E::EventType) + 'static) -> Self
    where
        E: EventDescriptor,
        E::EventType: JsCast,
    {
        Self::Handler(Rc::new(move |event: web_sys::Event| act(event.unchecked_into())))
    }

    pub(crate) fn node<T>(node: NodeRef<T>) -> Self {
        Self::Node(node.node)
    }
}

/// An element of the page, once it is drawn.
pub(crate) struct NodeRef<T> {
    node: RwSignal<Option<SendWrapper<web_sys::Element>>>,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for NodeRef<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for NodeRef<T> {}

impl<T: JsCast> NodeRef<T> {
    pub(crate) fn new() -> Self {
        Self { node: RwSignal::new(None), of: PhantomData }
    }

    pub(crate) fn get(&self) -> Option<T> {
        self.node.get().map(|node| node.take().unchecked_into())
    }

    /// `None` before it is drawn, and once the part of the page that it belongs to is gone: frames and timers may come later.
    pub(crate) fn get_untracked(&self) -> Option<T> {
        self.node.try_get_untracked().flatten().map(|node| node.take().unchecked_into())
    }
}

/// What can be written on a page as text.
pub(crate) trait Written {
    fn written(self) -> Cow<'static, str>;
}

impl Written for String {
    fn written(self) -> Cow<'static, str> {
        Cow::Owned(self)
    }
}

impl Written for &'static str {
    fn written(self) -> Cow<'static, str> {
        Cow::Borrowed(self)
    }
}

impl<T: Written> Written for Option<T> {
    fn written(self) -> Cow<'static, str> {
        self.map_or(Cow::Borrowed(""), T::written)
    }
}

macro_rules! numbers {
    ($($kind:ty),*) => {$(
        impl Written for $kind {
            fn written(self) -> Cow<'static, str> {
                Cow::Owned(self.to_string())
            }
        }
    )*};
}

numbers!(u32, u64, usize);

impl From<bool> for Given {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<&'static str> for Given {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Given {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl<T: Into<Given>> From<Option<T>> for Given {
    fn from(given: Option<T>) -> Self {
        given.map_or(Self::Nothing, T::into)
    }
}

/// What can stand behind an attribute's `=`.
pub(crate) trait IntoValue {
    fn into_value(self) -> Value;
}

macro_rules! given {
    ($($kind:ty),*) => {$(
        impl IntoValue for $kind {
            fn into_value(self) -> Value {
                Value::Given(self.into())
            }
        }
    )*};
}

given!(bool, &'static str, String, Option<&'static str>, Option<String>);

impl<T: Into<Given> + Clone + Send + Sync + 'static> IntoValue for Signal<T> {
    fn into_value(self) -> Value {
        Value::Changing(Box::new(move || self.get().into()))
    }
}

impl<T: Into<Given>, F: Fn() -> T + 'static> IntoValue for F {
    fn into_value(self) -> Value {
        Value::Changing(Box::new(move || self().into()))
    }
}
