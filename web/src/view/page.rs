//! The page itself.

use any_spawner::Executor;
use leptos::prelude::{Owner, document};

use super::AnyView;
use super::draw::Drawn;

/// Draws at the end of the page, for as long as there is one.
pub(crate) fn mount_to_body(draw: impl FnOnce() -> AnyView) {
    // It fails where there is one already, which is as good.
    let _ = Executor::init_wasm_bindgen();
    let Some(body) = document().body() else { return };
    let end = document().create_comment("");
    if body.append_child(&end).is_err() {
        return;
    }
    let owner = Owner::new();
    let drawn = owner.with(|| Drawn::before(draw(), &end));
    // They last as long as the page does.
    std::mem::forget((owner, drawn));
}
