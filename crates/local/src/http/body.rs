//! Reading what clients send.

use std::future::Future;
use std::io::Read as _;
use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::request::Parts;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use prost::Message;
use retinker_wire::future::PROTOBUF;
use ruzstd::decoding::StreamingDecoder;
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

impl FromRequest<Arc<Core>> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, core: &Arc<Core>) -> Result<Self, ApiError> {
        let (parts, sent) = request.into_parts();
        let mut bytes = Bytes::new();
        let read = async {
            let received = receive(sent).await?;
            bytes = received.bytes;
            received.complaint.map_or(Ok(()), Err)?;
            let (protobuf, compressed) = (is_protobuf(&parts.headers)?, is_compressed(&parts.headers)?);
            if compressed {
                let plain = decompress(bytes.clone()).await?;
                bytes = plain.bytes;
                plain.complaint.map_or(Ok(()), Err)?;
            }
            Ok(protobuf)
        };
        match read.await {
            Ok(protobuf) => Ok(Self { protobuf, bytes }),
            Err(complaint) => {
                note_refused(core, &bytes);
                Err(complaint)
            }
        }
    }
}

/// What was read of a body, all of it unless there is a complaint.
struct Read {
    bytes: Bytes,
    complaint: Option<ApiError>,
}

/// Takes a body in, up to the largest there may be. What lies beyond is thrown away: a client that is still sending would
/// not see the answer. Fails when the client stops half-way; it will send again.
async fn receive(body: axum::body::Body) -> Result<Read, ApiError> {
    let (mut bytes, mut length) = (BytesMut::new(), 0_u64);
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|e| ApiError::bad_request(format!("the body ended half-way: {e}")))?;
        length += piece.len() as u64;
        if length <= BODY_LIMIT as u64 {
            bytes.extend_from_slice(&piece);
        }
    }
    let complaint = (length > BODY_LIMIT as u64).then(|| {
        ApiError::too_large(format!(
            "the body has {length} bytes, the most is {BODY_LIMIT}: send a smaller batch"
        ))
    });
    Ok(Read { bytes: bytes.freeze(), complaint })
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
async fn decompress(bytes: Bytes) -> Result<Read, ApiError> {
    let read = tokio::task::spawn_blocking(move || {
        let mut plain = Vec::new();
        let limit = BODY_LIMIT as u64 + 1;
        let read = StreamingDecoder::new(&*bytes)
            .map_err(|e| e.to_string())
            .and_then(|frame| frame.take(limit).read_to_end(&mut plain).map_err(|e| e.to_string()));
        let complaint = match read {
            Err(e) => Some(ApiError::unprocessable(format!("the body is not a zstd frame: {e}"))),
            Ok(length) if length > BODY_LIMIT => Some(ApiError::too_large(format!(
                "the body decompresses to more than {BODY_LIMIT} bytes: send a smaller batch"
            ))),
            Ok(_) => None,
        };
        Read { bytes: plain.into(), complaint }
    });
    read.await.map_err(|_| ApiError::internal("the body could not be decompressed".to_owned()))
}

/// Notes that a request was refused, so that nobody waits for its number, if it has one.
fn note_refused(core: &Core, body: &[u8]) {
    if let Some((run, seq)) = salvage::turn(body) {
        core.note_refused(&run, seq);
    }
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

    /// The body of a numbered request in its protobuf form.
    pub(crate) fn numbered_message<T: Message + Default>(&self, core: &Core) -> Result<T, ApiError> {
        T::decode(self.bytes.clone()).map_err(|e| {
            self.note_refused(core);
            ApiError::unprocessable(format!("the body is not such a protobuf message: {e}"))
        })
    }

    /// Notes that this was refused, so that nobody waits for its number, if it has one.
    pub(super) fn note_refused(&self, core: &Core) {
        note_refused(core, &self.bytes);
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
