//! Sorting, compiled once. The standard library compiles its own anew for every type and comparison: a dozen copies of it
//! are something to load.

use std::cmp::Ordering;

/// The items in order; those that compare as equal stay as they were.
pub fn sorted<T>(items: Vec<T>, compare: impl Fn(&T, &T) -> Ordering) -> Vec<T> {
    let places = places(items.len(), &|a, b| match (items.get(a), items.get(b)) {
        (Some(a), Some(b)) => compare(a, b),
        _ => Ordering::Equal,
    });
    let mut items: Vec<_> = items.into_iter().map(Some).collect();
    places.into_iter().filter_map(|at| items.get_mut(at)?.take()).collect()
}

/// The items in order of a number, the least first.
pub fn sorted_by<T>(items: Vec<T>, key: impl Fn(&T) -> i64) -> Vec<T> {
    sorted(items, |a, b| key(a).cmp(&key(b)))
}

fn places(count: usize, compare: &dyn Fn(usize, usize) -> Ordering) -> Vec<usize> {
    let mut places: Vec<usize> = (0..count).collect();
    places.sort_by(|a, b| compare(*a, *b));
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_ones_stay_as_they_were() {
        let items = vec![(2, "a"), (1, "b"), (2, "c"), (-7, "d"), (1, "e")];
        let names: String = sorted_by(items, |(key, _)| *key).into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, "dbeac");
        assert!(sorted(Vec::<String>::new(), String::cmp).is_empty());
    }
}
