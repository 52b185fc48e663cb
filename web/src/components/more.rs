//! Long lists, of which the first are shown and more on demand.

use crate::prelude::*;
use retinker_console::format;

use super::reactive::maybe;

/// Lines that are shown at first, and with each press.
const LINES: usize = 200;

/// How many lines are shown, to begin with.
pub(crate) fn first_lines() -> RwSignal<usize> {
    RwSignal::new(LINES)
}

/// A button that shows more of so many lines, as long as there are any.
pub(crate) fn more_lines(all: impl Fn() -> usize + 'static, shown: RwSignal<usize>) -> AnyView {
    maybe(move || {
        let more = all().saturating_sub(shown.get());
        (more > 0).then(|| {
            let name = format!(
                "Show {} of {} more",
                format::count(more.min(LINES) as u64),
                format::count(more as u64)
            );
            view! {
                <button
                    type="button"
                    class="button"
                    data-testid="more-lines"
                    on:click=move |_| shown.update(|shown| *shown += LINES)
                >
                    {name}
                </button>
            }
        })
    })
}
