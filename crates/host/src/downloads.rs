//! Checkpoints on their way to a browser's disk.
//!
//! A link carries no header, and a page that read gigabytes by itself would hold them in memory. So the page asks, with the
//! host's token, for an address that is a secret of its own: it is good once and for a minute, and leads to this one
//! archive (decision 23).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::{HeaderValue, StatusCode, header};
use retinker::client::{Api, Download, Secret};
use retinker::host::api::ApiProblem;
use retinker::host::checkpoints::DownloadState;
use tokio::sync::Notify;

use crate::problem::{Problem, of_service};

/// How long an address waits for whoever asked for it.
const WAITS: Duration = Duration::from_secs(60);

/// How long it is remembered what became of a download.
const REMEMBERED: Duration = Duration::from_secs(3_600);

/// Downloads that are known at once; the oldest are forgotten first.
const MOST: usize = 200;

/// Where the addresses lead.
pub(crate) const PREFIX: &str = "/download/";

/// The downloads of a host, whatever connection they are of.
#[derive(Debug, Default)]
pub(crate) struct Downloads {
    all: Mutex<HashMap<String, Arc<Transfer>>>,
}

/// One download.
#[derive(Debug)]
pub(crate) struct Transfer {
    api: Api,
    path: String,
    file: String,
    begun: Instant,
    received: AtomicU64,
    inner: Mutex<Inner>,
    /// Told when somebody has it stopped.
    stop: Notify,
}

#[derive(Debug)]
struct Inner {
    /// The last part of the address here; taken by the first who names it.
    secret: Option<Secret>,
    /// Where the service has the archive.
    address: Secret,
    about: Option<u64>,
    done: bool,
    problem: Option<ApiProblem>,
}

impl Downloads {
    /// Prepares a download of what the service has at `address`.
    pub(crate) fn prepare(
        &self,
        api: Api,
        path: String,
        address: Secret,
        about: Option<u64>,
    ) -> Result<DownloadState, Problem> {
        let (id, secret) = (random()?, random()?);
        let inner = Inner { secret: Some(Secret::new(&secret)), address, about, done: false, problem: None };
        let transfer = Arc::new(Transfer {
            api,
            file: file_name(&path),
            path,
            begun: Instant::now(),
            received: AtomicU64::new(0),
            inner: Mutex::new(inner),
            stop: Notify::new(),
        });
        let state = DownloadState { address: format!("{PREFIX}{secret}"), ..transfer.state(&id) };
        let mut all = self.all();
        // One that goes on is known for as long as it does.
        all.retain(|_, known| !known.is_over() || known.begun.elapsed() < REMEMBERED);
        while all.len() >= MOST {
            let oldest = all.iter().min_by_key(|(_, known)| (!known.is_over(), known.begun));
            let oldest = oldest.map(|(id, _)| id.clone());
            let Some(oldest) = oldest else { break };
            all.remove(&oldest);
        }
        all.insert(id, transfer);
        Ok(state)
    }

    /// How a download stands.
    pub(crate) fn state(&self, id: &str) -> Option<DownloadState> {
        self.all().get(id).map(|transfer| transfer.state(id))
    }

    /// Stops a download that is not over; how it stands then.
    pub(crate) fn stop(&self, id: &str) -> Option<DownloadState> {
        let transfer = self.all().get(id).cloned()?;
        transfer.break_off("It was stopped here.");
        transfer.stop.notify_one();
        Some(transfer.state(id))
    }

    fn take(&self, secret: &str) -> Option<Arc<Transfer>> {
        self.all().values().find(|transfer| transfer.is_taken_by(secret)).cloned()
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Arc<Transfer>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transfer {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self, id: &str) -> DownloadState {
        if self.begun.elapsed() >= WAITS && self.inner().secret.is_some() {
            self.break_off("The browser did not fetch it within a minute: does it block downloads?");
        }
        let inner = self.inner();
        DownloadState {
            id: id.to_owned(),
            address: String::new(),
            file: self.file.clone(),
            received: self.received.load(Ordering::Relaxed),
            about: inner.about,
            done: inner.done,
            problem: inner.problem.clone(),
        }
    }

    /// Takes the secret, if it is this one and its minute is not over.
    fn is_taken_by(&self, secret: &str) -> bool {
        let mut inner = self.inner();
        let is_it = inner.secret.as_ref().is_some_and(|known| known.expose() == secret);
        if is_it {
            inner.secret = None;
        }
        is_it && self.begun.elapsed() < WAITS
    }

    fn end(&self, problem: Option<ApiProblem>) {
        let mut inner = self.inner();
        inner.done = problem.is_none();
        inner.problem = problem;
    }

    /// Ends it before its end, if it is not over.
    fn break_off(&self, message: &str) {
        let mut inner = self.inner();
        if !inner.done && inner.problem.is_none() {
            inner.secret = None;
            inner.problem = Some(ApiProblem {
                code: "download_stopped".to_owned(),
                message: message.to_owned(),
                hint: "Ask for it again.".to_owned(),
            });
        }
    }

    fn is_over(&self) -> bool {
        let inner = self.inner();
        inner.done || inner.problem.is_some()
    }
}

/// Says so when whoever reads goes away before the end.
struct Reading(Arc<Transfer>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.break_off("The browser stopped it before its end.");
    }
}

/// Answers what an address leads to.
pub(crate) async fn answer(
    State(downloads): State<Arc<Downloads>>,
    Path(secret): Path<String>,
) -> Result<Response, Problem> {
    let transfer = downloads.take(&secret).ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "download_not_found",
            "This address leads to no download, or not any more: it is good once, for a minute.",
            "Ask for the checkpoint again in the console.",
        )
    })?;
    let reading = Reading(Arc::clone(&transfer));
    let address = transfer.inner().address.clone();
    let mut download = match Download::open(&transfer.api, &transfer.path, &address, 0).await {
        Ok(download) => download,
        Err(error) => {
            transfer.end(Some(of_service(&error)));
            return Err(Problem::from(&error));
        }
    };
    // The first piece is waited for: what fails at once is an answer, and no broken file.
    let first = match download.next().await {
        Ok(first) => first,
        Err(error) => {
            transfer.end(Some(of_service(&error)));
            return Err(Problem::from(&error));
        }
    };
    let total = download.total();
    if total.is_some() {
        transfer.inner().about = total;
    }
    let file = transfer.file.clone();
    let state = (download, reading, Some(first));
    let body = stream::unfold(state, |(mut download, reading, first)| async move {
        let transfer = &reading.0;
        let piece = match first {
            _ if transfer.is_over() => return None,
            Some(first) => Ok(first),
            None => tokio::select! {
                piece = download.next() => piece,
                () = transfer.stop.notified() => {
                    // A body that just ended would be taken for the whole file.
                    let stopped = std::io::Error::other("the download was stopped");
                    return Some((Err(stopped), (download, reading, None)));
                }
            },
        };
        match piece {
            Ok(Some(piece)) => {
                transfer.received.fetch_add(piece.len() as u64, Ordering::Relaxed);
                Some((Ok(piece), (download, reading, None)))
            }
            Ok(None) => {
                transfer.end(None);
                None
            }
            Err(error) => {
                transfer.end(Some(of_service(&error)));
                // The browser sees a file that breaks off; what is asked next is not asked again.
                Some((Err(std::io::Error::other(error.to_string())), (download, reading, None)))
            }
        }
    });
    let mut response = Body::from_stream(body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
    let named = HeaderValue::from_str(&format!("attachment; filename=\"{file}\""));
    headers.insert(
        header::CONTENT_DISPOSITION,
        named.unwrap_or_else(|_| HeaderValue::from_static("attachment")),
    );
    if let Some(total) = total {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(total));
    }
    Ok(response)
}

/// A file's name made of a checkpoint's path, of characters that every disk takes.
fn file_name(path: &str) -> String {
    let name: String = path
        .trim_start_matches("tinker://")
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' })
        .take(150)
        .collect();
    format!("{}.tar", name.trim_start_matches('.'))
}

fn random() -> Result<String, Problem> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| {
        let message = "The system gives no random numbers, so there is no secret address.";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message, "")
    })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_hold_nothing_odd() {
        for (path, file) in [
            ("tinker://5f0c:train:0/weights/0040", "5f0c_train_0_weights_0040.tar"),
            ("tinker://../../etc/passwd", "_.._etc_passwd.tar"),
            ("tinker://a/weights/\"é\r\n", "a_weights_____.tar"),
        ] {
            assert_eq!(file_name(path), file);
        }
        assert!(file_name(&"x".repeat(10_000)).len() < 160);
    }
}
