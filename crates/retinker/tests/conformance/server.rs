//! A server that misbehaves on request, for testing transports: raw sockets and threads, so that it can do what
//! no proper server would. It listens on the loopback interface only, and keeps no connection waiting for ever.

// A process of its own, outside of any runtime.
#![allow(clippy::disallowed_methods)]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// No wait in here is longer than this.
const PATIENCE: Duration = Duration::from_secs(20);

/// Marks that requests set and others wait for, and counts of requests, by name.
#[derive(Default)]
struct Marks {
    counts: Mutex<HashMap<String, u64>>,
    changed: Condvar,
}

impl Marks {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, name: String) -> u64 {
        let mut counts = self.lock();
        let count = counts.entry(name).or_default();
        *count += 1;
        let count = *count;
        self.changed.notify_all();
        count
    }

    fn count(&self, name: &str) -> u64 {
        self.lock().get(name).copied().unwrap_or(0)
    }

    fn wait_for(&self, name: &str) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let mut counts = self.lock();
        while !counts.contains_key(name) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            counts = self.changed.wait_timeout(counts, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// Starts the server on a free port of 127.0.0.1, for as long as the process lives.
pub(crate) fn start() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let marks = Arc::new(Marks::default());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let marks = marks.clone();
            // A connection that breaks ends its own thread and nothing else.
            thread::spawn(move || drop(serve(stream, &marks)));
        }
    });
    Ok(address)
}

struct Asked {
    method: String,
    path: String,
    query: HashMap<String, String>,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Asked {
    fn id(&self) -> &str {
        self.query.get("id").map_or("", String::as_str)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Asked>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut parts = line.split_whitespace();
    let (method, target) = (parts.next().unwrap_or_default().to_owned(), parts.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = query.split('&').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.into(), v.into()));
    let (path, query) = (path.to_owned(), query.collect());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(n, _)| n == "content-length").and_then(|(_, v)| v.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    Ok(Some(Asked { method, path, query, headers, body }))
}

/// A head with what a browser needs to let any page read the answer.
fn head(status: &str, asked: &Asked, more: &[(&str, &str)]) -> String {
    let mut head = format!("HTTP/1.1 {status}\r\n");
    let allowed = asked.header("access-control-request-headers").unwrap_or("*");
    let cors = [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-methods", "GET, POST, PUT, DELETE"),
        ("access-control-allow-headers", allowed),
        ("access-control-allow-private-network", "true"),
        ("access-control-expose-headers", "*"),
    ];
    for (name, value) in cors.iter().chain(more) {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head.push_str("\r\n");
    head
}

fn whole(
    out: &mut TcpStream,
    status: &str,
    asked: &Asked,
    more: &[(&str, &str)],
    body: &[u8],
) -> io::Result<()> {
    let length = body.len().to_string();
    let mut headers = vec![("content-length", length.as_str())];
    headers.extend(more);
    out.write_all(head(status, asked, &headers).as_bytes())?;
    out.write_all(body)
}

fn chunk(out: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    write!(out, "{:x}\r\n", bytes.len())?;
    out.write_all(bytes)?;
    out.write_all(b"\r\n")?;
    out.flush()
}

/// Blocks until the peer closes its side.
fn until_closed(reader: &mut BufReader<TcpStream>) {
    let mut byte = [0];
    while let Ok(1..) = reader.read(&mut byte) {}
}

fn serve(stream: TcpStream, marks: &Marks) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE * 3))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut out = stream;
    const JSON: (&str, &str) = ("content-type", "application/json");
    const CHUNKED: (&str, &str) = ("transfer-encoding", "chunked");
    while let Some(asked) = read_request(&mut reader)? {
        let id = asked.id().to_owned();
        if asked.method == "OPTIONS" {
            whole(&mut out, "204 No Content", &asked, &[("access-control-max-age", "600")], b"")?;
            continue;
        }
        marks.set(format!("asked {} {id}", asked.path));
        match asked.path.as_str() {
            // One piece at once, the rest when somebody asks for /release.
            "/slow" => {
                out.write_all(head("200 OK", &asked, &[CHUNKED]).as_bytes())?;
                chunk(&mut out, b"first ")?;
                if !marks.wait_for(&format!("asked /release {id}")) {
                    return Ok(());
                }
                for piece in ["second ", "third"] {
                    chunk(&mut out, piece.as_bytes())?;
                }
                out.write_all(b"0\r\n\r\n")?;
            }
            "/release" => whole(&mut out, "200 OK", &asked, &[], b"released")?,
            // Half of what was promised.
            "/half" => {
                out.write_all(head("200 OK", &asked, &[("content-length", "1000")]).as_bytes())?;
                out.write_all(&[b'x'; 500])?;
                return Ok(());
            }
            // A chunked body that lacks its end.
            "/half-chunked" => {
                out.write_all(head("200 OK", &asked, &[CHUNKED]).as_bytes())?;
                chunk(&mut out, b"first ")?;
                return Ok(());
            }
            // No answer at all.
            "/closed" => return Ok(()),
            "/redirect" => {
                whole(&mut out, "302 Found", &asked, &[("location", &format!("/redirected?id={id}"))], b"")?;
            }
            "/redirected" => whole(&mut out, "200 OK", &asked, &[], b"followed")?,
            // No answer until the peer gives up.
            "/hang" => {
                until_closed(&mut reader);
                marks.set(format!("gone {id}"));
                return Ok(());
            }
            // A body without an end, until the peer gives up.
            "/endless" => {
                out.write_all(head("200 OK", &asked, &[CHUNKED]).as_bytes())?;
                let deadline = Instant::now() + PATIENCE * 2;
                while Instant::now() < deadline {
                    if chunk(&mut out, &[b'x'; 4096]).is_err() {
                        marks.set(format!("gone {id}"));
                        break;
                    }
                    thread::sleep(Duration::from_millis(2));
                }
                return Ok(());
            }
            // Answers when a request of that path has come, or when its peer has given it up.
            "/wait" => {
                let name = asked.query.get("for").map_or("", String::as_str);
                let found = match name.strip_prefix("asked-") {
                    Some(path) => marks.wait_for(&format!("asked /{path} {id}")),
                    None => marks.wait_for(&format!("{name} {id}")),
                };
                whole(&mut out, "200 OK", &asked, &[], if found { b"yes" } else { b"no" })?;
            }
            "/count" => {
                let path = asked.query.get("of").map_or("", String::as_str);
                let count = marks.count(&format!("asked /{path} {id}"));
                whole(&mut out, "200 OK", &asked, &[], count.to_string().as_bytes())?;
            }
            "/big" => {
                let length: usize = asked.query.get("bytes").and_then(|n| n.parse().ok()).unwrap_or(0);
                let body: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
                whole(&mut out, "200 OK", &asked, &[], &body)?;
            }
            // What came, as lines.
            "/echo" => {
                let mut text = format!("{}\n", asked.method);
                let sum =
                    asked.body.iter().fold(0u64, |sum, b| sum.wrapping_mul(31).wrapping_add(u64::from(*b)));
                let _ = writeln!(text, "{} {sum}", asked.body.len());
                for (name, value) in &asked.headers {
                    let _ = writeln!(text, "{name}: {value}");
                }
                whole(&mut out, "201 Created", &asked, &[("x-answer", "back, again")], text.as_bytes())?;
            }
            // `not-yet:<n>:<unique>` is ready at the n+1st question.
            "/api/v1/retrieve_future" => {
                let text = String::from_utf8_lossy(&asked.body).into_owned();
                let key = text.split('"').find(|part| part.starts_with("not-yet:")).unwrap_or_default();
                let wanted: u64 = key.split(':').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
                if marks.set(format!("asked /future {key}")) <= wanted {
                    let body = br#"{"queue_state":"active"}"#;
                    whole(&mut out, "408 Request Timeout", &asked, &[JSON], body)?;
                } else {
                    whole(&mut out, "200 OK", &asked, &[JSON], br#"{"metrics":{"steps":1.0}}"#)?;
                }
            }
            _ => whole(&mut out, "404 Not Found", &asked, &[JSON], br#"{"detail":"Not Found"}"#)?,
        }
    }
    Ok(())
}
