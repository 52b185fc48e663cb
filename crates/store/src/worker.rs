//! One thread that owns the connection: SQLite blocks, and callers must not.

use std::fmt;
use std::sync::mpsc;
use std::thread::JoinHandle;

use futures_channel::oneshot;
use futures_core::future::BoxFuture;
use retinker::recovery::journal::StoreError;
use rusqlite::Connection;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// Runs jobs one after the other. Dropping it waits for those that were handed over.
pub(crate) struct Worker {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

impl Worker {
    /// `kept` is dropped after the connection.
    pub(crate) fn start(
        mut connection: Connection,
        kept: impl Send + 'static,
    ) -> Result<Self, std::io::Error> {
        let (sender, receiver) = mpsc::channel::<Job>();
        let thread = std::thread::Builder::new().name("recovery-journal".to_owned()).spawn(move || {
            for job in receiver {
                job(&mut connection);
            }
            drop(connection);
            drop(kept);
        })?;
        Ok(Self { jobs: Some(sender), thread: Some(thread) })
    }

    /// Hands a job over at once; it is done even when the future is dropped.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // A caller that has gone does not want the answer.
            let _ = sender.send(job(connection));
        });
        let handed_over = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        Box::pin(async move {
            let gone = || StoreError::Unavailable("its thread has ended".to_owned());
            if !handed_over {
                return Err(gone());
            }
            receiver.await.unwrap_or_else(|_| Err(gone()))
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the thread itself.
            let _ = thread.join();
        }
    }
}
