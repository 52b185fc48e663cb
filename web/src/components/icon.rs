//! Icons: the page holds the drawings (`index.html`), these are references to them.

use crate::prelude::*;

/// A drawing of the page's sprite. It says nothing to a screen reader: words beside it do.
pub(crate) fn icon(name: &str) -> AnyView {
    view! {
        <svg class="icon" aria-hidden="true" focusable="false" width="16" height="16" viewBox="0 0 16 16">
            <use href=format!("#i-{name}")></use>
        </svg>
    }
}
