//! What stands on a page: markup with holes (`web/markup` compiles `view!` to it), drawn here in one way for all of it.
//!
//! The names are leptos's, and so are the signals: whatever read one of them is drawn again when it changes, in place where
//! it is the same markup as before, so that focus, selection and what was typed stay.

mod draw;
mod each;
mod hole;
mod page;
#[cfg(test)]
pub(crate) mod tests;
mod value;

use std::borrow::Cow;

pub(crate) use each::each;
pub(crate) use hole::{Hole, Template};
pub(crate) use page::mount_to_body;
pub(crate) use retinker_markup::view;
pub(crate) use value::{IntoValue, NodeRef, Value};

use each::Each;
use leptos::prelude::{Get, Signal};
use value::Written;

use crate::erased::Reads;

/// Something to be drawn.
pub(crate) enum AnyView {
    Nothing,
    Text(Cow<'static, str>),
    /// A text that changes.
    Words(Box<dyn Reads<Cow<'static, str>>>),
    /// What `view!` makes: the values in the order of the template's holes.
    Markup(&'static Template, Box<[Value]>),
    Several(Vec<AnyView>),
    /// A part that is drawn again whenever what it read has changed.
    Changing(Box<dyn Reads<AnyView>>),
    Each(Each),
}

/// What can stand between tags.
pub(crate) trait IntoAny {
    /// As something to be drawn.
    fn into_any(self) -> AnyView;
}

impl IntoAny for AnyView {
    fn into_any(self) -> AnyView {
        self
    }
}

impl IntoAny for () {
    fn into_any(self) -> AnyView {
        AnyView::Nothing
    }
}

impl<T: IntoAny> IntoAny for Option<T> {
    fn into_any(self) -> AnyView {
        self.map_or(AnyView::Nothing, T::into_any)
    }
}

impl IntoAny for Vec<AnyView> {
    fn into_any(self) -> AnyView {
        AnyView::Several(self)
    }
}

impl<const N: usize> IntoAny for [AnyView; N] {
    fn into_any(self) -> AnyView {
        AnyView::Several(self.into())
    }
}

impl<T: Written + Clone + Send + Sync + 'static> IntoAny for Signal<T> {
    fn into_any(self) -> AnyView {
        AnyView::Words(Box::new(move || self.get().written()))
    }
}

impl<V: IntoAny, F: Fn() -> V + 'static> IntoAny for F {
    fn into_any(self) -> AnyView {
        AnyView::Changing(Box::new(move || self().into_any()))
    }
}

macro_rules! texts {
    ($($kind:ty),*) => {$(
        impl IntoAny for $kind {
            fn into_any(self) -> AnyView {
                AnyView::Text(self.written())
            }
        }
    )*};
}

texts!(String, &'static str, u32, u64, usize);
