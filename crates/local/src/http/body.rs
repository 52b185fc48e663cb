//! Reading what clients send.

use std::future::Future;
use std::io::Read;

use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::request::Parts;
use bytes::Bytes;
use prost::Message;
use retinker_wire::future::PROTOBUF;
use retinker_wire::proto::ForwardBackwardRequest;
use serde::de::DeserializeOwned;

use super::BODY_LIMIT;
use super::error::ApiError;
use super::{salvage, words};
use crate::core::Core;
use crate::index::Page;

/// A body and its kind.
pub(crate) struct Body {
    pub(crate) protobuf: bool,
    pub(crate) bytes: Bytes,
}

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let protobuf = is_protobuf(request.headers())?;
        let compressed = is_compressed(request.headers())?;
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection: BytesRejection| {
            ApiError { status: rejection.status(), detail: rejection.body_text() }
        })?;
        let bytes = if compressed { decompress(bytes).await? } else { bytes };
        Ok(Self { protobuf, bytes })
    }
}

/// Whether a body is protobuf; otherwise it is JSON. Refuses other kinds.
fn is_protobuf(headers: &HeaderMap) -> Result<bool, ApiError> {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).map(str::trim);
    match kind {
        Some(PROTOBUF) => Ok(true),
        Some("application/json") => Ok(false),
        other => Err(ApiError::unsupported_media(format!(
            "Content-Type {} is not read here; send application/json",
            other.unwrap_or("(none)")
        ))),
    }
}

/// Whether a body is compressed with zstd. Refuses other codings.
fn is_compressed(headers: &HeaderMap) -> Result<bool, ApiError> {
    match headers.get(CONTENT_ENCODING).map(|encoding| encoding.to_str().unwrap_or("(unreadable)")) {
        None | Some("identity") => Ok(false),
        Some("zstd") => Ok(true),
        Some(encoding) => Err(ApiError::unsupported_media(format!(
            "bodies with Content-Encoding {encoding} are not read here; send them with zstd, or as they are"
        ))),
    }
}

/// Reads a zstd frame, up to the size that a body may have.
async fn decompress(bytes: Bytes) -> Result<Bytes, ApiError> {
    let read = tokio::task::spawn_blocking(move || {
        let unreadable = |e: String| ApiError::unprocessable(format!("the body is not a zstd frame: {e}"));
        let frame =
            ruzstd::decoding::StreamingDecoder::new(&*bytes).map_err(|e| unreadable(e.to_string()))?;
        let mut plain = Vec::new();
        let limit = BODY_LIMIT as u64 + 1;
        frame.take(limit).read_to_end(&mut plain).map_err(|e| unreadable(e.to_string()))?;
        if plain.len() > BODY_LIMIT {
            return Err(ApiError::unprocessable(format!(
                "the body decompresses to more than {BODY_LIMIT} bytes: send a smaller batch"
            )));
        }
        Ok(Bytes::from(plain))
    });
    read.await.unwrap_or_else(|_| Err(ApiError::internal("the body could not be decompressed".to_owned())))
}

impl Body {
    /// The body as JSON of this form.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        if self.protobuf {
            return Err(ApiError::unsupported_media("this endpoint reads application/json".to_owned()));
        }
        // A list would be read as the members in their order, which nobody means.
        if self.bytes.trim_ascii_start().starts_with(b"[") {
            return Err(ApiError::unprocessable("the body must be an object, not a list".to_owned()));
        }
        words::read(&self.bytes).map_err(ApiError::unprocessable)
    }

    /// The body of a numbered request. When it cannot be read its number is noted, so that nobody waits for it.
    pub(crate) fn numbered<T: DeserializeOwned>(&self, core: &Core) -> Result<T, ApiError> {
        self.json().inspect_err(|_| self.note_refused(core))
    }

    /// Notes that this was refused, so that nobody waits for its number, if it has one.
    pub(super) fn note_refused(&self, core: &Core) {
        if self.protobuf {
            if let Ok(request) = ForwardBackwardRequest::decode(self.bytes.clone())
                && let Ok(seq) = u64::try_from(request.seq_id)
            {
                core.note_refused(&request.model_id, seq);
            }
            return;
        }
        if let Some((run, seq)) = salvage::turn(&self.bytes) {
            core.note_refused(&run, seq);
        }
    }
}

/// The number of a request that has to have one.
pub(crate) fn required_seq(seq_id: Option<u64>) -> Result<u64, ApiError> {
    seq_id.ok_or_else(|| ApiError::unprocessable("seq_id is missing".to_owned()))
}

/// Does it to the end even when the client goes away half-way: a change must not stay half-made.
pub(crate) async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::spawn(work).await.unwrap_or_else(|_| {
        Err(ApiError::internal("the request failed inside the service; its log says why".to_owned()))
    })
}

/// Parts of the path, or a refusal in the protocol's form.
pub(crate) struct Path<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(path)) => Ok(Self(path)),
            Err(_) => Err(ApiError::bad_request(format!(
                "the path {} cannot be read: what it escapes with % is not UTF-8 text",
                parts.uri.path()
            ))),
        }
    }
}

/// What a client marks a request with, the same however often it sends it.
pub(crate) struct IdempotencyKey(pub(crate) Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let key = parts.headers.get("x-idempotency-key").and_then(|key| key.to_str().ok());
        Ok(Self(key.filter(|key| !key.is_empty() && key.len() <= 256).map(str::to_owned)))
    }
}

/// Numbers given in a query, each by its name.
#[derive(Debug, Default)]
pub(crate) struct NumberQuery(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for NumberQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let pairs = pairs.map_err(|_| ApiError::unprocessable("the query cannot be read".to_owned()))?;
        Ok(Self(pairs.0))
    }
}

impl NumberQuery {
    /// A number between two others, if it is given.
    pub(crate) fn get(&self, name: &str, least: i64, most: i64) -> Result<Option<i64>, ApiError> {
        let Some((_, text)) = self.0.iter().rev().find(|(member, _)| member == name) else { return Ok(None) };
        match text.parse() {
            Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => Err(ApiError::unprocessable(format!(
                "{name} must be a whole number from {least} to {most}, not '{text}'"
            ))),
        }
    }
}

/// `?limit=&offset=&project_id=`; other members are of no meaning here.
#[derive(Debug, Default)]
pub(crate) struct PageQuery {
    limit: Option<usize>,
    offset: usize,
    /// Only what belongs to this project.
    pub(crate) project_id: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for PageQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|_| ApiError::unprocessable("the query cannot be read".to_owned()))?;
        let mut query = Self::default();
        for (member, value) in pairs.0 {
            let number = || {
                value.parse().map_err(|_| {
                    ApiError::unprocessable(format!(
                        "{member} must be a whole number that is not negative and not too large, not '{value}'"
                    ))
                })
            };
            match member.as_str() {
                "limit" => query.limit = Some(number()?),
                "offset" => query.offset = number()?,
                "project_id" => query.project_id = Some(value),
                _ => {}
            }
        }
        Ok(query)
    }
}

impl PageQuery {
    /// The largest page.
    const LIMIT: usize = 1000;

    /// The page asked for.
    pub(crate) fn page(&self, default_limit: usize) -> Page {
        Page { offset: self.offset, limit: self.limit.unwrap_or(default_limit).min(Self::LIMIT) }
    }
}
