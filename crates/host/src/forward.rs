//! The guarded forward of an allow-list of `/api/v1` to the service, with the host's key.
//!
//! Nothing of a request but its path, the listed query members and its body goes on, and nothing of an answer but
//! its status and body comes back: no cookies, no headers of the service's choosing, no content type but JSON.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderValue, Method, StatusCode, header};
use retinker::transport::{
    Method as ServiceMethod, Request as ServiceRequest, Response as ServiceResponse, TransportError,
    TransportErrorKind,
};

use crate::host::Shared;
use crate::problem::{Problem, slow_service};

/// Most bytes of a request.
const MAX_REQUEST: usize = 1 << 20;
/// Most bytes of an answer.
const MAX_ANSWER: usize = 64 << 20;
/// How long the service may take. A long poll is held for up to 45 s.
const TIMEOUT: Duration = Duration::from_secs(50);

/// What may be asked; `*` stands for one id.
const ALLOWED: [(Method, &str); 11] = [
    (Method::GET, "training_runs"),
    (Method::GET, "training_runs/*"),
    (Method::GET, "training_runs/*/checkpoints"),
    (Method::GET, "checkpoints"),
    (Method::GET, "sessions"),
    (Method::GET, "sessions/*"),
    (Method::GET, "get_server_capabilities"),
    (Method::GET, "healthz"),
    (Method::GET, "samplers/*"),
    (Method::POST, "weights_info"),
    (Method::POST, "get_info"),
];

/// Query members that go on.
const QUERY: [&str; 4] = ["limit", "offset", "access_scope", "project_id"];

/// Answers everything under `/api`.
pub(crate) async fn forward(State(host): State<Arc<Shared>>, request: Request) -> Response {
    match try_forward(&host, request).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

async fn try_forward(host: &Shared, request: Request) -> Result<Response, Problem> {
    let not_allowed = || {
        Problem::new(
            StatusCode::NOT_FOUND,
            "not_forwarded",
            "The console's host does not forward this call.",
            "Ask the service itself, with a key of your own.",
        )
    };
    let path = request.uri().path().strip_prefix("/api/v1/").filter(|path| allows(request.method(), path));
    let path = path.ok_or_else(not_allowed)?;
    let base_url = host.service.base_url.trim_end_matches('/');
    let url = format!("{base_url}/api/v1/{path}{}", query(request.uri().query()));
    let method = if request.method() == Method::POST { ServiceMethod::Post } else { ServiceMethod::Get };
    let body = if method == ServiceMethod::Post {
        to_bytes(request.into_body(), MAX_REQUEST).await.map_err(|_| {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "The request is longer than 1 MiB.", "")
        })?
    } else {
        Bytes::new()
    };
    let mut headers = vec![("accept".into(), "application/json".to_owned())];
    if method == ServiceMethod::Post {
        headers.push(("content-type".into(), "application/json".to_owned()));
    }
    if let Some(key) = host.key() {
        headers.push(("x-api-key".into(), key.expose().to_owned()));
    }
    let sent = host.transport.send(ServiceRequest { method, url, headers, body });
    let answer = async {
        let response = sent.await?;
        let status = response.status;
        Ok::<_, TransportError>((status, whole(response).await?))
    };
    let (status, body) = match tokio::time::timeout(TIMEOUT, answer).await {
        Ok(answer) => answer.map_err(|error| unreachable(&error))?,
        Err(_) => {
            let problem = slow_service(TIMEOUT.as_secs());
            return Err(Problem { status: StatusCode::GATEWAY_TIMEOUT, problem });
        }
    };
    Ok(answer_of(status, body))
}

/// What the page is answered for this status and body of the service.
fn answer_of(status: u16, body: Bytes) -> Response {
    // Chromium sends a POST that was answered 408 again by itself; 200 `try_again` says the same to every client.
    if status == 408 {
        let mut again: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&body).unwrap_or_default();
        again.retain(|key, _| {
            ["request_id", "queue_state", "queue_state_reason", "retry_after_ms"].contains(&key.as_str())
        });
        again.insert("type".to_owned(), "try_again".into());
        again.entry("request_id").or_insert_with(|| "".into());
        again.entry("queue_state").or_insert_with(|| "active".into());
        return json(StatusCode::OK, serde_json::Value::Object(again).to_string().into());
    }
    if (300..400).contains(&status) {
        return Problem::new(
            StatusCode::BAD_GATEWAY,
            "service_redirects",
            "The service answers with a redirect, which is not followed: the key stays with the address that it was \
             given for.",
            "Start retinker with the address that the service redirects to.",
        )
        .into_response();
    }
    match StatusCode::from_u16(status) {
        Ok(status) if status.as_u16() >= 200 => json(status, body),
        _ => Problem::new(
            StatusCode::BAD_GATEWAY,
            "service_unreadable",
            "The service's status makes no sense.",
            "",
        )
        .into_response(),
    }
}

fn json(status: StatusCode, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn unreachable(error: &TransportError) -> Problem {
    let hint = "It is asked again when the page asks again.";
    let message = match error.kind {
        TransportErrorKind::Body => format!("The service's answer broke off: {}.", error.message),
        _ => format!("The service cannot be reached: {}.", error.message),
    };
    Problem::new(StatusCode::BAD_GATEWAY, "service_unreachable", message, hint)
}

async fn whole(mut response: ServiceResponse) -> Result<Bytes, TransportError> {
    let mut body = Vec::new();
    while let Some(piece) = response.body.next().await {
        let piece = piece?;
        if body.len() + piece.len() > MAX_ANSWER {
            return Err(TransportError::new(TransportErrorKind::Body, "it is far too long"));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.into())
}

fn allows(method: &Method, path: &str) -> bool {
    ALLOWED.iter().any(|(allowed, pattern)| allowed == method && matches(pattern, path))
}

fn matches(pattern: &str, path: &str) -> bool {
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some("*"), Some(id)) if is_id(id) => {}
            (Some(name), Some(part)) if name == part => {}
            _ => return false,
        }
    }
}

/// Ids hold letters, digits and a few marks; a colon may come encoded. Anything else could change the path.
fn is_id(text: &str) -> bool {
    let text = text.replace("%3A", ":").replace("%3a", ":");
    !text.is_empty()
        && text.chars().any(|c| c != '.')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:~".contains(c))
}

/// The query as far as it goes on, with its question mark.
fn query(query: Option<&str>) -> String {
    let harmless = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default();
        QUERY.contains(&name) && pair.chars().all(|c| c.is_ascii_alphanumeric() || "-_.~=%".contains(c))
    };
    let kept: Vec<&str> = query.unwrap_or_default().split('&').filter(harmless).collect();
    if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_list_goes_on() {
        for (method, path, allowed) in [
            (Method::GET, "training_runs", true),
            (Method::GET, "training_runs/s:train:0", true),
            (Method::GET, "training_runs/s%3Atrain%3A0/checkpoints", true),
            (Method::POST, "weights_info", true),
            (Method::GET, "weights_info", false),
            (Method::POST, "training_runs", false),
            (Method::DELETE, "training_runs/s:train:0", false),
            (Method::POST, "auth/token", false),
            (Method::POST, "forward_backward", false),
            (Method::POST, "load_weights", false),
            (Method::GET, "training_runs/..", false),
            (Method::GET, "training_runs/../auth", false),
            (Method::GET, "training_runs/%2e%2e", false),
            (Method::GET, "training_runs/a%2Fb", false),
            (Method::GET, "training_runs/", false),
            (Method::GET, "training_runs//checkpoints", false),
            (Method::GET, "", false),
        ] {
            assert_eq!(allows(&method, path), allowed, "{method} {path}");
        }
    }

    #[test]
    fn only_known_query_members_go_on() {
        assert_eq!(query(None), "");
        assert_eq!(
            query(Some("limit=5&x=1&offset=10&access_scope=owned")),
            "?limit=5&offset=10&access_scope=owned"
        );
        assert_eq!(query(Some("limit=5#@evil&api_key=1")), "");
    }

    async fn answered(status: u16, body: &'static str) -> (StatusCode, serde_json::Value) {
        let response = answer_of(status, Bytes::from_static(body.as_bytes()));
        assert_eq!(response.headers()["content-type"], "application/json");
        let (parts, body) = response.into_parts();
        (parts.status, serde_json::from_slice(&to_bytes(body, 1 << 20).await.unwrap()).unwrap())
    }

    #[tokio::test]
    async fn not_yet_is_a_success_for_browsers() {
        let (status, body) = answered(408, r#"{"queue_state":"paused_capacity","secret":1}"#).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(
            body,
            serde_json::json!({"type":"try_again","request_id":"","queue_state":"paused_capacity"})
        );
    }

    #[tokio::test]
    async fn redirects_are_not_followed() {
        for status in [301, 302, 303, 307, 308] {
            let (answer, body) = answered(status, "").await;
            assert_eq!((answer, body["code"].as_str()), (StatusCode::BAD_GATEWAY, Some("service_redirects")));
        }
    }
}
