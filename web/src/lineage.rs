//! The picture of a family of runs: one line for each run, parents above their children.

use retinker::host::api::LineageEntry;

/// The lane of each run, from the left: a run's first child goes on in its lane, any other begins one.
pub fn lanes(family: &[LineageEntry]) -> Vec<usize> {
    let mut lanes: Vec<usize> = Vec::with_capacity(family.len());
    for (index, entry) in family.iter().enumerate() {
        let parent = parent_of(family, entry);
        let before = family.get(..index).unwrap_or_default();
        let is_first = !before.iter().any(|other| other.parent.is_some() && other.parent == entry.parent);
        let lane = match parent.and_then(|parent| lanes.get(parent)) {
            Some(lane) if is_first => *lane,
            _ => lanes.iter().max().map_or(0, |widest| widest + 1),
        };
        lanes.push(lane);
    }
    lanes
}

/// Where the run that an entry was restored from stands.
pub fn parent_of(family: &[LineageEntry], entry: &LineageEntry) -> Option<usize> {
    let parent = entry.parent.as_ref()?;
    family.iter().position(|other| other.run_id == *parent)
}

/// A run and those that it came from, oldest first.
pub fn ancestors(family: &[LineageEntry], run_id: &str) -> Vec<String> {
    let mut ancestors = vec![run_id.to_owned()];
    let mut next = family.iter().find(|entry| entry.run_id == run_id);
    while let Some(parent) = next.and_then(|entry| parent_of(family, entry)).and_then(|at| family.get(at)) {
        if ancestors.contains(&parent.run_id) {
            break;
        }
        ancestors.insert(0, parent.run_id.clone());
        next = Some(parent);
    }
    ancestors
}

/// How often a run was restored, in words.
pub fn generation(generation: u32) -> String {
    match generation {
        0 => "the first run".to_owned(),
        1 => "restored once".to_owned(),
        2 => "restored twice".to_owned(),
        n => format!("restored {n} times"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(pairs: &[(&str, Option<&str>)]) -> Vec<LineageEntry> {
        let entry = |(id, parent): &(&str, Option<&str>)| LineageEntry {
            run_id: (*id).to_owned(),
            generation: 0,
            restore_id: None,
            parent: parent.map(str::to_owned),
            checkpoint: None,
            name: (*id).to_owned(),
            health: None,
        };
        pairs.iter().map(entry).collect()
    }

    #[test]
    fn branches_have_lanes_of_their_own() {
        let straight = family(&[("a", None), ("b", Some("a")), ("c", Some("b"))]);
        assert_eq!(lanes(&straight), [0, 0, 0]);
        let branched = family(&[
            ("a", None),
            ("b", Some("a")),
            ("c", Some("b")),
            ("d", Some("b")),
            ("e", Some("a")),
            ("f", Some("e")),
        ]);
        assert_eq!(lanes(&branched), [0, 0, 0, 1, 2, 2]);
        assert!(lanes(&[]).is_empty());
    }

    #[test]
    fn ancestors_are_told_from_the_first_on() {
        let family = family(&[("a", None), ("b", Some("a")), ("c", Some("b")), ("d", Some("a"))]);
        assert_eq!(ancestors(&family, "c"), ["a", "b", "c"]);
        assert_eq!(ancestors(&family, "a"), ["a"]);
        assert_eq!(ancestors(&family, "elsewhere"), ["elsewhere"]);
        let circle = self::family(&[("x", Some("y")), ("y", Some("x"))]);
        assert_eq!(ancestors(&circle, "x"), ["y", "x"]);
    }
}
