//! Ids: UUIDs with dashes for Lineage, and the same without for Work.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// A UUID. Of any version: those that are derived have none. Read with dashes only, as lineage_ir does; in lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid([u8; 16]);

impl Uuid {
    /// The one that is derived from these texts: the first half of the SHA-256 of them, joined by `|`. The same everywhere.
    pub fn derived(parts: &[&str]) -> Self {
        let digest = Sha256::digest(parts.join("|"));
        let mut id = [0; 16];
        id.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        Self(id)
    }

    /// As Work writes its ids: 32 digits, no dashes.
    pub fn undashed(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// An id of Work's.
    ///
    /// # Errors
    /// If it is not of 32 hexadecimal digits.
    pub fn of_work(text: &str) -> Result<Self, String> {
        digits(text).ok_or_else(|| format!("'{text}' is no id of 32 hexadecimal digits"))
    }
}

fn digits(text: &str) -> Option<Uuid> {
    let mut id = [0; 16];
    if text.len() != 32 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(Uuid(id))
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Uuid {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let groups: Vec<usize> = text.split('-').map(str::len).collect();
        let bare = text.replace('-', "");
        let dashed = groups == [8, 4, 4, 4, 12];
        dashed.then(|| digits(&bare)).flatten().ok_or_else(|| format!("'{text}' is no UUID with dashes"))
    }
}

impl Serialize for Uuid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Uuid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ids_are_read_with_dashes_and_in_any_case() {
        let id: Uuid = "6BA7B810-9dad-11d1-80b4-00c04fd430c8".parse().unwrap();
        assert_eq!(id.to_string(), "6ba7b810-9dad-11d1-80b4-00c04fd430c8");
        assert_eq!(Uuid::of_work(&id.undashed()), Ok(id));
        for wrong in [
            "6ba7b8109dad11d180b400c04fd430c8",
            "6ba7b810-9dad-11d1-80b400c04fd430c8-",
            "x",
            "tinker://a/weights/b",
        ] {
            assert!(wrong.parse::<Uuid>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_derived_is_the_half_of_a_digest() {
        // printf 'a|b' | sha256sum
        assert_eq!(Uuid::derived(&["a", "b"]).undashed(), "0eab8a0a3380abf4c7d1fb0b43b66aaf");
    }
}
