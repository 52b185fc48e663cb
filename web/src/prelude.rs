//! What every view needs: leptos's own, with the signals of [`erased`](crate::erased) in the place of its own.

pub(crate) use leptos::prelude::*;

pub(crate) use crate::erased::{Effect, Memo, RwSignal};
