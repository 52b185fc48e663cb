//! Web pages of chosen origins: what browsers have to be told so that such a page may call.

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, VARY,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

/// Asked for and granted when a public page calls a service on the user's own machine.
const REQUEST_PRIVATE: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// Headers that clients of the protocol send.
const HEADERS: [&str; 12] = [
    "accept",
    "authorization",
    "cache-control",
    "content-encoding",
    "content-type",
    "idempotency-key",
    "last-event-id",
    "user-agent",
    "x-api-key",
    "x-idempotency-key",
    "x-sdk-method",
    "x-sdk-version",
];
const HEADER_FAMILIES: [&str; 2] = ["x-stainless-", "x-tinker-"];
/// Headers of answers that clients of the protocol act on.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "retry-after, retry-after-ms, x-should-retry, www-authenticate, x-deprecation-note, x-deprecation-level",
);

/// The origins whose pages may call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origins(Vec<String>);

impl Origins {
    /// Reads what was configured. The error says what is wrong with which.
    pub(crate) fn new(given: &[String]) -> Result<Self, String> {
        given.iter().map(|origin| normal(origin)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether pages of this origin may call.
    pub(crate) fn allow(&self, origin: &HeaderValue) -> bool {
        self.0.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes())
    }
}

/// An origin as browsers write it.
fn normal(given: &str) -> Result<String, String> {
    let fail = |reason: &str| {
        Err(format!(
            "'{given}' is not the origin of web pages: {reason}; expected the like of http://localhost:3000"
        ))
    };
    if given.contains('*') || given == "null" {
        return fail("each origin has to be named");
    }
    let Ok(uri) = given.parse::<Uri>() else { return fail("it is not an address") };
    let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return fail("it does not begin with http:// or https://");
    };
    if uri.path() != "/" || uri.query().is_some() {
        return fail("it goes on after the host and port");
    }
    if authority.as_str().contains('@') {
        return fail("it holds a user name");
    }
    let default = if scheme == "http" { 80 } else { 443 };
    let port = authority.port_u16().filter(|port| *port != default);
    let port = port.map_or_else(String::new, |port| format!(":{port}"));
    Ok(format!("{scheme}://{}{port}", authority.host().to_ascii_lowercase()))
}

/// Whether a browser asks if it may send a request.
pub(crate) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to that. The caller adds for which origin it is.
pub(crate) fn preflight(headers: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let answer = response.headers_mut();
    answer.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, PUT, DELETE"));
    answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    let asked =
        headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter().filter_map(|names| names.to_str().ok());
    let granted: Vec<&str> = asked.flat_map(|names| names.split(',')).map(str::trim).filter(known).collect();
    if let Ok(granted) = HeaderValue::from_str(&granted.join(", "))
        && !granted.is_empty()
    {
        answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, granted);
    }
    if headers.contains_key(REQUEST_PRIVATE) {
        answer.insert(ALLOW_PRIVATE, HeaderValue::from_static("true"));
    }
    answer.append(VARY, HeaderValue::from_static("access-control-request-headers"));
    response
}

fn known(name: &&str) -> bool {
    let name = name.to_ascii_lowercase();
    HEADERS.contains(&name.as_str()) || HEADER_FAMILIES.iter().any(|family| name.starts_with(family))
}

/// Says that pages of this origin may read the answer.
pub(crate) fn share(answer: &mut HeaderMap, origin: HeaderValue) {
    answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
}

/// Says that other origins get other answers, so that no cache mixes them up.
pub(crate) fn vary(answer: &mut HeaderMap) {
    answer.append(VARY, HeaderValue::from_static("origin"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_written_as_browsers_do() {
        for (given, expected) in [
            ("http://localhost:3000", "http://localhost:3000"),
            ("HTTPS://App.Example", "https://app.example"),
            ("https://app.example:443/", "https://app.example"),
            ("http://app.example:443", "http://app.example:443"),
            ("http://[::1]:80", "http://[::1]"),
        ] {
            assert_eq!(normal(given).as_deref(), Ok(expected), "{given}");
        }
        for bad in [
            "*",
            "null",
            "",
            "localhost:3000",
            "app.example",
            "ftp://a",
            "http://a/b",
            "http://a?b",
            "http://u@a",
            "https://*.a",
        ] {
            assert!(normal(bad).is_err_and(|error| error.contains(&format!("'{bad}'"))), "{bad}");
        }
    }
}
