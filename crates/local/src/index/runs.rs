//! All runs: found by id, and listed in the order of their creation without a search for each.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Run, insert_ordered};

/// Where a run stands; never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place(usize);

/// Places by ordinal, oldest first.
pub(super) type Order = Vec<(u64, Place)>;

/// All runs.
#[derive(Debug, Default)]
pub(super) struct Runs {
    runs: Vec<Run>,
    places: HashMap<Arc<str>, Place>,
    order: Order,
}

impl Runs {
    pub(super) fn with_capacity(runs: usize) -> Self {
        Self {
            runs: Vec::with_capacity(runs),
            places: HashMap::with_capacity(runs),
            order: Vec::with_capacity(runs),
        }
    }

    /// Adds one that is not there yet.
    pub(super) fn insert(&mut self, run: Run) -> Place {
        let place = Place(self.runs.len());
        self.places.insert(Arc::clone(&run.new.run_id), place);
        insert_ordered(&mut self.order, run.ordinal, (run.ordinal, place), |entry| entry.0);
        self.runs.push(run);
        place
    }

    pub(super) fn get(&self, id: &str) -> Option<&Run> {
        self.at(self.place_of(id)?)
    }

    pub(super) fn get_mut(&mut self, id: &str) -> Option<&mut Run> {
        let place = self.place_of(id)?;
        self.runs.get_mut(place.0)
    }

    pub(super) fn place_of(&self, id: &str) -> Option<Place> {
        self.places.get(id).copied()
    }

    pub(super) fn at(&self, place: Place) -> Option<&Run> {
        self.runs.get(place.0)
    }

    /// All of them, oldest first.
    pub(super) fn order(&self) -> &Order {
        &self.order
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter()
    }

    /// The same, to be changed.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Run> {
        self.runs.iter_mut()
    }
}
