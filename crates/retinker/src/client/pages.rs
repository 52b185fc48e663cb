//! Long lists, a page at a time, while they change.

use std::collections::HashSet;
use std::future::Future;

use futures_core::Stream;
use futures_util::stream;

use super::error::Error;

/// So many pages in a row without anything new are a list that is not one: a server that does not page, or tells a total that
/// it does not have, would be asked for ever.
const FRUITLESS: u32 = 100;

/// A page of a list: what stands from an offset on, and how many there are in all, where the server says so.
pub(super) struct Page<T> {
    pub(super) entries: Vec<T>,
    pub(super) total: Option<u64>,
}

/// All entries, a page at a time. Ends with the first page that fails, or when far too many bring nothing new.
///
/// A list with the newest first moves while it is read. What is new moves the others down: an entry that comes twice is
/// given once. What is deleted moves them up, past the place where the next page begins: so each page begins with the last
/// entry of the one before, and where it does not, the list is read again from a page before. What moves to the front
/// before it was read, as in a list by last use, is found there: at the end the list is read from its beginning once more, as
/// far as there is something new.
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
    // One entry is for the overlap.
    let size = page_size.max(2);
    let start = Some((fetch, Reading::default()));
    stream::unfold(start, move |state| async move {
        let (fetch, mut reading) = state?;
        for _ in 0..FRUITLESS {
            let page = match fetch(size, reading.from).await {
                Ok(page) => page,
                Err(error) => return Some((Err(error), None)),
            };
            let (new, more) = reading.take(page, size, id);
            match (new.is_empty(), more) {
                (true, false) => return None,
                (true, true) => {}
                (false, more) => return Some((Ok(new), more.then_some((fetch, reading)))),
            }
        }
        Some((Err(endless(reading.from)), None))
    })
}

/// How far a list has been read.
#[derive(Default)]
struct Reading {
    /// Where the next page begins.
    from: u64,
    seen: HashSet<String>,
    /// Whether the end was reached before.
    again: bool,
}

impl Reading {
    /// The entries of a page that have not come before, and whether there is another page to read.
    fn take<T>(&mut self, page: Page<T>, size: u64, id: fn(&T) -> &str) -> (Vec<T>, bool) {
        let (from, came) = (self.from, page.entries.len() as u64);
        let joins = from == 0 || page.entries.first().is_some_and(|first| self.seen.contains(id(first)));
        let new: Vec<T> =
            page.entries.into_iter().filter(|entry| self.seen.insert(id(entry).to_owned())).collect();
        let end = from + came;
        // A server may cap the page below what was asked for, so only its total tells the end, or, where it tells
        // none, a page with nothing new.
        let more = match page.total.filter(|total| *total > 0) {
            Some(total) => came > 0 && end < total,
            None => came > 0 && !new.is_empty(),
        };
        let next = if self.again {
            (more && !new.is_empty()).then_some(end)
        } else if !joins {
            Some(from.saturating_sub(size - 1))
        } else if more {
            // At least one further than before, also where a page has only the overlap.
            Some(end.saturating_sub(1).max(from + 1))
        } else if from > 0 {
            self.again = true;
            Some(0)
        } else {
            None
        };
        self.from = next.unwrap_or(from);
        (new, next.is_some())
    }
}

fn endless(from: u64) -> Error {
    let what =
        format!("{FRUITLESS} in a row hold nothing new, and it is not at its end by what the server says");
    Error::unreadable(format!("a list, from {from} on"), "its pages", what)
}

#[cfg(test)]
mod tests {
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
}
