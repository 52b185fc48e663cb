//! Files of checkpoints, a piece at a time: nothing is held but the piece, and what breaks off is gone on with where the
//! server allows that.
//!
//! The addresses are secrets of their own: they are asked without the API key, and no error repeats them.

use std::borrow::Cow;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::future::{Either, select};

use super::api::Api;
use super::error::{Error, ErrorKind, detail_of};
use super::retry::backoff;
use super::secret::Secret;
use crate::transport::{BodyStream, Method, Request, Response};

/// How long the first answer, or the next piece, may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is tried again without anything new having come.
const TRIES: u32 = 5;
/// The first and the longest delay before it is tried again.
const DELAYS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// Redirections that are followed.
const REDIRECTS: u32 = 3;

/// A file that is being downloaded.
// Methods that wait take it as `&mut`: a body is not `Sync`, and shared it would keep who downloads from being spawned.
pub struct Download {
    api: Api,
    operation: String,
    address: Secret,
    body: Option<BodyStream>,
    received: u64,
    total: Option<u64>,
    /// What the server names this version of the file by, if it does.
    version: Option<String>,
    resumable: bool,
}

impl std::fmt::Debug for Download {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Download")
            .field("operation", &self.operation)
            .field("received", &self.received)
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}

impl Download {
    /// Begins to download what is at an address, from an offset on if the server allows it; [`received`](Self::received)
    /// then says so. `name` says what it is, for errors.
    ///
    /// # Errors
    /// Each is that of the last of six attempts, where another may help. [`ErrorKind::Refused`] with the server's status,
    /// e.g. 403 or 404 when the address has expired. [`ErrorKind::Config`] if it is not one of `http:` or `https:`, such
    /// as TuFT's `file:`; the error names the place. [`ErrorKind::NeverSent`] or [`ErrorKind::MayHaveBeenSent`] without a
    /// connection that holds, the latter also if it is redirected more than three times; [`ErrorKind::TimedOut`] without
    /// an answer within 60 s.
    pub async fn open(api: &Api, name: &str, address: &Secret, offset: u64) -> Result<Self, Error> {
        Self::resume(api, name, address, offset, None).await
    }

    /// The same, to go on with an earlier download of the version that the server named so (see
    /// [`version`](Self::version)); if it has another one now, it is downloaded from its beginning.
    ///
    /// # Errors
    /// As of [`open`](Self::open); [`ErrorKind::Config`] if the server gives the rest of another version all the same.
    pub async fn resume(
        api: &Api,
        name: &str,
        address: &Secret,
        offset: u64,
        version: Option<String>,
    ) -> Result<Self, Error> {
        let mut download = Self {
            api: api.clone(),
            operation: format!("download of {name}"),
            address: address.clone(),
            body: None,
            received: offset,
            total: None,
            version,
            resumable: false,
        };
        let mut failures = 0;
        while let Err(error) = download.ask().await {
            download.wait(&mut failures, error).await?;
        }
        Ok(download)
    }

    /// How many bytes there are before the next piece, those of an earlier download included.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// What the server names this version of the file by, if it does: its entity tag or its date.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// How many there are in all, where the server says so.
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// The next piece; `None` at the end, which is where the server said it would be. What breaks off is gone on with,
    /// where the server allows that, and given up after five more attempts that brought nothing.
    ///
    /// # Errors
    /// As of [`open`](Self::open). [`ErrorKind::MayHaveBeenSent`] also for a file that ends before its end, or goes on
    /// behind it; [`ErrorKind::TimedOut`] if nothing came for 60 s; [`ErrorKind::Config`] if the file has changed
    /// meanwhile.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let mut failures = 0;
        loop {
            let error = match self.piece().await {
                Ok(Some(piece)) => {
                    self.received += piece.len() as u64;
                    if self.total.is_some_and(|total| self.received > total) {
                        return Err(self.broken("more came than the server had announced"));
                    }
                    return Ok(Some(piece));
                }
                Ok(None) if self.total.is_none_or(|total| self.received == total) => return Ok(None),
                Ok(None) => self.broken("it ended before its end"),
                Err(error) => error,
            };
            self.body = None;
            if !self.resumable {
                return Err(error);
            }
            self.wait(&mut failures, error).await?;
        }
    }

    /// All that is left.
    ///
    /// # Errors
    /// As of [`next`](Self::next); [`ErrorKind::Config`] if it is longer than this many bytes.
    pub async fn whole(&mut self, most: usize) -> Result<Bytes, Error> {
        let mut whole = BytesMut::new();
        while let Some(piece) = self.next().await? {
            if whole.len() + piece.len() > most {
                return Err(Error::config(&self.operation, format!("it is longer than {most} bytes")));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    async fn piece(&mut self) -> Result<Option<Bytes>, Error> {
        if self.body.is_none() {
            self.ask().await?;
        }
        let Some(body) = &mut self.body else { return Err(self.broken("the connection broke off")) };
        let limit = self.api.runtime().sleep(PATIENCE);
        let piece = match select(body.next(), limit).await {
            Either::Left((piece, _)) => piece.transpose(),
            Either::Right(_) => {
                return Err(Error::new(&self.operation, ErrorKind::TimedOut { after: PATIENCE }));
            }
        };
        // What the transport says names the address.
        piece.map_err(|_| self.broken("the connection broke off"))
    }

    /// Sleeps before another try, or gives the error back.
    async fn wait(&mut self, failures: &mut u32, error: Error) -> Result<(), Error> {
        if *failures >= TRIES || !error.is_retryable() {
            return Err(error);
        }
        let delay = backoff(DELAYS.0, DELAYS.1, *failures, self.api.runtime().random());
        tracing::debug!(%error, ?delay, received = self.received, "downloading again");
        *failures += 1;
        self.api.runtime().sleep(delay).await;
        Ok(())
    }

    /// Asks for what is missing.
    async fn ask(&mut self) -> Result<(), Error> {
        let response = self.follow().await?;
        let number = |name: &str| response.header(name).and_then(|value| value.trim().parse::<u64>().ok());
        let range = response.header("content-range").and_then(range_of);
        let version = ["etag", "last-modified"].into_iter().find_map(|name| response.header(name));
        let version = version.map(str::to_owned);
        match (response.status, range) {
            (206, Some((start, total))) if start == self.received => {
                if self.version.is_some() && version != self.version {
                    return Err(self.changed());
                }
                self.total = total.or(self.total);
                self.resumable = true;
            }
            (200, _) => {
                if self.resumable {
                    // It had allowed to go on, and begins anew: it is another file now.
                    return Err(self.changed());
                }
                self.received = 0;
                self.total = number("content-length");
                self.resumable =
                    response.header("accept-ranges").is_some_and(|ranges| ranges.contains("bytes"));
            }
            // Everything was there already.
            (416, _) if response.header("content-range").and_then(total_of) == Some(self.received) => {
                self.total = Some(self.received);
                self.body = Some(Box::pin(futures_util::stream::empty()));
                return Ok(());
            }
            (status, _) => {
                let body = whole(response.body).await;
                let (detail, request_id) = (detail_of(&body), None);
                return Err(Error::new(&self.operation, ErrorKind::Refused { status, detail, request_id }));
            }
        }
        self.version = version;
        self.body = Some(response.body);
        Ok(())
    }

    async fn follow(&mut self) -> Result<Response, Error> {
        let mut address = self.address.expose().to_owned();
        for _ in 0..=REDIRECTS {
            self.check(&address)?;
            let mut headers: Vec<(Cow<'static, str>, String)> = vec![("accept".into(), "*/*".to_owned())];
            if self.received > 0 {
                headers.push(("range".into(), format!("bytes={}-", self.received)));
                // An old version's rest must not be put behind a new one's beginning.
                headers.extend(self.version.clone().map(|version| ("if-range".into(), version)));
            }
            let request = Request { method: Method::Get, url: address.clone(), headers, body: Bytes::new() };
            let answer = self.api.caller().transport.send(request);
            let response = match select(answer, self.api.runtime().sleep(PATIENCE)).await {
                Either::Left((Ok(response), _)) => response,
                Either::Left((Err(error), _)) if error.may_have_been_sent() => {
                    return Err(self.broken("the connection broke off"));
                }
                Either::Left((Err(_), _)) => {
                    let message = "no connection to where the file is".to_owned();
                    return Err(Error::new(&self.operation, ErrorKind::NeverSent { message }));
                }
                Either::Right(_) => {
                    return Err(Error::new(&self.operation, ErrorKind::TimedOut { after: PATIENCE }));
                }
            };
            match response.header("location").filter(|_| (300..400).contains(&response.status)) {
                Some(next) => address = next.to_owned(),
                None => return Ok(response),
            }
        }
        Err(self.broken("it was redirected too often"))
    }

    /// Whether something can be asked for there. What can, may be signed, and is a secret; a place on a disk is none.
    fn check(&self, address: &str) -> Result<(), Error> {
        let message = match address.split_once(':') {
            Some(("http" | "https", _)) => return Ok(()),
            Some(("file", _)) => format!(
                "the server says that it lies at {address}, a place on the server's own disk: copy it from there"
            ),
            Some((scheme, _)) if scheme.chars().all(|c| c.is_ascii_alphanumeric()) => {
                format!("the server gives an address of {scheme}:, and only http: and https: can be asked")
            }
            _ => "what the server gives for its address is none".to_owned(),
        };
        Err(Error::config(&self.operation, message))
    }

    fn broken(&self, message: &str) -> Error {
        let of = self.total.map(|total| format!(" of {total}")).unwrap_or_default();
        let message = format!("{message}, after {}{of} bytes", self.received);
        Error::new(&self.operation, ErrorKind::MayHaveBeenSent { message })
    }

    fn changed(&self) -> Error {
        Error::config(&self.operation, "the file changed while it was downloaded: begin anew")
    }
}

/// The beginning of a refusal's body.
async fn whole(mut body: BodyStream) -> Bytes {
    match body.next().await {
        Some(Ok(piece)) => piece,
        _ => Bytes::new(),
    }
}

/// `bytes 5-9/10`: where it begins, and how many there are in all.
fn range_of(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, _) = text.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, total_of(text)))
}

fn total_of(text: &str) -> Option<u64> {
    text.rsplit_once('/')?.1.trim().parse().ok()
}
