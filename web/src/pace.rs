//! How often the page takes in what changes.

/// How often.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pace {
    /// As it happens.
    #[default]
    Live,
    /// Every so many seconds, if something has changed.
    Every(u64),
    /// When somebody asks for it.
    Asked,
}

impl Pace {
    /// Those that are offered.
    pub const ALL: [Self; 5] = [Self::Live, Self::Every(5), Self::Every(30), Self::Every(300), Self::Asked];

    /// Its name where the browser keeps it.
    pub fn key(self) -> String {
        match self {
            Self::Live => "live".to_owned(),
            Self::Every(seconds) => seconds.to_string(),
            Self::Asked => "asked".to_owned(),
        }
    }

    /// The one of this name; the usual one for any other.
    pub fn read(key: &str) -> Self {
        Self::ALL.into_iter().find(|pace| pace.key() == key).unwrap_or_default()
    }

    /// The same for people.
    pub fn word(self) -> String {
        match self {
            Self::Live => "as it happens".to_owned(),
            Self::Every(seconds) if seconds.is_multiple_of(60) => format!("every {} min", seconds / 60),
            Self::Every(seconds) => format!("every {seconds} s"),
            Self::Asked => "when I ask".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paces_are_kept_by_name() {
        for pace in Pace::ALL {
            assert_eq!(Pace::read(&pace.key()), pace);
        }
        assert_eq!(Pace::read(""), Pace::Live);
        assert_eq!(Pace::read("7"), Pace::Live, "one that is not offered");
        assert_eq!(Pace::Every(300).word(), "every 5 min");
    }
}
