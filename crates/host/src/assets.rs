//! The console's files, embedded at build time.

use std::collections::HashMap;

use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};

/// One file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asset {
    /// Below `dist/`, with `/` between its parts.
    pub(crate) path: &'static str,
    pub(crate) bytes: &'static [u8],
    /// The same, compressed.
    pub(crate) brotli: Option<&'static [u8]>,
}

include!(concat!(env!("OUT_DIR"), "/assets.rs"));

const STUB: &str = include_str!("stub.html");

/// All files by path.
#[derive(Debug)]
pub(crate) struct Assets {
    files: HashMap<&'static str, Asset>,
}

impl Assets {
    /// What was embedded; a page that says how to build the console, when nothing was.
    pub(crate) fn embedded() -> Self {
        if EMBEDDED.is_empty() {
            return Self::of(&[Asset { path: "index.html", bytes: STUB.as_bytes(), brotli: None }]);
        }
        Self::of(EMBEDDED)
    }

    pub(crate) fn of(files: &[Asset]) -> Self {
        Self { files: files.iter().map(|asset| (asset.path, *asset)).collect() }
    }

    /// The inline scripts and styles of `index.html`, as the Content-Security-Policy names them: the page may run
    /// these and nothing else that is not a file of ours.
    pub(crate) fn inline_hashes(&self, tag: &str) -> Vec<String> {
        let index = self.files.get("index.html").map_or(&b""[..], |asset| asset.bytes);
        let text = String::from_utf8_lossy(index);
        inline_bodies(&text, tag)
            .into_iter()
            .map(|body| {
                let digest = Sha256::digest(body.as_bytes());
                format!("'sha256-{}'", base64::engine::general_purpose::STANDARD.encode(digest))
            })
            .collect()
    }

    /// The answer to a GET of this path. A path without an extension is one of the console's own addresses.
    pub(crate) fn answer(&self, path: &str, headers: &HeaderMap) -> Option<Response> {
        let path = path.trim_start_matches('/');
        let last = path.rsplit('/').next().unwrap_or(path);
        let asset = match self.files.get(path) {
            Some(asset) => asset,
            // Ids may hold dots.
            None if !last.contains('.') || path.starts_with("runs/") => self.files.get("index.html")?,
            None => return None,
        };
        let caching = if asset.path != "index.html" && has_hash(asset.path) {
            "public, max-age=31536000, immutable"
        } else {
            "no-cache"
        };
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::OK;
        let out = response.headers_mut();
        out.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(asset.path)));
        out.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
        let body = match asset.brotli {
            Some(brotli) => {
                out.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
                if accepts_brotli(headers) {
                    out.insert(header::CONTENT_ENCODING, HeaderValue::from_static("br"));
                    brotli
                } else {
                    asset.bytes
                }
            }
            None => asset.bytes,
        };
        *response.body_mut() = Body::from(body);
        Some(response)
    }
}

fn accepts_brotli(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').any(|choice| {
            let mut parts = choice.split(';').map(str::trim);
            let refused = |q: &str| q.strip_prefix("q=").is_some_and(|q| q.trim().parse() == Ok(0.0));
            parts.next().is_some_and(|name| name.eq_ignore_ascii_case("br")) && !parts.any(refused)
        })
    })
}

/// Whether the name holds a hash of its contents, as trunk writes them: `console-1a2b3c4d5e6f7a8b_bg.wasm`.
fn has_hash(path: &str) -> bool {
    path.split(['-', '.', '_', '/'])
        .any(|part| part.len() >= 12 && part.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "wasm" => "application/wasm",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// The contents of elements of this name that stand in the page itself.
fn inline_bodies<'a>(html: &'a str, tag: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{tag}"), format!("</{tag}"));
    // Tags are ASCII, so positions in the lower-case copy are positions in the page.
    let lower = html.to_ascii_lowercase();
    let mut bodies = Vec::new();
    let mut at = 0;
    while let Some(start) = lower.get(at..).and_then(|rest| rest.find(&open)).map(|found| at + found) {
        let after_name = start + open.len();
        let Some(end_of_tag) =
            lower.get(after_name..).and_then(|rest| rest.find('>')).map(|n| after_name + n)
        else {
            break;
        };
        let attributes = lower.get(after_name..end_of_tag).unwrap_or_default();
        let body_start = end_of_tag + 1;
        let Some(body_end) =
            lower.get(body_start..).and_then(|rest| rest.find(&close)).map(|n| body_start + n)
        else {
            break;
        };
        let whole_name = attributes.is_empty() || attributes.starts_with([' ', '\n', '\t', '\r', '/']);
        let has_src = attributes.split_ascii_whitespace().any(|a| a == "src" || a.starts_with("src="));
        if whole_name && !has_src {
            bodies.extend(html.get(body_start..body_end));
        }
        at = body_end;
    }
    bodies
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    const PAGE: &str = "<!doctype html><SCRIPT type=module>import a from '/x.js';</SCRIPT><script src=\"/y.js\"></script>\
                        <style>b{}</style><scripted>no</scripted>";

    fn assets() -> Assets {
        Assets::of(&[
            Asset { path: "index.html", bytes: PAGE.as_bytes(), brotli: None },
            Asset { path: "console-0123456789abcdef_bg.wasm", bytes: b"plain", brotli: Some(b"small") },
            Asset { path: "icon.svg", bytes: b"<svg/>", brotli: None },
        ])
    }

    async fn get(path: &str, encoding: Option<&str>) -> Option<(HeaderMap, Vec<u8>)> {
        let mut headers = HeaderMap::new();
        if let Some(encoding) = encoding {
            headers.insert(header::ACCEPT_ENCODING, encoding.parse().unwrap());
        }
        let response = assets().answer(path, &headers)?;
        let (parts, body) = response.into_parts();
        Some((parts.headers, to_bytes(body, 1 << 20).await.unwrap().to_vec()))
    }

    #[tokio::test]
    async fn hashed_files_are_kept_and_the_page_is_asked_for_again() {
        let (headers, body) = get("/console-0123456789abcdef_bg.wasm", None).await.unwrap();
        assert_eq!(headers["content-type"], "application/wasm");
        assert_eq!(headers["cache-control"], "public, max-age=31536000, immutable");
        assert_eq!(body, b"plain");
        assert!(!headers.contains_key("content-encoding"));
        let (headers, _) = get("/", None).await.unwrap();
        assert_eq!(headers["cache-control"], "no-cache");
        let (headers, _) = get("/icon.svg", None).await.unwrap();
        assert_eq!(headers["cache-control"], "no-cache");
    }

    #[tokio::test]
    async fn brotli_for_those_who_take_it() {
        for (encoding, brotli) in [
            ("gzip, deflate, br", true),
            ("br;q=0.5", true),
            ("br;q=0", false),
            ("gzip", false),
            ("brr", false),
        ] {
            let (headers, body) = get("/console-0123456789abcdef_bg.wasm", Some(encoding)).await.unwrap();
            assert_eq!(headers.contains_key("content-encoding"), brotli, "{encoding}");
            assert_eq!(body == b"small", brotli, "{encoding}");
            assert_eq!(headers["vary"], "accept-encoding");
        }
    }

    #[tokio::test]
    async fn addresses_of_the_console_give_the_page_and_missing_files_do_not() {
        for path in ["/", "/runs/s:train:0", "/runs/model.v1", "/restores"] {
            assert_eq!(get(path, None).await.unwrap().1, PAGE.as_bytes(), "{path}");
        }
        assert!(get("/missing.js", None).await.is_none());
        assert!(get("/../Cargo.toml", None).await.is_none());
    }

    #[test]
    fn only_what_stands_in_the_page_is_hashed() {
        assert_eq!(inline_bodies(PAGE, "script"), ["import a from '/x.js';"]);
        assert_eq!(inline_bodies(PAGE, "style"), ["b{}"]);
        assert_eq!(inline_bodies("<script>never closed", "script"), [""; 0]);
        // printf "import a from '/x.js';" | openssl dgst -sha256 -binary | base64
        assert_eq!(
            assets().inline_hashes("script"),
            ["'sha256-TvVDCdX6DIuj/ySEADL2mDxHKzcr0hyfAY4WI7ilojw='"]
        );
    }

    #[test]
    fn something_is_always_served() {
        assert!(Assets::embedded().answer("/", &HeaderMap::new()).is_some());
        let stub = String::from_utf8_lossy(STUB.as_bytes());
        assert!(UI_EMBEDDED || stub.contains("cargo xtask console"));
    }
}
