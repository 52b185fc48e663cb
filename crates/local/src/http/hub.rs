//! Tokenizers where Hugging Face's libraries look for them on a hub, for clients that go by the base model's name, as
//! `SamplingClient.get_tokenizer` of the official SDK does: `HF_ENDPOINT=$TINKER_BASE_URL`.

use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::body::Path;
use super::{ApiError, Shared};
use crate::checkpoint::sha256;
use crate::tokenizer;

/// Which version of the repository it is. Without it the library takes the answer for a proxy's.
const COMMIT: HeaderName = HeaderName::from_static("x-repo-commit");
/// What is missing: a file, which may be optional, or all of it.
const ERROR_CODE: HeaderName = HeaderName::from_static("x-error-code");

/// A file of a tokenizer. There is one revision, whatever it is called.
pub(crate) async fn file(
    State(core): Shared,
    Path((org, model, _revision, file)): Path<(String, String, String, String)>,
) -> Result<Response, Response> {
    let name = format!("{org}/{model}");
    let config = core.models.config(&name).map_err(|e| missing("RepoNotFound", e))?;
    let files = tokenizer::files(config);
    let Some((_, text)) = files.iter().find(|(name, _)| *name == file) else {
        let there = files.each_ref().map(|(name, _)| *name).join(", ");
        let mut missing =
            missing("EntryNotFound", format!("{name} has no file '{file}'; there are: {there}"));
        missing.headers_mut().extend(marks(&files));
        return Err(missing);
    };
    let mut answer = ([(CONTENT_TYPE, "application/json")], text.clone()).into_response();
    answer.headers_mut().extend(marks(&files));
    answer.headers_mut().insert(ETAG, header(format!("\"{}\"", sha256(text.as_bytes()))));
    Ok(answer)
}

fn missing(code: &'static str, detail: String) -> Response {
    let code = [(ERROR_CODE, HeaderValue::from_static(code))];
    (StatusCode::NOT_FOUND, code, ApiError::not_found(detail)).into_response()
}

/// What marks the answers about a repository of these files. Revisions are as long as git's.
fn marks(files: &[(&str, String)]) -> HeaderMap {
    let all: String = files.iter().map(|(_, text)| text.as_str()).collect();
    let revision = sha256(all.as_bytes()).chars().take(40).collect();
    HeaderMap::from_iter([(COMMIT, header(revision))])
}

fn header(digits: String) -> HeaderValue {
    // Digits are valid in a header.
    HeaderValue::try_from(digits).unwrap_or_else(|_| HeaderValue::from_static(""))
}
