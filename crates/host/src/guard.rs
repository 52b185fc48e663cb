//! Who may talk to the host: whoever reaches it spends the key.
//!
//! Against other programs on the machine: a token, made at each start, in a header. Against web pages in the user's
//! own browser: exact host names (a name that resolves to 127.0.0.1 is not enough), the browser's statements about
//! where a request comes from, and content types that no form can send. Against what a page could be made to do:
//! a strict Content-Security-Policy.

use std::net::SocketAddr;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use retinker::client::Secret;
use retinker::host::api::TOKEN_HEADER;

use crate::assets::Assets;
use crate::problem::Problem;

/// The rules of one running host.
#[derive(Debug)]
pub(crate) struct Guard {
    hosts: Vec<String>,
    token: Secret,
    policy: HeaderValue,
}

impl Guard {
    /// The guard of a host that listens here.
    pub(crate) fn new(address: SocketAddr, token: Secret, assets: &Assets) -> Self {
        let port = address.port();
        let hosts = vec![format!("127.0.0.1:{port}"), format!("localhost:{port}"), format!("[::1]:{port}")];
        Self { hosts, token, policy: content_policy(assets) }
    }

    /// Everything that is checked before a request is looked at any further.
    fn check(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), Problem> {
        let host = only(headers, &header::HOST)?.unwrap_or_default();
        if !self.hosts.iter().any(|allowed| allowed == host) {
            return Err(refused(
                "host_not_allowed",
                "This host does not go by that name.",
                "Open the address that retinker printed at its start.",
            ));
        }
        if let Some(origin) = only(headers, &header::ORIGIN)?
            && origin.strip_prefix("http://") != Some(host)
        {
            return Err(refused("origin_not_allowed", "Another site's page may not ask this host.", ""));
        }
        let guarded = is_guarded(path);
        let site = only(headers, &HeaderName::from_static("sec-fetch-site"))?;
        if !matches!(site, None | Some("same-origin" | "none")) {
            // A link to the console on another page is followed like one that was typed: the page tells nothing
            // without the token, and cannot be framed.
            let mode = only(headers, &HeaderName::from_static("sec-fetch-mode"))?;
            if guarded || mode != Some("navigate") || method != Method::GET {
                return Err(refused("site_not_allowed", "Another site's page may not ask this host.", ""));
            }
        }
        if !guarded {
            return Ok(());
        }
        let token = only(headers, &HeaderName::from_static(TOKEN_HEADER))?.unwrap_or_default();
        if !same(token.as_bytes(), self.token.expose().as_bytes()) {
            return Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "token_missing",
                "This address lacks the token of the running retinker, or has an old one.",
                "Open the whole address that retinker printed at its start; it ends in #token=…",
            ));
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            let kind = only(headers, &header::CONTENT_TYPE)?.unwrap_or_default();
            let kind = kind.split(';').next().unwrap_or_default().trim();
            if !["application/json", "application/x-protobuf"].iter().any(|ok| kind.eq_ignore_ascii_case(ok))
            {
                return Err(Problem::new(
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    "content_type_not_allowed",
                    "Requests must be application/json or application/x-protobuf.",
                    "",
                ));
            }
        }
        Ok(())
    }
}

/// The paths that spend the key or tell what it can see by the host's token. Everything else is the console's files, and
/// [downloads](crate::downloads), each of which has a secret address of its own.
pub(crate) fn is_guarded(path: &str) -> bool {
    ["/retinker", "/api"]
        .iter()
        .any(|prefix| path == *prefix || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/')))
}

fn refused(code: &str, message: &str, hint: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, code, message, hint)
}

/// A header's value where there is one; two of a kind are refused, since two readers could pick different ones.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    let odd = || Problem::bad_request(format!("The header {name} cannot be read."));
    if values.next().is_some() {
        return Err(odd());
    }
    first.map(|value| value.to_str().map_err(|_| odd())).transpose()
}

/// Compares in a time that does not tell where the difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && std::hint::black_box(a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b))) == 0
}

fn content_policy(assets: &Assets) -> HeaderValue {
    let list = |hashes: Vec<String>| hashes.iter().map(|hash| format!(" {hash}")).collect::<String>();
    let policy = format!(
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'{}; style-src 'self'{}; img-src 'self' data:; \
         font-src 'self'; connect-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        list(assets.inline_hashes("script")),
        list(assets.inline_hashes("style"))
    );
    HeaderValue::from_str(&policy).unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"))
}

/// The guard as a layer around every route.
pub(crate) async fn layer(
    State(guard): State<std::sync::Arc<Guard>>,
    request: Request,
    next: Next,
) -> Response {
    let checked = guard.check(request.method(), request.uri().path(), request.headers());
    let mut response = match checked {
        Ok(()) => next.run(request).await,
        Err(problem) => {
            tracing::debug!(code = %problem.problem.code, "a request was refused");
            problem.into_response()
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, guard.policy.clone());
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn guard() -> Guard {
        let address = "127.0.0.1:8787".parse().unwrap();
        Guard::new(address, Secret::new(TOKEN), &Assets::embedded())
    }

    fn check(method: Method, path: &str, pairs: &[(&str, &str)]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        guard().check(&method, path, &headers).err().map(|problem| problem.problem.code)
    }

    const HOST: (&str, &str) = ("host", "127.0.0.1:8787");
    const KEY: (&str, &str) = (TOKEN_HEADER, TOKEN);
    const API: &str = "/retinker/v1/status";

    #[test]
    fn hosts_are_exact() {
        for host in ["127.0.0.1:8787", "localhost:8787", "[::1]:8787"] {
            assert_eq!(check(Method::GET, API, &[("host", host), KEY]), None, "{host}");
        }
        for host in [
            "127.0.0.1",
            "127.0.0.1:8788",
            "127.0.0.1:87870",
            "evil.example:8787",
            "localhost.evil.example:8787",
            "127.0.0.2:8787",
            "0.0.0.0:8787",
            "",
        ] {
            assert_eq!(
                check(Method::GET, "/", &[("host", host)]).as_deref(),
                Some("host_not_allowed"),
                "{host}"
            );
        }
        assert_eq!(check(Method::GET, "/", &[]).as_deref(), Some("host_not_allowed"));
        assert_eq!(check(Method::GET, "/", &[HOST, HOST]).as_deref(), Some("bad_request"), "two of a kind");
    }

    #[test]
    fn the_origin_is_our_own_or_absent() {
        for (origin, code) in [
            ("http://127.0.0.1:8787", None),
            ("http://localhost:8787", Some("origin_not_allowed")),
            ("https://127.0.0.1:8787", Some("origin_not_allowed")),
            ("http://127.0.0.1:9999", Some("origin_not_allowed")),
            ("null", Some("origin_not_allowed")),
            ("https://evil.example", Some("origin_not_allowed")),
        ] {
            assert_eq!(
                check(Method::GET, API, &[HOST, KEY, ("origin", origin)]).as_deref(),
                code,
                "{origin}"
            );
        }
    }

    #[test]
    fn what_the_browser_says_of_the_site() {
        for (site, code) in [
            ("same-origin", None),
            ("none", None),
            ("same-site", Some("site_not_allowed")),
            ("cross-site", Some("site_not_allowed")),
        ] {
            let headers = [HOST, KEY, ("sec-fetch-site", site), ("sec-fetch-mode", "cors")];
            assert_eq!(check(Method::GET, API, &headers).as_deref(), code, "{site}");
            assert_eq!(check(Method::GET, "/", &headers).as_deref(), code, "{site}");
        }
        let link = [HOST, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
        assert_eq!(check(Method::GET, "/", &link), None, "a link to the page");
        assert_eq!(check(Method::GET, API, &link).as_deref(), Some("site_not_allowed"));
    }

    #[test]
    fn the_token_stands_before_everything_that_spends_the_key() {
        for path in [API, "/retinker", "/retinker/other", "/api/v1/training_runs", "/api/", "/api"] {
            assert_eq!(check(Method::GET, path, &[HOST]).as_deref(), Some("token_missing"), "{path}");
        }
        for token in
            ["", "0", &TOKEN[1..], "1123456789abcdef0123456789abcdef", "0123456789ABCDEF0123456789ABCDEF"]
        {
            let headers = [HOST, (TOKEN_HEADER, token)];
            assert_eq!(check(Method::GET, API, &headers).as_deref(), Some("token_missing"), "{token}");
        }
        assert_eq!(check(Method::GET, API, &[HOST, KEY, KEY]).as_deref(), Some("bad_request"));
        assert_eq!(check(Method::GET, "/runs/x", &[HOST]), None, "the page itself is no secret");
    }

    #[test]
    fn bodies_that_no_form_can_send() {
        for (kind, code) in [
            ("application/json", None),
            ("Application/JSON; charset=utf-8", None),
            ("application/x-protobuf", None),
            ("text/plain", Some("content_type_not_allowed")),
            ("application/x-www-form-urlencoded", Some("content_type_not_allowed")),
            ("multipart/form-data; boundary=application/json", Some("content_type_not_allowed")),
        ] {
            let headers = [HOST, KEY, ("content-type", kind)];
            assert_eq!(check(Method::POST, API, &headers).as_deref(), code, "{kind}");
        }
        assert_eq!(check(Method::POST, API, &[HOST, KEY]).as_deref(), Some("content_type_not_allowed"));
    }

    #[test]
    fn the_policy_is_strict() {
        let policy = guard().policy.to_str().unwrap().to_owned();
        for part in ["default-src 'none'", "frame-ancestors 'none'", "'wasm-unsafe-eval'", "base-uri 'none'"]
        {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(
            !policy.contains("unsafe-inline") && !policy.contains("'unsafe-eval'") && !policy.contains('*')
        );
    }
}
