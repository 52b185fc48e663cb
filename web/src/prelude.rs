//! What every view needs: leptos's own, with the signals of [`erased`](crate::erased) and the views of [`view`](crate::view)
//! in the place of its own.

pub(crate) use leptos::prelude::*;

pub(crate) use crate::erased::{Effect, Memo, RwSignal};
pub(crate) use crate::view::{AnyView, IntoAny, NodeRef, each, view};
