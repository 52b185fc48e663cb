//! What stands on a page before it has been read.

use crate::prelude::*;

/// So many grey lines; `said` tells who cannot see them what is awaited.
pub(crate) fn placeholder(said: &'static str, lines: usize) -> AnyView {
    let lines: Vec<_> = (0..lines).map(|_| view! { <i></i> }).collect();
    view! {
        <div class="placeholder" role="status">
            <span class="said">{said}</span>
            {lines}
        </div>
    }
}
