//! HTTP/1.1 as plain as can be: one kept connection, one request at a time. It costs next to nothing, so that what is
//! measured is the service.

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A kept connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    host: String,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects to `http://host:port`.
    pub async fn open(base_url: &str) -> Result<Self> {
        let host = base_url.strip_prefix("http://").context("the address does not begin with http://")?;
        let host = host.trim_end_matches('/').to_owned();
        let stream = TcpStream::connect(&host).await.with_context(|| format!("{host} cannot be reached"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, host, buffer: Vec::with_capacity(64 << 10) })
    }

    /// `POST` of anything to a path below `/api/v1/`; only the status of the answer.
    pub async fn status(&mut self, path: &str, content_type: &str, body: &[u8]) -> Result<u16> {
        let mut request = format!(
            "POST /api/v1/{path} HTTP/1.1\r\nHost: {}\r\nX-API-Key: tml-test\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
            self.host,
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        Ok(self.exchange(&request).await?.0)
    }

    /// `GET` of a path below `/api/v1/`. The body of an answer that is not 200 is in the error.
    pub async fn get(&mut self, path: &str) -> Result<&[u8]> {
        let request =
            format!("GET /api/v1/{path} HTTP/1.1\r\nHost: {}\r\nX-API-Key: tml-test\r\n\r\n", self.host);
        self.send(&request).await
    }

    /// `POST` of JSON to a path below `/api/v1/`. The body of an answer that is not 200 is in the error.
    pub async fn post(&mut self, path: &str, json: &str) -> Result<&[u8]> {
        let request = format!(
            "POST /api/v1/{path} HTTP/1.1\r\nHost: {}\r\nX-API-Key: tml-test\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{json}",
            self.host,
            json.len()
        );
        self.send(&request).await
    }

    async fn send(&mut self, request: &str) -> Result<&[u8]> {
        let (status, body) = self.exchange(request.as_bytes()).await?;
        let body = self.buffer.get(body).unwrap_or_default();
        if status != 200 {
            bail!("the service answered {status}: {}", String::from_utf8_lossy(body));
        }
        Ok(body)
    }

    /// Sends a request and gives the answer's status, and where its body is in the buffer.
    async fn exchange(&mut self, request: &[u8]) -> Result<(u16, std::ops::Range<usize>)> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let mut answer = None;
        loop {
            if answer.is_none() {
                answer = head(&self.buffer)?;
            }
            if let Some((status, body, length)) = answer
                && self.buffer.len() >= body + length
            {
                return Ok((status, body..body + length));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the service closed the connection in the middle of an answer");
            }
        }
    }
}

/// Status, where the body begins, and its length; `None` while the head is not complete.
fn head(answer: &[u8]) -> Result<Option<(u16, usize, usize)>> {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(answer.get(..end).unwrap_or_default())?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("the answer has no status")?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then_some(value.trim())
    });
    let length = length.context("the answer has no Content-Length")?.parse()?;
    Ok(Some((status.parse()?, end + 4, length)))
}
