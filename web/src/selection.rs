//! Which runs are selected.

use std::collections::HashSet;

/// The selected runs, by id: what is selected stays so when the list moves on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    ids: HashSet<String>,
    /// In the order in which they were selected.
    order: Vec<String>,
    /// Where a range begins: the run that was last selected by itself, wherever it is in the list by now.
    anchor: Option<String>,
    /// Moves when something is no longer selected: what was asked for before must not bring it back.
    era: u32,
    /// How many matched, when all that matched were asked for and could not all be had.
    pub capped_from: Option<u64>,
}

impl Selection {
    /// Whether it is selected.
    pub fn has(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.ids.len()
    }

    /// The ids, in the order in which they were selected.
    pub fn ids(&self) -> Vec<String> {
        self.order.clone()
    }

    /// The run at which a range begins.
    pub fn anchor(&self) -> Option<&str> {
        self.anchor.as_deref()
    }

    /// A number that is another when something is no longer selected.
    pub fn era(&self) -> u32 {
        self.era
    }

    /// Selects nothing.
    pub fn clear(&mut self) {
        *self = Self { era: self.era + 1, ..Self::default() };
    }

    /// Selects the run, or no longer.
    pub fn toggle(&mut self, id: &str) {
        self.anchor = Some(id.to_owned());
        if self.ids.remove(id) {
            self.era += 1;
            self.order.retain(|known| known != id);
        } else {
            self.add([id.to_owned()]);
        }
    }

    /// Selects more.
    pub fn add(&mut self, ids: impl IntoIterator<Item = String>) {
        for id in ids {
            if self.ids.insert(id.clone()) {
                self.order.push(id);
            }
        }
    }

    /// Selects these too. `matching`: how many were asked for.
    pub fn add_all(&mut self, ids: Vec<String>, matching: u64) {
        self.capped_from = ((ids.len() as u64) < matching).then_some(matching);
        self.add(ids);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_selected_one_by_one_in_ranges_and_all_at_once() {
        let mut selection = Selection::default();
        selection.toggle("b");
        selection.toggle("a");
        assert_eq!((selection.ids(), selection.anchor()), (vec!["b".to_owned(), "a".to_owned()], Some("a")));
        selection.add(["a".into(), "c".into()]);
        assert_eq!(selection.count(), 3);
        let era = selection.era();
        selection.toggle("d");
        assert_eq!(selection.era(), era, "what is asked for meanwhile may come");
        selection.toggle("d");
        assert_ne!(selection.era(), era, "it would come back");
        selection.toggle("a");
        assert!(!selection.has("a") && selection.has("c"));
        assert_eq!(selection.ids(), ["b", "c"]);
        selection.add_all(vec!["x".into(), "b".into()], 2);
        assert_eq!((selection.ids().len(), selection.capped_from), (3, None), "what was selected stays so");
        selection.add_all(vec!["x".into()], 9);
        assert_eq!(selection.capped_from, Some(9), "not all could be had, and that is told");
        let era = selection.era();
        selection.clear();
        assert_eq!((selection.count(), selection.capped_from, selection.anchor()), (0, None, None));
        assert_ne!(selection.era(), era);
    }
}
