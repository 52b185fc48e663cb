//! Long lists, a page at a time, while they change.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;

use futures_core::Stream;
use futures_util::stream;

use super::error::Error;

/// So many pages in a row without anything that this pass has not read come from a server that does not page, or tells a
/// total that it does not have: it would be asked for ever. The first has given all there is.
const FRUITLESS: u32 = 100;

/// How often a list that will not stand still is read from its beginning.
const PASSES: u32 = 5;

/// A page of a list: what stands from an offset on, and how many there are in all, where the server says so.
pub(super) struct Page<T> {
    pub(super) entries: Vec<T>,
    pub(super) total: Option<u64>,
}

/// All entries, a page at a time, each once. Ends with the first page that fails.
///
/// A list moves while it is read. What is new, or moves to the front, moves the others down; what is deleted moves them up,
/// past the place where the next page begins. So each page begins with the last entry of the one before, the seam; where it
/// begins with nothing that this pass has read, the list is read again from a page before. A list of more than one page is
/// read again from its beginning until a pass has brought nothing new and was still: every seam held, nothing came twice, and
/// the total stayed the same.
///
/// What that gives, for everything that is in the list from the beginning of the reading to its end:
/// - What nobody moves is given, whatever becomes of the others, in a list where things only move to the front.
/// - What is moved is given, if things only move to the front, totals are told, and fewer of them change between two
///   requests than a page has entries: a still pass has then read all there is. An entry that passes the reader moves the
///   seam, unless what was read is deleted, which the total shows.
/// - Beyond that an entry is missed only if it passes the reader unnoticed in every pass; the first cannot be the last.
/// - A list that never stands still is read five times ([`PASSES`]). It cannot be known then that nothing is missing, but
///   what is missing has passed the reader in each of them.
pub(super) fn pages<T, F, Answer>(
    page_size: u64,
    id: fn(&T) -> &str,
    fetch: F,
) -> impl Stream<Item = Result<Vec<T>, Error>> + Send + 'static
where
    T: Send + 'static,
    F: Fn(u64, u64) -> Answer + Send + 'static,
    Answer: Future<Output = Result<Page<T>, Error>> + Send,
{
    // One entry is for the seam.
    let size = page_size.max(2);
    let start = Some((fetch, Reading::default()));
    stream::unfold(start, move |state| async move {
        let (fetch, mut reading) = state?;
        loop {
            let page = match fetch(size, reading.from).await {
                Ok(page) => page,
                Err(error) => return Some((Err(error), None)),
            };
            let (new, next) = reading.take(page, id);
            match (new.is_empty(), next) {
                (true, Next::More) => {}
                (true, Next::Done) => return None,
                (false, Next::Done) => return Some((Ok(new), None)),
                (false, Next::More) => return Some((Ok(new), Some((fetch, reading)))),
                (_, Next::Endless) => return Some((Err(endless(reading.from)), None)),
            }
        }
    })
}

/// What follows a page.
#[derive(PartialEq)]
enum Next {
    More,
    Done,
    Endless,
}

/// How far a list has been read.
#[derive(Default)]
struct Reading {
    /// Where the next page begins.
    from: u64,
    /// What was given, with the last pass that has read it; passes count from 1.
    read_in: HashMap<String, u32>,
    /// Passes that have ended.
    passes: u32,
    pass: Pass,
}

/// Since the list's beginning was read last.
#[derive(Default)]
struct Pass {
    /// The last entry of the page before, which the next is to begin with.
    seam: Option<String>,
    /// How far the page before went.
    step: u64,
    /// What the first page told.
    total: Option<u64>,
    /// It brought something new or something twice, a seam did not hold, or the total changed.
    disturbed: bool,
    /// Pages in a row that brought nothing to this pass.
    fruitless: u32,
}

impl Reading {
    /// The entries of a page that have not come before, and what follows.
    fn take<T>(&mut self, page: Page<T>, id: fn(&T) -> &str) -> (Vec<T>, Next) {
        let (came, this) = (page.entries.len() as u64, self.passes + 1);
        let first = page.entries.first().map(id);
        let joins = self.from == 0 || first.is_some_and(|first| self.read_in.get(first) == Some(&this));
        let held = first == self.pass.seam.as_deref();
        if self.from == 0 {
            self.pass.total = page.total;
        } else {
            self.pass.disturbed |= !held || page.total != self.pass.total;
        }
        let last = page.entries.last().map(|last| id(last).to_owned());
        // A page that stands alone is given, but this pass has not come as far as that.
        let read_in = if joins { this } else { 0 };
        let mut fresh = 0;
        let new = page.entries.into_iter().filter(|entry| {
            let entry = self.read_in.entry(id(entry).to_owned());
            let before = match &entry {
                Entry::Occupied(entry) => Some(*entry.get()),
                Entry::Vacant(_) => None,
            };
            fresh += u64::from(joins && before != Some(this));
            *entry.or_default() = before.unwrap_or_default().max(read_in);
            before.is_none()
        });
        let new: Vec<T> = new.collect();
        // Beside the seam, nothing comes twice in a pass unless it moved.
        let seam = u64::from(self.from > 0);
        self.pass.disturbed |= !new.is_empty() || fresh + seam != came;
        self.pass.fruitless = if fresh > 0 { 0 } else { self.pass.fruitless + 1 };
        // A server may cap the page below what was asked for, so only its total tells the end, or, where it tells
        // none, a page that has the seam and nothing else.
        let (end, total) = (self.from + came, page.total.filter(|total| *total > 0));
        let more = came > 0 && total.map_or(came > 1 || !held, |total| end < total);
        let next = match (joins, more) {
            _ if self.pass.fruitless >= FRUITLESS => total.map_or(Next::Done, |_| Next::Endless),
            (false, _) => self.go_back(),
            (true, true) => self.go_on(end, last),
            // What came as one page was there as a whole.
            (true, false) => self.end_pass(self.from == 0 && (total.is_some() || came < 2)),
        };
        (new, next)
    }

    fn go_back(&mut self) -> Next {
        self.from = self.from.saturating_sub(self.pass.step.max(1));
        Next::More
    }

    fn go_on(&mut self, end: u64, last: Option<String>) -> Next {
        // At least one further than before, also where a page has only the seam.
        let next = end.saturating_sub(1).max(self.from + 1);
        (self.pass.step, self.pass.seam, self.from) = (next - self.from, last, next);
        Next::More
    }

    fn end_pass(&mut self, whole: bool) -> Next {
        self.passes += 1;
        let pass = std::mem::take(&mut self.pass);
        self.from = 0;
        if whole || !pass.disturbed || self.passes >= PASSES { Next::Done } else { Next::More }
    }
}

fn endless(from: u64) -> Error {
    let what =
        format!("{FRUITLESS} in a row hold nothing new, and it is not at its end by what the server says");
    Error::unreadable(format!("a list, from {from} on"), "its pages", what)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::{Arc, Mutex};

    use futures_util::{FutureExt, StreamExt};

    use super::*;
    use crate::client::testing::test;

    /// Reads a list of names that changes after so many requests.
    fn read(changes: Vec<Vec<&'static str>>, size: u64, cap: u64, tells: bool) -> Vec<&'static str> {
        let asked = Arc::new(Mutex::new(0));
        let fetch = move |limit: u64, offset: u64| {
            let mut count = asked.lock().unwrap();
            let list = &changes[(*count).min(changes.len() - 1)];
            *count += 1;
            assert!(*count < 100, "it does not end");
            let entries = list.iter().skip(offset as usize).take(limit.min(cap) as usize).copied().collect();
            std::future::ready(Ok(Page { entries, total: tells.then_some(list.len() as u64) }))
        };
        let all = pages(size, |name: &&str| name, fetch).collect::<Vec<_>>().now_or_never().unwrap();
        all.into_iter().flat_map(Result::unwrap).collect()
    }

    #[test]
    fn each_entry_comes_once() {
        let list = vec!["e", "d", "c", "b", "a"];
        for size in [1, 2, 3, 4, 5, 9] {
            for tells in [false, true] {
                assert_eq!(read(vec![list.clone()], size, 99, tells), list, "{size} {tells}");
                assert_eq!(read(vec![list.clone()], size, 2, tells), list, "{size} {tells}, capped");
            }
        }
        assert_eq!(read(vec![vec![]], 3, 99, true), Vec::<&str>::new());
    }

    #[test]
    fn a_list_without_an_end_is_an_error() {
        // One page whatever is asked for; and a total that the list does not have.
        type Server = (fn(u64) -> usize, u64);
        let servers: [Server; 2] = [(|_| 2, u64::MAX), (|from| if from == 0 { 2 } else { 0 }, 9)];
        for (shown, total) in servers {
            let fetch = move |_, from| {
                let entries = ["b", "a"].into_iter().take(shown(from)).collect();
                std::future::ready(Ok(Page { entries, total: Some(total) }))
            };
            let all = pages(2, |name: &&str| name, fetch).collect::<Vec<_>>().now_or_never().unwrap();
            let [Ok(first), Err(error)] = &all[..] else { panic!("{all:?}") };
            assert_eq!(first, &["b", "a"]);
            assert!(error.to_string().contains("nothing new"), "{error}");
        }
    }

    #[test]
    fn what_is_made_meanwhile_doubles_nothing() {
        let lists = vec![vec!["c", "b", "a"], vec!["e", "d", "c", "b", "a"]];
        let mut seen = read(lists, 2, 99, true);
        seen.sort_unstable();
        seen.retain(|name| *name <= "c");
        assert_eq!(seen, ["a", "b", "c"], "those made meanwhile may come or not");
    }

    #[test]
    fn what_moves_to_the_front_meanwhile_is_found_there() {
        let before = vec!["f", "e", "d", "c", "b", "a"];
        for moved in [vec!["a"], vec!["b", "c"], vec!["a", "b", "c", "d"]] {
            for (size, tells) in [(2, true), (3, true), (3, false), (4, true)] {
                let rest = before.iter().copied().filter(|name| !moved.contains(name));
                let after: Vec<_> = moved.iter().copied().chain(rest).collect();
                let mut seen = read(vec![before.clone(), after.clone()], size, 99, tells);
                seen.sort_unstable();
                assert_eq!(seen, ["a", "b", "c", "d", "e", "f"], "{moved:?} {size} {tells}");
            }
        }
    }

    #[test]
    fn what_is_deleted_meanwhile_hides_nothing() {
        let before = vec!["f", "e", "d", "c", "b", "a"];
        for gone in [vec!["f"], vec!["f", "e"], vec!["f", "e", "d"], vec!["d", "c"]] {
            for size in [2, 3, 4] {
                let after: Vec<_> = before.iter().copied().filter(|name| !gone.contains(name)).collect();
                let seen = read(vec![before.clone(), after.clone()], size, 99, true);
                assert!(after.iter().all(|name| seen.contains(name)), "{gone:?} {size}: {seen:?}");
                let once: HashSet<_> = seen.iter().collect();
                assert_eq!(once.len(), seen.len(), "{seen:?}");
            }
        }
    }

    /// Chance, the same in every run (splitmix64).
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, n: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) % n as u64) as usize
        }
    }

    /// How a list changes while it is read.
    #[derive(Clone, Copy)]
    struct Habits {
        /// Changes in all.
        changes: usize,
        /// Most of them between two requests, less than a page has.
        at_once: fn(u64) -> usize,
        moves: bool,
        /// Where to.
        anywhere: bool,
        tells: bool,
    }

    /// Reads a list that changes by chance. What was missed or came twice of what was there all the time.
    fn history(seed: u64, habits: Habits) -> Option<String> {
        let mut chance = Chance(seed);
        let size = 2 + chance.below(5) as u64;
        let cap = if chance.below(4) == 0 { 2 + chance.below(3) as u64 } else { size };
        let count = chance.below(16);
        let list: Vec<String> = (0..count).rev().map(|n| format!("r{n}")).collect();
        let log = Arc::new(Mutex::new(vec![list.join(" ")]));
        let state = Arc::new(Mutex::new((list.clone(), habits.changes, 0u64, chance)));
        let (now, told) = (state.clone(), log.clone());
        let fetch = move |limit: u64, offset: u64| {
            let (list, left, asked, chance) = &mut *now.lock().unwrap();
            let most = (habits.at_once)(size.min(cap));
            let at_once = if *asked == 0 || chance.below(3) > 0 { 0 } else { chance.below(most + 1) };
            for _ in 0..at_once.min(*left) {
                *left -= 1;
                let place = if habits.anywhere { chance.below(list.len() + 1) } else { 0 };
                match chance.below(if habits.moves { 4 } else { 2 }) {
                    0 => list.insert(place, format!("new{left}")),
                    1 if !list.is_empty() => drop(list.remove(chance.below(list.len()))),
                    _ if !list.is_empty() => {
                        let moved = list.remove(chance.below(list.len()));
                        list.insert(place.min(list.len()), moved);
                    }
                    _ => {}
                }
            }
            *asked += 1;
            told.lock().unwrap().push(format!("{offset}+{limit}: {}", list.join(" ")));
            let entries = list.iter().skip(offset as usize).take(limit.min(cap) as usize).cloned().collect();
            std::future::ready(Ok(Page { entries, total: habits.tells.then_some(list.len() as u64) }))
        };
        let all = pages(size, |name: &String| name, fetch).collect::<Vec<_>>().now_or_never().unwrap();
        let all: Vec<String> = all.into_iter().flat_map(Result::unwrap).collect();
        let (there, twice) = (&state.lock().unwrap().0, all.len() - all.iter().collect::<HashSet<_>>().len());
        let missed: Vec<_> = list.iter().filter(|name| there.contains(name) && !all.contains(name)).collect();
        (twice > 0 || !missed.is_empty()).then(|| {
            format!("seed {seed}: {missed:?} missed, {twice} twice\n{}", log.lock().unwrap().join("\n"))
        })
    }

    fn survive(histories: u64, habits: Habits) {
        if let Some(fault) = (0..histories).find_map(|seed| history(seed, habits)) {
            panic!("{fault}");
        }
    }

    /// Fewer than a page has.
    const FEW: fn(u64) -> usize = |size| size as usize - 1;

    #[test]
    fn what_stays_is_given_once_whatever_is_used_made_and_deleted() {
        survive(30_000, Habits { changes: 8, at_once: FEW, moves: true, anywhere: false, tells: true });
        survive(5_000, Habits { changes: 40, at_once: FEW, moves: true, anywhere: false, tells: true });
    }

    #[test]
    fn what_nobody_moves_is_given_once_also_where_no_total_is_told() {
        for changes in [6, 60] {
            survive(10_000, Habits { changes, at_once: FEW, moves: false, anywhere: false, tells: false });
        }
    }

    #[test]
    fn what_is_moved_anywhere_is_given_once() {
        for tells in [false, true] {
            survive(10_000, Habits { changes: 6, at_once: |_| 6, moves: true, anywhere: true, tells });
        }
    }

    #[test]
    fn several_that_are_used_between_two_requests_hide_nothing() {
        let (before, after) = (vec!["f", "e", "d", "c", "b", "a"], vec!["f", "e", "a", "d", "c", "b"]);
        for quiet in 1..9 {
            let lists: Vec<_> = std::iter::repeat_n(before.clone(), quiet).chain([after.clone()]).collect();
            for (size, cap) in [(2, 99), (3, 99), (9, 2)] {
                let mut seen = read(lists.clone(), size, cap, true);
                seen.sort_unstable();
                assert_eq!(seen, ["a", "b", "c", "d", "e", "f"], "{quiet} {size}");
            }
        }
    }

    #[test]
    fn a_page_that_stood_alone_joins_nothing() {
        let all = ["r8", "r7", "r6", "r5", "r4", "r3", "r2", "r1", "r0"];
        let without =
            |gone: &[&str]| all.iter().copied().filter(|name| !gone.contains(name)).collect::<Vec<_>>();
        let lists = std::iter::repeat_n(without(&[]), 6)
            .chain([without(&["r3", "r2"]), without(&["r3", "r2", "r8"])])
            .collect();
        assert!(read(lists, 2, 99, true).contains(&"r1"));
    }

    #[test]
    fn a_list_that_never_stands_still_is_read_five_times() {
        let list = |first: u64| (0..9).map(|n| format!("r{}", first + 8 - n)).collect::<Vec<_>>();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let offsets = asked.clone();
        let fetch = move |limit: u64, offset: u64| {
            let mut offsets = offsets.lock().unwrap();
            offsets.push(offset);
            // Something is made before each request, and the oldest is gone.
            let list = list(offsets.len() as u64);
            let entries = list.into_iter().skip(offset as usize).take(limit as usize).collect();
            std::future::ready(Ok(Page { entries, total: Some(9) }))
        };
        let all = pages(4, |name: &String| name, fetch).collect::<Vec<_>>().now_or_never().unwrap();
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(asked.lock().unwrap().iter().filter(|offset| **offset == 0).count(), 5);
    }
}
