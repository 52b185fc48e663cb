//! A run's health: a shape and a word, and colour only on top.

use crate::prelude::*;
use retinker::recovery::health::Health;
use retinker_console::words;

use super::icon::icon;

/// A health.
pub(crate) fn health_badge(health: Health) -> AnyView {
    view! {
        <span class=format!("health health-{}", health.as_str()) title=words::health_meaning(health)>
            {icon(health.as_str())}
            <span>{words::health(health)}</span>
        </span>
    }
}
