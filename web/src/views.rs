//! Views of the list of runs that a person has given a name.

use retinker::json;
use serde::{Deserialize, Serialize};

/// A view and its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// What it is called.
    pub name: String,
    /// The address that shows it.
    pub address: String,
}

/// Where a browser keeps a person's own.
pub const KEY: &str = "retinker.views";

/// Views that everybody has.
pub const OFFERED: [(&str, &str); 5] = [
    ("To be restored", "/?health=poisoned"),
    ("Checkpoint expires within a day", "/?q=expires%3C1d&sort=expires"),
    ("Active within the hour", "/?q=age%3C1h&sort=activity"),
    ("Restored runs", "/?q=has%3Aorigin&sort=activity"),
    ("Nothing saved yet", "/?q=-has%3Acheckpoint&sort=activity"),
];

/// Most views that are kept.
const MOST: usize = 50;

/// Reads what a browser has kept. What cannot be read is nothing.
pub fn read(text: &str) -> Vec<Saved> {
    let views: Vec<Saved> = json::read(text.as_bytes()).unwrap_or_default();
    // Another program of this origin may have written it: only addresses of the list are followed.
    views.into_iter().filter(|view| view.address == "/" || view.address.starts_with("/?")).collect()
}

/// As [`read`] takes it.
pub fn write(views: &[Saved]) -> String {
    serde_json::to_string(views).unwrap_or_default()
}

/// With a view of this name: one that had it goes. The newest comes first. `None`: there are as many as are kept.
pub fn with(views: &[Saved], name: &str, address: &str) -> Option<Vec<Saved>> {
    let name = name.trim();
    let mut all = vec![Saved { name: name.to_owned(), address: address.to_owned() }];
    all.extend(without(views, name));
    (all.len() <= MOST).then_some(all)
}

/// Without the view of this name.
pub fn without(views: &[Saved], name: &str) -> Vec<Saved> {
    views.iter().filter(|view| view.name != name).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::View;

    #[test]
    fn views_are_kept_by_name() {
        let views = with(&[], " nightly ", "/?q=nightly").unwrap();
        let views = with(&views, "mine", "/?q=meta.team%3Dx").unwrap();
        let views = with(&views, "nightly", "/?q=night").unwrap();
        let full = (0..MOST).fold(Vec::new(), |all, n| with(&all, &n.to_string(), "/").unwrap());
        assert_eq!(with(&full, "one more", "/"), None, "none goes without a word");
        assert!(with(&full, "7", "/?q=seven").is_some(), "one is written over");
        let names: Vec<_> = views.iter().map(|view| (view.name.as_str(), view.address.as_str())).collect();
        assert_eq!(names, [("nightly", "/?q=night"), ("mine", "/?q=meta.team%3Dx")]);
        assert_eq!(read(&write(&views)), views);
        assert_eq!(without(&views, "mine").len(), 1);
        assert_eq!(read("{"), []);
        let evil = r#"[{"name":"x","address":"//evil.example/"},{"name":"y","address":"javascript:1"}]"#;
        assert_eq!(read(evil), []);
    }

    #[test]
    fn offered_views_are_views() {
        for (name, address) in OFFERED {
            let view = View::read(address.trim_start_matches('/'));
            assert_eq!(view.to_address(), address, "{name}");
            assert!(!view.is_whole());
            retinker::host::query::Query::parse(&view.q).unwrap();
        }
    }
}
