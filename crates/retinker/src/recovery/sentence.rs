//! Sentences of ours that have text of a service's in them.

/// The sentence without what in such a text would turn the rest of it round or break it: the marks that set a direction for
/// what follows (Unicode's Bidi_Control but the implicit marks, which act on nothing beyond themselves), and control
/// characters. Letters keep their own direction. What is compared or sent back, such as an id, is never changed so.
pub fn sentence(text: &str) -> String {
    let is_kept =
        |c: &char| !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') && !c.is_control();
    text.chars().filter(is_kept).collect()
}

/// A difference with four digits after the point. In whole numbers, since the code that prints a fraction is large.
pub(crate) fn four_places(size: f32) -> String {
    if !size.is_finite() {
        return "no number".to_owned();
    }
    // A cast from a float is held to the range.
    let parts = (f64::from(size.abs()) * 10_000.0).round() as u64;
    format!("{}.{:04}", parts / 10_000, parts % 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::test;

    #[test]
    fn nothing_turns_the_rest_round() {
        let odd = "It can be restored from \u{2066}\u{202e}a\u{0}b\n\u{2069}שלום\u{200f}é.";
        assert_eq!(sentence(odd), "It can be restored from abשלום\u{200f}é.");
        assert_eq!(sentence(""), "");
    }

    #[test]
    fn differences_have_four_places() {
        for size in [0.0, 0.01, 0.00005, 0.12345, 1.99996, 7.5, 12345.678] {
            assert_eq!(four_places(size), format!("{size:.4}"));
        }
        assert_eq!(four_places(f32::INFINITY), "no number");
        assert_eq!(four_places(f32::NAN), "no number");
    }
}
