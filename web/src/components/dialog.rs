//! A modal dialog: the browser's own, which keeps the focus inside, gives it back, and closes on Escape.

use crate::prelude::*;

use super::icon::icon;
use super::reactive::when;

/// A dialog that is on the page while `open` is true; what is in it is drawn anew each time that it opens.
pub(crate) fn dialog(
    open: RwSignal<bool>,
    title: Signal<String>,
    testid: &'static str,
    content: impl Fn() -> AnyView + Send + 'static,
) -> AnyView {
    let node = NodeRef::<web_sys::HtmlDialogElement>::new();
    Effect::new(move |_| {
        let Some(dialog) = node.get() else { return };
        if open.get() && !dialog.open() {
            let _ = dialog.show_modal();
        } else if !open.get() && dialog.open() {
            dialog.close();
        }
    });
    // It is told a moment later: somebody may have opened it again.
    let closed = move |_| {
        if node.get_untracked().is_none_or(|dialog| !dialog.open()) {
            open.set(false);
        }
    };
    view! {
        <dialog node_ref=node data-testid=testid aria-labelledby=format!("{testid}-title") on:close=closed>
            <header class="dialog-head">
                <h2 id=format!("{testid}-title")>{title}</h2>
                <button type="button" class="copy" aria-label="Close" on:click=move |_| open.set(false)>
                    {icon("cross")}
                </button>
            </header>
            {when(move || open.get(), content)}
        </dialog>
    }
}
