//! Texts of a service within sentences of ours: a name in Hebrew or Arabic, or one with marks that turn what follows, moves
//! nothing that stands beside it.

/// The text to be put into a sentence. One that reads from right to left is isolated (U+2068, U+2069, of the Unicode
/// Bidirectional Algorithm, UAX 9); marks that embed, override or isolate are left out, since one that is never closed would
/// reach beyond it. Any other text stays as it is.
pub fn isolated(text: &str) -> String {
    let plain: String = text.chars().filter(|letter| !is_mark(*letter)).collect();
    match plain.chars().any(reads_leftwards) {
        true => format!("\u{2068}{plain}\u{2069}"),
        false => plain,
    }
}

/// Embeddings and overrides with their end, and isolates with theirs.
fn is_mark(letter: char) -> bool {
    matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Letters, digits and marks by which a text is read from right to left: the blocks of such scripts.
fn reads_leftwards(letter: char) -> bool {
    matches!(letter,
        '\u{200f}' | '\u{0590}'..='\u{08ff}' | '\u{fb1d}'..='\u{feff}' | '\u{10800}'..='\u{10fff}'
        | '\u{1e800}'..='\u{1efff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::test;

    #[test]
    fn only_what_turns_is_isolated_and_nothing_is_left_open() {
        for plain in ["", "nightly 2", "Größe 100 %", "名前", "a\u{200e}b"] {
            assert_eq!(isolated(plain), plain);
        }
        assert_eq!(isolated("שלום 1"), "\u{2068}שלום 1\u{2069}");
        assert_eq!(isolated("a\u{202e}b\u{2067}c"), "abc");
        assert_eq!(isolated("\u{2069}مرحبا\u{2066}"), "\u{2068}مرحبا\u{2069}");
    }
}
