//! What changes on the page.

use crate::erased::Reads;
use crate::prelude::*;

/// Draws again whenever what it read changed.
pub(crate) fn part(draw: impl Fn() -> AnyView + 'static) -> AnyView {
    AnyView::Changing(Box::new(draw))
}

/// Draws what there is, again whenever it changed.
pub(crate) fn maybe(draw: impl Fn() -> Option<AnyView> + 'static) -> AnyView {
    part(move || draw().unwrap_or_else(nothing))
}

/// Draws while something holds; not again while it goes on to hold.
pub(crate) fn when(
    holds: impl Fn() -> bool + Send + Sync + 'static,
    draw: impl Fn() -> AnyView + 'static,
) -> AnyView {
    let holds = Memo::new(move |_| holds());
    part(move || if holds.get() { draw() } else { nothing() })
}

/// Nothing.
pub(crate) fn nothing() -> AnyView {
    ().into_any()
}

/// A text that changes.
pub(crate) fn text(read: impl Fn() -> String + Send + Sync + 'static) -> Signal<String> {
    boxed(Box::new(read))
}

/// A fixed word that changes for another; `None` takes the attribute away.
pub(crate) fn word(
    read: impl Fn() -> Option<&'static str> + Send + Sync + 'static,
) -> Signal<Option<&'static str>> {
    boxed(Box::new(read))
}

/// Something that holds or not.
pub(crate) fn flag(read: impl Fn() -> bool + Send + Sync + 'static) -> Signal<bool> {
    boxed(Box::new(read))
}

fn boxed<T: Send + Sync + 'static>(read: Box<dyn Reads<T> + Send + Sync>) -> Signal<T> {
    Signal::derive(move || read.read())
}
