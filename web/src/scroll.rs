//! Which rows of a long list are on the page: arithmetic for rows of one height.

/// The tallest element that every browser draws, in pixels, with room to spare: Firefox ends at 17.8 million.
const TALLEST: f64 = 8_000_000.0;
/// Rows beyond each edge that are there before they are seen.
const AROUND: u64 = 4;
/// Windows of rows are asked for in steps of this many, so that a little scrolling asks for nothing.
const STEP: u64 = 16;

/// A frame on a list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frame {
    /// Rows in the list.
    pub total: u64,
    /// A row's height in pixels.
    pub row: f64,
    /// The frame's height in pixels.
    pub height: f64,
    /// How far it is scrolled, in pixels.
    pub top: f64,
}

impl Frame {
    /// The height of what is scrolled, in pixels.
    pub fn tall(&self) -> f64 {
        self.whole().min(TALLEST)
    }

    fn whole(&self) -> f64 {
        self.total as f64 * self.row
    }

    /// Pixels of the list for each pixel of scrolling: 1, until the list is taller than an element can be.
    fn squeeze(&self) -> f64 {
        let (whole, tall) = (self.whole() - self.height, self.tall() - self.height);
        if tall > 0.0 && whole > tall { whole / tall } else { 1.0 }
    }

    /// Where the frame begins, in pixels of the list.
    fn begins(&self) -> f64 {
        let last = (self.whole() - self.height).max(0.0);
        (self.top.max(0.0) * self.squeeze()).min(last)
    }

    /// The first row to draw, and the one after the last.
    pub fn drawn(&self) -> (u64, u64) {
        if self.total == 0 || self.row <= 0.0 {
            return (0, 0);
        }
        let first = (self.begins() / self.row) as u64;
        let seen = (self.height.max(0.0) / self.row).ceil() as u64 + 1;
        (first.saturating_sub(AROUND), first.saturating_add(seen).saturating_add(AROUND).min(self.total))
    }

    /// Where a row's upper edge is within what is scrolled, in pixels.
    pub fn place(&self, index: u64) -> f64 {
        let from_top = index as f64 * self.row - self.begins();
        // Beside the frame's own place, and not the row's, since rows keep their height where the list is squeezed.
        self.begins() / self.squeeze() + from_top
    }

    /// The window to ask for: where it begins, and how many rows. Before anything is known of the list it is the first.
    pub fn asked(&self) -> (u64, u64) {
        let seen = if self.row > 0.0 { (self.height.max(0.0) / self.row).ceil() as u64 } else { 0 };
        let (from, to) = match self.drawn() {
            (_, 0) => (0, seen.saturating_add(AROUND)),
            drawn => drawn,
        };
        let from = from / STEP * STEP;
        (from, to.saturating_sub(from).div_ceil(STEP).max(1) * STEP)
    }

    /// How far to scroll so that a row is wholly seen: as far as now, if it is. `head` pixels at the top are covered.
    pub fn shows(&self, index: u64, head: f64) -> f64 {
        let begins = self.begins();
        let (upper, lower) = (index as f64 * self.row, (index as f64 + 1.0) * self.row);
        let wanted = if upper < begins {
            upper
        } else if lower > begins + self.height - head {
            lower - self.height + head
        } else {
            return self.top;
        };
        wanted.max(0.0) / self.squeeze()
    }

    /// Whole rows in the frame: how far a page goes.
    pub fn page(&self) -> u64 {
        ((self.height / self.row.max(1.0)) as u64).saturating_sub(1).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(total: u64, top: f64) -> Frame {
        Frame { total, row: 50.0, height: 500.0, top }
    }

    #[test]
    fn a_screenful_is_drawn_and_no_more() {
        assert_eq!(frame(0, 0.0).drawn(), (0, 0));
        assert_eq!(frame(3, 0.0).drawn(), (0, 3));
        assert_eq!(frame(100_000, 0.0).drawn(), (0, 15));
        assert_eq!(frame(100_000, 1_000.0).drawn(), (16, 35));
        assert_eq!(frame(100_000, 4_999_500.0).drawn(), (99_986, 100_000), "the end");
        assert_eq!(frame(100_000, 9e9).drawn(), (99_986, 100_000), "beyond the end");
        assert_eq!(frame(100, -40.0).drawn().0, 0, "an elastic browser scrolls before the start");
    }

    #[test]
    fn windows_go_in_steps() {
        assert_eq!(frame(0, 0.0).asked(), (0, 16), "before anything is known");
        assert_eq!(frame(100_000, 0.0).asked(), (0, 16));
        assert_eq!(frame(100_000, 1_000.0).asked(), (16, 32));
        assert_eq!(frame(100_000, 1_040.0).asked(), (16, 32));
        let (from, many) = frame(100_000, 777_777.0).asked();
        let (first, end) = frame(100_000, 777_777.0).drawn();
        assert!(from <= first && end <= from + many);
    }

    #[test]
    fn rows_lie_where_they_are_seen() {
        let here = frame(100_000, 1_000.0);
        assert_eq!(here.place(20), 1_000.0);
        assert_eq!(here.place(21), 1_050.0);
        assert_eq!(here.tall(), 5_000_000.0);
    }

    #[test]
    fn a_million_rows_are_all_reached() {
        let million = frame(1_000_000, 0.0);
        assert_eq!(million.tall(), TALLEST);
        let end = frame(1_000_000, million.tall() - 500.0);
        assert_eq!(end.drawn().1, 1_000_000);
        assert!(
            (end.place(999_999) - (million.tall() - 50.0)).abs() < 0.01,
            "the last row ends with the list"
        );
        let middle = frame(1_000_000, million.tall() / 2.0);
        let first = middle.drawn().0 + AROUND;
        let seen = middle.place(first) - middle.top;
        assert!((-50.0..=0.0).contains(&seen), "{seen}");
        for wanted in [0, 1, 499_999, 999_999] {
            let there = Frame { top: middle.shows(wanted, 0.0), ..middle };
            let at = there.place(wanted) - there.top;
            assert!((-0.01..=450.01).contains(&at), "{wanted} is at {at}");
        }
    }

    #[test]
    fn a_row_is_brought_into_sight_by_the_least_way() {
        let here = frame(1_000, 1_000.0);
        assert_eq!(here.shows(22, 0.0), 1_000.0, "seen already");
        assert_eq!(here.shows(10, 0.0), 500.0);
        assert_eq!(here.shows(40, 0.0), 41.0 * 50.0 - 500.0);
        assert_eq!(here.shows(40, 36.0), 41.0 * 50.0 - 464.0, "the head covers a part");
        assert_eq!((here.page(), frame(1, 0.0).page()), (9, 9));
    }
}
