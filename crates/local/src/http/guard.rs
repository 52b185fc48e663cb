//! Who may call: programs on this machine, or whoever has the key. Of web pages only those of the origins named.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, HOST, ORIGIN, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::auth::Tokens;
use super::cors::{self, Origins};
use super::downloads::FILES;
use super::error::ApiError;
use super::faults::PREFIX as FAULTS;
use crate::faults::API_PREFIX;

/// What asks whether the service is alive, which needs no key.
const HEALTH: &str = "/api/v1/healthz";
/// How every JWT begins.
const JWT: &[u8] = b"eyJ";
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Who may call.
#[derive(Clone)]
pub(crate) struct Guard {
    /// Hash of the key. Comparing hashes takes as long for a near miss as for a far one.
    key: Option<[u8; 32]>,
    /// The tokens that were given out for the key.
    tokens: Arc<Tokens>,
    loopback: bool,
    origins: Origins,
}

/// Why a request may not pass.
#[derive(Debug)]
enum Refusal {
    Plain(ApiError),
    /// The token is old or another's: a client exchanges its key for a new one.
    Token(ApiError),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Plain(error) => error.into_response(),
            Self::Token(error) => {
                let challenge = HeaderValue::from_static(r#"Bearer error="invalid_token""#);
                ([(WWW_AUTHENTICATE, challenge)], error).into_response()
            }
        }
    }
}

impl Guard {
    pub(crate) fn new(
        listen: SocketAddr,
        api_key: Option<&str>,
        tokens: Arc<Tokens>,
        origins: Origins,
    ) -> Self {
        let key = api_key.map(|key| hash(key.as_bytes()));
        Self { key, tokens, loopback: listen.ip().is_loopback(), origins }
    }

    /// Checks what a browser says of where a request comes from. Gives the origin of the page that sent it, if a page did.
    fn check_site(&self, uri: &Uri, headers: &HeaderMap) -> Result<Option<HeaderValue>, ApiError> {
        if self.loopback {
            // A page whose name was re-pointed to 127.0.0.1 sends its own name.
            let host = only(headers, &HOST)?;
            let host =
                host.and_then(|host| host.to_str().ok()).or_else(|| uri.authority().map(|a| a.as_str()));
            if !host.is_some_and(is_loopback_name) {
                return Err(ApiError::forbidden(
                    "the Host header does not name this machine: call the service as 127.0.0.1 or localhost"
                        .to_owned(),
                ));
            }
        }
        match only(headers, &ORIGIN)? {
            // Every browser sends Origin with requests that a page of another origin could read or change things by.
            Some(origin) if is_fault_api(uri.path()) || !self.origins.allow(origin) => Err(foreign_page()),
            Some(origin) => Ok(Some(origin.clone())),
            // What a page only embeds or links to has no Origin.
            None => from_here(headers).map(|()| None),
        }
    }

    fn check_key(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        if method == Method::GET && (uri.path() == HEALTH || is_file(uri.path())) {
            return Ok(());
        }
        let refused = |detail: &str| ApiError::unauthorized(detail.to_owned());
        let given = only(headers, &API_KEY).map_err(Refusal::Plain)?.map(HeaderValue::as_bytes);
        let Some(key) = &self.key else {
            // Any key does, but a program that has none would fail on the real service, so it does here.
            return match given {
                None | Some([]) if uri.path().starts_with(API_PREFIX) => Err(Refusal::Plain(refused(
                    "there is no API key in X-API-Key: any does for this service, such as TINKER_API_KEY=tml-local",
                ))),
                _ => Ok(()),
            };
        };
        match given {
            None => Err(Refusal::Plain(refused("this service requires its API key in X-API-Key"))),
            Some(given) if same(&hash(given), key) => Ok(()),
            Some(given) if given.starts_with(JWT) => self.tokens.check(given).map_err(|reason| {
                Refusal::Token(refused(&format!("the token in X-API-Key is not valid: {reason}")))
            }),
            Some(_) => Err(Refusal::Plain(refused("the API key in X-API-Key is not the service's"))),
        }
    }
}

/// Whether a path is that of a file that is handed out to whoever knows its address.
fn is_file(path: &str) -> bool {
    path.strip_prefix(FILES).is_some_and(|rest| rest.starts_with('/'))
}

/// Lets a request pass, or refuses it.
pub(crate) async fn guard(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let origin = match guard.check_site(request.uri(), request.headers()) {
        Ok(origin) => origin,
        Err(error) => return error.into_response(),
    };
    let mut response = if origin.is_some() && cors::is_preflight(request.method(), request.headers()) {
        cors::preflight(request.headers())
    } else {
        match guard.check_key(request.method(), request.uri(), request.headers()) {
            Ok(()) => next.run(request).await,
            Err(refusal) => refusal.into_response(),
        }
    };
    if let Some(origin) = origin {
        cors::share(response.headers_mut(), origin);
    }
    if !guard.origins.is_empty() {
        cors::vary(response.headers_mut());
    }
    response
}

/// A second guard around what breaks things on purpose. No page gets there, whatever its origin, and no form.
pub(crate) async fn no_pages(request: Request, next: Next) -> Response {
    match check_no_page(request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn check_no_page(method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.contains_key(ORIGIN) {
        return Err(foreign_page());
    }
    from_here(headers)?;
    if matches!(*method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    let kind = only(headers, &CONTENT_TYPE)?.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(ApiError::unsupported_media("send Content-Type: application/json, also without a body".to_owned()))
}

/// Refuses what a browser says another site made it send.
fn from_here(headers: &HeaderMap) -> Result<(), ApiError> {
    match only(headers, &FETCH_SITE)?.map(HeaderValue::as_bytes) {
        None | Some(b"none" | b"same-origin") => Ok(()),
        Some(_) => Err(foreign_page()),
    }
}

fn foreign_page() -> ApiError {
    ApiError::forbidden(
        "requests from web pages are refused here; use the console that 'retinker up' serves, or name the page's \
         origin with --cors-origin when the service is started"
            .to_owned(),
    )
}

fn is_fault_api(path: &str) -> bool {
    path.strip_prefix(FAULTS).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A header's value where there is one; two of a kind are refused, since two readers could pick different ones.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, ApiError> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    match values.next() {
        None => Ok(first),
        Some(_) => Err(ApiError::bad_request(format!("the header {name} is there more than once"))),
    }
}

fn hash(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
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
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    fn guard(listen: &str, key: Option<&str>, origins: &[&str]) -> Guard {
        let origins: Vec<String> = origins.iter().map(|origin| (*origin).to_owned()).collect();
        let tokens = Arc::new(Tokens::new().unwrap());
        Guard::new(listen.parse().unwrap(), key, tokens, Origins::new(&origins).unwrap())
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

    const HOST_HERE: (&str, &str) = ("host", "127.0.0.1:1");

    #[test]
    fn pages_and_strangers_are_refused() {
        let guard = guard("127.0.0.1:1", None, &[]);
        let check = |pairs: &[(&'static str, &'static str)]| {
            let refused = guard.check_site(&Uri::from_static("/api/v1/sessions"), &headers(pairs)).err();
            refused.map(|error| error.status.as_u16())
        };
        assert_eq!(check(&[HOST_HERE]), None);
        assert_eq!(check(&[("host", "evil.example")]), Some(403));
        assert_eq!(check(&[]), Some(403));
        assert_eq!(check(&[HOST_HERE, HOST_HERE]), Some(400));
        assert_eq!(check(&[HOST_HERE, ("origin", "https://evil.example")]), Some(403));
        assert_eq!(check(&[HOST_HERE, ("origin", "http://127.0.0.1:1")]), Some(403));
        for (site, refused) in
            [("none", None), ("same-origin", None), ("same-site", Some(403)), ("cross-site", Some(403))]
        {
            assert_eq!(check(&[HOST_HERE, ("sec-fetch-site", site)]), refused, "{site}");
        }
    }

    #[test]
    fn pages_of_named_origins_may_call_but_never_break_things() {
        let guard = guard("127.0.0.1:1", None, &["http://app.example:3000"]);
        let check = |path: &'static str, origin: &'static str| {
            let headers = headers(&[HOST_HERE, ("origin", origin), ("sec-fetch-site", "cross-site")]);
            guard.check_site(&Uri::from_static(path), &headers).is_ok_and(|origin| origin.is_some())
        };
        let named = "http://app.example:3000";
        assert!(check("/api/v1/sessions", named));
        for other in [
            "https://app.example:3000",
            "http://app.example",
            "http://app.example:30000",
            "http://x.app.example:3000",
            "null",
        ] {
            assert!(!check("/api/v1/sessions", other), "{other}");
        }
        assert!(check("/retinker/local/v1/faultsx", named));
        for path in [FAULTS, "/retinker/local/v1/faults/", "/retinker/local/v1/faults/poison"] {
            assert!(!check(path, named), "{path}");
        }
        let embedded = headers(&[HOST_HERE, ("sec-fetch-site", "cross-site")]);
        assert!(guard.check_site(&Uri::from_static("/api/v1/sessions"), &embedded).is_err());
    }

    #[test]
    fn what_breaks_things_takes_no_page_and_no_form() {
        let check = |method: Method, pairs: &[(&'static str, &'static str)]| {
            check_no_page(&method, &headers(pairs)).err().map(|error| error.status.as_u16())
        };
        let json = ("content-type", "Application/JSON; charset=utf-8");
        assert_eq!(check(Method::GET, &[]), None);
        assert_eq!(check(Method::POST, &[json]), None);
        assert_eq!(check(Method::POST, &[json, ("origin", "http://127.0.0.1:1")]), Some(403));
        assert_eq!(check(Method::GET, &[("sec-fetch-site", "cross-site")]), Some(403));
        assert_eq!(check(Method::POST, &[json, ("sec-fetch-site", "same-site")]), Some(403));
        for kind in ["text/plain", "application/x-www-form-urlencoded", "application/x-protobuf", ""] {
            assert_eq!(check(Method::POST, &[("content-type", kind)]), Some(415), "{kind}");
        }
        assert_eq!(check(Method::DELETE, &[]), Some(415));
    }

    #[test]
    fn a_key_is_required_where_one_is_set() {
        let guard = guard("0.0.0.0:1", Some("tml-secret"), &[]);
        let ask = |method: Method, path: &str, key: Option<&'static str>| {
            let pairs: Vec<_> = key.map(|key| ("x-api-key", key)).into_iter().collect();
            let refused = guard.check_key(&method, &path.parse().unwrap(), &headers(&pairs)).err();
            refused.map(|refusal| refusal.into_response().status().as_u16())
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
            FAULTS,
        ] {
            assert_eq!(check(path, None), Some(401), "{path}");
        }
        assert_eq!(ask(Method::DELETE, "/api/v1/healthz", None), Some(401));
    }

    #[test]
    fn a_token_does_for_the_key_until_it_is_old_or_anothers() {
        let guard = guard("0.0.0.0:1", Some("tml-secret"), &[]);
        let ask = |token: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(API_KEY, HeaderValue::from_str(token).unwrap());
            let refused =
                guard.check_key(&Method::GET, &Uri::from_static("/api/v1/sessions"), &headers).err();
            refused.map(|refusal| {
                let response = refusal.into_response();
                let challenge = response.headers().get(WWW_AUTHENTICATE).cloned();
                (response.status().as_u16(), challenge.map(|c| c.to_str().unwrap().to_owned()))
            })
        };
        let invalid = Some((401, Some(r#"Bearer error="invalid_token""#.to_owned())));
        assert_eq!(ask(&guard.tokens.issue()), None);
        assert_eq!(ask(&Tokens::new().unwrap().issue()), invalid, "another start's");
        assert_eq!(ask("eyJ"), invalid);
        // The SDK would exchange its key for a token over and over.
        assert_eq!(ask("tml-wrong"), Some((401, None)));
    }
}
