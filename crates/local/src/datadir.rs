//! The data directory: its layout, its lock, and who may read it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::error::StartError;

/// Where things lie in a data directory.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The database.
    pub(crate) fn database(&self) -> PathBuf {
        self.root.join("service.sqlite")
    }

    /// Where checkpoints lie; rows of the database name directories below it.
    pub(crate) fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// Where checkpoints are written, and go to be removed: all in one place, so that a start need not look for what a crash
    /// left among a million directories.
    pub(crate) fn unfinished(&self) -> PathBuf {
        self.root.join("unfinished")
    }

    /// Where trainers put runs aside that do not fit into memory.
    pub(crate) fn aside(&self) -> PathBuf {
        self.root.join("aside")
    }

    /// The directory itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }
}

/// Makes the directory if need be and takes its lock, which is held while the file is open.
pub(crate) fn open(root: &Path) -> Result<(Layout, File), StartError> {
    let fail = |reason: String| StartError::DataDir { path: root.to_owned(), reason };
    match fs::metadata(root) {
        Ok(metadata) if metadata.is_dir() => keep_private(root, 0o700),
        Ok(_) => return Err(fail("it is not a directory".to_owned())),
        Err(_) => make_private(root).map_err(|e| fail(format!("it cannot be made ({e})")))?,
    }
    let unwritable = |e: io::Error| match out_of_room(&e) {
        true => StartError::DiskFull { path: root.to_owned() },
        false => fail(format!("it cannot be written ({e})")),
    };
    let mut lock = open_private(&root.join("lock")).map_err(unwritable)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let pid = lock.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(StartError::InUse { path: root.to_owned(), pid });
        }
        Err(TryLockError::Error(e)) => return Err(fail(format!("it cannot be locked ({e})"))),
    }
    let write_pid = |lock: &mut File| {
        lock.set_len(0)?;
        lock.rewind()?;
        writeln!(lock, "{}", std::process::id())?;
        lock.sync_all()
    };
    write_pid(&mut lock).map_err(unwritable)?;
    let layout = Layout { root: root.to_owned() };
    let checkpoints = layout.checkpoints();
    if checkpoints.is_dir() {
        keep_private(&checkpoints, 0o700);
    } else {
        make_private(&checkpoints).map_err(|e| match out_of_room(&e) {
            true => StartError::DiskFull { path: root.to_owned() },
            false => fail(format!("checkpoints cannot be kept in it ({e})")),
        })?;
    }
    remove_leftovers(&layout.unfinished());
    open_database_file(&layout, unwritable)?;
    Ok((layout, lock))
}

/// Makes the database's file if there is none, and keeps what the database consists of private. Without the database
/// nobody knows what the checkpoints are, so a directory that has some is not taken for a new one.
fn open_database_file(layout: &Layout, fail: impl FnOnce(io::Error) -> StartError) -> Result<(), StartError> {
    let path = layout.database();
    let found = fs::metadata(&path).ok().map(|file| file.len());
    if found.unwrap_or(0) == 0 {
        let checkpoints = stored(&layout.checkpoints()).count();
        if checkpoints > 0 {
            let missing = found.is_none();
            return Err(StartError::DatabaseGone { path: layout.root.clone(), checkpoints, missing });
        }
    }
    open_private(&path).map_err(fail)?;
    for suffix in ["", "-wal", "-shm"] {
        let mut file = path.clone().into_os_string();
        file.push(suffix);
        keep_private(Path::new(&file), 0o600);
    }
    Ok(())
}

/// Whether a write failed for want of room.
pub(crate) fn out_of_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether the file system of a directory has no room left, found by trying.
pub(crate) fn is_full(root: &Path) -> bool {
    let path = root.join("room");
    let written = open_private(&path).and_then(|mut file| {
        file.write_all(&[0; 64 << 10])?;
        file.sync_all()
    });
    let _ = fs::remove_file(&path);
    written.is_err_and(|error| out_of_room(&error))
}

/// Opens a file for writing, made if need be so that only its owner can read it.
pub(crate) fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)
}

/// Takes from others what they may do with something that is there already. Some file systems cannot; the service
/// then works all the same.
#[cfg(unix)]
fn keep_private(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    let Ok(metadata) = fs::metadata(path) else { return };
    if metadata.permissions().mode() & 0o777 != mode
        && let Err(error) = fs::set_permissions(path, fs::Permissions::from_mode(mode))
    {
        tracing::warn!(path = %path.display(), %error, "others may be able to read this");
    }
}

#[cfg(not(unix))]
fn keep_private(_path: &Path, _mode: u32) {}

/// Makes a directory, with its parents, that only its owner can enter.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    private_builder().recursive(true).create(path)
}

/// Makes directories that only their owner can enter.
pub(crate) fn private_builder() -> fs::DirBuilder {
    #[cfg_attr(not(unix), allow(unused_mut))] // Only Unix has modes.
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder
}

/// The directories of checkpoints: `checkpoints/<run>/<kind>/*`.
fn stored(checkpoints: &Path) -> impl Iterator<Item = fs::DirEntry> {
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
    let kinds = entries(checkpoints).flat_map(move |run| entries(&run.path()));
    kinds.flat_map(move |kind| entries(&kind.path())).filter(|entry| entry.path().is_dir())
}

/// Removes a directory of things that mean nothing to this process.
pub(crate) fn remove_leftovers(directory: &Path) {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %directory.display(), %error, "leftovers of an earlier process could not be removed");
        }
        _ => {}
    }
}

/// A text as a file name on any file system: other than letters, digits, `.`, `_` and `-` become `%` and two hex
/// digits. Reversible, so two texts never share a name.
pub(crate) fn file_name(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => name.push(char::from(byte)),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_any_file_system() {
        assert_eq!(file_name("0c1f:train:0"), "0c1f%3Atrain%3A0");
        assert_eq!(file_name("a/../b"), "a%2F..%2Fb");
        assert_ne!(file_name("a:b"), file_name("a%3Ab"));
    }

    #[test]
    fn half_written_directories_go_and_whole_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (layout, lock) = open(dir.path()).unwrap();
        let done = layout.checkpoints().join("run").join("weights").join("done");
        fs::create_dir_all(&done).unwrap();
        fs::create_dir_all(layout.unfinished().join("1")).unwrap();
        // As the database that names it would be.
        fs::write(layout.database(), "x").unwrap();
        drop(lock);
        open(dir.path()).unwrap();
        assert!(!layout.unfinished().join("1").exists());
        assert!(done.exists());
    }

    #[cfg(unix)]
    #[test]
    fn only_its_owner_can_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("a").join("b");
        let (_layout, _lock) = open(&root).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let (checkpoints, database) = (root.join("checkpoints"), root.join("service.sqlite"));
        assert_eq!([mode(&root), mode(&checkpoints), mode(&database)], [0o700, 0o700, 0o600]);

        // Made by hand, or by an earlier version.
        set(&root, 0o755);
        set(&checkpoints, 0o777);
        set(&database, 0o644);
        let wal = root.join("service.sqlite-wal");
        fs::write(&wal, "").unwrap();
        set(&wal, 0o644);
        drop(_lock);
        open(&root).unwrap();
        assert_eq!([mode(&root), mode(&checkpoints), mode(&database)], [0o700, 0o700, 0o600]);
        assert_eq!(mode(&wal), 0o600);
    }

    #[test]
    fn checkpoints_without_a_database_are_no_new_directory() {
        let dir = tempfile::tempdir().unwrap();
        let weights = dir.path().join("checkpoints").join("run").join("weights");
        fs::create_dir_all(&weights).unwrap();
        // What was never acknowledged does not count.
        drop(open(dir.path()).unwrap());
        fs::create_dir_all(weights.join("a")).unwrap();
        fs::create_dir_all(weights.join("b")).unwrap();
        let database = dir.path().join("service.sqlite");
        assert_eq!(fs::metadata(&database).unwrap().len(), 0);
        let empty = open(dir.path()).unwrap_err().to_string();
        fs::remove_file(&database).unwrap();
        let gone = open(dir.path()).unwrap_err().to_string();
        let path = dir.path().display();
        for (text, how) in [(empty, "empty"), (gone, "gone")] {
            let expected = format!(
                "data directory {path} holds 2 checkpoints but its database service.sqlite is {how}: restore \
                 service.sqlite from a backup, or choose another directory with --data-dir"
            );
            assert_eq!(text, expected);
        }
        assert!(!database.exists(), "a start that was refused left an empty database");
    }

    #[test]
    fn want_of_room_is_told_from_other_failures() {
        for (kind, full) in [
            (io::ErrorKind::StorageFull, true),
            (io::ErrorKind::QuotaExceeded, true),
            (io::ErrorKind::PermissionDenied, false),
        ] {
            assert_eq!(out_of_room(&kind.into()), full, "{kind}");
        }
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_full(dir.path()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
