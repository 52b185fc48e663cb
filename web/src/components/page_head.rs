//! The head of a page that has one name for all that it shows.

use crate::browser;
use crate::prelude::*;

/// The page's name, as its first heading and as the document's title, with what stands beside it.
pub(crate) fn page_head(name: &'static str, beside: AnyView) -> AnyView {
    Effect::new(move |_| browser::set_title(name));
    view! {
        <header class="page-head">
            <h1 id="page-title" tabindex="-1">
                {name}
            </h1>
            {beside}
        </header>
    }
}

/// What stands beside a page's name: how much it shows. A change of it is said.
pub(crate) fn total(testid: &'static str, told: Signal<String>) -> AnyView {
    view! {
        <p class="shown" role="status" data-testid=testid>
            {told}
        </p>
    }
}
