//! Where a journal is kept, as a person says it.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use retinker::client::Secret;

use crate::postgres::Address;

/// Where a journal is kept. Neither `Debug` nor `Display` tells a password.
#[derive(Debug, Clone)]
pub enum Location {
    /// In SQLite, in this directory.
    Directory(PathBuf),
    /// In the database that this URL names: `postgres://user:password@host:port/database`. Secret for the password in it.
    Database(Secret),
}

impl Location {
    /// The options of the command line that choose another.
    pub fn option(&self) -> &'static str {
        match self {
            Self::Directory(_) => "--journal or --data-dir",
            Self::Database(_) => "--journal",
        }
    }
}

impl From<OsString> for Location {
    /// What reads like a URL is a database; everything else is a directory. Whether it is a right one is seen when it is
    /// opened: a parser of arguments would show what it refuses, and with it the password.
    fn from(text: OsString) -> Self {
        match text.to_str() {
            Some(url) if url.contains("://") => Self::Database(Secret::new(url)),
            _ => Self::Directory(text.into()),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "the data directory {}", path.display()),
            Self::Database(url) => match Address::parse(url) {
                Ok(address) => address.fmt(f),
                Err(_) => f.write_str("a database"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_databases_and_tell_no_password() {
        for url in
            ["postgres://me:hunter2@db.example:5433/journal", "postgresql://me:hunter2@db.example/journal"]
        {
            let location = Location::from(OsString::from(url));
            assert!(matches!(location, Location::Database(_)));
            let told = format!("{location} {location:?}");
            assert!(told.contains("db.example") && told.contains("journal"), "{told}");
            assert!(!told.contains("hunter2"), "{told}");
        }
        assert!(matches!(Location::from(OsString::from("mysql://me:hunter2@x/y")), Location::Database(_)));
    }

    #[test]
    fn everything_else_is_a_directory() {
        for path in ["data", "/var/lib/retinker", "postgres", r"C:\data"] {
            let location = Location::from(OsString::from(path));
            assert_eq!(location.to_string(), format!("the data directory {path}"));
        }
    }
}
