//! Events as lines of JSON, in a file or on standard output.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use retinker::recovery::events::{EventSink, RecoveryEvent};

use super::HookError;
use super::queue::Lost;

/// Appends one JSON object for each event, on a line of its own.
///
/// Each line is one write at the file's end, so that several processes can append to one file of a local file system. A
/// line that cannot be written is lost; the first of them is told as a tracing error, and, once it is possible again, how
/// many there were. Part of a line can be left behind by a full disk; the next line still begins on its own, maybe after
/// an empty one. To rotate the file, copy and truncate it: it is kept open.
///
/// A program that takes standard output and does not read makes the monitor wait.
#[derive(Debug)]
pub struct JsonLines {
    to: Target,
    lost: Lost,
    /// The last write may have stopped within a line.
    broken: AtomicBool,
}

#[derive(Debug)]
enum Target {
    File(PathBuf, File),
    Stdout,
}

impl JsonLines {
    /// To the end of this file. It is made if it is missing, readable for its owner only (mode 0600, on Unix); its
    /// directory must exist.
    ///
    /// # Errors
    /// [`HookError::File`] if it cannot be opened.
    pub fn file(path: impl AsRef<Path>) -> Result<Self, HookError> {
        let path = path.as_ref().to_owned();
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        match options.open(&path) {
            Ok(file) => Ok(Self::to(Target::File(path, file))),
            Err(reason) => Err(HookError::File { path, reason }),
        }
    }

    /// To standard output.
    pub fn stdout() -> Self {
        Self::to(Target::Stdout)
    }

    fn to(to: Target) -> Self {
        Self { to, lost: Lost::default(), broken: AtomicBool::new(false) }
    }

    fn write(&self, event: &RecoveryEvent) -> io::Result<()> {
        let mut line = Vec::new();
        if self.broken.load(Ordering::Relaxed) {
            line.push(b'\n');
        }
        serde_json::to_writer(&mut line, event)?;
        line.push(b'\n');
        match &self.to {
            Target::File(_, file) => (&*file).write_all(&line),
            Target::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(&line)?;
                out.flush()
            }
        }
    }

    /// Where the lines go, for people.
    fn place(&self) -> String {
        match &self.to {
            Target::File(path, _) => path.display().to_string(),
            Target::Stdout => "standard output".to_owned(),
        }
    }
}

impl EventSink for JsonLines {
    fn tell(&self, event: &RecoveryEvent) {
        let written = self.write(event);
        self.broken.store(written.is_err(), Ordering::Relaxed);
        match written {
            Ok(()) => {
                if let Some(lost) = self.lost.take() {
                    tracing::error!(lost, "events are written to {} again; {lost} are missing", self.place());
                }
            }
            Err(error) => {
                if self.lost.add() {
                    tracing::error!(%error, "an event cannot be written to {}; the monitor goes on", self.place());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Log, event};
    use super::*;
    use retinker::recovery::events::EventKind;

    fn lines(path: &Path) -> Vec<RecoveryEvent> {
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.ends_with('\n'));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn lines_are_appended_to_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let events: Vec<_> = EventKind::ALL.map(|kind| event(kind, "two\nlines")).into();
        for half in events.chunks(5) {
            let sink = JsonLines::file(&path).unwrap();
            half.iter().for_each(|event| sink.tell(event));
        }
        assert_eq!(lines(&path), events);
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_its_owners_and_an_old_one_stays_as_it_is() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        JsonLines::file(&path).unwrap();
        assert_eq!(mode(), 0o600);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        JsonLines::file(&path).unwrap();
        assert_eq!(mode(), 0o640);
    }

    #[test]
    fn a_directory_that_is_missing_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let error = JsonLines::file(dir.path().join("none/events.jsonl")).unwrap_err().to_string();
        assert!(error.contains("none/events.jsonl") && error.contains("must exist"), "{error}");
        assert!(!dir.path().join("none").exists());
    }

    #[test]
    fn lines_of_two_writers_do_not_mix() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        std::thread::scope(|scope| {
            for run in ["a", "b"] {
                let sink = JsonLines::file(&path).unwrap();
                scope.spawn(move || {
                    let long = event(EventKind::Failed, &run.repeat(20_000));
                    (0..200).for_each(|_| sink.tell(&long));
                });
            }
        });
        let lines = lines(&path);
        let of = |run: &str| lines.iter().filter(|event| event.run_id == run.repeat(20_000)).count();
        assert_eq!((of("a"), of("b"), lines.len()), (200, 200, 400));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_told_once_and_what_is_missing_is_counted() {
        let log = Log::start();
        let mut sink = JsonLines::file("/dev/full").unwrap();
        for _ in 0..3 {
            sink.tell(&event(EventKind::Detected, "a"));
        }
        assert_eq!(log.count("cannot be written to /dev/full"), 1, "{}", log.text());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        std::fs::write(&path, "{\"half").unwrap();
        sink.to = JsonLines::file(&path).unwrap().to;
        sink.tell(&event(EventKind::Completed, "a"));
        assert_eq!(log.count("3 are missing"), 1, "{}", log.text());
        let text = std::fs::read_to_string(&path).unwrap();
        let (half, line) = text.split_once('\n').unwrap();
        assert_eq!(half, "{\"half");
        assert_eq!(serde_json::from_str::<RecoveryEvent>(line).unwrap(), event(EventKind::Completed, "a"));
    }
}
