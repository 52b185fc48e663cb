//! Files of checkpoints: their addresses, and the files themselves.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, EXPIRES, HOST, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use retinker_wire::path::TinkerPath;
use retinker_wire::run::CheckpointType;
use retinker_wire::weights::ExternalWeightsUrls;
use tokio::sync::mpsc;
use tower::ServiceExt;
use tower_http::services::ServeFile;

use super::body::Path;
use super::{ApiError, Shared};
use crate::core::Core;
use crate::ops::DOWNLOAD_VALID;
use crate::time::{now_millis, time};

/// Where files are handed out, to whoever knows the secret in the address.
pub(super) const FILES: &str = "/retinker/local/v1/files";
/// The name of all files together.
const ARCHIVE: &str = "archive.tar";

/// Where the service is, as its caller names it.
fn origin(headers: &HeaderMap) -> Result<String, ApiError> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    host.map(|host| format!("http://{host}")).ok_or_else(|| {
        ApiError::bad_request(
            "the Host header is missing: the addresses of files are built from it".to_owned(),
        )
    })
}

async fn open(core: Arc<Core>, path: TinkerPath) -> Result<(String, Vec<String>), ApiError> {
    let opened = tokio::task::spawn_blocking(move || core.open_download(&path)).await;
    opened.unwrap_or_else(|_| Err(ApiError::internal("the checkpoint could not be read".to_owned())))
}

fn expires() -> i64 {
    now_millis().saturating_add(i64::try_from(DOWNLOAD_VALID.as_millis()).unwrap_or_default())
}

/// Addresses of an external checkpoint's files.
pub(super) async fn urls(
    core: Arc<Core>,
    path: TinkerPath,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    if path.checkpoint_type != CheckpointType::External {
        return Err(ApiError::bad_request(format!(
            "{path} is not an external checkpoint: save one with save_weights_external, or use archive"
        )));
    }
    let origin = origin(headers)?;
    let (secret, names) = open(core, path).await?;
    let urls = names.into_iter().map(|name| (name.clone(), format!("{origin}{FILES}/{secret}/{name}")));
    Ok(Json(ExternalWeightsUrls { urls: urls.collect(), expires: time(expires()) }).into_response())
}

/// The address of an archive of any checkpoint, by redirection, as older clients want it.
pub(super) async fn archive_address(
    core: Arc<Core>,
    path: TinkerPath,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let origin = origin(headers)?;
    let (secret, _) = open(core, path).await?;
    let location = format!("{origin}{FILES}/{secret}/{ARCHIVE}");
    let expires = http_date(expires());
    Ok((StatusCode::FOUND, [(LOCATION, location), (EXPIRES, expires)]).into_response())
}

/// A time as HTTP headers write it.
fn http_date(millis: i64) -> String {
    time(millis).0.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// One file, in parts if the client wants to go on with one that broke off, or all of them in an archive.
pub(crate) async fn file(
    State(core): Shared,
    Path((secret, name)): Path<(String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    let files = core.downloads.files(&secret)?;
    if name == ARCHIVE {
        return Ok(([(CONTENT_TYPE, "application/x-tar")], archive(files)).into_response());
    }
    let path = files.into_iter().find(|(known, _)| *known == name).map(|(_, path)| path);
    let path = path.ok_or_else(|| ApiError::not_found(format!("the checkpoint has no file '{name}'")))?;
    match ServeFile::new(&path).oneshot(request).await {
        Ok(answer) if answer.status() == StatusCode::NOT_FOUND => {
            Err(ApiError::not_found(format!("'{name}' is gone: the checkpoint was deleted")))
        }
        Ok(answer) => {
            let mut answer = answer.map(Body::new);
            let binary = HeaderValue::from_static("application/octet-stream");
            answer.headers_mut().insert(CONTENT_TYPE, binary);
            Ok(answer)
        }
        Err(never) => match never {},
    }
}

/// The files in a tar archive, made while it is sent.
fn archive(files: Vec<(String, PathBuf)>) -> Body {
    let (sender, receiver) = mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        let failed = sender.clone();
        let mut archive = tar::Builder::new(io::BufWriter::with_capacity(1 << 16, Pieces(sender)));
        let written = files
            .iter()
            .try_for_each(|(name, path)| archive.append_path_with_name(path, name))
            .and_then(|()| archive.into_inner())
            .and_then(|buffer| buffer.into_inner().map_err(io::IntoInnerError::into_error));
        if let Err(error) = written {
            // The client sees a body that breaks off; it may have gone itself.
            let _ = failed.blocking_send(Err(error));
        }
    });
    Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver))
}

/// Hands what is written to the task that sends it.
struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        self.0.blocking_send(Ok(piece)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
