//! Who may call: programs on this machine, or whoever has the key. No web pages.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, Method, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::downloads::FILES;
use super::error::ApiError;

/// What asks whether the service is alive, which needs no key.
const HEALTH: &str = "/api/v1/healthz";

/// Who may call.
#[derive(Clone)]
pub(crate) struct Guard {
    /// Hash of the key. Comparing hashes takes as long for a near miss as for a far one.
    key: Option<[u8; 32]>,
    loopback: bool,
}

impl Guard {
    pub(crate) fn new(listen: SocketAddr, api_key: Option<&str>) -> Self {
        Self { key: api_key.map(hash), loopback: listen.ip().is_loopback() }
    }

    fn check(&self, method: &Method, headers: &HeaderMap, uri: &Uri) -> Result<(), ApiError> {
        // Every browser sends Origin with requests from other sites' pages.
        if headers.contains_key(ORIGIN) {
            return Err(ApiError::forbidden(
                "requests from web pages are refused here; use the console that 'retinker up' serves"
                    .to_owned(),
            ));
        }
        if self.loopback {
            // A page whose name was re-pointed to 127.0.0.1 sends its own name.
            let host = headers
                .get(HOST)
                .and_then(|host| host.to_str().ok())
                .or_else(|| uri.authority().map(|a| a.as_str()));
            if !host.is_some_and(is_loopback_name) {
                return Err(ApiError::forbidden(
                    "the Host header does not name this machine: call the service as 127.0.0.1 or localhost"
                        .to_owned(),
                ));
            }
        }
        if let Some(key) = &self.key
            && !(method == Method::GET && (uri.path() == HEALTH || is_file(uri.path())))
        {
            let given = headers.get("x-api-key").map(|given| given.as_bytes());
            return match given {
                Some(given) if constant_time_eq(&hash_bytes(given), key) => Ok(()),
                Some(_) => {
                    Err(ApiError::unauthorized("the API key in X-API-Key is not the service's".to_owned()))
                }
                None => {
                    Err(ApiError::unauthorized("this service requires its API key in X-API-Key".to_owned()))
                }
            };
        }
        Ok(())
    }
}

/// Whether a path is that of a file that is handed out to whoever knows its address.
fn is_file(path: &str) -> bool {
    path.strip_prefix(FILES).is_some_and(|rest| rest.starts_with('/'))
}

/// Lets a request pass, or refuses it.
pub(crate) async fn guard(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.check(request.method(), request.headers(), request.uri()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn hash(key: &str) -> [u8; 32] {
    hash_bytes(key.as_bytes())
}

fn hash_bytes(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

fn constant_time_eq(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}

/// Whether a `Host` names this machine, with or without a port.
fn is_loopback_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((name, port)) if port.is_empty() || is_port(port) => name,
            _ => return false,
        },
        None => match host.split_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            Some(_) => return false,
            None => host,
        },
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_port(text: &str) -> bool {
    text.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_names_of_this_machine() {
        for good in
            ["127.0.0.1", "127.0.0.1:8080", "localhost:1", "LOCALHOST", "[::1]", "[::1]:80", "127.8.9.1:5"]
        {
            assert!(is_loopback_name(good), "{good}");
        }
        for bad in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "[::1]x",
            "",
            "10.0.0.1",
            "::1",
        ] {
            assert!(!is_loopback_name(bad), "{bad}");
        }
    }

    #[test]
    fn pages_and_strangers_are_refused() {
        let guard = Guard::new("127.0.0.1:1".parse().unwrap(), None);
        let uri: Uri = "/api/v1/training_runs".parse().unwrap();
        let status = |pairs: &[(&'static str, &'static str)]| {
            guard.check(&Method::GET, &headers(pairs), &uri).err().map(|error| error.status.as_u16())
        };
        assert_eq!(status(&[("host", "127.0.0.1:1")]), None);
        assert_eq!(status(&[("host", "localhost:1"), ("x-api-key", "tml-any")]), None);
        assert_eq!(status(&[("host", "evil.example")]), Some(403));
        assert_eq!(status(&[]), Some(403));
        assert_eq!(status(&[("host", "127.0.0.1:1"), ("origin", "http://127.0.0.1:1")]), Some(403));
    }

    #[test]
    fn a_key_is_required_where_one_is_set() {
        let guard = Guard::new("0.0.0.0:1".parse().unwrap(), Some("tml-secret"));
        let ask = |method: Method, path: &str, key: Option<&'static str>| {
            let pairs: Vec<_> =
                key.map(|key| ("x-api-key", key)).into_iter().chain([("host", "box:1")]).collect();
            let refused = guard.check(&method, &headers(&pairs), &path.parse().unwrap()).err();
            refused.map(|error| error.status.as_u16())
        };
        let check = |path: &str, key| ask(Method::GET, path, key);
        assert_eq!(check("/api/v1/training_runs", Some("tml-secret")), None);
        assert_eq!(check("/api/v1/training_runs", Some("tml-secreT")), Some(401));
        assert_eq!(check("/api/v1/training_runs", None), Some(401));
        assert_eq!(check("/api/v1/healthz", None), None);
        for path in [
            "/api/v1/sessions/healthz",
            "/api/v1/training_runs/healthz",
            "/api/v1/training_runs/a/checkpoints/weights/healthz",
            "/api/v1/healthz/",
            "/healthz",
        ] {
            assert_eq!(check(path, None), Some(401), "{path}");
        }
        assert_eq!(ask(Method::DELETE, "/api/v1/healthz", None), Some(401));
    }
}
