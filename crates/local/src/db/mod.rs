//! The database: one thread that writes, in the order asked, several requests to a commit.
//!
//! What is asked for together is committed together, so a burst of requests costs a few disk flushes, not one each. A
//! ticket resolves once its change is on the disk. Nearly everything is read once, at start, and comes from the index later;
//! only where a checkpoint's files lie is read when they are used.

mod place;
mod read;
mod schema;
mod tables;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::error::StartError;

use place::Place;
pub(crate) use read::Rows;
pub(crate) use tables::{
    CheckpointKind, CheckpointRow, CheckpointState, Files, NewCheckpoint, NewRun, NewSampler, Progress,
    RunRow, SamplerRow, SessionEnd, SessionRow, sql,
};

/// How many changes share a commit at most.
const BATCH: usize = 256;

/// A change that could not be made durable.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum DbError {
    /// The data directory, or the database in it, is no longer there.
    #[error(
        "data directory {} is gone: its database was removed or replaced while the service was running; stop the \
         service, put the directory back or choose another with --data-dir, and start it again",
        .0.display()
    )]
    Gone(PathBuf),
    /// There is no room; names the data directory.
    #[error("the disk is full: free space on the file system of {}", .0.display())]
    Full(PathBuf),
    /// The file could not be reached or written.
    #[error("the database could not be written: {0}")]
    Access(String),
    /// Anything else.
    #[error("the database could not be written: {0}")]
    Other(String),
}

/// The database.
#[derive(Debug)]
pub(crate) struct Db {
    queue: mpsc::Sender<Message>,
    thread: std::sync::Mutex<Option<JoinHandle<()>>>,
    /// For what is read now and then; `None` once closed.
    reader: std::sync::Mutex<Option<Connection>>,
    place: Place,
}

enum Message {
    Write(Box<dyn Work>),
    Close,
}

/// One change, and whoever waits for it.
trait Work: Send {
    fn run(&mut self, connection: &Connection, place: &Place);
    fn finish(self: Box<Self>, commit: Result<(), DbError>);
}

struct Change<F, T> {
    change: Option<F>,
    outcome: Result<T, DbError>,
    reply: oneshot::Sender<Result<T, DbError>>,
}

impl<F, T> Work for Change<F, T>
where
    F: FnOnce(&Connection) -> rusqlite::Result<T> + Send,
    T: Send,
{
    fn run(&mut self, connection: &Connection, place: &Place) {
        let Some(change) = self.change.take() else { return };
        // A savepoint each, so that a change that fails takes none of its neighbours with it.
        let outcome = connection.execute_batch("SAVEPOINT change").and_then(|()| {
            let outcome = change(connection);
            let end = if outcome.is_ok() { "RELEASE change" } else { "ROLLBACK TO change; RELEASE change" };
            connection.execute_batch(end)?;
            outcome
        });
        self.outcome = outcome.map_err(|e| place.error(&e));
    }

    fn finish(self: Box<Self>, commit: Result<(), DbError>) {
        // Whoever asked may have stopped waiting.
        let _ = self.reply.send(commit.and(self.outcome));
    }
}

/// A change under way.
#[must_use = "the change is durable only once its ticket has resolved"]
pub(crate) struct Ticket<T>(oneshot::Receiver<Result<T, DbError>>);

impl<T> Ticket<T> {
    /// Waits without blocking the thread.
    pub(crate) async fn done(self) -> Result<T, DbError> {
        self.0.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Waits on a thread that may block.
    pub(crate) fn wait(self) -> Result<T, DbError> {
        self.0.blocking_recv().unwrap_or_else(|_| Err(closed()))
    }
}

fn closed() -> DbError {
    DbError::Other("the service is stopping".to_owned())
}

impl Db {
    /// Opens or makes the database and reads all of it. The lock is held until the database is closed.
    pub(crate) fn open(root: &Path, path: &Path, lock: File) -> Result<(Self, Rows), StartError> {
        let place = Place::new(root, path);
        let fail = |e: rusqlite::Error| place.start_error(&e);
        let connection = Connection::open(path).map_err(fail)?;
        let found = schema::prepare(&connection).map_err(fail)?;
        if found > schema::VERSION {
            return Err(StartError::NewerFormat { path: root.to_owned(), found, known: schema::VERSION });
        }
        connection.execute_batch(crate::metrics::TABLES).map_err(fail)?;
        let rows = read::read_all(&connection).map_err(fail)?;
        let reader = read::reader(path).map_err(fail)?;
        let (queue, messages) = mpsc::channel();
        let written = place.clone();
        let thread = std::thread::Builder::new()
            .name("retinker-db".to_owned())
            .spawn(move || {
                serve(&connection, &messages, &written);
                drop(connection);
                drop(lock);
            })
            .map_err(|e| StartError::Other(format!("the database thread cannot be started ({e})")))?;
        let (thread, reader) = (std::sync::Mutex::new(Some(thread)), std::sync::Mutex::new(Some(reader)));
        Ok((Self { queue, thread, reader, place }, rows))
    }

    /// Whether the data directory still has this database.
    pub(crate) fn is_there(&self) -> bool {
        self.place.is_there()
    }

    /// Asks for a change. Changes are made in the order in which they are asked for.
    pub(crate) fn write<T, F>(&self, change: F) -> Ticket<T>
    where
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let (reply, ticket) = oneshot::channel();
        let work = Change { change: Some(change), outcome: Err(closed()), reply };
        // A send fails after the end only; the dropped reply then says so.
        let _ = self.queue.send(Message::Write(Box::new(work)));
        Ticket(ticket)
    }

    /// Reads what is durable. Blocks for as long as that takes, and one reads at a time.
    pub(crate) fn read<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, DbError> {
        let reader = crate::sync::lock(&self.reader);
        read(reader.as_ref().ok_or_else(closed)?).map_err(|e| self.place.error(&e))
    }

    /// Finishes what was asked for, closes the file and gives up the lock. Blocks.
    pub(crate) fn close(&self) {
        let _ = self.queue.send(Message::Close);
        drop(crate::sync::lock(&self.reader).take());
        let thread = crate::sync::lock(&self.thread).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the database thread ended in a panic");
        }
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        let _ = self.queue.send(Message::Close);
    }
}

fn serve(connection: &Connection, messages: &mpsc::Receiver<Message>, place: &Place) {
    let mut closing = false;
    while !closing {
        let Ok(first) = messages.recv() else { return };
        let mut batch = Vec::new();
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Write(work) => batch.push(work),
                Message::Close => {
                    closing = true;
                    break;
                }
            }
            next = if batch.len() < BATCH { messages.try_recv().ok() } else { None };
        }
        if batch.is_empty() {
            continue;
        }
        let commit = commit(connection, &mut batch, place).and_then(|()| place.check());
        if let Err(error) = &commit {
            tracing::error!(%error, "changes were lost");
        }
        for work in batch {
            work.finish(commit.clone());
        }
    }
}

fn commit(connection: &Connection, batch: &mut [Box<dyn Work>], place: &Place) -> Result<(), DbError> {
    // Before, so that nothing refused is found there when the directory is put back; and after, when it went meanwhile.
    place.check()?;
    let made = connection.execute_batch("BEGIN IMMEDIATE").and_then(|()| {
        for work in batch.iter_mut() {
            work.run(connection, place);
        }
        connection.execute_batch("COMMIT")
    });
    made.map_err(|e| {
        // After a failed commit the transaction may still be open; the next one needs it gone.
        let _ = connection.execute_batch("ROLLBACK");
        place.error(&e)
    })
}
