//! Percent-encoding for the few places that need it; the `url` crate would weigh more than everything around it.

/// Encodes everything but RFC 3986's unreserved characters, and those of `also` (for ids in a path: `:`).
pub(super) fn percent(text: &str, also: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let hex = |nibble: u8| HEX.get(usize::from(nibble)).copied().map_or('0', char::from);
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || also.as_bytes().contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(hex(byte >> 4));
            out.push(hex(byte & 15));
        }
    }
    out
}

/// An id as one segment of a path. `.` and `..` would be taken for steps, so their dots are encoded.
pub(super) fn segment(id: &str) -> String {
    match id {
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        other => percent(other, ":"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::test;

    #[test]
    fn encodes_what_must_be_and_no_more() {
        assert_eq!(percent("a b&c=d+é/?#%", ""), "a%20b%26c%3Dd%2B%C3%A9%2F%3F%23%25");
        assert_eq!(segment("s:train:0"), "s:train:0");
        assert_eq!(segment("../x"), "..%2Fx");
        assert_eq!(segment(".."), "%2E%2E");
    }
}
