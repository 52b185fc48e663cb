//! Reading what clients send.

use std::future::Future;
use std::io::Read as _;
use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use prost::Message;
use retinker_wire::future::PROTOBUF;
use ruzstd::decoding::StreamingDecoder;
use serde::de::DeserializeOwned;

use super::BODY_LIMIT;
use super::error::ApiError;
use super::{salvage, words};
use crate::beside::beside;
use crate::core::Core;
use crate::index::Page;
use crate::intake::Held;

/// A body and its kind.
pub(crate) struct Body {
    pub(crate) protobuf: bool,
    bytes: Bytes,
    /// Counts it among those that are being read.
    _held: Held,
}

/// The largest body of a request that brings no batch.
const SMALL_BODY_LIMIT: usize = 32 << 20;

impl FromRequest<Arc<Core>> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, core: &Arc<Core>) -> Result<Self, ApiError> {
        let (parts, sent) = request.into_parts();
        let brings_a_batch =
            parts.uri.path().rsplit('/').next().is_some_and(|name| name.starts_with("forward"));
        let limit = if brings_a_batch { BODY_LIMIT } else { SMALL_BODY_LIMIT };
        let read = async {
            let received = receive(sent, limit, core.intake.open()).await?;
            let kinds = is_protobuf(&parts.headers)
                .and_then(|protobuf| Ok((protobuf, is_compressed(&parts.headers)?)));
            match kinds {
                Ok((protobuf, false)) => Ok(received.into_body(protobuf)),
                Ok((protobuf, true)) => Ok(decompress(received, limit).await?.into_body(protobuf)),
                Err(complaint) => Err(Unread { bytes: received.bytes, complaint }),
            }
        };
        match read.await {
            Ok(body) => Ok(body),
            Err(Unread { bytes, complaint }) => {
                // What is sent again needs its number.
                if complaint.status != StatusCode::TOO_MANY_REQUESTS {
                    note_refused(core, &bytes).await;
                }
                Err(complaint)
            }
        }
    }
}

/// A body, and what it counts for.
struct Read {
    bytes: Bytes,
    held: Held,
}

impl Read {
    fn into_body(self, protobuf: bool) -> Body {
        Body { protobuf, bytes: self.bytes, _held: self.held }
    }
}

/// What there is of a body that is not read, and why it is not.
struct Unread {
    bytes: Bytes,
    complaint: ApiError,
}

impl From<ApiError> for Unread {
    fn from(complaint: ApiError) -> Self {
        Self { bytes: Bytes::new(), complaint }
    }
}

/// Takes a body in, up to a limit. What lies beyond is thrown away: a client that is still sending would not see the
/// answer. Fails when the client stops half-way; it will send again.
async fn receive(body: axum::body::Body, limit: usize, mut held: Held) -> Result<Read, Unread> {
    let (mut bytes, mut length, mut full) = (BytesMut::new(), 0_u64, None);
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|e| ApiError::bad_request(format!("the body ended half-way: {e}")))?;
        length += piece.len() as u64;
        if length <= limit as u64 && full.is_none() {
            match held.grow(piece.len()) {
                Ok(()) => bytes.extend_from_slice(&piece),
                Err(reason) => full = Some(ApiError::too_many(reason)),
            }
        }
    }
    let too_large = (length > limit as u64).then(|| {
        ApiError::too_large(format!("the body has {length} bytes, the most is {limit}: send a smaller one"))
    });
    let bytes = bytes.freeze();
    match too_large.or(full) {
        Some(complaint) => Err(Unread { bytes, complaint }),
        None => Ok(Read { bytes, held }),
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

/// Reads a zstd frame, up to a limit.
async fn decompress(frame: Read, limit: usize) -> Result<Read, Unread> {
    let read = tokio::task::spawn_blocking(move || {
        let Read { bytes, mut held } = frame;
        let mut plain = Vec::new();
        match unpack(&bytes, limit, &mut plain, &mut held) {
            Ok(()) => Ok(Read { bytes: plain.into(), held }),
            Err(complaint) => Err(Unread { bytes: plain.into(), complaint }),
        }
    });
    let failed = |_| Err(ApiError::internal("the body could not be decompressed".to_owned()).into());
    read.await.unwrap_or_else(failed)
}

fn unpack(bytes: &[u8], limit: usize, plain: &mut Vec<u8>, held: &mut Held) -> Result<(), ApiError> {
    const PIECE: u64 = 1 << 20;
    let unreadable = |e: String| ApiError::unprocessable(format!("the body is not a zstd frame: {e}"));
    let mut frame = StreamingDecoder::new(bytes).map_err(|e| unreadable(e.to_string()))?;
    loop {
        let before = plain.len();
        frame.by_ref().take(PIECE).read_to_end(plain).map_err(|e| unreadable(e.to_string()))?;
        if plain.len() == before {
            return Ok(());
        }
        if plain.len() > limit {
            return Err(ApiError::too_large(format!(
                "the body decompresses to more than {limit} bytes: send a smaller one"
            )));
        }
        held.grow(plain.len() - before).map_err(ApiError::too_many)?;
    }
}

/// Notes that a request was refused, so that nobody waits for its number, if it has one.
async fn note_refused(core: &Core, body: &Bytes) {
    let (length, body) = (body.len(), body.clone());
    if let Ok(Some((run, seq))) = beside(length as u64, move || salvage::turn(&body)).await {
        core.note_refused(&run, seq);
    }
}

/// What an endpoint that only reads JSON answers to other bodies.
pub(crate) fn not_json() -> ApiError {
    ApiError::unsupported_media("this endpoint reads application/json".to_owned())
}

impl Body {
    /// The body as JSON of this form.
    pub(crate) async fn json<T: DeserializeOwned + Send + 'static>(&self) -> Result<T, ApiError> {
        if self.protobuf {
            return Err(not_json());
        }
        self.read(from_json).await
    }

    /// What a function makes of the body.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Bytes) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let bytes = self.bytes.clone();
        let failed = |_| Err(ApiError::internal("the body could not be read; the log says why".to_owned()));
        beside(bytes.len() as u64, move || read(&bytes)).await.unwrap_or_else(failed)
    }

    /// The body of a numbered request. When it cannot be read its number is noted, so that nobody waits for it.
    pub(crate) async fn numbered<T: DeserializeOwned + Send + 'static>(
        &self,
        core: &Core,
    ) -> Result<T, ApiError> {
        let read = self.json().await;
        if read.is_err() {
            self.note_refused(core).await;
        }
        read
    }

    /// Notes that this was refused, so that nobody waits for its number, if it has one.
    pub(super) async fn note_refused(&self, core: &Core) {
        note_refused(core, &self.bytes).await;
    }
}

/// Reads JSON of this form.
pub(crate) fn from_json<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, ApiError> {
    // A list would be read as the members in their order, which nobody means.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(ApiError::unprocessable("the body must be an object, not a list".to_owned()));
    }
    words::read(bytes).map_err(ApiError::unprocessable)
}

/// Reads a protobuf message of this form.
pub(crate) fn from_protobuf<T: Message + Default>(bytes: &Bytes) -> Result<T, ApiError> {
    T::decode(bytes.clone())
        .map_err(|e| ApiError::unprocessable(format!("the body is not such a protobuf message: {e}")))
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
